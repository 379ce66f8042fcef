"""`orchctl sync` against `prefect deploy --all`, job by job, on the same server."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from benchmarks.harness import Aim, Options, Ratio, Report, alternate, launch, short
from benchmarks.stack import POOL, Place, running, write_catalog
from orchctl.adapters import toml_files
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.services import sync

DEPLOYED = 20
COLUMNS = (
    "What",
    "Jobs",
    "Whole",
    "A job",
    "Client's CPU a job",
    "Server's CPU a job",
    "Requests",
    "Faster per job than `prefect deploy`",
)
DEPLOY, DEPLOY_ONE = f"prefect deploy --all, {DEPLOYED} deployments", "prefect deploy --all, 1 deployment"
CREATE, UPDATE, NOTHING = "sync, all new", "sync, all changed", "sync, nothing to do"
CLI_NOTHING = "`orchctl sync` as a process, nothing to do"


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of wall clock, of the client's CPU, of the server's."""

    wall: float
    client: float
    server: float


class Counting(httpx.BaseTransport):
    """Passes requests on and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


class _Operator:
    """Somebody with `jobs` jobs, and with some deployments of Prefect's own kind."""

    def __init__(self, place: Place, jobs: int) -> None:
        self.place, self.jobs = place, jobs
        self.config = place.base / "config"
        self.edition = 0
        self.requests: dict[str, int] = {}

    def edit(self) -> None:
        """Write the catalog anew: every job gets another description, every schedule another minute."""
        self.edition += 1
        schedules = {f"daily-{hour}": {"cron": f"{self.edition % 60} {hour} * * *"} for hour in range(24)}
        jobs = {
            f"job-{number:04}": {
                "description": f"edition {self.edition}",
                "command": ["/bin/true"],
                "schedules": [f"daily-{number % 24}"],
            }
            for number in range(self.jobs)
        }
        write_catalog(self.config, jobs, schedules, data_root=self.place.base / "data")

    def sync(self, what: str) -> Sample:
        """Sync within this process, catalog loading included."""
        transport = Counting()
        server, client, began = self._server_cpu(), time.process_time(), time.perf_counter()
        with self.place.api(transport=transport) as api:
            catalog, applied = toml_files.load(self.config), AppliedCatalogs(self.place.state)
            proposed = sync.propose(catalog, api, applied, state_dir=str(self.place.state), now=_now())
            done = sync.apply(proposed, catalog, api, applied, now=_now)
        took, used = time.perf_counter() - began, time.process_time() - client
        if len(done.applied) != (0 if what == NOTHING else self.jobs):
            raise RuntimeError(f"{what}: {len(done.applied)} changes")
        self.requests[what] = transport.count
        return Sample(took, used, self._server_cpu() - server)

    def create(self) -> Sample:
        with self.place.api() as api:
            for deployment in api.deployments(names=(), tag="orchctl"):
                api.delete_flow(deployment.flow_id)
        return self.sync(CREATE)

    def update(self) -> Sample:
        self.edit()
        return self.sync(UPDATE)

    def cli(self) -> Sample:
        return self._launch([str(Path(sys.executable).parent / "orchctl"), "sync", "--yes"], self.place.base)

    def deploy(self, count: int) -> Sample:
        """Let `prefect deploy --all` deploy `count` deployments of one flow."""
        project = _prefect_project(self.place.base / f"prefect-{count}", count)
        return self._launch([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], project)

    def _launch(self, argv: list[str], cwd: Path) -> Sample:
        server = self._server_cpu()
        used = launch(argv, env=self.place.env(self.config), cwd=cwd)
        return Sample(used.wall, used.cpu, self._server_cpu() - server)

    def _server_cpu(self) -> float:
        """Return the seconds of CPU that the server has used; a hundredth is the smallest step."""
        stat = Path(f"/proc/{self.place.host.pid('server')}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _now() -> datetime:
    return datetime.now(UTC)


def _prefect_project(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "flow.py").write_text("from prefect import flow\n\n\n@flow\ndef job(name: str = ''):\n    print(name)\n")
    entries = "".join(
        f"- name: deployed-{number:04}\n  entrypoint: flow.py:job\n  description: deployment {number}\n"
        f"  parameters: {{name: job-{number:04}}}\n  work_pool: {{name: {POOL}}}\n"
        f"  schedules:\n  - {{cron: '0 {number % 24} * * *', timezone: UTC, slug: daily}}\n"
        for number in range(count)
    )
    (folder / "prefect.yaml").write_text(f"name: bench\ndeployments:\n{entries}")
    return folder


def run(options: Options) -> Report:
    jobs, rounds = (1000, 1) if options.full else (100, 3)
    with running(options, worker=False) as place:
        with place.api() as api:
            api.create_pool(POOL, description=None)
        operator = _Operator(place, jobs)
        operator.edit()
        cases: dict[str, Callable[[], Sample]] = {
            CREATE: operator.create,
            DEPLOY: lambda: operator.deploy(DEPLOYED),
            DEPLOY_ONE: lambda: operator.deploy(1),
            UPDATE: operator.update,
            NOTHING: lambda: operator.sync(NOTHING),
            CLI_NOTHING: operator.cli,
        }
        found = alternate(cases, rounds=rounds, warm_up=0 if options.full else 1, say=options.say)
    return _report(found, operator.requests, jobs)


def _report(found: dict[str, list[Sample]], requests: dict[str, int], jobs: int) -> Report:
    report = Report("sync", COLUMNS)
    report.raw = {name: [astuple(sample) for sample in samples] for name, samples in found.items()}
    report.raw["requests"] = requests
    deploy = [sample.wall / DEPLOYED for sample in found[DEPLOY]]
    ratios: dict[str, Ratio] = {}
    for name, count in ((DEPLOY, DEPLOYED), (DEPLOY_ONE, 1), *((name, jobs) for name in _ours())):
        samples = found[name]
        whole = statistics.median(sample.wall for sample in samples)
        client = statistics.median(sample.client for sample in samples)
        server = statistics.median(sample.server for sample in samples)
        if name in _ours():
            ratios[name] = Ratio.of(deploy, [sample.wall / jobs for sample in samples])
        parts = [f"{short(seconds / count * 1000)} ms" for seconds in (whole, client, server)]
        report.row(name, f"{count:,}", f"{whole:.2f} s", *parts, requests.get(name, ""), ratios.get(name, ""))
    report.aims = [
        Aim(f"`{name}`: 20 times faster per job than `prefect deploy --all`", f"{found_}", found_.median >= 20)
        for name, found_ in ratios.items()
        if name in {CREATE, UPDATE, NOTHING}
    ]
    few = requests[NOTHING] <= 10
    report.aims.append(Aim("a sync with nothing to do: at most 10 requests", f"{requests[NOTHING]} for {jobs:,}", few))
    ones = [sample.wall for sample in found[DEPLOY_ONE]]
    marginal = [(whole * DEPLOYED - one) / (DEPLOYED - 1) for whole, one in zip(deploy, ones, strict=True)]
    rest = Ratio.of(marginal, [sample.wall / jobs for sample in found[CREATE]])
    cpu = Ratio.of(
        [(sample.client + sample.server) / DEPLOYED for sample in found[DEPLOY]],
        [(sample.client + sample.server) / jobs for sample in found[CREATE]],
    )
    report.notes.append(f"In CPU a job, client and server together, `{CREATE}` is {cpu} times cheaper.")
    report.notes.append(
        f"Less Prefect's start (20 deployments less 1, by 19) `prefect deploy` takes "
        f"{short(statistics.median(marginal) * 1000)} ms a deployment: `{CREATE}` is {rest} times faster than that."
    )
    return report


def _ours() -> tuple[str, ...]:
    return (CREATE, UPDATE, NOTHING, CLI_NOTHING)
