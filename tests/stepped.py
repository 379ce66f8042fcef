"""A run of steps as its events and manifests tell it, for tests without a runner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchctl.core.names import format_instant

RUN = "20251219T223000Z-3f9a1c"
START = datetime(2025, 12, 19, 22, 30, tzinfo=UTC)
BROKEN = "contract broken: rates.features_live: missing column season_fg2_pct; 3 of 251 rows have p50 > 48"
OUTAGE = "exit code 75: Temporary failure in name resolution"


def at(seconds: float) -> str:
    return format_instant(START + timedelta(seconds=seconds))


def event(name: str, step: str, seconds: float, *, attempt: int = 1, was: Any = ..., **more: Any) -> dict[str, Any]:
    """Return an event; `was` is its key `from`, which Python will not have as an argument."""
    more |= {} if was is ... else {"from": was}
    return {
        "ts": at(seconds),
        "event": name,
        "run_id": RUN,
        "job": "live-score",
        "asset": step,
        "step": step,
        "game_date": "2025-12-19",
        "attempt": attempt,
        "reason": None,
        **more,
    }


def attempt(step: str, begun: float, ended: float, number: int = 1, **more: Any) -> list[dict[str, Any]]:
    """Return the start and the end of an attempt."""
    about = {"status": "success", **more}
    timing = {"started_at": at(begun), "finished_at": at(ended), "duration_s": ended - begun}
    return [
        event("step_started", step, begun, attempt=number),
        event("step_finished", step, ended, attempt=number, **about, **timing),
    ]


def listed(name: str, status: str, reason: str | None = None) -> dict[str, Any]:
    return {"name": name, "status": status, "reason": reason, "attempts": 1}


def run(*steps: dict[str, Any], status: str = "success", begun: float = 0, ended: float = 60) -> dict[str, Any]:
    timing = {"started_at": at(begun), "finished_at": at(ended), "duration_s": ended - begun}
    return {"execution": "steps", "status": status, "steps": list(steps), "timing": timing}


def step_manifest(step: str, **more: Any) -> dict[str, Any]:
    """Return the manifest of a step, with what readers of timelines look at."""
    return {
        "step": step,
        "asset": step,
        "job": "live-score",
        "attempt": 1,
        "status": "success",
        "reason": None,
        "exit_code": 0,
        "signal": None,
        "error": None,
        "partition": {"game_date": "2025-12-19", "run_as_of_ts": at(0), "run_id": RUN},
        "timing": {"started_at": at(0), "finished_at": at(5), "duration_s": 5.0},
        "attempts": [],
        "checks": [],
        "publish": None,
        **more,
    }


def story() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a run with all there is: a flaky step, one that only warns, a broken contract, and steps it skips."""
    manifest = run(
        listed("ingest.scrape_all", "success"),
        listed("minutes.features_live", "success"),
        listed("minutes.score", "success"),
        listed("sim.run", "warned", "exit code 1"),
        listed("rates.features_live", "failed", BROKEN),
        listed("rates.score", "skipped", "upstream failed: rates.features_live"),
        listed("finalize.unified", "skipped", "upstream failed: rates.features_live"),
        status="failed",
    )
    place = "/data/live/features_minutes_v1/2025-12-19/run=" + RUN
    events = [
        *attempt("ingest.scrape_all", 0, 4, status="failed", reason=OUTAGE, error_class="network"),
        event("step_retry", "ingest.scrape_all", 4, reason=OUTAGE, error_class="network", delay_s=6.0),
        *attempt("ingest.scrape_all", 10, 20, 2),
        *attempt("minutes.features_live", 20, 35),
        event("contract_checked", "minutes.features_live", 34, contract="rosters", file="r.parquet", status="ok"),
        event("promoted", "minutes.features_live", 35, to=place, digest="sha256:ab"),
        event("pointer_moved", "minutes.features_live", 35, pointer="latest_run.json", to=RUN, was=None),
        event(
            "pointer_kept",
            "minutes.features_live",
            35,
            pointer="current_run.json",
            to=None,
            reason="not published: after lock",
            was=None,
        ),
        *attempt("minutes.score", 35, 40),
        *attempt("sim.run", 40, 60, status="failed", reason="exit code 1"),
        *attempt("rates.features_live", 40, 52, status="failed", reason=BROKEN, error_class="contract"),
        event(
            "contract_checked",
            "rates.features_live",
            52,
            contract="rates.features_live",
            file="features.parquet",
            status="broken",
            findings=2,
        ),
        event("step_finished", "rates.score", 52, status="skipped", reason="upstream failed: rates.features_live"),
        event("step_finished", "finalize.unified", 52, status="skipped", reason="upstream failed: rates.features_live"),
    ]
    findings = ["missing column season_fg2_pct", "3 of 251 rows have p50 > 48"]
    check = {"contract": "rates.features_live", "file": "features.parquet", "rows": 251, "status": "broken"}
    check["findings"] = [{"check": "x", "column": None, "message": text} for text in findings]
    timing = {"started_at": at(40), "finished_at": at(52), "duration_s": 12.0}
    broken = step_manifest("rates.features_live", status="failed", checks=[check], timing=timing)
    return manifest, [broken], events
