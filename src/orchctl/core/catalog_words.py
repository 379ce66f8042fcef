"""What pydantic found, in the words of a person who edits the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from orchctl.core.catalog import (
    CronTrigger,
    Gates,
    JobsFile,
    JobTable,
    SchedulesFile,
    ScheduleTable,
    TimerTrigger,
)
from orchctl.core.mask import looks_secret
from orchctl.core.names import nearest
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
_TAGS = {"timer", "cron"}


@dataclass(frozen=True, slots=True)
class Said:
    """One error: where in the file, and in which words (see `Problem`)."""

    path: Path
    message: str
    allowed: str | None = None
    nearest: str | None = None


def describe(detail: ErrorDetails, prefix: Path) -> Said:
    """Turn one pydantic error below `prefix` into our words."""
    tag = next((part for before, part in _pairs(detail["loc"]) if isinstance(before, int) and part in _TAGS), None)
    inner = tuple(part for before, part in _pairs(detail["loc"]) if not (isinstance(before, int) and part in _TAGS))
    path: Path = (*prefix, *inner)
    kind, found = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        words = sorted(_model(prefix, inner, tag).model_fields)
        return Said(path, "unknown key", allowed=", ".join(words), nearest=nearest(str(inner[-1]), words))
    if kind == "missing":
        return Said(path, "is missing")
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
        return Said(
            path,
            f"found {_shown(path, found)}",
            allowed=" or ".join(words),
            nearest=nearest(str(found), words),
        )
    if kind in _TYPES:
        return Said(path, f"found {_shown(path, found)}, {_type_of(found)}", allowed=_TYPES[kind])
    if kind == "value_error":
        return Said(path, _value_error(path, detail))
    return Said(path, f"found {_shown(path, found)}", allowed=_constraint(detail))


def _pairs(loc: tuple[int | str, ...]) -> list[tuple[int | str | None, int | str]]:
    return list(zip((None, *loc), loc, strict=False))


def _model(prefix: Path, inner: tuple[int | str, ...], tag: int | str | None) -> Any:
    if tag is not None:
        return CronTrigger if tag == "cron" else TimerTrigger
    if inner[0] == "gates" and len(inner) > 1:
        return Gates
    if prefix[:1] in {("jobs",), ("defaults",)}:
        return JobTable
    if prefix[:1] == ("schedules",):
        return ScheduleTable
    return SchedulesFile if inner[0] == "schedules" or "timezone" in inner else JobsFile


def _value_error(path: Path, detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if any(isinstance(part, str) and looks_secret(part) for part in path):
        return message.replace(repr(detail["input"]), "***")
    return message


def _shown(path: Path, value: object) -> str:
    """Write a value of the file, cut to a line; never one of a key that looks secret."""
    if any(isinstance(part, str) and looks_secret(part) for part in path):
        return "***"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if not isinstance(value, str) else f'"{value}"'.encode("unicode_escape").decode()
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
