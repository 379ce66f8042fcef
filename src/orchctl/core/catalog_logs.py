"""`[logs]` of jobs.toml: where run logs and events go besides the disk and Prefect. Off unless it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from orchctl.core.catalog_fields import AbsolutePath, Table, Text
from orchctl.core.names import ENV_KEY_PATTERN, is_env_key

if TYPE_CHECKING:
    from orchctl.core.catalog_source import Source

OURS = frozenset({"app", "host", "job", "kind"})
"""Labels that every stream has already."""
LABEL_PATTERN = r"^[a-zA-Z_][a-zA-Z0-9_]{0,62}$"
_URL_PATTERN = r"^https?://[^\s@]+$"
_ADDRESSES = ("url", "url_env", "url_file")


def _variable(text: str) -> str:
    # The value is not quoted: whoever mistakes the key writes the secret itself here.
    if not is_env_key(text):
        raise ValueError("is not the name of a variable of the environment: the address goes there")
    return text


Variable = Annotated[str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": ENV_KEY_PATTERN})]


class LokiTable(Table):
    """Grafana Loki, by its push API. Says `url`, `url_env` or `url_file`."""

    url: Annotated[str, Field(pattern=_URL_PATTERN)] | None = None
    """Its address without user and password, such as http://127.0.0.1:3100."""
    url_env: Variable | None = None
    """The variable of the worker's environment that holds the address, which may hold user and password."""
    url_file: AbsolutePath | None = None
    """The file that holds the address and nothing else; nobody but the worker's user may read it."""
    tenant: Annotated[Text, Field(pattern=r"^[A-Za-z0-9!._*'()-]{1,150}$")] | None = None
    """The tenant (X-Scope-OrgID), where Loki has several."""
    labels: dict[Annotated[str, Field(pattern=LABEL_PATTERN)], Annotated[Text, Field(max_length=200)]] = Field(
        default_factory=dict, max_length=8
    )
    """More labels for every stream, beside app, host, job and kind."""
    structured_metadata: bool = True
    """Whether run id, attempt and step go along as structured metadata (Loki 3); else each line begins with them."""


class LogsTable(Table):
    """Where run logs and events go besides the disk and Prefect."""

    loki: LokiTable | None = None
    """To Grafana Loki."""


def check(source: Source) -> None:
    """Note what no single key shows: an address that is missing, or there twice, and labels that are ours."""
    logs = source.data.get("logs")
    loki = logs.get("loki") if isinstance(logs, dict) else None
    if not isinstance(loki, dict):
        return
    named = [key for key in _ADDRESSES if key in loki]
    if len(named) != 1:
        found = f"has {' and '.join(named)}" if named else "does not say where Loki is"
        source.wrong(("logs", "loki"), found, allowed="exactly one of url, url_env, url_file")
    labels: object = loki.get("labels")
    for name in labels if isinstance(labels, Mapping) else ():
        if name in OURS:
            source.wrong(("logs", "loki", "labels", name), "is a label that every stream has already")
