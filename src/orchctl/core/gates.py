"""The gates of a cutover: what must hold before Prefect may own a job, and what would make it hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from orchctl.core import durations, status
from orchctl.core.catalog import Job
from orchctl.core.handover_journal import Handover
from orchctl.core.manifest import Run
from orchctl.core.names import nearest
from orchctl.core.plan import Plan
from orchctl.core.remote import RemoteDeployment, RemoteRun
from orchctl.core.status import Trigger
from orchctl.errors import OrchctlError, UsageError

State = Literal["ok", "refused", "unknown", "waived"]
IDS = (
    "catalog", "applied", "worker", "ahead", "triggers", "fence", "cadence", "runs", "handover", "clock", "idle",
    "confirm",
)  # fmt: skip
NEVER_WAIVED = frozenset({"catalog", "triggers", "fence", "handover"})
"""Without these there is nothing to hand over, or no way to do it."""
APART = timedelta(seconds=5)
"""How far the clocks of this host and of Prefect's server may differ."""
_SLACK = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate. `seen` is what was found, `fix` what would make it hold, None where it does.

    `unknown`: it could not be looked at, and so does not hold; `error` is why not, None where it was looked at.
    `reason` is why the operator waived it.
    """

    id: str
    state: State
    seen: str
    fix: str | None = None
    reason: str | None = None
    error: OrchctlError | None = None

    @property
    def holds(self) -> bool:
        """Whether it is in nobody's way."""
        return self.state in {"ok", "waived"}


def ok(id: str, seen: str) -> Gate:  # noqa: A002 - the word of the domain
    """Return a gate that holds."""
    return Gate(id, "ok", seen)


def refused(id: str, seen: str, fix: str) -> Gate:  # noqa: A002 - the word of the domain
    """Return a gate that does not hold."""
    return Gate(id, "refused", seen, fix)


def unknown(id: str, error: OrchctlError) -> Gate:  # noqa: A002 - the word of the domain
    """Return a gate that could not be looked at."""
    return Gate(id, "unknown", error.message, error.hint or "it must be known before a cutover", error=error)


# --- waiving


def waivers(given: Iterable[str]) -> dict[str, str]:
    """Return what `--waive GATE=why` says, by gate. Raises UsageError for what cannot be waived."""
    found: dict[str, str] = {}
    for text in given:
        gate, equals, why = text.partition("=")
        if gate not in IDS:
            near = nearest(gate, IDS)
            hint = (f'did you mean "{near}"? ' if near else "") + f"gates: {', '.join(IDS)}"
            raise UsageError(f"--waive: there is no gate {gate!r}", hint=hint)
        if gate in NEVER_WAIVED:
            raise UsageError(f"--waive: {gate} cannot be waived", hint="a cutover could not be done without it")
        if not equals or not why.strip():
            raise UsageError(f"--waive: why waive {gate}?", hint=f'say it: --waive {gate}="the reason", it is recorded')
        found[gate] = why.strip()
    return found


def waived(gates: Iterable[Gate], reasons: Mapping[str, str]) -> tuple[Gate, ...]:
    """Return the gates, with those waived that do not hold and for which there is a reason."""
    return tuple(
        replace(gate, state="waived", reason=reasons[gate.id]) if not gate.holds and gate.id in reasons else gate
        for gate in gates
    )


# --- judging


def applied(job: str, proposed: Plan) -> Gate:
    """Judge what `sync` would do to the job: nothing."""
    if proposed.conflicts:
        first = proposed.conflicts[0]
        return refused("applied", f"{first.subject} {first.message}", first.hint)
    if proposed.changes:
        change = proposed.changes[0]
        if change.action == "create":
            return refused("applied", "Prefect does not have the job", f"`orchctl sync {job}`")
        how = "it was changed by hand in Prefect" if change.drift else "the catalog has changed since the last sync"
        what = [each.field for each in change.fields] + [f"schedule {each.slug}" for each in change.schedules]
        return refused("applied", f"{how}: {', '.join(what)}", f"`orchctl plan {job}`, then `orchctl sync {job}`")
    if not proposed.empty:
        missing = "the work pool, its queue, a limit or the applied catalog is missing or differs"
        return refused("applied", missing, f"`orchctl sync {job}`")
    return ok("applied", "Prefect is as the catalog has it")


