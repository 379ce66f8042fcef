"""One unit of every kind that systemd's answers differ for: the recordings in `data/systemd` are of these.

`python tests/systemd_zoo.py DIRECTORY` writes the unit files; `AFTERWARDS` is what was then run (as root, in a booted
systemd of its own), and `NAMES` what was asked for.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = "/etc/systemd/system"
GENERATOR = "/etc/systemd/system-generators/zoo-generator"

_SERVICE = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
_TIMERS = "[Install]\nWantedBy=timers.target\n"


def _timer(*lines: str, unit: str = "") -> str:
    body = "\n".join(lines)
    return f"[Unit]\n{unit}\n[Timer]\n{body}\n{_TIMERS}"


# What Environment= is judged by: every character that systemd or a shell could take for something else.
ENVIRONMENT_LINES = (
    'Environment=PLAIN=1 EMPTY= "BLANKS=two words"',
    'Environment="DOUBLE=say \\"hi\\"" "SINGLE=it\'s"',
    'Environment="BACKSLASH=a\\\\b" "TAB=a\\tb" "NEWLINE=a\\nb" "TWO_LINES=a\\n\\nId=evil.service"',
    'Environment="DOLLAR=$HOME ${HOME}" "BACKTICK=`id`" "PERCENT=100%%" "GLOB=*?[a]" "SEMICOLON=a;b&c|d"',
    'Environment="UNICODE=größe — ☃" "SEPARATORS=a\u2028b\u0085c" "BELL=a\\ab" "ESC=a\\x1bb" "DEL=a\\x7fb"',
    'Environment="EQUALS=a=b=c" "HASH=#no" "LAST=first"',
    "Environment=LAST=second",
    'Environment="DB_PASSWORD=s3cret-value"',
)

FILES = {
    "zoo-plain.timer": _timer(
        "OnCalendar=Mon..Fri 08..23:05,35:00 America/New_York",
        "OnCalendar=*-*~01 03:00",
        "OnCalendar=daily",
        "Persistent=true",
        "RandomizedDelaySec=90",
        "FixedRandomDelay=true",
        "AccuracySec=1us",
    ),
    "zoo-plain.service": (
        "[Service]\nType=oneshot\nExecStart=/bin/echo one\nExecStart=-/bin/echo two 'with blanks'\nUser=nobody\n"
        "Group=nogroup\nNice=5\nWorkingDirectory=-/nonexistent\nEnvironmentFile=/etc/zoo one.env\n"
        "EnvironmentFile=-/etc/zoo-two.env\nTimeoutStartSec=30min\nTimeoutStopSec=1min 30s\nRuntimeMaxSec=1h\n"
        "SuccessExitStatus=3 TEMPFAIL SIGUSR1\n"
    ),
    "zoo-plain.service.d/10 with blanks.conf": "[Service]\nEnvironment=FROM=dropin\n",
    "zoo-plain.service.d/20-more.conf": "[Service]\nNice=7\n",
    "zoo-monotonic.timer": _timer(
        "OnBootSec=5min",
        "OnUnitActiveSec=1h 30min",
        "OnUnitInactiveSec=90s 500ms",
        "OnActiveSec=1d",
        "OnStartupSec=1week",
    ),
    "zoo-monotonic.service": _SERVICE,
    "zoo-both.timer": _timer("OnBootSec=15min", "OnCalendar=hourly", "WakeSystem=no", "AccuracySec=1h"),
    "zoo-both.service": _SERVICE,
    "zoo-quotes.timer": _timer("OnCalendar=daily"),
    "zoo-quotes.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n" + "\n".join(ENVIRONMENT_LINES) + "\n",
    "zoo-lines.timer": _timer("OnCalendar=daily"),
    "zoo-lines.service": (
        "[Service]\nType=oneshot\n"
        'ExecStart=/bin/sh -c "echo one\\n\\nId=evil.service\\nNice=9\\n'
        'echo ; ignore_errors=no ; start_time=x }" last\n'
    ),
    "zoo-shared-a.timer": _timer("OnCalendar=*:0/10", "Unit=zoo-shared.service"),
    "zoo-shared-b.timer": _timer("OnCalendar=Sat,Sun 12:00", "Unit=zoo-shared.service"),
    "zoo-shared.service": _SERVICE + "[Install]\nWantedBy=multi-user.target\n",
    "zoo-at@.timer": _timer("OnCalendar=weekly"),
    "zoo-at@.service": "[Service]\nType=oneshot\nExecStart=/bin/echo %i\n",
    "zoo-pulls.timer": _timer("OnCalendar=08:05", unit="Requires=zoo-pulls.service"),
    "zoo-pulls.service": _SERVICE,
    "zoo-handler.timer": _timer("OnCalendar=08:06"),
    "zoo-handler.service": "[Unit]\nOnFailure=zoo-missing@%n.service zoo-shared.service\n" + _SERVICE,
    "zoo-orphan.timer": _timer("OnCalendar=08:07"),
    "zoo-target.timer": _timer("OnCalendar=08:08", "Unit=zoo.target"),
    "zoo.target": "[Unit]\nDescription=zoo\n",
    "zoo-bad.timer": _timer("OnCalendar=09:00:00,12:00:00 # no"),
    "zoo-bad.service": _SERVICE,
    "zoo-half-bad.timer": _timer("OnCalendar=Sun..Fri 09:00", "OnCalendar=10:00"),
    "zoo-half-bad.service": _SERVICE,
    "zoo-never.timer": _timer("OnCalendar=2020-01-01 00:00"),
    "zoo-never.service": _SERVICE,
    "zoo-failed.timer": _timer("OnCalendar=08:09"),
    "zoo-failed.service": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 3'\n",
    "zoo-killed.timer": _timer("OnCalendar=08:10"),
    "zoo-killed.service": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'kill -9 $$$$'\n",
    "zoo-running.timer": _timer("OnCalendar=08:11"),
    "zoo-running.service": "[Service]\nExecStart=/bin/sleep 3600\nTimeoutStartSec=infinity\nNice=-5\n",
    "zoo-stale.timer": _timer("OnCalendar=08:12"),
    "zoo-stale.service": _SERVICE,
    "zoo\\x2dodd:name_1.timer": _timer("OnCalendar=08:13"),
    "zoo\\x2dodd:name_1.service": _SERVICE,
    "zoo-off.timer": _timer("OnCalendar=08:14"),
    "zoo-off.service": _SERVICE,
    "zoo-fast.timer": _timer("OnCalendar=*:*:0/5", "AccuracySec=100ms"),
    "zoo-fast.service": _SERVICE,
}

GENERATOR_TEXT = """#!/bin/sh
printf '[Timer]\\nOnCalendar=08:15\\n' > "$1/zoo-generated.timer"
printf '[Unit]\\nSourcePath=/etc/crontab\\n[Service]\\nType=oneshot\\nExecStart=/bin/true\\n' \\
  > "$1/zoo-generated.service"
