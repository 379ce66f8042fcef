"""What a handover works with, put together."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchctl.adapters import host_facts
from orchctl.adapters.claims import Claims, Locks
from orchctl.adapters.confirm_timer import ConfirmTimer
from orchctl.adapters.prefect_parse import parse_address
from orchctl.core.names import format_instant, run_id
from orchctl.errors import OrchctlError, PrefectUnreachable, StateBroken
from orchctl.services import observe
from orchctl.services.handover_steps import Hands
from orchctl.services.prefect_side import PrefectSide
from orchctl.services.slots_in_doubt import SlotsInDoubt

if TYPE_CHECKING:
    from orchctl.core.catalog import Catalog, Job
    from orchctl.wiring import App


def hands(app: App, *, patience: float | None) -> Hands:
    """Return it. `patience`: seconds that may be waited for Prefect in all, None: no bound."""
    state, here = app.settings.state_dir, host_facts.here()
    catalog = app.catalog_if_valid
    prefect = app.connect(app.api_url, attempts=5 if patience is None else 1, patience=patience)
    return Hands(
        owners=app.owners,
        handovers=app.handovers,
        timers=app.timer_switch,
        cron=app.cron_switch,
        confirm=app.confirm_timer,
        locks=Locks(state),
        prefect=PrefectSide(
            prefect, catalog.name if catalog is not None else None, app.now, time.monotonic, time.sleep
        ),
        slots=SlotsInDoubt(
            reader=app.systemd,
            rule=app.prefect_rule,
            claims=Claims(state),
            tree=app.tree,
            bring_in=lambda job, zone: observe.bring_in(job, zone, app.eyes),
            host_zone=app.host_zone,
            boot_id=here.boot_id,
            now=app.now,
        ),
        catalog=lambda job, digest: _catalog_of(app, catalog, job, digest),
        event=lambda event, job, data: _tell(app, event, job, data),
        new_id=lambda: run_id(app.now(), uuid.uuid4().hex),
        now=app.now,
        sleep=time.sleep,
        pid=here.pid,
        boot_id=here.boot_id,
    )


def confirm_timer(app: App, environment: Mapping[str, str]) -> ConfirmTimer:
    """Return the timers that roll jobs back by themselves: they run this same program, on the same folders.

    Everybody may read a unit: a key in the API's address stays out of it. A rollback needs none; Prefect's part is then
    owed, unless it is the server of `host install`, whose key is on the disk.
    """
    settings = app.settings
    places = ["--config", str(settings.config_dir), "--state-dir", str(settings.state_dir)]
    if settings.api_url is not None:
        with contextlib.suppress(PrefectUnreachable):  # One that cannot be used is of no use to a rollback either.
            places += ["--api-url", parse_address(settings.api_url).shown]
    return ConfirmTimer(
        app.systemd,
        lambda job: [sys.executable, "-m", "orchctl", *places, "rollback", job, "--yes"],
        {key: environment[key] for key in ("HOME", "SUDO_USER") if key in environment},
    )


def _catalog_of(app: App, catalog: Catalog | None, job: str, digest: str | None) -> Catalog | None:
    """Return a catalog that knows a job: the one of now, else the applied one of this digest."""
    if catalog is not None and job in catalog.jobs:
        return catalog
    try:
        held = app.applied.read(digest) if digest is not None else None
    except StateBroken:
        return None
    return held if held is not None and job in held.jobs else None


def _tell(app: App, event: str, job: Job | None, data: Mapping[str, Any]) -> None:
    """Append an event of a handover to those of the job's data root; a full disk is no reason to stop one."""
    if job is None:
        return
    try:
        app.tree(job.data_root).append({"ts": format_instant(app.now()), "event": event, **data})
    except OrchctlError:
        return
