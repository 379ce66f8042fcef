"""A cut over crontab line with a real cron: it starts nothing, comes back exactly, and cron notices both at once.

Machines without cron get Debian's for the sandbox alone, from its package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from box import USER, Box
from support import eventually

NAMES = ("own", "file", "fenced", "other", "beside")
SWITCH = """\
import json, sys, time
import os
from datetime import UTC, datetime
from pathlib import Path
from orchctl.adapters.cron import Crontabs
from orchctl.adapters.cron_switch import CronSwitch
from orchctl.adapters.owners import Owners
from orchctl.core.catalog import CronTrigger
from orchctl.core.slots import Owner
from orchctl.core.snapshot import CronState, Snapshot

what, state_dir, job, triggers = sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
owners = Owners(state_dir)
switch = CronSwitch(Crontabs(os.environ), owners, now=lambda: datetime.now(UTC), sleep=time.sleep)
states = tuple(CronState(CronTrigger(**each), each.get("fence", False)) for each in triggers)
snapshot = Snapshot(cron=states)
if what == "off":
    switch.turn_off(job, snapshot)
    owners.create(job, Owner(datetime.now(UTC), draining=False), still=lambda: True)
if what == "back":
    owners.remove(job)
    switch.put_back(job, snapshot)
print(json.dumps([switch.are_off(job, snapshot), switch.are_back(job, snapshot), datetime.now(UTC).second]))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The files of Debian's cron, None where the machine has it."""
    if shutil.which("cron", path="/usr/sbin:/sbin"):
        return None
    folder = tmp_path_factory.mktemp("cron")
    got = subprocess.run(["apt-get", "download", "cron"], cwd=folder, capture_output=True, text=True, check=False)
    if got.returncode != 0:
        pytest.skip(f"cron is not installed, and its package cannot be had: {got.stderr.strip()}")
    (deb,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "files")], check=True)
    return folder / "files"


@pytest.fixture
def host(box: Box, package: Path | None) -> Iterator[Box]:
    """A host on which cron runs as a unit of systemd's."""
    put = []
    if package is not None:
        for name in ("usr/sbin/cron", "usr/bin/crontab", "etc/pam.d/cron"):
            shutil.copy(package / name, box.share / Path(name).name)
            box.sh(f"install -D -m {'644' if 'pam' in name else '755'} {box.share}/{Path(name).name} /{name}")
            put.append(f"/{name}")
        box.sh("chmod 2755 /usr/bin/crontab; getent group crontab || groupadd crontab")
        box.sh("mkdir -p /var/spool/cron/crontabs; chgrp crontab /usr/bin/crontab /var/spool/cron/crontabs")
        box.sh("chmod 1730 /var/spool/cron/crontabs")
    box.inside.add_user(USER)
    box.sh("rm -f /etc/crontab /tmp/ran.*; mkdir -p /etc/cron.d")
    box.unit("test-cron.service", "[Service]\nExecStart=/usr/sbin/cron -f\nIgnoreSIGPIPE=false\nKillMode=process\n")
    box.reload()
    box.systemctl("start", "test-cron.service")
    yield box
    box.systemctl("stop", "test-cron.service")
    box.sh("rm -rf /etc/crontab /tmp/ran.* /tmp/state " + " ".join(put))


def line(name: str, *, user: str = "") -> str:
    return f"* * * * * {user + ' ' if user else ''}date +\\%s >> /tmp/ran.{name} 2>&1"


def ran(box: Box, name: str) -> int:
    return int(box.sh(f"cat /tmp/ran.{name} 2> /dev/null | wc -l"))


def switched(box: Box, what: str, *triggers: dict[str, Any], job: str = "job") -> tuple[bool, bool, int]:
    out, _ = box.python(SWITCH, what, "/tmp/state", job, json.dumps(triggers)).communicate()
    off, back, second = json.loads(out)
    return off, back, second


def counts(box: Box, wanted: list[int]) -> list[int]:
    """Return how often each line has run when cron has started what is due in the next minute."""
    time.sleep(60 - time.time() % 60)
    eventually(lambda: all(ran(box, name) >= count for name, count in zip(NAMES, wanted, strict=True)), within=10)
    time.sleep(1)  # those that should not run might be just behind
    return [ran(box, name) for name in NAMES]


@pytest.mark.campaign
def test_lines_that_are_cut_over_run_no_more_and_come_back_exactly(host: Box) -> None:
    own = f'# mine\n#second\nMAILTO=""\n\n{line("own")}\n* * * * * true %  odd\t\n{line("other")}\n'
    lines = [line(name, user="root") for name in ("file", "fenced", "beside")]
    system = "\n".join(['MAILTO=""', "PATH=/usr/bin:/bin", *lines, "# end", ""])
    host.inside.write("/tmp/new", own)
    host.sh(f"crontab -u {USER} /tmp/new")
    host.inside.write("/etc/cron.d/nba", system, mode="640")
    host.sh("chgrp daemon /etc/cron.d/nba")
    before = host.sh(f"crontab -u {USER} -l"), host.sh("cat /etc/cron.d/nba; stat -c '%a %U %G' /etc/cron.d/nba")
    triggers: list[dict[str, Any]] = [
        {"cron": line("own"), "user": USER},
        {"cron": line("file", user="root"), "user": "root", "file": "/etc/cron.d/nba"},
        {"cron": line("fenced", user="root"), "user": "root", "file": "/etc/cron.d/nba", "fence": True},
    ]
    assert counts(host, [1, 1, 1, 1, 1]) == [1, 1, 1, 1, 1]

    off, back, second = switched(host, "off", *triggers)
    assert (off, back) == (True, False)
    assert 3 <= second < 60
    assert switched(host, "look", *triggers)[:2] == (True, False)
    assert counts(host, [1, 1, 1, 2, 2]) == [1, 1, 1, 2, 2]

    assert switched(host, "back", *triggers)[:2] == (False, True)
    after = host.sh(f"crontab -u {USER} -l"), host.sh("cat /etc/cron.d/nba; stat -c '%a %U %G' /etc/cron.d/nba")
    assert after == before
    assert counts(host, [2, 2, 2, 3, 3]) == [2, 2, 2, 3, 3]
