"""What alerts.toml means, and what messages say."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from alert_cases import T0, TEXT, message, read
from conftest import ROOT
from orchctl.adapters import toml_files
from orchctl.core import schema
from orchctl.core.alerts import SUBJECT_MOST, TEXT_MOST, Message, Secret, held_together
from orchctl.core.alerts_applied import AppliedAlerts
from orchctl.core.mask import Masker


def test_everything_that_can_stand_there_is_read() -> None:
    found = read()
    assert (found.late_after, found.repeat_after, found.burst, found.burst_within) == (120, 21600, 5, 60)
    assert found.channels["ops"].url == Secret(env="SLACK_URL")
    pager, mail = found.channels["pager"], found.channels["mail"]
    assert (pager.url, pager.ca_file, pager.timeout) == (Secret(file="/etc/orchctl/pager"), "/etc/orchctl/ca.pem", 5)
    assert (mail.host, mail.port, mail.sender, mail.to) == (
        "smtp.example.org",
        587,
        "orchctl@example.org",
        ("daniel@example.org",),
    )
    assert mail.password == Secret(env="SMTP_PASSWORD")
    assert found.watchdog.dead_man == Secret(env="DEAD_MAN_URL")


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_port_follows_the_security(security: str, port: int) -> None:
    text = TEXT.replace("port = 587\n", "").replace('"starttls"', f'"{security}"').replace("smtp.example", "localhost")
    text = text.replace("localhost.org", "localhost")
    assert read(text).channels["mail"].port == port


def test_the_shipped_file_fits_the_shipped_catalog() -> None:
    catalog = toml_files.load(ROOT / "config")
    found = toml_files.alerts(ROOT / "config", catalog)
    assert found is not None
    assert set(found.channels) == {"ops", "mail"}


def test_the_schema_takes_what_is_right_and_refuses_what_is_not() -> None:
    validator = Draft202012Validator(schema.alerts())
    assert not list(validator.iter_errors(tomllib.loads(TEXT)))
    assert not list(validator.iter_errors(tomllib.loads((ROOT / "config" / "alerts.toml").read_text())))
    for old, new in [
        ('url_env = "SLACK_URL"', ""),
        ('url_env = "SLACK_URL"', 'url_env = "https://x"'),
        ('host = "smtp.example.org"', ""),
        ('"failed", ', '"faild", '),
        ('url_env = "SLACK_URL"', 'url_env = "X"\nhost = "x"'),
    ]:
        assert list(validator.iter_errors(tomllib.loads(TEXT.replace(old, new)))), new


def test_what_is_in_force_survives_the_disk_and_holds_no_secret() -> None:
    found = read()
    applied = AppliedAlerts("projections", "http://127.0.0.1:4200", found)
    text = json.dumps(applied.to_json())
    again = AppliedAlerts.from_json(json.loads(text))
    assert again.alerts.channels == found.channels
    assert again.alerts.routes == found.routes
    assert again.to_json() == applied.to_json()


def test_a_route_takes_jobs_by_name_and_by_tag() -> None:
    (_, jobs) = read().routes
    assert jobs.takes("failed", job="live-score")
    assert jobs.takes("failed", job="dk-salaries", tags=("nightly",))
    assert not jobs.takes("failed", job="nightly-eval")
    assert not jobs.takes("late", job="live-score")


def test_each_channel_is_named_once() -> None:
    found = read()
    assert [each.name for each in found.ways("failed", job="live-score")] == ["ops", "pager"]
    assert [each.name for each in found.ways("server_gone")] == ["mail"]
    assert found.ways("late", job="live-score") == ()


FULL = Message(
    "failed",
    T0,
    "box",
    job="live-score",
    slot=T0,
    run_id="20251219T050000Z-3f9a1c",
    exit_code=3,
    reason="exit code 3",
    last_lines=("one", "two"),
    ui_url="http://127.0.0.1:4200/runs/flow-run/1",
    command="orchctl runs show 20251219T050000Z-3f9a1c",
)


def test_a_message_says_what_happened_and_where_to_look() -> None:
    assert FULL.subject == "[orchctl] live-score failed on box"
    assert FULL.text.splitlines() == [
        "live-score failed on box",
        "slot: 2025-12-19T05:00:00Z",
        "run: 20251219T050000Z-3f9a1c",
        "exit code: 3",
        "reason: exit code 3",
        "last lines:",
        "    one",
        "    two",
        "in the UI: http://127.0.0.1:4200/runs/flow-run/1",
        "look further: orchctl runs show 20251219T050000Z-3f9a1c",
        "at: 2025-12-19T05:00:00Z",
    ]


def test_a_message_survives_the_disk() -> None:
    assert Message.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    with pytest.raises(ValueError, match="there is no event"):
        Message.from_json({**FULL.to_json(), "event": "exploded"})


def test_a_message_is_bounded_and_nothing_in_it_is_obeyed() -> None:
    wild = message(
        reason="x\r\nBcc: y" * 300,
        last_lines=tuple(f"\x1b[31m{number} " + "long " * 500 for number in range(500)),
        about="a\nb",
        job="j" * 60,
    )
    assert len(wild.text) <= TEXT_MOST
    assert len(wild.subject) <= SUBJECT_MOST
    assert "\n" not in wild.subject
    assert "\x1b" not in wild.text
    assert "\nBcc" not in wild.text
    assert "\\x1b[31m499" in wild.text


def test_secrets_are_masked() -> None:
    mask = Masker(["hunter2-of-the-db"]).mask
    found = message(reason="url http://u:pw-secret@h/", last_lines=("key hunter2-of-the-db",)).masked(mask)
    assert "hunter2" not in found.text
    assert "pw-secret" not in found.text


def test_many_are_held_together_with_their_number() -> None:
    many = tuple(message(job=f"job-{number}") for number in range(50))
    one = held_together(many)
    assert (one.count, one.subject) == (50, "[orchctl] 50 alerts on box")
    assert "    job-0 failed on box" in one.text.splitlines()
    assert len(one.text) <= TEXT_MOST


@pytest.mark.parametrize(
    ("event", "fields", "subject"),
    [
        ("timed_out", {}, "live-score timed out on box"),
        ("failed", {"count": 7}, "live-score failed (7 times) on box"),
        ("recovered", {}, "live-score recovered on box"),
        ("worker_gone", {"job": None, "about": "work pool x"}, "no worker asks for runs (work pool x) on box"),
        ("recovered", {"job": None, "about": "work pool x"}, "work pool x recovered on box"),
        ("server_gone", {"job": None}, "the Prefect server does not answer on box"),
    ],
)
def test_subjects(event: str, fields: dict[str, Any], subject: str) -> None:
    assert message(event, **fields).subject == f"[orchctl] {subject}"
