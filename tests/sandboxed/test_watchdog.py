"""The watchdog's timer on a real systemd: it looks, tells of a server that is not there, and goes without a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import receivers
from box import Box
from orchctl.adapters.local_stack import free_port
from support import eventually

UNITS = ("orchctl-watchdog.service", "orchctl-watchdog.timer")
ALERTS = """\
version = 1
[watchdog]
server_after = "10s"
[channels.hook]
kind = "webhook"
url_file = "{url}"
[routes.all]
events = ["server_gone", "recovered"]
channels = ["hook"]
"""


def traces(box: Box) -> list[str]:
    """Return the files and folders of the watchdog below those of systemd, but for our drop-in."""
    places = "/etc/systemd /run /var/lib/systemd/timers"
    found = box.sh(f"find {places} -name '*orchctl-watchdog*' -not -name '*.timer.d' 2> /dev/null || true")
    return found.splitlines()


def data(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the keys of what a command printed with --json: they are a contract, and only ever added to."""
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads(done.stdout)["data"])


def test_the_timer_looks_tells_and_goes_without_a_trace(box: Box) -> None:
    for folder in Path(sys.executable).resolve().parents:
        box.sh('chmod a+x "$1"', folder)
    # Every minute is what it does; this test has no minutes.
    box.unit(f"{UNITS[1]}.d/often.conf", "[Timer]\nOnCalendar=*-*-* *:*:00/5\n")
    root, api = "/srv/watched", f"http://127.0.0.1:{free_port()}/api"
    with receivers.http() as hook:
        box.inside.write(f"{root}/hook.url", hook.url + "/services/secret", mode="600")
        box.inside.write(f"{root}/config/alerts.toml", ALERTS.format(url=f"{root}/hook.url"))
        places = ("--config", f"{root}/config", "--state-dir", f"{root}/state", "--api-url", api)
        shown = box.orchctl(*places, "watchdog", "install", "--dry-run")
        assert "OnCalendar=*-*-* *:*:00" in shown.stdout, shown.stderr
        assert traces(box) == []
        assert data(box.orchctl(*places, "watchdog", "install", "--dry-run", "--json")) == {"dry_run", "units"}
        assert data(box.orchctl(*places, "watchdog", "install", "--json")) == {"dry_run", "units", "warnings"}
        assert set(UNITS) <= {Path(path).name for path in traces(box)}
        assert box.systemctl("is-enabled", UNITS[1]).strip() == "enabled"
        # The first look sees it, the second one tells.
        (told,) = eventually(lambda: hook.got, within=150)
        assert (told["event"], told["about"]) == ("server_gone", api)
        journal = box.sh("journalctl -u $1 -o cat --no-pager", UNITS[0])
        assert "hook: delivered: 200 OK ok" in journal, journal
        assert "secret" not in journal
        status = box.orchctl(*places, "watchdog", "status")
        assert status.returncode == 0, status.stderr
        assert "looks every minute" in status.stdout
        assert "told to hook" in status.stdout
        assert box.systemctl("is-failed", UNITS[0], check=False).strip() != "failed"
        assert data(box.orchctl(*places, "watchdog", "uninstall", "--json")) == {"removed"}
        assert traces(box) == []
        assert "orchctl-watchdog" not in box.systemctl("list-units", "--all", "--no-legend")
        assert box.orchctl(*places, "watchdog", "uninstall").returncode == 0
        assert len(hook.got) == 1
