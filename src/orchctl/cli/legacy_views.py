"""What `legacy` shows: one line a trigger, or one job with everything."""

from __future__ import annotations

import signal
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.words import counted

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from orchctl.core.legacy import Service, Timer
    from orchctl.core.legacy_report import Difference, Report, Trigger
    from orchctl.wiring import Settings

_NARROW = 110
_KILLED = (2, 3)  # CLD_KILLED, CLD_DUMPED


def shown(report: Report, settings: Settings, *, job: str | None, every: bool, no_catalog: bool) -> None:
    """Show a report: whole, or of one `job`. `every`: each timer that is off or of the distribution too."""
    if not settings.as_json:
        for text in (*report.notes, *(["there is no catalog: no job names any of this"] if no_catalog else [])):
            render.note(f"note: {text}")
        for text in report.silent:
            render.note(f"not asked: {text}")
            if text in report.hints:
                render.note(f"hint: {report.hints[text]}")
    errors = [{"code": "not-asked", "message": text, "hint": report.hints.get(text)} for text in report.silent]
    data = _json(report, job=job, no_catalog=no_catalog)

    def printed() -> None:
        if job is None:
            _overview(report, settings, every=every)
        else:
            _one_job(report, job)

    render.emit("legacy", data, printed, settings, errors=errors)


def _json(report: Report, *, job: str | None, no_catalog: bool) -> dict[str, Any]:
    return {
        "job": job,
        "catalog": not no_catalog,
        "host_zone": report.host_zone,
        "triggers": [_trigger_json(each) for each in report.of("job")],
        "unnamed": [_trigger_json(each) for each in report.of("unnamed")],
        "off": [_trigger_json(each) for each in report.of("off")],
        "distribution": [_trigger_json(each) for each in report.of("distribution")],
        "findings": report.findings,
        "differences": report.differences,
        "notes": report.notes,
    }


def _trigger_json(each: Trigger) -> dict[str, Any]:
    timer = each.timer
    return {
        "job": each.job,
        "kind": each.kind,
        "scope": each.scope,
        "user": each.user,
        "name": each.name,
        "file": each.file,
        "missing": each.missing,
        "on": each.on,
        "last_fire": each.last_fire,
        "next_fire": each.next_fire,
        "timer": _timer_json(timer) if timer else None,
        "service": _service_json(each.service, each.command) if each.service else None,
    }


def _timer_json(timer: Timer) -> dict[str, Any]:
    return {
        "load": timer.load,
        "enabled": timer.enabled,
        "active": timer.active,
        "sub": timer.sub,
        "unit": timer.unit,
        "calendars": timer.calendars,
        "monotonic": timer.monotonic,
        "persistent": timer.persistent,
        "accuracy_s": timer.accuracy_s,
        "random_delay_s": timer.random_delay_s,
        "random_offset_s": timer.random_offset_s,
        "fixed_random_delay": timer.fixed_random_delay,
        "fragment": timer.fragment,
        "drop_ins": timer.drop_ins,
        "needs_reload": timer.needs_reload,
        "transient": timer.transient,
        "generated": timer.generated,
    }


def _service_json(service: Service, command: str | None) -> dict[str, Any]:
    from orchctl.core.legacy_report import masked_environment

    return {
        "name": service.name,
        "load": service.load,
        "enabled": service.enabled,
        "active": service.active,
        "sub": service.sub,
        "result": service.result,
        "last_run": _last_run(service),
        "started_at": service.started_at,
        "ended_at": service.ended_at,
        "command": command,
        "user": service.user,
        "working_directory": service.working_directory,
        "nice": service.nice,
        "environment": masked_environment(service.environment),
        "environment_files": service.environment_files,
        "on_failure": service.on_failure,
        "fragment": service.fragment,
        "drop_ins": service.drop_ins,
        "needs_reload": service.needs_reload,
    }


def _overview(report: Report, settings: Settings, *, every: bool) -> None:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(report.host_zone)
    named, unnamed = report.of("job"), report.of("unnamed")
    if named:
        _table(named, report.now, zone, settings)
    _all_of("In no job of the catalog:", unnamed, report, zone, settings)
    off, vendor = report.of("off"), report.of("distribution")
    if every:
        _all_of("Switched off, and in no job of the catalog:", off, report, zone, settings)
        _all_of("Of the distribution:", vendor, report, zone, settings)
    else:
        _named_only(off, "in no job and switched off")
        _named_only([each for each in vendor if each.on], "of the distribution")
    _said(report)
    render.line()
    jobs = len({each.job for each in named})
    found = counted(len(report.findings) + len(report.differences), "finding")
    render.line(
        f"{counted(len(named), 'trigger')} of {counted(jobs, 'job')}, {found}; times are those of {report.host_zone}"
    )


