"""Reads `alerts.toml`, and says what in it cannot hold, means nothing, or would give a secret away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema

from orchctl.core import durations
from orchctl.core.alerts import EVENTS, FAILURES, Alerts, Channel, Event, Kind, Route, Secret, Security
from orchctl.core.alerts import Watchdog as WatchdogSettings
from orchctl.core.catalog_fields import Duration, FormatVersion, Name, Names, Table, Text, Texts
from orchctl.core.catalog_rules import unknown
from orchctl.core.catalog_source import Content, Source, parse, source_of
from orchctl.core.catalog_words import found_words
from orchctl.core.names import NAME_PATTERN, is_name
from orchctl.core.problems import Problem
from orchctl.core.toml_lines import Path
from orchctl.errors import CatalogInvalid

_ENV_PATTERN = r"^[A-Z_][A-Z0-9_]{0,127}$"
_HOST_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$"
_ADDRESS_PATTERN = r"^[^\s@,;<>\x00-\x1f\x7f]+@[^\s@,;<>\x00-\x1f\x7f]+$"
_URL, _PASSWORD, _DEAD_MAN = "url", "password", "dead_man_url"
# What people write who mean a secret, and which key says where it is.
_LITERALS = {"url": _URL, "webhook": _URL, "webhook_url": _URL, "token": _URL, "secret": _URL, "password": _PASSWORD}
_EMAIL_ONLY = ("host", "port", "security", "from", "to", "username", "password_env", "password_file")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _variable(text: str) -> str:
    # The value is not quoted: whoever mistakes the key writes the secret itself here.
    if not re.fullmatch(_ENV_PATTERN.strip("^$"), text):
        raise ValueError(f"is not the name of a variable of the environment ({_ENV_PATTERN}): the secret goes there")
    return text


def _secret_file(text: str) -> str:
    if not text.startswith("/") or "\x00" in text or "\n" in text or ".." in text.split("/"):
        raise ValueError("is not the absolute path of a file without '..': the secret goes into that file")
    return text


Variable = Annotated[str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": _ENV_PATTERN})]
SecretFile = Annotated[
    str,
    AfterValidator(_secret_file),
    WithJsonSchema({"type": "string", "pattern": "^/", "not": {"pattern": r"(^|/)\.\.(/|$)"}}),
]
Address = Annotated[str, Field(pattern=_ADDRESS_PATTERN)]
_LateAfter = Annotated[Duration, Field(ge=10, le=86400)]
_Within = Annotated[Duration, Field(ge=10, le=600)]


class AlertsTable(Table):
    """How alerts behave."""

    late_after: _LateAfter = durations.parse("2m")
    """How long a run that Prefect calls Late may stay so before it is told; Prefect does so 15 s after it was due."""
    repeat_after: Annotated[Duration, Field(ge=60)] = durations.parse("6h")
    """The same trouble of the same job is told again after this, with how often it came up since."""
    burst: Annotated[int, Field(ge=1, le=100)] = 5
    """So many messages go to a channel one by one within `burst_within`; more are held together and sent as one."""
    burst_within: _Within = durations.parse("1m")
    """See `burst`."""


class ChannelTable(Table):
    """One way to people. Where its secrets are stands here, never what they are."""

    kind: Kind
    """What it is; the url of slack and webhook is secret, and email is sent by SMTP."""
    url_env: Variable | None = None
    """The variable of the environment that holds the URL."""
    url_file: SecretFile | None = None
    """The file that holds the URL and nothing else; nobody but its owner may read it."""
    host: Annotated[str, Field(pattern=_HOST_PATTERN)] | None = None
    """The SMTP server."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Its port; default: 587, with security tls 465, with none 25."""
    security: Security = "starttls"
    """How the connection is protected; none only sends no password, or stays on this host."""
    from_: Annotated[Address | None, Field(alias="from")] = None
    """The sender's address."""
    to: Annotated[tuple[Address, ...], Field(strict=False)] = ()
    """The receivers' addresses."""
    username: Text | None = None
    """Who logs in; default: nobody does."""
    password_env: Variable | None = None
    """The variable of the environment that holds the password."""
    password_file: SecretFile | None = None
    """The file that holds the password and nothing else; nobody but its owner may read it."""
    ca_file: SecretFile | None = None
    """Certificates of authorities to trust beside those of the system, in PEM."""
    timeout: Annotated[Duration, Field(ge=1, le=60)] = durations.parse("10s")
    """For one attempt."""


