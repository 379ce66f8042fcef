"""Reads what `systemctl show` prints. Pure; tested on recordings of several versions of systemd.

The output is one block a unit, a blank line between, `Property=value` a line, some properties on several lines.
It must have been made with LC_ALL=C and TZ=UTC, and every property asked for by name: only then are empty ones
printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchctl.core.legacy import Manager, Monotonic, Service, Timer, Unit, Units

_UNIT = (
    "Id,Names,LoadState,LoadError,ActiveState,SubState,Result,UnitFileState,FragmentPath,SourcePath,DropInPaths,"
    "NeedDaemonReload,Transient,Requires,BindsTo,Wants,Upholds,WantedBy,OnFailure,TriggeredBy,InvocationID"
)
_TIMER = (
    "Unit,TimersCalendar,TimersMonotonic,NextElapseUSecRealtime,NextElapseUSecMonotonic,LastTriggerUSec,Persistent,"
    "AccuracyUSec,RandomizedDelayUSec,RandomizedOffsetUSec,FixedRandomDelay,WakeSystem"
)
_SERVICE = (
    "Type,ExecStart,User,Group,WorkingDirectory,Environment,EnvironmentFiles,Nice,TimeoutStartUSec,TimeoutStopUSec,"
    "RuntimeMaxUSec,RemainAfterExit,SuccessExitStatus,ExecMainStartTimestamp,ExecMainExitTimestamp,ExecMainCode,"
    "ExecMainStatus"
)
PROPERTIES = f"{_UNIT},{_TIMER},{_SERVICE}"
"""What to ask for, as `systemctl show -p` takes it."""

_SPAN_UNITS = {
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
    "w": 7 * 86400,
    "week": 7 * 86400,
    "weeks": 7 * 86400,
    "month": 2629800,
    "months": 2629800,
    "y": 31557600,
    "year": 31557600,
    "years": 31557600,
}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zµμ]+)\s*")
_ENTRY = re.compile(r"\{ (\w+)=(.*?) ; ")
_NOMINAL = re.compile(r" ; next_elapse=(.*) \}\Z")
# Greedy: a command may hold this text itself, and what follows the last one is systemd's own.
_ARGV = re.compile(r"argv\[\]=(.*) ; (?:ignore_errors|flags)=", re.DOTALL)
# Ours, and those of a version that knows more: `FOO=1` inside a value with lines is none.
_PROPERTY = re.compile(r"([A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*)=(.*)", re.DOTALL)
_INSTANT = re.compile(r"(?:\w{3} )?(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))? (UTC|GMT)\Z")
_EPOCH = re.compile(r"@(\d+)(?:\.(\d{1,6}))?\Z")
# systemd's blanks, not Unicode's: only for those does it quote a word.
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|\$\'((?:[^\'\\]|\\.)*)\'|([^ \t\n\r]+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|[0-7]{3}|.)", re.DOTALL)
_NOTHING = frozenset({"", "infinity", "n/a", "(null)"})
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
# systemd's "infinity" is the largest number of 64 bits; anything near it is no time.
_ENDLESS_US = 2**62
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "s": " "}

Block = Mapping[str, list[str]]


def units_of(text: str, manager: Manager) -> Units:
    """Return the timers and services in the output of `systemctl show`; the last block of a name wins."""
    timers: dict[str, Timer] = {}
    services: dict[str, Service] = {}
    others: dict[str, str] = {}
    for block in blocks(text):
        unit = _unit(block, manager)
        if unit.name.endswith(".timer"):
            timers[unit.name] = _timer(block, unit)
        elif unit.name.endswith(".service"):
            services[unit.name] = _service(block, unit)
        elif unit.name:
            others[unit.name] = unit.load
    return Units(manager, timers, services, others)


def unasked(name: str, manager: Manager, *, load: str, reason: str) -> Timer:
    """Return a timer that systemd cannot be asked about: a template, or what is no unit's name."""
    block = {"Id": [name], "LoadState": [load], "LoadError": [reason]}
    return _timer(block, _unit(block, manager))