mkdir -p "$1/timers.target.wants" && ln -s ../zoo-generated.timer "$1/timers.target.wants/"
"""

AFTERWARDS = r"""
touch -d 2020-01-01 /etc/systemd/system/zoo-stale.timer
chmod 755 /etc/systemd/system-generators/zoo-generator
ln -sfn /dev/null /etc/systemd/system/zoo-masked.timer
systemctl daemon-reload
systemctl enable --quiet --now zoo-plain.timer zoo-monotonic.timer zoo-both.timer zoo-quotes.timer zoo-lines.timer \
  zoo-shared-a.timer zoo-pulls.timer zoo-handler.timer zoo-target.timer zoo-never.timer zoo-failed.timer \
  zoo-killed.timer zoo-running.timer zoo-stale.timer zoo-half-bad.timer zoo-at@one.timer zoo-fast.timer \
  'zoo\x2dodd:name_1.timer'
systemctl enable --quiet zoo-shared.service zoo-orphan.timer
systemctl start zoo-failed.service || true
systemctl start zoo-killed.service || true
systemctl start zoo-lines.service zoo-quotes.service || true
systemctl start zoo-running.service
systemctl start zoo-generated.timer
systemctl stop zoo-run.timer 2> /dev/null || true
systemd-run --quiet --unit=zoo-run --on-calendar='*-*-* 04:05:06' --timer-property=AccuracySec=2s /bin/true
sleep 6
echo '# edited' >> /etc/systemd/system/zoo-stale.timer
"""

_ELSEWHERE = ("zoo-masked", "zoo-generated", "zoo-run", "zoo-nothing", "zoo-at@one")
NAMES = tuple(
    sorted(
        {name for name in FILES if "@." not in name and ".d/" not in name}
        | {f"{stem}.{kind}" for stem in _ELSEWHERE for kind in ("timer", "service")}
        | {"zoo-missing@zoo-handler.service.service", "zoo-orphan.service"}
    )
)


def write(root: Path) -> None:
    for name, text in {**{f"{FOLDER}/{name}": text for name, text in FILES.items()}, GENERATOR: GENERATOR_TEXT}.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
