"""Sixteen operators at once: real processes, state directory and locks; systemd and Prefect are files of a test.

Each command is a process of its own that takes the host's lock and does one of `cutover`, `rollback`, `recover` and
`confirm`, and some are killed at a change. What happened is in one log that all append to, in the order of the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import handover_fakes
import invariants
from catalogs import catalog
from handover_fakes import NOON, Host
from invariants import Entry
from orchctl.adapters import host_lock
from orchctl.adapters.claims import Locks
from orchctl.adapters.owners import Owners
from orchctl.core import slots
from orchctl.core.catalog import Catalog
from orchctl.core.names import run_id
from orchctl.errors import ExitCode, OrchctlError
from orchctl.services import handover, recovery
from orchctl.services.handover_steps import Hands
from support import STRESS

OPERATORS, COMMANDS = 16, 500 if STRESS else 25
PAUSE_S = 0.5
"""At most, between two commands of an operator: else nearly all were refused."""
JOBS = ("a", "b", "c")
KINDS = ("cutover", "rollback", "recover", "confirm", "run")
KEPT = ("timers_on", "fence", "cron_on", "paused", "takeable", "owed_runs")
_NAMED = re.compile(r"orchctl (\w+) (\w+) \(pid (\d+), since (\S+Z)\)")
_BUG = 70


def jobs() -> Catalog:
    text = 'version = 1\n[defaults]\ndata_root = "/data"\nworking_directory = "/srv"\nwork_pool = "pool"\n'
    for job in JOBS:
        text += f'[jobs.{job}]\nschedules = ["often"]\ncommand = ["x"]\nlegacy = [{{ timer = "{job}.timer" }}]\n'
    return catalog(text, 'version = 1\ntimezone = "UTC"\n[schedules.often]\ncron = "*/5 * * * *"\n')


class Log:
    """A log that many processes append to: one write an entry."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, kind: Any, **more: Any) -> None:
        line = json.dumps({"t": time.monotonic(), "kind": kind, **more}).encode() + b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line)
        os.close(descriptor)

    def entries(self) -> Iterator[Entry]:
        for line in self.path.read_text().splitlines():
            data = json.loads(line)
            data["state"] = tuple(data["state"]) if isinstance(data.get("state"), list) else data.get("state")
            yield Entry(**data)


@dataclass
class FileHost(Host):
    """A host of one job that outlives the process: each change is written to a file before the next begins.

    `dies_at` is the change at which the process is killed, before or after it took effect.
    """

    dies_at: int = -1
    by: str = ""
    told: Log = field(default_factory=lambda: Log(Path()))

    @property
    def _file(self) -> Path:
        return self.state_dir.parent / f"host-{self.job}.json"

    def load(self) -> FileHost:
        with contextlib.suppress(FileNotFoundError):
            data = json.loads(self._file.read_text())
            self.__dict__.update({key: data[key] for key in KEPT})
            self.now = datetime.fromisoformat(data["now"])
            self.armed = datetime.fromisoformat(data["armed"]) if data["armed"] else None
            self.caught_up = set(map(datetime.fromisoformat, data["caught_up"]))
        return self

    def change(self, name: str, do: Callable[[], Any]) -> Any:
        if self.count + 1 == self.dies_at:
            self._die()
        found = super().change(name, do)
        data: dict[str, Any] = {key: self.__dict__[key] for key in KEPT}
        data |= {"now": self.now.isoformat(), "armed": self.armed and self.armed.isoformat()}
        data["caught_up"] = [slot.isoformat() for slot in self.caught_up]
        temporary = self._file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(data))
        temporary.rename(self._file)
        self._tell(name)
        if -self.count == self.dies_at + 1:
            self._die()
        return found

    def _tell(self, name: str) -> None:
        if "owner" in name:
            owner = self.owners.read(self.job)
            state = None if owner is None else "draining" if owner.draining else "live"
            self.told.note("owner", by=self.by, state=state, job=self.job)
        elif "fence" in name:
            self.told.note("fence", scope="system", state=self.fence, job=self.job)

    def _die(self) -> None:
        self.told.note("finish", by=self.by, job=self.job)
        os.kill(os.getpid(), signal.SIGKILL)

    def hands(self) -> Hands:
        return replace(
            super().hands(),
            owners=_OwnersOfOne(self),
            handovers=_HandoversOfOne(self),
            new_id=lambda: run_id(datetime.now(UTC), uuid.uuid4().hex),
            pid=os.getpid(),
        )


