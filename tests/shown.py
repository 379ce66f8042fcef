"""A timer as `systemctl show` tells it, for tests without a systemd."""

from __future__ import annotations

from orchctl.core import systemd_show
from orchctl.core.legacy import SYSTEM, Manager, Timer


def timer(*lines: str, manager: Manager = SYSTEM, load: str = "loaded", active: str = "active") -> Timer:
    """Return the timer `a.timer` with further `Property=value` lines."""
    text = "\n".join(("Id=a.timer", f"LoadState={load}", f"ActiveState={active}", "Unit=a.service", *lines))
    return systemd_show.units_of(text, manager).timers["a.timer"]
