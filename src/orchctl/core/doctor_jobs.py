"""What `doctor` thinks of jobs, their owners and their triggers: what `status`, `plan` and `legacy` found, sorted into
checks. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orchctl.core.doctor import Finding, Level, ok, or_ok, unknown, warning
from orchctl.core.installation import Installation
from orchctl.core.limits import QUEUE
from orchctl.core.words import counted, several

if TYPE_CHECKING:
    from orchctl.core import legacy_report, ownership
    from orchctl.core.plan import Plan
    from orchctl.core.remote import RemotePool, RemoteQueue
    from orchctl.core.status import JobStatus

CODES: Mapping[str, tuple[str, Level, str]] = {
    "owner-unknown": ("handover", "failure", "`orchctl status JOB`"),
    "unfinished-handover": ("handover", "failure", "`orchctl recover`"),
    "draining": ("handover", "failure", "`orchctl recover`"),
    "no-journal": ("handover", "failure", "`orchctl recover`"),
    "confirm-overdue": ("handover", "failure", "`orchctl confirm JOB` or `orchctl rollback JOB`"),
    "debt": ("handover", "warning", "`orchctl recover`"),
    "owned-and-gone": ("handover", "warning", "`orchctl rollback JOB`"),
    "trigger-came-back": ("triggers", "failure", "`orchctl recover`"),
    "fence-gone": ("triggers", "failure", "`orchctl recover`"),
    "nobody-runs-it": ("triggers", "failure", "turn its timer on, or `orchctl cutover JOB`"),
    "trigger-missing": ("triggers", "failure", "put right `legacy` in jobs.toml, or the unit"),
    "fence-left": ("triggers", "warning", "remove the drop-in"),
    "trigger-unknown": ("triggers", "unknown", "`orchctl legacy` says more"),
    "unpaused-by-hand": ("deployments", "warning", "`orchctl recover`"),
    "paused": ("deployments", "failure", "resume it in Prefect"),
    "foreign-deployment": ("deployments", "failure", "`orchctl plan` says more"),
    "drift": ("deployments", "warning", "`orchctl plan`, then `orchctl sync`"),
    "not-synced": ("deployments", "warning", "`orchctl plan`, then `orchctl sync`"),
    "extra-schedule": ("deployments", "warning", "delete it in Prefect, or add it to the catalog"),
    "gone-from-catalog": ("deployments", "warning", "`orchctl sync --prune` deletes it"),
    "no-worker": ("worker", "failure", "start one: `orchctl host up`, or the unit of `host install`"),
    "nothing-ahead": ("scheduler", "failure", "restart the server, and see its log; `orchctl doctor versions`"),
    "late-runs": ("late", "warning", "see why no worker takes them: `orchctl status JOB`, or cancel them in Prefect"),
    "prefect-unreachable": ("deployments", "unknown", "see `api`"),
}
"""What `status` can find, by its code: the check it belongs to, how bad it is, and what to do where it does not say."""
OF_PREFECT = frozenset({"deployments", "scheduler", "late"})
"""Checks that nobody can answer while Prefect does not."""


def of_status(
    check: str, found: Iterable[tuple[str | None, ownership.Finding]], *, codes: Collection[str] = CODES
) -> Iterator[Finding]:
    """Yield what belongs to a check of what was found, each with the job it was found of, None for none; what is said
    of several jobs alike is said once. `codes`: only these.
    """
    same: dict[tuple[str, str, str | None], list[str]] = {}
    for job, each in found:
        if each.code in codes and CODES[each.code][0] == check:
            same.setdefault((each.code, each.message, each.fix), []).extend([job] if job else [])
    for (code, message, fix), jobs in same.items():
        _, level, usual = CODES[code]
        said = f"{several(jobs)}: {message}" if jobs else message
        yield Finding(check, level, said, fix or (usual.replace("JOB", jobs[0]) if len(jobs) == 1 else usual))


def seen_of(check: str, jobs: Sequence[JobStatus]) -> str:
    """Say what is well about the jobs, by check."""
    scheduled = sum(job.deployment == "scheduled" for job in jobs)
    if check == "scheduler":
        following = [job.next_prefect for job in jobs if job.next_prefect is not None]
        if not following:
            return "no job with an active schedule is due: nothing is to be seen of the scheduler"
        return f"the next run is that of {min(following):%Y-%m-%d %H:%M:%S}Z"
    if check == "deployments":
        return f"{counted(len(jobs), 'job')} as the catalog has them, {scheduled} scheduled"
    if check == "triggers":
        return f"{counted(sum(len(job.triggers) for job in jobs), 'trigger')} of {counted(len(jobs), 'job')}"
    return "none"


def of_plan(found: Plan) -> Iterator[Finding]:
    """Yield what `status` does not see of what `sync` would do to deployments."""
    if found.writes_catalog and not found.changes:
        seen = "this catalog is not, or not as it should be, among those that were applied on this host"
        yield warning("deployments", seen, "`orchctl sync` writes it")


def pools(found: Mapping[str, tuple[RemotePool | None, Sequence[RemoteQueue]]]) -> Iterator[Finding]:
    """Judge the catalog's work pools and their queues."""
    check = "pools"

    def wrong() -> Iterator[Finding]:
        for name, (pool, queues) in found.items():
            if pool is None:
                yield Finding(check, "failure", f"there is no work pool {name}", "`orchctl sync` makes it")
                continue
            if pool.is_paused:
                resume = f"`prefect work-pool resume {name}`, or in the UI"
                yield Finding(check, "failure", f"work pool {name} is paused: no run of it starts", resume)
            if pool.type != "process":
                seen = f"work pool {name} is of type {pool.type}: its workers do not run jobs on this host"
                yield warning(check, seen, "name another pool in the catalog, or make it anew with type process")
            for queue in queues:
                if queue.is_paused:
                    level: Level = "warning" if queue.name == QUEUE else "failure"
                    yield Finding(
                        check, level, f"queue {queue.name} of work pool {name} is paused", "resume it in the UI"
                    )
            if all(queue.name != QUEUE for queue in queues):
                yield warning(check, f"work pool {name} has no queue for backfills", "`orchctl sync` makes it")

    yield from or_ok(
        wrong(), check, f"{counted(len(found), 'pool')}: {several(list(found))}" if found else "none is named"
    )