class _OwnersOfOne(handover_fakes._Owners):
    """Those of one job: a host of these tests has one."""

    def names(self) -> tuple[str, ...]:
        return tuple(name for name in super().names() if name == self._host.job)


class _HandoversOfOne(handover_fakes._Handovers):
    def unfinished(self) -> tuple[str, ...]:
        return tuple(name for name in super().unfinished() if name == self._host.job)


@dataclass
class Place:
    """Where it happens. `locked` is the host's lock, which a control leaves out."""

    root: Path
    locked: Callable[[Path, str], contextlib.AbstractContextManager[None]] = host_lock.held

    def __post_init__(self) -> None:
        self.state, self.log, self.catalog = self.root / "state", Log(self.root / "log"), jobs()
        for job in JOBS:
            self.log.note("fence", scope="system", state=False, job=job)

    def host(self, job: str, by: str, *, dies_at: int = -1) -> FileHost:
        return FileHost(self.state, self.catalog, job, dies_at=dies_at, by=by, told=self.log).load()

    def command(self, kind: str, job: str, dice: random.Random) -> None:
        """Do one command, as the process of it."""
        if kind == "run":
            self._run(job)
            return
        with self.locked(self.state, f"{kind} {job}"):
            by = f"{kind} {os.getpid()}"
            dies_at = dice.choice([-1, -1, 1, -1]) * dice.randint(1, 40)
            for each in JOBS if kind == "recover" else (job,):
                self.log.note("begin", by=by, job=each)
                try:
                    self._do(kind, self.host(each, by, dies_at=dies_at), dice)
                finally:
                    self.log.note("finish", by=by, job=each)

    def _do(self, kind: str, host: FileHost, dice: random.Random) -> None:
        hands, job = host.hands(), host.job
        if kind == "recover":
            recovery.recover(hands, [job], say=_silent)
        elif kind == "rollback":
            handover.rollback(hands, job, now=False, command=kind, say=_silent)
        elif kind == "confirm":
            handover.confirm(hands, job)
        else:
            host.missed_legacy = (host.now - timedelta(minutes=1),) if dice.random() < 0.5 else ()
            until = NOON + timedelta(days=365) if dice.random() < 0.3 else None
            handover.cutover(
                hands, job, digest=None, waived={}, confirm_by=until, command=kind, say=_silent
            )  # fmt: skip

    def _run(self, job: str) -> None:
        """Run the job as Prefect does: the owner, the job's lock, the owner again."""
        owners, run = Owners(self.state), uuid.uuid4().hex
        soon = datetime.max.replace(tzinfo=UTC)
        lock = Locks(self.state).try_take(job, run_id=run, pid=os.getpid())
        if lock is None:
            return
        if slots.owned(self.catalog.jobs[job], soon, owners.read(job)).kind == "run":
            self.log.note("start", run=run, by="prefect", job=job)
            time.sleep(0.005)
            self.log.note("end", run=run, job=job)
        lock.release()


def _silent(_text: str) -> None:
    return


