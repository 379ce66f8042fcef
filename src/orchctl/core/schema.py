"""The JSON Schemas of `jobs.toml` and `schedules.toml`, for editors: from the same models that `orchctl check` uses.

A schema sees one table at a time. What spans tables (a schedule that is named and missing, a trigger of two
jobs, a key that neither the job nor `[defaults]` has) only `check` can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from orchctl.core import durations
from orchctl.core.catalog import JobsFile, SchedulesFile
from orchctl.core.templates import PATTERN as TEMPLATE_PATTERN

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_CRON_PATTERN = r"^\s*\S+(\s+\S+){4}\s*$"
_CADENCES = ("cron", "on_calendar", "every", "rrule")


def jobs() -> Schema:
    """Return the schema of `jobs.toml`."""
    schema = _of(JobsFile, "jobs")
    job = schema["$defs"]["JobTable"]["properties"]
    for key in ("command", "dry_run_command", "outputs"):
        job[key]["items"]["pattern"] = TEMPLATE_PATTERN
    for key in ("command", "dry_run_command"):
        job[key]["prefixItems"] = [{**job[key]["items"], "not": {"pattern": r"^\s*$"}}]
    job["env"]["additionalProperties"]["pattern"] = TEMPLATE_PATTERN
    return schema


def schedules() -> Schema:
    """Return the schema of `schedules.toml`."""
    schema = _of(SchedulesFile, "schedules")
    table = schema["$defs"]["ScheduleTable"]
    table["oneOf"] = [{"required": [key]} for key in _CADENCES]
    table["dependentRequired"] = {"anchor": ["every"]}
    table["properties"]["cron"]["pattern"] = _CRON_PATTERN
    return schema


def _of(model: type[BaseModel], tables: str) -> Schema:
    """Return the schema of a file whose key `tables` holds named tables."""
    schema: Schema = {"$schema": _DIALECT, **_as_toml(model.model_json_schema())}
    schema["title"] = f"{tables}.toml"
    schema["properties"][tables]["additionalProperties"] = False
    return schema


def _as_toml(node: Any) -> Any:
    """Say what TOML can say: no null, durations as they are written, and no empty default."""
    if isinstance(node, list):
        return [_as_toml(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, Mapping):
        return node
    plain = {key: _as_toml(value) for key, value in node.items()}
    if len(plain.get("anyOf", ())) == 1:
        (only,) = plain.pop("anyOf")
        plain = {**only, **plain}
    default = plain.pop("default", None)
    if plain.get("pattern") == durations.PATTERN and isinstance(default, int):
        plain["default"] = durations.canonical(default)
    elif default not in (None, "", []) and not isinstance(default, dict):
        plain["default"] = default
    return plain