class RouteTable(Table):
    """Which events go to which channels."""

    events: Annotated[tuple[Event, ...], Field(strict=False)]
    """What is told."""
    jobs: Names = ()
    """Only of these jobs, and of those that carry one of `tags`; neither: of every job."""
    tags: Texts = ()
    """Only of jobs that carry one of these tags, and of `jobs`."""
    channels: Names
    """Where to."""


class WatchdogTable(Table):
    """What `orchctl watchdog` looks at."""

    dead_man_url_env: Variable | None = None
    """The variable of the environment that holds the URL which is pinged while all is well."""
    dead_man_url_file: SecretFile | None = None
    """The file that holds it."""
    min_free_percent: Annotated[int, Field(ge=1, le=90)] = 10
    """Less space free than this, where state or data lie, is told."""
    worker_after: Annotated[Duration, Field(ge=30, le=86400)] = durations.parse("3m")
    """How long no worker may have asked for runs."""
    server_after: Annotated[Duration, Field(ge=10, le=86400)] = durations.parse("1m")
    """How long the server may not have answered."""
    handover_after: Annotated[Duration, Field(ge=60, le=7 * 86400)] = durations.parse("15m")
    """How long a handover may stay unfinished."""
    missed_after: Annotated[Duration, Field(ge=60, le=86400)] = durations.parse("5m")
    """How long after a slot fell due, and its job's `catchup_window` ended, no run may have taken it."""


class AlertsFile(Table):
    """Who is told what: `alerts.toml` of orchctl."""

    version: FormatVersion
    """Version of this format."""
    alerts: AlertsTable = AlertsTable()
    """How alerts behave."""
    watchdog: WatchdogTable = WatchdogTable()
    """What `orchctl watchdog` looks at."""
    channels: dict[Name, ChannelTable] = Field(default_factory=dict)
    """The ways to people, by name."""
    routes: dict[Name, RouteTable] = Field(default_factory=dict)
    """Which events go where, by name."""


def build(alerts: tuple[str, Content], jobs: Mapping[str, tuple[str, ...]] | None) -> Alerts:
    """Return what (file name, content) of `alerts.toml` says.

    `jobs` holds the tags of each job of the catalog, None where that could not be read. Raises CatalogInvalid with
    every problem, in file order.
    """
    source = source_of(*alerts, AlertsFile)
    found = _read(source, jobs) if parse(source) else None
    problems = tuple(sorted(set(source.problems), key=Problem.order))
    if problems or found is None:
        count = len(problems)
        raise CatalogInvalid(f"{alerts[0]} has {count} problem{'' if count == 1 else 's'}", problems=problems)
    return found


def together(first: CatalogInvalid, second: CatalogInvalid) -> CatalogInvalid:
    """Return the error that holds the problems of both: those of the catalog, and those of `alerts.toml`."""
    problems = (*first.problems, *second.problems)
    message = f"the catalog has {len(problems)} problems" if first.hint is None else first.message
    return CatalogInvalid(message, problems=problems, hint=first.hint)


