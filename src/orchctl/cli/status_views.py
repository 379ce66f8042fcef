"""What `status` shows: a line a job and what is wrong below, or one job in a block."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.names import format_instant, visible
from orchctl.core.words import several

if TYPE_CHECKING:
    from orchctl.core.ownership import Finding
    from orchctl.core.status import JobStatus, Trigger
    from orchctl.services.status import Status
    from orchctl.wiring import Settings

_NARROW = 110
_LABEL = 12


def status(found: Status, timezone: str, settings: Settings, *, one: bool) -> None:
    """Show where jobs stand; `one`: a single job, in a block."""
    if not settings.as_json:
        for item in found.skipped:
            render.note(f"passed over {item.path}: {item.reason}")
    errors = [
        {"code": "skipped", "message": f"{item.path}: {item.reason}", "hint": "orchctl runs reindex"}
        for item in found.skipped
    ]
    view = _View(found, timezone, settings, one=one)
    render.emit("status", _data(found), view.show, settings, errors=errors)


def screen(found: Status, timezone: str, settings: Settings, *, one: bool) -> list[str]:
    """Return what `--watch` paints: no more lines than the terminal has, what is cut counted."""
    return _View(found, timezone, settings, one=one).screen(render.height())


def _data(found: Status) -> dict[str, Any]:
    return {
        "at": found.at,
        "prefect": {"api_url": found.api_url, "reached": found.unreachable is None, "error": found.unreachable},
        "ok": not found.wrong,
        "jobs": [_job(job) for job in found.jobs],
        "problems": list(found.findings),
    }


def _job(job: JobStatus) -> dict[str, Any]:
    return {
        "job": job.job,
        "owner": job.owner,
        "since": job.since,
        "mode": job.mode,
        "triggers": list(job.triggers),
        "deployment": job.deployment,
        "last": job.last,
        "next": job.next,
        "next_legacy": job.next_legacy,
        "next_prefect": job.next_prefect,
        "late": job.late,
        "problems": list(job.findings),
        "confirm_by": job.confirm_by,
    }


class _View:
    """The text of a status, on a terminal of this width or on none."""

    def __init__(self, found: Status, timezone: str, settings: Settings, *, one: bool) -> None:
        from zoneinfo import ZoneInfo

        self._found, self._zone, self._settings, self._one = found, ZoneInfo(timezone), settings, one
        self._columns = render.width()

    def show(self) -> None:
        """Print all of it. The table colours itself; what else there is may not hold what a terminal obeys."""
        if self._one:
            for text in self._block(self._found.jobs[0]):
                render.line(text)
            return
        if self._found.jobs:
            render.table(*self._table(), self._settings, flexible="JOB")
        for text in (*self._findings(), self._totals()):
            render.line(text)

    def screen(self, height: int) -> list[str]:
        """Return all of it in `height` lines: the jobs first, with those that something is wrong with on top."""
        head = f"{self._found.at.astimezone(self._zone):%Y-%m-%d %H:%M:%S %Z}  orchctl status, Ctrl-C ends it"
        if self._one:
            return self._cut([head, "", *map(visible, self._block(self._found.jobs[0]))], height, "line")
        headings, rows = self._table()
        # Those with something wrong first: they must not be what is cut.
        order = sorted(range(len(rows)), key=lambda index: not self._found.jobs[index].findings)
        table = render.table_lines(headings, [rows[index] for index in order], self._settings, flexible="JOB")
        findings = [visible(text) for text in self._findings()]
        room = height - 3
        for_findings = min(len(findings), max(room // 3, room - len(table)))
        lines = [head, *self._cut(table, room - for_findings, "job"), *self._cut(findings, for_findings, "line")]
        return [*lines, self._totals()]

    @staticmethod
    def _cut(lines: list[str], room: int, word: str) -> list[str]:
        if len(lines) <= room:
            return lines
        more = len(lines) - max(0, room - 1)
        return [*lines[: max(0, room - 1)], f"… {more} more {word}{'' if more == 1 else 's'}"] if room > 0 else []

    # --- all jobs

    def _table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        narrow = self._columns is not None and self._columns < _NARROW
        headings: tuple[str, ...] = ("", "JOB", "OWNER", "LEGACY", "PREFECT", "LAST", "AT", "NEXT")
        if not narrow:
            headings = ("", "JOB", "OWNER", "MODE", "LEGACY", "PREFECT", "LAST", "AT", "BY", "NEXT", "WRONG")
        return headings, [self._row(job, narrow=narrow) for job in self._found.jobs]

    def _row(self, job: JobStatus, *, narrow: bool) -> tuple[str, ...]:
        mark = "!" if job.findings else ""
        last, at = (job.last.status, self._when(job.last.at)) if job.last else ("-", "-")
        triggers, following = _triggers(job.triggers), self._when(job.next)
        if narrow:
            return mark, job.job, job.owner, triggers, job.deployment, last, at, following
        # What only systemd tells is of `live-score.service (system)`; what is recorded, of `systemd`.
        by = ("systemd" if "(" in job.last.by else job.last.by) if job.last else "-"
        wrong = ", ".join(dict.fromkeys(each.code for each in job.findings))
        return (
            mark, job.job, job.owner, job.mode, triggers, job.deployment, last, at, by, following, wrong
        )  # fmt: skip

    def _when(self, instant: datetime | None) -> str:
        """Write an instant as short as it can be told: today's by the clock, others by their date."""
        if instant is None:
            return "-"
        local, today = instant.astimezone(self._zone), self._found.at.astimezone(self._zone)
        if local.date() == today.date():
            return f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
        return f"{local:%m-%d %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d}"

    def _findings(self) -> Iterator[str]:
        named: list[tuple[str, Finding]] = [("", each) for each in self._found.findings]
        named += [(f"{job.job}: ", each) for job in self._found.jobs for each in job.findings]
        same: dict[str, list[str]] = {}
        for name, each in named:
            same.setdefault(_said(each), []).append(name.removesuffix(": "))
        for said, jobs in same.items():
            # The same of many jobs (no worker, no systemd) is one thing that is wrong.
            who = f"{several(jobs)}: " if jobs[0] else ""
            yield from self._wrapped(f"! {who}{said}", indent="  ")

    def _wrapped(self, text: str, *, indent: str) -> list[str]:
        if self._columns is None:
            return [text]
        return textwrap.wrap(text, self._columns, subsequent_indent=indent, break_on_hyphens=False)

    def _totals(self) -> str:
        owners: dict[str, int] = {}
        for job in self._found.jobs:
            owners[job.owner] = owners.get(job.owner, 0) + 1
        wrong = sum(1 for job in self._found.jobs if job.findings)
        counted = ", ".join(f"{number} {owner}" for owner, number in sorted(owners.items()))
        count = len(self._found.jobs)
        said = f"{count} job{'' if count == 1 else 's'}" + (f": {counted}" if counted else "")
        return f"{said}; {wrong or 'none'} with something wrong ({self._zone.key})"

    # --- one job

    def _block(self, job: JobStatus) -> Iterator[str]:
        owner = job.owner + (f" since {self._instant(job.since)}" if job.since else "")
        rows: list[tuple[str, str | None]] = [
            ("job", job.job),
            ("owner", owner),
            *((("confirm", self._unconfirmed(job.job, job.confirm_by)),) if job.confirm_by else ()),
            ("mode", f"{job.mode}: {_MODES[job.mode]}"),
            *(("trigger", self._trigger(each)) for each in job.triggers),
            ("deployment", job.deployment),
            ("last run", self._last(job)),
            ("next", self._instant(job.next)),
        ]
        if job.next_legacy is not None and job.next_prefect is not None:
            other = job.next_prefect if job.next == job.next_legacy else job.next_legacy
            side = "Prefect" if other == job.next_prefect else "legacy"
            rows.append((f"{side.lower()}", f"next {self._instant(other)}"))
        rows += [("wrong", _said(each)) for each in (*self._found.findings, *job.findings)]
        for label, value in rows:
            yield from self._wrapped(f"{label:<{_LABEL}}{value or '-'}", indent=" " * _LABEL)

    def _unconfirmed(self, job: str, until: datetime) -> str:
        return f"rolls back by itself at {self._instant(until)}, unless `orchctl confirm {job}` comes first"

    def _last(self, job: JobStatus) -> str | None:
        if job.last is None:
            return None
        run = f", run {job.last.run_id}" if job.last.run_id else ""
        return f"{job.last.status} {self._instant(job.last.at)} by {job.last.by}{run}"

    def _trigger(self, each: Trigger) -> str:
        if each.why:
            return f"{each.label}: {each.state}, {each.why}"
        enabled = "" if each.enabled is None else ", enabled" if each.enabled else ", not enabled"
        following = f", next {self._instant(each.next)}" if each.next is not None else ""
        return f"{each.label}: {each.state}{enabled}{following}"

    def _instant(self, instant: datetime | None) -> str | None:
        if instant is None:
            return None
        local = instant.astimezone(self._zone)
        return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()} ({format_instant(instant)})"


_MODES = {
    "observe": "Prefect's runs execute nothing",
    "live": "Prefect's runs execute the job",
    "unknown": "Prefect's runs fail until the owner is known",
}


def _triggers(triggers: Iterable[Trigger]) -> str:
    """Say in a word whether the legacy triggers are on: all, none, or how many."""
    states = [each.state for each in triggers]
    if not states:
        return "-"
    if len(set(states)) == 1:
        return "?" if states[0] == "unknown" else states[0]
    return f"{states.count('on')}/{len(states)} on"


def _said(finding: Finding) -> str:
    return f"{finding.message} [{finding.code}]" + (f": {finding.fix}" if finding.fix else "")
