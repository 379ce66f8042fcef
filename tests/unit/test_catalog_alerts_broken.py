"""Broken alerts: each file differs from a valid one in one place, and exactly that is reported, with no secret."""

from __future__ import annotations

import pytest

from alert_cases import TEXT, problems, read
from orchctl.errors import CatalogInvalid

VERSION = "version = 1\n"
LATE = 'late_after = "2m"'
OPS = '[channels.ops]\nkind = "slack"\nurl_env = "SLACK_URL"'
URL = 'url_env = "SLACK_URL"'
PAGER = 'url_file = "/etc/orchctl/pager"'
HOST = 'host = "smtp.example.org"'
FROM = 'from = "orchctl@example.org"'
TO = 'to = ["daniel@example.org"]'
USER = 'username = "orchctl"'
PASSWORD = 'password_env = "SMTP_PASSWORD"'
EVENTS = 'events = ["failed", "crashed", "recovered"]'
OF = 'jobs = ["live-score"]\ntags = ["nightly"]'
HOOKS = 'channels = ["ops", "pager"]'
GONE = 'events = ["server_gone", "disk_full"]'
DEAD = 'dead_man_url_env = "DEAD_MAN_URL"'
SLACK = "kind = 'slack'\nurl_env = 'X'"
SECRET = "https://hooks.example.org/T0/B0/not-to-be-seen"

Row = tuple[str, str, str, str, str | None]
"""What is replaced, by what; where the problem is; how its message begins; how what is allowed or near begins."""