def _read(source: Source, jobs: Mapping[str, tuple[str, ...]] | None) -> Alerts:
    shell = {key: value for key, value in source.data.items() if key not in {"channels", "routes"}}
    if isinstance(shell.get("watchdog"), dict):
        shell["watchdog"] = _without_literals(source, ("watchdog",), shell["watchdog"], {"dead_man_url": _DEAD_MAN})
    try:
        head = AlertsFile.model_validate(shell)
    except ValidationError as error:
        source.refused(error, ())
        head = AlertsFile(version=1)
    dead_man = _secret(source, ("watchdog",), head.watchdog, _DEAD_MAN, needed=False)
    channels = {name: _channel(source, name, raw) for name, raw in _tables(source, "channels")}
    _check_block_names(source, channels)
    routes = [route for name, raw in _tables(source, "routes") if (route := _route(source, name, raw, channels, jobs))]
    _check_recoveries(source, routes)
    seen = head.watchdog
    return Alerts(
        channels={name: channel for name, channel in sorted(channels.items()) if channel is not None},
        routes=tuple(sorted(routes, key=lambda route: route.name)),
        watchdog=WatchdogSettings(
            dead_man=dead_man,
            min_free_percent=seen.min_free_percent,
            worker_after=seen.worker_after,
            server_after=seen.server_after,
            handover_after=seen.handover_after,
            missed_after=seen.missed_after,
        ),
        late_after=head.alerts.late_after,
        repeat_after=head.alerts.repeat_after,
        burst=head.alerts.burst,
        burst_within=head.alerts.burst_within,
    )


