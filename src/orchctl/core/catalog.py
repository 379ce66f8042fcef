"""The catalog: what an operator writes (`JobTable`, `ScheduleTable`, …) and what it means (`Job`, `Schedule`).

The tables are the contract of `config/*.toml` and the source of the JSON Schema in `docs/schema/`. A
`Catalog` is frozen and fully resolved: no default, file or environment is looked up after it is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from orchctl.core import durations
from orchctl.core.catalog_fields import (
    AbsolutePath,
    Anchor,
    Argv,
    Asset,
    Duration,
    Env,
    EnvFiles,
    Expressions,
    FormatVersion,
    Name,
    Names,
    Table,
    Text,
    Texts,
    positive,
)
from orchctl.core.catalog_logs import LogsTable
from orchctl.core.catalog_retention import RetentionTable
from orchctl.core.catalog_steps import AsOfModes, BackfillTable, PartitionKeys, Steps
from orchctl.core.contracts import Contracts

VERSION = 1
UNNAMED = "default"
"""The name of a catalog that gives itself none."""


class TimerTrigger(Table):
    """A systemd timer that starts the job today."""

    timer: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,248}\.timer$")]
    """The timer's unit name; it may not begin like an option."""
    scope: Literal["system", "user"] = "system"
    """Which manager holds it: the system's, or a user's."""
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*\$?$")] | None = None
    """Whose manager, for scope user; default: that of who runs orchctl or the worker."""


class CronTrigger(Table):
    """A crontab line that starts the job today."""

    cron: Annotated[str, Field(min_length=1, pattern=r"^[^\n\x00]+$")]
    """The whole line, exactly as it stands in the crontab."""
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*\$?$")]
    """Whose crontab; for a line of a file, whom the line names."""
    file: AbsolutePath | None = None
    """The file that holds the line (/etc/crontab, /etc/cron.d/…); default: the user's own crontab."""
    timezone: Text | None = None
    """The zone of the line (cronie's CRON_TZ); default: the host's."""
    fence: bool = False
    """While Prefect owns the job: fence the line with a test of the owner file instead of commenting it out."""


Trigger = Annotated[
    Annotated[TimerTrigger, Tag("timer")] | Annotated[CronTrigger, Tag("cron")],
    Discriminator(lambda value: "cron" if "cron" in (value if isinstance(value, dict) else dir(value)) else "timer"),
]


class Gates(Table):
    """What must hold before Prefect may own the job."""

    min_successes: Annotated[int, Field(ge=0, le=1000)] = 3
    """Prefect-driven runs that succeeded."""
    within: Duration = durations.parse("7d")
    """How far back they count."""


class JobTable(Table):
    """A job as a table says it; every key but `steps` may stand in `[defaults]` instead."""

    description: Text = ""
    """What the job does, for people."""
    schedules: Names = ()
    """Names of schedules; none: the job runs by hand only."""
    command: Argv | None = None
    """The program and its arguments: an argv, never a shell line. A job that runs as its steps needs none."""
    dry_run_command: Argv | None = None
    """What observe mode may run instead."""
    env_files: EnvFiles = ()
    """Files of `KEY=value` lines in the form of systemd's EnvironmentFile=, read when a run starts. As in systemd
    they win over `env`, and a leading `-` means that the file may be missing."""
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*\$?$")] | None = None
    """Who the command runs as; default: the worker's user. Another one needs a worker that runs as root."""
    env: Env = Field(default_factory=dict)
    """Environment of the command, on top of the worker's. A table here is merged over that of `[defaults]`."""
    data_root: AbsolutePath | None = None
    """Root of the data; manifests go to `<data_root>/manifests`."""
    working_directory: AbsolutePath | None = None
    """Where the command starts."""
    work_pool: Name | None = None
    """Prefect's work pool."""
    asset: Asset | None = None
    """Name in the manifest tree; default: the job's name."""
    game_date_offset_days: Annotated[int, Field(ge=-366, le=366)] = 0
    """Days from the slot's date to the partition: -1 for a job that works on the day before."""
    nice: Annotated[int, Field(ge=-20, le=19)] = 0
    """CPU priority of the command, as Nice= of systemd: not on top of the worker's."""
    timeout: Annotated[Duration, AfterValidator(positive)] = durations.parse("1h")
    """After this the command is stopped."""
    kill_after: Duration = durations.parse("10s")
    """From SIGTERM to the whole process group until SIGKILL."""
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    """How often Prefect tries again after a failure."""
    retry_delay: Duration = durations.parse("1m")
    """Wait before a retry."""
    overlap: Literal["skip", "queue"] = "skip"
    """What happens to a run while another of the job is going."""
    catchup: Literal["latest", "all", "skip"] = "latest"
    """Which of the slots that were missed run late."""
    catchup_window: Duration = durations.parse("10m")
    """How late a slot may still run."""
    outputs: Texts = ()
    """Templates of the files and folders a run makes."""
    tags: Texts = ()
    """More tags for Prefect; `orchctl` is always set."""
    legacy: Annotated[tuple[Trigger, ...], Field(strict=False)] = ()
    """What starts the job today."""
    accept_cadence: Text | None = None
    """Why the schedule may differ from what starts the job today: `schedule compare` shows it and is content."""
    gates: Gates = Gates()
    """What must hold before a cutover."""
    execution: Literal["command", "steps"] = "command"
    """Whether a run is the command, as one black box, or the steps."""
    steps: Steps = ()
    """The steps of the job: a directed graph without cycles. They cannot stand in `[defaults]`."""
    parallel_steps: Annotated[int, Field(ge=1, le=64)] = 4
    """How many steps of one run go side by side, at most."""
    partition: PartitionKeys = Field(default_factory=dict)
    """More keys of the partition than the date: words of templates, and variables of the environment. A table here is
    merged over that of `[defaults]`."""
    as_of: AsOfModes = Field(default_factory=dict)
    """Where `--as-of-mode NAME` takes the instant of a date from. A table here is merged over that of `[defaults]`."""
    backfill: BackfillTable = BackfillTable()
    """How backfills run."""


