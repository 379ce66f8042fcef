"""The contracts at the boundaries of a step, checked as the step's own user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchctl.adapters import contract_process
from orchctl.core.contracts import Boundary, Checked

if TYPE_CHECKING:
    from orchctl.adapters.accounts import Account
    from orchctl.runner.process import StopEvent

__all__ = ["Boundary", "check"]


def check(
    boundaries: Sequence[Boundary],
    *,
    cwd: str,
    env: Mapping[str, str],
    timeout_s: float,
    stop: StopEvent | None = None,
    account: Account | None = None,
) -> tuple[Checked, ...]:
    """Check all boundaries in one process and return what came of each file; see `contract_process.ask`.

    `account` is the user it runs as, None for ours: a schema's module is the pipeline's code. Raises
    ContractsUnavailable where Polars or Pandera is missing, OrchctlError for a time-out, a stop or a crash.
    """
    return contract_process.ask(
        boundaries,
        cwd=cwd,
        env=env,
        timeout_s=timeout_s,
        stopped=stop.is_set if stop is not None else lambda: False,
        identity=account.identity if account is not None else None,
    )
