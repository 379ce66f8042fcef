"""Owner, claim, mark and journal files that something has damaged: never read as live, never a traceback.

Each kind of file is written by the code itself, then changed in every way that a disk, an editor or an attacker has.
What is read from it is believed only where it says exactly what was written, or less than that.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchctl.adapters.claims import Claims
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.owners import Owners
from orchctl.core import slots
from orchctl.core.catalog import Job, TimerTrigger
from orchctl.core.handover import Step
from orchctl.core.handover_journal import Handover, Opened, Record
from orchctl.core.legacy import Manager
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Link, Snapshot, TimerState
from orchctl.errors import OrchctlError

SLOT = datetime(2026, 1, 5, 12, tzinfo=UTC)
ID = "20260105T115900Z-0a1b2c"
JOB = Job(
    name="job",
    asset="job",
    work_pool="pool",
    command=("true",),
    data_root="/data",
    working_directory="/",
    legacy=(TimerTrigger(timer="job.timer", scope="system"),),
)
DRAINING = Owner(SLOT - timedelta(days=1), True, (), ID)
TO_COME = Owner(SLOT + timedelta(days=1), False, None, ID)
LIVE = Owner(SLOT - timedelta(days=1), False, (), ID)
AT_LEAST = 2000

Mutation = tuple[str, Callable[[Path], None]]


def opened() -> Opened:
    timer = TimerState(
        manager=Manager("system", None),
        timer="job.timer",
        service="job.service",
        active=True,
        enabled="enabled",
        links=(Link("/etc/systemd/system/timers.target.wants/job.timer", "/etc/systemd/system/job.timer"),),
        boot_id="b" * 32,
        persistent=True,
    )
    return Opened(ID, "cutover", "job", SLOT - timedelta(minutes=1), "cutover job", Snapshot((timer,), paused=False))


@dataclass(frozen=True)
class Kept:
    """A kind of file: its place, how it is written, and a look at it that says what was believed (None: nothing)."""

    path: str
    write: Callable[[Path], object]
    look: Callable[[Path], object]


def journal(state: Path) -> None:
    handovers = Handovers(state)
    handovers.begin(opened())
    handovers.add(opened(), Record(Step.FENCE, "done", SLOT, "fenced", {"since": "2026-01-05T12:00:00Z"}))
    handovers.end(opened(), "done", SLOT)
    handovers.begin(opened())


def verdict(state: Path) -> str:
    return slots.owned(JOB, SLOT, Owners(state).read("job")).kind


def claimed(state: Path) -> bool:
    """Whether the slot could be claimed by another run."""
    claim = Claims(state).take("job", SLOT, run_id="20260105T120000Z-ffffff", flow_run_id="other", at=SLOT)
    return claim.ours


KEPT = {
    "owner draining": Kept("owners/job.json", lambda state: Owners(state).replace("job", DRAINING), verdict),
    "owner to come": Kept("owners/job.json", lambda state: Owners(state).replace("job", TO_COME), verdict),
    "owner live": Kept("owners/job.json", lambda state: Owners(state).replace("job", LIVE), verdict),
    "claim": Kept(
        "slots/job/20260105T120000Z.json",
        lambda state: Claims(state).take("job", SLOT, run_id=ID, flow_run_id="first", at=SLOT),
        claimed,
    ),
    "open mark": Kept("handovers/open/job", journal, lambda state: Handovers(state).open_of("job")),
    "last mark": Kept("handovers/last/job", journal, lambda state: Handovers(state).last_of("job")),
    "journal": Kept(f"handovers/{ID}.jsonl", journal, lambda state: Handovers(state).read(ID)),
}


def bytes_of(content: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield what a disk does to a file."""
    for at in range(0, len(content), max(1, len(content) // 60)):
        yield f"cut at {at}", content[:at]
        yield f"zeros from {at}", content[:at] + b"\0" * (len(content) - at)
        yield f"cut out at {at}", content[:at] + content[at + 7 :]
        yield f"doubled from {at}", content + content[at:]
    for _ in range(120):
        at, bit = rng.randrange(len(content)), rng.randrange(8)
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        yield f"bit {bit} of {at}", bytes(flipped)
    yield from (
        ("empty", b""),
        ("blank", b" \n"),
        ("null", b"null"),
        ("list", b"[]"),
        ("text", b'"live"'),
        ("number", b"1e999"),
        ("long number", b"9" * 5000),
        ("deep", b"[" * 100_000),
        ("deep tables", b'{"since":' * 50_000),
        ("other encoding", content.decode().encode("utf-16")),
        ("mark of order", b"\xef\xbb\xbf" + content),
        ("not UTF-8", b"\xff\xfe\xfd"),
        ("NaN", b'{"since": NaN}'),
        ("twice", content * 2),
    )


STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**400, 1e308, "", "x", "\0", "../../etc", "live", "9999-99-99T99:99:99Z",
    "0001-01-01T00:00:00+23:59", "2026-01-05", "\ud800", [], [None], ["x"], {}, {"since": 1}, [[]] * 3, "a" * 100_000,
)  # fmt: skip


def tables_of(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what an editor or another program does to a file of JSON."""
    lines = content.splitlines() if content.startswith(b'{"version') else [content]
    for number, line in enumerate(lines):
        table = json.loads(line)
        for key in table:
            rest = {other: value for other, value in table.items() if other != key}
            for value in (*STRANGE, None):
                changed = json.dumps({**rest, key: value}).encode()
                yield (
                    f"line {number} {key} is {value!r:.20}",
                    b"\n".join([*lines[:number], changed, *lines[number + 1 :]]),
                )
            yield (
                f"line {number} no {key}",
                b"\n".join([*lines[:number], json.dumps(rest).encode(), *lines[number + 1 :]]),
            )
            yield (
                f"line {number} {key} twice",
                b"\n".join([*lines[:number], line.rstrip()[:-1] + b',"%b":7}' % key.encode()]),
            )


def in_its_place(path: Path) -> Iterator[Mutation]:
    """Yield what may stand where the file was."""
    elsewhere = path.with_name("elsewhere")

    def link(target: Path) -> Callable[[Path], None]:
        def act(path: Path) -> None:
            path.rename(elsewhere)
            path.symlink_to(target)

        return act

    def folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def fifo(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def folder_link(path: Path) -> None:
        real = path.parent.with_name("real")
        path.parent.rename(real)
        path.parent.symlink_to(real)

    yield "link to itself", link(path)
    yield "link to the content", link(elsewhere)
    yield "link to nothing", link(Path("/nonexistent/file"))
    yield "link to a device", link(Path("/dev/zero"))
    yield "folder", folder
    yield "FIFO", fifo
    yield "folder is a link", folder_link
    for mode in (0o660, 0o606, 0o622, 0o666, 0o777, 0o602, 0o620):
        yield f"mode {mode:o}", lambda path, mode=mode: path.chmod(mode)  # type: ignore[misc]
        yield f"folder's mode {mode:o}", lambda path, mode=mode: path.parent.chmod(mode | 0o700)  # type: ignore[misc]
    if os.geteuid() == 0:
        yield "another's", lambda path: os.chown(path, 1234, 1234)
        yield "in another's folder", lambda path: os.chown(path.parent, 1234, 1234)


def believed(kept: Kept, state: Path) -> object:
    try:
        return kept.look(state)
    except OrchctlError:
        return None


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    return {}


@pytest.mark.parametrize("name", KEPT)
def test_a_damaged_file_never_reads_as_live(name: str, tmp_path: Path, counted: dict[str, int]) -> None:
    kept = KEPT[name]
    clean, state = tmp_path / "clean", tmp_path / "state"
    kept.write(clean)
    content = (clean / kept.path).read_bytes()
    whole = believed(kept, clean)
    found: dict[str, object] = {}
    shutil.copytree(clean, state)
    for what, damaged in (*bytes_of(content, random.Random(4)), *tables_of(content)):
        (state / kept.path).write_bytes(damaged)
        found[what] = believed(kept, state)
    for what, damage in in_its_place(state / kept.path):
        shutil.rmtree(state)
        shutil.copytree(clean, state)
        damage(state / kept.path)
        found[what] = believed(kept, state)
    counted[name] = len(found)
    print(f"{name}: {len(found)} mutations, {sum(each is None for each in found.values())} refused")
    wrong = {what: each for what, each in found.items() if each is not None and not may_be_read(each, whole)}
    assert wrong == {}
    assert None in found.values()


def may_be_read(read: object, whole: object) -> bool:
    """Whether what was believed of a damaged file is what stood in it, or less."""
    if isinstance(read, Handover) and isinstance(whole, Handover):
        return read.opened == whole.opened
    return read in (whole, "observe")


def test_there_are_enough_of_them(counted: dict[str, int]) -> None:
    assert set(counted) == set(KEPT)
    assert sum(counted.values()) >= AT_LEAST, counted
