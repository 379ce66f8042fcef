"""`orchctl legacy` on a host with the real pipeline's timers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

import pipeline_units
from box import USER, Box

CONFIG = Path(__file__).parents[2] / "config"
GENERATOR = """#!/bin/sh
printf '[Timer]\\nOnCalendar=05:06\\n' > "$1/g.timer"
printf '[Service]\\nExecStart=/bin/true\\n' > "$1/g.service"
"""
TIMERS = 200


def readable(box: Box) -> None:
    """Let users inside run this Python: a development machine may keep it in root's home."""
    for folder in Path(sys.executable).resolve().parents:
        box.sh('chmod a+x "$1"', folder)


def legacy(box: Box, *words: str, user: str | None = None, config: str = str(CONFIG), **environment: str) -> Any:
    """Return the data of `legacy --json`; a user has it write elsewhere than in the home that is not there."""
    done = box.orchctl("--config", config, "legacy", "--json", *words, user=user, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"]


def found(data: Any, code: str) -> list[str]:
    return [f"{each['job'] or '-'}: {each['message']}" for each in data["findings"] if each["code"] == code]


@pytest.fixture
def pipeline(box: Box) -> Iterator[Box]:
    readable(box)
    box.sh("ln -sf /usr/share/zoneinfo/America/New_York /etc/localtime")
    pipeline_units.install(box)
    yield box
    box.sh("ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime")


@pytest.mark.parametrize("who", ["root for daniel", "daniel"])
def test_the_pipeline_as_it_is(pipeline: Box, who: str) -> None:
    data = legacy(pipeline, user=USER) if who == USER else legacy(pipeline, SUDO_USER=USER)
    assert data["host_zone"] == "America/New_York"
    assert found(data, "missing-handler") == [
        f"{job}: the failure handler of {job}.service ({scope}) does not exist: status-email-user@{job}.service.service"
        for job in ("live-score", "live-scrape")
        for scope in ("system", "user")
    ]
    assert [each.partition(":")[0] for each in found(data, "starts-job")] == [
        "dk-ownership-aggregate",
        "dk-salaries",
        "tracking-daily",
    ]
    (boot,) = found(data, "starts-at-boot")
    assert boot.startswith("-: live-pipeline.service (system) is enabled by itself: it starts at boot")
    (several,) = found(data, "several-timers")
    assert several == (
        "-: live-pipeline.service (system) is started by 3 timers: live-pipeline-evening.timer (off), "
        "live-pipeline-hourly.timer (off), live-pipeline-weekend.timer (off)"
    )
    assert [each["job"] for each in data["findings"] if each["code"] == "runs-twice"] == ["live-score", "live-scrape"]
    assert [(each["key"], each["first_value"], each["second_value"]) for each in data["differences"]] == [
        ("env LIVE_DISABLE_TIP_WINDOW", "1", "0"),
        ("env LIVE_SIM_PROFILE", "sim_v3", None),
        ("env LIVE_SIM_WORLDS", "25000", None),
    ]


def test_who_triggers_what(pipeline: Box) -> None:
    data = legacy(pipeline, SUDO_USER=USER)
    named = [(each["job"], each["scope"], each["name"]) for each in data["triggers"]]
    assert named == sorted((one.name, one.scope, f"{one.name}.timer") for one in pipeline_units.JOBS)
    assert all(each["on"] and each["timer"]["enabled"] == "enabled" for each in data["triggers"])
    assert all(each["next_fire"] for each in data["triggers"])
    assert [each["name"] for each in data["unnamed"]] == sorted(pipeline_units.PIPELINE_TIMERS)
    assert [each["name"] for each in data["off"]] == [f"{one.name}.timer" for one in pipeline_units.DISABLED]
    assert {"apt-daily.timer", "fstrim.timer"} <= {each["name"] for each in data["distribution"]}


def test_one_job_whole(pipeline: Box) -> None:
    pipeline.unit("live-score.service.d/10-x.conf", "[Service]\nEnvironment=API_TOKEN=not-for-anyone\n")
    pipeline.reload()
    done = pipeline.orchctl("--config", str(CONFIG), "legacy", "live-score", SUDO_USER=USER)
    assert done.returncode == 0
    for text in (
        "live-score.timer (system)",
        "live-score.timer (user)",
        "when          *-*-* 08..23:*:00/5",
        "drop-in       /etc/systemd/system/live-score.service.d/10-x.conf",
        "API_TOKEN=***",
        "LIVE_SIM_WORLDS is 25000 in the system copy, not set in the user copy",
        "does not exist: status-email-user@live-score.service.service",
    ):
        assert text in done.stdout
    assert "not-for-anyone" not in done.stdout + done.stderr


def test_a_job_that_is_not_there(pipeline: Box) -> None:
    done = pipeline.orchctl("--config", str(CONFIG), "legacy", "live-scor")
    assert (done.returncode, done.stderr.splitlines()[1]) == (2, 'hint: did you mean "live-score"?')


def test_a_timer_that_the_catalog_misspells(pipeline: Box, tmp_path: Path) -> None:
    place = pipeline.share / "misspelt"
    place.mkdir()
    for name in ("jobs.toml", "schedules.toml", "contracts.toml"):
        (place / name).write_text((CONFIG / name).read_text().replace('"nightly-eval.timer"', '"nightli-eval.timer"'))
    for words in ((), ("nightly-eval",)):
        (message,) = found(legacy(pipeline, *words, config=str(place), SUDO_USER=USER), "missing-timer")
        assert message == (
            'nightly-eval: nightli-eval.timer (system) does not exist on this host; did you mean "nightly-eval.timer"?'
        )


def test_linger_ends_a_finding(pipeline: Box) -> None:
    data = legacy(pipeline, SUDO_USER=USER)
    assert found(data, "no-linger") == [
        f"-: {USER} is without linger: the user's timers (live-score, live-scrape) run only while {USER} is logged in"
    ]
    pipeline.sh("mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/$1", USER)
    try:
        assert found(legacy(pipeline, SUDO_USER=USER), "no-linger") == []
    finally:
        pipeline.sh("rm /var/lib/systemd/linger/$1", USER)


def test_states_after_runs_and_by_hand(pipeline: Box) -> None:
    pipeline.unit("live-boxscores.service.d/x.conf", "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 7'\n")
    pipeline.unit("tracking-daily.service.d/x.conf", "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -9 $$$$'\n")
    pipeline.reload()
    pipeline.systemctl("start", "live-boxscores.service", "tracking-daily.service", check=False)
    pipeline.systemctl("stop", "live-boxscores.timer")
    pipeline.systemctl("disable", "--quiet", "nightly-eval.timer")
    pipeline.sh("touch /etc/systemd/system/freeze-slates.timer")
    data = legacy(pipeline, SUDO_USER=USER)
    ran = {each["job"]: each["service"]["last_run"] for each in data["triggers"]}
    assert (ran["live-boxscores"], ran["tracking-daily"]) == ("exit 7", "KILL")
    assert found(data, "enabled-but-stopped") == [
        "live-boxscores: live-boxscores.timer (system) is stopped and enabled: it starts again at the next boot"
    ]
    assert found(data, "not-enabled") == [
        "nightly-eval: nightly-eval.timer (system) runs and is not enabled: after a reboot it does not"
    ]
    assert [each for each in found(data, "needs-reload") if "freeze-slates.timer (system)" in each]


def test_transient_generated_instances_and_templates(box: Box) -> None:
    box.unit("at@.timer", "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")
    box.unit("at@.service", "[Service]\nExecStart=/bin/true\n")
    box.start("at@one.timer")
    box.inside.run("systemd-run", "--quiet", "--unit=by-hand", "--on-calendar=04:05", "/bin/true")
    box.inside.write("/etc/systemd/system-generators/g", GENERATOR, mode="755")
    box.reload()
    box.systemctl("start", "g.timer")
    data = legacy(box, config=str(box.share / "none"))
    names = {each["name"] for each in data["unnamed"]}
    assert {"at@one.timer", "by-hand.timer", "g.timer"} <= names
    assert "at@.timer" not in names
    assert len(found(data, "transient")) == len(found(data, "generated")) == 1
    box.systemctl("stop", "by-hand.timer", "g.timer", "at@one.timer")
    box.sh("rm /etc/systemd/system-generators/g")


def test_without_a_catalog_everything_is_unnamed(pipeline: Box) -> None:
    done = pipeline.orchctl("--config", str(pipeline.share / "none"), "legacy", SUDO_USER=USER)
    assert done.returncode == 0
    assert "note: there is no catalog: no job names any of this" in done.stderr
    assert "live-score.timer" in done.stdout
    done = pipeline.orchctl("--config", str(pipeline.share / "none"), "legacy", "live-score")
    assert done.returncode == 10


def test_an_invalid_catalog_is_an_error(pipeline: Box) -> None:
    place = pipeline.share / "invalid"
    place.mkdir()
    (place / "jobs.toml").write_text("version = 1\n[jobs.x]\n")
    (place / "schedules.toml").write_text("version = 1\n")
    assert pipeline.orchctl("--config", str(place), "legacy").returncode == 10


def test_cron_lines_of_this_host(box: Box) -> None:
    if box.inside.run("sh", "-c", "ls /usr/sbin/cron 2> /dev/null || true") == "":
        box.sh("touch /usr/sbin/cron; chmod 755 /usr/sbin/cron")
    box.inside.write("/etc/cron.d/mine", "0 15 * * * daniel /bin/scrape --token=abcdefgh\n")
    data = legacy(box, config=str(box.share / "none"))
    (line,) = [each for each in data["unnamed"] if each["kind"] == "cron"]
    assert (line["file"], line["user"]) == ("/etc/cron.d/mine", "daniel")
    assert line["name"] == "0 15 * * * daniel /bin/scrape --token=***"
    assert line["next_fire"]


COUNTING = '#!/bin/sh\nprintf "%s\\n" "$*" >> "$CALLS"\nexec /usr/bin/systemctl "$@"\n'


def test_two_hundred_timers_in_two_calls(box: Box) -> None:
    """A wrapper that is first on PATH counts what is really asked."""
    counting, calls = box.share / "counting", box.share / "calls"
    counting.mkdir()
    (counting / "systemctl").write_text(COUNTING)
    (counting / "systemctl").chmod(0o755)
    script = (
        f"cd /etc/systemd/system; for n in $(seq {TIMERS}); do\n"
        'printf "[Timer]\\nOnCalendar=*:0/10\\n[Install]\\nWantedBy=timers.target\\n" > many-$n.timer\n'
        'printf "[Unit]\\nOnFailure=gone@%%n.service\\n[Service]\\nType=oneshot\\nExecStart=/bin/true\\n" '
        "> many-$n.service; done; systemctl daemon-reload; systemctl enable -q --now $(ls | grep 'many.*timer')"
    )
    box.unit("one-more.timer", "[Timer]\nOnCalendar=daily\n")
    box.sh(script)
    try:
        place = box.share / "many"
        place.mkdir()
        jobs = "".join(
            f'[jobs.many-{n}]\ncommand = ["true"]\nlegacy = [{{ timer = "many-{n}.timer" }}]\n'
            for n in range(1, TIMERS + 1)
        )
        defaults = '[defaults]\ndata_root = "/d"\nworking_directory = "/d"\nwork_pool = "p"\n'
        (place / "jobs.toml").write_text(f"version = 1\n{defaults}{jobs}")
        (place / "schedules.toml").write_text("version = 1\n")
        path = f"{counting}:/usr/sbin:/usr/bin:/sbin:/bin"
        data = legacy(box, config=str(place), PATH=path, CALLS=str(calls))
        assert len(data["triggers"]) == TIMERS
        assert all(each["on"] for each in data["triggers"])
        assert len(found(data, "missing-handler")) == TIMERS
        asked = [line for line in calls.read_text().splitlines() if "--user" not in line]
        assert [line.split()[0] for line in asked] == ["list-unit-files", "show"]
        calls.write_text("")
        legacy(box, "many-7", config=str(place), PATH=path, CALLS=str(calls))
        assert len(calls.read_text().splitlines()) <= 2
    finally:
        box.sh("systemctl stop 'many-*.timer'; rm -rf /etc/systemd/system/timers.target.wants")


@pytest.mark.parametrize("words", [(), ("live-score",), ("--all",)])
def test_on_a_terminal_of_80_columns(pipeline: Box, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "orchctl", "--config", str(CONFIG), "legacy", *words]
    argv = pipeline.inside.argv("env", f"SUDO_USER={USER}", "NO_COLOR=1", "TERM=xterm", *command)
    child = pexpect.spawn(argv[0], argv[1:], dimensions=(60, 80), encoding="utf-8", timeout=60)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in child.read().splitlines()]
    child.close()
    assert child.exitstatus == 0
    paths = ("MINUTES_DAILY_ROOT=", "/home/")  # what has no blank to break at
    assert [line for line in lines if len(line) > 80 and not any(path in line for path in paths)] == []
    if words != ("live-score",):
        (heading,) = [line for line in lines if line.startswith("JOB ")]
        assert heading.split() == ["JOB", "SCOPE", "STATE", "LAST", "NEXT", "SERVICE"]
        assert [line for line in lines if re.match(r"live-score +user +on ", line)]
        assert [line for line in lines if re.match(r"post-slate-minutes-labels +system +on ", line)]


def test_where_no_systemd_runs(pipeline: Box) -> None:
    """The machine outside of the sandbox, where that has none."""
    if Path("/run/systemd/system").exists():
        pytest.skip("this machine was booted with systemd")
    argv = [sys.executable, "-m", "orchctl", "--config", str(CONFIG), "legacy", "nightly-eval"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: systemd does not run on this host (it was not booted with it)",
        "hint: run orchctl on the host whose timers are meant",
    ]
