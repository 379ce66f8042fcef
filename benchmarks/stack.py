"""A Prefect server of the benchmark's own, and catalogs for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.harness import Options, clean_env, folder
from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.services import stack

POOL = "bench"


@dataclass(frozen=True)
class Place:
    """A temporary folder with a running server and, where it was asked for, a worker of pool `bench`."""

    base: Path
    url: str
    host: LocalStack

    @property
    def state(self) -> Path:
        return self.base / "state"

    def api(self, **settings: Any) -> PrefectApi:
        return PrefectApi(url=self.url, **settings)

    def env(self, config: Path) -> dict[str, str]:
        """Return the environment of a command that works with this server and the catalog in `config`."""
        return clean_env(
            PREFECT_API_URL=self.url,
            PREFECT_HOME=str(self.base / "home"),
            ORCHCTL_STATE_DIR=str(self.state),
            ORCHCTL_CONFIG=str(config),
        )


@contextlib.contextmanager
def running(options: Options, *, worker: bool, **environment: str) -> Iterator[Place]:
    """Yield a server that schedules, on a free port of 127.0.0.1; stopped and gone afterwards."""
    with folder() as base:
        host = LocalStack(base / "state", clean_env(**environment))
        try:
            with contextlib.ExitStack() as clients:
                found = stack.up(
                    host,
                    lambda url: clients.enter_context(PrefectApi(url=url, attempts=1)),
                    {POOL: 10} if worker else {},
                    port=0,
                    external_url=None,
                    clock=stack.Clock(time.monotonic, time.sleep, lambda: datetime.now(UTC)),
                    say=options.say,
                )
            yield Place(base, found.api_url, host)
        finally:
            stack.down(host, stack.Clock(time.monotonic, time.sleep, lambda: datetime.now(UTC)), options.say)


def write_catalog(
    folder: Path, jobs: Mapping[str, Any], schedules: Mapping[str, Any], *, data_root: Path, name: str = "bench"
) -> Path:
    """Write a catalog's two files and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data_root.mkdir(parents=True, exist_ok=True)
    defaults = {"data_root": str(data_root), "working_directory": str(data_root), "work_pool": POOL}
    whole = {"version": 1, "name": name, "defaults": defaults, "jobs": jobs}
    (folder / "jobs.toml").write_text(tomli_w.dumps(whole))
    (folder / "schedules.toml").write_text(tomli_w.dumps({"version": 1, "timezone": "UTC", "schedules": schedules}))
    return folder
