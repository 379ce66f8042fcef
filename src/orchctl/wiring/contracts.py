"""What checks contracts on files by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchctl import wiring
from orchctl.adapters import contract_process
from orchctl.core.contracts import Boundary, Checked


def check(boundaries: Sequence[Boundary], *, cwd: str | None) -> tuple[Checked, ...]:
    """Check in a process of its own, with modules found from `cwd`, None: from here. Ctrl-C ends it.

    Raises ContractsUnavailable, OrchctlError.
    """
    return contract_process.ask(boundaries, cwd=cwd or os.getcwd(), env=wiring.environment(), timeout_s=float("inf"))
