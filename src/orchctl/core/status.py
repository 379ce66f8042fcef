"""Where a job stands: who owns it, what starts it, what ran last, what is next, and what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from orchctl.core import cadence, fence, ownership
from orchctl.core.cadence import Source
from orchctl.core.catalog import CronTrigger, Job, TimerTrigger
from orchctl.core.deployments import Desired
from orchctl.core.legacy import Manager, Service, Units
from orchctl.core.manifest import Run
from orchctl.core.ownership import Finding, Known
from orchctl.core.plan import Change, Conflict
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.core.slots import ON_TIME, Owner

OwnerWord = Literal["legacy", "prefect", "draining", "unknown"]
TriggerState = Literal["on", "off", "missing", "unknown"]
DeploymentWord = Literal["scheduled", "unscheduled", "paused", "absent", "foreign", "unknown"]
# Prefect schedules 100 days ahead, and no further: a yearly schedule has no runs for most of the year.
HORIZON = timedelta(days=99)
_SETTLED = frozenset({"success", "failed", "crashed", "cancelled", "running"})


@dataclass(frozen=True, slots=True)
class Trigger:
    """A legacy trigger now. `enabled`: whether it comes back at the next boot; None where that means nothing.

    `why` says why its state is not on or off. `next` None: it is not due, or nobody knows.
    """

    label: str
    state: TriggerState
    enabled: bool | None
    next: datetime | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Last:
    """The last execution. `by` names who ran it: Prefect, or a service; `run_id` is None where none was recorded."""

    status: str
    at: datetime
    by: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Everything about one job. `since`: from when on Prefect owns it, None where it does not, or always did.

    `next` is the next slot of its owner; `late` counts Prefect's runs that are overdue. `confirm_by`: unless it is
    confirmed until then, the cutover is rolled back by itself; None where not.
    """

    job: str
    owner: OwnerWord
    since: datetime | None
    mode: Literal["observe", "live", "unknown"]
    triggers: tuple[Trigger, ...]
    deployment: DeploymentWord
    last: Last | None
    next: datetime | None
    next_legacy: datetime | None
    next_prefect: datetime | None
    late: int
    findings: tuple[Finding, ...]
    confirm_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class Triggers:
    """What is known of a job's legacy triggers.

    `units` are what the managers answered, `absent` those that certainly do not run. `lines` says how often each cron
    line stands in its crontab, None: not known.
    """

    sources: tuple[Source, ...]
    units: Mapping[Manager, Units]
    absent: Container[Manager]
    lines: Mapping[CronTrigger, int | None]

    def states(self, now: datetime) -> tuple[Trigger, ...]:
        """Return how each stands."""
        return tuple(
            _cron(source, self.lines.get(source.trigger), now)
            if isinstance(source.trigger, CronTrigger)
            else _timer(source, source.trigger, self.units, self.absent)
            for source in self.sources
        )


@dataclass(frozen=True, slots=True)
class Prefects:
    """What Prefect says of one job. `deployment` None: it has none; `runs` are its next and its waiting ones.

    `change` and `conflict` are what `plan` has against it. `known` is False where Prefect was not reached: then the
    rest says nothing.
    """

    known: bool
    deployment: RemoteDeployment | None = None
    runs: tuple[RemoteRun, ...] = ()
    change: Change | None = None
    conflict: Conflict | None = None
    desired: Desired | None = None


def status(
    job: Job,
    *,
    known: Known,
    legacy: Triggers,
    prefect: Prefects,
    last: Run | None,
    now: datetime,
) -> JobStatus:
    """Return where a job stands."""
    owner = known.owner
    word = _owner(job, owner)
    triggers = legacy.states(now)
    ahead = [run.expected_start for run in prefect.runs if run.expected_start is not None and run.expected_start > now]
    late = [run for run in prefect.runs if is_late(run, now)]
    next_legacy = min((each.next for each in triggers if each.next is not None and each.state == "on"), default=None)
    next_prefect = min(ahead, default=None)
    active = prefect.known and prefect.deployment is not None and not prefect.deployment.paused
    findings = [
        *ownership.findings(job.name, known, active=active, now=now),
        *_of_fences(job, word, known, legacy),
        *_of_triggers(word, triggers),
        *(_of_prefect(job, word, prefect, ahead, late, now) if prefect.known else ()),
    ]
    return JobStatus(
        job=job.name,
        owner=word,
        since=owner.since if isinstance(owner, Owner) else None,
        mode="unknown" if word == "unknown" else "live" if word == "prefect" else "observe",
        triggers=triggers,
        deployment=_deployment(prefect),
        last=_last(last, legacy.sources, legacy.units),
        next=next_prefect if word in {"prefect", "draining"} else next_legacy if word == "legacy" else None,
        next_legacy=next_legacy,
        next_prefect=next_prefect,
        late=len(late),
        findings=tuple(findings),
        confirm_by=owner.confirm_by if isinstance(owner, Owner) else None,
    )