def limits(found: Plan) -> Iterator[Finding]:
    """Judge the global limits, and the queue of backfills, by what `sync` would do."""

    def wrong() -> Iterator[Finding]:
        for each in found.limits:
            seen = f"limit {each.name} is missing" if each.before is None else f"limit {each.name} was changed by hand"
            yield warning("limits", seen, "`orchctl sync` sets it")
        for queue in found.queues:
            if queue.before is not None:
                yield warning(
                    "limits", f"the queue {QUEUE} of work pool {queue.pool} differs", "`orchctl sync` sets it"
                )
        for note in found.notes:
            if note.startswith("limit "):
                yield warning("limits", note, "switch it on in Prefect, or delete it there")

    yield from or_ok(wrong(), "limits", "as the catalog has them")


def handlers(found: legacy_report.Report, legacy_jobs: Collection[str]) -> Iterator[Finding]:
    """Judge failure handlers. Of jobs that Prefect owns nobody starts the units: only `legacy_jobs` count."""
    missing = [each for each in found.findings if each.code == "missing-handler" and each.job in legacy_jobs]

    def wrong() -> Iterator[Finding]:
        for each in missing:
            said = f"{each.job}: {each.message}"
            yield warning("handlers", said, f"install it, or take it out of OnFailure= of {each.unit}")
        yield from _silent("handlers", found)

    yield from or_ok(wrong(), "handlers", "none is missing")


def linger(
    found: legacy_report.Report | None,
    legacy_jobs: Collection[str],
    installed: Installation | None,
    *,
    lingers: bool | None,
) -> Iterator[Finding]:
    """Judge whether users' units run without a login. `found` None: no legacy trigger starts a job. `lingers`: the user
    of the installation does, None: not known, or it is the system's.
    """
    check = "linger"

    def wrong() -> Iterator[Finding]:
        if installed is not None and installed.scope == "user" and lingers is False:
            seen = f"{installed.user} is without linger: server and workers stop when {installed.user} logs out"
            yield Finding(check, "failure", seen, f"`sudo loginctl enable-linger {installed.user}`")
        for each in found.findings if found is not None else ():
            if each.code == "no-linger" and (each.job is None or each.job in legacy_jobs):
                user = each.unit.removeprefix("user@")
                yield warning(check, each.message, f"`sudo loginctl enable-linger {user}`")
        yield from _silent(check, found)

    triggers = found.triggers if found is not None else ()
    users = [each for each in triggers if each.manager is not None and each.manager.scope == "user"]
    needed = bool(users) or (installed is not None and installed.scope == "user")
    yield from or_ok(wrong(), check, "their users have it" if needed else "nothing of this host needs it")


def _silent(check: str, found: legacy_report.Report | None) -> Iterator[Finding]:
    for text in found.silent if found is not None else ():
        yield unknown(check, text, "run it as that user, or with sudo")


def nothing_legacy(check: str) -> Finding:
    """Return that there are no legacy triggers to look at."""
    return ok(check, "no job has legacy triggers")