ROWS: list[Row] = [
    (VERSION, "", "None version", "is missing", None),
    (VERSION, "version = 2\n", "1 version", "found 2", "1"),
    (VERSION, "version = 1\nchanels = {}\n", "2 chanels", "unknown key", "channels"),
    (LATE, 'late_after = "5s"', "4 [alerts] late_after", 'found "5s"', "greater than or equal to 10"),
    (LATE, "late_after = 120", "4 [alerts] late_after", "120 is not a duration", None),
    (LATE, 'late_aftr = "2m"', "4 [alerts] late_aftr", "unknown key", "late_after"),
    ("burst = 5", "burst = 0", "6 [alerts] burst", "found 0", "greater than or equal to 1"),
    ("[alerts]", "[alerts]\nalerts = 1", "4 [alerts] alerts", "unknown key", None),
    (
        "[channels.ops]",
        f"[channels.Ops]\n{SLACK}\n[channels.ops]",
        "9 [channels.Ops]",
        'the name "Ops" is not allowed',
        "^[a-z0-9]",
    ),
    (OPS, OPS.replace("slack", "slak"), "10 [channels.ops] kind", 'found "slak"', "slack"),
    (OPS, OPS.replace('kind = "slack"\n', ""), "9 [channels.ops] kind", "is missing", None),
    (URL, "", "9 [channels.ops]", "does not say where its url is", "url_env or url_file"),
    (URL, f'url = "{SECRET}"', "11 [channels.ops] url", "would be a secret in the catalog", 'url_env = "NAME"'),
    (URL, f'webhook_url = "{SECRET}"', "11 [channels.ops] webhook_url", "would be a secret in the", 'url_env = "NAME"'),
    (URL, f'url_env = "{SECRET}"', "11 [channels.ops] url_env", "is not the name of a variable", None),
    (URL, f'url_file = "{SECRET}"', "11 [channels.ops] url_file", "is not the absolute path of a file", None),
    (URL, f'{URL}\nurl_file = "/x"', "12 [channels.ops] url_file", "stands beside url_env", "one of the two"),
    (URL, f'{URL}\nhost = "x"', "12 [channels.ops] host", "means nothing for slack", "url_env or url_file"),
    (URL, f'{URL}\nurl_evn = "X"', "12 [channels.ops] url_evn", "unknown key", "url_env"),
    (PAGER, 'url_file = "/etc/../x"', "15 [channels.pager] url_file", "is not the absolute path of a file", None),
    ('timeout = "5s"', 'timeout = "5m"', "17 [channels.pager] timeout", 'found "5m"', "less than or equal to 60"),
    (HOST, "", "19 [channels.mail] host", "is missing", "email needs it"),
    (HOST, 'host = "smtp://example.org"', "21 [channels.mail] host", 'found "smtp://example.org"', "match pattern"),
    ("port = 587", "port = 70000", "22 [channels.mail] port", "found 70000", "less than or equal to 65535"),
    ("port = 587", f"{URL}\nport = 587", "22 [channels.mail] url_env", "means nothing for email", "host, from and to"),
    ('"starttls"', '"ssl"', "23 [channels.mail] security", 'found "ssl"', "starttls"),
    ('"starttls"', '"none"', "23 [channels.mail] security", "none would send the password", "starttls or tls"),
    (FROM, 'from = "orchctl"', "24 [channels.mail] from", 'found "orchctl"', "match pattern"),
    (FROM, 'from = "a@b\\nBcc: c@d"', "24 [channels.mail] from", 'found "a@b', "match pattern"),
    (TO, "to = []", "25 [channels.mail] to", "is empty", "email needs it"),
    (TO, 'to = "daniel@example.org"', "25 [channels.mail] to", 'found "daniel@example.org"', "a list"),
    (USER, "", "19 [channels.mail]", "has a password and no username", "username beside it"),
    (PASSWORD, "", "19 [channels.mail]", "does not say where its password is", "password_env or password_file"),
    (PASSWORD, 'password = "hunter2"', "27 [channels.mail] password", "would be a secret", 'password_env = "NAME"'),
    (PASSWORD, 'password_env = "hunter2"', "27 [channels.mail] password_env", "is not the name of a variable", None),
    (EVENTS, 'events = ["faild"]', "30 [routes.jobs] events[0]", 'found "faild"', "failed"),
    (EVENTS, "events = []", "30 [routes.jobs] events", "is empty", "at least one"),
    (EVENTS, 'events = ["failed", "failed"]', "30 [routes.jobs] events[1]", '"failed" stands here twice', None),
    (EVENTS, 'events = ["recovered"]', "30 [routes.jobs] events", '"recovered" is told only where', "beside it one of"),
    (EVENTS, "", "29 [routes.jobs] events", "is missing", None),
    (OF, 'jobs = ["live-scor"]', "31 [routes.jobs] jobs[0]", 'there is no job "live-scor"', "live-score"),
    (OF, 'tags = ["nightli"]', "31 [routes.jobs] tags[0]", 'there is no tag "nightli"', "nightly"),
    (HOOKS, 'channels = ["opps"]', "33 [routes.jobs] channels[0]", 'there is no channel "opps"', "ops"),
    (HOOKS, "channels = []", "33 [routes.jobs] channels", "is empty", "at least one"),
    (GONE, f'{GONE}\njobs = ["live-score"]', "37 [routes.host] jobs", "means nothing: none of the events", "failed"),
    (DEAD, f'dead_man_url = "{SECRET}"', "40 [watchdog] dead_man_url", "would be a secret", 'dead_man_url_env = "N'),
    (DEAD, f'{DEAD}\ndead_man_url_file = "/x"', "41 [watchdog] dead_man_url_file", "stands beside dead", "one of the"),
    ("min_free_percent = 10", "min_free_percent = 95", "41 [watchdog] min_free_percent", "found 95", "less than or"),
    (
        "[channels.ops]",
        f"[channels.op-s]\n{SLACK}\n[channels.op_s]\n{SLACK}\n[channels.ops]",
        "12 [channels.op_s]",
        'differs from "op-s" by an underscore',
        "another name",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[2]}" for number, row in enumerate(ROWS)])
def test_broken_alerts(row: Row) -> None:
    old, new, where, message, hint = row
    assert TEXT.count(old) == 1
    found = problems(TEXT.replace(old, new))
    assert len(found) == 1, found
    (problem,) = found
    assert (problem.file, f"{problem.line} {problem.place}") == ("alerts.toml", where)
    assert problem.message.startswith(message)
    assert (problem.nearest or problem.allowed or "").startswith(hint or "")
    said = f"{problem.message} {problem.hint}"
    assert "not-to-be-seen" not in said
    assert "hunter2" not in said


def test_all_problems_are_told_at_once_in_file_order() -> None:
    text = TEXT.replace(LATE, "late_after = 1").replace(HOST, "").replace(HOOKS, 'channels = ["x"]')
    assert [problem.line for problem in problems(text)] == [4, 19, 33]


@pytest.mark.parametrize(
    "content", [b"\xff", "not toml", "version = 1\nchannels = 5\nroutes = []", "alerts = 3\nversion = 1"]
)
def test_a_file_that_is_none_is_told(content: str | bytes) -> None:
    from orchctl.core.catalog_alerts import build

    with pytest.raises(CatalogInvalid) as raised:
        build(("alerts.toml", content), None)
    assert raised.value.problems


def test_without_a_catalog_names_of_jobs_are_not_checked() -> None:
    assert read(TEXT.replace("live-score", "unheard-of"), None).routes[1].jobs == ("unheard-of",)
