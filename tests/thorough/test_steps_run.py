"""A run of steps: what runs when, what a failure means for the others, and what is on disk afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from dag import StepsDesk, chain
from desk import LEGACY, SLOT
from orchctl.adapters import host_facts
from orchctl.core.contracts import ContractTable
from orchctl.core.manifest import Identity, started
from orchctl.core.names import format_instant
from orchctl.core.slots import Owner
from orchctl.errors import OrchctlError
from orchctl.runner import step
from orchctl.runner.shapes import Outcome
from orchctl.runner.step_work import Work


@pytest.fixture
def desk(tmp_path: Path) -> StepsDesk:
    return StepsDesk(tmp_path)


def test_a_run_of_steps_leaves_its_record(desk: StepsDesk) -> None:
    desk.lines["b"] = "echo made > $ORCHCTL_DATA_ROOT/made; echo said"
    job = desk.steps_job(desk.step("a"), desk.step("b", "a", outputs=("{data_root}/made",)))
    outcome = desk.go(job)
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("success", None, None)
    assert desk.happened() == [("start", "a"), ("end", "a"), ("start", "b"), ("end", "b")]
    manifest = desk.manifest()
    assert (manifest["status"], manifest["execution"], manifest["step"]) == ("success", "steps", None)
    assert desk.statuses() == {"a": "success", "b": "success"}
    of_b = desk.step_manifest("b")
    assert (of_b["asset"], of_b["step"], of_b["job"], of_b["status"]) == ("b", "b", "job", "success")
    assert of_b["partition"] == manifest["partition"]
    assert of_b["outputs"][0]["file_count"] == 1
    assert (of_b["exit_code"], of_b["error"], of_b["publish"]) == (0, None, None)
    assert (desk.step_folder("b") / "attempt-1.log").read_text() == "said\n"
    assert desk.told_of("b") == ["step_started", "step_finished"]
    assert [one["event"] for one in desk.all_events() if one.get("step") is None] == ["run_started", "run_finished"]


def test_a_retry_that_may_not_run_still_names_the_steps_of_the_attempt_before(desk: StepsDesk) -> None:
    desk.lines["b"] = "exit 3"
    desk.owner = Owner(SLOT - timedelta(days=1), draining=False)
    job = desk.steps_job(desk.step("a"), desk.step("b", "a"), legacy=LEGACY)
    desk.go(job)
    before = desk.manifest()["steps"]
    desk.owner = None
    outcome = desk.go(job, attempt=2)
    assert (outcome.status, outcome.reason) == ("failed", "not tried again: legacy owns the job")
    assert [step["name"] for step in before] == ["a", "b"]
    assert desk.manifest()["steps"] == before


def test_steps_are_no_runs(desk: StepsDesk) -> None:
    outcome = desk.go(desk.steps_job(*chain(desk, ["a", "b"])))
    days = {path.stem for path in desk.data.glob("manifests/events/*")}
    runs = [run for day in days for run in desk.tree.events(date.fromisoformat(day), skipped=[])]
    assert {run.asset for run in runs} == {"job"}
    for path in desk.data.glob("manifests/events/*"):
        path.unlink()
    found = desk.tree.find(outcome.run_id, skipped=[])
    assert found is not None
    assert found.asset == "job"


def test_siblings_run_side_by_side_up_to_the_limit(desk: StepsDesk) -> None:
    names = [f"s{number}" for number in range(6)]
    for name in names:
        # Each waits until as many have begun as may go side by side: fewer, and it fails.
        desk.lines[name] = (
            f"for i in $(seq 300); do [ $(grep -c start {desk.steps_log}) -ge 3 ] && exit 0; sleep 0.02; done; exit 1"
        )
    job = desk.steps_job(*(desk.step(name) for name in names), parallel_steps=3)
    assert desk.go(job).status == "success"
    going = most = 0
    for what, _ in desk.happened():
        going += 1 if what == "start" else -1
        most = max(most, going)
    assert most <= 3


def test_a_failed_step_skips_its_descendants_and_nothing_else(desk: StepsDesk) -> None:
    desk.lines["bad"] = "echo no such thing; exit 3"
    job = desk.steps_job(
        desk.step("first"),
        desk.step("bad", "first"),
        desk.step("sibling", "first"),
        desk.step("child", "bad"),
        desk.step("grandchild", "child", "sibling"),
        desk.step("apart", "sibling"),
    )
    outcome = desk.go(job)
    assert (outcome.status, outcome.exit_code) == ("failed", 3)
    assert outcome.reason == "step bad failed: exit code 3"
    assert outcome.tail == "no such thing"
    skipped = "upstream failed: bad"
    assert desk.statuses() == {
        "first": "success", "bad": "failed", "sibling": "success", "child": "skipped", "grandchild": "skipped",
        "apart": "success",
    }  # fmt: skip
    assert desk.reasons()["child"] == desk.reasons()["grandchild"] == skipped
    assert (desk.step_manifest("child")["status"], desk.step_manifest("child")["reason"]) == ("skipped", skipped)
    assert set(desk.began()) == {"first", "bad", "sibling", "apart"}
    error = desk.manifest()["error"]
    assert (error["type"], error["class"]) == ("StepFailed", "other")


def test_an_optional_step_only_warns(desk: StepsDesk) -> None:
    desk.lines["sim"] = "exit 9"
    job = desk.steps_job(desk.step("sim", optional=True), desk.step("after", "sim"))
    outcome = desk.go(job)
    assert (outcome.status, outcome.reason) == ("success", "sim failed and is optional (exit code 9)")
    assert desk.statuses() == {"sim": "warned", "after": "success"}
    assert desk.step_manifest("sim")["status"] == "failed"


RETRIED = [
    ("echo 'Temporary failure in name resolution'; exit 1", {}, "network", 3),
    ("exit 75", {}, "network", 3),
    ("exit 1", {}, "other", 3),
    ("sleep 5", {"timeout": "1s"}, "timeout", 2),
    ("echo 'mkdir: Permission denied'; exit 1", {}, "permission", 1),
    ("exit 77", {}, "permission", 1),
    ("exit 65", {}, "contract", 1),
    ("echo 'schema mismatch'; exit 1", {"permanent": ("schema mis",)}, "other", 1),
]


@pytest.mark.parametrize(("line", "fields", "kind", "tries"), RETRIED)
def test_the_class_of_an_error_decides_about_retries(
    desk: StepsDesk, line: str, fields: dict[str, Any], kind: str, tries: int
) -> None:
    desk.lines["a"] = line
    retries = 1 if kind == "timeout" else 2
    assert desk.go(desk.steps_job(desk.step("a", retries=retries, **fields))).status == "failed"
    manifest = desk.step_manifest("a")
    assert (manifest["error"]["class"], manifest["attempt"], len(manifest["attempts"])) == (kind, tries, tries)
    assert desk.told_of("a").count("step_retry") == tries - 1
    assert len(list(desk.step_folder("a").glob("attempt-*.log"))) == tries


def test_a_retry_tells_its_wait_and_mends(desk: StepsDesk) -> None:
    desk.lines["a"] = f"test -e {desk.root}/again || (touch {desk.root}/again; exit 4)"
    delay = {"first": "1s", "factor": 3.0, "most": "2s", "jitter": 0.5}
    desk.changes["chance"] = lambda: 0.1
    outcome = desk.go(desk.steps_job(desk.step("a", retries=3, retry_delay=delay)))
    assert (outcome.status, desk.statuses(), desk.manifest()["steps"][0]["attempts"]) == (
        "success",
        {"a": "success"},
        2,
    )
    (retry,) = [one for one in desk.all_events() if one["event"] == "step_retry"]
    assert (retry["reason"], retry["error_class"], retry["delay_s"], retry["attempt"]) == (
        "exit code 4",
        "other",
        1.05,
        1,
    )
    assert "tried again in 1.05 s (other: exit code 4)" in desk.log


def test_the_environment_and_words_of_a_step(desk: StepsDesk) -> None:
    desk.lines["a"] = "env | grep -e ORCHCTL_ -e MINE -e JOBS"
    partition = {"season": {"format": "%Y", "shift_months": -9}, "draft_group": {"default": "0"}}
    job = desk.steps_job(
        desk.step("a", env={"MINE": "{step} {season}", "JOBS": "step"}),
        env={"JOBS": "job", "JOBS_TOO": "{draft_group}"},
        partition=partition,
    )
    assert desk.go(job, partition={"draft_group": "77"}).status == "success"
    said = dict(line.split("=", 1) for line in (desk.step_folder("a") / "attempt-1.log").read_text().splitlines())
    assert said["MINE"] == "a 2025"
    assert (said["JOBS"], said["JOBS_TOO"]) == ("step", "77")
    assert (said["ORCHCTL_STEP"], said["ORCHCTL_SEASON"], said["ORCHCTL_DRAFT_GROUP"]) == ("a", "2025", "77")
    assert said["ORCHCTL_RUN_DIR"] == str(desk.step_folder("a"))
    keys = {"season": "2025", "draft_group": "77"}
    assert keys.items() <= desk.step_manifest("a")["partition"].items()
    assert keys.items() <= desk.manifest()["partition"].items()


REFUSED = [
    ({"partition": {"no": "1"}}, "job has no partition key 'no'; its keys: group"),
    ({"partition": {}}, "the partition key group of job has no rule and no default, and was not given"),
    ({"partition": {"group": "a/b"}}, "the partition key group is 'a/b', which does not match"),
    ({"partition": {"group": "1"}, "steps": ("nope",)}, "job has no step nope"),
    ({"partition": {"group": "1"}, "from_step": "nope"}, "job has no step nope"),
]


@pytest.mark.parametrize(("asked", "reason"), REFUSED)
def test_what_cannot_be_run_is_recorded_and_runs_nothing(desk: StepsDesk, asked: dict[str, Any], reason: str) -> None:
    outcome = desk.go(desk.steps_job(desk.step("a"), partition={"group": {}}), **asked)
    assert outcome.status == "failed"
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)
    assert desk.manifest()["status"] == "failed"
    assert desk.ran() == 0


def test_a_job_can_be_run_either_way(desk: StepsDesk) -> None:
    job = desk.steps_job(desk.step("a"))
    assert desk.go(job, "command", execution="command").status == "success"
    assert (desk.ran(), desk.manifest("command")["execution"]) == (0, "command")
    assert (desk.root / "ran").exists()
    assert (
        desk.go(job.model_copy(update={"execution": "command"}), "steps", execution="steps", slot=None).status
        == "success"
    )
    assert (desk.ran(), desk.manifest("steps")["execution"]) == (1, "steps")


def test_only_the_steps_that_were_asked_for_run(desk: StepsDesk) -> None:
    job = desk.steps_job(*chain(desk, ["a", "b", "c", "d"]))
    assert desk.go(job, steps=("b", "d")).status == "success"
    assert (desk.began(), desk.statuses()) == (["b", "d"], {"b": "success", "d": "success"})


def test_observing_says_what_would_have_run(desk: StepsDesk) -> None:
    outcome = desk.go(desk.steps_job(*chain(desk, ["a", "b"]), legacy=LEGACY))
    assert (outcome.status, desk.ran()) == ("observed", 0)
    assert outcome.tail == f"would have run 2 steps (a, b) in {desk.root}"


def test_a_backfill_takes_its_own_lock_and_no_claim(desk: StepsDesk) -> None:
    desk.lines["a"] = f"ls {desk.state}/locks"
    job = desk.steps_job(desk.step("a"), legacy=LEGACY)
    held = desk.host(job).locks.try_take("job", run_id="20251219T000000Z-aaaaaa", pid=os.getpid())
    outcome = desk.go(job, slot=None, trigger="backfill", backfill="b1", as_of_mode="lock")
    held.release()
    assert outcome.status == "success"
    assert "job@2025-12-19.lock" in (desk.step_folder("a") / "attempt-1.log").read_text()
    assert not (desk.state / "slots").exists()
    manifest = desk.manifest()
    assert (manifest["trigger"], manifest["backfill"], manifest["as_of_mode"]) == ("backfill", "b1", "lock")


LIVE = "20251219T000000Z-aaaaaa"


def a_live_run(desk: StepsDesk, *, alive: bool = True, day: str = "2025-12-19", **keys: str) -> None:
    """Let a live run hold the job's lock and make a partition."""
    here = host_facts.here()
    place = here if alive else replace(here, pid_started=here.pid_started + 1)
    who = Identity("job", "job", LIVE, date.fromisoformat(day), SLOT, SLOT, "schedule", "live", 1, keys=keys)
    desk.tree.write(started(who, place, {}, at=SLOT))
    assert desk.host(desk.steps_job(desk.step("a"))).locks.try_take("job", run_id=LIVE, pid=os.getpid())


