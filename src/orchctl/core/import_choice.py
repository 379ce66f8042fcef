"""Which timers of a host become jobs: what is left out and why, and which of them are one job. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchctl.core.drafts import Refused
from orchctl.core.legacy import Service, Timer, Unit, Units

# Where packages put their units: what the operating system does for itself is not this host's pipeline.
_PACKAGED = ("/usr/lib/", "/lib/")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A timer that may become a job, its service, and the units that its systemd answered with."""

    timer: Timer
    service: Service
    units: Units

    @property
    def label(self) -> str:
        """`live-score.timer (system)`."""
        return label(self.timer)


@dataclass(slots=True)
class Choice:
    """What of a host is imported. `notes` say what was left out without being wrong."""

    candidates: list[Candidate] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def label(unit: Unit) -> str:
    """Return a unit's name with whose it is: `live-score.timer (system)`."""
    return f"{unit.name} ({unit.manager})"


def choose(answers: Sequence[Units], taken: Mapping[tuple[str, str], str], *, named: bool) -> Choice:
    """Return which timers to import.

    `taken` are the jobs that already name a timer, by scope and name. `named`: somebody asked for these timers by
    name, so that those which are off or came with a package count too.
    """
    choice = Choice()
    off: list[str] = []
    packaged: list[str] = []
    for units in answers:
        # A timer that was asked for by another of its names is there under both.
        timers = {timer.name: timer for timer in units.timers.values()}
        for timer in sorted(timers.values(), key=lambda each: each.name):
            names = (timer.name, *timer.aliases)
            owner = next((job for name in names if (job := taken.get((timer.manager.scope, name)))), None)
            if timer.load == "not-found":
                continue
            if owner is not None:
                choice.notes.append(f"{label(timer)} is already a trigger of {owner}: left out")
            elif not named and not _is_on(timer):
                off.append(label(timer))
            elif not named and (timer.fragment or "").startswith(_PACKAGED):
                packaged.append(label(timer))
            else:
                _judge(timer, units, choice)
    if off:
        choice.notes.append(f"left out, for they are switched off (name them to import them): {', '.join(off)}")
    if packaged:
        choice.notes.append(f"left out, for they came with packages (name them to import them): {', '.join(packaged)}")
    return choice


def _is_on(timer: Timer) -> bool:
    return timer.active == "active" or timer.enabled.startswith("enabled")


def _judge(timer: Timer, units: Units, choice: Choice) -> None:
    services = units.services.values()
    service = next((each for each in services if timer.unit in {each.name, *each.aliases}), None)
    reason = _timer_reason(timer) or _service_reason(timer, service)
    if reason is None and service is not None:
        choice.candidates.append(Candidate(timer, service, units))
    else:
        choice.refused.append(Refused(label(timer), str(reason)))


def _timer_reason(timer: Timer) -> str | None:
    if timer.load != "loaded":
        return _load_reason("it", timer)
    if timer.transient:
        return "it is transient (made by systemd-run): it is in no file, and goes when it stops"
    if timer.generated:
        source = f" from {timer.source}" if timer.source else ""
        return f"a generator makes it{source} at each reload: what it is made from has to be moved"
    if not timer.unit.endswith(".service"):
        return f"it starts {timer.unit}, which is no service"
    return None


def _service_reason(timer: Timer, service: Service | None) -> str | None:
    if service is None or service.load == "not-found":
        return f"it starts {timer.unit}, which does not exist"
    if service.load != "loaded":
        return _load_reason(timer.unit, service)
    return f"{service.name} is transient: it is in no file" if service.transient else None


def _load_reason(what: str, unit: Unit) -> str:
    if unit.load == "masked":
        return f"{what} is masked"
    # systemd's own sentence: "Unit x.timer has a bad unit file setting."
    said = (unit.load_error or "").rstrip(".")
    return f"systemd cannot load {what} ({unit.load}{f': {said}' if said else ''})"


def groups(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Return the candidates that are one job: the copies of a timer in two scopes, the timers of one service.

    Each group is sorted so that the system's come first: its values count.
    """
    found: list[list[Candidate]] = []
    for candidate in candidates:
        same = [group for group in found if any(_is_same(candidate, other) for other in group)]
        found = [group for group in found if group not in same]
        found.append([*(each for group in same for each in group), candidate])
    for group in found:
        group.sort(key=lambda each: (each.timer.manager.scope != "system", each.timer.name))
    return sorted(found, key=lambda group: group[0].service.name)


def _is_same(one: Candidate, other: Candidate) -> bool:
    if one.timer.manager == other.timer.manager:
        return one.service.name == other.service.name
    return one.timer.name == other.timer.name


def surprises(group: Sequence[Candidate]) -> Iterator[str]:
    """Yield what an operator should know of the units of one job before it is moved."""
    services: dict[tuple[str, str], list[Candidate]] = {}
    for each in group:
        yield from _of_timer(each)
        services.setdefault((str(each.service.manager), each.service.name), []).append(each)
    for same in services.values():
        yield from _of_service(same[0], {each.timer.name for each in same})


def _of_timer(each: Candidate) -> Iterator[str]:
    if each.timer.pulls_by:
        yield f"{each.label} {each.timer.pulls_by}= its service: starting the timer starts the job at once"
    yield from _missing(each.timer, each.units)
    if each.timer.needs_reload:
        yield f"{each.label} has changed on disk since systemd read it: `systemctl daemon-reload`, then import again"


def _of_service(each: Candidate, timers: Collection[str]) -> Iterator[str]:
    service, shown = each.service, label(each.service)
    if service.enabled_by_itself:
        yield f"{shown} is enabled by itself: it starts at boot too, whatever its timer does"
    others = [name for name in service.triggered_by if name not in timers]
    if others:
        yield f"{shown} is also started by {', '.join(others)}, which this job does not replace"
    yield from _missing(service, each.units)
    if service.on_failure and not each.units.missing_handlers(service):
        yield f"{shown} starts {', '.join(service.on_failure)} when it fails, which Prefect does not"
    if service.needs_reload:
        yield f"{shown} has changed on disk since systemd read it: `systemctl daemon-reload`, then import again"


def _missing(unit: Unit, units: Units) -> Iterator[str]:
    for name in units.missing_handlers(unit):
        yield f"the failure handler of {label(unit)} does not exist: {name}"


def unknown(names: Collection[str], answers: Sequence[Units]) -> list[str]:
    """Return the names that no systemd knows; an alias is known under another name, and not among them."""
    missing = [{name for name, timer in units.timers.items() if timer.load == "not-found"} for units in answers]
    return sorted(name for name in names if missing and all(name in each for each in missing))
