"""What `alerts list` and `alerts apply` show; the keys of `--json` are a contract: they are only ever added to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alert_cases import T0, alerts, message
from alert_prefect import AlertPrefect
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.cli import alerts_views
from orchctl.core import alerts_plan
from orchctl.core.alerts import Route
from orchctl.core.deliveries import Delivery
from orchctl.errors import PrefectUnreachable
from orchctl.services import alerts as service
from orchctl.services.alert_delivery import tell
from orchctl.wiring import Settings

FOUND = alerts(
    Route("jobs", ("failed", "recovered"), ("hook",), jobs=("live-score",), tags=("t",)),
    Route("host", ("disk_full",), ("mail",)),
)
CHANNEL = {"name", "kind", "to", "events", "last", "waiting", "troubles", "given_up"}
ROUTE = {"name", "events", "jobs", "tags", "channels", "by_prefect", "by_watchdog", "state"}


def settings(*, as_json: bool = False) -> Settings:
    return Settings(Path("/config"), Path("/state"), None, as_json=as_json)


def proposed(state: Path) -> service.Proposed:
    with AlertPrefect().api() as api:
        return service.propose(FOUND, "default", ("local",), api, AlertBoxes(state))


def shown(state: Path, capsys: pytest.CaptureFixture[str], *, reached: bool = True, as_json: bool = False) -> Any:
    host = AlertBoxes(state)
    tell(host, "default", "hook", message(), FOUND, now=T0)
    last = {"hook": Delivery("hook", T0, ok=False, said="500 broken", waiting=1)}
    alerts_views.listed(
        service.channels(FOUND, "default", last, host),
        service.routes(FOUND, "default", proposed(state) if reached else None),
        None if reached else PrefectUnreachable("no server"),
        "UTC",
        settings(as_json=as_json),
    )
    return capsys.readouterr()


def test_what_a_channel_gave_up_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = AlertBoxes(tmp_path)
    host.change("default", "hook", lambda box: (replace(box, dropped=3), None))
    assert "failed: 500 broken, 1 waiting, 3 given up" in shown(tmp_path, capsys).out


def test_channels_and_routes_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(tmp_path, capsys)
    assert said.out.splitlines() == [
        "CHANNEL KIND    TO                         LAST                ANSWER",
        "hook    webhook $HOOK_URL                  2025-12-19 05:00:00 failed: 500 broken, 1 waiting",
        "mail    email   c@d by 127.0.0.1:25 (none) -                   never used",
        "",
        "ROUTE EVENTS            OF                TO   IN PREFECT",
        "jobs  failed, recovered live-score, tag t hook not applied",
        "host  disk_full         this host         mail watchdog only",
    ]
    assert "orchctl alerts apply" in said.err


def test_without_the_server_the_rest_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(tmp_path, capsys, reached=False)
    assert "not known" in said.out
    assert "whether Prefect has them is not known: no server" in said.err


def test_the_keys_of_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    envelope = json.loads(shown(tmp_path, capsys, reached=False, as_json=True).out)
    assert (envelope["command"], envelope["status"]) == ("alerts list", "partial")
    assert [set(each) for each in envelope["data"]["channels"]] == [CHANNEL, CHANNEL]
    assert [set(each) for each in envelope["data"]["routes"]] == [ROUTE, ROUTE]
    assert envelope["data"]["channels"][0]["troubles"] == ["job live-score"]


def test_a_plan_and_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = proposed(tmp_path)
    alerts_views.planned(plan, settings())
    assert capsys.readouterr().out.splitlines() == [
        f"block {alerts_plan.block_name('default', 'hook')}: create",
        "automation orchctl default: jobs, failed: create",
        "automation orchctl default: jobs, recovered: create",
        "this host would be told where the channels lead",
    ]
    alerts_views.applied(plan, plan.plan.changes, settings(as_json=True))
    envelope = json.loads(capsys.readouterr().out)
    assert set(envelope["data"]) == {"changes", "writes", "switched_off"}
    assert set(envelope["data"]["changes"][0]) == {"kind", "action", "name", "fields"}
