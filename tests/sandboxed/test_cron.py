"""`import cron` on a host with crontabs: the pipeline's lines of a user, files of the system, what runs in the end."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from box import USER, Box
from orchctl.core import templates

# Stands in for crontab(1) where the machine has none: `-l`, and `-u` for root.
CRONTAB = """#!/bin/sh
user=$(id -un)
while [ $# -gt 0 ]; do
  case $1 in -u) user=$2; shift;; esac
  shift
done
[ "$user" = "$(id -un)" ] || [ "$(id -u)" = 0 ] || { echo "must be privileged to use -u" >&2; exit 1; }
cat "/var/spool/cron/crontabs/$user" 2> /dev/null || { echo "no crontab for $user" >&2; exit 1; }
"""
SCRAPE = "cd /home/daniel/p && flock -n /tmp/scrape.lock scripts/scrape.sh >> logs/scrape_$(date +\\%F).log 2>&1"
OWNERSHIP = (
    "flock -n /tmp/own.lock /home/daniel/p/scripts/ownership.sh >> /home/daniel/p/logs/own_$(date +\\%F).log 2>&1"
)
PIPELINE = "".join(
    [
        "MAILTO=\"\"\nSEASON='2025 {regular}'\n",
        *(f"{when} * * * {SCRAPE}\n" for when in ("0 15", "30 18", "0 21")),
        *(f"{when} * * * {OWNERSHIP}\n" for when in ("5 15", "35 18", "5 21")),
    ]
)
SAYS = """#!/bin/sh
printf '%s|' "$(id -un)" "$PWD" "$HOME" "$PATH" "$SEASON"
"""
RUN = """\
import json, os, pathlib, sys
from orchctl.core.catalog import Catalog, Job
from orchctl.adapters import accounts
from orchctl.runner import environment
from orchctl.runner.output import OutputPump
from orchctl.runner.process import Command, run_command
from orchctl.core.mask import Masker
job = json.loads(sys.argv[1])
who = environment.who(job.get("user"))
assert who.unfit is None, who.unfit
log = pathlib.Path(sys.argv[2])
command = Command(argv=tuple(job["command"]), cwd=job["working_directory"], timeout_s=20, kill_after_s=1,
                  env={**accounts.inherited(os.environ, who.account), **job["env"]}, account=who.account)
print(run_command(command, OutputPump(log_path=log, masker=Masker([]), emit=lambda line: None)).exit_code)
"""


@pytest.fixture
def host(box: Box) -> Iterator[Box]:
    """A host with cron: what is missing of it is put in its place."""
    box.inside.add_user(USER)
    stands_in = box.sh("command -v crontab || true").strip() == ""
    if stands_in:
        box.inside.write("/usr/bin/crontab", CRONTAB, mode="755")
    had_cron = box.sh("ls /usr/sbin/cron 2> /dev/null || true")
    box.sh("[ -e /usr/sbin/cron ] || install -m 755 /dev/null /usr/sbin/cron; mkdir -p /var/spool/cron/crontabs")
    yield box
    box.sh("rm -rf /etc/crontab /tmp/cron-test" + (" /usr/bin/crontab" if stands_in else ""))
    if not had_cron:
        box.sh("rm -f /usr/sbin/cron")


def own(box: Box, user: str, text: str) -> None:
    box.inside.write(f"/var/spool/cron/crontabs/{user}", text, mode="600", owner=user)


def imported(box: Box, *words: str, **environment: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """Import into a new catalog, and return its jobs."""
    place = "/tmp/cron-test"
    names = ("--config", place, "--state-dir", f"{place}/state")
    done = box.orchctl(*names, "import", "cron", *words, "--write", "--data-root", f"{place}/data", **environment)
    text = box.sh(f"cat {place}/jobs.toml 2> /dev/null || true")
    assert not text or box.orchctl(*names, "check").returncode == 0
    return tomllib.loads(text).get("jobs", {}), done


def test_the_pipelines_crontab_becomes_two_jobs(host: Box) -> None:
    own(host, USER, PIPELINE)
    jobs, done = imported(host, SUDO_USER=USER)
    assert done.returncode == 0, done.stderr
    assert {name: (len(job["legacy"]), job["user"]) for name, job in jobs.items()} == {
        "scrape": (3, USER),
        "ownership": (3, USER),
    }
    lines = [trigger["cron"] for job in jobs.values() for trigger in job["legacy"]]
    assert lines == PIPELINE.splitlines()[2:]
    again, done = imported(host, SUDO_USER=USER)
    assert again == jobs
    assert done.stderr.count("is already a trigger of") == 6


def test_the_imported_job_does_what_the_line_does(host: Box) -> None:
    host.inside.write(f"/home/{USER}/p/scripts/scrape.sh", SAYS, mode="755")
    host.sh(f"mkdir /home/{USER}/p/logs; chown -R {USER}: /home/{USER}")
    own(host, USER, PIPELINE)
    jobs, _ = imported(host, SUDO_USER=USER)
    job = {**jobs["scrape"], "command": [templates.render(word, {}) for word in jobs["scrape"]["command"]]}
    job["env"] = {key: templates.render(value, {}) for key, value in job["env"].items()}
    out, _ = host.python(RUN, json.dumps(job), "/tmp/cron-test/log").communicate()
    assert out == "0\n"
    today = host.sh("date +%F").strip()
    told = host.sh(f"cat /home/{USER}/p/logs/scrape_{today}.log")
    assert told == f"{USER}|/home/{USER}/p|/home/{USER}|/usr/bin:/bin|2025 {{regular}}|"


def test_a_file_of_the_systems(host: Box) -> None:
    host.inside.write(
        "/etc/cron.d/nba", f"0 5 * * * {USER} /opt/a.sh\n@reboot root /opt/b.sh\n0 6 * * * ghost /opt/c.sh\n"
    )
    jobs, done = imported(host, "/etc/cron.d/nba")
    assert done.returncode == 4
    assert jobs["a"]["legacy"] == [{"cron": f"0 5 * * * {USER} /opt/a.sh", "user": USER, "file": "/etc/cron.d/nba"}]
    assert "line 2 of /etc/cron.d/nba (@reboot root /opt/b.sh): @reboot starts it when the host boots" in done.stderr
    assert "its user ghost does not exist on this host" in done.stderr


def test_a_user_reads_ones_own_crontab_only(host: Box) -> None:
    for folder in Path(sys.executable).resolve().parents:
        host.sh('chmod a+x "$1"', folder)
    own(host, USER, "0 5 * * * /opt/a.sh\n")
    names = ("--config", f"/home/{USER}/config", "--state-dir", f"/home/{USER}/state")
    done = host.orchctl(*names, "import", "cron", user=USER)
    assert done.returncode == 0, done.stderr
    assert f'legacy = [{{ cron = "0 5 * * * /opt/a.sh", user = "{USER}" }}]' in done.stdout
    assert f'working_directory = "/home/{USER}"' in done.stdout
    assert '\nuser = "' not in done.stdout
    done = host.orchctl(*names, "import", "cron", "--user", "root", user=USER)
    assert done.returncode == 12
    assert "the crontab of root can be read by that user and by root only" in done.stderr
    assert "hint: run it as root, or with sudo" in done.stderr


def test_an_empty_crontab_imports_nothing(host: Box) -> None:
    jobs, done = imported(host)
    assert (jobs, done.returncode) == ({}, 0)
    assert "nothing to import" in done.stderr
