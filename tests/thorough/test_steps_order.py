"""Any DAG, any steps that fail: what runs, what is skipped, and in which order, against a naive oracle."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dag import StepsCatalog, StepsDesk
from desk import DIGEST, SLOT
from orchctl.core.catalog_steps import StepTable
from orchctl.core.steps import needs
from orchctl.runner.job import execute
from orchctl.runner.shapes import Request
from orchctl.runner.tasks import Result, Task


@dataclass(frozen=True)
class Shape:
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    fails: frozenset[str]
    optional: frozenset[str]
    parallel: int


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.integers(1, 7))
    names = [f"s{number}" for number in range(count)]
    steps = tuple(
        (name, tuple(draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=3))) if number else ())
        for number, name in enumerate(names)
    )
    subset = st.frozensets(st.sampled_from(names), max_size=3)
    # Shuffled, for the catalog's order need not be one that runs.
    return Shape(tuple(draw(st.permutations(steps))), draw(subset), draw(subset), draw(st.integers(1, 3)))


def oracle(shape: Shape) -> dict[str, str]:
    """What must come of each step, by asking again and again until nothing changes."""
    after = dict(shape.steps)
    status: dict[str, str] = {}
    while len(status) < len(after):
        for name, before in after.items():
            if name in status or any(one not in status for one in before):
                continue
            if any(status[one] in {"failed", "skipped"} for one in before):
                status[name] = "skipped"
            elif name in shape.fails:
                status[name] = "warned" if name in shape.optional else "failed"
            else:
                status[name] = "success"
    return status


@settings(max_examples=25, deadline=None)
@given(shapes())
def test_any_dag_goes_as_the_oracle_says(shape: Shape) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = StepsDesk(Path(folder))
        desk.lines = dict.fromkeys(shape.fails, "exit 1")
        steps = [desk.step(name, *after, optional=name in shape.optional) for name, after in shape.steps]
        outcome = desk.go(desk.steps_job(*steps, parallel_steps=shape.parallel))
        expected = oracle(shape)
        assert desk.statuses() == expected
        assert outcome.status == ("failed" if "failed" in expected.values() else "success")
        assert set(desk.began()) == {name for name, status in expected.items() if status != "skipped"}
        assert_order(desk.happened(), steps, shape.parallel)


def assert_order(happened: list[tuple[str, str]], steps: list[StepTable], parallel: int) -> None:
    """By what the commands themselves wrote: no step begins before all that it needs have ended; never too many go."""
    at = {entry: number for number, entry in enumerate(happened)}
    assert len(at) == len(happened), "a step ran twice"
    going = 0
    for step in steps:
        for before in needs(step):
            if ("start", step.name) in at:
                assert at["end", before] < at["start", step.name]
    for what, _ in happened:
        going += 1 if what == "start" else -1
        assert going <= parallel


def wide(count: int, width: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield a DAG of rows of `width` steps; each needs two of the row before."""
    for number in range(count):
        row, column = divmod(number, width)
        above = {(row - 1) * width + column, (row - 1) * width + (column + 1) % width}
        yield f"s{number:03}", tuple(sorted(f"s{one:03}" for one in above)) if row else ()


@pytest.mark.parametrize("fails", [None, "s084"])
def test_200_steps_8_wide(tmp_path: Path, fails: str | None) -> None:
    desk = StepsDesk(tmp_path)
    if fails:
        desk.lines[fails] = "exit 1"
    steps = [desk.step(name, *after) for name, after in wide(200, 8)]
    outcome = desk.go(desk.steps_job(*steps, parallel_steps=8, timeout="10m"))
    assert_order(desk.happened(), steps, 8)
    expected = oracle(Shape(tuple(wide(200, 8)), frozenset({fails} if fails else ()), frozenset(), 8))
    assert desk.statuses() == expected
    assert outcome.status == ("failed" if fails else "success")
    if fails:
        assert 0 < sum(status == "skipped" for status in expected.values()) < 116
    assert max(itertools.accumulate(1 if what == "start" else -1 for what, _ in desk.happened())) > 1


def test_the_harness_sees_a_wrong_order(tmp_path: Path) -> None:
    """A negative control: a step that begins before the one it needs has ended is seen."""
    desk = StepsDesk(tmp_path)
    steps = [desk.step("a"), desk.step("b", "a")]
    right = [("start", "a"), ("end", "a"), ("start", "b"), ("end", "b")]
    assert_order(right, steps, 1)
    for wrong in (
        [("start", "a"), ("start", "b"), ("end", "a"), ("end", "b")],
        [*right, ("start", "a")],
    ):
        with pytest.raises(AssertionError):
            assert_order(wrong, steps, 2)


def test_a_task_that_its_orchestrator_cannot_run_fails_its_step_alone(tmp_path: Path) -> None:
    class Broken:
        def start(self, task: Task, done: Callable[[Result], None]) -> None:
            threading.Thread(target=done, args=(Result("failed", "no server"),)).start()

        def close(self, name: str, message: str) -> None:
            raise AssertionError("nothing waits")

    desk = StepsDesk(tmp_path)
    job = desk.steps_job(desk.step("a"), desk.step("b", "a"))
    host = replace(desk.host(job), applied=StepsCatalog(job, {}))
    request = Request("job", DIGEST, "one", SLOT, 1, SLOT, "schedule")
    outcome = execute(request, host, desk.log.append, tasks=Broken())
    assert (outcome.status, outcome.reason) == ("failed", "step a failed: no server")
