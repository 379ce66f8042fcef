"""The JSON Schemas of the catalog's files, for editors: from the same models that `orchctl check` uses.

A schema sees one table at a time. What spans tables (a schedule that is named and missing, a trigger of two
jobs, a key that neither the job nor `[defaults]` has, a word of a template) only `check` can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from orchctl.core import durations
from orchctl.core.catalog import JobsFile, SchedulesFile
from orchctl.core.catalog_alerts import AlertsFile
from orchctl.core.contracts import ContractsFile
from orchctl.core.templates import PATTERN as TEMPLATE_PATTERN

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_CRON_PATTERN = r"^\s*\S+(\s+\S+){4}\s*$"
_CADENCES = ("cron", "on_calendar", "every", "rrule")
# What stands below these are names, though one may read like a word of JSON Schema (`default`, `pattern`).
_NAMED = ("properties", "patternProperties", "$defs")
_ABSOLUTE_PATTERN = r"^(/|\{data_root\}|\{run_dir\})"
_PLACE_PATTERN = r"^(/|\{data_root\}|\{run_dir\}).*\{game_date\}.*/[^/]*\{run_id\}[^/]*/*$"


def jobs() -> Schema:
    """Return the schema of `jobs.toml`."""
    schema = _of(JobsFile, "jobs")
    tables = schema["$defs"]
    schema["properties"]["defaults"]["not"] = {"required": ["steps"]}
    _templates(tables["JobTable"]["properties"], ("command", "dry_run_command"))
    _templates(tables["StepTable"]["properties"], ("command",))
    tables["StepTable"]["properties"]["outputs"]["items"]["allOf"] = [{"pattern": _ABSOLUTE_PATTERN}]
    _steps(tables)
    _partition(tables)
    return schema


def _templates(keys: Schema, commands: Sequence[str]) -> None:
    """Say which keys of a job or a step hold templates, and that a command begins with a program."""
    for key in (*commands, "outputs"):
        keys[key]["items"]["pattern"] = TEMPLATE_PATTERN
    for key in commands:
        keys[key]["prefixItems"] = [{**keys[key]["items"], "not": {"pattern": r"^\s*$"}}]
    keys["env"]["additionalProperties"]["pattern"] = TEMPLATE_PATTERN


def _steps(tables: Schema) -> None:
    source, publish, use = (tables[name] for name in ("InputTable", "PublishTable", "ContractUse"))
    source["oneOf"] = [{"required": ["path"]}, {"required": ["step"]}]
    source["properties"]["path"] |= {"pattern": TEMPLATE_PATTERN, "allOf": [{"pattern": _ABSOLUTE_PATTERN}]}
    publish["properties"]["to"] |= {"pattern": TEMPLATE_PATTERN, "allOf": [{"pattern": _PLACE_PATTERN}]}
    publish["properties"]["from"] |= {"pattern": TEMPLATE_PATTERN, "not": {"pattern": _ABSOLUTE_PATTERN}}
    publish["if"] = {"properties": {"policy": {"const": "window"}}, "required": ["policy"]}
    publish["then"] = {"required": ["until"]}
    publish["else"] = {"not": {"required": ["until"]}}
    use["properties"]["file"] |= {"pattern": TEMPLATE_PATTERN, "not": {"pattern": _ABSOLUTE_PATTERN}}


def _partition(tables: Schema) -> None:
    key, mode = tables["PartitionKey"], tables["AsOfMode"]
    key["not"] = {"required": ["format", "default"]}
    key["dependentRequired"] = {"shift_months": ["format"]}
    mode["oneOf"] = [{"required": ["command"]}, {"required": ["file"]}]
    mode["dependentRequired"] = {"key": ["file"]}
    mode["properties"]["command"]["minItems"] = 1
    mode["properties"]["command"]["items"]["pattern"] = TEMPLATE_PATTERN
    for name in ("file", "key"):
        mode["properties"][name]["pattern"] = TEMPLATE_PATTERN


def schedules() -> Schema:
    """Return the schema of `schedules.toml`."""
    schema = _of(SchedulesFile, "schedules")
    table = schema["$defs"]["ScheduleTable"]
    table["oneOf"] = [{"required": [key]} for key in _CADENCES]
    table["dependentRequired"] = {"anchor": ["every"]}
    table["properties"]["cron"]["pattern"] = _CRON_PATTERN
    return schema


def contracts() -> Schema:
    """Return the schema of `contracts.toml`."""
    schema = _of(ContractsFile, "contracts")
    table = schema["$defs"]["ContractTable"]
    table["anyOf"] = [{"required": [key]} for key in ("schema", "columns", "unique", "rows", "freshness")]
    table["if"] = {"required": ["schema"]}
    table["then"] = {"not": {"anyOf": [{"required": [key]} for key in ("columns", "unique", "strict")]}}
    table["properties"]["unique"]["items"] |= {"minItems": 1, "uniqueItems": True}
    return schema


def alerts() -> Schema:
    """Return the schema of `alerts.toml`."""
    schema = _of(AlertsFile, "alerts")
    tables = schema["$defs"]
    channel, watchdog = tables["ChannelTable"], tables["WatchdogTable"]
    of_email = ("host", "port", "security", "from", "to", "username", "password_env", "password_file")
    channel["if"] = {"properties": {"kind": {"const": "email"}}, "required": ["kind"]}
    channel["then"] = {"required": ["host", "from", "to"], "not": _any_of(("url_env", "url_file"))}
    channel["else"] = {
        "oneOf": [{"required": ["url_env"]}, {"required": ["url_file"]}],
        "not": _any_of(of_email),
    }
    channel["properties"]["to"]["minItems"] = 1
    channel["not"] = {"required": ["password_env", "password_file"]}
    for key in ("events", "channels"):
        tables["RouteTable"]["properties"][key]["minItems"] = 1
    watchdog["not"] = {"required": ["dead_man_url_env", "dead_man_url_file"]}
    return schema


def _any_of(keys: Sequence[str]) -> Schema:
    return {"anyOf": [{"required": [key]} for key in keys]}


def _of(model: type[BaseModel], tables: str) -> Schema:
    """Return the schema of a file whose key `tables` holds named tables."""
    schema: Schema = {"$schema": _DIALECT, **_as_toml(model.model_json_schema())}
    schema["title"] = f"{tables}.toml"
    return schema


def _as_toml(node: Any) -> Any:
    """Say what TOML can say: no null, durations as they are written, and no empty default."""
    if isinstance(node, list):
        return [_as_toml(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, Mapping):
        return node
    plain = {
        key: {name: _as_toml(inner) for name, inner in value.items()} if key in _NAMED else _as_toml(value)
        for key, value in node.items()
    }
    if len(plain.get("anyOf", ())) == 1:
        (only,) = plain.pop("anyOf")
        plain = {**only, **plain}
    if "patternProperties" in plain:  # names of a form: another one is wrong, not free
        plain["additionalProperties"] = False
    default = plain.pop("default", None)
    if plain.get("pattern") == durations.PATTERN and isinstance(default, int):
        plain["default"] = durations.canonical(default)
    elif default not in (None, "", []) and not isinstance(default, dict):
        plain["default"] = default
    return plain