@pytest.mark.parametrize(
    ("live", "waits"),
    [
        ({}, True),
        ({"alive": False}, False),
        ({"day": "2025-12-18"}, False),
        ({"group": "all"}, True),
        ({"group": "late"}, False),
    ],
    ids=str,
)
def test_a_backfill_waits_for_a_live_run_of_its_partition(desk: StepsDesk, live: dict[str, Any], waits: bool) -> None:
    a_live_run(desk, **live)
    ended_at: list[int] = []

    def sleep(_seconds: float) -> None:
        ended_at.append(desk.ran())
        path = desk.tree.run_directory("job", date(2025, 12, 19), LIVE) / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": "success"}))

    desk.changes["sleep"] = sleep
    job = desk.steps_job(desk.step("a"), partition={"group": {"default": "all"}})
    outcome = desk.go(job, slot=None, trigger="backfill", backfill="b1")
    assert (outcome.status, ended_at) == ("success", [0] if waits else [])
    assert (f"waiting for run {LIVE}, which makes the same partition" in desk.log) is waits


def test_a_live_run_of_its_partition_that_goes_on_holds_a_backfill_back(desk: StepsDesk) -> None:
    a_live_run(desk)
    outcome = desk.go(desk.steps_job(desk.step("a"), timeout="1s"), slot=None, trigger="backfill", backfill="b1")
    assert (outcome.status, outcome.reason, desk.ran()) == ("skipped", f"run {LIVE} makes the same partition", 0)