def on_the_clock(timer: Timer, *, started: datetime, started_awake: datetime) -> Timer:
    """Return the timer with the instant of its next monotonic elapse in `next_fire`, where that is the earlier one.

    `started` is when the clock began that goes on in suspend (timers that wake the system are counted by it),
    `started_awake` when the one began that does not.
    """
    if timer.next_monotonic_s is None:
        return timer
    try:
        due = (started if timer.wake_system else started_awake) + timedelta(seconds=timer.next_monotonic_s)
    except OverflowError:
        return timer
    return replace(timer, next_fire=min(filter(None, (timer.next_fire, due))))


def blocks(text: str) -> Iterator[Block]:
    """Yield one mapping a unit: each property with all its lines.

    A value may hold line ends, which systemd prints as they are: one in braces goes on until they close.
    """
    block: dict[str, list[str]] = {}
    values: list[str] | None = None
    for line in text.split("\n"):  # not splitlines: a value may also hold what Unicode calls a line end
        if values is not None and values[-1].startswith("{ ") and not values[-1].endswith(" }"):
            values[-1] += f"\n{line}"
        elif not line.strip():
            if block:
                yield block
            block, values = {}, None
        elif match := _PROPERTY.fullmatch(line):
            values = block.setdefault(match[1], [])
            values.append(match[2])
        elif values is not None:
            values[-1] += f"\n{line}"
    if block:
        yield block


def span(text: str) -> float | None:
    """Read a time span as systemd prints it (`1min 30s`, `500us`, `0`); None for infinity and for nothing.

    Raises ValueError on anything else.
    """
    if text in _NOTHING:
        return None
    if text.isascii() and text.isdigit():  # "0", and what old versions print: microseconds
        return int(text) / 1e6 if int(text) < _ENDLESS_US else None
    parts = _SPAN.findall(text)
    if _SPAN.sub("", text).strip() or not all(unit in _SPAN_UNITS for _, unit in parts):
        raise ValueError(f"systemd printed {text!r} where a time span was expected")
    return float(sum(float(number) * _SPAN_UNITS[unit] for number, unit in parts))


def instant(text: str) -> datetime | None:
    """Read an instant as systemd prints it with TZ=UTC, as `@epoch`, or in microseconds.

    None for none ("", n/a, 0), and for one that is too far away to be printed. Raises ValueError on anything else.
    """
    text = text.removeprefix("[").removesuffix("]")
    if text in _NOTHING or text in {"0", "@0"} or "XXXX" in text:
        return None
    try:
        if text.isascii() and text.isdigit():
            return _EPOCH_START + timedelta(microseconds=int(text)) if int(text) < _ENDLESS_US else None
        if epoch := _EPOCH.match(text):
            fraction = timedelta(microseconds=int((epoch[2] or "0").ljust(6, "0")))
            return _EPOCH_START + timedelta(seconds=int(epoch[1])) + fraction
        if match := _INSTANT.match(text):
            return datetime.fromisoformat(f"{match[1]}T{match[2]}.{(match[3] or '0').ljust(6, '0')}+00:00")
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"systemd printed {text!r} where an instant in UTC was expected")


def words(text: str) -> tuple[str, ...]:
    """Split a list as systemd prints one: by blanks, values with blanks quoted."""
    found = []
    for match in _QUOTED.finditer(text):
        raw = match[1] if match[1] is not None else match[2] if match[2] is not None else match[3]
        found.append(_ESCAPE.sub(_unescape, raw) if match[3] is None else raw)
    return tuple(found)


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 3:
        return chr(int(code[1:], 16)) if code.startswith("x") else chr(int(code, 8))
    return _ESCAPES.get(code, code)


def environment(assignments: Iterable[str]) -> dict[str, str]:
    """Return `KEY=value` words as a mapping; a later one wins, as in systemd."""
    return {key: value for key, equals, value in (word.partition("=") for word in assignments) if equals}


def _one(block: Block, name: str) -> str:
    return block.get(name, [""])[-1]


def _text(block: Block, name: str) -> str | None:
    return _one(block, name) or None


def _yes(block: Block, name: str) -> bool:
    return _one(block, name) == "yes"


def _number(block: Block, name: str) -> int:
    try:
        return int(_one(block, name))
    except ValueError:
        return 0


