"""`status` against a real server and a real worker: what the server says of workers, runs ahead and drift."""

from __future__ import annotations

from typing import Any

from support import Live, Project, eventually
from syncing import NOBODYS


def found(project: Project) -> dict[str, Any]:
    data = project.json("status")
    return {job["job"]: {**job, "codes": sorted(each["code"] for each in job["problems"])} for job in data["jobs"]}


def test_status_tells_a_worker_from_none_and_finds_what_people_did(project: Project, live: Live) -> None:
    project.schedules["hourly"] = {"cron": "0 * * * *"}
    project.schedules["yearly"] = {"cron": "0 5 1 7 *"}
    command = [project.script("hello.sh", "echo hello")]
    project.jobs["served"] = {"command": command, "schedules": ["hourly"]}
    project.jobs["waiting"] = {"command": command, "schedules": ["hourly"], "work_pool": NOBODYS}
    project.write()
    assert {name: job["codes"] for name, job in found(project).items()} == {
        "served": ["not-synced"],
        "waiting": ["not-synced"],
    }
    project.orchctl("sync")
    with live.api() as api:
        # The worker asks for runs every few seconds; the scheduler looks at new deployments about as often.
        settled = eventually(lambda: (now := found(project))["served"]["codes"] == [] and now, within=90)
        assert settled["served"]["deployment"] == "scheduled"
        assert settled["served"]["next"] == settled["served"]["next_prefect"] is not None
        eventually(lambda: found(project)["waiting"]["codes"] == ["no-worker"], within=90)
        deployments = {name: api.deployment(name, name) for name in project.jobs}
        served, waiting = deployments["served"], deployments["waiting"]
        assert served is not None
        assert waiting is not None
        assert (served.status, waiting.status) == ("READY", "NOT_READY")
        api.update_deployment(served.id, {"tags": ["orchctl", "mine"]})
        api.update_deployment(waiting.id, {"paused": True})
        # A change by hand drops the runs ahead, until the scheduler's next round.
        told = eventually(lambda: (now := found(project))["served"]["codes"] == ["drift"] and now, within=90)
        assert (told["waiting"]["deployment"], told["waiting"]["codes"]) == ("paused", ["paused"])
    project.orchctl("status", "--check", check=3)
    project.orchctl("run", "served", "--wait")
    last = found(project)["served"]["last"]
    assert (last["status"], last["by"]) == ("success", "prefect")