def _all_of(title: str, rest: Sequence[Trigger], report: Report, zone: ZoneInfo, settings: Settings) -> None:
    if rest:
        render.line()
        render.line(title)
        _table(rest, report.now, zone, settings)


def _named_only(rest: Sequence[Trigger], of_them: str) -> None:
    """Name the triggers that matter less."""
    timers = [each.name if each.scope == "system" else each.label for each in rest if each.kind == "timer"]
    lines = [each.label.removeprefix("the cron line of ") for each in rest if each.kind == "cron"]
    for names, word in ((timers, "timer"), (lines, "cron line")):
        if names:
            render.line()
            _wrapped(f"{counted(len(names), word)} {of_them}: {', '.join(names)}")


def _said(report: Report) -> None:
    """Print the findings, those of one job together."""
    jobs = dict.fromkeys([*(each.job for each in report.triggers), None])
    told: list[str] = []
    for job in sorted(jobs, key=lambda name: name is None):
        begins = f"{job}: " if job else ""
        told += [f"{begins}{each.message}" for each in report.findings if each.job == job]
        told += [f"{begins}{_difference(each)}" for each in report.differences if each.job == job]
    if told:
        render.line()
    for text in told:
        _wrapped(text)


def _difference(each: Difference) -> str:
    key = f"{each.key.removeprefix('env ')}" if each.key.startswith("env ") else each.key
    values = ((each.first, each.first_value), (each.second, each.second_value))
    missing = [copy for copy, value in values if value is None]
    if missing:
        copy, value = next((copy, value) for copy, value in values if value is not None)
        return f"{key} is {value} in the {copy} copy, not set in the {missing[0]} copy"
    if each.first_value == each.second_value:
        return f"{key} differs between the {each.first} and the {each.second} copy (secret)"
    return f"{key} is {each.first_value} in the {each.first} copy, {each.second_value} in the {each.second} copy"


def _wrapped(text: str) -> None:
    columns = render.width()
    lines = textwrap.wrap(text, columns, subsequent_indent="    ", break_on_hyphens=False) if columns else [text]
    for line in lines:
        render.line(line)


def _table(triggers: Sequence[Trigger], now: datetime, zone: ZoneInfo, settings: Settings) -> None:
    columns = render.width()
    # Where no job names any of it, the first column would be empty, or not be about jobs.
    named = any(each.job for each in triggers)
    if columns is not None and columns < _NARROW:
        first = "JOB" if named else "TRIGGER"
        rows = [_narrow_row(each, now, zone) for each in triggers]
        render.table((first, "SCOPE", "STATE", "LAST", "NEXT", "SERVICE"), rows, settings, flexible=first)
        return
    headings = ("JOB", "TRIGGER", "SCOPE", "ENABLED", "ACTIVE", "LAST", "NEXT", "SERVICE")
    first_column = 0 if named else 1
    wide_rows = [_row(each, now, zone)[first_column:] for each in triggers]
    render.table(headings[first_column:], wide_rows, settings, flexible="TRIGGER")


def _row(each: Trigger, now: datetime, zone: ZoneInfo) -> tuple[str, ...]:
    timer = each.timer
    return (
        each.job or "-",
        each.name,
        _scope(each),
        (timer.enabled or timer.load) if timer else "-",
        timer.active if timer else "-",
        _clock(each.last_fire, now, zone),
        _clock(each.next_fire, now, zone),
        _service(each),
    )


def _narrow_row(each: Trigger, now: datetime, zone: ZoneInfo) -> tuple[str, ...]:
    """Return a row without the timer's name where that is the job's, which it mostly is."""
    name = each.job if each.name == f"{each.job}.timer" else f"{each.job}: {each.name}" if each.job else each.name
    last, coming = _clock(each.last_fire, now, zone), _clock(each.next_fire, now, zone)
    return name or "-", each.scope, _state(each), last, coming, _service(each)


def _scope(each: Trigger) -> str:
    return f"{each.scope} ({each.user})" if each.user else each.scope


