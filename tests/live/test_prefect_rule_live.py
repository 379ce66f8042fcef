"""What `schedule compare` takes for Prefect's instants is what a real server schedules."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from orchctl.adapters.prefect_rule import PrefectRule
from orchctl.core.remote import RemoteRun
from support import Live, Project, eventually

CADENCES = {
    "cron": {"cron": "*/7 8-23 * * *"},
    "weekdays": {"cron": "30 2 * * 1-5"},
    "expression": {"on_calendar": "Mon..Fri *-*-* 16..23:05,35:00"},
    "both-days": {"on_calendar": "Fri *-*-8..14 12:00:00"},
    "last-day": {"on_calendar": "*-*~02 03:30:00"},
    "rule": {"rrule": "FREQ=DAILY;INTERVAL=2;BYHOUR=4;BYMINUTE=10"},
    "interval": {"every": "25m"},
    "slow": {"every": "36h", "anchor": "2026-01-01T07:30:00Z", "timezone": "UTC"},
}


def test_a_server_materialises_exactly_the_instants_that_compare_counts(live: Live, project: Project) -> None:
    project.schedules = dict(CADENCES)
    project.jobs = {"job": {"command": ["true"], "schedules": list(CADENCES)}}
    project.write()
    project.orchctl("sync")
    with live.api() as api:
        deployment = api.deployment("job", "job")
        assert deployment is not None
        names = {schedule.id: schedule.slug for schedule in deployment.schedules}

        def ahead() -> dict[str, list[RemoteRun]] | None:
            now = datetime.now(UTC)
            found: dict[str, list[RemoteRun]] = {str(slug): [] for slug in names.values()}
            for run in api.scheduled_runs([deployment.id]):
                if run.created_by_schedule in names and run.expected_start is not None and run.expected_start > now:
                    found[str(names[run.created_by_schedule])].append(run)
            # The scheduler makes at least three of each.
            return found if all(len(runs) >= 3 for runs in found.values()) else None

        runs: dict[str, list[RemoteRun]] = eventually(ahead, within=120, poll=1)
    slots = {name: sorted(run.expected_start for run in each if run.expected_start) for name, each in runs.items()}
    rules = {str(each.slug): each.schedule for each in deployment.schedules}
    for name, rule in rules.items():
        first, last = slots[name][0], slots[name][-1]
        with PrefectRule(os.environ).asked([rule], first, last + timedelta(seconds=1)) as answer:
            (counted,) = answer()
        assert [datetime.fromtimestamp(instant, UTC) for instant in counted] == slots[name], name
    shown = project.json("schedule", "next", "job", "--count", "1")
    due = {each["name"]: each["instants"][0] for each in shown["schedules"]}
    now = datetime.now(UTC)
    for name, moments in slots.items():
        still = [moment for moment in moments if moment > now + timedelta(minutes=1)]
        assert due[name] <= f"{still[0]:%Y-%m-%dT%H:%M:%S}Z", name
        assert due[name] in {f"{moment:%Y-%m-%dT%H:%M:%S}Z" for moment in moments}, name
