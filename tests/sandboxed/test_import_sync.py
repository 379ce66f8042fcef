"""The catalog that `import systemd` writes of the pipeline's timers, given to a real Prefect server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

import pipeline_units
import switching
from box import USER, Box
from support import eventually

NEW_YORK = "America/New_York"
OFTEN = f"* 8-23 * * * {','.join(map(str, range(0, 60, 5)))}"
RULES = {
    "live-score": OFTEN,
    "live-scrape": "5,35 8-23 * * *",
    "freeze-slates": OFTEN,
    "dk-salaries": "5 8 * * *",
    "dk-ownership-aggregate": "0 2 * * *",
    "live-boxscores": "30 3 * * *",
    "tracking-daily": "0 4 * * *",
    "post-slate-minutes-labels": "0 6 * * *",
    "nightly-eval": "30 10 * * *",
}


@pytest.fixture(scope="module")
def url(booted: Box) -> Iterator[str]:
    with switching.prefect(booted, booted.share / "prefect-import") as found:
        yield found


@pytest.fixture
def host(box: Box) -> Iterator[Box]:
    """A host in New York with the timers of the shipped catalog in both scopes, which do not fire meanwhile."""
    was = box.sh("readlink /etc/localtime || true").strip()
    box.sh('ln -sfn "/usr/share/zoneinfo/$1" /etc/localtime', NEW_YORK)
    pipeline_units.install(box)
    for scope in ("system", "user"):
        names = {f"{one.name}.timer" for one in pipeline_units.JOBS if one.scope == scope}
        box.systemctl("stop", *sorted(names), scope=scope)
    yield box
    box.sh('rm -f /etc/localtime; [ -z "$1" ] || ln -s "$1" /etc/localtime', was)


def test_what_is_imported_is_synced_and_then_nothing_is_left_to_change(host: Box, url: str) -> None:
    folder = host.share / "synced"
    folder.mkdir(mode=0o755)
    places = ("--config", str(folder), "--state-dir", str(folder / "state"), "--api-url", url)

    def orchctl(*words: str) -> str:
        """Return what it prints once it succeeds: a server that is busy answers 503, and `sync` goes on."""

        def done() -> subprocess.CompletedProcess[str] | None:
            ended = host.orchctl(*places, *words, SUDO_USER=USER)
            assert ended.returncode == 0 or "busy" in ended.stderr or "no answer" in ended.stderr, ended.stderr
            return ended if ended.returncode == 0 else None

        return str(eventually(done, within=60, poll=2).stdout)

    made = ("--data-root", str(folder / "data"), "--work-pool", switching.POOL)
    orchctl("import", "systemd", "--scope", "all", "--write", *made)
    orchctl("check")
    orchctl("sync")
    assert "no changes" in orchctl("plan")
    found = {each["name"]: each for each in switching.ask(url, "deployments/filter", {})}
    assert found.keys() == RULES.keys()
    rules = {name: each["schedules"][0]["schedule"] for name, each in found.items()}
    assert {name: rule["cron"] for name, rule in rules.items()} == RULES
    assert {rule["timezone"] for rule in rules.values()} == {NEW_YORK}
    assert {len(each["schedules"]) for each in found.values()} == {1}
    jobs = json.loads(orchctl("status", "--json"))["data"]["jobs"]
    assert {(each["owner"], each["mode"]) for each in jobs} == {("legacy", "observe")}
