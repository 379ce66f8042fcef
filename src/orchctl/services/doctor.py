"""`orchctl doctor`: every check of this host, each by itself, so that what is broken hides nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from orchctl.core import doctor as core
from orchctl.core.doctor import Check, Report
from orchctl.services import doctor_job_looks, doctor_looks
from orchctl.services.doctor_world import Seen, World

LOOKS = {**doctor_looks.LOOKS, **doctor_job_looks.LOOKS}
"""The look of every check, by its name."""


def examine(world: World, checks: Sequence[Check]) -> Report:
    """Make these checks and return what they found. Changes nothing; one that cannot look says so and why."""
    seen = Seen(world)
    return core.report(seen.now, [(check, partial(LOOKS[check.name], seen)) for check in checks])
