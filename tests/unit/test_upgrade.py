"""`host upgrade` on a host with real folders and a real database: what it leaves when it works, fails, or is killed."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest

from conftest import ROOT
from host_fakes import Killed
from orchctl.adapters.upgrades import Upgrades
from orchctl.cli import host_upgrade_views as views
from orchctl.cli.app import main
from orchctl.core import doctor_host, upgrade
from orchctl.core.installation import RECOVER_TIMER, SERVER_UNIT, WORKER_UNIT
from orchctl.core.upgrade import Change, Journal
from orchctl.errors import GateRefused, Interrupted, OrchctlError, StateBroken
from orchctl.services import upgrade as service
from orchctl.services.upgrade import Plan
from orchctl.services.upgrade_ports import Asked
from orchctl.wiring import Settings
from upgrading import NEW, OLD, RUNS, TABLES, Rig, version_in

CONFIG = ROOT / "config"
ALL = {SERVER_UNIT, WORKER_UNIT, RECOVER_TIMER}


def rig_in(folder: Path, **words: object) -> Rig:
    folder.mkdir(parents=True, exist_ok=True)
    return Rig(folder, **words)  # type: ignore[arg-type]


def asides(rig: Rig) -> list[str]:
    return sorted(path.name for path in rig.root.glob("venv.*"))


def works(rig: Rig, version: str) -> None:
    """All runs with this Prefect, on tables that are its own, with all history, and nothing is half."""
    assert version_in(rig.environment) == version
    assert rig.revision() == TABLES[version] or rig.migrations == 0
    assert rig.rows() == RUNS
    assert set(rig.running()) == (ALL if rig.server else ALL - {SERVER_UNIT})
    assert rig.world().journal.read() is None
    assert not (rig.backups.state / "host/restore.json").exists()


def test_an_upgrade_keeps_the_history_and_the_old_environment(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    done = rig.upgrade()
    assert done is not None
    works(rig, NEW)
    assert version_in(done.aside) == OLD
    assert (done.before, done.after, done.removed) == (OLD, NEW, ())
    assert done.archive is not None
    assert Path(done.archive).is_file()
    assert rig.upgrade() is None


def test_only_the_last_environment_is_kept(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    older = tmp_path / "venv.before-20200101T000000Z"
    older.mkdir()
    for name in ("venv.before-mine", "other.before-20200101T000000Z"):
        (tmp_path / name).mkdir()
    done = rig.upgrade()
    assert done is not None
    assert done.removed == (str(older),)
    assert asides(rig) == [Path(done.aside).name, "venv.before-mine"]
    assert (tmp_path / "other.before-20200101T000000Z").is_dir()


@pytest.mark.parametrize("broken", ["install", "fit", "trial"])
def test_what_fails_before_the_switch_changes_nothing(tmp_path: Path, broken: str) -> None:
    rig = rig_in(tmp_path, broken=frozenset({broken}))
    with pytest.raises(OrchctlError) as caught:
        rig.upgrade()
    assert "nothing was changed" in str(caught.value.hint)
    works(rig, OLD)
    assert asides(rig) == []
    assert not any(what.startswith(("stop", "start", "let go")) for what in rig.computer.done)


@pytest.mark.parametrize("broken", ["migrate", "start", "rows", "version"])
def test_what_fails_after_it_is_put_back(tmp_path: Path, broken: str) -> None:
    rig = rig_in(tmp_path, broken=frozenset({broken}))
    with pytest.raises(OrchctlError, match=f"the upgrade to Prefect {NEW} failed; all is put back as it was") as caught:
        rig.upgrade()
    works(rig, OLD)
    assert asides(rig) == []
    assert caught.value.exit_code == 1


def test_without_a_change_of_tables_the_database_is_left_as_it_goes_on(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, broken=frozenset({"start"}), migrations=0)
    rig.sql(f"UPDATE alembic_version SET version_num = '{TABLES[NEW]}'")
    with pytest.raises(OrchctlError):  # the old one of this rig does not open these tables: nothing was restored
        rig.upgrade()
    assert rig.revision() == TABLES[NEW]
    assert not list(rig.database.parent.glob("*.before-*"))


@pytest.mark.parametrize("at", ["copy", "install", "try"])
def test_ctrl_c_before_the_switch_changes_nothing(tmp_path: Path, at: str) -> None:
    rig = rig_in(tmp_path, interrupts=at)
    with pytest.raises(Interrupted, match="nothing was changed"):
        rig.upgrade()
    works(rig, OLD)
    assert asides(rig) == []


@pytest.mark.parametrize("at", [f"let go {WORKER_UNIT}", "exchange", "migrate"])
def test_ctrl_c_after_it_puts_back(tmp_path: Path, at: str) -> None:
    rig = rig_in(tmp_path, interrupts=at)
    with pytest.raises(Interrupted, match="all is put back"):
        rig.upgrade()
    works(rig, OLD)
    assert asides(rig) == []


@pytest.mark.parametrize(
    "broken", ["", *(pytest.param(each, marks=pytest.mark.campaign) for each in ("migrate", "start"))]
)
def test_killed_at_any_change_it_is_finished_or_put_back(tmp_path: Path, broken: str) -> None:
    ends: set[str] = set()
    for number in itertools.count():
        rig = rig_in(tmp_path / str(number), broken=frozenset({broken}))
        rig.computer.dies_at = number
        try:
            rig.upgrade()
        except Killed:
            pass
        except OrchctlError:
            break
        else:
            break
        rig.computer.dies_at = None
        left = rig.world().journal.read()
        ran = left is not None and (left.step == "starting" or rig.computer.state(SERVER_UNIT).runs)
        ran = ran and version_in(rig.environment) == NEW
        with contextlib.suppress(OrchctlError):
            rig.through(rig.resume)
        end = version_in(rig.environment)
        if broken and ran:  # what its server has written since is not for us to throw away
            assert end == NEW
            continue
        ends.add(end)
        works(rig, end)
    assert number > 12
    assert ends == ({OLD, NEW} if not broken else {OLD})


@pytest.mark.campaign
def test_killed_again_and_again_on_the_way_back_it_ends_as_before(tmp_path: Path) -> None:
    whole = rig_in(tmp_path / "whole", broken=frozenset({"start"}))
    with pytest.raises(OrchctlError):
        whole.upgrade()
    done = whole.computer.done
    back = done.index(f"stop {SERVER_UNIT}", done.index("journal restoring")) + 1
    for number in range(12):
        rig = rig_in(tmp_path / str(number), broken=frozenset({"start"}))
        for _ in range(40):
            rig.computer.dies_at = max(back, len(rig.computer.done)) + number
            try:
                rig.upgrade() if not rig.computer.done else rig.through(rig.resume)
            except Killed:
                continue
            except OrchctlError:
                break
        rig.computer.dies_at = None
        with contextlib.suppress(OrchctlError):
            rig.through(rig.resume)
        works(rig, OLD)


def test_history_made_since_a_kill_is_kept(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    rig.dies_after = "journal starting"
    with pytest.raises(Killed):
        rig.upgrade()
    rig.dies_after = None
    rig.sql("INSERT INTO flow_run DEFAULT VALUES")
    assert rig.through(rig.resume) is not None
    assert rig.rows() == RUNS + 1


def test_runs_at_work_are_waited_for_and_not_ended(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, runs={"owl": 9})
    assert rig.upgrade() is not None
    assert any(said == "waiting for owl" for said in rig.said)


def test_runs_that_do_not_end_are_left_and_the_worker_starts_again(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, runs={"owl": 10**6})
    with pytest.raises(OrchctlError, match="runs are still at work: owl"):
        rig.upgrade(patience_s=3.0)
    works(rig, OLD)
    assert f"stop {SERVER_UNIT}" not in rig.computer.done
    assert rig.upgrade(patience_s=None) is not None


def test_a_host_of_workers_needs_no_database(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, server=False)
    done = rig.upgrade()
    assert done is not None
    assert done.archive is None
    works_without = rig.revision()
    assert works_without == TABLES[OLD]
    assert version_in(rig.environment) == NEW


@pytest.mark.parametrize(
    ("words", "broken", "said"),
    [
        ({"version": "3.7.1"}, "", "this orchctl works with Prefect"),
        ({"version": "4.0"}, "", "this orchctl works with Prefect"),
        ({}, "room", "MB are needed"),
        ({"requirements": ("-r x",)}, "", "is no requirement of pip's"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, words: dict[str, object], broken: str, said: str) -> None:
    rig = rig_in(tmp_path, broken=frozenset({broken}))
    with pytest.raises(OrchctlError, match=said):
        rig.upgrade(**words)
    assert rig.computer.done == []


def test_a_downgrade_is_refused(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    rig.upgrade()
    with pytest.raises(GateRefused, match="is older than"):
        rig.upgrade(version=OLD)


def test_a_handover_that_is_unfinished_is_finished_first(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, unfinished=["live-score"])
    with pytest.raises(GateRefused, match="live-score is unfinished"):
        rig.upgrade()


def test_what_does_not_work_now_is_not_upgraded(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    rig.computer.heard.clear()
    with pytest.raises(GateRefused, match="do not all work now"):
        rig.upgrade()


def test_another_orchctl_is_told_which_one_to_run(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    world = rig.world()
    rig.here = "/usr"
    with pytest.raises(GateRefused, match="this orchctl is another one"):
        service.propose(world, Asked(None, (), None, None, None))


def test_where_putting_back_fails_each_command_is_named(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, broken=frozenset({"migrate"}), held_from="migrate")
    with pytest.raises(OrchctlError, match="and putting back as well") as caught:
        rig.upgrade()
    aside = rig.root / asides(rig)[0]
    assert f"the environment with Prefect {OLD} is {aside}" in caught.value.message
    assert f"mv {aside} {rig.environment}" in caught.value.message
    assert "host restore" in caught.value.message
    rig.held.clear()
    with pytest.raises(OrchctlError, match="all is put back as it was"):
        rig.through(rig.resume)
    works(rig, OLD)


def journal(**words: object) -> Journal:
    fields: dict[str, object] = {
        "id": "20260101T000000Z",
        "step": "switching",
        "environment": "/opt/venv",
        "aside": "/opt/venv.before-20260101T000000Z",
        "before": OLD,
        "after": NEW,
        "migrations": 2,
    }
    return Journal(**(fields | words))  # type: ignore[arg-type]


def test_a_journal_is_read_as_it_was_written() -> None:
    full = journal(
        archive="/b/a.tar.gz", counts={"flow_runs": 3}, revision="abc", begun=True, problem="x", interrupted=True
    )
    assert Journal.from_json(full.to_json()) == full
    assert Journal.from_json(journal().to_json()) == journal()


@pytest.mark.parametrize(
    "wrong",
    [{"step": "x"}, {"aside": "/etc"}, {"aside": "/opt/venv.before-"}, {"counts": {"a": "b"}}, {"version": 9}],
)
def test_a_journal_that_names_something_else_is_not_believed(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Journal.from_json({**journal().to_json(), **wrong})
    rig = rig_in(tmp_path)
    (rig.backups.state / "host").mkdir(exist_ok=True)
    (rig.backups.state / "host/upgrade.json").write_text("[]")
    with pytest.raises(StateBroken):
        rig.resume()


@pytest.mark.parametrize(
    ("step", "switched", "ran", "move"),
    [
        ("stopping", False, True, "start"),
        ("switching", False, False, "start"),
        ("switching", True, False, "finish"),
        ("switching", True, True, "only finish"),
        ("migrating", True, False, "finish"),
        ("starting", True, False, "only finish"),
        ("starting", False, False, "start"),
        ("restoring", True, False, "put back"),
        ("restoring", True, True, "only finish"),
        ("restoring", False, False, "start"),
    ],
)
def test_what_becomes_of_an_upgrade_that_was_killed(step: str, switched: bool, ran: bool, move: str) -> None:
    assert upgrade.move(journal(step=step), switched=switched, ran=ran) == move
    if move == "only finish":  # nothing is lost where no tables change
        back = "put back" if step == "restoring" else "finish"
        assert upgrade.move(journal(step=step, migrations=0), switched=switched, ran=ran) == back


@pytest.mark.parametrize(
    ("requirement", "ours"),
    [
        ("orchctl", True),
        ("orchctl==0.3", True),
        ("orchctl[contracts]", True),
        ("dist/orchctl-0.3-py3-none-any.whl", True),
        ("git+https://example.org/orchctl.git", True),
        ("../src/orchctl/", True),
        ("./orchctl//", True),
        ("orchctl-extras", False),
        ("prefect==3.9", False),
    ],
)
def test_a_requirement_that_is_orchctl_itself(requirement: str, ours: bool) -> None:
    assert upgrade.names_orchctl(requirement) == ours


def test_doctor_says_that_one_is_unfinished() -> None:
    found = doctor_host.unfinished_upgrade(upgrade.told(journal()))
    assert (found.check, found.level) == ("state", "failure")
    assert "an upgrade from Prefect 3.8.8 to 3.9.1 is unfinished" in found.seen
    assert "orchctl host upgrade" in (found.fix or "")


def test_host_status_says_that_one_is_unfinished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Upgrades(tmp_path).write(journal())
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(SystemExit):
        main(["--state-dir", str(tmp_path), "--config", str(CONFIG), "host", "status"])
    assert "an upgrade from Prefect 3.8.8 to 3.9.1 is unfinished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("migrations", "said"),
    [
        (2, "the database's tables change, in 2 steps"),
        (0, "the database's tables do not change"),
        (None, "is seen when it is installed beside"),
    ],
)
def test_what_would_be_done_is_shown(capsys: pytest.CaptureFixture[str], migrations: int | None, said: str) -> None:
    changes = (Change("lib", None, "2.0"), Change("prefect", OLD, NEW))
    views.planned(Plan("/opt/venv", OLD, NEW, changes, migrations, ("owl",)), Settings.of({}))
    shown = capsys.readouterr().out
    assert "  prefect 3.8.8 -> 3.9.1\n" in shown
    assert "  lib (new) -> 2.0\n" in shown
    assert said in shown
    assert "at work now: owl" in shown
