"""Pure reading for the Prefect API: JSON into the shapes of `core.remote`; addresses, credentials, errors.

The parsers raise KeyError, TypeError, ValueError or OverflowError for data that no Prefect server sends; the
caller turns these into one of our errors. A key that may hold null may also be absent, since servers differ.
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from orchctl.core.remote import (
    RemoteDeployment,
    RemoteLimit,
    RemotePool,
    RemoteQueue,
    RemoteRun,
    RemoteSchedule,
    RemoteWorker,
)
from orchctl.errors import PrefectUnauthorized, PrefectUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping


def instant(text: str) -> datetime:
    """Return the aware UTC datetime of an ISO 8601 instant. Raises ValueError if it has no offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("an instant without an offset")
    return moment.astimezone(UTC)


def pool(data: Any) -> RemotePool:
    """Return a work pool from its JSON."""
    return RemotePool(
        name=_text(data["name"]),
        type=_text(data["type"]),
        is_paused=_flag(data["is_paused"]),
        status=_text_or_none(data.get("status")),
    )


def queue(data: Any) -> RemoteQueue:
    """Return a work queue from its JSON."""
    return RemoteQueue(
        name=_text(data["name"]),
        priority=_number(data["priority"]),
        concurrency_limit=_number_or_none(data.get("concurrency_limit")),
        is_paused=_flag(data["is_paused"]),
    )


def limit(data: Any) -> RemoteLimit:
    """Return a global concurrency limit from its JSON."""
    return RemoteLimit(
        name=_text(data["name"]),
        limit=_number(data["limit"]),
        active=_flag(data["active"]),
        decay=_amount(data.get("slot_decay_per_second") or 0.0),
    )


def worker(data: Any) -> RemoteWorker:
    """Return a worker from its JSON."""
    return RemoteWorker(
        name=_text(data["name"]),
        online=_text(data["status"]) == "ONLINE",
        last_heartbeat=_instant_or_none(data.get("last_heartbeat_time")),
    )


def deployment(data: Any) -> RemoteDeployment:
    """Return a deployment, with its schedules, from its JSON."""
    return RemoteDeployment(
        id=_text(data["id"]),
        name=_text(data["name"]),
        flow_id=_text(data["flow_id"]),
        paused=_flag(data["paused"]),
        description=_text_or_none(data.get("description")),
        entrypoint=_text_or_none(data.get("entrypoint")),
        path=_text_or_none(data.get("path")),
        pull_steps=tuple(_mapping(step) for step in _list(data.get("pull_steps") or [])),
        tags=tuple(_text(tag) for tag in _list(data["tags"])),
        labels=_mapping(data.get("labels") or {}),
        parameters=_mapping(data["parameters"]),
        parameter_schema=_mapping(data.get("parameter_openapi_schema") or {}),
        enforce_parameter_schema=_flag(data["enforce_parameter_schema"]),
        work_pool=_text_or_none(data.get("work_pool_name")),
        work_queue=_text_or_none(data.get("work_queue_name")),
        # The field `concurrency_limit` of Prefect's own answer is always null.
        concurrency_limit=_number_or_none(_mapping(data.get("global_concurrency_limit") or {}).get("limit")),
        collision_strategy=_text_or_none(_mapping(data.get("concurrency_options") or {}).get("collision_strategy")),
        job_variables=_mapping(data.get("job_variables") or {}),
        schedules=tuple(schedule(each) for each in _list(data["schedules"])),
        status=_text_or_none(data.get("status")),
    )


def schedule(data: Any) -> RemoteSchedule:
    """Return a schedule of a deployment from its JSON."""
    return RemoteSchedule(
        id=_text(data["id"]),
        slug=_text_or_none(data.get("slug")),
        active=_flag(data["active"]),
        schedule=_mapping(data["schedule"]),
        parameters=_mapping(data.get("parameters") or {}),
    )


def run(data: Any) -> RemoteRun:
    """Return a flow run from its JSON."""
    creator = _mapping(data.get("created_by") or {})
    by_schedule = creator.get("type") == "SCHEDULE"
    state = _mapping(data.get("state") or {})
    return RemoteRun(
        id=_text(data["id"]),
        name=_text(data["name"]),
        deployment_id=_text_or_none(data.get("deployment_id")),
        state_type=_text_or_none(data.get("state_type")),
        state_name=_text_or_none(data.get("state_name")),
        state_message=_text_or_none(state.get("message")),
        expected_start=_instant_or_none(data.get("expected_start_time")),
        auto_scheduled=_flag(data["auto_scheduled"]),
        created_by_schedule=_text_or_none(creator.get("id")) if by_schedule else None,
        run_count=_number(data["run_count"]),
        parameters=_mapping(data.get("parameters") or {}),
        state_since=_instant_or_none(state.get("timestamp")),
        worker=_text_or_none(_mapping(data.get("labels") or {}).get("prefect.worker.name")),
        flow_id=_text_or_none(data.get("flow_id")),
    )


def version(data: Any) -> str:
    """Return the version of the server."""
    return _text(data)


