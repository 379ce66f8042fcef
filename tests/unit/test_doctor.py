"""`doctor` on a host that is well, and each thing that can be wrong, made wrong on purpose."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from doctoring import REQUIREMENTS, SERVER, Host, installation
from fakes import NOON, FakePrefect
from legacy_fakes import service, timer
from orchctl.adapters import doctor_facts
from orchctl.core import doctor as core
from orchctl.core import doctor_host
from orchctl.core.alerts import Channel, Secret
from orchctl.core.catalog import Catalog
from orchctl.core.deliveries import Delivery
from orchctl.core.doctor import CHECKS, GROUPS, Finding
from orchctl.core.doctor_alerts import InPrefect
from orchctl.core.doctor_facts import Backup, Disk, FileFacts, Listener, Sampled, Who
from orchctl.core.doctor_jobs import CODES
from orchctl.core.handover_journal import Opened
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.core.names import run_id
from orchctl.core.remote import RemoteLimit, RemoteQueue
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.errors import (
    CatalogInvalid,
    NotAllowed,
    OrchctlError,
    PrefectUnauthorized,
    PrefectUnreachable,
    StateBroken,
    SystemdUnavailable,
    UsageError,
)
from orchctl.services import doctor
from orchctl.services.doctor import LOOKS

LEGACY = {"job": {"schedules": ["hourly"], "legacy": [{"timer": "job.timer"}]}}
UNREACHABLE = PrefectUnreachable("cannot reach the Prefect API at http://127.0.0.1:4200/api: connection refused")
OWNED_BY_NOBODY = 54321


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def legacy(tmp_path: Path, **more: Any) -> Host:
    """A host on which a timer starts the job."""
    found = Host(tmp_path, jobs=LEGACY, **more)
    found.systemd.units = [timer("job.timer", "hourly", next_fire=NOON), service("job.service")]
    return found


def levels(found: list[Finding]) -> dict[str, str]:
    return {each.check: each.level for each in found}


# --- the whole


def test_a_host_that_is_well_is_all_ok(host: Host) -> None:
    report = doctor.examine(host.world, core.chosen(()))
    assert [each for each in report.findings if each.level != "ok"] == []
    assert report.checks == len(CHECKS)
    assert report.first is None
    assert not report.wrong(strict=True)


def test_one_with_legacy_triggers_is_all_ok_too(tmp_path: Path) -> None:
    assert legacy(tmp_path).findings() == []


def test_one_with_an_installation_is_all_ok_too(host: Host) -> None:
    assert installed(host).findings() == []


def installed(host: Host) -> Host:
    """The same host, with units instead of the processes of `host up`."""
    host.installed, host.stack.processes = installation(host.root), {}
    host.systemd.units = [
        running("prefect-server.service"),
        running("prefect-worker.service"),
        service("prefect-recover.service"),
        timer("prefect-recover.timer"),
    ]
    return host


def running(name: str, **more: Any) -> Any:
    return service(name, **{"active": "active", "sub": "running", "enabled": "enabled", **more})


def spoilt(host: Host, name: str, **fields: Any) -> list[Finding]:
    """Return what the check of units says where one of them is otherwise."""
    before = host.systemd.units
    host.systemd.units = [replace(unit, **fields) if unit.name == name else unit for unit in before]
    found = host.findings("units")
    host.systemd.units = before
    return found


def test_each_check_has_a_look_a_group_and_a_name_of_its_own() -> None:
    assert set(LOOKS) == {check.name for check in CHECKS}
    assert not {check.name for check in CHECKS} & set(GROUPS)
    assert {check for check, _, _ in CODES.values()} <= set(LOOKS)


def test_every_finding_of_status_belongs_to_a_check() -> None:
    files = ("core/status.py", "core/ownership.py", "services/status.py")
    text = "".join((ROOT / "src" / "orchctl" / name).read_text() for name in files)
    codes = set(re.findall(r'Finding\(\s*"([a-z-]+)"', text))
    assert {"paused", "fence-gone", "owned-and-gone", "debt"} <= codes
    assert codes == set(CODES)


def test_with_everything_broken_each_check_says_why(host: Host) -> None:
    def broken(*_words: object) -> Any:
        raise NotAllowed("not for you", hint="use sudo")

    parts = ("catalog", "installation", "api_url", "connect", "bare", "ours", "alerts", "deliveries", "last_backup")
    host.also = dict.fromkeys(parts, broken)
    host.also |= {"facts": replace(host.facts, **dict.fromkeys(FACTS, broken))}
    for part in ("systemd", "crontabs", "owners", "handovers", "stack"):
        host.also[part] = Broken()
    found = doctor.examine(host.world, core.chosen(()))
    assert {each.check for each in found.findings} == set(LOOKS)
    # What was seen without the rest is told, and that the rest is missing.
    assert {each.check for each in found.findings if each.level != "ok"} == set(LOOKS)
    assert not [each for each in found.findings if each.level == "unknown" and "unexpected" in each.seen]


FACTS = ("file", "sample", "disk", "who", "is_zone", "zone", "listeners", "requirements", "within", "variables")


class Broken:
    """A part of which nothing works."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def broken(*_words: object, **_more: object) -> Any:
            raise OrchctlError(f"{name} does not work")

        return broken