def test_a_live_run_waits_for_no_backfill_of_its_partition(desk: StepsDesk) -> None:
    assert desk.host(desk.steps_job(desk.step("a"))).locks.try_take("job@2025-12-19", run_id=LIVE, pid=os.getpid())
    assert desk.go(desk.steps_job(desk.step("a"))).status == "success"
    assert not desk.clock.slept


def test_the_runs_time_out_bounds_the_whole(desk: StepsDesk) -> None:
    desk.lines |= {"slow": "sleep 30", "waits": "exit 1"}
    job = desk.steps_job(
        desk.step("slow"),
        desk.step("waits", retries=1, retry_delay="30s"),
        desk.step("after", "slow"),
        desk.step("late", "waits"),
        timeout="2s",
    )
    began = time.monotonic()
    outcome = desk.go(job)
    assert time.monotonic() - began < 20
    assert (outcome.status, outcome.reason) == ("failed", "stopped after its time-out of 2.0s")
    assert desk.statuses() == {"slow": "failed", "waits": "failed", "after": "cancelled", "late": "cancelled"}
    assert desk.reasons()["waits"] == "exit code 1; not tried again: the run's time-out of 2.0s is over"
    assert desk.step_manifest("slow")["error"]["type"] == "TimedOut"


def step_threads() -> list[str]:
    """Return the names of the threads of steps that do not end by themselves: one that has told its end is about to."""
    found = [thread for thread in threading.enumerate() if thread.name.startswith("step ")]
    for thread in found:
        thread.join(10)
    return [thread.name for thread in found if thread.is_alive()]