def _state(each: Trigger) -> str:
    """Say in a word whether it starts things: `on` and `off` where being enabled and being active agree."""
    timer = each.timer
    if each.kind == "cron":
        return "missing" if each.missing else "on"
    if timer is None:
        return "unknown"
    if timer.load != "loaded":
        return {"not-found": "missing", "bad-setting": "broken"}.get(timer.load, timer.load)
    if timer.active == "active":
        return "started" if timer.enabled == "disabled" else "on"
    return "stopped" if timer.enabled.startswith("enabled") else "off"


def _service(each: Trigger) -> str:
    return _last_run(each.service) or "-" if each.service else "-"


def _last_run(service: Service) -> str | None:
    """Say in a word what the service does or did last, None where systemd does not know of a run."""
    if service.load == "not-found":
        return "missing"
    if service.is_active and not (service.remains and service.sub == "exited"):
        return "running"
    if service.result not in {"", "success", "exit-code", "signal", "core-dump"}:
        return service.result
    if service.main_code == 0:
        return None
    if service.main_code in _KILLED:
        return _signal(service.main_status)
    return "success" if service.result == "success" else f"exit {service.main_status}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"signal {number}"


def _clock(instant: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    if instant is None:
        return "-"
    local, today = instant.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%m-%d %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d}"


def _one_job(report: Report, job: str) -> None:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(report.host_zone)
    if not report.triggers:
        render.line(f"{job}: the catalog names nothing that starts it today")
    for number, each in enumerate(report.triggers):
        if number:
            render.line()
        render.line(each.label if each.kind == "timer" else each.name)
        for key, value in _details(each, zone):
            render.line(f"    {key:<14}{value}".rstrip())
    _said(report)
    if report.triggers:
        render.line()
        render.line(f"times are those of {report.host_zone}")


def _details(each: Trigger, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    if each.missing is not None:
        yield "state", each.missing
    if each.kind == "cron":
        yield "crontab", each.file or f"of {each.user}"
        yield "next", _instant(each.next_fire, zone)
    if each.timer is not None and each.missing is None:
        yield from _timer_details(each, each.timer, zone)
    if each.service is not None and each.missing is None:
        yield from _service_details(each, each.service, zone)


def _timer_details(each: Trigger, timer: Timer, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    yield "state", f"{timer.enabled or 'no file'}, {timer.active} ({timer.sub})"
    if each.user:
        yield "systemd of", each.user
    for expression in timer.calendars:
        yield "when", expression
    for one in timer.monotonic:
        yield "when", f"{one.base}={_span(one.seconds)}"
    delay = f"RandomizedDelaySec={_span(timer.random_delay_s)}" + (" (fixed)" if timer.fixed_random_delay else "")
    offset = f"RandomizedOffsetSec={_span(timer.random_offset_s)}"
    how = ["Persistent"] if timer.persistent else []
    how += [delay] if timer.random_delay_s else []
    how += [offset] if timer.random_offset_s else []
    yield "how", ", ".join([*how, f"AccuracySec={_span(timer.accuracy_s)}"])
    yield "last", _instant(timer.last_fire, zone)
    yield "next", _instant(timer.next_fire, zone)
    yield "file", timer.fragment or "-"
    for path in timer.drop_ins:
        yield "drop-in", path


def _service_details(each: Trigger, service: Service, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    from orchctl.core.legacy_report import masked_environment

    yield "starts", f"{service.name} ({service.load}, {service.active}, {service.sub})"
    if service.load != "loaded":
        return
    ran = _last_run(service)
    yield (
        "last run",
        f"{ran}, from {_instant(service.started_at, zone)} to {_instant(service.ended_at, zone)}"
        if (ran and service.started_at)
        else "systemd knows of none since it booted",
    )
    yield "command", each.command or "-"
    yield "user", service.user or each.user or "root"
    yield "directory", service.working_directory or "-"
    yield "nice", str(service.nice)
    for number, (key, value) in enumerate(masked_environment(service.environment).items()):
        yield "" if number else "environment", f"{key}={value}"
    for path in service.environment_files:
        yield "env file", path
    for name in service.on_failure:
        yield "on failure", name
    yield "file", service.fragment or "-"
    for path in service.drop_ins:
        yield "drop-in", path


def _instant(instant: datetime | None, zone: ZoneInfo) -> str:
    return f"{instant.astimezone(zone):%Y-%m-%d %H:%M:%S}" if instant else "-"


def _span(seconds: float) -> str:
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:g}{word}"
    return f"{seconds:g}s" if seconds >= 0.001 else f"{seconds * 1e6:g}us"
