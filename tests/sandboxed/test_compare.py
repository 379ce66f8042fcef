"""`schedule compare` and `schedule next` of the shipped catalog's jobs, against the timers of a real systemd."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline_units
from box import USER, Box
from conftest import ROOT

NEW_YORK = "America/New_York"


@pytest.fixture
def host(box: Box) -> Iterator[Box]:
    """A host in New York with the timers of the shipped catalog in both scopes."""
    was = box.sh("readlink /etc/localtime || true").strip()
    set_zone(box, NEW_YORK)
    pipeline_units.install(box)
    yield box
    box.sh('rm -f /etc/localtime; [ -z "$1" ] || ln -s "$1" /etc/localtime', was)


def set_zone(box: Box, name: str) -> None:
    box.sh('ln -sfn "/usr/share/zoneinfo/$1" /etc/localtime', name)


def schedule(host: Box, *words: str, config: Path = ROOT / "config") -> subprocess.CompletedProcess[str]:
    """Run `orchctl schedule` as daniel does it with sudo."""
    state = str(host.share / "state")
    return host.orchctl("schedule", *words, ORCHCTL_CONFIG=str(config), ORCHCTL_STATE_DIR=state, SUDO_USER=USER)


def flat(text: str) -> str:
    """Return the text without its line breaks."""
    return re.sub(r"\s+", " ", text)


def data(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)["data"]


def changed(host: Box, pattern: str, replacement: str) -> Path:
    """Return a copy of the shipped catalog with a change in jobs.toml."""
    config = host.share / "config"
    shutil.copytree(ROOT / "config", config, dirs_exist_ok=True)
    text = (config / "jobs.toml").read_text()
    assert pattern in text
    (config / "jobs.toml").write_text(text.replace(pattern, replacement, 1))
    return config


def test_live_score_says_seconds_where_minutes_were_meant(host: Box) -> None:
    done = schedule(host, "compare", "live-score", "--days", "30")
    assert done.returncode == 3, done.stderr
    text = flat(done.stdout)
    assert "legacy every 5 seconds from 08:00:00 to 23:59:55" in text
    assert "Prefect every 5 minutes from 08:00 to 23:55" in text
    assert (
        "the timer says every 5 SECONDS, the schedule says every 5 MINUTES: in `*-*-* 08..23:*:00/5` the `00/5` stands "
        "in the seconds (hour:minute:second); every 5 minutes is written `*-*-* 08..23:00/5`"
    ) in text
    assert (
        "AccuracySec=1m is longer than the 5s between two instants: in practice systemd starts it about once a" in text
    )
    assert "are due at the same instants: each starts the job twice today" in text
    assert "up to 1m30s after an instant (RandomizedDelaySec=30s, AccuracySec=1m)" in text
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_accepted_difference_is_shown_with_its_reason(host: Box) -> None:
    config = changed(host, "[jobs.live-score]\n", '[jobs.live-score]\naccept_cadence = "minutes were meant"\n')
    done = schedule(host, "compare", "live-score", "--days", "2", config=config)
    assert done.returncode == 0, done.stdout
    assert "every 5 SECONDS" in flat(done.stdout)
    assert "accept_cadence): minutes were meant" in done.stdout
    found = data(schedule(host, "compare", "live-score", "--days", "2", "--json", config=config))
    assert (found["verdict"], found["accepted"]) == ("different", "minutes were meant")
    assert found["counts"]["only_legacy"] > 50 * found["counts"]["same"] > 0


def test_equal_cadences_are_equal_and_need_no_acceptance(host: Box) -> None:
    done = schedule(host, "compare", "live-boxscores", "--json")
    assert done.returncode == 0, done.stdout
    found = data(done)
    assert found["verdict"] == "equal"
    counts = found["counts"]
    # 400 days are one more or less where clocks change between: the window ends at another local time.
    assert counts["legacy"] in {399, 400, 401}
    assert counts["legacy"] == counts["schedule"] == counts["same"]
    assert counts["only_legacy"] == counts["only_schedule"] == counts["shifted"] == 0
    config = changed(host, "[jobs.live-boxscores]\n", '[jobs.live-boxscores]\naccept_cadence = "once"\n')
    done = schedule(host, "compare", "live-boxscores", "--days", "5", config=config)
    assert done.returncode == 0
    assert "accept_cadence is no longer needed" in done.stdout


def test_the_day_on_which_clocks_go_forward_is_named(host: Box) -> None:
    done = schedule(host, "compare", "dk-ownership-aggregate")
    assert done.returncode == 3
    text = flat(done.stdout)
    assert "clocks go forward from 02:00 to 03:00: 02:00 does not exist that day" in text
    assert "the legacy side skips it; Prefect alone fires at 01:00, an hour early" in text
    found = data(schedule(host, "compare", "dk-ownership-aggregate", "--json"))
    assert found["counts"]["only_schedule"] == len([day for day in found["clock_changes"] if day["forward"]])
    assert found["counts"]["only_legacy"] == 0


def test_a_host_in_another_zone_is_told(host: Box) -> None:
    set_zone(host, "Europe/London")
    done = schedule(host, "compare", "tracking-daily", "--days", "60")
    assert done.returncode == 3
    assert "the zone of this host, which it follows, is Europe/London; the schedule is in" in flat(done.stdout)
    assert "legacy   at 04:00 each day (Europe/London)" in done.stdout
    assert "moved: the Prefect side " in done.stdout


def test_a_timer_that_is_off_is_compared_with_what_it_would_do(host: Box) -> None:
    host.systemctl("disable", "--quiet", "--now", "live-boxscores.timer")
    done = schedule(host, "compare", "live-boxscores", "--days", "10")
    assert done.returncode == 0
    assert "switched off now (inactive, disabled); compared is what it would do" in flat(done.stdout)


def test_a_timer_without_a_calendar_cannot_be_compared(host: Box) -> None:
    host.unit("live-boxscores.timer", "[Timer]\nOnBootSec=10min\nOnUnitActiveSec=1d\n")
    host.reload()
    done = schedule(host, "compare", "live-boxscores", "--days", "10", "--json")
    assert done.returncode == 3, done.stdout
    found = data(done)
    assert found["counts"] is None
    text = " ".join(found["findings"])
    assert "OnUnitActiveSec=1d counts from the start of the last run" in text
    assert 'the nearest is `every = "1d"`' in text
    assert "OnBootSec=10m starts it after a boot or a login" in text


def test_a_fixed_random_delay_is_told_as_it_is(host: Box) -> None:
    host.unit("live-boxscores.timer.d/fixed.conf", "[Timer]\nRandomizedDelaySec=1h\nFixedRandomDelay=yes\n")
    host.reload()
    host.systemctl("restart", "live-boxscores.timer")
    due = host.sh("systemctl show live-boxscores.timer -p NextElapseUSecRealtime --value | grep -o '..:..:..'").strip()
    hours, minutes, seconds = map(int, due.split(":"))
    offset = (hours - 3) * 3600 + (minutes - 30) * 60 + seconds
    found = data(schedule(host, "compare", "live-boxscores", "--days", "5", "--json"))
    assert found["verdict"] == "equal"
    (said,) = [each for each in found["findings"] if "FixedRandomDelay" in each]
    match = re.search(r"starts it about (?:(\d+)m)?(?:([0-9.]+)s)? after an instant", said)
    assert match is not None, said
    assert abs(int(match[1] or 0) * 60 + float(match[2] or 0) - offset) < 1.1


def test_a_manager_that_does_not_answer_hides_no_other(host: Box) -> None:
    done = host.orchctl(
        "schedule",
        "compare",
        "live-scrape",
        "--days",
        "10",
        "--json",
        ORCHCTL_CONFIG=str(ROOT / "config"),
        ORCHCTL_STATE_DIR=str(host.share / "state"),
    )
    assert done.returncode == 4, done.stdout
    envelope = json.loads(done.stdout)
    assert (envelope["status"], envelope["data"]["verdict"]) == ("partial", "incomplete")
    (error,) = envelope["errors"]
    assert "live-scrape.timer (user): the systemd of user root does not run" in error["message"]
    assert envelope["data"]["counts"]["legacy"] == envelope["data"]["counts"]["same"] > 0


def test_next_shows_both_clocks_and_the_timer(host: Box) -> None:
    done = schedule(host, "next", "dk-ownership-aggregate", "--count", "366")
    assert done.returncode == 0, done.stderr
    text = flat(done.stdout)
    assert "clocks go forward from 02:00 to 03:00: 02:00 does not exist, it fires at 01:00 instead" in text
    assert "dk-ownership-aggregate.timer (system): " in text
    first = data(schedule(host, "next", "dk-ownership-aggregate", "--count", "1", "--json"))
    assert first["schedules"][0]["instants"][0][:16] == first["legacy"][0]["instant"][:16]