def test_a_bug_in_one_check_hides_nothing_and_tells_no_secret(host: Host) -> None:
    def broken() -> Any:
        raise ValueError("password=hunter2")

    host.also = {"last_backup": broken}
    (found,) = host.findings()
    assert (found.check, found.level) == ("backups", "unknown")
    assert found.seen.startswith("unexpected ValueError in broken, line ")


def test_what_is_first_to_do_and_what_is_wrong() -> None:
    ok, warned = core.ok("catalog", "x"), core.warning("zone", "x", "y")
    failed, open_question = core.failure("api", "x", "y"), core.unknown("catalog", "x")
    report = core.Report(NOON, (open_question, ok, warned, failed))
    assert report.first == failed
    assert report.wrong(strict=False)
    assert core.Report(NOON, (open_question, ok, warned)).first == warned
    for only in (open_question, warned):
        assert not core.Report(NOON, (ok, only)).wrong(strict=False)
        assert core.Report(NOON, (ok, only)).wrong(strict=True)


def test_checks_are_chosen_by_name_and_by_group() -> None:
    assert [check.name for check in core.chosen(["disk", "safekeeping", "catalog"])] == [
        "catalog", "disk", "backups", "alerts",
    ]  # fmt: skip
    assert core.chosen(()) == CHECKS
    with pytest.raises(UsageError, match="there is no check 'dsik'") as caught:
        core.chosen(["dsik"])
    assert 'did you mean "disk"?' in str(caught.value.hint)


def test_only_what_was_chosen_is_looked_at(host: Host) -> None:
    host.also = dict.fromkeys(("connect", "bare"), lambda: pytest.fail("asked"))
    assert {each.check for each in doctor.examine(host.world, core.chosen(["disk"])).findings} == {"disk"}