class Terminated(BaseException):
    """What Prefect's handler of SIGTERM raises."""


def interrupted(desk: StepsDesk, job: Any, *, when: Path) -> None:
    """Run a job, and raise in its main thread, by a signal, once the file is there."""

    def handler(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGUSR1, handler)

    def soon() -> None:
        while not when.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=soon)
    thread.start()
    try:
        with pytest.raises(Terminated):
            desk.go(job)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_cancel_stops_all_and_records_all(desk: StepsDesk) -> None:
    desk.lines |= {
        "one": f"(trap '' TERM; sleep 77.5) & while ! grep -q two {desk.steps_log}; do sleep 0.02; done; "
        f"touch {desk.root}/both; sleep 77.5",
        "two": "sleep 77.5",
        "waits": "exit 1",
    }
    job = desk.steps_job(
        desk.step("done"),
        desk.step("one", "done"),
        desk.step("two", "done"),
        desk.step("waits", retries=1, retry_delay="60s"),
        desk.step("after", "one"),
    )
    interrupted(desk, job, when=desk.root / "both")
    manifest = desk.manifest()
    assert (manifest["status"], manifest["reason"]) == ("cancelled", "interrupted by Terminated")
    assert desk.statuses() == {
        "done": "success", "one": "cancelled", "two": "cancelled", "waits": "failed", "after": "cancelled",
    }  # fmt: skip
    assert {desk.step_manifest(name)["status"] for name in ("one", "two", "after")} == {"cancelled"}
    assert "77.5" not in subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert not step_threads()


