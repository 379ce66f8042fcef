"""Handovers on a real systemd, killed by strace at each call that changes something, or failing at it.

After each: nobody doubly able to run the job, then one `recover`, and all is legal; a second one changes nothing.
What Prefect's API says comes from tests/prefect_server.py, and gates are left out: hundreds of cases have to fit.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import prefect_server
from box import Box
from kills import Fault, faults
from orchctl.adapters import sandbox
from support import STRESS
from switching_box import UNFENCED, WAIVED, SwitchingBox

LANES: tuple[tuple[Sequence[str], Sequence[str]], ...] = (
    (("system",), ()),
    (("system",), ()),
    (("system", "user"), ("--confirm-within", "24h")),
)
"""Sandboxes side by side, for a handover waits more than it works: scopes, and options of the cutover."""
SEQUENCES = (10_000, 10_000, 10_000) if STRESS else (80, 80, 32)
"""How many commands are killed or fail in each lane, at most; in about each, `recover` is too."""
RECOVERS = tuple(
    Fault(call, number, None, f"{call} of recover")
    for number in range(1, 7)
    for call in ("vfork", "fsync", "wait4", "write", "rename", "unlink", "openat")
    if number <= {"rename": 2, "unlink": 2, "openat": 1}.get(call, 6)
)


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Callable[[str, Sequence[str], Sequence[str]], SwitchingBox]]:
    """Return what boots a sandbox of its own for a job that is switched; all are ended."""
    if (reason := sandbox.why_not()) is not None:
        pytest.skip(f"a systemd of its own cannot be booted: {reason}")
    made: list[SwitchingBox] = []
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[: len(tmp_path.parents) - 2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    with prefect_server.serving() as prefect:

        def boot(name: str, scopes: Sequence[str], options: Sequence[str]) -> SwitchingBox:
            share, base = tmp_path / f"{name}-share", tmp_path / f"{name}-box"
            for each in (share, base):
                each.mkdir(mode=0o755)
            box = Box(sandbox.boot(base, [share]), share)
            made.append(SwitchingBox(box, prefect, scopes, job=f"job-{name}", options=options))
            return made[-1]

        yield boot
        for each in made:
            each.close()
            each.box.inside.stop()


def spread(found: Sequence[Fault], count: int) -> list[Fault]:
    """Return `count` faults from everywhere in the list, or all there are."""
    return [found[number * len(found) // count] for number in range(count)] if count < len(found) else list(found)


def work(job: SwitchingBox, share_of: tuple[int, int], sequences: int) -> Counter[str]:
    """Let `sequences` commands be killed or fail, `recover` too, and be recovered from. Return how many of what."""
    wanted: dict[str, list[Fault]] = {}
    for command in ("cutover", "rollback"):
        ended = job.run(command, trace=True)
        assert ended.code == 0, ended.output
        kills, errors = faults(ended.log)
        number, of = share_of
        kills, errors = kills[number::of], errors[number::of]
        wanted[command] = spread(kills, sequences * 3 // 8) + spread(errors, sequences // 8)
    done: Counter[str] = Counter()
    for recovering in itertools.cycle(RECOVERS):
        command = "rollback" if job.is_prefects else "cutover"
        if not any(wanted.values()):
            return done
        if not wanted[command]:
            assert job.run(command).code == 0
            continue
        fault = wanted[command].pop(0)
        done[f"{command} {fault.error or 'KILL'}"] += job.run(command, fault=fault).was_hit
        hits = job.hits
        job.recover(fault=recovering)
        done["recover KILL"] += job.hits - hits
    return done


@pytest.mark.campaign
def test_commands_that_are_killed_or_fail_at_any_call_leave_what_one_recover_puts_right(
    lane: Callable[[str, Sequence[str], Sequence[str]], SwitchingBox],
) -> None:
    jobs = [lane(str(number), *each) for number, each in enumerate(LANES)]
    alike = [[other for other in range(len(LANES)) if LANES[other] == each] for each in LANES]
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [
            pool.submit(work, job, (alike[number].index(number), len(alike[number])), SEQUENCES[number])
            for number, job in enumerate(jobs)
        ]
        done = sum((each.result() for each in running), Counter[str]())
    slowest, hardest = (max(getattr(job, name) for job in jobs) for name in ("slowest", "hardest"))
    print(f"\n{done.total()} faults: {dict(done)}; recover took at most {slowest:.2f} s, and worked {hardest:.2f} s")
    for job in jobs:
        violations = job.violations()
        assert not violations, "\n".join(map(str, [*violations[:3], *job.told]))
    assert hardest < 2.0
    assert done.total() >= 300


def test_the_judge_sees_a_cutover_without_its_fence(
    lane: Callable[[str, Sequence[str], Sequence[str]], SwitchingBox],
) -> None:
    job = lane("control", ("system",), ())
    job.run("cutover", patch=UNFENCED)
    assert {each.invariant for each in job.violations()} == {"I1"}


def test_the_judge_sees_a_rollback_that_was_killed_and_not_recovered(
    lane: Callable[[str, Sequence[str], Sequence[str]], SwitchingBox],
) -> None:
    job = lane("control", ("system",), ())
    job.run("cutover")
    kills, _ = faults(job.run("rollback", trace=True).log)
    job.run("cutover")
    drained = next(n for n, each in enumerate(kills) if each.call == "rename" and "/owners/" in each.what)
    assert job.run("rollback", fault=kills[drained + 4]).was_hit
    job.settle()
    assert {each.invariant for each in job.violations()} == {"I2"}


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("cutover", Fault("linkat", 1, None, "the owner file")),
        ("cutover", Fault("rename", 3, None, "a file of the state directory")),
        ("rollback", Fault("symlink", 1, None, "the link that enables the timer")),
        ("rollback", Fault("unlink", 1, None, "the first file that goes")),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else f"{value.call}-{value.number}",
)
def test_a_command_that_strace_starts_is_killed_and_recovered_from(
    lane: Callable[[str, Sequence[str], Sequence[str]], SwitchingBox], command: str, fault: Fault
) -> None:
    job = lane("strace", ("system",), [word for gate in WAIVED for word in ("--waive", f"{gate}=a test")])
    if command == "rollback":
        assert job.run("cutover").code == 0
    assert job.killed_from_outside(command, fault)
    job.recover()
    assert not job.violations(), "\n".join(map(str, job.violations()))
