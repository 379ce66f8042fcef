"""A Prefect server on a copy of a database, for a look: on 127.0.0.1, behind a password of its own, and without any of
the services that schedule, mark, trigger or clean. No worker knows of it.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchctl.adapters import files
from orchctl.adapters.local_stack import SERVER, LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.adapters.prefect_http import PAGE
from orchctl.core.backup import COUNTED, OpenRun
from orchctl.core.installation import AUTH_CLIENT, AUTH_SERVER, ENCRYPTION_KEY
from orchctl.core.mask import Masker
from orchctl.core.names import parse_instant
from orchctl.errors import OrchctlError, PrefectUnreachable

PATIENCE_S = 180.0
"""Seconds a server may take to answer: 37 were seen under load, and a migration comes before."""
_STOP_S = 20.0
_POLL_S = 0.25
_OPEN = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")
# `--no-services` leaves the services out already; a later Prefect may start one all the same.
_QUIET = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}


class ScratchServer:
    """What a server that only answers says of its database."""

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    def counts(self) -> dict[str, int]:
        """Return how many there are of each kind, as the API counts."""
        paths = {name: "block_documents" if name == "blocks" else name for name in COUNTED}
        return {name: self._api.shaped(int, self._ask(f"/{path}/count", {})) for name, path in paths.items()}

    def read_blocks(self) -> int:
        """Read every block, which the server must decrypt for that; return how many. Raises PrefectApiError."""
        offset = 0
        while rows := self._rows("/block_documents/filter", {"offset": offset, "limit": PAGE}):
            offset += len(rows)
        return offset

    def open_runs(self) -> Iterator[OpenRun]:
        """Return the flow runs that have not ended. All are read before the first is given."""
        runs: list[OpenRun] = []
        wanted = {"state": {"type": {"any_": list(_OPEN)}}}
        while rows := self._rows(
            "/flow_runs/filter", {"flow_runs": wanted, "sort": "ID_DESC", "offset": len(runs), "limit": PAGE}
        ):
            runs += [self._api.shaped(_open_run, row) for row in rows]
        return iter(runs)

    def end_run(self, run: OpenRun, why: str) -> None:
        """End a run as crashed where it was going, else as cancelled: the server frees the places that it held."""
        crashed = run.type not in {"SCHEDULED", "PAUSED"}
        self._api.set_run_state(run.id, type="CRASHED" if crashed else "CANCELLED", message=f"restored: {why}")

    def free_places(self) -> tuple[str, ...]:
        """Make all places of concurrency limits free, for nothing runs that could hold one; return whose were taken."""
        taken, offset = [], 0
        while rows := self._rows("/v2/concurrency_limits/filter", {"offset": offset, "limit": PAGE}):
            offset += len(rows)
            taken += [(str(row["id"]), str(row["name"])) for row in rows if row.get("active_slots")]
        for limit, _ in taken:
            self._api.update_limit(limit, {"active_slots": 0})
        return tuple(sorted(name for _, name in taken))

    def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._api.request("POST", path, body)

    def _rows(self, path: str, body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return self._api.shaped(list, self._ask(path, body))


def _open_run(row: Mapping[str, Any]) -> OpenRun:
    instant = row.get("expected_start_time")
    return OpenRun(
        id=str(row["id"]),
        name=str(row["name"]),
        type=str(row["state"]["type"]),
        scheduled_for=None if instant is None else parse_instant(str(instant)),
        by_schedule=bool(row["auto_scheduled"]),
    )


@contextmanager
def running(
    folder: Path, database: str, environment: Mapping[str, str], encryption_key: str | None
) -> Iterator[ScratchServer]:
    """Start one, with its home and log in `folder`; it is stopped, and `folder` removed, at the end.

    `database` is the URL of a copy, which it migrates to the tables of this Prefect. `encryption_key` opens blocks
    where the database holds no key itself. Raises OrchctlError with the last lines of its log where it does not answer.
    """
    password = f"orchctl:{secrets.token_urlsafe(24)}"
    kept = {key: value for key, value in environment.items() if not key.startswith(("PREFECT_", "ORION_"))}
    quiet = {**kept, **_QUIET, AUTH_SERVER: password, AUTH_CLIENT: password}
    if encryption_key is not None:
        quiet[ENCRYPTION_KEY] = encryption_key
    _clean(folder)
    files.make_private(folder)
    stack = LocalStack(folder, quiet)
    try:
        url = stack.start_server(0, database=database, services=False)
        with PrefectApi(url=url, auth_string=password) as api:
            _wait(stack, url, password, Masker.of(quiet))
            yield ScratchServer(api)
    finally:
        stack.stop(SERVER, patience_s=_STOP_S)
        shutil.rmtree(folder, ignore_errors=True)


def _clean(folder: Path) -> None:
    """Stop what a killed process left running in `folder`, and remove it."""
    LocalStack(folder, {}).stop(SERVER, patience_s=_STOP_S)
    shutil.rmtree(folder, ignore_errors=True)


def _wait(stack: LocalStack, url: str, password: str, masker: Masker) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with PrefectApi(url=url, auth_string=password, attempts=1) as api:
                api.version()
            return
        except PrefectUnreachable as error:
            if time.monotonic() >= deadline or stack.pid(SERVER) is None:
                tail = masker.mask(stack.log_tail(SERVER))
                raise OrchctlError(
                    f"a server on the copy of the database does not answer\n{tail}".rstrip(),
                    hint="the archive may be of another Prefect than this one",
                ) from error
        time.sleep(_POLL_S)
