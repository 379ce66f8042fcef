"""What `recover` does about drift of ownership, on a host in memory, and killed at every change it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from catalogs import catalog
from handover_fakes import NOON, Host, Killed
from orchctl.core.handover import Step
from orchctl.core.handover_journal import Opened, Record
from orchctl.core.ownership import Known
from orchctl.core.snapshot import Snapshot
from orchctl.errors import HandoverUnfinished, OrchctlError, StateBroken
from orchctl.services import handover, ownership
from orchctl.services.ownership import Repaired

JOBS = """
version = 1
[defaults]
data_root = "/data"
working_directory = "/srv"
work_pool = "pool"
[jobs.score]
schedules = ["often"]
command = ["score"]
legacy = [{ timer = "x.timer" }, { cron = "* * * * * score", user = "root" }]
"""
SCHEDULES = """
version = 1
timezone = "UTC"
[schedules.often]
cron = "*/5 * * * *"
"""


def quiet(_text: str) -> None:
    return None


def new_host(folder: Path) -> Host:
    return Host(folder / "state", catalog(JOBS, SCHEDULES), "score")


def cut_over(host: Host, *, confirm: bool = False) -> None:
    until = NOON + timedelta(hours=24) if confirm else None
    handover.cutover(
        host.hands(), "score", digest=None, waived={}, confirm_by=until, command="cutover", say=quiet
    )  # fmt: skip


def roll_back(host: Host) -> None:
    handover.rollback(host.hands(), "score", now=False, command="rollback", say=quiet)


def repair(host: Host) -> tuple[Repaired, ...]:
    return ownership.repair(host.hands(), "score", say=quiet)


def codes(host: Host) -> list[tuple[str, bool]]:
    return [(each.code, each.done) for each in repair(host)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return new_host(tmp_path)


# --- how it drifts, what is found, and whose the job is then


def timer_back(host: Host) -> None:
    host.timers_on = True


def cron_back(host: Host) -> None:
    host.cron_on = True


def fence_gone(host: Host) -> None:
    host.fence = False


def all_back(host: Host) -> None:
    host.fence, host.timers_on, host.cron_on = False, True, True


def disarmed(host: Host) -> None:
    host.armed = None


def journal_gone(host: Host) -> None:
    for path in host.state_dir.glob("handovers/**/*"):
        if path.is_file():
            path.unlink()
    all_back(host)


def journal_torn(host: Host) -> None:
    for path in host.state_dir.glob("handovers/*.jsonl"):
        path.write_bytes(b"{}")


def no_name(host: Host) -> None:
    owner = host.owners.read("score")
    assert owner is not None
    host.owners.replace("score", replace(owner, handover=None))


def mark_gone(host: Host) -> None:
    """Break a cutover off after its commit, and lose the mark that says so."""
    roll_back(host)
    host.fails = {"timers off": OrchctlError("no")}
    with pytest.raises(HandoverUnfinished):
        cut_over(host)
    host.fails = {}
    (host.state_dir / "handovers" / "open" / "score").unlink()


DRIFTS: dict[Callable[[Host], None], list[str]] = {
    timer_back: ["trigger-came-back"],
    cron_back: ["trigger-came-back"],
    fence_gone: ["fence-gone"],
    all_back: ["fence-gone", "trigger-came-back", "trigger-came-back"],
    journal_gone: ["no-journal"],
    journal_torn: ["no-journal"],
    no_name: ["no-journal"],
    mark_gone: ["unfinished-handover"],
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_drifted_is_put_right_once(host: Host, drift: Callable[[Host], None]) -> None:
    cut_over(host)
    drift(host)
    assert [each.code for each in repair(host)] == DRIFTS[drift]
    assert host.legal() == "prefect"
    assert host.handovers.unfinished() == ()
    host.log.clear()
    assert repair(host) == ()
    assert host.log == []
    roll_back(host)
    assert host.legal() == "legacy"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("drift", DRIFTS)
def test_killed_at_every_change_the_next_recover_puts_it_right(
    tmp_path: Path, drift: Callable[[Host], None], after: bool
) -> None:
    number = 0
    while True:
        number += 1
        host = new_host(tmp_path / str(number))
        cut_over(host)
        drift(host)
        host.kill_at, host.kill_after = host.count + number, after
        try:
            repair(host)
        except Killed:
            pass
        else:
            break
        host.kill_at = -1
        assert host.job in host.owners.names()
        handover.resume(host.hands(), "score", say=quiet)
        repair(host)
        assert host.legal() == "prefect", f"killed at change {number}"
        assert host.handovers.unfinished() == ()
        assert repair(host) == ()
    assert number > 1


def test_the_fence_comes_before_the_timers(host: Host) -> None:
    cut_over(host)
    all_back(host)
    host.log.clear()
    repair(host)
    assert host.log == ["fence", "timers off", "cron off"]


def test_where_all_is_right_nothing_is_done(host: Host) -> None:
    assert repair(host) == ()
    cut_over(host)
    assert repair(host) == ()
    roll_back(host)
    assert repair(host) == ()


def test_what_does_not_show_is_an_error(host: Host) -> None:
    cut_over(host)
    fence_gone(host)
    host.put = lambda _name, **_values: None  # type: ignore[method-assign]
    with pytest.raises(OrchctlError, match="does not show"):
        repair(host)


def test_a_rollback_that_comes_by_itself_is_armed_again(host: Host) -> None:
    cut_over(host, confirm=True)
    disarmed(host)
    assert codes(host) == [("confirm-unarmed", True)]
    assert host.armed == NOON + timedelta(hours=24)
    disarmed(host)
    host.now = NOON + timedelta(hours=25)
    assert codes(host) == []


def test_an_owner_file_that_cannot_be_believed_stops_it(host: Host) -> None:
    cut_over(host)
    host.owners.path("score").write_text("{")
    all_back(host)
    host.log.clear()
    with pytest.raises(StateBroken) as caught:
        repair(host)
    assert (caught.value.exit_code, host.log) == (14, [])
    assert "orchctl rollback score" in (caught.value.hint or "")


def test_without_a_journal_and_a_catalog_nobody_knows_what_to_do(host: Host) -> None:
    cut_over(host)
    journal_gone(host)
    host.catalog = catalog(JOBS.replace("jobs.score", "jobs.other"), SCHEDULES)
    host.log.clear()
    with pytest.raises(StateBroken, match="no catalog knows the job"):
        repair(host)
    assert host.log == []


def test_a_rollback_that_nothing_was_written_of_is_finished(host: Host) -> None:
    cut_over(host)
    owner = host.owners.read("score")
    assert owner is not None
    host.owners.replace("score", replace(owner, draining=True))
    assert codes(host) == [("draining", True)]
    assert host.legal() == "legacy"


def test_an_unfinished_handover_is_others_to_go_on_with(host: Host) -> None:
    host.fails = {"timers off": OrchctlError("no")}
    with pytest.raises(HandoverUnfinished):
        cut_over(host)
    all_back(host)
    host.log.clear()
    assert repair(host) == ()
    assert host.log == []


def test_a_timer_that_the_cutover_did_not_find_is_told_and_left(host: Host) -> None:
    cut_over(host)
    found = host.owners.read("score")
    assert found is not None
    assert found.handover is not None
    made = host.handovers.read(found.handover)
    assert made is not None
    bare = replace(made.opened, id="20260105T120000Z-000000", snapshot=Snapshot(cron=made.opened.snapshot.cron))
    host.handovers.begin(bare)
    host.handovers.end(bare, "done", NOON)
    host.owners.replace("score", replace(found, handover=bare.id))
    timers = host.hands().timers
    timers.are_off = lambda _snapshot: True  # type: ignore[method-assign, assignment]
    host.timers_on = True
    hands = replace(host.hands(), timers=timers)
    (told,) = ownership.repair(hands, "score", say=quiet)
    assert (told.code, told.done) == ("trigger-came-back", False)
    assert told.what == "x.timer (system) was not there at the cutover: turn it off by hand"
    assert host.timers_on


# --- after a rollback


def test_a_deployment_that_was_unpaused_by_hand_is_paused_and_cleared_again(host: Host) -> None:
    cut_over(host)
    roll_back(host)
    host.paused, host.takeable = False, 3
    assert codes(host) == [("unpaused-by-hand", True)]
    assert (host.paused, host.takeable) == (True, 0)
    assert codes(host) == []


def test_a_deployment_that_no_rollback_paused_is_left_alone(host: Host) -> None:
    host.paused = False
    assert repair(host) == ()
    assert not host.paused


def test_without_prefect_it_is_said_that_nobody_looked(host: Host) -> None:
    cut_over(host)
    roll_back(host)
    host.reachable = False
    assert codes(host) == [("unpaused-by-hand", False)]


# --- what the files say


def test_debts_are_told_by_job_with_what_is_owed(host: Host) -> None:
    cut_over(host)
    host.reachable = False
    roll_back(host)
    assert [job for job, _ in ownership.debts(host.handovers)] == ["score"]
    said = ownership.debts(host.handovers)[0][1]
    assert said.startswith("Prefect's part of the rollback of 2026-01-05 12:0")
    assert "pause Prefect's deployment" in said
    host.reachable = True
    handover.resume(host.hands(), "score", say=quiet)
    assert ownership.debts(host.handovers) == ()


def test_an_unfinished_handover_and_a_broken_mark_are_no_debts(host: Host) -> None:
    opened = Opened("20260105T120000Z-000000", "rollback", "other", NOON, "rollback", Snapshot())
    host.handovers.begin(opened)
    host.handovers.add(opened, Record(Step.DRAIN, "begun", NOON))
    (host.state_dir / "handovers" / "open" / "broken").write_text("{}")
    assert host.handovers.unfinished() == ("broken", "other")
    assert ownership.debts(host.handovers) == ()


def test_what_is_known_of_a_job_is_read_from_its_own_files(host: Host) -> None:
    assert ownership.known(host.owners, host.handovers, "score") == Known()
    cut_over(host)
    known = ownership.known(host.owners, host.handovers, "score")
    assert not isinstance(known.made, str)
    assert known.made is not None
    assert (known.made.opened.kind, known.open, known.last) == ("cutover", None, None)
    (host.state_dir / "handovers" / "open" / "score").write_text("{}")
    assert isinstance(ownership.known(host.owners, host.handovers, "score").open, str)
