"""When Prefect's own code says that a schedule is due: what conversions are compared with."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from unittest import mock

from prefect.server.schemas import schedules as rules


def due(schedule: Mapping[str, Any], after: int, *, until: int | None = None, count: int | None = None) -> list[int]:
    """Return the epoch seconds after `after`, up to, and without, `until`, or the first `count` of them.

    `schedule` is JSON of Prefect's API. One call of `get_dates`, so that it does not depend on where calls begin.
    """
    return list(_due(json.dumps(schedule, sort_keys=True), after, until, count))


@cache
def _due(schedule: str, after: int, until: int | None, count: int | None) -> tuple[int, ...]:
    # Prefect's limit of 1000 instants a call would cut a window short.
    with mock.patch.object(rules, "MAX_ITERATIONS", sys.maxsize // 2):
        start = datetime.fromtimestamp(after + 1, UTC)
        end = None if until is None else datetime.fromtimestamp(until - 1, UTC)
        found = asyncio.run(_rule(json.loads(schedule)).get_dates(count, start, end))
    return tuple(sorted({int(moment.timestamp()) for moment in found}))


def _rule(schedule: dict[str, Any]) -> Any:
    kinds: dict[str, Any] = {
        "cron": rules.CronSchedule,
        "interval": rules.IntervalSchedule,
        "rrule": rules.RRuleSchedule,
    }
    (kind,) = kinds.keys() & schedule
    return kinds[kind].model_validate(schedule)