def _owner(job: Job, owner: Owner | str | None) -> OwnerWord:
    if isinstance(owner, str):
        return "unknown"
    if not job.has_legacy:
        return "prefect"
    if owner is None:
        return "legacy"
    return "draining" if owner.draining else "prefect"


# --- legacy triggers


def _cron(source: Source, count: int | None, now: datetime) -> Trigger:
    if count is None:
        return Trigger(source.label, "unknown", None, None, "its crontab could not be read")
    if count == 0:
        return Trigger(source.label, "off", None, None, "the line is not in the crontab")
    if source.missing is not None:
        return Trigger(source.label, "unknown", None, None, source.missing)
    return Trigger(source.label, "on", None, cadence.following(source, now))


def _timer(source: Source, trigger: TimerTrigger, units: Container[Manager], absent: Container[Manager]) -> Trigger:
    timer, manager = source.timer, cadence.manager_of(trigger)
    if timer is not None:
        state: TriggerState = "on" if timer.active == "active" else "off"
        return Trigger(source.label, state, timer.enabled.startswith("enabled"), timer.next_fire)
    if manager in absent:
        return Trigger(source.label, "off", None, None, source.missing)
    return Trigger(source.label, "missing" if manager in units else "unknown", None, None, source.missing)


def _of_triggers(word: OwnerWord, triggers: Sequence[Trigger]) -> Iterator[Finding]:
    for each in triggers:
        if each.state == "unknown":
            yield Finding("trigger-unknown", f"whether {each.label} is on is not known: {each.why}")
        elif each.state == "missing" and word == "legacy":
            yield Finding("trigger-missing", f"{each.label}: {each.why}")
        elif word == "prefect" and (each.state == "on" or each.enabled):
            yield ownership.came_back(each.label, on=each.state == "on")
    if word == "legacy" and all(each.state in {"off", "missing"} for each in triggers):
        whys = dict.fromkeys(each.why for each in triggers if each.state == "off" and each.why)
        because = f": {'; '.join(why for why in whys if why)}" if whys else ""
        yield Finding("nobody-runs-it", f"legacy owns the job, and none of its triggers is on{because}")


def _of_fences(job: Job, word: OwnerWord, known: Known, legacy: Triggers) -> Iterator[Finding]:
    """Say which services are not fenced as they should be, as far as systemd knows of them."""
    if known.open is not None:
        return
    for label, service in _services(legacy).items():
        fenced = any(path.rpartition("/")[2] == fence.file_name(job.name) for path in service.drop_ins)
        if word in {"prefect", "draining"} and (not fenced or service.needs_reload):
            yield ownership.fence_gone(label, unloaded=fenced)
        elif word == "legacy" and fenced:
            yield ownership.fence_left(label)


def _services(legacy: Triggers) -> dict[str, Service]:
    found = {}
    for source in legacy.sources:
        if source.timer is not None and source.service is not None:
            service = legacy.units[source.timer.manager].services.get(source.service)
            if service is not None and service.load == "loaded":
                found[f"{service.name} ({service.manager})"] = service
    return found


# --- Prefect


def _deployment(prefect: Prefects) -> DeploymentWord:
    if not prefect.known:
        return "unknown"
    if prefect.deployment is None:
        return "foreign" if prefect.conflict is not None else "absent"
    if prefect.deployment.paused:
        return "paused"
    if not prefect.deployment.schedules:
        return "unscheduled"
    return "scheduled" if any(each.active for each in prefect.deployment.schedules) else "paused"


def is_late(run: RemoteRun, now: datetime) -> bool:
    """Whether a run waits past its time. Those of a backfill wait for their turn."""
    waits = run.state_name in {"Late", "Scheduled"} and not run.parameters.get("backfill")
    return waits and run.expected_start is not None and run.expected_start < now - ON_TIME


def _of_prefect(
    job: Job,
    word: OwnerWord,
    prefect: Prefects,
    ahead: Sequence[datetime],
    late: Sequence[RemoteRun],
    now: datetime,
) -> Iterator[Finding]:
    if prefect.conflict is not None:
        yield Finding("foreign-deployment", f"{prefect.conflict.subject} {prefect.conflict.message}")
    if prefect.change is not None:
        yield _drift(prefect.change)
    deployment = prefect.deployment
    if deployment is None:
        return
    yield from _paused(word, prefect, deployment)
    if deployment.status == "NOT_READY" and not deployment.paused:
        pool = deployment.work_pool or job.work_pool
        yield Finding("no-worker", f"no worker has asked the work pool {pool} for runs in the last minute")
    active = [each for each in deployment.schedules if each.active]
    if not deployment.paused and not ahead and any(due_soon(each.schedule, now) for each in active):
        yield Finding("nothing-ahead", "no run is scheduled ahead: Prefect's scheduler does not work")
    if late:
        oldest = min(run.expected_start for run in late if run.expected_start is not None)
        waits = "1 run waits" if len(late) == 1 else f"{len(late)} runs wait"
        yield Finding("late-runs", f"{waits} past the time, the oldest since {oldest:%Y-%m-%d %H:%M:%S}Z")


