"""Real timers of public repositories and Debian packages: each is imported or refused, and the reason is true."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from box import Box
from conftest import ROOT

CORPUS = [json.loads(line) for line in (ROOT / "tests/data/timers.jsonl").read_text().splitlines()]
SPANS = {
    "on_boot_sec": "OnBootSec",
    "on_startup_sec": "OnStartupSec",
    "on_active_sec": "OnActiveSec",
    "on_unit_active_sec": "OnUnitActiveSec",
    "on_unit_inactive_sec": "OnUnitInactiveSec",
}
SETTINGS = {
    "persistent": "Persistent",
    "randomized_delay": "RandomizedDelaySec",
    "fixed_random_delay": "FixedRandomDelay",
    "accuracy": "AccuracySec",
    "wake_system": "WakeSystem",
}
SERVICE = "[Service]\nType=oneshot\nExecStart=/bin/true\n"


class Row:
    """One timer of the corpus as it is installed: under a name of its own, a template as an instance `one`."""

    def __init__(self, number: int, data: dict[str, Any]) -> None:
        self.data = data
        self.prefix = f"c{number:03}-"
        self.file = self.prefix + re.sub(r"\.timer\.(j2|in)\Z", ".timer", data["unit"])
        self.timer = self.file.replace("@.", "@one.")
        self.unit = self.data["unit_directive"] or ""
        if self.unit.endswith(".service"):
            self.unit = self.prefix + self.unit

    def text(self) -> str:
        lines = [
            "[Unit]",
            *(f"Requires={self.prefix}{self.data['unit'].replace('.timer', '.service')}",) * self.requires,
            *self.conditions,
        ]
        lines += ["[Timer]", *(f"OnCalendar={line}" for line in self.data["on_calendar"])]
        lines += [f"{name}={span}" for key, name in SPANS.items() for span in self.data[key]]
        lines += [f"{name}={self.data[key]}" for key, name in SETTINGS.items() if self.data[key] is not None]
        lines += [f"{key}=daily" for key in self.data["unknown_keys"]]
        return "\n".join([*lines, *([f"Unit={self.unit}"] if self.unit else []), ""])

    @property
    def requires(self) -> bool:
        return "Requires" in self.data["pulls_service_on_start"]

    @property
    def conditions(self) -> list[str]:
        """What must hold for the timer to start; a template's word for its instance is left out."""
        lines = self.data["unit_section"].get("Conditions", [])
        return [line for line in lines if "%" not in line]

    @property
    def services(self) -> set[str]:
        """The files of the services that it may start."""
        own = self.file.replace(".timer", ".service")
        named = self.unit.replace("%i.", ".")
        return {own, *([named] if named.endswith(".service") else [])}


def normalized(expression: str) -> str | None:
    """Return what systemd makes of an expression, None where it cannot read it."""
    argv = ["systemd-analyze", "calendar", expression]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = re.search(r"Normalized form: (.*)", done.stdout)
    original = re.search(r"Original form: (.*)", done.stdout)
    return found[1] if found else original[1] if original else None


def seconds(span: str) -> float:
    done = subprocess.run(["systemd-analyze", "timespan", span], capture_output=True, text=True, check=True)
    found = re.search(r"μs: (\d+)", done.stdout)
    assert found is not None, done.stdout
    return int(found[1]) / 1e6


def expected(row: Row) -> tuple[str, str]:
    """Return what must come of a timer, judged by its text and by systemd-analyze, and a part of what is said."""
    data = row.data
    calendars = [normalized(line) for line in data["on_calendar"]]
    if not any(calendars) and not any(data[key] for key in SPANS):
        return "refused", "bad-setting"
    if row.unit and not row.unit.endswith(".service"):
        return "refused", "which is no service"
    if any(calendars):
        return "calendar", ""
    if data["on_unit_inactive_sec"]:
        return "no schedule", "counts from the end of each run"
    if data["on_unit_active_sec"]:
        return "interval", ""
    return "no schedule", "is no cadence"


@pytest.fixture
def rows(box: Box) -> list[Row]:
    found = [Row(number, data) for number, data in enumerate(CORPUS)]
    place = box.share / "units"
    place.mkdir()
    for row in found:
        (place / row.file).write_text(row.text())
        for service in row.services:
            (place / service).write_text(SERVICE)
    box.unit("first.service", SERVICE)
    box.sh("cp -- $1/* /etc/systemd/system/ && rm -r -- $1", place)
    box.reload()
    return found


def test_every_timer_is_imported_or_refused_with_the_true_reason(
    box: Box, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = box.share / "corpus"
    names = ("--config", str(folder), "--state-dir", str(folder / "state"))
    words = ["import", "systemd", "--scope", "system", "--write", "--json", *(row.timer for row in rows)]
    done = box.orchctl(*names, *words)
    assert done.returncode == 4, done.stderr or done.stdout[-2000:]
    said = json.loads(done.stdout)["data"]
    refused = {each["what"].partition(" ")[0]: each["reason"] for each in said["refused"]}
    jobs = {trigger["timer"]: job for job in said["jobs"] for trigger in job["legacy"]}
    written = tomllib.loads((folder / "schedules.toml").read_text())["schedules"]
    assert {row.timer for row in rows} == refused.keys() | jobs.keys()
    assert not refused.keys() & jobs.keys()
    counts: Counter[str] = Counter()
    for row in rows:
        counts[judged(row, refused.get(row.timer), jobs.get(row.timer), written)] += 1
    assert box.orchctl(*names, "check").returncode == 0
    with capsys.disabled():
        print(f"\n{len(rows)} real timers: {dict(counts)}")
    box.sh("rm -rf -- $1", folder)


def judged(row: Row, reason: str | None, job: dict[str, Any] | None, written: dict[str, Any]) -> str:
    """Check one answer against the timer's own text; return which kind it is."""
    kind, part = expected(row)
    if kind == "refused":
        assert reason is not None, (row.timer, job)
        assert part in reason, (row.timer, reason)
        return f"refused: {part}"
    assert job is not None, (row.timer, reason)
    warnings = " ".join(job["warnings"])
    for condition in row.conditions:
        assert condition in warnings, (row.timer, warnings)
    for key in row.data["unknown_keys"]:
        assert f"{key}=daily" in " ".join(job["comments"]), (row.timer, job["comments"])
    schedule = written[job["schedule"]] if job["schedule"] else None
    if kind == "no schedule":
        assert schedule is None, row.timer
        assert part in warnings, (row.timer, warnings)
        return f"imported without a schedule: {part}"
    if kind == "interval":
        assert schedule is not None, (row.timer, warnings)
        shortest = min(map(seconds, row.data["on_unit_active_sec"]))
        assert seconds(schedule["every"]) == shortest, row.timer
        return "imported with an interval"
    lines = {line for text in row.data["on_calendar"] if (line := normalized(text))}
    if schedule is None:
        assert "it has no schedule: OnCalendar=" in warnings, (row.timer, warnings)
        return "imported without a schedule: its calendar cannot be said"
    found = schedule["on_calendar"]
    assert set([found] if isinstance(found, str) else found) == lines, row.timer
    return "imported with its calendar"


def test_the_corpus_is_whole() -> None:
    assert len(CORPUS) == 148
    assert Path(ROOT / "tests/data/timers.jsonl").stat().st_size > 90_000
