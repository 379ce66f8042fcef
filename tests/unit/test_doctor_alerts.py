"""What `doctor` says of safekeeping: who will be told, what waits, what was lost, which files hold secrets, backups."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import fakes
from doctoring import HOURLY, Host
from fakes import NOON
from orchctl.core.alerts import Secret, Watchdog
from orchctl.core.catalog_logs import LogsTable, LokiTable
from orchctl.core.deliveries import Delivery
from orchctl.core.doctor_alerts import InPrefect


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("off", "said"),
    [
        (("orchctl tests: all, late",), "automation `orchctl tests: all, late` is switched off in Prefect"),
        (("orchctl t: a, b", "orchctl t: c, d"), "automations `orchctl t: a, b`, `orchctl t: c, d` are switched off"),
    ],
)
def test_an_automation_that_somebody_switched_off(host: Host, off: tuple[str, ...], said: str) -> None:
    host.in_prefect = InPrefect(True, off)
    (found,) = host.findings()
    assert (found.check, found.level) == ("alerts", "warning")
    assert said in found.seen
    host.in_prefect = InPrefect(False, off)
    assert len(host.findings()) == 2, "that it is not applied hides nothing"


@pytest.mark.parametrize(("count", "said"), [(1, "1 message waits for ops"), (3, "3 messages wait for ops")])
def test_messages_that_wait_although_the_last_one_arrived(host: Host, count: int, said: str) -> None:
    host.deliveries = (Delivery("ops", NOON - timedelta(minutes=21), True, "200", NOON, waiting=count),)
    (found,) = host.findings()
    assert (found.check, found.level) == ("alerts", "warning")
    assert found.seen == f"{said}, and nothing was sent through it since 2025-12-19 16:39Z"
    host.deliveries = (replace(host.deliveries[0], at=NOON - timedelta(minutes=5)),)
    assert host.findings() == [], "they are held together, or tried again: somebody is at it"


@pytest.mark.parametrize(("count", "said"), [(1, "1 alert was given up"), (2, "2 alerts were given up")])
def test_messages_that_were_dropped(host: Host, count: int, said: str) -> None:
    host.deliveries = (Delivery("ops", NOON, True, "200", NOON, dropped=count),)
    (found,) = host.findings()
    assert (found.check, found.level) == ("alerts", "warning")
    assert found.seen == f"{said} that should have gone through ops"


def test_a_watchdog_that_is_blind(host: Host) -> None:
    host.blind = {"missed": NOON - timedelta(minutes=30)}
    (found,) = host.findings()
    assert (found.check, found.level) == ("alerts", "warning")
    assert "cannot look at `missed` since 2025-12-19 16:30Z" in found.seen
    assert "orchctl watchdog --dry-run" in str(found.fix)
    host.watched = NOON - timedelta(hours=1)
    assert [each.level for each in host.findings()] == ["failure"], "one that does not look at all is blind anyway"


def test_every_file_that_holds_a_secret_is_looked_at(host: Host, tmp_path: Path) -> None:
    names = {"unit.env": "variables of the watchdog's unit", "loki": "the address of Loki"}
    names["pulse"] = "the dead-man address"
    for name in names:
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o640)
    host.watchdog_files = (str(tmp_path / "unit.env"),)
    assert host.alerts is not None
    host.alerts = replace(host.alerts, watchdog=Watchdog(dead_man=Secret(file=str(tmp_path / "pulse"))))
    jobs = {"job": {"schedules": ["hourly"], "data_root": str(host.data)}}
    logs = LogsTable(loki=LokiTable(url_file=str(tmp_path / "loki")))
    catalog = fakes.catalog(jobs, HOURLY).model_copy(update={"logs": logs})
    host.also = {"catalog": lambda: catalog}
    found = {each.seen: each.level for each in host.findings("secrets")}
    assert found == {f"others may read {tmp_path / name} (0640), {what}": "warning" for name, what in names.items()}
    (tmp_path / "unit.env").unlink()
    assert "unit.env, variables of the watchdog's unit, is not there" in host.findings("secrets")[0].seen


def test_an_archive_that_is_not_what_was_made(host: Host) -> None:
    assert host.backup is not None
    archive = Path(host.backup.path)
    archive.write_bytes(b"x" * 2048)
    host.backup = replace(host.backup, size=2048)
    assert host.findings() == []
    archive.write_bytes(b"x" * 100)
    (found,) = host.findings()
    assert (found.check, found.level) == ("backups", "failure")
    assert f"the last backup {archive} has 100 bytes, and had 2,048 when it was made" in found.seen