def _drift(change: Change) -> Finding:
    if change.action == "create":
        return Finding("not-synced", "Prefect does not have the job yet: `orchctl sync`")
    by_hand = [item.field for item in change.fields if item.because == "by hand"]
    by_hand += [f"schedule {item.slug}" for item in change.schedules if item.because == "by hand"]
    if by_hand:
        return Finding("drift", f"changed by hand in Prefect: {', '.join(by_hand)} (`orchctl plan`)")
    return Finding("not-synced", "the catalog has changed since the last sync: `orchctl plan`")


def _paused(word: OwnerWord, prefect: Prefects, deployment: RemoteDeployment) -> Iterator[Finding]:
    """Say what is paused where that leaves slots to nobody: a job that legacy owns is only not observed."""
    known = {item.slug for item in prefect.desired.schedules} if prefect.desired else set()
    for schedule in deployment.schedules:
        if schedule.slug not in known and schedule.active and not deployment.paused:
            yield Finding("extra-schedule", f"schedule {schedule.slug or schedule.id} was added by hand in Prefect")
    if word == "legacy":
        return
    if deployment.paused:
        yield Finding("paused", "its deployment is paused in Prefect: nothing runs the job")
        return
    for schedule in deployment.schedules:
        if not schedule.active:
            yield Finding("paused", f"schedule {schedule.slug or schedule.id} is paused in Prefect")


def due_soon(schedule: Mapping[str, Any], now: datetime) -> bool:
    """Whether a schedule of Prefect's is due before its scheduler stops looking ahead; True where it cannot be read.

    Only for that: on days when clocks change the instants may not be Prefect's.
    """
    try:
        following = _following(schedule, now)
    except (KeyError, TypeError, ValueError):
        return True
    return following is not None and following - now < HORIZON


def _following(schedule: Mapping[str, Any], now: datetime) -> datetime | None:
    from zoneinfo import ZoneInfo

    here = now.astimezone(ZoneInfo(schedule.get("timezone") or "UTC"))
    if "cron" in schedule:
        from cronsim import CronSim, CronSimError

        try:
            return next(CronSim(schedule["cron"], here))
        except CronSimError as error:
            raise ValueError(str(error)) from error
        except StopIteration:
            return None
    if "interval" in schedule:
        return now + timedelta(seconds=float(schedule["interval"]))
    from dateutil.rrule import rrulestr

    # Prefect reads the rule in the wall clock of its zone.
    found = rrulestr(str(schedule["rrule"])).after(here.replace(tzinfo=None))
    return None if found is None else found.replace(tzinfo=here.tzinfo)


# --- what ran last


def newest(runs: Iterable[Run]) -> dict[str, Run]:
    """Return the last run of each job: one that executed goes before those that observed or were skipped."""
    found: dict[str, Run] = {}
    for run in runs:
        have = found.get(run.job)
        if have is None or _rank(run) > _rank(have):
            found[run.job] = run
    return found


def _rank(run: Run) -> tuple[bool, datetime]:
    executed = run.status in _SETTLED and (run.mode == "live" or run.origin != "prefect")
    return executed, run.started_at


def is_execution(run: Run) -> bool:
    """Whether a run ran the job, rather than observe or skip."""
    return _rank(run)[0]


def _last(run: Run | None, sources: Sequence[Source], units: Mapping[Manager, Units]) -> Last | None:
    """Return the last execution: of those on record, and what the services themselves still know."""
    found = [Last(run.status, run.started_at, run.origin, run.run_id)] if run is not None else []
    for source in sources:
        if source.service is None or source.timer is None:
            continue
        service = units[source.timer.manager].services.get(source.service)
        if service is not None and service.started_at is not None:
            found.append(Last(_ended(service), service.started_at, f"{service.name} ({service.manager})"))
    executed = [each for each in found if each.status in _SETTLED]
    newest_first = sorted(executed or found, key=lambda each: (each.at, each.run_id is not None), reverse=True)
    return newest_first[0] if newest_first else None


def _ended(service: Service) -> str:
    if service.is_active and service.sub != "exited":
        return "running"
    return "success" if service.result == "success" else "failed"
