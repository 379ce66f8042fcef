"""The watchdog as a process, against a real server and worker, and real receivers of every kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import receivers
from orchctl.adapters import host_lock
from orchctl.adapters.local_stack import free_port
from orchctl.core.names import format_instant
from receivers import PASSWORD, USER, Http, Mail
from support import Project, eventually

ALERTS = """\
version = 1
[watchdog]
server_after = "10s"
min_free_percent = 1
dead_man_url_file = "{root}/dead-man"
[channels.hook]
kind = "webhook"
url_file = "{root}/hook"
[channels.chat]
kind = "slack"
url_env = "CHAT_URL"
[channels.mail]
kind = "email"
host = "127.0.0.1"
port = {port}
from = "box@example.org"
to = ["ops@example.org"]
username = "{user}"
password_file = "{root}/password"
ca_file = "{certificate}"
[routes.all]
events = ["server_gone", "worker_gone", "nothing_scheduled", "missed_slots", "catalog_invalid", "recovered"]
channels = ["hook", "chat", "mail"]
"""


@dataclass
class Told:
    """The receivers, and the project that tells them."""

    project: Project
    hook: Http
    chat: Http
    mail: Mail
    dead_man: Http

    def look(self, *words: str, check: int | None = None) -> Any:
        return self.project.json("watchdog", *words, check=check)

    def subjects(self) -> list[list[str]]:
        """Return what each channel got."""
        chat = [body["text"].splitlines()[0] for body in self.chat.got]
        hook = [body["subject"].removeprefix("[orchctl] ") for body in self.hook.got]
        return [hook, chat, [str(mail["Subject"]).removeprefix("[orchctl] ") for mail in self.mail.mails]]


@pytest.fixture
def told(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    certificate = receivers.certificate(tmp_path)
    with ExitStack() as stack:
        hook, chat, dead_man = (stack.enter_context(receivers.http()) for _ in range(3))
        mail = stack.enter_context(receivers.smtp(certificate, login=True))
        secrets = {"hook": hook.url + "/h", "dead-man": dead_man.url + "/d", "password": PASSWORD}
        for name, secret in secrets.items():
            (tmp_path / name).write_text(secret)
            (tmp_path / name).chmod(0o600)
        monkeypatch.setenv("CHAT_URL", chat.url + "/c")
        project.schedules["often"] = {"cron": "*/5 * * * *"}
        project.jobs["own"] = {"command": ["true"], "schedules": ["often"]}
        project.write()
        text = ALERTS.format(root=tmp_path, port=mail.port, user=USER, certificate=certificate)
        (tmp_path / "config" / "alerts.toml").write_text(text)
        yield Told(project, hook, chat, mail, dead_man)


def test_a_test_is_sent_through_each_channel_and_says_what_came_of_it(told: Told) -> None:
    sent = told.project.json("alerts", "test")
    assert {each["channel"]: (each["ok"], each["said"]) for each in sent} == {
        "hook": (True, "200 OK ok"),
        "chat": (True, "200 OK ok"),
        "mail": (True, "250 taken"),
    }
    assert [[text.rpartition(" on ")[0] for text in texts] for texts in told.subjects()] == [
        ["this is a test, and it arrived"]
    ] * 3
    (told.project.root / "password").write_text("wrong")
    done = told.project.orchctl("alerts", "test", check=4)
    assert "mail: NOT delivered: the login is refused: 535" in done.stdout
    assert told.project.orchctl("alerts", "test", "mail", check=1).stdout.count("NOT delivered") == 1
    assert told.project.orchctl("alerts", "test", "nobody", check=2).stderr.count("hook") == 1
    channels = {each["channel"]: each["ok"] for each in told.look("status")["channels"]}
    assert channels == {"hook": True, "chat": True, "mail": False}


def test_from_all_well_to_a_server_that_is_gone_and_back(told: Told) -> None:
    project = told.project
    project.orchctl("sync")
    # The scheduler looks at new deployments every few seconds.
    well = eventually(lambda: (now := told.look())["well"] and now, within=60)
    assert well["pinged"]["ok"]
    assert told.dead_man.asked[-1][:2] == ("GET", "/d")
    assert told.subjects() == [[], [], []]

    gone = f"http://127.0.0.1:{free_port()}/api"
    with host_lock.held(project.state_dir, "watchdog", lock="watchdog"):
        assert "watchdog" in project.orchctl("--api-url", gone, "watchdog", check=11).stderr
    pings = len(told.dead_man.asked)
    project.json("--api-url", gone, "watchdog", check=3)
    assert project.json("--api-url", gone, "watchdog", check=3)["problems"][0]["event"] == "server_gone"
    assert project.json("--api-url", gone, "watchdog", check=3)["sent"] == []
    (subject,) = told.subjects()[0]
    assert subject.startswith(f"the Prefect server does not answer ({gone}) on ")
    assert told.subjects() == [[subject]] * 3
    assert len(told.dead_man.asked) == pings
    told.look(check=0)
    assert [[text.rpartition(" on ")[0] for text in texts[1:]] for texts in told.subjects()] == [
        [f"{gone} recovered"]
    ] * 3
    told.look(check=0)
    assert [len(texts) for texts in told.subjects()] == [2, 2, 2]
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
    (subjects, _, _) = told.subjects()
    assert [text.rpartition(" on ")[0] for text in subjects if "own" in text] == ["own missed slots", "own recovered"]
