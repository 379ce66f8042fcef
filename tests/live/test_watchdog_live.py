"""The watchdog as a process, against a real server and worker, and real receivers of every kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import alert_channels
import receivers
from alert_channels import KINDS, Channels
from live_runs import deployment_of
from orchctl.adapters import host_lock
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.local_stack import free_port
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.alerts import BY_WATCHDOG
from orchctl.core.handover_journal import Opened
from orchctl.core.names import format_instant, parse_instant, run_id
from orchctl.core.snapshot import Snapshot
from receivers import Http
from support import Live, Project, eventually


@dataclass
class Told:
    """The receivers, and the project that tells them."""

    project: Project
    channels: Channels
    dead_man: Http

    def look(self, *words: str, check: int | None = None) -> Any:
        return self.project.json("watchdog", *words, check=check)

    def write_alerts(self, **watchdog: Any) -> None:
        dead_man = self.channels.secret("dead-man", self.dead_man.url + "/d")
        watchdog = {"server_after": "10s", "min_free_percent": 1, "dead_man_url_file": dead_man, **watchdog}
        whole = {
            "version": 1,
            "alerts": {"burst": 50},
            "watchdog": watchdog,
            "channels": self.channels.tables,
            "routes": {"all": {"events": list(BY_WATCHDOG), "channels": list(self.channels.tables)}},
        }
        (self.project.root / "config" / "alerts.toml").write_text(tomli_w.dumps(whole))

    def later(self, minutes: int) -> None:
        """Let what the watchdog remembers be older by some minutes."""
        path = self.project.state_dir / "alerts" / "watch.json"
        path.write_text(json.dumps(_earlier(json.loads(path.read_text()), timedelta(minutes=minutes))))


def _earlier(data: Any, by: timedelta) -> Any:
    if isinstance(data, dict):
        return {key: each if key == "message" else _earlier(each, by) for key, each in data.items()}
    if isinstance(data, str):
        try:
            return format_instant(parse_instant(data) - by)
        except ValueError:
            return data
    return [_earlier(each, by) for each in data] if isinstance(data, list) else data


def told_by(project: Project, channels: Channels, dead_man: Http) -> Told:
    """Return a project of one job, and its receivers, with its files written."""
    project.schedules["often"] = {"cron": "*/5 * * * *"}
    project.jobs["own"] = {"command": ["true"], "schedules": ["often"]}
    project.write()
    found = Told(project, channels, dead_man)
    found.write_alerts()
    return found


@pytest.fixture
def told(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    with alert_channels.one_of_each(tmp_path) as channels, receivers.http() as dead_man:
        chat = channels.receivers["slack"]
        assert isinstance(chat, Http)
        monkeypatch.setenv("CHAT_URL", chat.url + "/c")
        channels.tables["slack"] = {"kind": "slack", "url_env": "CHAT_URL"}
        yield told_by(project, channels, dead_man)


def test_a_test_is_sent_through_each_channel_and_says_what_came_of_it(told: Told) -> None:
    sent = told.project.json("alerts", "test")
    assert {each["channel"]: (each["ok"], each["said"]) for each in sent} == {
        "webhook": (True, "200 OK ok"),
        "slack": (True, "200 OK ok"),
        "email": (True, "250 taken"),
    }
    assert told.channels.heads() == {kind: ["this is a test, and it arrived"] for kind in KINDS}
    told.channels.secret("password", "wrong")
    done = told.project.orchctl("alerts", "test", check=4)
    assert "email: NOT delivered: the login is refused: 535" in done.stdout
    assert told.project.orchctl("alerts", "test", "email", check=1).stdout.count("NOT delivered") == 1
    assert told.project.orchctl("alerts", "test", "nobody", check=2).stderr.count("webhook") == 1
    channels = {each["channel"]: each["ok"] for each in told.look("status")["channels"]}
    assert channels == {"webhook": True, "slack": True, "email": False}


def test_from_all_well_to_a_server_that_is_gone_and_back(told: Told) -> None:
    project = told.project
    project.orchctl("sync")
    # The scheduler looks at new deployments every few seconds.
    well = eventually(lambda: (now := told.look())["well"] and now, within=60)
    assert well["pinged"]["ok"]
    assert told.dead_man.asked[-1][:2] == ("GET", "/d")
    assert told.channels.heads() == {kind: [] for kind in KINDS}

    gone = f"http://127.0.0.1:{free_port()}/api"
    with host_lock.held(project.state_dir, "watchdog", lock="watchdog"):
        assert "watchdog" in project.orchctl("--api-url", gone, "watchdog", check=11).stderr
    pings = len(told.dead_man.asked)
    project.json("--api-url", gone, "watchdog", check=3)
    assert project.json("--api-url", gone, "watchdog", check=3)["problems"][0]["event"] == "server_gone"
    assert project.json("--api-url", gone, "watchdog", check=3)["sent"] == []
    silent = f"the Prefect server does not answer ({gone})"
    assert told.channels.heads() == {kind: [silent] for kind in KINDS}
    assert len(told.dead_man.asked) == pings
    told.look(check=0)
    assert told.channels.heads() == {kind: [silent, f"{gone} recovered"] for kind in KINDS}
    told.look(check=0)
    assert told.channels.heads() == {kind: [silent, f"{gone} recovered"] for kind in KINDS}
    assert len(told.dead_man.asked) > pings


def test_missed_slots_by_prefects_own_rule_and_an_invalid_catalog(told: Told) -> None:
    project = told.project
    project.orchctl("sync")
    told.look()
    memory = project.state_dir / "alerts" / "watch.json"
    content = json.loads(memory.read_text())
    content["slots"]["own"]["until"] = format_instant(datetime.now(UTC) - timedelta(hours=1))
    memory.write_text(json.dumps(content))
    jobs = project.root / "config" / "jobs.toml"
    valid = jobs.read_text()
    jobs.write_text(valid.replace('"often"', '"nothing"'))
    # On a busy machine Prefect's rule may take longer than a look has: then the next one asks.
    problems = eventually(
        lambda: "missed_slots" in (now := {each["event"]: each for each in told.look(check=3)["problems"]}) and now,
        within=60,
    )
    assert "nothing" in problems["catalog_invalid"]["reason"]
    assert "slots, from " in problems["missed_slots"]["reason"]
    assert problems["missed_slots"]["job"] == "own"
    jobs.write_text(valid)
    project.orchctl("run", "own", "--wait")
    eventually(lambda: "missed_slots" not in {each["event"] for each in told.look()["problems"]}, within=30)
    for heads in told.channels.heads().values():
        assert [head for head in heads if "own" in head] == ["own missed slots", "own recovered"]


@pytest.mark.campaign
def test_each_event_of_the_host_arrives_once_on_each_channel_and_its_end_once(told: Told, live: Live) -> None:
    project, unheard = told.project, f"none-{told.project.name}"
    gone, began = f"http://127.0.0.1:{free_port()}/api", datetime.now(UTC) - timedelta(hours=1)
    opened = Opened(run_id(began, "x"), "cutover", "moved", began, "cutover moved", Snapshot(), None, {})
    project.jobs["far"] = {"command": ["true"], "work_pool": unheard}
    project.write()
    project.orchctl("sync")
    told.look()
    _break(told, live, opened)
    told.later(60)  # So long was nothing looked at, and slots were missed meanwhile.
    told.look(check=3)
    told.later(10)
    troubles = {
        "own": "own missed slots",
        "moved": "moved handover unfinished",
        f"work pool {unheard}": f"no worker asks for runs (work pool {unheard})",
        "the last applied catalog goes on": "the catalog is invalid (the last applied catalog goes on)",
        "/gone": "the last good backup is too old (/gone)",
    }
    expected = {*troubles.values(), "own has nothing scheduled ahead"}
    # On a busy machine Prefect's rule may take longer than a look has: then the next one asks.
    eventually(lambda: told.look() and _heads(told) == dict.fromkeys(KINDS, expected), within=60)
    disks = {kind: [head for head in heads if "disk" in head] for kind, heads in told.channels.heads().items()}
    assert disks == dict.fromkeys(KINDS, disks["webhook"])
    assert disks["webhook"], "a host of which more than 90 % are free cannot show it"
    project.json("--api-url", gone, "watchdog", check=3)
    told.later(1)
    project.json("--api-url", gone, "watchdog", check=3)
    expected.add(f"the Prefect server does not answer ({gone})")
    assert _heads(told) == dict.fromkeys(KINDS, expected)
    _mend(told, live, opened)
    ends = Counter([*troubles, "own", gone])
    eventually(lambda: told.look() and _ends(told) == dict.fromkeys(KINDS, ends), within=90)
    texts = {kind: sorted(some) for kind, some in told.channels.texts().items()}
    assert texts == dict.fromkeys(KINDS, texts["webhook"])
    for text in texts["webhook"]:
        assert " recovered on " in text.splitlines()[0] or "look further: " in text, text
    assert told.look(check=0)["sent"] == []


def _break(told: Told, live: Live, opened: Opened) -> None:
    """Break all of the host that the watchdog looks at, but the server."""
    state = told.project.state_dir
    with live.api() as api:
        api.pause_deployment(deployment_of(live, "own").id)
    Handovers(state).begin(opened)
    old = {"path": "/gone", "size_bytes": 0, "created_at": "2025-12-19T05:00:00Z", "at": "2025-12-19T05:00:00Z"}
    StateFolder(state, "host").write("backups.json", {"version": 1, "backup": old, "verified": old})
    told.write_alerts(min_free_percent=90)
    jobs = told.project.root / "config" / "jobs.toml"
    jobs.write_text(jobs.read_text() + "\nnonsense = 1\n")


def _mend(told: Told, live: Live, opened: Opened) -> None:
    project = told.project
    with live.api() as api:
        api.resume_deployment(deployment_of(live, "own").id)
    Handovers(project.state_dir).end(opened, "done", datetime.now(UTC))
    StateFolder(project.state_dir, "host").remove("backups.json")
    told.write_alerts()
    del project.jobs["far"]
    project.write()
    project.orchctl("sync", "--prune", "--yes")
    project.orchctl("run", "own", "--wait")


def _heads(told: Told) -> dict[str, set[str]]:
    """Return the first lines that each channel took, each once; but for disks, of which a host may have more."""
    found = {kind: [head for head in heads if "disk" not in head] for kind, heads in told.channels.heads().items()}
    assert all(len(heads) == len(set(heads)) for heads in found.values()), found
    return {kind: set(heads) for kind, heads in found.items()}


def _ends(told: Told) -> dict[str, Counter[str]]:
    """Return of what each channel was told that it is over, and how often, but for disks."""
    disks = {str(told.project.root), "/", str(told.project.state_dir), str(told.project.data_root)}
    return {
        kind: Counter(about for head in heads if (about := head.removesuffix(" recovered")) not in {head, *disks})
        for kind, heads in told.channels.heads().items()
    }


@pytest.mark.campaign
def test_receivers_that_fail_get_it_once_when_they_are_back_and_doctor_tells_meanwhile(
    project: Project, tmp_path: Path
) -> None:
    with alert_channels.broken(tmp_path) as (channels, mend), receivers.http() as dead_man:
        told, gone = told_by(project, channels, dead_man), f"http://127.0.0.1:{free_port()}/api"
        project.orchctl("sync")
        eventually(lambda: told.look()["well"], within=60)
        sent = eventually(lambda: project.json("--api-url", gone, "watchdog", check=None)["sent"], within=60)
        assert {each["channel"] for each in sent if not each["ok"]} == set(channels.tables)
        assert all(texts == [] for name, texts in channels.texts().items() if not name.endswith("-slow"))
        pings = len(dead_man.asked)
        found = project.json("doctor", "alerts", check=None)["findings"]
        for name in channels.tables:
            assert any(f"the last message through {name} " in each["seen"] for each in found), (name, found)
        assert told.look("status", check=None)["waiting"] == len(channels.tables)
        mend()
        eventually(lambda: told.look() and told.look("status", check=None)["waiting"] == 0, within=90)
        both = sorted([f"the Prefect server does not answer ({gone})", f"{gone} recovered"])
        heads = {name: sorted(some) for name, some in channels.distinct().items()}
        assert heads == dict.fromkeys(channels.tables, both)
        found = project.json("doctor", "alerts", check=None)["findings"]
        assert not [each for each in found if "did not arrive" in each["seen"]]
        eventually(lambda: told.look() and len(dead_man.asked) > pings, within=30)
