"""Whose state and catalog a command of root's is about: `sudo orchctl rollback` means what its caller handed over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl import wiring
from orchctl.core.installation import RECOVER_TIMER

if TYPE_CHECKING:
    from orchctl.core.installation import Installation


class _Acting(wiring.App):
    """The app of whom root acts for. `named` is what the command line and the environment say."""

    def __init__(self, settings: wiring.Settings, environment: Mapping[str, str], named: wiring.Settings) -> None:
        super().__init__(settings, environment)
        self.named = named


def acting(app: wiring.App, user: str | None = None) -> wiring.App:
    """Return the app of whom root acts for, with that user's state and catalog. Repeatable.

    That is `user`, else whose installation the system's units are, else who called sudo. What the command line or the
    environment names stays; for everybody else it is `app` itself. Raises OrchctlError where there is no such user.
    """
    environment = wiring.environment()
    installed = Path("/etc/systemd/system", RECOVER_TIMER)
    if os.geteuid() != 0 or (user is None and "SUDO_USER" not in environment and not installed.exists()):
        return app
    from orchctl.adapters import host_facts
    from orchctl.adapters.host_units import state_dir_of_system_units

    settings = named = app.named if isinstance(app, _Acting) else app.settings
    by_default = "state_dir" not in settings.named
    found = state_dir_of_system_units() if user is None and by_default else None
    its = _believed(Path(found)) if found is not None else None
    user = user or (its.user if its is not None else environment.get("SUDO_USER") or "root")
    if user == "root" and found is None:
        return app
    theirs = wiring.Settings.of({"HOME": host_facts.account(user).pw_dir})
    if by_default:
        settings = replace(settings, state_dir=Path(found) if found is not None else theirs.state_dir)
    if "config_dir" not in settings.named and not (settings.config_dir / "jobs.toml").exists():
        settings = replace(settings, config_dir=Path(its.config_dir) if its is not None else theirs.config_dir)
    return _Acting(settings, environment, named)


def _believed(state_dir: Path) -> Installation | None:
    """Return the installation, None also where its record cannot be believed: a rollback works without."""
    from orchctl.adapters.installed import Installed
    from orchctl.errors import StateBroken

    try:
        return Installed(state_dir).read()
    except StateBroken:
        return None
