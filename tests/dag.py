"""Runs of steps without Prefect: jobs whose steps are small shell lines, and what they left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from desk import DIGEST, SLOT, Desk
from orchctl.core.catalog import Catalog, Job
from orchctl.core.catalog_steps import StepTable
from orchctl.core.names import run_id
from orchctl.runner.job import execute
from orchctl.runner.shapes import Outcome, Request

DAY = date(2025, 12, 19)
# Writes down that it begins and ends; its own line decides what is in between, and how it ends.
LINE = 'echo "start $ORCHCTL_STEP" >> {log}; ({line}); code=$?; echo "end $ORCHCTL_STEP" >> {log}; exit $code'


class StepsCatalog:
    """An applied catalog of one job, with contracts."""

    def __init__(self, job: Job, contracts: Mapping[str, Any]) -> None:
        self._catalog = Catalog(
            name="tests", timezone="America/New_York", schedules={}, jobs={job.name: job}, contracts=contracts
        )

    def read(self, digest: str) -> Catalog | None:
        return self._catalog if digest == DIGEST else None


class StepsDesk(Desk):
    """A desk for a job of steps. `lines` are shell lines by step; a step without one only succeeds."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lines: dict[str, str] = {}
        self.contracts: dict[str, Any] = {}

    @property
    def steps_log(self) -> Path:
        return self.root / "steps.log"

    def step(self, name: str, *after: str, **fields: Any) -> StepTable:
        line = LINE.format(log=self.steps_log, line=self.lines.get(name, "true"))
        given = {"command": ("sh", "-c", line.replace("{", "{{").replace("}", "}}")), "retry_delay": "1s", **fields}
        return StepTable(name=name, after=after, **given)

    def steps_job(self, *steps: StepTable, **fields: Any) -> Job:
        given: dict[str, Any] = {"execution": "steps", "retries": 0, "timeout": "60s", **fields}
        return self.job(steps=steps, **given)

    def go(self, job: Job, flow_run: str = "one", **fields: Any) -> Outcome:
        """Run it; `fields` are those of the request."""
        request = Request("job", DIGEST, flow_run, SLOT, 1, SLOT, "schedule")
        host = replace(self.host(job), applied=StepsCatalog(job, self.contracts))
        return execute(replace(request, **fields), host, self.log.append)

    def step_folder(self, step: str, flow_run: str = "one") -> Path:
        return self.tree.run_directory(step, DAY, run_id(SLOT, flow_run))

    def step_manifest(self, step: str, flow_run: str = "one") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.step_folder(step, flow_run) / "manifest.json").read_bytes())
        return found

    def statuses(self, flow_run: str = "one") -> dict[str, str]:
        return {row["name"]: row["status"] for row in self.manifest(flow_run)["steps"]}

    def reasons(self) -> dict[str, str | None]:
        return {row["name"]: row["reason"] for row in self.manifest()["steps"]}

    def happened(self) -> list[tuple[str, str]]:
        """Return what the steps' own commands wrote: (start or end, step)."""
        if not self.steps_log.exists():
            return []
        return [(line.split()[0], line.split()[1]) for line in self.steps_log.read_text().splitlines()]

    def ran(self) -> int:
        return len(self.began())

    def began(self) -> list[str]:
        return [name for what, name in self.happened() if what == "start"]

    def all_events(self) -> list[dict[str, Any]]:
        lines = [
            line for path in sorted(self.data.glob("manifests/events/*")) for line in path.read_text().splitlines()
        ]
        return [json.loads(line) for line in lines]

    def told_of(self, step: str) -> list[str]:
        return [one["event"] for one in self.all_events() if one.get("step") == step]


def chain(desk: StepsDesk, names: Sequence[str]) -> list[StepTable]:
    """Return steps one after the other."""
    return [desk.step(name, *names[max(0, number - 1) : number]) for number, name in enumerate(names)]
