"""The fields of crontab lines: their instants counted by hand, by cronsim, and by the Prefect that is installed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from cronsim import CronSim

from orchctl.adapters.prefect_rule import PrefectRule
from orchctl.core import catalog_build, cron_fields
from orchctl.core import schedules as schedules_of
from orchctl.core.cron_fields import Fields

START, END = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 5, 1, tzinfo=UTC)
LINES = 120


def counted(fields: Fields) -> list[int]:
    """Return the instants of Vixie's rule, minute by minute of each day that matches."""
    found = []
    day = START
    while day < END:
        of_month, of_week = day.day in fields.days, (day.weekday() + 1) % 7 in fields.weekdays
        if day.month in fields.months and (of_month or of_week if fields.either else of_month and of_week):
            found += [
                int((day + timedelta(hours=hour, minutes=minute)).timestamp())
                for hour in sorted(fields.hours)
                for minute in sorted(fields.minutes)
            ]
        day += timedelta(days=1)
    return found


def element(draw: random.Random, low: int, high: int, names: Sequence[str] = ()) -> str:
    first = draw.randint(low, high)
    last = draw.randint(first, high)
    kind = draw.random()
    if kind < 0.1:
        return "*"
    if kind < 0.3:
        return f"*/{draw.randint(1, (high - low) * 3 // 2 + 1)}"
    if kind < 0.5:
        return f"{first}-{last}" + (f"/{draw.randint(1, 12)}" if draw.random() < 0.4 else "")
    if kind < 0.7 and names:
        spelt = [names[number - low] for number in (first, last) if number - low < len(names)]
        return draw.choice([str.upper, str.lower])("-".join(spelt)) if spelt else str(first)
    return f"{first:0{draw.randint(1, 2)}d}"


def line(draw: random.Random) -> list[str]:
    """Return five fields, few minutes and hours, often both kinds of day."""

    def field(low: int, high: int, names: Sequence[str] = ()) -> str:
        return ",".join(element(draw, low, high, names) for _ in range(draw.choice([1, 1, 1, 2, 3])))

    months = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
    days = "sun mon tue wed thu fri sat".split()  # noqa: SIM905
    return [
        field(0, 59) if draw.random() < 0.2 else "0",
        str(draw.randint(0, 23)),
        field(1, 31) if draw.random() < 0.6 else "*",
        field(1, 12, months) if draw.random() < 0.3 else "*",
        field(0, 7, days) if draw.random() < 0.5 else "*",
    ]


def lines() -> Iterator[tuple[list[str], Fields]]:
    draw = random.Random(20260315)
    made = 0
    while made < LINES:
        words = line(draw)
        try:
            fields = cron_fields.read(words)
        except ValueError as error:
            if "never fires" not in str(error):
                raise
            continue
        made += 1
        yield words, fields


def test_cronsim_reads_the_plain_fields_as_cron_does() -> None:
    for words, fields in lines():
        simulated = CronSim(cron_fields.plain(words), START - timedelta(seconds=1))
        found = []
        while (moment := next(simulated)) < END:
            found.append(int(moment.timestamp()))
        assert found == counted(fields), words