@pytest.mark.parametrize("after_ms", range(0, 600, 40))
def test_a_signal_at_any_moment_leaves_nothing_running(desk: StepsDesk, after_ms: int) -> None:
    names = [f"s{number}" for number in range(8)]
    desk.lines = dict.fromkeys(names, "sleep 0.05")
    desk.lines["s3"] = "exit 1"
    steps = [
        desk.step(name, *names[max(0, number - 2) : max(0, number - 1)], retries=1) for number, name in enumerate(names)
    ]
    job = desk.steps_job(*steps, parallel_steps=2)

    def handler(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001 + after_ms / 1000)
        try:
            desk.go(job)
        except Terminated:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    manifests = [json.loads(path.read_text()) for path in desk.data.glob("manifests/*/game_date=*/run=*/manifest.json")]
    assert "running" not in {manifest["status"] for manifest in manifests}
    of_run = [manifest for manifest in manifests if manifest["step"] is None]
    if of_run:
        assert "waiting" not in {row["status"] for row in of_run[0].get("steps", [])}
        # What the run says of its steps is what they say themselves.
        own = {manifest["step"]: manifest["status"] for manifest in manifests}
        assert all(own[row["name"]] == row["status"] for row in of_run[0]["steps"])
    assert not step_threads()


class FullDisk:
    """A tree that takes no more after its n-th write."""

    def __init__(self, tree: Any, writes: int) -> None:
        self._tree, self.left = tree, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OrchctlError("No space left on device")

    def write(self, manifest: Any) -> Path:
        self._count()
        path: Path = self._tree.write(manifest)
        return path

    def append(self, event: Any) -> None:
        self._count()
        self._tree.append(event)


@pytest.mark.parametrize("writes", range(2, 13))
def test_a_full_disk_hides_no_outcome(desk: StepsDesk, writes: int) -> None:
    desk.lines["b"] = "exit 5"
    tree = FullDisk(desk.tree, writes)
    desk.changes["manifests"] = lambda _root: tree
    outcome: Outcome = desk.go(desk.steps_job(*chain(desk, ["a", "b"])))
    all_of_it = 2 + 4 + 4 + 2
    assert outcome.status == "failed"
    assert (outcome.unrecorded is None) == (writes >= all_of_it)
    if outcome.unrecorded is None or "a" in desk.began():
        assert desk.began() == ["a", "b"] if writes >= 8 else True


