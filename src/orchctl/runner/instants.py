"""`python -m orchctl.runner.instants`: when Prefect's own rules say that schedules are due.

Reads `{"schedules": [...], "start": …, "end": …, "count": …}` from stdin: schedules in the JSON of Prefect's API,
instants in RFC 3339, `end` or `count` may be null. Prints a JSON list of epoch seconds for each schedule: those from
`start` up to, and without, `end`, at most `count`. A process of its own, for the command line never imports prefect.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from prefect.server.schemas import schedules as rules
from pydantic import BaseModel, ValidationError

_KINDS: Mapping[str, type[BaseModel]] = {"cron": rules.CronSchedule, "interval": rules.IntervalSchedule}
# A call ends by itself after this many candidates.
_A_CALL = rules.MAX_ITERATIONS
REFUSED = 3
"""Exit code: Prefect does not take one of the schedules; stderr says why."""


def instants(schedule: Mapping[str, Any], start: datetime, end: datetime | None) -> Iterator[int]:
    """Yield the instants of one schedule as the server's scheduler computes them, in order, none twice.

    Raises ValidationError where Prefect does not take the schedule.
    """
    kind = next((rule for key, rule in _KINDS.items() if key in schedule), rules.RRuleSchedule)
    rule: Any = kind.model_validate(dict(schedule))
    last = int(start.timestamp()) - 1
    while True:
        size = 0
        for moment in rule._get_dates_generator(n=sys.maxsize, start=start, end=end):
            stamp = int(moment.timestamp())
            # `end` is inclusive there; and while clocks are set back an answer may lie before `start`.
            if end is not None and stamp >= end.timestamp():
                return
            size += 1
            if stamp > last:
                last = stamp
                yield stamp
        if size < _A_CALL:
            return
        start = datetime.fromtimestamp(last, start.tzinfo) + timedelta(seconds=1)


def main() -> int:
    """Answer one request."""
    # Prefect's answer around a change of clocks depends on where a call begins: let the first one go on to the end.
    # Not the largest number there is: Prefect 3.9 adds to it.
    rules.MAX_ITERATIONS = sys.maxsize // 2
    request = json.load(sys.stdin)
    start = datetime.fromisoformat(request["start"])
    end = datetime.fromisoformat(request["end"]) if request["end"] else None
    try:
        found = [list(itertools.islice(instants(each, start, end), request["count"])) for each in request["schedules"]]
    except ValidationError as error:
        sys.stderr.write("; ".join(str(each["msg"]) for each in error.errors()))
        return REFUSED
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