def to_prefect(keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the schedules that the catalog makes of the keys of one schedule's table."""
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    schedules = f'version = 1\ntimezone = "UTC"\n[schedules.x]\n{text}'
    catalog = catalog_build.build(("jobs.toml", "version = 1\n"), ("schedules.toml", schedules))
    return [schedules_of.to_prefect(one) for one in catalog.schedules["x"]]


def test_the_schedule_has_crons_instants_as_prefect_counts_them() -> None:
    cases: list[tuple[list[str], Fields, str | None, list[dict[str, Any]]]] = []
    kinds: set[str] = set()
    for words, fields in lines():
        keys, lost = cron_fields.cadence([(fields, cron_fields.plain(words))])
        kinds |= keys.keys()
        cases.append((words, fields, lost, to_prefect(keys)))
    with PrefectRule(os.environ).asked([one for *_, some in cases for one in some], START, END) as answer:
        answers = iter(answer())
    for words, fields, lost, some in cases:
        instants = sorted(instant for _ in some for instant in next(answers))
        assert instants == counted(fields) or lost is not None, (words, some)
    assert kinds == {"cron", "on_calendar"}


# (line, keys): what Prefect's cron would read otherwise is said in systemd's words.
@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("*/5 8-23 * * *", {"cron": "*/5 8-23 * * *"}),
        ("0 9 * * mon-fri", {"cron": "0 9 * * mon-fri"}),
        ("0 0 13 * 5", {"cron": "0 0 13 * 5"}),
        ("0 0 1-31 * 1", {"cron": "0 0 * * *"}),
        ("0 0 31 4 1", {"cron": "0 0 * 4 1"}),
        ("5-5/10 0-23 * * 0-7", {"cron": "5 * * * *"}),
        ("0 0 */2 * 1", {"on_calendar": f"Mon *-*-{','.join(f'{day:02d}' for day in range(1, 32, 2))} 00:00:00"}),
        ("0 0 1-7 * *", {"cron": "0 0 1-7 * *"}),
        ("0 0 1-7 * */7", {"on_calendar": "Sun *-*-01..07 00:00:00"}),
        ("0 18 */5 * *", {"on_calendar": ["*-*-01,06,11,16,21,26 18:00:00", "*-*-31 18:00:00"]}),
        ("0 18 1,31 3 *", {"cron": "0 18 1,31 3 *"}),
    ],
)
def test_how_a_line_is_said(text: str, keys: dict[str, object]) -> None:
    words = text.split()
    assert cron_fields.cadence([(cron_fields.read(words), cron_fields.plain(words))]) == (keys, None)


def test_a_day_that_prefect_loses_and_nothing_else_can_say_is_told() -> None:
    words = "0 0 1,31 * 1".split()  # noqa: SIM905
    keys, lost = cron_fields.cadence([(cron_fields.read(words), cron_fields.plain(words))])
    assert keys == {"cron": "0 0 1,31 * 1"}
    assert lost is not None


def together(*texts: str) -> dict[str, object]:
    found = [(cron_fields.read(text.split()), cron_fields.plain(text.split())) for text in texts]
    assert all(cron_fields.fit(one, other) for (one, _), (other, _) in pairwise(found))
    return cron_fields.cadence(found)[0]


def test_several_lines_become_one_expression_where_one_can_say_them() -> None:
    assert together("0 15 * * *", "0 21 * * *") == {"cron": "0 15,21 * * *"}
    assert together("0 15 * * *", "0 16 * * *", "0 17 * * *", "0 15 * * *") == {"cron": "0 15-17 * * *"}
    assert together("0 15 * * *", "30 18 * * *", "0 21 * * *") == {
        "on_calendar": ["*-*-* 15,21:00:00", "*-*-* 18:30:00"]
    }
    assert together("0 0 1 * 1", "0 0 2 * 1") == {"cron": "0 0 1,2 * 1"}


@pytest.mark.parametrize(
    ("one", "other", "fits", "overlaps"),
    [
        ("0 15 * * *", "30 18 * * *", True, False),
        ("0 15 * * *", "0 * * * *", True, True),
        ("*/30 * * * *", "0 15 * * *", False, True),
        ("0 15 1 * 1", "0 15 * * *", False, True),
        ("0 15 1 * 1", "0 16 1 * 1", True, False),
        ("0 15 1 * 1", "30 16 2 * 1", False, False),
        ("0 0 * * 1", "0 0 * * 2", True, False),
    ],
)
def test_which_lines_one_schedule_can_hold(one: str, other: str, fits: bool, overlaps: bool) -> None:
    left, right = cron_fields.read(one.split()), cron_fields.read(other.split())
    assert (cron_fields.fit(left, right), cron_fields.overlap(left, right)) == (fits, overlaps)
    assert (cron_fields.fit(right, left), cron_fields.overlap(right, left)) == (fits, overlaps)


def test_merging_changes_no_instant() -> None:
    draw = random.Random(7)
    pool = [fields for _, fields in lines()]
    for _ in range(25):
        some = draw.sample(pool, 3)
        before = {instant for fields in some for instant in counted(fields)}
        after = {instant for fields in cron_fields.merge(some) for instant in counted(fields)}
        assert after == before
