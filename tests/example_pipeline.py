"""The example pipeline for tests: set up in a folder, run as the black box, and what it has published."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from desk import Told
from orchctl.adapters import host_facts, toml_files
from orchctl.adapters.as_of import AsOf
from orchctl.adapters.claims import Claims, Locks
from orchctl.adapters.manifests import Manifests
from orchctl.core.catalog import Catalog
from orchctl.runner.job import execute
from orchctl.runner.shapes import Host, Outcome, Request
from support import clean_env

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "projections"
DAY, AS_OF = "2025-12-19", "2025-12-19T22:30:00Z"
FIRST = "20251219T223000Z-aaaaaa"
POINTERS = {"latest_run.json", "current_run.json"}
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>
#define LATER %d
int clock_gettime(clockid_t id, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int answer = real(id, at);
  if (!answer && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += LATER;
  return answer;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


def set_up(folder: Path, *, start: str = DAY, days: int = 1) -> Path:
    """Make the example in a folder, with the data of some dates."""
    import prepare

    first = date.fromisoformat(start)
    prepare.set_up(folder, [first + timedelta(days=number) for number in range(days)])
    return folder


def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the black box call its programs instead of starting them: polars is then loaded only once."""
    from scripts import run_live_score

    def start(self: run_live_score.Run, module: str, *words: object) -> None:
        try:
            importlib.import_module(module).main([*map(str, words)])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
            if not isinstance(ended.code, int):
                print(ended.code, file=sys.stderr)
            raise subprocess.CalledProcessError(code, ["python", "-m", module]) from None

    monkeypatch.setattr(run_live_score.Run, "start", start)


def here(folder: Path, *, as_of: str = AS_OF, run_id: str = FIRST) -> int:
    """Run the black box in this process, after `in_process`; return its exit code."""
    from scripts import run_live_score

    words = ["--date", DAY, "--run-id", run_id, "--run-as-of-ts", as_of, "--data-root", f"{folder}/data"]
    try:
        run_live_score.main(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def black_box(
    folder: Path,
    *,
    as_of: str = AS_OF,
    run_id: str = FIRST,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the nine programs one after another, as `execution = "command"` does."""
    words = ["--date", DAY, "--run-id", run_id, "--run-as-of-ts", as_of, "--data-root", "data"]
    return subprocess.run(
        [*under, "bin/python", "-m", "scripts.run_live_score", *words],
        cwd=folder,
        env={**clean_env(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def published(folder: Path, run_id: str | None = None) -> dict[str, str]:
    """Return the SHA-256 of every file that was published, by its path without the run's id; pointers are left out."""
    found = {}
    for path in sorted((folder / "data").rglob("*")):
        place = path.relative_to(folder / "data")
        if not path.is_file() or place.parts[0] in {"raw", "manifests"} or path.name in POINTERS:
            continue
        run = next(part for part in place.parts if part.startswith("run="))
        if run_id is None or run == f"run={run_id}":
            key = "/".join("run" if part == run else part for part in place.parts)
            found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def poison(folder: Path, after: str) -> int:
    """Overwrite every snapshot that is newer than an instant with what is no Parquet; return how many there were."""
    from projections import program, snapshots

    limit = f"run_ts={program.instant(after).strftime(snapshots.FORM)}"
    newer = [path for path in (folder / "data" / "raw").glob("*/run_ts=*/*.parquet") if path.parent.name > limit]
    for path in newer:
        path.write_bytes(b"this must never be read")
    return len(newer)


def later_clock(folder: Path, *, days: int = 1) -> dict[str, str]:
    """Return the environment of a process whose clock is some days ahead, whatever it is written in."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler to lie about the time")
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_CLOCK % (days * 86_400))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def clock_of(env: Mapping[str, str]) -> float:
    """Return the time that a program sees in an environment."""
    argv = [sys.executable, "-c", "import time; print(time.time())"]
    return float(subprocess.run(argv, env={**clean_env(), **env}, capture_output=True, text=True, check=True).stdout)


class Runner:
    """Runs of a folder's job live-score, asked for as Prefect does, without a server: the steps are plain threads."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.folder = folder
        self.catalog = toml_files.load(folder / "config")
        self.tree = Manifests(str(folder / "data"))
        self.log: list[str] = []
        self._now = now

    def run(
        self,
        flow_run: str = "one",
        *,
        day: str = DAY,
        as_of: str = AS_OF,
        execution: Literal["command", "steps"] | None = None,
        attempt: int = 1,
        **more: Any,
    ) -> Outcome:
        """Serve one request for live-score."""
        instant = datetime.fromisoformat(as_of)
        request = Request(
            job="live-score",
            digest=self.catalog.digest,
            flow_run_id=flow_run,
            expected_start=instant,
            attempt=attempt,
            slot=None,
            trigger="manual",
            game_date=date.fromisoformat(day),
            as_of=instant,
            execution=execution,
            **more,
        )
        return execute(request, self._host(), self.log.append)

    def _host(self) -> Host:
        state = self.folder / "state"
        return Host(
            applied=self,
            owners=Told(None),
            claims=Claims(state),
            locks=Locks(state),
            manifests=Manifests,
            place=host_facts.here,
            git_sha=lambda _: None,
            find_outputs=host_facts.find_outputs,
            environment=clean_env(),
            now=self._now,
            as_of=AsOf(clean_env()).instant,
        )

    def read(self, digest: str) -> Catalog | None:
        """Return the catalog, as what was applied."""
        return self.catalog if digest == self.catalog.digest else None
