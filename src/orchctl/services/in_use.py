"""What of this host's server and workers runs: whatever of them does keeps a restore away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from orchctl.core.installation import Installation
from orchctl.core.legacy import Manager
from orchctl.errors import NotAllowed, PrefectUnreachable, SystemdUnavailable
from orchctl.services.ports import LegacyUnits, Prefect, StackHost

PATIENCE_S = 5.0
"""Seconds to wait for an answer of a server that should be down."""
_AT_REST = frozenset({"inactive", "failed"})


def running(
    stack: StackHost, units: LegacyUnits, installed: Installation | None, connect: Callable[[str], Prefect]
) -> tuple[str, ...]:
    """Return what runs, in words; nothing: the host is at rest.

    Raises what systemd answers where it cannot be asked about the units of an installation, unless there is none.
    """
    found = [f"{name} runs (pid {pid})" for name in stack.names() if (pid := stack.pid(name)) is not None]
    if guards := stack.guards():
        found.append(f"{guards} of this host's runs are going")
    if installed is not None:
        found += _units(units, installed)
    url = installed.api_url if installed is not None else stack.api_url()
    if not found and url is not None and (installed is None or installed.server):
        found += _answers(connect, url)
    return tuple(found)


def _units(units: LegacyUnits, installed: Installation) -> list[str]:
    names = [path.rpartition("/")[2] for path in installed.units if path.endswith(".service")]
    if not names:
        return []
    manager = Manager(installed.scope, installed.user if installed.scope == "user" else None)
    try:
        services = units.read(manager, names).services
    except SystemdUnavailable as error:
        if error.absent:
            return []
        raise
    return [
        f"{name} is {services[name].active}"
        for name in names
        if name in services and services[name].active not in _AT_REST
    ]


def _answers(connect: Callable[[str], Prefect], url: str) -> list[str]:
    prefect = connect(url)
    with contextlib.suppress(PrefectUnreachable):
        # Whoever refuses to talk to us is a server that runs.
        with contextlib.suppress(NotAllowed):
            prefect.version()
        return [f"a server answers at {prefect.shown}"]
    return []