def test_a_start_that_cannot_be_recorded_runs_nothing(desk: StepsDesk) -> None:
    tree = FullDisk(desk.tree, 0)
    desk.changes["manifests"] = lambda _root: tree
    with pytest.raises(OrchctlError, match="No space"):
        desk.go(desk.steps_job(desk.step("a")))
    assert desk.ran() == 0


def test_secrets_of_a_step_stay_out_of_everything(desk: StepsDesk) -> None:
    desk.lines["a"] = "echo the word is $A_PASSWORD; exit 1"
    desk.go(desk.steps_job(desk.step("a", env={"A_PASSWORD": "hunter-two"})))
    left = "".join(path.read_text() for path in desk.data.rglob("*") if path.is_file()) + "".join(desk.log)
    assert "the word is ***" in left
    assert "hunter-two" not in left


def test_a_step_that_cannot_be_started_fails_by_itself(desk: StepsDesk) -> None:
    job = desk.steps_job(desk.step("a", command=("no-such-program",)), desk.step("b"))
    outcome = desk.go(job)
    assert (outcome.status, desk.statuses()) == ("failed", {"a": "failed", "b": "success"})
    assert desk.step_manifest("a")["error"]["type"] == "NotStarted"


def test_a_step_of_a_slot_of_prefect_holds_the_jobs_lock(desk: StepsDesk) -> None:
    desk.owner = Owner(desk.clock.at.replace(year=2024), draining=False)
    desk.lines["a"] = "sleep 78.5 & echo"
    job = desk.steps_job(desk.step("a"), legacy=LEGACY)
    assert desk.go(job).status == "success"
    assert desk.manifest()["slot"] == format_instant(desk.clock.at.replace(second=0))
    claims = [json.loads(path.read_text()) for path in (desk.state / "slots").rglob("*.json")]
    assert len(claims) == 1


def test_a_name_that_no_text_can_hold_fails_the_step_and_the_run_ends(desk: StepsDesk) -> None:
    desk.lines["a"] = (
        "touch \"$ORCHCTL_STAGING/$(printf 'Jos\\351.csv')\"; ln -s x \"$ORCHCTL_STAGING/$(printf 'x\\351')\""
    )
    job = desk.steps_job(desk.step("a", publish={"to": "{data_root}/gold/{game_date}/run={run_id}"}))
    outcome = desk.go(job)
    assert outcome.status == "failed"
    assert desk.step_manifest("a")["status"] == "failed"


def test_what_cannot_even_be_recorded_ends_the_step_all_the_same(
    desk: StepsDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.steps_job(desk.step("a"), desk.step("b"))

    def broken(self: Work) -> None:
        raise RuntimeError("not foreseen")

    def broken_end(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nor this")

    with monkeypatch.context() as patch:
        patch.setattr(Work, "do", broken)
        patch.setattr(step, "as_broken", broken_end)
        outcome = desk.go(job)
    assert outcome.status == "failed"
    assert set(desk.statuses().values()) == {"failed"}
    assert "RuntimeError: nor this" in (desk.reasons()["a"] or "")


def test_a_command_is_not_run_where_steps_were_asked_for(desk: StepsDesk) -> None:
    job = desk.steps_job(desk.step("a"))
    outcome = desk.go(job, execution="command", steps=("a",))
    assert (outcome.status, (desk.root / "ran").exists()) == ("failed", False)
    assert "some of its steps were asked for" in (outcome.reason or "")


def test_secrets_in_the_data_are_masked_in_what_contracts_find(desk: StepsDesk) -> None:
    desk.contracts["c"] = ContractTable.model_validate({"columns": {"x": {"dtype": "string", "allowed": ["a"]}}})
    desk.lines["a"] = "printf 'x\\nhunter2hunter2\\n' > $ORCHCTL_STAGING/t.csv"
    job = desk.steps_job(
        desk.step("a", contracts=({"contract": "c", "file": "*.csv"},)), env={"API_TOKEN": "hunter2hunter2"}
    )
    assert desk.go(job).status == "failed"
    told = json.dumps([desk.step_manifest("a"), desk.manifest(), desk.all_events(), desk.log])
    assert "contract broken: c" in told
    assert "hunter2" not in told
