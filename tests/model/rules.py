"""The protocol as the model plays it. The defaults are the protocol; a mutant is another value of one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchctl.core import handover as protocol
from orchctl.core.handover import Step

Order = tuple[Step, ...]


@dataclass(frozen=True)
class Rules:
    """What holds together make the invariants. Each field but the orders is one habit of the code."""

    order: Callable[..., Order] = protocol.order
    change: Callable[[Order], Order] = lambda order: order
    """What a mutant makes of an order."""
    host_lock: bool = True
    job_lock_is_held: bool = True
    second_look: bool = True
    looks_at_legacy: bool = True
    looks_when_locked: bool = True
    """A run that does not get the lock asks whether a handover has it, which is not `skipped`."""
    claims_are_exclusive: bool = True
    since_after_appearance: bool = True
    """The owner file appears before its `since`, or, where there is a crontab line, owning nothing: then its `since` is
    the instant at which the slots in doubt are granted.
    """
    grants: bool = True
    grant_waits: bool = True
    """The slots in doubt are looked for when no legacy start is on its way."""
    release_waits: bool = True
    """The owner file goes when no legacy start is on its way: one that a timer's return set off would pass."""
    owed_waits: bool = True
    owed_looks: bool = True
    """What legacy ran is not owed."""
    owed_from_grants: bool = True
    """A rollback remembers granted slots, and those in doubt, not only those from `since` on."""
    owed_is_seen: bool = True
    """What is owed is done when it has begun, not when it was asked for."""
    skipped_is_not_run: bool = True
    remembers_over_boots: bool = True
    """When legacy ran last is known after a reboot too."""
    cron_is_known: bool = True
    """Until when the crontab line stood is known: cron ran the slots up to there."""
    waits_for_end: bool = True
    lets_handover_be_finished: bool = True
    """A cutover is refused while a handover is unfinished."""
    takes_over_journal: bool = True
    """A rollback of an unfinished cutover opens its own journal."""
    fence_is_loaded: bool = True
    removes_links: bool = True
    restores_links: bool = True
    clears_runs: bool = True
    owes: bool = True
    """What needs Prefect's API waits for it, and nothing waits for that."""
