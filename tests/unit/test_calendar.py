"""systemd's calendar expressions as cron lines, against the instants that systemd itself computed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cron_instants import in_zone, instants
from orchctl.core.calendar import Cron, to_cron

CASES = Path(__file__).parents[1] / "data" / "calendar_cases.jsonl"
NEW_YORK = "America/New_York"


@cache
def cases() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines())


def valid() -> list[dict[str, Any]]:
    return [case for case in cases() if case["valid"]]


def converted(case: dict[str, Any]) -> Cron | None:
    try:
        return to_cron(case["expr"])
    except ValueError:
        return None


def differences(zone: str) -> list[str]:
    """The expressions whose cron line does not fire as systemd does, with the base date."""
    return [
        f"{case['expr']} ({date}): {got[:3]} is not {expected[:3]}"
        for case in valid()
        if (cron := converted(case)) is not None
        for date, expected in case["next20"][zone].items()
        if (got := fired(cron, zone, date, len(expected))) != expected
    ]


def fired(cron: Cron, zone: str, date: str, count: int) -> list[int]:
    base = datetime.fromisoformat(date).replace(tzinfo=UTC)
    return instants(cron, base, count) if zone == "UTC" else in_zone(cron, ZoneInfo(cron.timezone or zone), base, count)


def test_every_expression_that_systemd_refuses_is_refused() -> None:
    accepted = [case["expr"] for case in cases() if not case["valid"] and converted(case)]
    assert not accepted, f"{len(accepted)} of {len(cases()) - len(valid())} invalid expressions: {accepted}"


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK])
def test_what_is_converted_fires_exactly_when_systemd_does(zone: str) -> None:
    wrong = differences(zone)
    total = len(valid())
    assert not wrong, f"{len(wrong)} of {total} differ in {zone}:\n" + "\n".join(wrong)


def test_most_real_expressions_can_be_converted() -> None:
    counts = {
        kind: (sum(converted(case) is not None for case in of_kind), len(of_kind))
        for kind in ("real", "systemd-tests")
        if (of_kind := [case for case in valid() if case["class"] == kind])
    }
    message = f"converted of valid: {counts}"
    assert counts["real"][0] >= 226, message
    assert counts["systemd-tests"][0] >= 15, message


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("*-*-* 08..23:*:00/5", "seconds (00/5)"),
        ("*:*:*", "seconds (*)"),
        ("2026-09-01", "a year"),
        ("*-*~01", "counted from the end of the month"),
        ("@1493187147", "a single instant"),
        ("*-04,06-31", "never fires"),
        ("*-02-30", "never fires"),
        ("Sat..Mon 10:00", "does not wrap"),
        ("0/24:00", "never repeats"),
        ("*:0/0", "never repeats"),
        ("23..8:00", "outside 0..23"),
        ("*:60", "outside 0..59"),
        ("10:00 CET", "abbreviation"),
        ("*/5 * * * *", "not a calendar expression"),
        (" daily", "not a calendar expression"),
        ("10:00  Asia/Tokyo", "two blanks before the zone"),
        ("10:00:0..0", "seconds (0..0)"),
        ("1\u0660:00", "not a calendar expression"),
        ("", "not a calendar expression"),
    ],
)
def test_a_refusal_has_its_reason(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        to_cron(expression)


@pytest.mark.parametrize(
    ("expression", "cron"),
    [
        ("*-*-* 08..23:05,35:00", Cron("5,35 8-23 * * *", True, None)),
        ("Mon..Fri *-*-* 16..23:00/10", Cron("0,10,20,30,40,50 16-23 * * 1-5", True, None)),
        ("Fri *-*-13 12:00 Europe/Berlin", Cron("0 12 13 * 5", False, "Europe/Berlin")),
        ("Wed, 17:48", Cron("48 17 * * 3", True, None)),
        ("*-10..12/4-1", Cron("0 0 1 10 *", True, None)),
        ("semi-annually Utc", Cron("0 0 1 1,7 *", True, "UTC")),
        ("anually", Cron("0 0 1 1 *", True, None)),
        ("*-1..12-1..31", Cron("0 0 * * *", True, None)),
    ],
)
def test_conversions(expression: str, cron: Cron) -> None:
    assert to_cron(expression) == cron
