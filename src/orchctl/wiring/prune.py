"""What pruning works with, put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchctl.adapters import host_lock
from orchctl.adapters.retention import Marks
from orchctl.adapters.run_folders import RunFolders
from orchctl.services.prune_ports import World
from orchctl.wiring import backup

if TYPE_CHECKING:
    from orchctl.wiring import App

_LOCK = "host-prune"
"""Of its own: a handover does not wait for a long prune."""


def world(app: App, say: Callable[[str], None]) -> World:
    """Return what pruning works with. The server is asked only where its history is wanted."""
    state_dir = app.settings.state_dir
    return World(
        catalog=app.catalog,
        prefect=lambda: app.prefect,
        applied=app.applied,
        folders=lambda root: RunFolders(root, trust=app.trusted),
        claims=app.claims,
        handovers=app.handovers,
        owners=app.owners,
        marks=Marks(state_dir),
        alone=lambda command: host_lock.held(state_dir, command, lock=_LOCK),
        exclusive=app.exclusive,
        unfinished_restore=lambda: backup.unfinished_restore(app),
        now=app.now(),
        monotonic=time.monotonic,
        sleep=time.sleep,
        say=say,
    )
