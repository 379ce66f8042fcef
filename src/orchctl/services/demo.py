"""`orchctl demo`: the main story on real parts, each step checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from orchctl.core.names import parse_instant
from orchctl.services import demo_play
from orchctl.services.demo_play import Done, Play

REPORT_DATE = "2025-12-19"
SCHEDULED_PATIENCE_S = 70.0
TIMER = "orchctl-demo"
OBSERVED = "still-on-systemd"


class Stage(demo_play.Stage, Protocol):
    """Where the demo plays: also with a legacy side, and a way to see what Prefect shows."""

    @property
    def has_systemd(self) -> bool: ...  # noqa: D102
    @property
    def systemd_words(self) -> str: ...  # noqa: D102
    def start_timers(self) -> None: ...  # noqa: D102
    @property
    def hands_over(self) -> bool: ...  # noqa: D102
    def enable_timer(self, timer: str) -> None: ...  # noqa: D102
    def prefect_logs(self, flow_run_id: str) -> Sequence[str]: ...  # noqa: D102
    def sleep(self, seconds: float) -> None: ...  # noqa: D102
    def monotonic(self) -> float: ...  # noqa: D102


class Story(Play[Stage]):
    """The demo of the move from timers to Prefect."""

    def play(self) -> None:
        """Play it from the empty folder to the list of runs. Raises DemoFailed at the first thing that is wrong."""
        self.say("The catalog: five jobs in TOML, checked offline.")
        self.run("check")
        if self.stage.has_systemd:
            self._legacy()
        else:
            self.say(f"Left out, the legacy side: {self.stage.systemd_words}.")
        self.say("A Prefect server and a worker, up when runs are really scheduled.")
        self.run("host", "up", "--port", "0")
        self.say("What would change in Prefect, the change, and nothing left to change.")
        self.run("plan", code=3)
        self.run("sync")
        self.run("plan", has="no changes")
        self.say("A run by hand: the script's output, its outputs, its manifest.")
        self.run("run", "report", "--date", REPORT_DATE, "--wait", has=f"report for {REPORT_DATE}")
        self._report()
        self.say("A job that fails: tried twice, its exit code is ours, its secret is nobody's.")
        self._broken(self.run("run", "broken", "--wait", code=7, has="token ***"))
        self.say("A scheduled run, and one that only observes because systemd still owns the job.")
        self._scheduled()
        self.say("What ran today.")
        self._totals()
        if self.stage.has_systemd:
            self._both_sides()
        if self.stage.hands_over:
            self._hand_over()
            self._hand_back()
        elif self.stage.has_systemd:
            self.say("Left out, the handover: it would write into the folder of your own units.")

    def _legacy(self) -> None:
        self.say(f"What runs today, before anything is moved. Its systemd is {self.stage.systemd_words}.")
        self.stage.start_timers()
        self.run("legacy", has="orchctl-demo-tell-somebody")
        self.say("A timer that no job names, as an entry of the catalog. Nothing is written without --write.")
        self.run("import", "systemd", f"{TIMER}-nightly.timer", "--scope", "all", has='command = ["/bin/sh"')
        self.say("The old cadence against the new, instant by instant. This timer does not say what was meant.")
        self.run("schedule", "compare", "scores", "--days", "7", code=3, has="every 5 seconds")

    def _both_sides(self) -> None:
        """Show one history of both sides, which the observing runs have brought in."""
        runs = self.data("runs", "--since", "1h", "--job", OBSERVED)["runs"]
        legacy = [run for run in runs if run["origin"] == "systemd"]
        told = [run for run in runs if run["status"] == "observed" and "systemd ran it" in (run["reason"] or "")]
        self.check(bool(legacy), "no run of the timer was brought in from the journal")
        self.check(bool(told), "no observing run says what systemd did")
        self.say(f"What systemd did, told by Prefect's run of the same slot: {told[-1]['reason']}")
        self.run("runs", "logs", legacy[-1]["run_id"], has="pulse for legacy")
        self.say("Every slot against every run since the timers started, and where everything stands.")
        self.run("runs", "audit", "--job", OBSERVED, "--since", legacy[0]["started_at"])
        self.run("status")

    def _hand_over(self) -> None:
        self.say("The handover. The gates refuse, as long as Prefect has not shown that it can run the job.")
        self.run("cutover", OBSERVED, "--yes", code=5, has="0 of 2 succeeded")
        for _ in range(2):
            self.run("run", OBSERVED, "--wait")
        self.say("Now they let it pass. From the commit on, systemd cannot start the job, and Prefect runs its slots.")
        begun = self.data("runs", "--since", "1h", "--job", OBSERVED)["runs"][0]["started_at"]
        self.run("cutover", OBSERVED, "--wait", "--yes", has="Prefect owns it")
        self.say("Somebody enables the timer again. It fires, and the fence lets nothing start.")
        self.stage.enable_timer(f"{TIMER}-pulse.timer")
        cut = self.data("status", OBSERVED)["jobs"][0]["since"]
        self._by("prefect", after=cut)
        self.run("status", OBSERVED, "--check", code=3, has="although Prefect owns the job")
        self.run("recover", has="turned off again")
        started = [run for run in self._of_job(after=cut) if run["origin"] == "systemd"]
        self.check(not started, f"systemd ran the job although Prefect owns it: {started}")
        self.run("runs", "audit", "--job", OBSERVED, "--since", begun)

    def _hand_back(self) -> None:
        self.say("Prefect's server stops. A rollback needs none: legacy runs the job, and Prefect's part is owed.")
        cut = self.data("status", OBSERVED)["jobs"][0]["since"]
        self.run("host", "down")
        self.run("rollback", OBSERVED, "--yes", has="legacy owns it")
        self._by("systemd", after=cut)
        self.run("status", OBSERVED, "--check", code=3, has="owed")
        self.say("The server is back: recover pays the debt, and the record of both eras is whole.")
        self.run("host", "up", "--port", "0")
        self.run("recover", has="legacy owns it")
        deadline = self.stage.monotonic() + SCHEDULED_PATIENCE_S
        while "nothing to recover" not in self.run("recover").out:  # a server that has just begun may be busy
            self.check(self.stage.monotonic() < deadline, "the debt was not paid")
            self.stage.sleep(2)
        self.run("runs", "audit", "--job", OBSERVED, "--since", cut)
        self.run("status", OBSERVED)

    def _by(self, origin: str, *, after: str) -> None:
        """Wait for a run of the handed over job on one side, for a slot after an instant."""
        deadline = self.stage.monotonic() + SCHEDULED_PATIENCE_S
        while not any(run["origin"] == origin for run in self._of_job(after=after)):
            self.check(self.stage.monotonic() < deadline, f"no run by {origin} came")
            self.stage.sleep(1)
            if origin == "systemd":
                self.data("runs", "audit", "--job", OBSERVED, "--since", after)

    def _of_job(self, *, after: str) -> list[dict[str, Any]]:
        """Return the job's executed runs for slots after an instant."""
        runs = self.data("runs", "--since", after, "--job", OBSERVED)["runs"]
        return [run for run in runs if run["status"] in {"success", "failed"} and run["slot"] and run["slot"] > after]

    def _report(self) -> None:
        run = self.data("runs", "--since", "1h", "--job", "report")["runs"][-1]
        self.run("runs", "show", run["run_id"])
        manifest = self.data("runs", "show", run["run_id"])["manifest"]
        counts = [output["file_count"] for output in manifest["outputs"]]
        self.check(counts == [1, 2, 2], f"the report's outputs were counted as {counts}, not as [1, 2, 2]")
        logs = self.stage.prefect_logs(manifest["environment"]["orchestrator_run_id"])
        self.check("drew points" in logs and "drew minutes" in logs, "the script's output is not in Prefect's logs")
        self.say(f"In Prefect's logs of that run: {len(logs)} lines, the script's among them.")

    def _broken(self, done: Done) -> None:
        self.check("tr0ub4dor" not in done.out + done.err, "a secret was printed")
        run = self.data("runs", "--since", "1h", "--job", "broken")["runs"][-1]
        seen = (run["status"], run["attempt"])
        self.check(seen == ("failed", 2), f"the broken job is {seen[0]} at try {seen[1]}, not failed at try 2")
        manifest = json.dumps(self.data("runs", "show", run["run_id"])["manifest"])
        self.check("the service said no" in manifest and "tr0ub4dor" not in manifest, "the manifest does not say why")

    def _scheduled(self) -> None:
        deadline = self.stage.monotonic() + SCHEDULED_PATIENCE_S
        while True:
            runs = self.data("runs", "--since", "1h")["runs"]
            pulse = [run for run in runs if run["job"] == "pulse" and run["status"] == "success" and run["slot"]]
            seen = [run for run in runs if run["job"] == OBSERVED and run["status"] == "observed"]
            if pulse and seen:
                break
            self.check(self.stage.monotonic() < deadline, "no scheduled run came")
            self.stage.sleep(0.5)
        run = pulse[-1]
        late = parse_instant(run["started_at"]) - parse_instant(run["slot"])
        self.check(timedelta(0) <= late < timedelta(minutes=1), f"the scheduled run began {late} after its slot")
        self.run("runs", "logs", run["run_id"], has=f"pulse for {run['slot']}")

    def _totals(self) -> None:
        self.run("runs")
        totals = self.data("runs", "--since", "1h")["totals"]
        self.check(totals.get("failed") == 1, f"one failed run was expected, totals are {totals}")
        self.check(not totals.get("crashed"), f"no crashed run was expected, totals are {totals}")