def _unit(block: Block, manager: Manager) -> Unit:
    return Unit(
        name=_one(block, "Id"),
        manager=manager,
        load=_one(block, "LoadState"),
        load_error=_error(_one(block, "LoadError")),
        active=_one(block, "ActiveState"),
        sub=_one(block, "SubState"),
        result=_one(block, "Result"),
        enabled=_one(block, "UnitFileState"),
        fragment=_text(block, "FragmentPath"),
        source=_text(block, "SourcePath"),
        drop_ins=words(_one(block, "DropInPaths")),
        needs_reload=_yes(block, "NeedDaemonReload"),
        transient=_yes(block, "Transient"),
        requires=words(_one(block, "Requires")),
        wanted_by=words(_one(block, "WantedBy")),
        on_failure=words(_one(block, "OnFailure")),
        triggered_by=words(_one(block, "TriggeredBy")),
        invocation_id=_text(block, "InvocationID"),
        aliases=tuple(name for name in words(_one(block, "Names")) if name != _one(block, "Id")),
        wants=words(_one(block, "Wants")),
        binds_to=words(_one(block, "BindsTo")),
        upholds=words(_one(block, "Upholds")),
    )


def _error(text: str) -> str | None:
    """Return the message of `LoadError=`, which is a D-Bus error's name and a quoted message."""
    found = re.search(r'"(.*)"', text)
    return found[1] if found else text.strip() or None


def _base(unit: Unit) -> dict[str, Any]:
    return {name: getattr(unit, name) for name in Unit.__dataclass_fields__}


def _timer(block: Block, unit: Unit) -> Timer:
    calendars = [match[2] for line in block.get("TimersCalendar", []) if (match := _ENTRY.match(line))]
    monotonic = [match for line in block.get("TimersMonotonic", []) if (match := _ENTRY.match(line))]
    nominal = [instant(match[1]) for line in block.get("TimersCalendar", []) if (match := _NOMINAL.search(line))]
    return Timer(
        **_base(unit),
        unit=_one(block, "Unit") or f"{unit.name.removesuffix('.timer')}.service",
        # systemd puts each line before those it has: the last is the first of the file.
        calendars=tuple(reversed(calendars)),
        monotonic=tuple(
            Monotonic(match[1].replace("USec", "Sec"), span(match[2]) or 0.0) for match in reversed(monotonic)
        ),
        next_fire=instant(_one(block, "NextElapseUSecRealtime")),
        last_fire=instant(_one(block, "LastTriggerUSec")),
        persistent=_yes(block, "Persistent"),
        accuracy_s=span(_one(block, "AccuracyUSec")) or 0.0,
        random_delay_s=span(_one(block, "RandomizedDelayUSec")) or 0.0,
        fixed_random_delay=_yes(block, "FixedRandomDelay"),
        wake_system=_yes(block, "WakeSystem"),
        next_monotonic_s=span(_one(block, "NextElapseUSecMonotonic")) or None,
        next_nominal=min(filter(None, nominal), default=None),
        random_offset_s=span(_one(block, "RandomizedOffsetUSec")) or 0.0,
    )


def _service(block: Block, unit: Unit) -> Service:
    lines = [match[1] for line in block.get("ExecStart", []) if (match := _ARGV.search(line))]
    files = [match for line in block.get("EnvironmentFiles", []) if (match := _FILE.match(line))]
    return Service(
        **_base(unit),
        type=_one(block, "Type"),
        exec_start=tuple(lines),
        user=_text(block, "User"),
        group=_text(block, "Group"),
        working_directory=_text(block, "WorkingDirectory"),
        environment=environment(words(_one(block, "Environment"))),
        environment_files=tuple(("-" if match[2] == "yes" else "") + match[1] for match in files),
        nice=_number(block, "Nice"),
        timeout_start_s=span(_one(block, "TimeoutStartUSec")),
        timeout_stop_s=span(_one(block, "TimeoutStopUSec")),
        runtime_max_s=span(_one(block, "RuntimeMaxUSec")),
        remains=_yes(block, "RemainAfterExit"),
        success_statuses=_one(block, "SuccessExitStatus"),
        started_at=instant(_one(block, "ExecMainStartTimestamp")),
        ended_at=instant(_one(block, "ExecMainExitTimestamp")),
        main_code=_number(block, "ExecMainCode"),
        main_status=_number(block, "ExecMainStatus"),
    )


_FILE = re.compile(r"(.*) \(ignore_errors=(yes|no)\)\Z")
