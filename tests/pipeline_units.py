"""The units of the shipped catalog's jobs, as a host has them: system timers, two user copies, a missing handler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from box import USER, Box

PROJECT = f"/home/{USER}/projects/projections-v2"
DATA = f"/home/{USER}/projections-data"
HANDLER = "OnFailure=status-email-user@%n.service\n"
LIVE = (
    f"PROJECTIONS_DATA_ROOT={DATA}",
    f"MINUTES_DAILY_ROOT={DATA}/artifacts/minutes_v1/daily",
    "LIVE_SEASON=2025",
    "LIVE_TIP_LEAD_MINUTES=60",
    "LIVE_TIP_TAIL_MINUTES=180",
)
SYSTEM_LIVE = (*LIVE, "LIVE_DISABLE_TIP_WINDOW=1", "LIVE_SIM_PROFILE=sim_v3", "LIVE_SIM_WORLDS=25000")
USER_LIVE = (*LIVE, "LIVE_DISABLE_TIP_WINDOW=0")
ROOT = (f"PROJECTIONS_DATA_ROOT={DATA}",)


@dataclass(frozen=True)
class Legacy:
    """One timer and its service. `requires`: the timer pulls its service in when it is started."""

    name: str
    calendar: str
    delay: int
    command: str
    environment: tuple[str, ...] = ROOT
    handler: bool = False
    requires: bool = False
    scope: str = "system"
    enabled: bool = True

    def units(self) -> Iterator[tuple[str, str]]:
        pulled = f"Requires={self.name}.service\n" if self.requires else ""
        delay = f"RandomizedDelaySec={self.delay}\n" if self.delay else ""
        yield (
            f"{self.name}.timer",
            (
                f"[Unit]\nDescription={self.name} timer\n{pulled}[Timer]\nOnCalendar={self.calendar}\nPersistent=true\n"
                f"{delay}[Install]\nWantedBy=timers.target\n"
            ),
        )
        variables = "".join(f'Environment="{assignment}"\n' for assignment in self.environment)
        user = f"User={USER}\n" if self.scope == "system" else ""
        yield (
            f"{self.name}.service",
            (
                f"[Unit]\nDescription={self.name}\n{HANDLER if self.handler else ''}"
                f"[Service]\nType=oneshot\n{user}Nice=5\n"
                f"WorkingDirectory={PROJECT}\n{variables}ExecStart={self.command}\n"
            ),
        )


def _script(name: str) -> str:
    return f"{PROJECT}/scripts/{name}"


def _uv(*words: str) -> str:
    return f"/usr/local/bin/uv run python {' '.join(words)}"


SALARIES = _uv("-m", "scripts.dk.run_daily_salaries", "--slate-type", "all", "--single-slate")
JOBS = (
    Legacy("live-score", "*-*-* 08..23:*:00/5", 30, _script("run_live_score.sh"), SYSTEM_LIVE, handler=True),
    Legacy(
        "live-score", "*-*-* 08..23:*:00/5", 30, _script("run_live_score.sh"), USER_LIVE, handler=True, scope="user"
    ),
    Legacy("live-scrape", "*-*-* 08..23:05,35:00", 30, _script("run_live_scrape.sh"), handler=True),
    Legacy("live-scrape", "*-*-* 08..23:05,35:00", 30, _script("run_live_scrape.sh"), handler=True, scope="user"),
    Legacy("freeze-slates", "*-*-* 08..23:*:00/5", 30, _uv("-m", "projections.cli.freeze_slates", "freeze-pending")),
    Legacy("dk-salaries", "*-*-* 08:05:00", 300, SALARIES, requires=True),
    Legacy(
        "dk-ownership-aggregate",
        "*-*-* 02:00:00",
        0,
        _uv("scrapers/dk_contests/build_ownership_data.py"),
        requires=True,
    ),
    Legacy("live-boxscores", "*-*-* 03:30:00", 0, _script("run_boxscores.sh")),
    Legacy("tracking-daily", "*-*-* 04:00:00", 0, _script("run_tracking_daily.sh"), requires=True),
    Legacy("post-slate-minutes-labels", "*-*-* 06:00:00", 0, _script("run_post_slate_minutes_labels.sh")),
    Legacy(
        "nightly-eval",
        "*-*-* 10:30",
        60,
        _uv("-m", "scripts.analyze_accuracy", "--output", f"{DATA}/reports/eval_latest.json"),
    ),
)
DISABLED = (
    Legacy("gold-features-daily", "*-*-* 10:00", 0, _script("run_gold.sh"), enabled=False),
    Legacy("live-rates", "*-*-* 10..23:15:00", 0, _script("run_rates.sh"), enabled=False),
    Legacy("live-sim", "*-*-* 10..23:20,50:00", 0, _script("run_sim.sh"), enabled=False),
)
# Three timers of one service, all of them off; the service is enabled by itself.
PIPELINE = "live-pipeline.service"
PIPELINE_TIMERS = {
    "live-pipeline-hourly.timer": "*-*-* 08..23:00",
    "live-pipeline-evening.timer": "Mon..Fri *-*-* 16..23:00/10",
    "live-pipeline-weekend.timer": "Sat,Sun *-*-* 12..23:00/15",
}
PIPELINE_UNITS = {
    PIPELINE: (
        f"[Unit]\nDescription=live pipeline\n[Service]\nType=oneshot\nUser={USER}\nNice=5\n"
        f"WorkingDirectory={PROJECT}\nEnvironment=PROJECTIONS_DATA_ROOT={DATA} LIVE_BACKFILL_MODE=1\n"
        f"ExecStart={_script('run_live_pipeline.sh')}\n[Install]\nWantedBy=multi-user.target\n"
    ),
    f"{PIPELINE}.d/10-no-backfill.conf": "[Service]\nEnvironment=LIVE_BACKFILL_MODE=\n",
    **{
        name: (
            f"[Unit]\nDescription={name}\n[Timer]\nOnCalendar={calendar}\nUnit={PIPELINE}\nPersistent=true\n"
            "[Install]\nWantedBy=timers.target\n"
        )
        for name, calendar in PIPELINE_TIMERS.items()
    },
}


def install(box: Box, *, start: bool = True) -> None:
    """Write all units, the scripts they name (which do nothing), and start the enabled timers, not their services."""
    box.inside.add_user(USER, groups=["systemd-journal"])
    names = " ".join([*(one.command.split()[0] for one in (*JOBS, *DISABLED)), _script("run_live_pipeline.sh")])
    box.sh(f"for s in {names}; do mkdir -p $(dirname $s); printf '#!/bin/sh\\nexit 0\\n' > $s; chmod 755 $s; done")
    box.sh(f"chown -R {USER}: /home/{USER}")
    for one in (*JOBS, *DISABLED):
        for name, text in one.units():
            box.unit(name, text, scope=one.scope)
    for name, text in PIPELINE_UNITS.items():
        box.unit(name, text)
    box.reload()
    for scope in ("system", "user") if start else ():
        box.systemctl(
            "enable", "--quiet", "--now", *(f"{one.name}.timer" for one in JOBS if one.scope == scope), scope=scope
        )
    if start:
        box.systemctl("enable", "--quiet", PIPELINE)