def rows(data: Any) -> list[Any]:
    """Return the elements of a list."""
    return _list(data)


def new_id(data: Any) -> str:
    """Return the id in the answer to a creation."""
    return _text(data["id"])


def id_and_name(data: Any) -> tuple[str, str]:
    """Return id and name of a flow from its JSON."""
    return _text(data["id"]), _text(data["name"])


def process_template(data: Any) -> Mapping[str, Any]:
    """Return the default job template of process pools from the metadata of all kinds of workers."""
    return _mapping(data["prefect"]["process"]["default_base_job_configuration"])


def state_answer(data: Any) -> tuple[str, str]:
    """Return status (ACCEPT, REJECT, ABORT, WAIT) and reason ("" if none) of an answer to a new state."""
    details = _mapping(data.get("details") or {})
    return _text(data["status"]), str(details.get("reason") or "")


def messages(data: Any) -> tuple[str, ...]:
    """Return the messages of log records, in order."""
    return tuple(_text(record["message"]) for record in _list(data))


def page(data: Any) -> tuple[int, list[tuple[str, Mapping[str, Any]]]]:
    """Return the count of all rows, and the rows of this page with their ids."""
    return _number(data["count"]), [(_text(row["id"]), _mapping(row)) for row in _list(data["results"])]


def detail(data: Any) -> str:
    """Return what an error's body says, or "".

    Of a validation error only places and messages are taken: Prefect also sends back the whole request.
    """
    if not isinstance(data, dict):
        return ""
    said = data.get("detail") or data.get("exception_detail") or data.get("exception_message") or ""
    items = said if isinstance(said, list) else [said]
    return "; ".join(_problem(item) for item in items)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API is.

    `shown` is the address without user information, query and slash at the end: what is used, and what
    messages name. `userinfo` is "user:password", decoded, or None.
    """

    shown: str
    https: bool
    loopback: bool
    userinfo: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The headers to send, and the strings that must not appear in any message, longest first."""

    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def parse_address(url: str) -> Address:
    """Take an API address apart. Raises PrefectUnreachable, not quoting it, if it is not http or https."""
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        # Not chained: the cause quotes a part of the address, which may be a part of a password.
        raise _bad_address() from None
    # An @ further back means a password with an unescaped / or ?: its parts would pass for host and path.
    astray = "@" in parts.path + parts.query + parts.fragment
    userinfo, _, where = parts.netloc.rpartition("@")
    if parts.scheme not in {"http", "https"} or not host or astray or len(where.split()) != 1:
        raise _bad_address()
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    pair = f"{user}:{password}" if userinfo else ""
    return Address(
        shown=f"{parts.scheme}://{where}{parts.path.rstrip('/')}",
        https=parts.scheme == "https",
        loopback=_is_loopback(host),
        userinfo=pair or None,
        secrets=_longest_first(userinfo, parts.password or "", pair, password),
    )


def credentials(auth_string: str | None, api_key: str | None) -> Credentials:
    """Return what to send for "user:password" (basic auth) or else for an API key (a bearer token).

    Raises PrefectUnauthorized if the key holds what no header can carry.
    """
    key = (api_key or "").strip()
    if not (key.isascii() and (key + "x").isprintable()):
        raise PrefectUnauthorized(
            "the Prefect API key holds characters that cannot be sent", hint="check PREFECT_API_KEY"
        )
    pair = auth_string or ""
    # Environment variables that are not UTF-8 arrive as surrogates: sent as the bytes they were.
    token = base64.b64encode(pair.encode("utf-8", "surrogateescape")).decode()
    headers = {}
    if pair:
        headers["Authorization"] = f"Basic {token}"
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    return Credentials(headers, _longest_first(pair, pair.partition(":")[2], token, key))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the Retry-After of an answer in seconds, or None (also for the form with a date)."""
    value = headers.get("retry-after", "").strip()
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def date(headers: Mapping[str, str]) -> datetime | None:
    """Return the Date of an answer (UTC, whole seconds), None where it has none that can be read."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def bare_url(url: str) -> str:
    """Return an address without user information, query and fragment, for messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()


def one_line(text: str) -> str:
    """Return the text as one line of printable characters: a server's words end up on a terminal."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _bad_address() -> PrefectUnreachable:
    return PrefectUnreachable(
        "the address of the Prefect API is not a usable http or https URL",
        hint="set PREFECT_API_URL, for example to http://127.0.0.1:4200/api",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _longest_first(*secrets: str) -> tuple[str, ...]:
    return tuple(sorted({each for each in secrets if each}, key=lambda each: (-len(each), each)))


def _problem(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    steps = item.get("loc")
    place = ".".join(str(step) for step in steps if step != "body") if isinstance(steps, list) else ""
    return f"{place}: {item.get('msg', '')}" if place else str(item.get("msg", ""))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a boolean")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("not a count")
    return value


def _amount(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
        raise TypeError("not an amount")
    return float(value)


def _number_or_none(value: Any) -> int | None:
    return None if value is None else _number(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _instant_or_none(value: Any) -> datetime | None:
    return None if value is None else instant(_text(value))
