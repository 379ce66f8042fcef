"""The loop of a handover over a host in memory: killed, failing or interrupted at every change it makes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from catalogs import catalog
from handover_fakes import NOON, Host, Killed
from orchctl.core.handover import CUTOVER, ROLLBACK, UNDO, Step
from orchctl.errors import GateRefused, HandoverUnfinished, OrchctlError, StateBroken, UsageError
from orchctl.services import handover
from orchctl.services.handover import Switched

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
[jobs.free]
schedules = ["often"]
command = ["free"]
"""
SCHEDULES = """
version = 1
timezone = "UTC"
[schedules.often]
cron = "*/5 * * * *"
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "state", catalog(JOBS, SCHEDULES), "score")


def cutover(host: Host, job: str = "score", **more: object) -> Switched:
    wanted: dict[str, object] = {"digest": None, "waived": {}, "confirm_by": None, "command": "cutover", **more}
    return handover.cutover(host.hands(), job, say=lambda _text: None, **wanted)  # type: ignore[arg-type]


def rollback(host: Host, *, now: bool = False) -> Switched:
    return handover.rollback(host.hands(), "score", now=now, command="rollback", say=lambda _text: None)


def resume(host: Host) -> Switched | None:
    return handover.resume(host.hands(), "score", say=lambda _text: None)


def test_a_cutover_and_a_rollback_do_their_steps_in_order_and_leave_the_host_as_it_was(host: Host) -> None:
    host.missed_legacy = (NOON - timedelta(minutes=5),)
    done = cutover(host, confirm_by=NOON + timedelta(hours=24))
    assert (done.outcome, done.granted, host.legal()) == ("done", host.missed_legacy, "prefect")
    told = ["arm", "fence", "open up", "create owner", "timers off", "cron off", "replace owner", "catch up"]
    assert [each for each in host.log if each not in {"begin", "record", "end"}] == told
    host.log.clear()
    host.missed_prefect = (host.now,)
    back = rollback(host)
    assert (back.outcome, back.owed, host.legal(), host.owed_runs) == ("done", (), "legacy", 1)
    assert [each for each in host.log if each not in {"begin", "record", "end"}] == [
        "replace owner", "timers on", "cron on", "remove owner", "run once", "unfence", "disarm", "clear",
    ]  # fmt: skip
    assert host.paused
    assert not host.takeable
    assert host.handovers.unfinished() == ()
    assert host.events.count("handover_finished") == 2


def test_slots_before_since_are_prefects_only_where_they_were_granted(host: Host) -> None:
    cutover(host)
    owner = host.owners.read("score")
    assert owner is not None
    assert NOON < owner.since < host.now  # it has crontab lines: nothing was Prefect's before they were out
    assert owner.granted == ()
    host.catalog = catalog(JOBS.replace(', { cron = "* * * * * score", user = "root" }', ""), SCHEDULES)
    rollback(host)
    begun = host.now
    cutover(host)
    owner = host.owners.read("score")
    assert owner is not None
    assert begun + timedelta(seconds=2) < owner.since < host.now


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("what", ["cutover", "rollback", "recover"])
def test_killed_at_every_change_it_ends_legal_after_recover(tmp_path: Path, what: str, after: bool) -> None:
    seen, number = set(), 0
    while True:
        number += 1
        host = Host(tmp_path / f"{number}", catalog(JOBS, SCHEDULES), "score", missed_legacy=(NOON,))
        if what != "cutover":
            cutover(host)
        if what == "recover":
            host.kill_at, host.kill_after = host.count + 9, True
            with pytest.raises(Killed):
                rollback(host)
        host.missed_prefect = (host.now,)
        host.kill_at, host.kill_after = host.count + number, after
        try:
            {"cutover": cutover, "rollback": rollback, "recover": resume}[what](host)
        except Killed:
            pass
        else:
            break
        host.kill_at = -1
        assert "legacy" not in host.may_run() or "prefect" not in host.may_run()
        resume(host)
        legal = host.legal()
        assert legal is not None, f"killed at change {number}"
        assert host.handovers.unfinished() == ()
        if legal == "legacy" and what != "cutover":
            assert host.owed_runs == 1
        before = (list(host.log), host.legal())
        assert resume(host) is None
        assert (host.log, host.legal()) == before
        seen.add(legal)
    assert number > (20 if what != "recover" else 10)
    # A cutover is taken back before its commit and finished after it; a rollback that has begun is finished.
    begun_at_all = what == "rollback" and not after
    assert seen == ({"legacy", "prefect"} if what == "cutover" or begun_at_all else {"legacy"})


def test_a_cutover_that_fails_before_its_commit_takes_everything_back(host: Host) -> None:
    for change in ("arm", "fence", "open up", "create owner"):
        host.fails = {change: OrchctlError("no")}
        with pytest.raises(OrchctlError) as caught:
            cutover(host, confirm_by=NOON + timedelta(hours=1))
        assert caught.value.message == "no; score was left as it was"
        assert (host.legal(), host.paused, host.handovers.unfinished()) == ("legacy", True, ())
    last = host.handovers.last_of("score")
    assert last is not None
    assert last.outcome == "undone"


def test_ctrl_c_before_the_commit_takes_everything_back_and_after_it_leaves_it_to_recover(host: Host) -> None:
    host.fails = {"open up": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        cutover(host)
    assert host.legal() == "legacy"
    host.fails = {"timers off": KeyboardInterrupt()}
    with pytest.raises(HandoverUnfinished) as caught:
        cutover(host)
    assert caught.value.exit_code == 130
    host.fails = {}
    assert host.legal() is None
    resume(host)
    assert host.legal() == "prefect"


def test_with_the_api_down_a_rollback_owes_prefects_part_alone_and_recover_pays_it(host: Host) -> None:
    cutover(host)
    host.reachable = False
    done = rollback(host)
    assert (done.outcome, done.owed) == (None, (Step.CLEAR,))
    assert host.legal() == "legacy"
    open_now = host.handovers.open_of("score")
    assert open_now is not None
    assert open_now.is_debt
    again = resume(host)
    assert again is not None
    assert again.owed == (Step.CLEAR,)
    host.reachable, host.timers_on = True, False  # whatever became of the timers since is not the debt's
    paid = resume(host)
    assert paid is not None
    assert (paid.outcome, host.paused, host.takeable, host.timers_on) == ("done", True, 0, False)


def test_with_the_api_down_after_the_commit_a_cutover_owes_the_catching_up(host: Host) -> None:
    host.missed_legacy = (NOON,)
    host.fails = {"catch up": _down()}
    done = cutover(host)
    assert done.owed == (Step.CATCH_UP,)
    host.fails = {}
    assert resume(host) is not None
    assert host.legal() == "prefect"


def _down() -> OrchctlError:
    from orchctl.errors import PrefectUnreachable

    return PrefectUnreachable("down")


def test_a_rollback_takes_over_a_cutover_that_is_unfinished(host: Host) -> None:
    host.missed_legacy = (NOON,)
    host.fails = {"catch up": _down()}
    cutover(host)
    host.fails, host.reachable = {}, False
    assert rollback(host).owed == (Step.CLEAR,)
    assert host.legal() == "legacy"


def test_a_rollback_of_a_cutover_that_has_not_committed_takes_it_back(host: Host) -> None:
    host.kill_at = host.count + 8
    with pytest.raises(Killed):
        cutover(host)
    host.kill_at = -1
    assert rollback(host).outcome == "undone"
    assert host.legal() == "legacy"


def test_a_rollback_works_where_nothing_can_be_recorded(host: Host) -> None:
    cutover(host)
    full = OrchctlError("No space left on device")
    host.fails = dict.fromkeys(("begin", "record", "replace owner", "end"), full)
    done = rollback(host)
    assert (done.outcome, host.legal()) == ("done", "legacy")
    assert any("not recorded" in note for note in done.notes)
    assert any("lock alone" in note for note in done.notes)


def test_an_owner_file_that_cannot_be_believed_stops_a_cutover_and_is_removed_by_a_rollback(host: Host) -> None:
    cutover(host)
    path = host.owners.path("score")
    path.write_text("{")
    with pytest.raises(StateBroken):
        cutover(host)
    assert rollback(host).outcome == "done"
    assert not path.exists()
    assert host.legal() == "legacy"


def test_a_rollback_without_a_journal_puts_back_what_the_catalog_names_and_says_so(host: Host) -> None:
    cutover(host)
    for path in (host.state_dir / "handovers").glob("*.jsonl"):
        path.unlink()
    done = rollback(host)
    assert host.legal() == "legacy"
    assert any("no journal" in note for note in done.notes)


def test_what_can_not_be_cut_over_is_refused(host: Host) -> None:
    with pytest.raises(UsageError, match="no legacy triggers"):
        cutover(host, "free")
    cutover(host)
    with pytest.raises(GateRefused, match="already"):
        cutover(host)
    host.kill_at = host.count + 3
    with pytest.raises(Killed):
        rollback(host)
    host.kill_at = -1
    with pytest.raises(GateRefused, match="unfinished"):
        cutover(host)


def test_a_confirmed_cutover_is_not_rolled_back_by_itself(host: Host) -> None:
    with pytest.raises(UsageError, match="no cutover to confirm"):
        handover.confirm(host.hands(), "score")
    cutover(host, confirm_by=NOON + timedelta(hours=1))
    assert handover.confirm(host.hands(), "score")
    owner = host.owners.read("score")
    assert owner is not None
    assert (owner.confirm_by, host.armed) == (None, None)
    assert not handover.confirm(host.hands(), "score")


def test_the_orders_hold_every_step_and_commit_comes_after_the_fence() -> None:
    assert set(CUTOVER) | set(UNDO) | set(ROLLBACK) == set(Step)
    assert CUTOVER.index(Step.FENCE) < CUTOVER.index(Step.COMMIT) < CUTOVER.index(Step.TIMERS_OFF)
    assert ROLLBACK.index(Step.TIMERS_ON) < ROLLBACK.index(Step.RELEASE) < ROLLBACK.index(Step.UNFENCE)
