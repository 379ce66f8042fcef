"""The fields of the catalog's tables: their types, what is checked of each, and how a JSON Schema says it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from orchctl.core import durations
from orchctl.core.names import (
    DOTTED_NAME_PATTERN,
    ENV_KEY_PATTERN,
    NAME_PATTERN,
    format_instant,
    is_dotted_name,
    is_name,
    parse_instant,
)


def _not_bool(value: object) -> object:
    if isinstance(value, (bool, float)):  # equal to 1, and so inside Literal[1]
        raise ValueError(f"{str(value).lower()} is not a version")
    return value


def _duration(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a duration like "90s", "5m", "2h" or "1d"')
    return durations.parse(value)


def positive(seconds: int) -> int:
    """Refuse a duration of nothing."""
    if seconds == 0:
        raise ValueError("must be longer than 0s")
    return seconds


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"{text!r} does not match {NAME_PATTERN}")
    return text


def _dotted(text: str) -> str:
    if not is_dotted_name(text):
        raise ValueError(f"{text!r} does not match {DOTTED_NAME_PATTERN} (and may not hold '..')")
    return text


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("may not hold a NUL byte")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/") or "\x00" in text or "\n" in text or ".." in text.split("/"):
        raise ValueError(f"{text!r} is not an absolute path without '..'")
    return text.rstrip("/") or "/"


def _env_file(text: str) -> str:
    return ("-" if text.startswith("-") else "") + _absolute(text.removeprefix("-"))


def _program(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or not argv[0].strip():
        raise ValueError("names no program")
    return argv


def _anchor(value: object) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, datetime) and value.tzinfo is not None:
            return format_instant(value)
        if isinstance(value, str):  # so it stands in the applied catalog's JSON
            return format_instant(parse_instant(value))
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{value} is not an instant with a zone like 2025-12-19T00:00:00Z")


_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": durations.PATTERN, "examples": ["90s", "5m", "2h", "1d"]}
)
Duration = Annotated[
    int,
    BeforeValidator(_duration),
    PlainSerializer(durations.canonical, return_type=str, when_used="json"),
    _DURATION_SCHEMA,
]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Asset = Annotated[
    str,
    AfterValidator(_dotted),
    WithJsonSchema({"type": "string", "pattern": DOTTED_NAME_PATTERN, "not": {"pattern": r"\.\."}}),
]
Text = Annotated[str, AfterValidator(_no_nul)]
AbsolutePath = Annotated[
    str,
    AfterValidator(_absolute),
    WithJsonSchema({"type": "string", "pattern": "^/", "not": {"pattern": r"(^|/)\.\.(/|$)"}}),
]
Argv = Annotated[tuple[Text, ...], Field(strict=False, min_length=1), AfterValidator(_program)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
Env = Annotated[
    Mapping[str, Text],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "propertyNames": {"pattern": ENV_KEY_PATTERN, "not": {"pattern": "^(ORCHCTL_|PREFECT__)"}},
        }
    ),
]
Expressions = Annotated[
    tuple[Text, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
EnvFiles = Annotated[
    tuple[Annotated[str, AfterValidator(_env_file), WithJsonSchema({"type": "string", "pattern": "^-?/"})], ...],
    Field(strict=False),
]
FormatVersion = Annotated[Literal[1], BeforeValidator(_not_bool)]
Anchor = Annotated[str | None, BeforeValidator(_anchor), WithJsonSchema({"type": "string", "format": "date-time"})]


class Table(BaseModel):
    """A TOML table: unknown keys are errors, types are not coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)