def forked(do: Callable[[], int]) -> int:
    """Run `do` in a process of its own; return its pid."""
    if pid := os.fork():
        return pid
    code = _BUG
    try:
        code = do()
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def operator(place: Place, number: int) -> int:
    """Give random commands, one after another, each a process; note how each ended."""
    dice = random.Random(number)

    def one(kind: str, job: str, seed: int) -> int:
        try:
            place.command(kind, job, random.Random(seed))
        except OrchctlError as error:
            if error.exit_code is ExitCode.LOCKED:
                (place.root / f"refused-{os.getpid()}").write_text(error.message)
            return int(error.exit_code)
        return 0

    for _ in range(COMMANDS):
        time.sleep(dice.random() * PAUSE_S)
        kind, job, seed = dice.choice(KINDS), dice.choice(JOBS), dice.randrange(2**32)
        pid = forked(lambda kind=kind, job=job, seed=seed: one(kind, job, seed))  # type: ignore[misc]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with (place.root / "codes").open("a") as codes:
            codes.write(f"{kind} {pid} {code}\n")
    return 0


def settle(place: Place) -> None:
    """Recover every job, twice, and note who would run it."""
    for job in JOBS:
        place.log.note("begin", by="settle", job=job)
        first = recovery.recover(place.host(job, "settle").hands(), [job], say=_silent)
        host = place.host(job, "settle")
        again = recovery.recover(host.hands(), [job], say=_silent)
        place.log.note("finish", by="settle", job=job)
        state = "changed" if again or host.count else "finished" if all(x.is_in_order for x in first) else "unfinished"
        place.log.note("recovered", state=state, job=job)
        place.log.note("settled", state=sorted(host.may_run()), job=job)


def at_once(place: Place) -> Counter[str]:
    """Let the operators work at once; return how many commands ended how, and raise where one had a bug."""
    pids = [forked(lambda number=number: operator(place, number)) for number in range(OPERATORS)]  # type: ignore[misc]
    assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids} == {0}
    ended: Counter[str] = Counter(line.split()[2] for line in (place.root / "codes").read_text().splitlines())
    settle(place)
    return ended


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Counter[str]]:
    """Return where operators worked at once, and how many of their commands ended how."""
    place = Place(tmp_path_factory.mktemp("place"))
    return place, at_once(place)


def test_what_many_operators_do_at_once_is_done_one_after_another(worked: tuple[Place, Counter[str]]) -> None:
    place, ended = worked
    log = list(place.log.entries())
    print(f"\n{ended.total()} commands: {dict(ended)}; {len(log)} entries")
    assert ended.total() == OPERATORS * COMMANDS
    assert str(_BUG) not in ended
    violations = invariants.check(log)
    assert not violations, "\n".join(map(str, violations[:3]))
    assert {"0", "11", "-9"} <= set(ended)
    assert taken_away(log) == []


def test_who_is_refused_is_told_the_others_pid_command_and_start(worked: tuple[Place, Counter[str]]) -> None:
    place, _ = worked
    rows = [line.split() for line in (place.root / "codes").read_text().splitlines()]
    commands = {pid: kind for kind, pid, _ in rows}
    refused = [_NAMED.search(path.read_text()) for path in place.root.glob("refused-*")]
    # Between taking the lock and writing its name down, a holder is "another orchctl".
    named = [found for found in refused if found is not None]
    assert len(named) > len(refused) / 2
    assert all(commands[found[3]] == found[1] and found[2] in JOBS for found in named)


@pytest.mark.campaign
def test_the_judge_sees_operators_without_a_lock(tmp_path: Path) -> None:
    place = Place(tmp_path, locked=lambda _state, _command: contextlib.nullcontext())
    with contextlib.suppress(AssertionError, OrchctlError):
        at_once(place)
    assert "I8" in {each.invariant for each in invariants.check(place.log.entries())}


def taken_away(log: list[Entry]) -> list[Entry]:
    """Return the changes of an owner to legacy that a run of Prefect's was in the middle of."""
    going: dict[str, set[str | None]] = {job: set() for job in JOBS}
    found = []
    for entry in log:
        if entry.kind == "start":
            going[entry.job].add(entry.run)
        elif entry.kind == "end":
            going[entry.job].discard(entry.run)
        elif entry.kind == "owner" and entry.state is None and going[entry.job]:
            found.append(entry)
    return found
