"""What carrying out a change to a deployment means: the fields to send, the scheduled runs that go with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from orchctl.core.deployments import MANAGED, Desired
from orchctl.core.plan import NEEDS_RECREATE, Change
from orchctl.core.remote import RemoteRun

# Sent together, for the server checks them together: a queue belongs to its pool, parameters to their schema.
_TOGETHER = (
    frozenset({"work_pool", "work_queue"}),
    frozenset({"parameters", "parameter_schema", "enforce_parameter_schema"}),
)


def patch_fields(change: Change, target: Desired) -> dict[str, Any]:
    """Return the managed fields that a PATCH for `change` must send, with those that only make sense together."""
    names = {item.field for item in change.fields if not item.field.startswith("job.")} - NEEDS_RECREATE
    for group in _TOGETHER:
        if names & group:
            names |= group
    return {name: target.fields[name] for name in MANAGED if name in names}


def split_runs(
    runs: Iterable[RemoteRun], change: Change, *, now: datetime
) -> tuple[tuple[RemoteRun, ...], tuple[RemoteRun, ...]]:
    """Split a deployment's scheduled runs into those that `change` deletes and those that it keeps.

    The rule is Prefect's own (`_delete_scheduled_runs`): made by a schedule, never started, not waiting for a
    concurrency slot, and due in the future; where a schedule is deleted in place, late ones too. Deleting a
    deployment takes the runs made by hand with it.
    """
    drops_schedule = change.action == "update" and any(item.action == "delete" for item in change.schedules)
    late_too = change.action == "delete" or drops_schedule
    deleted: list[RemoteRun] = []
    kept: list[RemoteRun] = []
    for run in runs:
        waits = run.run_count == 0 and run.state_name != "AwaitingConcurrencySlot"
        due_later = run.expected_start is not None and run.expected_start > now
        goes = waits and (run.auto_scheduled or change.action == "delete") and (late_too or due_later)
        (deleted if goes else kept).append(run)
    return tuple(deleted), tuple(kept)