def worker(deployment: RemoteDeployment, runs: Sequence[RemoteRun], now: datetime) -> Gate:
    """Judge by effect whether a worker takes the job's runs: it has asked for them, and none waits past its time."""
    if deployment.status != "READY":
        return refused(
            "worker",
            f"no worker has asked the work pool {deployment.work_pool} for runs in the last minute",
            "start one: `orchctl host up`",
        )
    late = [run.expected_start for run in runs if status.is_late(run, now) and run.expected_start is not None]
    if late:
        return refused(
            "worker",
            f"{_count(len(late), 'run')} past the time, the oldest since {min(late):%Y-%m-%d %H:%M:%S}Z",
            "see why no worker takes them: `orchctl host status`, or cancel them in Prefect",
        )
    return ok("worker", f"one serves the work pool {deployment.work_pool}, and no run is late")


def ahead(
    job: Job, deployment: RemoteDeployment, runs: Sequence[RemoteRun], now: datetime, *, paused_by_us: bool
) -> Gate:
    """Judge whether Prefect has the job's next runs. `paused_by_us`: the last rollback has paused it."""
    if not job.schedules:
        return refused(
            "ahead", "the job has no schedule: Prefect would never run it", "`schedules = [...]` in jobs.toml"
        )
    if deployment.paused:
        if paused_by_us:
            return ok("ahead", "paused by the last rollback; the cutover unpauses it")
        return refused(
            "ahead", "its deployment was paused by hand in Prefect", "resume it in Prefect, and see runs come"
        )
    paused = [each.slug or each.id for each in deployment.schedules if not each.active]
    if paused:
        return refused("ahead", f"paused by hand in Prefect: schedule {', '.join(paused)}", "resume it in Prefect")
    following = [run.expected_start for run in runs if run.expected_start is not None and run.expected_start > now]
    if not following and any(status.due_soon(each.schedule, now) for each in deployment.schedules):
        return refused("ahead", "no run is scheduled", "see the server's log: its scheduler does not work")
    return ok("ahead", f"next {min(following):%Y-%m-%d %H:%M:%S}Z" if following else "none is due in 99 days")


def triggers(found: Sequence[Trigger], gone: Sequence[str]) -> Gate:
    """Judge the legacy triggers. `gone` are services that a timer would start and that are not there."""
    doubtful = [each for each in found if each.state in {"missing", "unknown"}]
    if doubtful:
        first = doubtful[0]
        fix = "correct `legacy` in jobs.toml" if first.state == "missing" else "it must be known before a cutover"
        return refused("triggers", f"{first.label}: {first.why or first.state}", fix)
    if gone:
        return refused("triggers", f"there is no {gone[0]} for its timer to start", "correct `legacy` in jobs.toml")
    on = [each for each in found if each.state == "on"]
    if not on:
        labels = ", ".join(each.label for each in found)
        return refused("triggers", f"none is on: {labels}", "switch on what starts the job today, or correct `legacy`")
    if len(on) < len(found):
        off = ", ".join(each.label for each in found if each.state == "off")
        return ok("triggers", f"{len(on)} of {len(found)} on; off: {off}")
    return ok("triggers", f"on: {', '.join(each.label for each in on)}")


def fence(obstacles: Sequence[str]) -> Gate:
    """Judge whether triggers and fence can be switched."""
    if obstacles:
        return refused("fence", "; ".join(obstacles), "remove what is in the way")
    return ok("fence", "timers, services and crontabs can be switched")


