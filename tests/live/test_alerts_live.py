"""Alerts through a real server: each event reaches people once, with what they need to know."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from alert_receivers import Hook, Mailbox, hook, mailbox
from live_runs import OwnWorker, ask, finished, now
from orchctl.adapters.local_stack import free_port
from orchctl.core.alerts_plan import BLOCK_FIELDS, BLOCK_TYPE
from support import Live, Project, eventually

SECRET = "hunter2-of-the-database"
EVENTS = ["failed", "crashed", "timed_out", "late", "recovered", "worker_gone"]
STRESS = bool(os.environ.get("ORCHCTL_STRESS"))


@dataclass
class AlertProject(Project):
    """A project whose state directory is that of the server: the block in it reads there where channels lead."""

    state: Path = Path()

    @property
    def state_dir(self) -> Path:
        return self.state

    def write_alerts(self, hook: Hook, box: Mailbox, *, worker_after: str = "3m", **settings: Any) -> None:
        secret = self.root / "url"
        secret.touch(0o600)
        secret.write_text(hook.url)
        mail = {"kind": "email", "host": box.host, "port": box.port, "security": "none"}
        channels = {
            "hook": {"kind": "webhook", "url_file": str(secret)},
            "mail": {**mail, "from": "orchctl@example.org", "to": ["daniel@example.org"]},
        }
        routes = {"all": {"events": EVENTS, "channels": ["hook", "mail"]}}
        alerts = {"late_after": "10s", "burst": 50, **settings}
        whole = {"version": 1, "alerts": alerts, "channels": channels, "routes": routes}
        whole["watchdog"] = {"worker_after": worker_after}
        (self.root / "config" / "alerts.toml").write_text(tomli_w.dumps(whole))


@pytest.fixture
def project(live: Live, tmp_path: Path) -> Iterator[AlertProject]:
    made = AlertProject(tmp_path, live.api_url, name=f"t{uuid.uuid4().hex[:8]}", state=live.state_dir)
    yield made
    (tmp_path / "config" / "alerts.toml").write_text("version = 1\n")
    made.orchctl("alerts", "apply", "--yes", check=None)
    with live.api() as api:
        for deployment in api.deployments(names=(), tag="orchctl"):
            if deployment.labels.get("orchctl.catalog") == made.name:
                api.delete_flow(deployment.flow_id)


@pytest.fixture
def receivers() -> Iterator[tuple[Hook, Mailbox]]:
    with hook() as hooked, mailbox(free_port()) as box:
        yield hooked, box


def test_each_event_arrives_once_on_each_channel(
    live: Live, project: AlertProject, receivers: tuple[Hook, Mailbox]
) -> None:
    hooked, box = receivers
    marker = project.root / "mended"
    bad = project.script(
        "bad.sh", f'test -e {marker} && exit 0\necho "key is $DB_PASSWORD" >&2\necho it broke >&2\nexit 3'
    )
    job = {"command": ["/bin/sleep", "60"], "env": {"DB_PASSWORD": SECRET}}
    name = project.name
    project.jobs = {
        f"bad-{name}": {**job, "command": [bad]},
        f"slow-{name}": {**job, "timeout": "2s"},
        f"dead-{name}": job,
        f"late-{name}": {**job, "work_pool": f"none-{name}"},
        f"seen-{name}": {**job, "work_pool": f"none-{name}", "legacy": [{"timer": f"{name}.timer"}]},
    }
    project.write()
    project.write_alerts(hooked, box)
    project.orchctl("sync")
    applied = project.orchctl("alerts", "apply").stdout
    assert applied.count("created") == 7, applied
    assert "nothing to do" in project.orchctl("alerts", "apply").stderr

    for kind in ("seen", "late"):  # the job of the first is not Prefect's: that it is late is nobody's trouble
        ask(live, f"{kind}-{name}", scheduled_for=now())
    for kind in ("slow", "dead"):
        ask(live, f"{kind}-{name}")
    failed = finished(live, ask(live, f"bad-{name}").id)
    _kill(project, f"dead-{name}")
    for kind, event in (("bad", "failed"), ("slow", "timed_out"), ("dead", "crashed"), ("late", "late")):
        eventually(partial(hooked.of, f"{kind}-{name}", event), within=60)
    marker.touch()
    finished(live, ask(live, f"bad-{name}").id)
    eventually(lambda: hooked.of(f"bad-{name}", "recovered"), within=60)
    finished(live, ask(live, f"bad-{name}").id)
    eventually(lambda: len(box.got) >= 5, within=60)

    told = sorted((each["job"].partition("-")[0], each["event"]) for each in hooked.got)
    assert told == [
        ("bad", "failed"),
        ("bad", "recovered"),
        ("dead", "crashed"),
        ("late", "late"),
        ("slow", "timed_out"),
    ]
    (message,) = hooked.of(f"bad-{name}", "failed")
    assert (message["exit_code"], message["last_lines"]) == (3, ["key is ***", "it broke"])
    assert message["command"] == f"orchctl runs show {failed.name}"
    assert message["ui_url"].endswith(f"/runs/flow-run/{failed.id}")
    (text,) = box.about(f"bad-{name} failed")
    for part in ("exit code: 3", "key is ***", "it broke", failed.name, failed.id):
        assert part in text
    assert SECRET not in str(hooked.got) + str([mail.as_string() for mail in box.got])
    assert len(box.got) == 5
    listed = project.json("alerts", "list")
    assert [each["last"]["ok"] for each in listed["channels"]] == [True, True]
    assert [each["state"] for each in listed["routes"]] == ["in force"]


def _kill(project: Project, job: str) -> None:
    """Kill the process of a run, as a lack of memory would."""

    def pid() -> Any:
        runs = [run for run in project.json("runs")["runs"] if run["job"] == job and run["status"] == "running"]
        return project.manifest(runs[0]["run_id"])["environment"]["pid"] if runs else None

    with contextlib.suppress(ProcessLookupError):
        os.kill(eventually(pid), signal.SIGKILL)


def test_what_people_change_in_prefect_is_put_right(
    live: Live, project: AlertProject, receivers: tuple[Hook, Mailbox]
) -> None:
    project.jobs = {f"any-{project.name}": {"command": ["/bin/true"]}}
    project.write()
    project.write_alerts(*receivers)
    project.orchctl("alerts", "apply")
    # It waits for what never comes: one that expects nothing is set off by every event, its own among them.
    trigger = {"type": "event", "posture": "Reactive", "expect": ["orchctl.never"]}
    foreign = {"name": f"orchctl {project.name}: mine", "trigger": trigger, "actions": []}
    with live.api() as api:
        api.create_automation(foreign)
    first, second, third, *_ = _ours(live, project)
    actions = [{**first["actions"][0], "body": "changed by hand"}]
    kept = ("name", "description", "tags", "trigger")
    with live.api() as api:  # not `live.request`: SQLite may be busy, and this asks again
        path = "/automations/"
        api.request(
            "PUT", path + first["id"], {**{key: first[key] for key in kept}, "actions": actions}, repeatable=True
        )
        api.request("PATCH", path + second["id"], {"enabled": False})
        api.request("DELETE", path + third["id"])
    assert "(actions)" in project.orchctl("alerts", "apply", "--dry-run", check=3).stdout
    said = project.orchctl("alerts", "apply")
    assert said.stdout.splitlines() == [
        f"automation {first['name']}: updated (actions)",
        f"automation {third['name']}: created",
    ]
    assert f"{second['name']} is switched off in Prefect" in said.stderr
    again = {each["name"]: each for each in _ours(live, project)}
    assert again[first["name"]]["actions"] == first["actions"]
    assert not again[second["name"]]["enabled"]
    assert third["name"] in again
    (project.root / "config" / "alerts.toml").write_text("version = 1\n")
    assert "this needs an answer" in project.orchctl("alerts", "apply", check=5).stderr
    project.orchctl("alerts", "apply", "--yes")
    left = live.request("POST", "/automations/filter", {})
    assert [each["name"] for each in left if project.name in each["name"]] == [foreign["name"]]


def _ours(live: Live, project: Project) -> list[dict[str, Any]]:
    rows = live.request("POST", "/automations/filter", {"sort": "NAME_ASC"})
    return [each for each in rows if f"orchctl:{project.name}" in each["tags"]]


@pytest.mark.campaign
def test_many_failures_at_once_are_few_messages_and_a_receiver_that_fails_is_asked_again(
    live: Live, project: AlertProject, receivers: tuple[Hook, Mailbox]
) -> None:
    hooked, box = receivers
    hooked.status = 500
    names = [f"many-{number}-{project.name}" for number in range(50 if STRESS else 8)]
    project.jobs = {name: {"command": ["/bin/true"], "work_pool": f"none-{project.name}"} for name in names}
    project.write()
    project.write_alerts(hooked, box, burst=3)
    project.orchctl("sync", timeout=600)
    project.orchctl("alerts", "apply")
    runs = [ask(live, name, scheduled_for=now() + timedelta(hours=1)).id for name in names]
    for run in runs:
        state = {"state": {"type": "FAILED", "message": "stopped by hand"}, "force": True}
        live.request("POST", f"/flow_runs/{run}/set_state", state)
    eventually(lambda: hooked.asked, within=60)
    hooked.status = 200

    def told(messages: list[dict[str, Any]]) -> int:
        return sum(each["count"] for each in messages)

    eventually(lambda: told(hooked.got) == len(names), within=90)
    # Four, where Prefect tells of them all within the 15 s that they are held.
    assert 4 <= len(hooked.got) <= len(names) // 2 + 2
    assert hooked.got[0]["reason"] == "stopped by hand"
    eventually(lambda: len(box.got) >= 4, within=60)
    assert len(box.got) <= len(names) // 2 + 2


@pytest.mark.campaign
def test_a_worker_that_is_gone_and_back_is_told(
    live: Live, project: AlertProject, receivers: tuple[Hook, Mailbox]
) -> None:
    hooked, box = receivers
    with OwnWorker(live, project.root / "own") as worker:
        project.jobs = {f"any-{project.name}": {"command": ["/bin/true"], "work_pool": worker.pool}}
        project.write()
        project.write_alerts(hooked, box, worker_after="100s")
        project.orchctl("alerts", "apply")
        worker.start()
        with live.api() as api:
            eventually(lambda: (pool := api.pool(worker.pool)) is not None and pool.status == "READY")
        worker.signal(signal.SIGKILL)
        eventually(lambda: hooked.got, within=180)
        worker.start()
        eventually(lambda: len(hooked.got) == 2, within=60)
    assert [(each["event"], each["about"]) for each in hooked.got] == [
        ("worker_gone", f"work pool {worker.pool}"),
        ("recovered", f"work pool {worker.pool}"),
    ]


def test_the_block_in_prefect_has_the_form_that_apply_gives_it() -> None:
    from orchctl.runner.alert_block import AlertChannel

    assert AlertChannel.model_json_schema() == BLOCK_FIELDS
    assert AlertChannel.get_block_type_slug() == BLOCK_TYPE
    assert AlertChannel.get_block_capabilities() == {"notify"}
