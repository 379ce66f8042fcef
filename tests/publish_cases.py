"""Publishing that strace kills, or lets fail, at each call that changes something, with a reader in a loop beside it.

Each attempt is a fork of one process that has everything imported. What the files of a run are follows from its id, so
a checker needs nobody's word for what is whole. Run as a program it is that process, or the reader.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from kills import CHANGING, Fault, changing_calls
from orchctl.adapters import host_facts, publishing
from orchctl.adapters.pointers import read_pointer
from orchctl.core.catalog_steps import PublishTable
from orchctl.core.names import format_instant, is_run_id
from orchctl.core.publish import CURRENT, LATEST
from orchctl.errors import PublishError
from orchctl.runner import publish as runner

DAY = date(2025, 12, 19)
AS_OF = datetime(2025, 12, 19, 5, tzinfo=UTC)
TABLE = PublishTable.model_validate({"to": "{data_root}/gold/rates/{game_date}/run={run_id}"})
REFUSED, STEP_FAILED = 3, 4
FAILING = {
    *("openat", "write", "fsync", "rename", "renameat2", "link", "linkat", "mkdir", "mkdirat", "unlink"),
    *("unlinkat", "rmdir", "flock"),
}
ERRORS = ("ENOSPC", "EIO")


class StepFailed(Exception):
    """The step could not write its files."""


def run_id(number: int) -> str:
    """Return the id of the `number`-th run; ids sort by number."""
    return f"20251219T{number // 3600 % 24:02d}{number // 60 % 60:02d}{number % 60:02d}Z-{number:06x}"


@functools.cache
def files_of(run: str) -> dict[str, bytes]:
    """Return the files of a run."""
    block = hashlib.sha256(run.encode()).hexdigest().encode()
    return {"rates.parquet": block * 700, "by_team/a.json": block, "by_team/deep/b.json": block * 3}


def folder_of(data_root: Path, day: date = DAY) -> Path:
    """Return the folder of the runs and pointers."""
    return data_root / "gold" / "rates" / day.isoformat()


def publish_once(data_root: Path, run: str, day: date = DAY, table: PublishTable = TABLE) -> runner.Published:
    """Do what a step's run does to publish: stage, promote, move the pointers."""
    values = {"data_root": str(data_root), "game_date": day.isoformat(), "run_id": run}
    folder = data_root / "manifests" / "rates.score" / f"game_date={day}" / f"run={run}"
    runner.check_place(table, values, folder)
    staging = runner.open_staging(folder, str(data_root), host_facts.here(), None, lasts_s=60)
    try:
        write_files(staging, run)
        return runner.publish(
            table,
            values=values,
            staging=staging,
            asset="rates.score",
            game_date=day,
            run_id=run,
            as_of=AS_OF,
            manifest_path=folder / "manifest.json",
            now=lambda: datetime.now(UTC),
            until=lambda: None,
        )
    finally:
        runner.close_staging(staging)


def write_files(staging: Path, run: str) -> None:
    """Do what a step does, which may fail by itself."""
    try:
        for name, content in files_of(run).items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_bytes(content)
    except OSError as error:
        raise StepFailed(str(error)) from error


def publish_naively(data_root: Path, run: str, day: date = DAY) -> None:
    """Do what people write: the files into their place, then the pointers in place. For controls."""
    to = folder_of(data_root, day) / f"run={run}"
    to.mkdir(parents=True, exist_ok=True)
    target = {"run_id": run, "run_as_of_ts": format_instant(AS_OF), "promoted_at": format_instant(AS_OF)}
    said = {"path": to.name, "digest": "sha256:" + "0" * 64, "asset": "rates.score", "game_date": day.isoformat()}
    last = {"newest": run, "moved_at": format_instant(AS_OF), "moved_by": "run", "reason": "always"}
    for name in (LATEST, CURRENT):
        (to.parent / name).write_text(json.dumps({**target, **said, **last}))
    for name, content in files_of(run).items():
        (to / name).parent.mkdir(exist_ok=True)
        with (to / name).open("wb") as file:
            for at in range(0, len(content), 8192):
                file.write(content[at : at + 8192])
                file.flush()


def torn(folder: Path, *, all_runs: bool = False) -> list[str]:
    """Return what a reader finds that is not whole: behind pointers, and with `all_runs` behind every run's name."""
    found, seen = [], []
    for name in (CURRENT, LATEST):
        try:
            pointer = read_pointer(folder, name)
        except PublishError as error:
            found.append(error.message)
            continue
        if pointer is not None:
            seen.append(pointer.path)
    if all_runs and folder.is_dir():
        seen += [name for name in os.listdir(folder) if name.startswith("run=")]
    for path in dict.fromkeys(seen):
        run = path.removeprefix("run=")
        there = {
            str(file.relative_to(folder / path)): file.read_bytes()
            for file in (folder / path).rglob("*")
            if file.is_file()
        }
        if not is_run_id(run) or there != files_of(run):
            found.append(f"{folder / path} is not whole: { ({name: len(text) for name, text in there.items()}) }")
    return found


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: its exit code (negative: the signal that killed it), what it said, and strace's log."""

    code: int
    said: str
    log: str

    @property
    def was_hit(self) -> bool:
        return "(INJECTED)" in self.log or "killed by SIGKILL" in self.log