def runs(job: Job, found: Sequence[Run], now: datetime) -> Gate:
    """Judge the runs of the job that Prefect drove and that really ran it; `found` in any order."""
    since = now - timedelta(seconds=job.gates.within)
    own = [
        run
        for run in found
        if run.job == job.name and run.origin == "prefect" and run.mode == "live" and run.started_at >= since
    ]
    ended = sorted(
        (run for run in own if run.status in {"success", "failed", "crashed", "cancelled"}),
        key=lambda run: run.started_at,
    )
    wanted, within = job.gates.min_successes, durations.canonical(job.gates.within)
    good = sum(run.status == "success" for run in ended)
    seen = f"{good} of {wanted} succeeded within {within}"
    if ended and ended[-1].status != "success":
        last = ended[-1]
        return refused("runs", f"{seen}; the last one {last.status}: {last.run_id}", f"`orchctl run {job.name} --wait`")
    if good < wanted:
        more = wanted - good
        times = "" if more == 1 else f", {more} times"
        return refused("runs", seen, f"`orchctl run {job.name} --wait`{times}")
    return ok("runs", f"{seen}, and the last one is good" if ended else f"{seen}: none is asked for")


def handover(unfinished: Handover | None, *, owned: bool, job: str) -> Gate:
    """Judge whether the job is between two owners, or Prefect's already."""
    if unfinished is not None:
        kind, at = unfinished.opened.kind, unfinished.opened.at
        return refused("handover", f"a {kind} of {at:%Y-%m-%d %H:%M:%S}Z is unfinished", "`orchctl recover`")
    if owned:
        return refused("handover", "Prefect owns the job already", f"nothing is to do: `orchctl status {job}`")
    return ok("handover", "legacy owns the job, and no handover is unfinished")


def clock(
    *, now: datetime, offset_s: float | None, synchronised: bool | None, latest: Mapping[str, datetime | None]
) -> Gate:
    """Judge the clock of this host, by which slots are told from one another.

    `offset_s`: how far that of Prefect's server is ahead; None where it does not say. `synchronised` None: systemd does
    not say. `latest` are instants that must have passed, by what they are.
    """
    for what, at in latest.items():
        if at is not None and at > now + _SLACK:
            return refused(
                "clock", f"it is before {what} of {at:%Y-%m-%d %H:%M:%S}Z: it was set back", "set this host's clock"
            )
    if offset_s is not None and abs(offset_s) > APART.total_seconds():
        way = "behind" if offset_s > 0 else "ahead of"
        return refused(
            "clock",
            f"it is {durations.human(abs(offset_s))} {way} that of Prefect's server",
            "set the clocks of both hosts (`timedatectl set-ntp true`)",
        )
    # No reason to refuse: both owners go by this clock, and where Prefect's server goes by another it was compared.
    words = {True: "synchronised", False: "not synchronised with a time server"}
    ntp = "whether it is synchronised is not known" if synchronised is None else words[synchronised]
    server = "Prefect's server does not tell its own" if offset_s is None else "Prefect's server agrees"
    return ok("clock", f"{ntp}; {server}")


def idle(running: Sequence[str], *, has_cron: bool) -> Gate:
    """Judge whether a legacy run is going."""
    if running:
        services = " and ".join(running)
        return refused("idle", f"running: {services}", "--wait waits until it has ended")
    return ok("idle", "no legacy run is going" + (", as far as systemd knows (cron does not tell)" if has_cron else ""))


def confirm(obstacles: Sequence[str]) -> Gate:
    """Judge whether a rollback that comes by itself can be armed."""
    if obstacles:
        return refused("confirm", "; ".join(obstacles), "or leave --confirm-within out")
    return ok("confirm", "a timer of systemd's can roll it back")


def _count(number: int, word: str) -> str:
    return f"1 {word} waits" if number == 1 else f"{number} {word}s wait"


@dataclass(frozen=True, slots=True)
class Seam:
    """How well two owners meet: slots that nobody runs, and starts of legacy's in Prefect's time."""

    gap: int
    overlap: int


def seam(*, since: datetime | None, last_legacy: datetime | None, dropped: Sequence[datetime]) -> Seam | None:
    """Return how a cutover came out; None where it cannot be known, for nobody knows when legacy ran last.

    `since`: from when on Prefect owns the job. `dropped` are slots that neither ran, and the catch-up policy gives up.
    """
    if since is None or last_legacy is None:
        return None
    return Seam(len(dropped), int(last_legacy >= since))
