"""An `alerts.toml` with all that can stand in one, and messages, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchctl.core.alerts import Alerts, Channel, Message, Route, Secret
from orchctl.core.catalog_alerts import build
from orchctl.core.problems import Problem
from orchctl.errors import CatalogInvalid

T0 = datetime(2025, 12, 19, 5, 0, tzinfo=UTC)
JOBS = {"live-score": ("live", "nightly"), "nightly-eval": (), "dk-salaries": ("nightly",)}
TEXT = """\
version = 1

[alerts]
late_after = "2m"
repeat_after = "6h"
burst = 5
burst_within = "1m"

[channels.ops]
kind = "slack"
url_env = "SLACK_URL"

[channels.pager]
kind = "webhook"
url_file = "/etc/orchctl/pager"
ca_file = "/etc/orchctl/ca.pem"
timeout = "5s"

[channels.mail]
kind = "email"
host = "smtp.example.org"
port = 587
security = "starttls"
from = "orchctl@example.org"
to = ["daniel@example.org"]
username = "orchctl"
password_env = "SMTP_PASSWORD"

[routes.jobs]
events = ["failed", "crashed", "recovered"]
jobs = ["live-score"]
tags = ["nightly"]
channels = ["ops", "pager"]

[routes.host]
events = ["server_gone", "disk_full"]
channels = ["mail"]

[watchdog]
dead_man_url_env = "DEAD_MAN_URL"
min_free_percent = 10
"""


def read(text: str = TEXT, jobs: dict[str, tuple[str, ...]] | None = JOBS) -> Alerts:
    return build(("alerts.toml", text), jobs)


def problems(text: str) -> tuple[Problem, ...]:
    try:
        read(text)
    except CatalogInvalid as error:
        return tuple(problem for problem in error.problems if isinstance(problem, Problem))
    raise AssertionError("it is valid")


def alerts(*routes: Route, **settings: Any) -> Alerts:
    """Return alerts with two channels, `hook` and `mail`."""
    channels = {
        "hook": Channel("hook", "webhook", Secret(env="HOOK_URL")),
        "mail": Channel("mail", "email", host="127.0.0.1", port=25, security="none", sender="a@b", to=("c@d",)),
    }
    return Alerts(channels, routes, **settings)


def message(event: Any = "failed", *, after_s: float = 0, **fields: Any) -> Message:
    return Message(event, T0 + timedelta(seconds=after_s), "box", **{"job": "live-score", **fields})
