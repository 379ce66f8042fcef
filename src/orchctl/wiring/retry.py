"""The parts of `orchctl runs retry`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchctl.adapters import host_facts
from orchctl.services.retry import Rest, World

if TYPE_CHECKING:
    from orchctl.wiring import App


def world(app: App) -> World:
    """Return what a retry works with."""
    return World(
        catalog=app.catalog,
        prefect=app.prefect,
        applied=app.applied,
        owner_of=app.owners.read,
        claims=app.claims,
        rest=Rest(host_facts.flow_runs_here, app.now, time.sleep),
    )