class Job(JobTable):
    """A job, fully resolved."""

    name: Name
    command: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Empty where the job is nothing but its steps."""
    data_root: AbsolutePath
    working_directory: AbsolutePath
    work_pool: Name
    asset: Asset

    @property
    def has_legacy(self) -> bool:
        """Whether something else starts the job today, so that Prefect at first only observes."""
        return bool(self.legacy)


class ScheduleTable(Table):
    """A cadence: exactly one of `cron`, `on_calendar`, `every`, `rrule`."""

    cron: Text | None = None
    """Five fields, as crontab(5)."""
    on_calendar: Expressions = ()
    """systemd's language, one expression or a list."""
    every: Annotated[Duration, AfterValidator(positive)] | None = None
    """An interval."""
    anchor: Anchor = None
    """The instant an interval is counted from; default 2020-01-01T00:00:00Z."""
    rrule: Text | None = None
    """RFC 5545."""
    timezone: Text | None = None
    """An IANA name; default: the file's."""


class Schedule(Table):
    """One cadence, resolved. An `on_calendar` list becomes one Schedule a line, `name`, `name-2`, …"""

    name: Name
    cron: str | None = None
    on_calendar: Expressions = ()
    every: Duration | None = None
    anchor: Anchor = None
    rrule: str | None = None
    timezone: str


class SchedulesFile(Table):
    """When jobs run: `schedules.toml` of orchctl."""

    version: FormatVersion
    """Version of this format."""
    timezone: Text = "UTC"
    """Default zone of every schedule, and the zone of `game_date`."""
    schedules: dict[Name, ScheduleTable] = Field(default_factory=dict)
    """The cadences, by name."""


class JobsFile(Table):
    """What the jobs are: `jobs.toml` of orchctl."""

    version: FormatVersion
    """Version of this format."""
    name: Name = UNNAMED
    """Which catalog this is, where several share one Prefect server: each prunes only its own."""
    defaults: JobTable = JobTable()
    """Values for every job that does not say otherwise."""
    limits: dict[Name, Annotated[int, Field(ge=1, le=10_000)]] = Field(default_factory=dict)
    """How many steps may hold each place at a time, over all runs: Prefect's global concurrency limits, by name."""
    logs: LogsTable = LogsTable()
    """Where run logs and events go besides the disk and Prefect."""
    retention: RetentionTable = RetentionTable()
    """How long `orchctl host prune` keeps what runs leave."""
    jobs: dict[Name, JobTable] = Field(default_factory=dict)
    """The jobs, by name."""


class Catalog(Table):
    """The three files as one frozen object. Everything in it is sorted by name."""

    name: Name
    timezone: str
    schedules: Mapping[str, Annotated[tuple[Schedule, ...], Field(strict=False)]]
    jobs: Mapping[str, Job]
    limits: Mapping[str, int] = Field(default_factory=dict)
    contracts: Contracts = Field(default_factory=dict)
    logs: LogsTable = LogsTable()
    # No run reads it: it is not applied, and a change of it is none of any job.
    retention: RetentionTable = Field(default=RetentionTable(), exclude=True)

    def schedules_of(self, job: Job) -> tuple[Schedule, ...]:
        """Return the cadences of `job`, in the order it names them."""
        return tuple(schedule for name in job.schedules for schedule in self.schedules[name])

    def parts_of(self, job: Job) -> dict[str, Any]:
        """Return what `job` is as JSON, part by part: its keys, each step, and the contracts and limits that they name;
        and where its logs go.

        Two jobs of one name that have equal parts do the same; their schedules are not among them.
        """
        parts: dict[str, Any] = job.model_dump(mode="json", by_alias=True)
        steps = parts.pop("steps")
        parts["steps"] = [step["name"] for step in steps]
        parts |= {f"steps.{step['name']}": step for step in steps}
        for name in sorted({use.contract for step in job.steps for use in step.contracts}):
            if name in self.contracts:
                parts[f"contracts.{name}"] = self.contracts[name].model_dump(mode="json", by_alias=True)
        if self.logs.loki is not None:
            parts["logs.loki"] = self.logs.loki.model_dump(mode="json")
        limits = sorted({name for step in job.steps for name in step.concurrency})
        return {**parts, **{f"limits.{name}": self.limits.get(name) for name in limits}}

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads: the applied catalog's form."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Catalog:
        """Read an applied catalog. Raises pydantic's ValidationError on anything else."""
        return cls.model_validate(data)

    @property
    def digest(self) -> str:
        """`sha256:…` over the canonical JSON: equal exactly for catalogs that mean the same."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
