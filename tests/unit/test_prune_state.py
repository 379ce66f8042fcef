"""Claims and journals: which go, and that a claim which is gone lets no slot run twice."""

from __future__ import annotations

import shutil
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from desk import SLOT, Desk
from orchctl.adapters import host_lock
from orchctl.adapters.claims import Claims
from orchctl.adapters.files import create_exclusive
from orchctl.adapters.restoring import Place
from orchctl.adapters.run_folders import RunFolders
from orchctl.core.handover import Kind
from orchctl.core.handover_journal import Opened
from orchctl.core.names import run_id, slot_name
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.errors import GateRefused, Locked, StateBroken
from orchctl.services import prune
from pruning import Host, ago, counts, kept, seconds, spied


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def claim(claims: Claims, slot: datetime, *, job: str = "job", flow: str = "one") -> None:
    assert claims.take(job, slot, run_id=run_id(slot, flow), flow_run_id=flow, at=slot).ours


# --- claims


def test_old_claims_go_but_for_the_newest(host: Host) -> None:
    for days in (200, 100, 1):
        claim(host.claims, ago(days))
        claim(host.claims, ago(days + 300), job="gone")
    assert host.look(state=90) == {("state", "gone"): 2, ("state", "job"): 2}
    assert host.claims.read("job", ago(200)) is not None
    assert host.prune(state=90) == {("state", "gone"): 2, ("state", "job"): 2}
    assert host.claims.read("job", ago(200)) is None
    assert host.claims.read("job", ago(1)) is not None
    assert host.claims.read("gone", ago(301)) is not None
    assert host.prune(state=90) == {}


def test_an_idle_job_keeps_its_newest_claim(host: Host) -> None:
    claim(host.claims, ago(500), job="other")
    claim(host.claims, ago(400), job="other")
    host.prune(state=90)
    assert host.claims.read("other", ago(400)) is not None
    assert host.claims.read("other", ago(500)) is None


def test_claims_within_a_catch_up_window_stay_whatever_is_asked(host: Host) -> None:
    for days in (0.5, 1.5, 2.5):
        claim(host.claims, ago(days))
    claim(host.claims, ago(0.1))
    assert host.prune(state=1) == {("state", "job"): 1}
    assert host.claims.read("job", ago(2.5)) is None


def test_of_a_job_that_the_catalog_does_not_have_a_slot_may_run_for_a_year(host: Host) -> None:
    for days in (366, 368, 1):
        claim(host.claims, ago(days), job="gone")
    assert host.prune(state=90) == {("state", "gone"): 1}


def test_nothing_of_a_job_in_a_handover_goes(host: Host) -> None:
    for days in (200, 1):
        claim(host.claims, ago(days))
    host.handovers.begin(opened("cutover", 150))
    found = prune.prune(host.world(), seconds({"state": 90}))
    assert (found.rows, kept(found)) == ((), {"a handover is unfinished": 1})


def test_a_slot_whose_claim_went_is_nobodys_to_run(host: Host) -> None:
    for days in (200, 150, 1):
        claim(host.claims, ago(days))
    host.claims.forget("job", [ago(150)])
    for slot in (ago(150), ago(160)):
        with pytest.raises(StateBroken, match="is not known any more"):
            claim(host.claims, slot, flow="two")
        assert host.claims.read("job", slot) is None
    # What is there says more than the mark does; and later slots are free.
    assert host.claims.take("job", ago(200), run_id="x", flow_run_id="two", at=ago(0)).ours is False
    claim(host.claims, ago(149), flow="two")