def test_prefect_and_the_catalog_are_looked_at_once_by_however_many_checks(host: Host) -> None:
    asked: list[str] = []

    def counted(what: str, look: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Any:
            asked.append(what)
            return look()

        return made

    def applied(_alerts: object, _catalog: Catalog, prefect: Any) -> InPrefect:
        prefect.version()
        return InPrefect(True)

    host.also = {
        "catalog": counted("catalog", lambda: host.catalog),
        "connect": counted("connect", lambda: host.prefect),
    }
    host.also["alerts_in_prefect"] = applied
    host.prefect.version = counted("version", lambda: "3.8.8")  # type: ignore[method-assign]
    assert host.findings() == []
    assert sorted(asked) == ["catalog", "connect", "version"]


# --- configuration and software


def test_a_catalog_that_is_invalid_is_one_failure_and_hides_nothing_of_the_host(host: Host) -> None:
    def invalid() -> Catalog:
        raise CatalogInvalid("the catalog has 2 problems")

    host.also = {"catalog": invalid}
    found = host.findings()
    assert levels(found)["catalog"] == "failure"
    assert {each.level for each in found if each.check != "catalog"} == {"unknown"}
    assert {each.fix for each in found if each.check != "catalog"} == {"see `catalog`"}
    assert not {"api", "auth", "ports", "handover", "backups"} & levels(found).keys()


def test_packages_that_break_the_scheduler_are_failures_others_are_warnings(host: Host) -> None:
    host.requirements = (
        *REQUIREMENTS[:2],
        replace(REQUIREMENTS[2], installed="2.1.9", holds=False),
        replace(REQUIREMENTS[2], name="rich", installed="13.0", holds=False),
    )
    (sqlalchemy, rich) = host.findings()
    assert (sqlalchemy.check, sqlalchemy.level) == ("versions", "failure")
    assert "sqlalchemy 2.1.9, and orchctl needs >=2.0,<2.1" in sqlalchemy.seen
    assert 'pip install "sqlalchemy>=2.0,<2.1"' in str(sqlalchemy.fix)
    assert rich.level == "warning"
    host.requirements = (*REQUIREMENTS, replace(REQUIREMENTS[2], name="httpx", installed=None, holds=False))
    assert "no httpx" in host.findings()[0].seen


def test_what_cannot_be_compared_is_not_known(host: Host) -> None:
    host.requirements = (REQUIREMENTS[0], REQUIREMENTS[2])
    assert levels(host.findings("server-version")) == {"server-version": "unknown"}

    def lost() -> Any:
        raise UNREACHABLE

    host.also = {"bare": lost}
    (found,) = host.findings("auth")
    assert (found.level, found.seen.partition(":")[0]) == (
        "unknown",
        "whether it answers without credentials is not known",
    )


@pytest.mark.parametrize(("version", "level"), [("3.8.9", "warning"), ("3.7.0", "failure"), ("4.0.0", "failure")])
def test_the_server_s_version_is_held_against_ours(host: Host, version: str, level: str) -> None:
    host.prefect.version = lambda: version  # type: ignore[method-assign]
    assert levels(host.findings()) == {"server-version": level}


# --- host


def test_the_state_directory_that_is_another_s_or_open(tmp_path: Path, host: Host) -> None:
    host.state.chmod(0o777)
    (found,) = host.findings("state")
    assert found.level == "failure"
    assert "may be written by others" in found.seen
    host.state.chmod(0o700)
    (host.state / "owners").mkdir()
    (host.state / "owners" / "x.json").touch()
    (host.state / "owners" / "x.json").chmod(0o666)
    (found,) = host.findings("state")
    assert "owners/x.json (0666)" in found.seen
    assert "chmod -R go-w" in str(found.fix)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_of_somebody_else_in_the_state_directory_and_a_worker_that_is_another_user(host: Host) -> None:
    (host.state / "x.json").touch()
    os.chown(host.state / "x.json", OWNED_BY_NOBODY, OWNED_BY_NOBODY)
    (found,) = host.findings("state")
    assert f"belongs to uid {OWNED_BY_NOBODY}" in found.seen
    (host.state / "x.json").unlink()
    os.chown(host.state, 1, 1)
    host.me = 2
    (found, *_) = host.findings("state")
    assert found.level == "failure"
    assert "and the worker runs as bin" in found.seen


def test_a_state_directory_that_is_none_or_that_the_worker_cannot_write(host: Host, tmp_path: Path) -> None:
    host.also = {"state_dir": str(host.root / "backup.tar.gz")}
    assert "is no folder" in host.findings("state")[0].seen
    me, worker = doctor_facts.who(None), Who("worker", 4711, frozenset())
    folder = doctor_facts.file(str(host.state))
    assert folder is not None
    closed = replace(folder, uid=4711, owner="worker", mode=0o040500)
    files = Sampled("/state", (closed,), whole=True, unread="/state/owners")
    found = list(doctor_host.state("/state", closed, files, me=replace(me, uid=4712, name="me"), worker=worker))
    assert [(each.level, each.seen) for each in found] == [
        ("failure", "worker may not write /state (0500)"),
        ("unknown", "/state is worker's: what is in it is not believed for me"),
        ("unknown", "/state/owners may not be looked into"),
    ]


def test_what_may_not_be_looked_at_is_not_known(host: Host) -> None:
    def no(path: str) -> FileFacts | None:
        if path == str(host.root / "secret"):
            raise NotAllowed("no")
        return doctor_facts.file(path)

    host.jobs = {"job": {"schedules": ["hourly"], "env_files": [str(host.root / "secret")]}}
    sampled = Sampled(str(host.data), (), whole=True, unread=f"{host.data}/closed")
    host.also = {"facts": replace(host.facts, file=no, sample=lambda _root: sampled)}
    assert [each.seen for each in host.findings("secrets")] == [f"{host.root}/secret may not be looked at"]
    assert levels(host.findings("permissions")) == {"permissions": "unknown"}


def test_records_that_cannot_be_believed_are_failures(host: Host) -> None:
    def broken() -> Any:
        raise StateBroken("host/installation.json cannot be believed")

    host.also = {"installation": broken}
    assert {each.level for each in host.findings() if "cannot be believed" in each.seen} == {"failure"}
    assert {"state", "units"} <= levels(host.findings()).keys()


def test_units_that_are_gone_stopped_failed_disabled_or_changed(host: Host) -> None:
    installed(host)
    (gone,) = spoilt(host, "prefect-worker.service", load="not-found")
    assert gone.seen == "prefect-worker.service was installed, and is gone"
    (failed,) = spoilt(host, "prefect-server.service", active="failed", result="exit-code")
    assert (failed.level, "it is failed (exit-code)" in failed.seen) == ("failure", True)
    (look,) = spoilt(host, "prefect-recover.service", active="failed", result="exit-code")
    assert look.seen == "prefect-recover.service failed when it last ran (exit-code)"
    assert (look.level, look.fix) == ("failure", "why: `journalctl --unit prefect-recover.service`")
    (disabled, reload) = spoilt(host, "prefect-recover.timer", enabled="disabled", needs_reload=True)
    assert (disabled.level, "does not start at boot" in disabled.seen) == ("warning", True)
    assert (reload.level, reload.fix) == ("warning", "`systemctl daemon-reload`")
    (broken,) = spoilt(host, "prefect-server.service", load="bad-setting", load_error="no ExecStart=")
    assert "cannot be started: no ExecStart=" in broken.seen
    host.changed = ("prefect-worker.service",)
    assert "is not what this orchctl installs" in host.findings("units")[0].seen
    assert host.installed is not None
    host.changed, host.installed = (), replace(host.installed, owed=("prefect-server.service",))
    assert "has still to be restarted" in host.findings("units")[0].seen


def test_a_restore_that_was_interrupted(host: Host) -> None:
    host.also = {"unfinished_restore": lambda: "/backups/x.tar.gz"}
    (found,) = host.findings()
    assert (found.check, found.level) == ("state", "failure")
    assert "a restore of /backups/x.tar.gz was interrupted" in found.seen


def test_an_upgrade_that_was_interrupted(host: Host) -> None:
    host.also = {"unfinished_upgrade": lambda: "an upgrade was interrupted"}
    (found,) = host.findings()
    assert (found.check, found.level, found.seen) == ("state", "failure", "an upgrade was interrupted")
    assert "orchctl host upgrade" in str(found.fix)


def test_a_pool_without_a_worker_in_the_installation_is_another_host_s_to_serve(host: Host) -> None:
    installed(host)
    assert host.installed is not None
    host.installed = replace(host.installed, pools={"other": 1})
    assert host.findings("worker") == []
    host.prefect.online = False
    assert host.findings("worker")[0].seen == "worker-nobody: 0 online in pool nobody"


def test_a_port_that_another_program_holds_and_one_that_two_hold(host: Host) -> None:
    nginx = Listener("127.0.0.1", 4200, "root", 99, "nginx", False)
    host.listeners, host.prefect.fails = (nginx,), UNREACHABLE
    (found,) = host.findings("ports")
    assert "port 4200 is taken by nginx (pid 99), which is no Prefect server" in found.seen
    host.listeners = (replace(nginx, address="0.0.0.0"),)
    assert host.findings("exposed") == []
    host.listeners, host.prefect.fails = (SERVER, replace(nginx, address="0.0.0.0")), None
    assert "held by several programs" in host.findings("ports")[0].seen
    host.listeners = (replace(nginx, pid=None, program=None, is_prefect=None),)
    host.prefect.fails = UNREACHABLE
    (found,) = host.findings("ports")
    assert (found.level, found.seen.partition(";")[0]) == ("unknown", "port 4200 is held by a program of root")


def test_two_servers_on_one_host(host: Host) -> None:
    host.installed = installation(host.root)
    (found,) = host.findings("ports")
    assert "`host up` and `host install` both run a server" in found.seen


def test_clocks(host: Host) -> None:
    host.systemd.ntp = False
    assert levels(host.findings()) == {"clock": "warning"}
    host.systemd.ntp, host.prefect.clock_offset_s = True, 42.0
    (found,) = host.findings()
    assert (found.level, found.seen) == ("failure", "it is 42s behind that of Prefect's server")


def test_a_zone_that_is_not_the_catalog_s_matters_where_timers_start_jobs(tmp_path: Path, host: Host) -> None:
    host.zone = "Europe/Berlin"
    assert host.findings() == []
    (tmp_path / "other").mkdir()
    (found,) = legacy(tmp_path / "other", zone="Europe/Berlin").findings("zone")
    assert found.level == "warning"
    assert "timers and crontabs mean Europe/Berlin, the catalog UTC (job)" in found.seen
    host.zone = "Mars/Olympus"
    assert "not in the time zone database" in host.findings()[0].seen


@pytest.mark.parametrize(
    ("disk", "level", "said"),
    [
        (Disk("/", 1, 9 * 2**30, 100 * 2**30, 900, 1000), "warning", "9.0 GiB of 100 GiB"),
        (Disk("/", 1, 2**30, 100 * 2**30, 900, 1000), "failure", "(1%)"),
        (Disk("/", 1, 50 * 2**20, 200 * 2**20, 900, 1000), "failure", "50 MiB of 200 MiB"),
        (Disk("/", 1, 50 * 2**30, 100 * 2**30, 50, 1000), "warning", "50 of 1,000 inodes"),
        (Disk("/", 1, 50 * 2**30, 100 * 2**30, 0, 1000), "failure", "0 of 1,000 inodes"),
    ],
)
def test_a_disk_that_is_nearly_full(host: Host, disk: Disk, level: str, said: str) -> None:
    host.disk = disk
    (found,) = host.findings()
    assert (found.check, found.level) == ("disk", level)
    assert said in found.seen


def test_a_file_system_without_inodes_is_no_full_one(host: Host) -> None:
    host.disk = replace(host.disk, free_inodes=0, inodes=0)
    assert host.findings() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_under_the_data_root_that_another_user_trips_over(host: Host) -> None:
    folder = host.data / "gold" / "game_date=2025-12-19"
    folder.mkdir(parents=True)
    (folder / "rates.parquet").touch(0o644)
    for path in (host.data, host.data / "gold", folder):
        os.chown(path, 1, 1)
    os.chown(folder / "rates.parquet", 2, 2)
    host.me = 1
    (found,) = host.findings("permissions")
    assert found.level == "warning"
    assert found.seen == f"daemon may not write {folder}/rates.parquet (of bin, 0644)"
    os.chown(host.data, 2, 2)
    (found,) = host.findings("permissions")
    assert (found.level, "and 1 more" in found.seen) == ("failure", True)


def test_folders_that_everybody_may_write_and_a_data_root_that_is_gone(host: Host) -> None:
    (host.data / "open").mkdir()
    (host.data / "open").chmod(0o777)
    (host.data / "sticky").mkdir()
    (host.data / "sticky").chmod(0o1777)
    (found,) = host.findings("permissions")
    assert (found.level, found.seen) == ("warning", f"everybody may write {host.data}/open (0777)")
    (host.data / "open").rmdir()
    (host.data / "sticky").rmdir()
    host.data.rmdir()
    assert "is not there" in host.findings("permissions")[0].seen


def test_secrets_that_others_may_read_or_write(host: Host, tmp_path: Path) -> None:
    host.installed = installation(host.root)
    Path(host.installed.settings).chmod(0o640)
    env, plain, url = tmp_path / "env", tmp_path / "plain", tmp_path / "url"
    for path, text in ((env, "API_TOKEN=x\n"), (plain, "SEASON=2025\n"), (url, "https://x\n")):
        path.write_text(text)
        path.chmod(0o644)
    url.chmod(0o622)
    host.jobs = {"job": {"schedules": ["hourly"], "env_files": [str(env), str(plain), "-/nowhere", "/gone.env"]}}
    assert host.alerts is not None
    channel = Channel("ops", "webhook", Secret(file=str(url)))
    host.alerts = replace(host.alerts, channels={"ops": channel})
    found = [(each.level, each.seen.removeprefix("others may ").split(" (")[0]) for each in host.findings("secrets")]
    assert found == [
        ("warning", f"read {host.installed.settings}"),
        ("warning", f"read {env}"),
        ("failure", "/gone.env, an environment file of a job, is not there"),
        ("failure", f"write {url}"),
    ]


def test_what_the_dead_left(host: Host) -> None:
    host.stack.processes["worker-other"] = None
    (found,) = host.findings("leftovers")
    assert "worker-other of `host up` ended without `host down`" in found.seen
    host.stack.processes = {}
    staging = host.data / "manifests" / "x" / "_staging" / "8c1f"
    staging.mkdir(parents=True)
    torn = host.state / ".x.json.0a1b.tmp"
    torn.touch()
    assert host.findings("leftovers") == []  # they may still be at work
    old = (NOON - timedelta(days=3)).timestamp()
    for path in (staging, torn):
        os.utime(path, (old, old))
    assert [each.seen.partition(": ")[2] for each in host.findings("leftovers")] == [
        "left by a writer that was killed",
        "left in staging by a run that was killed",
    ]


# --- server


def test_an_api_that_does_not_answer_is_one_failure_and_what_needs_it_is_not_known(tmp_path: Path) -> None:
    host = legacy(tmp_path)
    host.prefect.fails = UNREACHABLE
    host.also = {"bare": lambda: pytest.fail("waited for it once more")}
    found = levels(host.findings())
    assert [check for check, level in found.items() if level == "failure"] == ["api"]
    unknown = {
        "server-version",
        "auth",
        "pools",
        "limits",
        "worker",
        "hosts",
        "deployments",
        "scheduler",
        "late",
        "alerts",
    }
    assert found.keys() == {"api", *unknown}


def test_credentials_that_are_refused_are_told_from_a_server_that_is_down(host: Host) -> None:
    host.prefect.fails = PrefectUnauthorized("refused", hint="set PREFECT_API_AUTH_STRING")
    found = levels(host.findings())
    assert "api" not in found
    assert found["auth"] == "failure"


def test_a_server_that_answers_although_credentials_are_configured(host: Host) -> None:
    host.also = {"bare": FakePrefect}
    (found,) = host.findings()
    assert (found.check, found.level) == ("auth", "failure")
    assert "answers without them" in found.seen
    host.also |= {"ours": lambda: False}
    assert host.findings() == []  # `host up` has none, and only this host reaches it
    host.installed = installation(host.root)
    host.settings.clear()
    host.also |= {"settings": lambda _installed: {AUTH: "x"}}
    assert levels(host.findings("auth")) == {"auth": "failure"}


AUTH = "PREFECT_SERVER_API_AUTH_STRING"


@pytest.mark.parametrize(
    ("address", "level"), [("0.0.0.0", "failure"), ("::", "failure"), ("10.1.2.3", "failure"), ("127.0.0.2", None)]
)
def test_a_server_that_other_hosts_reach_without_credentials(host: Host, address: str, level: str | None) -> None:
    host.listeners = (replace(SERVER, address=address),)
    host.also = {"bare": FakePrefect, "ours": lambda: False}
    assert levels(host.findings()).get("exposed") == level
    host.also = {}
    assert levels(host.findings()).get("exposed") == ("warning" if level else None)


def test_a_server_that_other_hosts_reach_and_of_which_no_more_is_known(host: Host) -> None:
    host.listeners = (replace(SERVER, address="0.0.0.0", pid=None, program=None, is_prefect=None),)
    host.prefect.fails = UNREACHABLE
    (found,) = host.findings("exposed")
    assert (found.level, "whether it asks for credentials is not known" in found.seen) == ("failure", True)

    def no(_port: int) -> Any:
        raise OrchctlError("the sockets of this host cannot be looked at")

    host.also = {"facts": replace(host.facts, listeners=no)}
    assert levels(host.findings("exposed", "ports")) == {"exposed": "unknown", "ports": "unknown"}


@pytest.mark.parametrize(
    ("url", "open_to_all", "found"),
    [
        ("http://ops:4200/api", False, {"exposed": "warning"}),
        ("https://ops/api", False, {}),
        ("https://ops/api", True, {"auth": "failure"}),
    ],
)
def test_a_server_of_another_host(host: Host, url: str, open_to_all: bool, found: dict[str, str]) -> None:
    host.url, host.listeners = url, ()
    if open_to_all:
        host.also = {"bare": FakePrefect, "ours": lambda: False}
    assert levels(host.findings()) == found


def test_the_database_that_others_read_or_write_and_its_long_log(host: Host) -> None:
    host.database.chmod(0o644)
    assert [(each.check, each.level) for each in host.findings()] == [("database", "warning")]
    host.database.chmod(0o666)
    assert levels(host.findings("database")) == {"database": "failure"}
    host.database.chmod(0o600)
    log = host.database.with_name("prefect.db-wal")
    log.touch(0o600)
    os.truncate(log, 65 * 2**20)
    assert "has 65 MiB" in host.findings("database")[0].seen
    log.unlink()
    host.database.unlink()
    assert "is not there" in host.findings("database")[0].seen


def test_a_postgres_is_named_without_its_password(host: Host) -> None:
    host.installed = installation(host.root)
    host.settings = {"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://me:hunter2@db:5432/prefect"}
    (found,) = doctor.examine(host.world, core.chosen(["database"])).findings
    assert (found.level, found.seen) == ("ok", "postgresql at postgresql://me@db:5432/prefect")


# --- scheduling


def test_pools_that_are_missing_paused_or_of_another_kind(host: Host) -> None:
    pool = host.prefect.pools["nobody"]
    host.prefect.pools["nobody"] = replace(pool, is_paused=True, type="docker")
    assert [each.level for each in host.findings("pools")] == ["failure", "warning"]
    host.prefect.pools.clear()
    assert "there is no work pool nobody" in host.findings("pools")[0].seen


def test_queues_that_are_paused_or_missing(host: Host) -> None:
    host.prefect.by_pool["nobody"] = {"default": RemoteQueue("default", 1, None, True)}
    found = host.findings("pools")
    assert [each.seen for each in found] == [
        "queue default of work pool nobody is paused",
        "work pool nobody has no queue for backfills",
    ]


def test_a_limit_that_was_changed_by_hand(host: Host) -> None:
    limited = host.catalog.model_copy(update={"limits": {"api": 3}})
    host.also = {"catalog": lambda: limited}
    host.prefect.by_name = {"api": RemoteLimit("api", 9, True, 0.0)}
    assert "limit api was changed by hand" in [each.seen for each in host.findings("limits")]
    host.prefect.by_name = {"api": RemoteLimit("api", 3, False, 0.0)}
    assert "switched off" in host.findings("limits")[0].seen


def test_the_queue_of_backfills_that_was_changed_by_hand(host: Host) -> None:
    before = host.prefect.by_pool["nobody"]["backfill"]
    host.prefect.by_pool["nobody"]["backfill"] = replace(before, concurrency_limit=9)
    (found,) = host.findings("limits")
    assert (found.level, found.seen) == ("warning", "the queue backfill of work pool nobody differs")


def test_a_worker_that_is_gone(host: Host) -> None:
    host.prefect.online = False
    (found,) = host.findings("worker")
    assert (found.level, found.seen) == ("failure", "worker-nobody: 0 online in pool nobody")
    # The server still calls it online, and its process is gone.
    host.prefect.online, host.stack.processes["worker-nobody"] = True, None
    assert "its process is gone" in host.findings("worker")[0].seen


def test_a_scheduler_that_makes_no_runs(host: Host) -> None:
    host.prefect.runs.clear()
    (found,) = host.findings()
    assert (found.check, found.level) == ("scheduler", "failure")


def test_runs_that_wait_past_their_time(host: Host) -> None:
    key = next(iter(host.prefect.runs))
    host.prefect.set_run(key, expected_start=NOON - timedelta(minutes=20), state_name="Late")
    assert levels(host.findings()) == {"late": "warning"}


def test_deployments_that_are_paused_changed_or_not_there(host: Host) -> None:
    (key,) = host.prefect.by_id
    host.prefect.set_by_hand(key, description="mine")
    assert levels(host.findings()) == {"deployments": "warning"}
    host.prefect.set_by_hand(key, paused=True, description="")
    assert levels(host.findings("deployments")) == {"deployments": "failure"}
    host.prefect.by_id.clear()
    (found,) = host.findings("deployments")
    assert (found.level, found.seen[:4]) == ("warning", "job:")
    host.sync()
    host.applied.catalogs.clear()
    assert "among those that were applied on this host" in host.findings("deployments")[0].seen


# --- legacy


def test_an_unfinished_handover_is_found_without_a_catalog_and_without_prefect(host: Host) -> None:
    opened = Opened(run_id(NOON, "x"), "cutover", "job", NOON, "cutover job", Snapshot())
    host.handovers.begin(opened)
    (found,) = host.findings("handover")
    assert (found.level, "a cutover begun" in found.seen) == ("failure", True)
    assert "orchctl recover" in str(found.fix)
    host.also = dict.fromkeys(("catalog", "connect"), lambda: (_ for _ in ()).throw(OrchctlError("gone")))
    assert levels(host.findings("handover")) == {"handover": "failure"}


def test_an_owner_file_that_cannot_be_believed_and_one_of_a_job_that_is_gone(host: Host) -> None:
    host.owners.create("job", Owner(NOON, draining=False), still=lambda: True)
    host.owners.path("job").write_text("{")
    assert levels(host.findings("handover")) == {"handover": "failure"}
    host.owners.remove("job")
    made = Opened(run_id(NOON, "x"), "cutover", "old", NOON, "cutover old", Snapshot())
    host.handovers.begin(made)
    host.handovers.end(made, "done", NOON)
    host.owners.create("old", Owner(NOON, draining=False, handover=made.id), still=lambda: True)
    (found,) = host.findings("handover")
    assert "Prefect owns old, which is not in the catalog" in found.seen


def test_timers_and_fences_that_are_not_as_their_owner_has_them(tmp_path: Path) -> None:
    host = legacy(tmp_path)
    host.systemd.units = [timer("job.timer", "hourly", active=False), service("job.service")]
    assert "none of its triggers is on" in host.findings("triggers")[0].seen
    made = Opened(run_id(NOON, "x"), "cutover", "job", NOON, "cutover job", Snapshot())
    host.handovers.begin(made)
    host.handovers.end(made, "done", NOON)
    host.owners.create("job", Owner(NOON, draining=False, handover=made.id), still=lambda: True)
    host.systemd.units = [timer("job.timer", "hourly"), service("job.service")]
    found = host.findings("triggers")
    assert {each.level for each in found} == {"failure"}
    assert "has no fence" in found[0].seen
    assert "is on although Prefect owns the job" in found[1].seen


def test_a_failure_handler_that_does_not_exist(tmp_path: Path) -> None:
    host = legacy(tmp_path)
    handler = service("status-email-user@job.service", load="not-found")
    host.systemd.units = [
        timer("job.timer", "hourly", next_fire=NOON),
        service("job.service", on_failure=("status-email-user@job.service",)),
        handler,
    ]
    (found,) = host.findings()
    assert (found.check, found.level) == ("handlers", "warning")
    assert "does not exist: status-email-user@job.service" in found.seen


def test_users_without_linger(tmp_path: Path) -> None:
    jobs = {"job": {"schedules": ["hourly"], "legacy": [{"timer": "job.timer", "scope": "user"}]}}
    host, user = Host(tmp_path, jobs=jobs), Manager("user")
    host.systemd.units = [
        timer("job.timer", "hourly", manager=user, next_fire=NOON),
        service("job.service", manager=user),
    ]
    assert host.findings() == []
    host.systemd.linger = False
    (found,) = host.findings()
    assert (found.check, found.level) == ("linger", "warning")
    host.installed = installation(host.root, scope="user", user="root")
    assert [each.level for each in host.findings("linger")] == ["failure", "warning"]


def test_a_systemd_that_cannot_be_asked_is_not_known(tmp_path: Path) -> None:
    host = legacy(tmp_path)
    host.systemd.broken = {SYSTEM: NotAllowed("systemd refuses (system)", hint="use sudo")}
    found = host.findings()
    assert levels(found) == {"triggers": "unknown", "handlers": "unknown", "linger": "unknown"}
    host.systemd.broken = {SYSTEM: SystemdUnavailable("systemd does not run on this host", absent=True)}
    assert levels(host.findings())["triggers"] == "failure"


# --- safekeeping


@pytest.mark.parametrize(
    ("backup", "level", "said"),
    [
        (None, "warning", "no backup was ever made"),
        (Backup(NOON, "/gone", NOON), "failure", "/gone is gone"),
        (Backup(NOON, sys.executable, None), "warning", "never verified"),
        (Backup(NOON, sys.executable, NOON - timedelta(days=40)), "warning", "no backup was verified since 2025-11-09"),
        (Backup(NOON - timedelta(days=5), sys.executable, NOON), "warning", "5 days old"),
        (Backup(NOON, sys.executable, NOON, "2 runs are missing"), "failure", "did not verify: 2 runs are missing"),
    ],
)
def test_backups(host: Host, backup: Backup | None, level: str, said: str) -> None:
    host.backup = backup
    (found,) = host.findings()
    assert (found.check, found.level) == ("backups", level)
    assert said in found.seen


def test_alerts_that_are_not_set_up_never_sent_or_did_not_arrive(host: Host) -> None:
    host.deliveries = (Delivery("ops", NOON, False, "HTTP 500", None, 3),)
    (found,) = host.findings()
    assert (found.check, found.level) == ("alerts", "failure")
    assert "did not arrive: HTTP 500; 3 wait" in found.seen
    host.deliveries = ()
    assert "nothing was ever sent through ops" in host.findings()[0].seen
    host.alerts = None
    assert "no alerts are set up" in host.findings()[0].seen


def test_alerts_that_are_not_applied_and_a_watchdog_that_does_not_look(host: Host) -> None:
    host.in_prefect = InPrefect(False)
    (found,) = host.findings()
    assert (found.level, found.fix) == ("warning", "`orchctl alerts apply`")
    host.in_prefect, host.watched = InPrefect(True), None
    (found,) = host.findings()
    assert (found.level, found.fix) == ("warning", "`orchctl watchdog install`")
    host.watched = NOON - timedelta(hours=1)
    (found,) = host.findings()
    assert (found.level, found.seen) == ("failure", "the watchdog looked last at 2025-12-19 16:00Z")


@pytest.mark.parametrize(("count", "said"), [(1, "1 event"), (3, "3 events"), (70, "at least 64 events")])
def test_events_that_prefect_gave_up_lately(host: Host, count: int, said: str) -> None:
    queue = host.state / "prefect" / "dlq"
    queue.mkdir()
    for number in range(count):
        (queue / f"{number:032x}").write_text("{}")
        os.utime(queue / f"{number:032x}", times=(NOON.timestamp(), NOON.timestamp() - 3600))
    (found,) = host.findings()
    assert (found.check, found.level) == ("alerts", "warning")
    assert found.seen == f"Prefect gave up {said} in the last day, the last at 16:00Z ({queue})"
    for each in queue.iterdir():
        os.utime(each, times=(NOON.timestamp(), NOON.timestamp() - 2 * 86400))
    assert host.findings() == []


def test_an_alerts_file_that_is_not_valid(host: Host) -> None:
    def invalid(_catalog: Catalog | None) -> Any:
        raise CatalogInvalid("alerts.toml has 1 problem")

    host.also = {"alerts": invalid}
    assert levels(host.findings("alerts")) == {"alerts": "failure"}
