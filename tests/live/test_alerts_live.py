"""Alerts through a real server: each event reaches people once, with what they need to know."""

from __future__ import annotations

import contextlib
import os
import re
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

import alert_channels
import postgres
from alert_channels import KINDS, OUTAGES, Channels
from live_runs import OwnWorker, ask, finished, now
from orchctl.adapters.local_stack import LocalStack
from orchctl.core.alerts_plan import BLOCK_FIELDS, BLOCK_TYPE
from orchctl.core.names import format_instant
from receivers import Http
from support import Live, Project, answers, clean_env, eventually

SECRET = "hunter2-of-the-database"
EVENTS = ["failed", "crashed", "timed_out", "late", "recovered", "worker_gone"]
WORDS = {
    "failed": "failed",
    "crashed": "crashed",
    "timed_out": "timed out",
    "late": "is late",
    "recovered": "recovered",
}
MANY = 50


@dataclass
class AlertProject(Project):
    """A project whose state directory is that of the server: the block in it reads there where channels lead."""

    state: Path = Path()

    @property
    def state_dir(self) -> Path:
        return self.state

    def write_alerts(self, channels: Channels, *, worker_after: str = "3m", **settings: Any) -> None:
        routes = {"all": {"events": EVENTS, "channels": list(channels.tables)}}
        alerts = {"late_after": "10s", "burst": 50, **settings}
        whole = {"version": 1, "alerts": alerts, "channels": channels.tables, "routes": routes}
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
def foreign(live: Live, project: AlertProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A catalog of another host, with a state directory that the server does not know."""
    made = Project(tmp_path_factory.mktemp("foreign"), live.api_url, name=f"x{project.name}")
    yield made
    with live.api() as api:
        for name in made.jobs:
            if (found := api.deployment(name, name)) is not None:
                api.delete_flow(found.flow_id)


@pytest.fixture
def channels(tmp_path: Path) -> Iterator[Channels]:
    with alert_channels.one_of_each(tmp_path) as found:
        yield found


def hook_of(channels: Channels) -> Http:
    found = channels.receivers["webhook"]
    assert isinstance(found, Http)
    return found


def test_each_event_arrives_once_on_each_channel_and_none_of_another_catalog(
    live: Live, project: AlertProject, foreign: Project, channels: Channels
) -> None:
    hooked = hook_of(channels)
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
    project.write_alerts(channels)
    project.orchctl("sync")
    applied = project.orchctl("alerts", "apply").stdout
    assert applied.count("created") == 5 + len(KINDS), applied
    assert "nothing to do" in project.orchctl("alerts", "apply").stderr

    fails = {"command": [foreign.script("bad.sh", "exit 3")]}
    foreign.jobs = {f"theirs-{name}": fails, f"theirs-late-{name}": {**fails, "work_pool": f"none-{name}"}}
    foreign.write()
    foreign.orchctl("sync")
    ask(live, f"theirs-late-{name}", scheduled_for=now())
    assert finished(live, ask(live, f"theirs-{name}").id).state_type == "FAILED"

    for kind in ("seen", "late"):  # the job of the first is not Prefect's: that it is late is nobody's trouble
        ask(live, f"{kind}-{name}", scheduled_for=now())
    for kind in ("slow", "dead"):
        ask(live, f"{kind}-{name}")
    slot = format_instant(now().replace(second=0, microsecond=0))
    failed = finished(live, ask(live, f"bad-{name}", parameters={"slot": slot}).id)
    _kill(project, f"dead-{name}")
    for kind, event in (("bad", "failed"), ("slow", "timed_out"), ("dead", "crashed"), ("late", "late")):
        eventually(partial(hooked.of, f"{kind}-{name}", event), within=60)
    marker.touch()
    finished(live, ask(live, f"bad-{name}").id)
    eventually(lambda: hooked.of(f"bad-{name}", "recovered"), within=60)
    finished(live, ask(live, f"bad-{name}").id)
    eventually(lambda: all(len(texts) >= 5 for texts in channels.texts().values()), within=60)

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
    assert (message["slot"], message["run_id"]) == (slot, failed.name)
    assert message["command"] == f"orchctl runs show {failed.name}"
    assert message["ui_url"].endswith(f"/runs/flow-run/{failed.id}")
    for part in ("exit code: 3", "key is ***", "it broke", failed.name, failed.id, slot):
        assert part in message["text"]
    # The same to everybody, each once; of a crash more may be known when the next channel is told.
    texts = {channel: sorted(some) for channel, some in channels.texts().items()}
    for channel in KINDS:
        for mine, theirs in zip(texts[channel], texts["webhook"], strict=True):
            crashed = mine.startswith(f"dead-{name} crashed on ")
            assert mine.splitlines()[:1] == theirs.splitlines()[:1]
            assert crashed or mine.splitlines() == theirs.splitlines()
    assert {channel: len(set(some)) for channel, some in texts.items()} == dict.fromkeys(KINDS, 5)
    for each in hooked.got:
        assert each["text"].startswith(f"{each['job']} {WORDS[each['event']]} on ")
        assert f"look further: {each['command']}" in each["text"]
        assert f"in the UI: {each['ui_url']}" in each["text"]
    assert SECRET not in str(texts)
    listed = project.json("alerts", "list")
    assert [each["last"]["ok"] for each in listed["channels"]] == [True] * len(KINDS)
    assert [each["state"] for each in listed["routes"]] == ["in force"]


def _kill(project: Project, job: str) -> None:
    """Kill the process of a run, as a lack of memory would."""

    def pid() -> Any:
        runs = [run for run in project.json("runs")["runs"] if run["job"] == job and run["status"] == "running"]
        return project.manifest(runs[0]["run_id"])["environment"]["pid"] if runs else None

    with contextlib.suppress(ProcessLookupError):
        os.kill(eventually(pid), signal.SIGKILL)


def test_what_people_change_in_prefect_is_put_right(live: Live, project: AlertProject, channels: Channels) -> None:
    project.jobs = {f"any-{project.name}": {"command": ["/bin/true"]}}
    project.write()
    project.write_alerts(channels)
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


@pytest.fixture
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server whose database is PostgreSQL. On SQLite, Prefect gives up on events that come by the dozen: it writes
    them from several places at once, and one that finds the database locked is tried four times.
    """
    if postgres.missing() or os.geteuid() != 0:
        pytest.skip("needs root and PostgreSQL's programs")
    state_dir = tmp_path_factory.mktemp("stack")
    stack = LocalStack(state_dir, clean_env())
    with postgres.cluster() as cluster:
        live = Live(stack.start_server(0, database=cluster.make("prefect").url), state_dir, stack)
        try:
            eventually(partial(answers, live.api_url), within=90)
            yield live
        finally:
            stack.stop("server", patience_s=30)


@pytest.mark.campaign
def test_fifty_failures_at_once_are_few_messages_and_none_is_lost(
    on_postgres: Live, tmp_path: Path, channels: Channels
) -> None:
    live = on_postgres
    project = AlertProject(tmp_path, live.api_url, name="fifty", state=live.state_dir)
    hooked = hook_of(channels)
    hooked.status = 500
    names = [f"many-{number}-{project.name}" for number in range(MANY)]
    project.jobs = {name: {"command": ["/bin/true"], "work_pool": f"none-{project.name}"} for name in names}
    project.write()
    project.write_alerts(channels, burst=3)
    project.orchctl("sync", timeout=600)
    project.orchctl("alerts", "apply")
    _end_all(live, names, "FAILED")
    eventually(lambda: hooked.asked, within=60)
    hooked.status = 200
    eventually(lambda: _named(channels) == dict.fromkeys(KINDS, sorted(f"{name} failed" for name in names)), within=120)
    assert {kind: sum(texts) for kind, texts in _counts(channels).items()} == dict.fromkeys(KINDS, MANY)
    # Five, where Prefect tells of them all within the 15 s that they are held.
    assert all(4 <= len(texts) <= MANY // 2 + 2 for texts in channels.texts().values())
    assert hooked.got[0]["reason"] == "stopped by hand"
    _end_all(live, names, "COMPLETED")
    _end_all(live, names, "COMPLETED")
    ends = [f"{name} {word}" for name in names for word in ("failed", "recovered")]
    eventually(lambda: _named(channels) == dict.fromkeys(KINDS, sorted(ends)), within=120)
    assert all(len(texts) <= MANY + 4 for texts in channels.texts().values())


def _end_all(live: Live, names: list[str], state: str) -> None:
    """Let a run of each job end, as a person can who sets its state."""
    ended = {"state": {"type": state, "message": "stopped by hand"}, "force": True}
    runs = [ask(live, name, scheduled_for=now() + timedelta(hours=1)).id for name in names]
    with live.api() as api:  # not `live.request`: SQLite may be busy, and this asks again
        for run in runs:
            api.request("POST", f"/flow_runs/{run}/set_state", ended, repeatable=True)


def _named(channels: Channels) -> dict[str, list[str]]:
    """Return what each channel was told of, sorted, whether alone or with others.

    Slack and mail show the first of those that were held together; the whole list has the webhook.
    """
    lines = [(each["held"] or [each["text"].splitlines()[0]]) for each in hook_of(channels).got]
    told = sorted(line.rpartition(" on ")[0] for some in lines for line in some)
    whole = sum(_counts(channels)["webhook"]) == len(told)
    counts = {kind: sum(texts) for kind, texts in _counts(channels).items()}
    return {kind: told if whole and count == len(told) else [] for kind, count in counts.items()}


def _counts(channels: Channels) -> dict[str, list[int]]:
    """Return how many alerts each message of a channel stands for, by its first line."""
    return {
        kind: [int(found[1]) if (found := re.match(r"(\d+) alerts on ", text)) else 1 for text in texts]
        for kind, texts in channels.texts().items()
    }


@pytest.mark.campaign
def test_receivers_that_fail_are_asked_again_doctor_tells_and_no_run_waits_for_them(
    live: Live, project: AlertProject, tmp_path: Path
) -> None:
    bad = project.script("bad.sh", "exit 3")
    project.jobs = {
        f"bad-{project.name}": {"command": [bad]},
        f"good-{project.name}": {"command": ["/bin/true"]},
    }
    project.write()
    with alert_channels.broken(tmp_path) as (channels, mend):
        names = sorted(channels.tables)
        assert len(names) == len(KINDS) * len(OUTAGES)
        project.write_alerts(channels)
        project.orchctl("sync")
        project.orchctl("alerts", "apply")
        failed = finished(live, ask(live, f"bad-{project.name}").id)
        told = eventually(lambda: len(found := _did_not_arrive(project)) == len(names) and found, within=90)
        good = finished(live, ask(live, f"good-{project.name}").id)
        for name in names:
            assert any(f"through {name} " in each and "; 1 wait" in each for each in told), (name, told)
        once = {each: [f"bad-{project.name} failed"] for each in names}
        assert channels.distinct() == {each: said if each.endswith("-slow") else [] for each, said in once.items()}
        mended = format_instant(now())
        mend()
        # The pause before the next attempt grows with how long they were out.
        eventually(lambda: channels.distinct() == once, within=300)
        eventually(lambda: _did_not_arrive(project) == [], within=300)
        assert channels.distinct() == once
        assert all(failed.name in text for texts in channels.texts().values() for text in texts)
    for run in (failed, good):
        assert project.manifest(run.name)["timing"]["finished_at"] < mended


def _did_not_arrive(project: Project) -> list[str]:
    """Return what doctor says of channels whose last message did not arrive."""
    found = project.json("doctor", "alerts", check=None)["findings"]
    return [each["seen"] for each in found if each["level"] == "failure" and "did not arrive" in each["seen"]]


@pytest.mark.campaign
def test_a_worker_that_is_gone_and_back_is_told(live: Live, project: AlertProject, channels: Channels) -> None:
    with OwnWorker(live, project.root / "own") as worker:
        project.jobs = {f"any-{project.name}": {"command": ["/bin/true"], "work_pool": worker.pool}}
        project.write()
        project.write_alerts(channels, worker_after="100s")
        project.orchctl("alerts", "apply")
        worker.start()
        with live.api() as api:
            eventually(lambda: (pool := api.pool(worker.pool)) is not None and pool.status == "READY")
        worker.signal(signal.SIGKILL)
        eventually(lambda: all(channels.texts().values()), within=180)
        worker.start()
        both = [f"no worker asks for runs (work pool {worker.pool})", f"work pool {worker.pool} recovered"]
        eventually(lambda: channels.heads() == dict.fromkeys(KINDS, both), within=60)
    assert [(each["event"], each["about"]) for each in hook_of(channels).got] == [
        ("worker_gone", f"work pool {worker.pool}"),
        ("recovered", f"work pool {worker.pool}"),
    ]


def test_the_block_in_prefect_has_the_form_that_apply_gives_it() -> None:
    from orchctl.runner.alert_block import AlertChannel

    assert AlertChannel.model_json_schema() == BLOCK_FIELDS
    assert AlertChannel.get_block_type_slug() == BLOCK_TYPE
    assert AlertChannel.get_block_capabilities() == {"notify"}