def test_killed_before_it_looked_for_the_mark_a_flow_run_gets_the_slot_no_later_either(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(host.claims, ago(100))
    host.claims.forget("job", [ago(100)])
    with monkeypatch.context() as patched:
        patched.setattr(Claims, "_refuse_forgotten", lambda *_: None)  # it does not come so far
        claim(host.claims, ago(100), flow="two")
    for flow in ("two", "three"):
        with pytest.raises(StateBroken):
            claim(host.claims, ago(100), flow=flow)


def test_marks_never_go_back(host: Host) -> None:
    host.claims.forget("job", [ago(100)])
    host.claims.forget("job", [ago(200)])
    with pytest.raises(StateBroken):
        claim(host.claims, ago(150))
    host.claims.forget("job", [ago(50)])
    host.claims.forget("job", [])
    assert [path.name for path in (host.state / "slots" / "job.forgotten").iterdir()] == [slot_name(ago(50))]


def test_a_restore_of_older_claims_keeps_the_mark(host: Host, tmp_path: Path) -> None:
    claim(host.claims, ago(200))
    claim(host.claims, ago(100))
    archive = tmp_path / "archive"
    (archive / "slots" / "job").mkdir(parents=True)
    host.claims.forget("job", [ago(150)])
    Place(host.state, tmp_path, tmp_path)._keep_claims(archive / "slots")
    with pytest.raises(StateBroken):
        claim(Claims(archive), ago(160))


@pytest.mark.parametrize("name", ["x", "20251301T000000Z"])
def test_what_is_no_mark_lets_nothing_run(host: Host, name: str) -> None:
    folder = host.state / "slots" / "job.forgotten"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    host.state.chmod(0o700)
    (folder / name).write_text("{}")
    with pytest.raises(StateBroken):
        claim(host.claims, ago(1))


def test_a_run_for_a_slot_whose_claim_went_runs_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.run(desk.job()).status == "success"
    Claims(desk.state).forget("job", [SLOT])
    desk.clock.at = SLOT + timedelta(days=30)
    with pytest.raises(StateBroken):
        # As if somebody had made the window longer than the age of the claims.
        desk.run(desk.job(catchup="all", catchup_window="40d"), "two")
    assert desk.ran() == 1
    assert desk.run(desk.job(), "three").status == "skipped"


def test_taken_while_claims_go_no_slot_is_taken_twice(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the two meet: a claim is taken between any two steps of forgetting it, by many flow runs."""
    slots = [ago(100) + timedelta(minutes=number) for number in range(40)]
    for slot in slots:
        claim(host.claims, slot)
    taken: list[datetime] = []
    stop = threading.Event()

    def take(number: int) -> None:
        while not stop.is_set():
            for slot in slots:
                try:
                    found = Claims(host.state).take("job", slot, run_id="x", flow_run_id=f"late-{number}", at=ago(0))
                except StateBroken:
                    continue
                if found.ours:
                    taken.append(slot)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, len(slots) + 1):
        host.claims.forget("job", slots[:number])
    stop.set()
    for thread in threads:
        thread.join()
    assert taken == []


def test_the_order_that_this_rests_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """No claim goes before its mark is on the disk, and no mark before a later one is."""
    claim(host.claims, ago(100))
    host.claims.forget("job", [ago(200)])
    gone: list[Path] = []

    def create(path: Path, *words: Any, **more: Any) -> bool:
        made = create_exclusive(path, *words, **more)
        gone.append(path / "made")
        return made

    monkeypatch.setattr(Path, "unlink", spied(Path.unlink, gone))
    monkeypatch.setattr("orchctl.adapters.files.create_exclusive", create)
    host.claims.forget("job", [ago(100)])
    slots, marks = host.state / "slots" / "job", host.state / "slots" / "job.forgotten"
    made, claimed = marks / slot_name(ago(100)) / "made", slots / f"{slot_name(ago(100))}.json"
    assert [path for path in gone if not path.name.startswith(".")] == [made, marks / slot_name(ago(200)), claimed]


# --- what stands in the way


def test_where_claims_of_one_job_cannot_be_looked_at_the_rest_goes(host: Host) -> None:
    for job in ("gone", "job", "other"):
        claim(host.claims, ago(500), job=job)
        claim(host.claims, ago(400), job=job)
    ended(host, "cutover", 300)
    ended(host, "cutover", 200)
    shutil.rmtree(host.state / "slots" / "gone")
    (host.state / "slots" / "gone").write_text("no folder")
    for act in (prune.look, prune.prune):
        found = act(host.world(), seconds({"state": 90}))
        assert counts(found) == {("state", "job"): 2, ("state", "other"): 1}
        assert [(each.job, type(each.error)) for each in found.problems] == [("gone", StateBroken)]


def test_where_journals_cannot_be_looked_at_claims_go(host: Host) -> None:
    for days in (200, 1):
        claim(host.claims, ago(days))
    ended(host, "cutover", 300)
    (host.state / "handovers" / "last" / "job").write_text("{")
    found = prune.prune(host.world(), seconds({"state": 90}))
    assert (counts(found), [each.job for each in found.problems]) == ({("state", "job"): 1}, [None])


def test_while_another_holds_the_lock_of_the_host_only_the_state_stays(host: Host) -> None:
    for days in (200, 1):
        claim(host.claims, ago(days))
        host.ran(ago(days))
    world = host.world(exclusive=lambda command: host_lock.held(host.state, command))
    with host_lock.held(host.state, "host backup"):
        found = prune.prune(world, seconds({"state": 90, "manifests": 90}))
        with pytest.raises(Locked):
            prune.prune(world, seconds({"state": 90}))
    assert [row.kind for row in found.rows] == ["manifests"]
    assert [(each.kind, type(each.error)) for each in found.problems] == [("state", Locked)]
    assert counts(prune.prune(world, seconds({"state": 90}))) == {("state", "job"): 1}


def test_a_prune_holds_the_lock_of_the_host_for_the_state_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        try:
            with host_lock.held(host.state, "host backup"):
                seen.append((what, False))
        except Locked:
            seen.append((what, True))

    def old(claims: Claims, *words: Any) -> Any:
        note("state")
        return looked(claims, *words)

    def before(folders: RunFolders, *words: Any, **more: Any) -> Any:
        note("folders")
        return listed(folders, *words, **more)

    looked, listed = Claims.old, RunFolders.before
    monkeypatch.setattr(Claims, "old", old)
    monkeypatch.setattr(RunFolders, "before", before)
    claim(host.claims, ago(200))
    world = host.world(exclusive=lambda command: host_lock.held(host.state, command))
    prune.look(world, seconds({"state": 90}))
    prune.prune(world, seconds({"state": 90, "manifests": 90}))
    assert seen == [("state", False), ("state", True), ("folders", False), ("folders", False)]


def test_while_a_restore_is_unfinished_nothing_of_the_state_goes(host: Host) -> None:
    for days in (200, 1):
        claim(host.claims, ago(days))
        host.ran(ago(days))
    world = host.world(unfinished_restore=lambda: "/an/archive")
    for act in (prune.look, prune.prune):
        found = act(world, seconds({"state": 90, "manifests": 90}))
        assert [row.kind for row in found.rows] == ["manifests"]
        assert [(each.kind, type(each.error)) for each in found.problems] == [("state", GateRefused)]
    assert host.claims.read("job", ago(200)) is not None


# --- journals


def opened(kind: Kind, days: float, *, job: str = "job", of: str | None = None) -> Opened:
    at = ago(days)
    return Opened(run_id(at, job), kind, job, at, "orchctl", Snapshot(), of=of)


def ended(host: Host, kind: Kind, days: float, **fields: str) -> str:
    made = opened(kind, days, **fields)
    host.handovers.begin(made)
    host.handovers.end(made, "done", made.at)
    return made.id


def journals(host: Host) -> list[str]:
    return sorted(path.stem for path in (host.state / "handovers").glob("*.jsonl"))


def test_journals_that_ended_go_but_for_the_last_of_each_job(host: Host) -> None:
    ended(host, "cutover", 300)
    ended(host, "rollback", 200)
    last = [ended(host, "cutover", 150), ended(host, "cutover", 250, job="other")]
    assert host.look(state=90) == {("state", "job"): 2}
    assert host.prune(state=90) == {("state", "job"): 2}
    assert journals(host) == sorted(last)
    assert host.handovers.last_of("job") is not None


def test_the_journals_that_a_rollback_reads_stay(host: Host) -> None:
    """That of the cutover which the owner file names, and that whose snapshot the last rollback puts back."""
    named, of = ended(host, "cutover", 300), ended(host, "cutover", 290)
    ended(host, "cutover", 280)
    last = ended(host, "rollback", 200, of=of)
    host.owners.create("job", Owner(ago(300), False, handover=named), still=lambda: True)
    host.prune(state=90)
    assert journals(host) == sorted([named, of, last])


def test_where_the_owner_cannot_be_read_all_stay(host: Host) -> None:
    ids = [ended(host, "cutover", days) for days in (300, 200, 100)]
    host.owners.create("job", Owner(ago(300), False), still=lambda: True)
    host.owners.path("job").write_text("{")
    assert host.prune(state=90) == {}
    assert journals(host) == sorted(ids)


def test_a_journal_that_has_not_ended_or_cannot_be_read_stays(host: Host) -> None:
    torn = ended(host, "cutover", 300, job="other")
    ended(host, "cutover", 200, job="other")
    (host.state / "handovers" / f"{torn}.jsonl").write_text("{")
    host.handovers.begin(opened("cutover", 250))
    assert host.prune(state=90) == {}
    assert len(journals(host)) == 3
