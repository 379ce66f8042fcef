"""What a backfill works with, put together."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from orchctl.adapters import host_facts, host_lock, inputs
from orchctl.adapters.backfills import Backfills
from orchctl.services.backfill import World

if TYPE_CHECKING:
    from orchctl.core.backfill import Asked
    from orchctl.wiring import App


def world(app: App) -> World:
    """Return it."""
    return World(
        catalog=app.catalog,
        prefect=app.prefect,
        applied=app.applied,
        tree=partial(Backfills, trust=app.trusted),
        disk=inputs,
        as_of=app.instant_of,
        living=host_facts.flow_runs_here,
        worker_name=app.stack.worker_name,
        now=app.now,
        sleep=time.sleep,
    )


def alone(app: App, asked: Asked) -> AbstractContextManager[None]:
    """Return what keeps a second client of this host from submitting the same backfill. Raises Locked on entry."""
    return host_lock.held(app.settings.state_dir, f"backfill {asked.job}", lock=f"backfills/{asked.id(0)}")
