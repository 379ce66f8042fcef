"""What pydantic found, in the words of a person who edits the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from orchctl.core.catalog import CronTrigger, TimerTrigger
from orchctl.core.mask import STARS, Masker, looks_secret
from orchctl.core.names import nearest, visible
from orchctl.core.toml_lines import Path

_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_PLAIN = {"missing": ("is missing", None), "too_short": ("is empty", "at least one")}
_TAGS: Mapping[int | str, type[BaseModel]] = {"timer": TimerTrigger, "cron": CronTrigger}
# Where pydantic names each type that a scalar of a contract could have been: how much of the path is the scalar's.
_SCALARS: Mapping[Path, int] = {("min",): 5, ("max",): 5, ("allowed",): 6}
_URLS = Masker(())


@dataclass(frozen=True, slots=True)
class Said:
    """One error: where in the file, and in which words (see `Problem`)."""

    path: Path
    message: str
    allowed: str | None = None
    nearest: str | None = None


def describe(detail: ErrorDetails, prefix: Path, top: type[BaseModel]) -> Said:
    """Turn one pydantic error below `prefix`, in a file that is a `top`, into our words."""
    tag, loc = _tagged(detail["loc"])
    path: Path = tuple(part for part in (*prefix, *loc) if part != "[key]")
    kind, found = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        words = sorted(field.alias or name for name, field in _table(path, tag, top).model_fields.items())
        return Said(path, "unknown key", allowed=", ".join(words), nearest=nearest(str(path[-1]), words))
    if kind in _PLAIN:
        return Said(path, *_PLAIN[kind])
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
        is_word = isinstance(found, str) and "'" in expected
        message = f"found {_shown(path, found)}" if is_word else found_words(path, found)
        return Said(path, message, " or ".join(words), nearest(str(found), words) if is_word else None)
    if kind in _TYPES:
        scalar = _scalar(path)
        return Said(scalar or path, found_words(path, found), allowed="a number or a text" if scalar else _TYPES[kind])
    if kind == "value_error":
        return Said(path, _value_error(path, detail))
    return Said(path, f"found {_shown(path, found)}", allowed=_constraint(detail))


def _scalar(path: Path) -> Path | None:
    """Return the path of the number or text of a contract that pydantic has tried to read as several types, one a time.

    None for any other path.
    """
    ends = _SCALARS.get(path[4:5], len(path)) if path[:1] == ("contracts",) and path[2:3] == ("columns",) else len(path)
    return path[:ends] if path[ends:] else None


def is_secret(path: Path) -> bool:
    """Whether the value at `path` must not be shown."""
    # The `key` of an as_of mode is a place in a file.
    parts = path[:-1] if "as_of" in path and path[-1] == "key" else path
    return any(isinstance(part, str) and looks_secret(part) for part in parts)


def printable(text: str) -> str:
    """Return `text` on one line, without control characters and without the password of any URL."""
    return visible(_URLS.mask(text))


def found_words(path: Path, value: object) -> str:
    """Say what was found and of which type: `found 5, a number`."""
    shown, kind = _shown(path, value), _type_of(value)
    return f"found {shown}" if shown == kind else f"found {shown}, {kind}"


def _tagged(loc: tuple[int | str, ...]) -> tuple[str | None, tuple[int | str, ...]]:
    """Return the kind of legacy trigger that pydantic puts into a path, and the path without it."""
    for place in range(2, len(loc)):
        kind = loc[place]
        if loc[place - 2] == "legacy" and isinstance(loc[place - 1], int) and kind in _TAGS:
            return str(kind), (*loc[:place], *loc[place + 1 :])
    return None, loc


def _table(path: Path, tag: str | None, top: type[BaseModel]) -> type[BaseModel]:
    """Return the table that the last part of `path` would be a key of, in a file that is a `top`."""
    if tag is not None:
        return _TAGS[tag]
    found: Any = top
    for part in path[:-1]:
        if isinstance(found, type) and issubclass(found, BaseModel):
            fields = found.model_fields.items()
            found = next(field.annotation for name, field in fields if part == (field.alias or name))
        else:  # a list, or a table of tables
            found = next(inner for inner in reversed(get_args(found)) if inner is not ...)
        found = _plain(found)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else top


def _plain(annotation: Any) -> Any:
    """Return an annotation without what is checked of it, and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return _plain(next(kind for kind in get_args(annotation) if kind is not NoneType))
    return annotation


def _value_error(path: Path, detail: ErrorDetails) -> str:
    message, value = detail["msg"].removeprefix("Value error, "), detail["input"]
    if is_secret(path):
        return message.replace(repr(value), STARS)
    return message.replace(repr(value), _type_of(value)) if isinstance(value, (list, dict)) else message


def _shown(path: Path, value: object) -> str:
    """Write a value of the file, cut to a line: never one that may be secret, nor what a list or table holds."""
    if isinstance(value, (list, dict)):
        return _type_of(value)
    if is_secret(path):
        return STARS
    if isinstance(value, bool):
        return str(value).lower()
    text = printable(f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _type_of(value: object) -> str:
    names: Mapping[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value)) or (
        "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else "a date"
    )


def _constraint(detail: ErrorDetails) -> str:
    """Say a bound or a form: pydantic's message is `Input should be …`, the rest of which we keep."""
    message = detail["msg"]
    for start in ("Input should be ", "String should ", "Tuple should "):
        if message.startswith(start):
            return message.removeprefix(start)
    return message
