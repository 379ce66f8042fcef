"""`orchctl demo --steps`: one pipeline as a command and as steps, broken and mended, and a few days made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from orchctl.services import demo_play
from orchctl.services.demo_play import Play

JOB = "live-score"
DAY, AS_OF = "2025-12-19", "2025-12-19T22:30:00Z"
FIRST, LAST, DAYS = "2025-12-17", "2025-12-19", 3
FILES = 9
PATIENCE_S = 120.0
BROKEN = "contract broken: rates.features_live: missing column season_fg2_pct; 3 of "


class Stage(demo_play.Stage, Protocol):
    """Where the story plays: the example pipeline."""

    def trouble(self, **variables: str) -> None: ...  # noqa: D102
    def published(self, run_id: str) -> Mapping[str, str]: ...  # noqa: D102
    def current(self, folder: str) -> str | None: ...  # noqa: D102
    def sleep(self, seconds: float) -> None: ...  # noqa: D102
    def monotonic(self) -> float: ...  # noqa: D102


class Story(Play[Stage]):
    """The demo of steps."""

    def play(self) -> None:
        """Play it from the catalog to the backfill. Raises DemoFailed at the first thing that is wrong."""
        self.say("A pipeline of nine programs, in the catalog twice: as one command, and as steps.")
        self.run("check")
        self.run("jobs", JOB, has="finalize.unified")
        self.run("host", "up", "--port", "0")
        self.run("sync")
        self.say("As one command: a black box that starts one program after another.")
        command = self._score("--execution", "command")
        self.say("As steps: the same programs, each seen, retried and published by itself.")
        steps = self._score()
        self._same(command["run_id"], steps["run_id"])
        self.run("runs", "show", steps["run_id"], "--svg", "run.svg", has="health.checks")
        self._production(steps["run_id"], self._trouble())
        self._backfill()

    def _score(self, *words: str, code: int = 0, has: str = "") -> dict[str, Any]:
        """Run the job for one date as of one instant, and return the run."""
        self.run("run", JOB, "--date", DAY, "--as-of", AS_OF, *words, "--wait", code=code, has=has)
        run: dict[str, Any] = self.data("runs", "--since", "1h", "--job", JOB)["runs"][-1]
        return run

    def _same(self, one: str, other: str) -> None:
        files, again = self.stage.published(one), self.stage.published(other)
        self.check(len(files) == FILES, f"{len(files)} files were published, not {FILES}")
        differ = sorted(path for path in files.keys() | again.keys() if files.get(path) != again.get(path))
        self.check(not differ, f"the two runs did not publish the same bytes: {', '.join(differ)}")
        self.say(f"Both have published {FILES} files, and every byte of them is the same.")

    def _trouble(self) -> str:
        """Play a run that fails and is mended; return its id."""
        self.say("A source that does not answer at first, and a release that breaks a contract: one is tried again.")
        self.stage.trouble(PROJECTIONS_OUTAGES="1", PROJECTIONS_BREAK="rates.features_live")
        failed: str = self._score(code=1, has=BROKEN)["run_id"]
        self.run("runs", "show", failed, has="upstream failed: rates.features_live")
        broken = [path for path in self.stage.published(failed) if "features_rates" in path]
        self.check(not broken, f"what broke its contract was published: {broken}")
        self.say("The release is mended, and the run goes on where it was. The simulation fails now, and only warns.")
        self.stage.trouble(PROJECTIONS_FAIL="sim.run")
        self.run("runs", "retry", failed)
        self._ended(failed, attempt=2)
        self.stage.trouble()
        self.run("runs", "show", failed, has="sim.run: warned")
        rows = {row["step"]: row for row in self.data("runs", "show", failed)["timeline"]["steps"]}
        kept = [name for name, row in rows.items() if row["status"] == "kept"]
        self.check(len(kept) == 3, f"3 steps were to be kept, and these were: {', '.join(kept) or 'none'}")
        return failed

    def _ended(self, run_id: str, *, attempt: int) -> None:
        """Wait until an attempt at a run has ended."""
        deadline = self.stage.monotonic() + PATIENCE_S
        while True:
            run = self.data("runs", "show", run_id)["run"]
            if run["attempt"] == attempt and run["status"] != "running":
                return
            self.check(self.stage.monotonic() < deadline, f"run {run_id} was not tried again: {run['status']}")
            self.stage.sleep(1)

    def _production(self, earlier: str, later: str) -> None:
        self.say("The evening is over: scoring moves nothing that production reads. By hand it moves on, and back.")
        asset = ("finalize.unified", "--date", DAY)
        self.run("publish", "promote", *asset, "--run", earlier, "--yes")
        self.run("publish", "promote", *asset, "--yes")
        self.run("publish", "rollback", *asset, "--yes")
        self.run("publish", "show", *asset)
        self._reads(earlier)
        self.run("publish", "rollback", *asset, "--yes")
        self._reads(later)

    def _reads(self, run_id: str) -> None:
        """Hold what production reads against the run that it should."""
        held = self.stage.current(f"artifacts/projections/{DAY}")
        self.check(held == run_id, f"production reads run {held}, not {run_id}")

    def _backfill(self) -> None:
        self.say(
            "Three days made again, each as of two hours before its first game: what would be read, then the runs."
        )
        period = ("backfill", JOB, "--start", FIRST, "--end", LAST, "--as-of-mode", "pretip")
        self.run(*period, "--dry-run")
        self.run(*period, "--max-parallel", "2", "--wait")
        self.say("The same command again starts nothing twice.")
        runs = len(self.data("runs", "--since", "1h", "--job", JOB)["runs"])
        self.run(*period, "--wait")
        now = len(self.data("runs", "--since", "1h", "--job", JOB)["runs"])
        self.check(now == runs, f"{now - runs} runs were started again")
        done = [run for run in self.data("runs", "--since", "1h", "--job", JOB)["runs"] if run["trigger"] == "backfill"]
        said = ", ".join(f"{run['game_date']} {run['status']}" for run in done)
        right = sorted(run["game_date"] for run in done if run["status"] == "success")
        self.check(len(right) == len(set(right)) == DAYS, f"each day was to succeed once: {said}")
