"""`host upgrade` on the way back, and after a kill: all runs again, whatever fails besides, and no history is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from host_fakes import START, Killed
from orchctl.adapters.environments import Environments
from orchctl.core.backup import OpenRun
from orchctl.core.installation import RECOVER_TIMER, SERVER_UNIT, WORKER_UNIT
from orchctl.errors import Interrupted, OrchctlError, StateBroken
from upgrading import NEW, OLD, RUNS, TABLES, Rig, version_in

ALL = {SERVER_UNIT, WORKER_UNIT, RECOVER_TIMER}


def broken(*what: str) -> frozenset[str]:
    return frozenset(what)


def as_before(rig: Rig) -> None:
    assert version_in(rig.environment) == OLD
    assert rig.revision() == TABLES[OLD]
    assert rig.rows() == RUNS
    assert set(rig.running()) == ALL


def databases_before(rig: Rig) -> list[Path]:
    """What a restore of the database has moved aside."""
    return list(rig.database.parent.glob("*.before-*"))


def killed_when_started(rig: Rig) -> None:
    rig.dies_after = "journal starting"
    with pytest.raises(Killed):
        rig.upgrade()
    rig.dies_after = None
    assert version_in(rig.environment) == NEW


def test_what_is_killed_again_while_all_is_put_back_counts_no_second_signal(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("migrate"), interrupts=f"start {SERVER_UNIT}")
    with pytest.raises(OrchctlError, match="all is put back as it was"):
        rig.upgrade()
    as_before(rig)


def test_an_old_environment_that_cannot_be_removed_is_said_and_nothing_is_put_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("remove"))
    older = tmp_path / "venv.before-20200101T000000Z"
    older.mkdir()
    done = rig.upgrade()
    assert done is not None
    assert done.removed == ()
    assert version_in(rig.environment) == NEW
    assert f"{older} cannot be removed" in rig.said
    assert rig.world().journal.read() is None


def test_what_cannot_be_removed_does_not_hide_what_was_put_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("remove", "migrate"))
    with pytest.raises(OrchctlError, match="the database's tables could not be changed"):
        rig.upgrade()
    as_before(rig)
    assert rig.world().journal.read() is None


def test_a_full_disk_does_not_keep_all_from_being_put_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("journal", "migrate"))
    with pytest.raises(OrchctlError):
        rig.upgrade()
    as_before(rig)
    assert "there is no room on the disk" in rig.said


def test_where_all_is_put_back_and_does_not_come_up_systemd_goes_on_trying(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("start"), migrations=0)
    rig.sql(f"UPDATE alembic_version SET version_num = '{TABLES[NEW]}'")  # the old one schedules nothing on these
    with pytest.raises(OrchctlError, match="and putting back as well"):
        rig.upgrade()
    assert version_in(rig.environment) == OLD
    assert set(rig.running()) == ALL


@pytest.mark.parametrize("at", [f"let go {WORKER_UNIT}", "migrate"])
@pytest.mark.parametrize("wrong", ["", "migrate"])
def test_a_backup_that_is_at_work_is_waited_for(tmp_path: Path, at: str, wrong: str) -> None:
    rig = Rig(tmp_path, broken=broken(wrong), busy=(at, 40))
    if wrong:
        with pytest.raises(OrchctlError, match="all is put back as it was"):
            rig.upgrade()
        as_before(rig)
    else:
        assert rig.upgrade() is not None
    waited = "waiting: orchctl host verify is at work on this host" in rig.said
    assert waited == (at != "migrate" or wrong == "migrate")


@pytest.mark.parametrize("wrong", ["", "start"])
def test_history_made_since_a_kill_is_never_put_back_by_itself(tmp_path: Path, wrong: str) -> None:
    rig = Rig(tmp_path, broken=broken(wrong))
    killed_when_started(rig)
    rig.sql("INSERT INTO flow_run DEFAULT VALUES")
    rig.computer.state(SERVER_UNIT).runs = False  # by a hand, days later
    if not wrong:
        assert rig.through(rig.resume) is not None
    for _ in range(2) if wrong else ():
        with pytest.raises(OrchctlError, match="nothing is put back by itself") as caught:
            rig.through(rig.resume)
        assert "host restore" in caught.value.message
        assert "loses what was written since" in caught.value.message
    assert version_in(rig.environment) == NEW
    assert rig.rows() == RUNS + 1
    assert databases_before(rig) == []
    assert set(rig.running()) == ALL


@pytest.mark.parametrize("step", ["journal migrating", "migrate", "exchange"])
def test_a_boot_that_starts_what_was_killed_has_made_history(tmp_path: Path, step: str) -> None:
    rig = Rig(tmp_path, broken=broken("start"))
    whole = Rig(tmp_path / "whole")
    whole.upgrade()
    rig.computer.dies_at = whole.computer.done.index(step) + 1
    with pytest.raises(Killed):
        rig.upgrade()
    rig.computer.dies_at = None
    rig.sql("INSERT INTO flow_run DEFAULT VALUES")  # the server that the boot started ran, and was stopped
    with pytest.raises(OrchctlError, match="nothing is put back by itself"):
        rig.through(rig.resume)
    assert rig.rows() == RUNS + 1


def test_history_is_not_forgotten_by_a_second_kill(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    killed_when_started(rig)
    rig.computer.state(SERVER_UNIT).runs = False
    rig.interrupts = "migrate"
    with pytest.raises(KeyboardInterrupt):
        rig.through(rig.resume)
    rig.broken = broken("start")
    with pytest.raises(OrchctlError, match="nothing is put back by itself"):
        rig.through(rig.resume)
    assert databases_before(rig) == []


@pytest.mark.parametrize("migrations", [0, 2])
def test_what_was_pruned_since_a_kill_is_no_loss(tmp_path: Path, migrations: int) -> None:
    rig = Rig(tmp_path, migrations=migrations)
    if not migrations:
        rig.sql(f"UPDATE alembic_version SET version_num = '{TABLES[NEW]}'")
    killed_when_started(rig)
    rig.sql("DELETE FROM flow_run WHERE id = 1")
    assert rig.through(rig.resume) is not None
    assert rig.rows() == RUNS - 1


def test_without_a_change_of_tables_it_is_put_back_after_a_kill_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path, migrations=0, broken=broken("version"))
    rig.sql(f"UPDATE alembic_version SET version_num = '{TABLES[NEW]}'")
    killed_when_started(rig)
    rig.sql("INSERT INTO flow_run DEFAULT VALUES")
    with pytest.raises(OrchctlError):  # the old one of this rig does not open these tables: nothing was restored
        rig.through(rig.resume)
    assert version_in(rig.environment) == OLD
    assert rig.rows() == RUNS + 1


def test_tables_that_were_not_touched_are_not_put_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, interrupts="journal migrating")
    with pytest.raises(Interrupted):
        rig.upgrade()
    as_before(rig)
    assert databases_before(rig) == []


IN_USE = ("session 7 of somebody (psql)",)


def test_tables_that_somebody_has_kept_as_they_were_are_not_put_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("migrate"), kind="postgresql", used=IN_USE)
    with pytest.raises(OrchctlError, match="all is put back as it was"):
        rig.upgrade()
    as_before(rig)
    assert databases_before(rig) == []
    assert any("session 7 of somebody (psql) has the database open" in each for each in rig.said)


def test_tables_that_are_other_ones_are_not_left_because_somebody_has_them_open(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("rows"), kind="postgresql", used=IN_USE)
    with pytest.raises(OrchctlError, match="and putting back as well") as caught:
        rig.upgrade()
    assert "session 7 of somebody (psql) has the database open" in caught.value.message


def test_the_runs_that_a_restored_database_must_not_go_on_with_are_named(tmp_path: Path) -> None:
    rig = Rig(tmp_path, broken=broken("start"))
    rig.backups.runs.append(OpenRun("1", "owl", "RUNNING", START, by_schedule=True))
    with pytest.raises(OrchctlError, match="all is put back as it was"):
        rig.upgrade()
    as_before(rig)
    assert "run owl was ended: it was going when the backup was made" in rig.said
    assert len(databases_before(rig)) == 1


def killed_on_the_way_back(rig: Rig) -> None:
    """Kill it when it is to restore the database, in which the new server has scheduled a run."""
    rig.broken = broken("version", "grows", "restore")
    with pytest.raises(Killed):
        rig.upgrade()
    rig.broken = broken("version", "grows")
    assert rig.rows() > RUNS


def test_what_the_new_server_wrote_before_it_failed_is_no_history_since(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    killed_on_the_way_back(rig)
    with pytest.raises(OrchctlError, match="all is put back as it was"):
        rig.through(rig.resume)
    as_before(rig)


def test_a_restore_that_was_interrupted_is_not_passed_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    killed_on_the_way_back(rig)
    rig.broken = broken()
    archive = next((rig.backups.state / "backups").glob("*.tar.gz"))
    with rig.backups.desk().unpack(archive) as unpacked:
        rig.backups.target().place.begin(unpacked.archive, ["database"], START)
    rig.computer.state(SERVER_UNIT).runs = True  # a boot started it
    with pytest.raises(OrchctlError, match="a restore was interrupted"):
        rig.through(rig.resume)
    assert rig.world().journal.read() is not None


def test_the_probe_that_a_killed_start_has_left_is_not_missed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for table in ("flow", "flow_run"):
        rig.sql(f"INSERT INTO {table} (text) VALUES ('probe')")
    assert rig.upgrade() is not None
    assert rig.rows() == RUNS


def test_killed_between_database_and_environment_it_goes_on_to_put_back(tmp_path: Path) -> None:
    whole = Rig(tmp_path / "whole", broken=broken("rows"))
    with pytest.raises(OrchctlError):
        whole.upgrade()
    done = whole.computer.done
    rig = Rig(tmp_path / "one", broken=broken("rows"))
    rig.computer.dies_at = done.index("exchange", done.index("exchange") + 1)
    with pytest.raises(Killed):
        rig.upgrade()
    rig.computer.dies_at = None
    assert rig.rows() == RUNS
    with pytest.raises(OrchctlError, match="all is put back as it was"):
        rig.through(rig.resume)
    as_before(rig)


@pytest.mark.parametrize("elsewhere", ["environment", "link"])
def test_a_journal_that_leads_elsewhere_is_not_followed(tmp_path: Path, elsewhere: str) -> None:
    rig = Rig(tmp_path)
    rig.computer.dies_at = 9
    with pytest.raises(Killed):
        rig.upgrade()
    rig.computer.dies_at = None
    journal = rig.world().journal.read()
    assert journal is not None
    place = str(tmp_path / "of a user/venv")
    if elsewhere == "link":
        Path(place).parent.mkdir()
        Path(place).symlink_to(rig.environment)
        # The record names it as well.
        rig.its = replace(rig.its, python=f"{place}/bin/python")
    planted = replace(journal, environment=place, aside=f"{place}.before-{journal.id}", step="switching")
    rig.world().journal.write(planted)
    with pytest.raises(StateBroken, match="does not run from there"):
        rig.resume()


def test_a_link_on_the_way_to_an_environment_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "real/venv").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Environments.place(str(tmp_path / "link/venv/bin/python")) == str(tmp_path / "real/venv")