def _tables(source: Source, key: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the named tables below a key; what is none of it is noted."""
    tables = source.data.get(key, {})
    if not isinstance(tables, dict):
        source.wrong((key,), found_words((key,), tables), allowed=f"tables [{key}.NAME]")
        return []
    found = []
    for name, raw in tables.items():
        if not is_name(name):
            source.wrong((key, name), f'the name "{name}" is not allowed', allowed=NAME_PATTERN)
        elif not isinstance(raw, dict):
            source.wrong((key, name), found_words((key, name), raw), allowed=f"a table [{key}.NAME]")
        else:
            found.append((name, raw))
    return found


def _without_literals(
    source: Source, path: Path, raw: Mapping[str, Any], literals: Mapping[str, str]
) -> dict[str, Any]:
    """Return a table without the secrets that somebody wrote into it; each is noted, and none is shown."""
    for key in sorted(set(raw) & set(literals)):
        where = literals[key]
        source.wrong(
            (*path, key),
            "would be a secret in the catalog, which everybody may read",
            allowed=f'{where}_env = "NAME" (a variable of the environment) or {where}_file = "/path" (a file, 0600)',
        )
    return {key: value for key, value in raw.items() if key not in literals}


def _secret(source: Source, path: Path, table: Table, key: str, *, needed: bool) -> Secret | None:
    """Return where a secret is by the keys `…_env` and `…_file` of a table."""
    env, file = getattr(table, f"{key}_env"), getattr(table, f"{key}_file")
    if env is not None and file is not None:
        source.wrong((*path, f"{key}_file"), f"stands beside {key}_env", allowed="one of the two")
    if env is None and file is None:
        if needed:
            source.wrong(path, f"does not say where its {key} is", allowed=f"{key}_env or {key}_file")
        return None
    return Secret(env=env) if env is not None else Secret(file=file)


def _channel(source: Source, name: str, raw: dict[str, Any]) -> Channel | None:
    """Return a channel; None where it has problems, which are noted."""
    path: Path = ("channels", name)
    before = len(source.problems)
    plain = _without_literals(source, path, raw, _LITERALS)
    hidden = len(plain) != len(raw)
    try:
        table = ChannelTable.model_validate(plain)
    except ValidationError as error:
        source.refused(error, path)
        return None
    if table.kind == "email":
        for key in ("url_env", "url_file"):
            if key in plain:
                source.wrong((*path, key), "means nothing for email", allowed="host, from and to")
        made = _email(source, path, table, hidden=hidden)
    else:
        for key in _EMAIL_ONLY:
            if key in plain:
                source.wrong((*path, key), f"means nothing for {table.kind}", allowed="url_env or url_file")
        url = _secret(source, path, table, _URL, needed=not hidden)
        made = Channel(name, table.kind, url, ca_file=table.ca_file, timeout=table.timeout)
    return made if len(source.problems) == before else None


def _email(source: Source, path: Path, table: ChannelTable, *, hidden: bool) -> Channel:
    for key, value in (("host", table.host), ("from", table.from_), ("to", table.to)):
        if not value:
            source.wrong((*path, key), "is missing" if value is None else "is empty", allowed="email needs it")
    password = _secret(source, path, table, _PASSWORD, needed=table.username is not None and not hidden)
    if password is not None and table.username is None:
        source.wrong(path, "has a password and no username", allowed="username beside it")
    if password is not None and table.security == "none" and table.host not in _LOOPBACK:
        source.wrong(
            (*path, "security"), "none would send the password for everybody to read", allowed="starttls or tls"
        )
    port = table.port or {"starttls": 587, "tls": 465, "none": 25}[table.security]
    return Channel(
        path[1] if isinstance(path[1], str) else "",
        "email",
        host=table.host or "",
        port=port,
        security=table.security,
        sender=table.from_ or "",
        to=table.to,
        username=table.username,
        password=password,
        ca_file=table.ca_file,
        timeout=table.timeout,
    )


def _check_block_names(source: Source, channels: Mapping[str, Channel | None]) -> None:
    """Prefect's names of blocks have no underscore: two channels may not differ in that alone."""
    seen: dict[str, str] = {}
    for name in channels:
        other = seen.setdefault(name.replace("_", "-"), name)
        if other != name:
            source.wrong(("channels", name), f'differs from "{other}" by an underscore only', allowed="another name")


def _route(
    source: Source,
    name: str,
    raw: dict[str, Any],
    channels: Mapping[str, Channel | None],
    jobs: Mapping[str, tuple[str, ...]] | None,
) -> Route | None:
    path: Path = ("routes", name)
    try:
        table = RouteTable.model_validate(raw)
    except ValidationError as error:
        source.refused(error, path)
        return None
    for key in ("events", "channels"):
        # Not a bound of the field: where its only word is wrong, pydantic would call it empty too.
        if not getattr(table, key):
            source.wrong((*path, key), "is empty", allowed="at least one")
    for key, words in (
        ("events", table.events),
        ("jobs", table.jobs),
        ("tags", table.tags),
        ("channels", table.channels),
    ):
        for index, word in enumerate(words):
            if word in words[:index]:
                source.wrong((*path, key, index), f'"{word}" stands here twice')
    for index, channel in enumerate(table.channels):
        if channel not in source.data.get("channels", {}):
            none = "alerts.toml has no channels"
            unknown(source, (*path, "channels", index), "channel", channel, known=channels, none=none)
    if jobs is not None:
        _check_narrowing(source, path, table, jobs)
    of_jobs = set(table.events) & set(FAILURES) or "recovered" in table.events
    for key in ("jobs", "tags"):
        if getattr(table, key) and table.events and not of_jobs:
            source.wrong((*path, key), "means nothing: none of the events is one of a job", allowed=", ".join(FAILURES))
    return Route(name, table.events, table.channels, table.jobs, table.tags)


def _check_narrowing(source: Source, path: Path, table: RouteTable, jobs: Mapping[str, tuple[str, ...]]) -> None:
    tags = {tag for those in jobs.values() for tag in those}
    for index, job in enumerate(table.jobs):
        if job not in jobs:
            unknown(source, (*path, "jobs", index), "job", job, known=jobs, none="the catalog has no jobs")
    for index, tag in enumerate(table.tags):
        if tag not in tags:
            unknown(source, (*path, "tags", index), "tag", tag, known=tags, none="no job of the catalog has tags")


def _check_recoveries(source: Source, routes: list[Route]) -> None:
    """What recovers must have been told of: on the same channel."""
    troubles = set(EVENTS) - {"recovered"}
    told = {channel for route in routes if troubles & set(route.events) for channel in route.channels}
    others = [event for event in EVENTS if event != "recovered"]
    for route in routes:
        untold = sorted(set(route.channels) - told)
        if "recovered" in route.events and untold:
            source.wrong(
                ("routes", route.name, "events"),
                f'"recovered" is told only where trouble was, and nothing else goes to {", ".join(untold)}',
                allowed=f"beside it one of {', '.join(others)}",
            )
