"""Looks at the legacy history: exactly once, whatever is killed or lost; and what a run in observe mode says."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from desk import LEGACY, SLOT, Desk
from orchctl.adapters.journald import Read
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.observed import Observed
from orchctl.core.catalog import CronTrigger, TimerTrigger
from orchctl.core.journal import Entry, Written
from orchctl.core.legacy import SYSTEM, Manager, Monotonic, Service, Timer, Units
from orchctl.core.manifest import fold
from orchctl.core.observed import covered, from_json, merged, to_json, with_span
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable
from orchctl.services import observe, timers
from orchctl.services.observe import Brought, Eyes

USER = Manager("user", "daniel")
BOOT = "0" * 32
BOTH = (*LEGACY, TimerTrigger(timer="old.timer", scope="user", user="daniel"))


def unit(cls: type[Any], **fields: Any) -> Any:
    empty = dict.fromkeys(cls.__dataclass_fields__)
    plain = {
        "load": "loaded",
        "active": "inactive",
        "sub": "",
        "on_failure": (),
        "requires": (),
        "environment": {},
        "environment_files": (),
    }
    return cls(**{**empty, **{key: value for key, value in plain.items() if key in empty}, **fields})


def timer(manager: Manager = SYSTEM, **fields: Any) -> Timer:
    given = {
        "calendars": ("*-*-* *:0/5:00",),
        "monotonic": (),
        "accuracy_s": 1.0,
        "random_delay_s": 30.0,
        "random_offset_s": 0.0,
    }
    given |= {"name": "old.timer", "manager": manager, "unit": "old.service", "active": "active", **fields}
    return unit(Timer, **given)  # type: ignore[no-any-return]


def service(manager: Manager = SYSTEM, **fields: Any) -> Service:
    given = {"name": "old.service", "manager": manager, "success_statuses": "", **fields}
    return unit(Service, **given)  # type: ignore[no-any-return]


def said(kind: str, at: datetime, invocation: str, manager: Manager = SYSTEM, **more: Any) -> Entry:
    text = more.pop("message", {"starting": "Starting x", "started": "Finished x"}.get(kind, "x"))
    cursor = f"{at.timestamp():020.6f}-{manager.scope}-{kind}"
    return Entry(cursor, at, more.pop("boot", BOOT), manager, "old.service", invocation, kind, text, **more)


def run_of(start: datetime, invocation: str, manager: Manager = SYSTEM, *, took: float = 2.0) -> list[Entry]:
    end = start + timedelta(seconds=took)
    return [said("starting", start, invocation, manager), said("started", end, invocation, manager)]


def failing(start: datetime, invocation: str) -> list[Entry]:
    end = start + timedelta(seconds=2)
    last = said("failed", end, invocation, result="exit-code")
    return [
        said("starting", start, invocation),
        said("exit", end, invocation, command="ExecStart", code="exited", status=3),
        last,
    ]


@dataclass
class Paper:
    """A journal that holds what was logged up to now, from `begins` on, and gives `limit` entries a reading."""

    now: Callable[[], datetime]
    written: list[Entry] = field(default_factory=list)
    begins: datetime = SLOT - timedelta(days=3)
    limit: int = 1000
    outputs: dict[str, list[bytes]] = field(default_factory=dict)
    error: OrchctlError | None = None
    readings: int = 0

    def entries(
        self,
        units: Mapping[Manager, Collection[str]],
        *,
        cursor: str | None = None,
        since: datetime | None = None,
    ) -> Read:
        if self.error is not None:
            raise self.error
        self.readings += 1
        there = [one for one in self.written if self.begins <= one.at <= self.now() and one.manager in units]
        there.sort(key=lambda one: (one.at, one.cursor))
        found = [one for one in there if (cursor is None or one.cursor > cursor) and (since is None or one.at >= since)]
        return Read(tuple(found[: self.limit]), more=len(found) > self.limit)

    def first(self, manager: Manager) -> datetime | None:
        return self.begins

    def output(self, written: Written, *, last: int | None = None) -> Iterator[bytes]:
        yield from self.outputs.get(written.invocation, [])


class Told:
    """A systemd that shows these units; `error` instead, where there is one."""

    def __init__(self, *units: Timer | Service) -> None:
        self.units = units
        self.error: OrchctlError | None = None

    def read(
        self, manager: Manager, names: Collection[str] = (), *, everything: bool = False, handlers: bool = True
    ) -> Units:
        if self.error is not None:
            raise self.error
        mine = [one for one in self.units if one.manager == manager]
        timers = {one.name: one for one in mine if isinstance(one, Timer)}
        return Units(manager, timers, {one.name: one for one in mine if isinstance(one, Service)})


class Scene:
    """A desk with a journal and a systemd in front of it."""

    def __init__(self, root: Path) -> None:
        self.desk = Desk(root)
        self.clock = self.desk.clock
        self.paper = Paper(self.clock.now)
        self.systemd = Told(timer(), service(), timer(USER), service(USER))
        self.job = self.desk.job(legacy=LEGACY, env={"DB_PASSWORD": "hunter2-of-the-job"})
        self.changes: dict[str, Any] = {}

    def eyes(self) -> Eyes:
        made = Eyes(
            systemd=self.systemd,
            journal=self.paper,
            looks=Observed(self.desk.state),
            tree=Manifests,
            host_zone="UTC",
            hostname="host",
            boot_id=BOOT,
            now=self.clock.now,
            elapsed=lambda: 0.0,
        )
        return replace(made, **self.changes)

    def look(self) -> Brought:
        return observe.bring_in(self.job, "America/New_York", self.eyes())

    def observe(self) -> str:
        self.desk.changes |= {"eyes": self.eyes()}
        outcome = self.desk.run(self.job)
        assert outcome.status == "observed"
        return outcome.reason or ""

    def told(self) -> dict[str, dict[str, Any]]:
        found = [json.loads(path.read_bytes()) for path in self.desk.data.glob("manifests/*/*/*/manifest.json")]
        legacy = [one for one in found if one["origin"] == "systemd"]
        assert len({one["environment"]["invocation_id"] for one in legacy}) == len(legacy)
        return {one["environment"]["invocation_id"]: one for one in legacy}

    def events(self) -> Counter[tuple[str, str]]:
        lines = [line for path in self.desk.data.glob("manifests/events/*") for line in path.read_text().splitlines()]
        return Counter((one["run_id"], one["event"]) for one in map(json.loads, lines) if one["origin"] == "systemd")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


# --- exactly once


def test_a_run_is_recorded_with_the_slot_it_served(scene: Scene) -> None:
    start = SLOT - timedelta(minutes=5) + timedelta(seconds=12.25)
    scene.paper.written = failing(start, "a")
    scene.paper.outputs["a"] = [b"connecting\n", b"password hunter2-of-the-job refused\n"]
    brought = scene.look()
    assert len(brought.new) == 1
    one = scene.told()["a"]
    assert (one["status"], one["exit_code"], one["slot"], one["trigger"]) == (
        "failed",
        3,
        "2025-12-19T04:55:00Z",
        "schedule",
    )
    assert one["partition"]["game_date"] == "2025-12-18"  # the slot's date in New York
    assert one["error"] == {
        "type": "NonZeroExit",
        "message": "exit code 3",
        "snippet": "connecting\npassword *** refused",
    }
    assert one["timing"]["duration_s"] == 2.0
    assert {name for _, name in scene.events()} == {"run_started", "run_finished"}


@pytest.mark.parametrize(
    ("seconds", "fields", "expected"),
    [
        (35.9, {}, ("schedule", "2025-12-19T04:55:00Z")),
        (36.1, {}, ("manual", None)),
        (36.1, {"monotonic": (Monotonic("OnBootSec", 60.0),)}, ("schedule", None)),
        (0.0, {}, ("schedule", "2025-12-19T04:55:00Z")),
        (-0.1, {}, ("manual", None)),
        (0.0, {"unit": "other.service"}, None),
    ],
)
def test_a_start_belongs_to_the_nearest_instant_within_the_tolerance(
    scene: Scene, seconds: float, fields: dict[str, Any], expected: tuple[str, str | None] | None
) -> None:
    scene.systemd = Told(timer(**fields), service())
    scene.paper.written = run_of(SLOT - timedelta(minutes=5) + timedelta(seconds=seconds), "a")
    scene.look()
    one = scene.told().get("a")
    if expected is None:
        # The entries are of another service than the timer's; this journal gives them all the same.
        assert one is not None
        assert one["trigger"] == "manual"
    else:
        assert one is not None
        assert (one["trigger"], one["slot"]) == expected


def test_what_counts_as_success_by_more_codes_than_0_has_no_exit_code(scene: Scene) -> None:
    scene.systemd = Told(timer(), service(success_statuses="3"))
    scene.paper.written = run_of(SLOT - timedelta(minutes=5), "a")
    scene.look()
    assert (scene.told()["a"]["status"], scene.told()["a"]["exit_code"]) == ("success", None)


def many(scene: Scene, count: int = 12) -> set[str]:
    """Write runs of both scopes, some failing, the last minutes before now."""
    scene.job = scene.desk.job(legacy=BOTH)
    for number in range(count):
        start = SLOT - timedelta(seconds=7 * (count - number))
        both = [SYSTEM, USER][number % 2]
        scene.paper.written += failing(start, f"r{number}") if number % 4 == 0 else run_of(start, f"r{number}", both)
    return {f"r{number}" for number in range(count)}


def whole(scene: Scene, expected: set[str]) -> None:
    assert set(scene.told()) == expected
    assert set(scene.events().values()) == {1}
    assert len(scene.events()) == 2 * len(expected)
    days = {path.stem for path in scene.desk.data.glob("manifests/events/*")}
    runs = [run for day in days for run in scene.desk.tree.events(datetime.fromisoformat(day).date(), skipped=[])]
    assert {run.status for run in fold(runs).values()} == {"success", "failed"}


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_looks_in_batches_of_any_size_find_each_run_once(scene: Scene, limit: int) -> None:
    expected = many(scene)
    scene.paper.limit = limit
    assert len(scene.look().new) == len(expected)
    whole(scene, expected)
    assert scene.look().new == ()
    scene.clock.at += timedelta(hours=1)
    assert scene.look().new == ()
    whole(scene, expected)


class Killed(BaseException):
    """What SIGKILL is to the code that it hits."""


class Dying:
    """Passes everything on, and dies at the `at`-th call that changes something, before it or right after it."""

    def __init__(self, inner: Any, count: list[int], at: int, *, after: bool) -> None:
        self._inner, self._count, self._at, self._after = inner, count, at, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in {"write", "append"}:
            return method

        def call(*arguments: Any) -> Any:
            self._count[0] += 1
            if self._count[0] == self._at and not self._after:
                raise Killed
            method(*arguments)
            if self._count[0] == self._at:
                raise Killed

        return call


@pytest.mark.parametrize("lost", [False, True], ids=["", "state lost"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 16))
def test_a_look_killed_anywhere_is_completed_by_the_next(scene: Scene, at: int, after: bool, lost: bool) -> None:
    expected = many(scene, 4)
    count = [0]
    dying: Callable[[Any], Any] = lambda inner: Dying(inner, count, at, after=after)  # noqa: E731
    scene.changes = {"tree": lambda root: dying(Manifests(root)), "looks": dying(Observed(scene.desk.state))}
    try:
        scene.look()
    except Killed:
        pass
    else:
        assert count[0] < at, "the look survived its kill"
    scene.changes = {}
    if lost:
        for path in scene.desk.state.glob("observed/*"):
            path.unlink()
    scene.look()
    whole(scene, expected)
    assert scene.look().new == ()


def test_a_changed_catalog_and_a_lost_state_make_no_second_manifest(scene: Scene) -> None:
    expected = many(scene)
    scene.look()
    for path in scene.desk.state.glob("observed/*.json"):
        path.unlink()
    scene.job = scene.desk.job(legacy=BOTH, game_date_offset_days=-3)
    assert scene.look().new == ()
    whole(scene, expected)


def test_a_run_whose_first_entry_was_lost_with_the_state_is_known_by_its_invocation(scene: Scene) -> None:
    start = SLOT - timedelta(minutes=1)
    began = [said("starting", start, "a"), said("started", start + timedelta(seconds=3), "a", message="Started x")]
    scene.paper.written = [*began, said("succeeded", start + timedelta(seconds=9), "a")]
    scene.look()
    for path in scene.desk.state.glob("observed/*.json"):
        path.unlink()
    scene.paper.begins = start + timedelta(seconds=1)
    assert scene.look().new == ()
    assert set(scene.events().values()) == {1}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"cursor": 3}'])
def test_a_state_that_cannot_be_believed_costs_a_look_and_nothing_else(scene: Scene, content: str) -> None:
    expected = many(scene)
    scene.look()
    path = scene.desk.state / "observed" / "job.json"
    path.write_text(content)
    assert scene.look().new == ()
    whole(scene, expected)
    assert from_json(json.loads(path.read_text())).cursor is not None


def test_a_run_that_goes_on_is_kept_and_brought_in_later(scene: Scene) -> None:
    start = SLOT - timedelta(minutes=5)
    scene.paper.written = run_of(start, "a", took=600)
    scene.systemd = Told(timer(), service(active="activating", invocation_id="a"))
    first = scene.look()
    assert (first.new, [run.invocation for run in first.going]) == ((), ["a"])
    scene.clock.at += timedelta(minutes=6)
    scene.paper.begins = scene.clock.at - timedelta(minutes=2)  # its start is gone
    assert len(scene.look().new) == 1
    assert scene.told()["a"]["timing"]["duration_s"] == 600.0


@pytest.mark.parametrize(("boot", "status"), [("1" * 32, "crashed"), (BOOT, "success")])
def test_a_run_of_an_earlier_boot_without_an_end_crashed(scene: Scene, boot: str, status: str) -> None:
    start = SLOT - timedelta(hours=5)
    scene.paper.written = [said("starting", start, "a", boot=boot)]
    scene.systemd = Told(
        timer(), service(invocation_id="a", ended_at=start, result="success", main_code=1, main_status=0)
    )
    scene.look()
    one = scene.told()["a"]
    assert (one["status"], one["timing"]["finished_at"] is None) == (status, status == "crashed")
    assert set(scene.events().values()) == {1}


def test_starts_that_were_held_back_leave_no_manifest(scene: Scene) -> None:
    start = SLOT - timedelta(minutes=5)
    scene.paper.written = [
        said("starting", start, "a"),
        said("condition", start + timedelta(milliseconds=1), "a", result="exec-condition"),
        said("started", start + timedelta(milliseconds=2), "a", message="Condition check resulted in x being skipped."),
    ]
    assert len(scene.look().held) == 1
    assert scene.told() == {}


def test_another_observer_at_work_is_left_to_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "PATIENCE_S", 0.0)
    many(scene)
    with Observed(scene.desk.state).alone("job", patience_s=0) as alone:
        assert alone
        assert scene.look() == Brought(whole=False, note="another observer of this job is at work")
    assert scene.told() == {}


# --- what is known


def test_spans_say_for_which_time_the_journal_was_read_without_a_gap(scene: Scene) -> None:
    many(scene)
    begins = scene.paper.begins
    looked = scene.look().looked
    assert looked is not None
    until = scene.clock.at - timedelta(seconds=2)
    assert looked.spans == ((begins, until),)
    assert covered(looked, begins, until)
    assert not covered(looked, begins - timedelta(microseconds=1), until)
    scene.clock.at += timedelta(hours=1)
    assert scene.look().looked.spans == ((begins, scene.clock.at - timedelta(seconds=2)),)  # type: ignore[union-attr]
    known = scene.clock.at - timedelta(seconds=2)
    scene.clock.at += timedelta(hours=1)
    scene.paper.begins = scene.clock.at - timedelta(minutes=10)
    looked = scene.look().looked
    assert looked is not None
    assert looked.spans == ((begins, known), (scene.paper.begins, scene.clock.at - timedelta(seconds=2)))
    assert not covered(looked, known, scene.clock.at - timedelta(seconds=2))
    assert from_json(to_json(looked)) == looked


def test_the_first_look_goes_back_seven_days(scene: Scene) -> None:
    scene.paper.begins = SLOT - timedelta(days=30)
    old, new = SLOT - timedelta(days=8), SLOT - timedelta(days=6)
    scene.paper.written = [*run_of(old, "old"), *run_of(new, "new")]
    looked = scene.look().looked
    assert looked is not None
    assert set(scene.told()) == {"new"}
    assert looked.spans[0][0] == scene.clock.at - timedelta(days=7)


def test_spans_merge() -> None:
    at = [SLOT + timedelta(hours=hour) for hour in range(6)]
    assert merged([(at[3], at[4]), (at[0], at[1]), (at[1], at[2]), (at[5], at[5])]) == ((at[0], at[2]), (at[3], at[4]))
    assert with_span(((at[0], at[1]),), at[0], at[3]) == ((at[0], at[3]),)
    assert with_span(((at[0], at[1]),), at[2], at[3]) == ((at[0], at[1]), (at[2], at[3]))
    assert with_span((), at[2], at[3]) == ((at[2], at[3]),)


def test_other_services_than_before_are_looked_at_from_the_beginning(scene: Scene) -> None:
    scene.paper.written = [*run_of(SLOT - timedelta(hours=2), "a"), *run_of(SLOT - timedelta(hours=1), "b", USER)]
    scene.look()
    assert set(scene.told()) == {"a"}
    scene.job = scene.desk.job(legacy=BOTH)
    assert len(scene.look().new) == 1
    assert set(scene.events().values()) == {1}


def test_cron_leaves_no_record(scene: Scene) -> None:
    scene.job = scene.desk.job(legacy=(CronTrigger(cron="* * * * * true", user="daniel"),))
    assert scene.look().note == "the job has no timer: cron leaves no record of how its runs ended"
    assert "systemd" not in scene.observe()


# --- what a run in observe mode says


def ran(scene: Scene, *entries: list[Entry], **fields: Any) -> str:
    scene.paper.written = [one for some in entries for one in some]
    for name, value in fields.items():
        setattr(scene, name, value)
    return scene.observe()


AT = SLOT + timedelta(seconds=12)


def test_it_waits_for_the_start_and_the_end_and_says_both(scene: Scene) -> None:
    scene.job = scene.desk.job(legacy=LEGACY, timeout="1m")
    assert ran(scene, run_of(AT, "a", took=42)) == "legacy owns the job; systemd ran it 00:00:12, exit 0, 42s"
    assert sum(scene.clock.slept) < 12 + 42 + 15
    assert max(scene.clock.slept) <= 15
    assert len(scene.told()) == 1


def test_a_failure_is_said(scene: Scene) -> None:
    assert ran(scene, failing(AT, "a")).endswith("systemd ran it 00:00:12, exit 3, 2.0s")


def test_two_scopes_are_both_named(scene: Scene) -> None:
    scene.job = scene.desk.job(legacy=BOTH)
    said_ = ran(scene, run_of(AT, "a"), run_of(AT + timedelta(seconds=9), "b", USER))
    assert said_.endswith(
        "systemd ran it 2 times: old.service (system) 00:00:12, exit 0, 2.0s; "
        "old.service (user of daniel) 00:00:21, exit 0, 2.0s"
    )


def test_a_faster_timer_is_not_waited_for_again_and_again(scene: Scene) -> None:
    scene.systemd = Told(timer(calendars=("*-*-* *:*:0/5",)), service())
    runs = [run_of(SLOT + timedelta(seconds=5 * number), f"r{number}", took=4) for number in range(40)]
    assert "systemd ran it 00:00:00, exit 0, 4.0s" in ran(scene, *runs)
    assert sum(scene.clock.slept) < 10


def test_no_start_within_the_tolerance_is_said_after_it(scene: Scene) -> None:
    assert ran(scene, run_of(SLOT + timedelta(seconds=37), "late")) == "legacy owns the job; systemd did not run it"
    assert 33 <= sum(scene.clock.slept) < 50


def test_a_run_that_outlasts_the_jobs_time_out_is_said_to_go_on(scene: Scene) -> None:
    scene.job = scene.desk.job(legacy=LEGACY, timeout="5m")
    scene.systemd = Told(timer(), service(active="activating", invocation_id="a"))
    assert "systemd started it 00:00:12, still running after 5m" in ran(scene, run_of(AT, "a", took=9000))


def test_a_timer_that_may_wait_for_hours_is_not_waited_for_so_long(scene: Scene) -> None:
    scene.systemd = Told(timer(random_delay_s=6 * 3600.0), service())
    assert ran(scene) == "legacy owns the job; systemd has not run it yet; its timer may wait up to 6h00m"
    assert 600 <= sum(scene.clock.slept) < 620


def test_a_start_that_was_held_back_is_said(scene: Scene) -> None:
    skipped = said("started", AT, "", message="x was skipped because of an unmet condition check")
    assert "systemd was to start it 00:00:12, and did not: a condition" in ran(scene, [skipped])


SAID_AT_ONCE = [
    ({"active": "inactive"}, "systemd did not run it: old.timer (system) is not active"),
    ({"load": "not-found"}, "systemd did not run it: old.timer (system): there is no such timer on this host"),
    ({"calendars": ("*-*-* 18:00:00",)}, "systemd did not run it: no timer of it was due at 00:00:00"),
]


@pytest.mark.parametrize(("fields", "expected"), SAID_AT_ONCE)
def test_what_cannot_come_is_not_waited_for(scene: Scene, fields: dict[str, Any], expected: str) -> None:
    scene.systemd = Told(timer(**fields), service())
    assert ran(scene) == f"legacy owns the job; {expected}"
    assert scene.clock.slept == []


ERRORS = [
    SystemdUnavailable("systemd does not run on this host", absent=True),
    SystemdUnavailable("systemctl did not answer within 30 s"),
    NotAllowed("systemd refuses"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_systemd_that_does_not_answer_is_said_at_once(scene: Scene, error: OrchctlError) -> None:
    scene.systemd.error = error
    assert ran(scene) == f"legacy owns the job; what systemd did is not known: {error.message}"
    assert scene.clock.slept == []


def test_a_journal_that_may_not_be_read_is_said_at_once(scene: Scene) -> None:
    scene.paper.error = NotAllowed("daniel may not read the journal")
    assert ran(scene).endswith("what systemd did is not known: daniel may not read the journal")
    assert scene.clock.slept == []


def test_an_interruption_while_it_waits_is_recorded(scene: Scene) -> None:
    class Terminated(BaseException):
        pass

    def cancel(_: float) -> None:
        raise Terminated

    scene.desk.changes["sleep"] = cancel
    with pytest.raises(Terminated):
        scene.observe()
    manifest = scene.desk.manifest()
    assert (manifest["status"], manifest["reason"]) == ("cancelled", "interrupted by Terminated while it observed")


# --- the dry run


def test_the_dry_run_gets_a_folder_that_is_gone_afterwards(scene: Scene) -> None:
    script = 'echo "in $ORCHCTL_RUN_DIR, {run_dir}, $DB_PASSWORD"; stat -c %a "$1"; touch "$1/x"; exit 4'
    dry = ("sh", "-c", script, "sh", "{run_dir}")
    scene.job = scene.job.model_copy(update={"dry_run_command": dry})
    scene.systemd.error = NotAllowed("systemd refuses")
    said_ = scene.observe()
    assert "systemd refuses; the dry run ended with exit code 4 after 0." in said_
    manifest = scene.desk.manifest()
    assert (manifest["status"], manifest["mode"], scene.desk.ran()) == ("observed", "observe", 0)
    (log,) = scene.desk.data.glob("manifests/job/*/*/attempt-1.log")
    first, mode, *rest = log.read_text().splitlines()
    assert (mode, rest) == ("700", [])
    one, two, password = first.removeprefix("in ").split(", ")
    assert one == two
    assert not Path(one).exists()
    assert password == "***"
    assert first in scene.desk.log


@pytest.mark.parametrize(
    ("dry", "expected"),
    [
        (("/nonexistent",), "the dry run was not started: cannot start /nonexistent"),
        (("sh", "-c", "kill -9 $$"), "the dry run was killed by SIGKILL"),
        (("sleep", "30"), "the dry run was stopped after its time-out of 1.0s"),
    ],
)
def test_how_a_dry_run_ends_is_said(
    scene: Scene, dry: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scene.job = scene.job.model_copy(update={"dry_run_command": dry, "timeout": 1})
    scene.systemd.error = NotAllowed("systemd refuses")
    assert expected in scene.observe()
    assert not list(tmp_path.glob("orchctl-dry-run-*"))


# --- slot rule, step 4


def test_a_service_that_remains_after_its_exit_does_not_run(scene: Scene) -> None:
    for active, sub, going in [
        ("activating", "start", True),
        ("active", "running", True),
        ("active", "exited", False),
        ("activating", "auto-restart", True),
        ("failed", "failed", False),
    ]:
        scene.systemd = Told(timer(), service(active=active, sub=sub), service(USER, active="active", sub="running"))
        expected = ("old.service (system)",) if going else ()
        assert observe.legacy_running(scene.job, scene.eyes()) == expected


def test_a_systemd_that_certainly_does_not_run_runs_nothing(scene: Scene) -> None:
    scene.systemd.error = ERRORS[0]
    assert observe.legacy_running(scene.job, scene.eyes()) == ()
    scene.systemd.error = ERRORS[1]
    with pytest.raises(SystemdUnavailable):
        observe.legacy_running(scene.job, scene.eyes())


def test_the_dry_run_of_another_user_may_write_to_its_folder(scene: Scene) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    scene.desk.root.chmod(0o755)
    dry = ("sh", "-c", 'touch "$1/x" && stat -c %U "$1/x"', "sh", "{run_dir}")
    update = {"dry_run_command": dry, "user": "nobody", "working_directory": "/"}
    scene.job = scene.job.model_copy(update=update)
    scene.systemd.error = NotAllowed("systemd refuses")
    assert "the dry run ended with exit code 0" in scene.observe()
    assert "nobody" in scene.desk.log


def test_a_running_service_is_seen_also_once_its_timer_is_masked(scene: Scene) -> None:
    """A masked timer does not say any more what it starts: what it started at the last look is asked for."""
    scene.systemd.units = (timer(unit="other.service"), service(name="other.service"))
    scene.job = scene.desk.job(legacy=LEGACY[:1])
    scene.look()
    masked = timer(load="masked", unit="old.service", active="inactive")
    scene.systemd.units = (masked, service(name="other.service", active="activating", sub="start"))
    assert observe.legacy_running(scene.job, scene.eyes()) == ("other.service (system)",)


def test_two_jobs_on_one_service_each_have_their_runs(scene: Scene) -> None:
    many(scene)
    first = scene.look()
    scene.job = scene.job.model_copy(update={"name": "twin", "asset": "twin"})
    second = scene.look()
    assert len(first.new) == len(second.new) > 0
    assert not set(first.new) & set(second.new)


def test_secrets_of_environment_files_are_masked_too(scene: Scene) -> None:
    scene.job = scene.desk.job(legacy=LEGACY, env_files=("-/etc/job.env",))
    scene.systemd.units = (timer(), service(environment_files=("/etc/unit.env",)))
    files = {
        "/etc/job.env": {"API_TOKEN": "token-of-the-job"},
        "/etc/unit.env": {"DB_PASSWORD": "password-of-the-unit"},
    }
    scene.changes["env_file"] = files.__getitem__
    masker = observe.masker_of(scene.job, observe.triggers(scene.job, scene.eyes()), scene.eyes())
    assert masker.mask("token-of-the-job password-of-the-unit") == "*** ***"


def test_time_that_a_look_did_not_count_is_not_counted_by_the_next(scene: Scene) -> None:
    """The journal lacked the last run (LogLevelMax=): that it holds the next one says nothing of the time before."""
    start = scene.clock.at - timedelta(minutes=3)
    scene.job = scene.desk.job(legacy=LEGACY[:1])
    shown = service(invocation_id="a", ended_at=start, result="success", main_code=1, main_status=0)
    scene.systemd.units = (timer(), shown)
    first = scene.look()
    assert "does not hold the last run" in (first.note or "")
    assert first.looked is not None
    assert first.looked.spans == ()
    unsure = scene.clock.at - timedelta(seconds=2)
    scene.clock.at += timedelta(minutes=5)
    scene.systemd.units = (timer(), service())
    looked = scene.look().looked
    assert looked is not None
    assert looked.spans == ((unsure, scene.clock.at - timedelta(seconds=2)),)
    assert from_json(to_json(looked)) == looked


def test_what_timers_started_at_the_last_look_is_asked_for_in_the_same_call(scene: Scene) -> None:
    """So an audit, which asks for many jobs at once, sees the service of a masked timer as the gate does."""
    scene.systemd.units = (timer(unit="other.service"), service(name="other.service"))
    scene.job = scene.desk.job(legacy=LEGACY[:1])
    scene.look()
    scene.systemd.units = (timer(load="masked", active="inactive"), service(name="other.service"))
    asked: list[list[str]] = []
    answer = scene.systemd.read

    def read(manager: Manager, names: Collection[str] = (), **more: bool) -> Units:
        asked.append(sorted(names))
        return answer(manager, names, **more)

    scene.systemd.read = read  # type: ignore[method-assign]
    eyes = scene.eyes()
    found = timers.read(eyes.systemd, {"job": scene.job}, host_zone="UTC", now=scene.clock.now(), look=eyes.looks.read)
    assert asked == [["old.timer", "other.service"]]
    (source,) = found.sources(scene.job)
    assert source.service == "other.service"
    before = eyes.looks.read("job")
    observe.bring_in(scene.job, "UTC", eyes)
    after = eyes.looks.read("job")
    assert before is not None
    assert after is not None
    assert after.units == before.units
    assert len(after.spans) == 1
