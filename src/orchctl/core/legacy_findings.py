"""What an operator should know of the legacy triggers before moving a job: findings, one sentence each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orchctl.core.legacy import Manager, Service, Timer, Unit, Units
from orchctl.core.legacy_report import (
    Difference,
    Finding,
    Heard,
    Trigger,
    masked,
    masked_environment,
    nearest_line,
    nearest_unit,
)
from orchctl.core.words import several

_NAMES_SHOWN = 6


def findings(triggers: Sequence[Trigger], heard: Heard) -> tuple[Finding, ...]:
    """Return what is to be known of the triggers that jobs name, and of those that run and no job names."""
    shown = [each for each in triggers if each.group in {"job", "unnamed"}]
    found = [finding for each in shown for finding in _of_trigger(each, heard)]
    found += _of_services(shown, triggers, heard)
    found += _twice(shown)
    found += _without_linger(shown, heard)
    return tuple(dict.fromkeys(found))


def _of_trigger(each: Trigger, heard: Heard) -> Iterator[Finding]:
    def said(code: str, message: str, unit: str = each.name) -> Finding:
        return Finding(code, each.job, unit, message)

    if each.kind == "cron":
        if each.missing:
            near = nearest_line(each.name, [entry for entry in heard.crontab if entry.user == each.user])
            hint = f"; the nearest is `{near}`" if near else ""
            yield said("missing-line", f"{each.label} (`{each.name}`): {each.missing}{hint}")
        return
    if each.timer is None or each.timer.load != "loaded":
        yield from _not_loaded(each, heard)
        return
    timer = each.timer
    if timer.pulls_by:
        yield said(
            "starts-job", f"{each.label} has {timer.pulls_by}= on its service: starting the timer starts the job"
        )
    if timer.transient:
        yield said("transient", f"{each.label} is transient (systemd-run): once stopped it cannot be brought back")
    if timer.generated:
        origin = (each.service.source if each.service else None) or timer.source
        made = f" from {origin}" if origin else ""
        yield said("generated", f"{each.label} is made by a generator{made}: it comes back at each reload")
    if timer.enabled.startswith("enabled") and timer.active != "active":
        yield said("enabled-but-stopped", f"{each.label} is stopped and enabled: it starts again at the next boot")
    if timer.enabled == "disabled" and timer.active == "active":
        yield said("not-enabled", f"{each.label} runs and is not enabled: after a reboot it does not")
    if timer.active == "active" and timer.sub == "elapsed" and timer.next_fire is None:
        yield said("elapsed", f"{each.label} is active and has nothing ahead: it will not fire again by itself")
    yield from _reload(timer, each)


def _not_loaded(each: Trigger, heard: Heard) -> Iterator[Finding]:
    units = heard.units.get(each.manager) if each.manager else None
    if units is None:
        yield Finding("not-asked", each.job, each.name, f"{each.label}: {each.missing}")
        return
    load = each.timer.load if each.timer else "not-found"
    if load == "not-found":
        near = nearest_unit(each.name, units)
        hint = f'; did you mean "{near}"?' if near else ""
        yield Finding("missing-timer", each.job, each.name, f"{each.label} does not exist on this host{hint}")
    elif load == "masked":
        yield Finding("masked", each.job, each.name, f"{each.label} is masked: it starts nothing")
    else:
        error = each.timer.load_error if each.timer else None
        yield Finding(load, each.job, each.name, f"{each.label} is of no use to systemd: {error or load}")


def _of_services(shown: Sequence[Trigger], triggers: Sequence[Trigger], heard: Heard) -> Iterator[Finding]:
    """Yield what is to be known of the services, each once for a job."""
    done = set()
    for each in shown:
        if each.manager is None or each.timer is None or each.timer.load != "loaded":
            continue
        units = heard.units[each.manager]
        key = (each.job, units.manager, each.timer.unit)
        if key in done:
            continue
        done.add(key)
        yield from _handlers(each, each.timer, units)
        if each.service is not None:
            yield from _of_service(each, each.service, units)
            yield from _several(each, each.service, units, triggers)


def _of_service(each: Trigger, service: Service, units: Units) -> Iterator[Finding]:
    label = f"{service.name} ({units.manager})"

    def said(code: str, message: str) -> Finding:
        return Finding(code, each.job, service.name, message)

    if service.load == "not-found":
        yield said("missing-service", f"{each.label} starts {service.name}, which does not exist")
        return
    if service.load != "loaded":
        yield said(f"service-{service.load}", f"{label} cannot be started: {service.load_error or service.load}")
    yield from _handlers(each, service, units)
    if service.enabled_by_itself:
        by = [name for name in service.wanted_by if name.endswith(".target")]
        how = f" (with {', '.join(by)})" if by else ""
        yield said("starts-at-boot", f"{label} is enabled by itself: it starts at boot{how}, whatever its timers do")
    others = [name for name in service.triggered_by if not name.endswith(".timer")]
    if others:
        yield said("other-triggers", f"{label} is also started by {', '.join(others)}")
    yield from _reload(service, each)


def _handlers(each: Trigger, unit: Unit, units: Units) -> Iterator[Finding]:
    for name in units.missing_handlers(unit):
        message = f"the failure handler of {unit.name} ({units.manager}) does not exist: {name}"
        yield Finding("missing-handler", each.job, unit.name, message)


def _reload(unit: Unit, each: Trigger) -> Iterator[Finding]:
    if unit.needs_reload:
        by_hand = "systemctl daemon-reload" if unit.manager.scope == "system" else "systemctl --user daemon-reload"
        message = f"{unit.name} ({unit.manager}) changed on disk since systemd read it: `{by_hand}`"
        yield Finding("needs-reload", each.job, unit.name, message)


def _several(each: Trigger, service: Service, units: Units, triggers: Sequence[Trigger]) -> Iterator[Finding]:
    timers = {timer.name: timer for timer in units.timers.values() if timer.unit == service.name}
    timers = {name: timer for name, timer in timers.items() if timer.load == "loaded"}
    names = sorted({*timers, *(name for name in service.triggered_by if name.endswith(".timer"))})
    if len(names) < 2:
        return
    jobs = {one.name: one.job for one in triggers if one.job and one.manager == each.manager}
    listed = ", ".join(_one_of_several(name, timers.get(name), jobs.get(name), each.job) for name in names)
    message = f"{service.name} ({units.manager}) is started by {len(names)} timers: {listed}"
    yield Finding("several-timers", each.job, service.name, message)


def _one_of_several(name: str, timer: Timer | None, job: str | None, mine: str | None) -> str:
    said = [] if timer is None or timer.active == "active" else ["off"]
    if job != mine:
        said.append(f"job {job}" if job else "in no job")
    return name + (f" ({', '.join(said)})" if said else "")


def _by_job(triggers: Iterable[Trigger]) -> dict[str, list[Trigger]]:
    """Return the timers of each job, one a systemd: the copies of one job in several scopes."""
    found: dict[str, dict[Manager, Trigger]] = {}
    for each in triggers:
        if each.job and each.manager and each.timer and each.timer.load == "loaded":
            found.setdefault(each.job, {}).setdefault(each.manager, each)
    return {job: list(copies.values()) for job, copies in found.items()}


def _twice(triggers: Sequence[Trigger]) -> Iterator[Finding]:
    for job, copies in _by_job(triggers).items():
        on = [each for each in copies if each.on]
        if len(on) > 1:
            message = f"{' and '.join(each.label for each in on)} are both on: the job is started by each of them"
            yield Finding("runs-twice", job, on[0].name, message)


def _without_linger(triggers: Sequence[Trigger], heard: Heard) -> Iterator[Finding]:
    for manager, lingers in heard.lingers.items():
        mine = [each for each in triggers if each.manager == manager and each.timer and each.timer.load == "loaded"]
        if lingers or not mine:
            continue
        owner = heard.owners[manager]
        jobs = sorted({each.job for each in mine if each.job})
        about = f" ({_listed(jobs)})" if jobs else ""
        yield Finding(
            "no-linger",
            jobs[0] if len(jobs) == 1 else None,
            f"user@{owner}",
            f"{owner} is without linger: the user's timers{about} run only while {owner} is logged in",
        )


def _listed(names: Sequence[str]) -> str:
    return several(names, shown=_NAMES_SHOWN)


def differences(triggers: Sequence[Trigger]) -> tuple[Difference, ...]:
    """Return how the copies of one job in several scopes differ, each from the first."""
    found: list[Difference] = []
    for job, (first, *others) in _by_job(triggers).items():
        for other in others:
            before, after = _compared(first), _compared(other)
            for key in (*before, *(key for key in after if key not in before)):
                (one, shown_one), (two, shown_two) = before.get(key, _NONE), after.get(key, _NONE)
                if one != two:
                    names = str(first.manager), str(other.manager)
                    found.append(Difference(job, key, names[0], shown_one, names[1], shown_two))
    return tuple(found)


_NONE: tuple[str | None, str | None] = (None, None)


def _compared(each: Trigger) -> dict[str, tuple[str | None, str | None]]:
    """Return what is compared of a copy: its real value, and what may be shown of it."""
    timer, service = each.timer, each.service
    if timer is None:
        return {}
    found: dict[str, tuple[str | None, str | None]] = {}

    def add(key: str, value: str | None, shown: str | None = None) -> None:
        found[key] = (value, value if shown is None else shown)

    add("enabled", timer.enabled or None)
    add("active", timer.active)
    add("OnCalendar", " | ".join(timer.calendars) or None)
    add("monotonic", " | ".join(f"{one.base}={one.seconds:g}s" for one in timer.monotonic) or None)
    add("RandomizedDelaySec", f"{timer.random_delay_s:g}s")
    add("AccuracySec", f"{timer.accuracy_s:g}s")
    add("Persistent", "yes" if timer.persistent else "no")
    if service is None or service.load != "loaded":
        return found
    line = " ; ".join(service.exec_start)
    add("command", line, masked(line, service.environment))
    add("user", service.user or each.user or "root")
    add("working directory", service.working_directory)
    add("nice", str(service.nice))
    add("environment files", " ".join(service.environment_files) or None)
    add("OnFailure", " ".join(service.on_failure) or None)
    shown = masked_environment(service.environment)
    for key, value in service.environment.items():
        add(f"env {key}", value, shown[key])
    return found