class Attempts:
    """Attempts to publish, each a fork of one process."""

    def __init__(self, base: Path) -> None:
        self._log = base / "strace"
        self._server = subprocess.Popen(
            [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        self._server.communicate()

    def run(
        self,
        data_root: Path,
        run: str,
        *,
        day: date = DAY,
        fault: Fault | None = None,
        trace: bool = False,
        how: str = "",
    ) -> Ended:
        """Attempt to publish a run; `how` is "naive" for a control."""
        strace = []
        if fault is not None:
            strace = ["-e", f"trace={fault.call}", "-e", fault.inject]
        elif trace:
            strace = ["-y", "-s", "200", "-e", f"trace={','.join(CHANGING)}"]
        job = {"data_root": str(data_root), "run": run, "day": day.isoformat(), "how": how}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({**job, "strace": strace, "log": str(self._log)}) + "\n")
        self._server.stdin.flush()
        answer: Any = json.loads(self._server.stdout.readline())
        log = self._log.read_text(errors="replace") if strace else ""
        return Ended(answer["code"], answer["said"], log)


def faults(log: str, errors: Sequence[str] = ERRORS) -> list[Fault]:
    """Return every kill, and each of `errors`, that can be tried in an attempt with this log of strace, but where it
    is the step itself that would be hit.
    """
    found = []
    for name, number, text in changing_calls(log):
        if name in {"openat", "write", "mkdir"} and re.search(r"/run=[^/]*/_staging/[^/]*/", text):
            continue  # the step is not at its end yet
        found.append(Fault(name, number, None, text))
        if name in FAILING:
            found += [Fault(name, number, error, text) for error in errors]
    return found


@contextlib.contextmanager
def reader(base: Path) -> Iterator[list[Any]]:
    """Let another process read behind the pointers of the newest day below `base`, until the end of the block.

    What it found is in the list then: how often it read a pointer's files whole, and what it found torn.
    """
    found: list[Any] = []
    with subprocess.Popen(
        [sys.executable, __file__, "read", str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        try:
            yield found
        finally:
            found += json.loads(process.communicate()[0])


def read_many(folder: Path, number: int) -> tuple[int, list[str]]:
    """Read pointers `number` times, and look each time at the files behind. Return how many runs were seen, what was
    not whole.
    """
    runs, bad = set(), []
    for each in range(number):
        try:
            pointer = read_pointer(folder, (CURRENT, LATEST)[each % 2])
            if pointer is None:
                bad.append("there is no pointer")
                continue
            sizes = {name: os.stat(folder / pointer.path / name).st_size for name in files_of(pointer.run_id)}
            if sizes != {name: len(text) for name, text in files_of(pointer.run_id).items()}:
                bad.append(f"{pointer.path}: {sizes}")
            runs.add(pointer.run_id)
        except (OSError, PublishError) as error:
            bad.append(str(error))
    return len(runs), bad[:5]


def _read(base: Path) -> None:
    reads, bad = 0, []
    print("reading", flush=True)
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        days = sorted(os.listdir(base)) if base.is_dir() else []
        if days:
            bad += torn(base / days[-1])
            reads += (base / days[-1] / CURRENT).exists()
    print(json.dumps([reads, bad[:5]]))


def _attempt(job: dict[str, Any], said: int) -> int:
    data_root, day = Path(job["data_root"]), date.fromisoformat(job["day"])
    try:
        if job["how"] == "naive":
            publish_naively(data_root, job["run"], day)
        else:
            publish_once(data_root, job["run"], day)
    except PublishError as error:
        os.write(said, f"{error.message} | {error.hint}".encode())
        return REFUSED
    except StepFailed:
        return STEP_FAILED
    return 0


def _serve() -> None:
    publishing._renameat2()
    for line in sys.stdin:
        job = json.loads(line)
        ours, theirs = os.pipe()
        answer, said = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(theirs)
            os.read(ours, 1)
            code = 70
            try:
                code = _attempt(job, said)
            finally:
                os._exit(code)
        os.close(ours)
        os.close(said)
        tracer = None
        if job["strace"]:
            argv = ["strace", *job["strace"], "-o", job["log"], "-p", str(child)]
            tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            assert tracer.stderr is not None
            told = tracer.stderr.readline()
            assert "attached" in told, told
        os.write(theirs, b"x")
        os.close(theirs)
        with os.fdopen(answer) as file:
            text = file.read()
        _, status = os.waitpid(child, 0)
        if tracer is not None:
            tracer.communicate()
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "said": text}), flush=True)


def days(first: date = DAY) -> Iterator[date]:
    """Yield days, each later than the one before."""
    while True:
        yield first
        first += timedelta(days=1)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    elif sys.argv[1] == "read":
        _read(Path(sys.argv[2]))
    elif sys.argv[1] == "read-many":
        print(json.dumps(read_many(Path(sys.argv[2]), int(sys.argv[3]))))
    elif sys.argv[1] == "write":
        for number in range(int(sys.argv[3]), 1_000_000, 2):
            publish_once(Path(sys.argv[2]), run_id(number))
