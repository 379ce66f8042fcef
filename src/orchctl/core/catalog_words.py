"""What pydantic found, in the words of a person who edits the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from orchctl.core.catalog import CronTrigger, Gates, JobTable, ScheduleTable, TimerTrigger
from orchctl.core.mask import STARS, Masker, looks_secret
from orchctl.core.names import nearest, visible
from orchctl.core.toml_lines import Path

_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_PLAIN = {"missing": ("is missing", None), "too_short": ("is empty", "at least one")}
_TAGS = {"timer", "cron"}
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
    tag = next((part for before, part in _pairs(detail["loc"]) if isinstance(before, int) and part in _TAGS), None)
    inner = tuple(part for before, part in _pairs(detail["loc"]) if not (isinstance(before, int) and part in _TAGS))
    path: Path = (*prefix, *inner)
    kind, found = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        words = sorted(_model(prefix, inner, tag, top).model_fields)
        return Said(path, "unknown key", allowed=", ".join(words), nearest=nearest(str(inner[-1]), words))
    if kind in _PLAIN:
        return Said(path, *_PLAIN[kind])
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
        is_word = isinstance(found, str) and "'" in expected
        message = f"found {_shown(path, found)}" if is_word else found_words(path, found)
        return Said(path, message, " or ".join(words), nearest(str(found), words) if is_word else None)
    if kind in _TYPES:
        return Said(path, found_words(path, found), allowed=_TYPES[kind])
    if kind == "value_error":
        return Said(path, _value_error(path, detail))
    return Said(path, f"found {_shown(path, found)}", allowed=_constraint(detail))


def is_secret(path: Path) -> bool:
    """Whether the value at `path` must not be shown."""
    return any(isinstance(part, str) and looks_secret(part) for part in path)


def printable(text: str) -> str:
    """Return `text` on one line, without control characters and without the password of any URL."""
    return visible(_URLS.mask(text))


def found_words(path: Path, value: object) -> str:
    """Say what was found and of which type: `found 5, a number`."""
    shown, kind = _shown(path, value), _type_of(value)
    return f"found {shown}" if shown == kind else f"found {shown}, {kind}"


def _pairs(loc: tuple[int | str, ...]) -> list[tuple[int | str | None, int | str]]:
    return list(zip((None, *loc), loc, strict=False))


def _model(prefix: Path, inner: tuple[int | str, ...], tag: int | str | None, top: type[BaseModel]) -> Any:
    if tag is not None:
        return CronTrigger if tag == "cron" else TimerTrigger
    if inner[0] == "gates" and len(inner) > 1:
        return Gates
    if prefix[:1] in {("jobs",), ("defaults",)}:
        return JobTable
    if prefix[:1] == ("schedules",):
        return ScheduleTable
    return top


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
