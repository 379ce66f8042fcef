"""The catalog: what an operator writes (`JobTable`, `ScheduleTable`) and what it means (`Job`, `Schedule`).

The tables are the contract of `config/*.toml` and the source of the JSON Schema in `docs/schema/`. A
`Catalog` is frozen and fully resolved: no default, file or environment is looked up after it is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
)

from orchctl.core import durations
from orchctl.core.names import (
    DOTTED_NAME_PATTERN,
    ENV_KEY_PATTERN,
    NAME_PATTERN,
    format_instant,
    is_dotted_name,
    is_name,
    parse_instant,
)

VERSION = 1


def _not_bool(value: object) -> object:
    if isinstance(value, (bool, float)):  # equal to 1, and so inside Literal[1]
        raise ValueError(f"{str(value).lower()} is not a version")
    return value


def _duration(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a duration like "90s", "5m", "2h" or "1d"')
    return durations.parse(value)


def _positive(seconds: int) -> int:
    if seconds == 0:
        raise ValueError("must be longer than 0s")
    return seconds


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"{text!r} does not match {NAME_PATTERN}")
    return text


def _dotted(text: str) -> str:
    if not is_dotted_name(text):
        raise ValueError(f"{text!r} does not match {DOTTED_NAME_PATTERN} (and may not hold '..')")
    return text


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("may not hold a NUL byte")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/") or "\x00" in text or "\n" in text or ".." in text.split("/"):
        raise ValueError(f"{text!r} is not an absolute path without '..'")
    return text.rstrip("/") or "/"


def _env_file(text: str) -> str:
    return ("-" if text.startswith("-") else "") + _absolute(text.removeprefix("-"))


def _program(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or not argv[0].strip():
        raise ValueError("names no program")
    return argv


def _anchor(value: object) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, datetime) and value.tzinfo is not None:
            return format_instant(value)
        if isinstance(value, str):  # so it stands in the applied catalog's JSON
            return format_instant(parse_instant(value))
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{value} is not an instant with a zone like 2025-12-19T00:00:00Z")


_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": durations.PATTERN, "examples": ["90s", "5m", "2h", "1d"]}
)
Duration = Annotated[
    int,
    BeforeValidator(_duration),
    PlainSerializer(durations.canonical, return_type=str, when_used="json"),
    _DURATION_SCHEMA,
]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Asset = Annotated[
    str,
    AfterValidator(_dotted),
    WithJsonSchema({"type": "string", "pattern": DOTTED_NAME_PATTERN, "not": {"pattern": r"\.\."}}),
]
Text = Annotated[str, AfterValidator(_no_nul)]
AbsolutePath = Annotated[
    str,
    AfterValidator(_absolute),
    WithJsonSchema({"type": "string", "pattern": "^/", "not": {"pattern": r"(^|/)\.\.(/|$)"}}),
]
Argv = Annotated[tuple[Text, ...], Field(strict=False, min_length=1), AfterValidator(_program)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
Env = Annotated[
    Mapping[str, Text],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "propertyNames": {"pattern": ENV_KEY_PATTERN, "not": {"pattern": "^(ORCHCTL_|PREFECT__)"}},
        }
    ),
]
Expressions = Annotated[
    tuple[Text, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
EnvFiles = Annotated[
    tuple[Annotated[str, AfterValidator(_env_file), WithJsonSchema({"type": "string", "pattern": "^-?/"})], ...],
    Field(strict=False),
]
FormatVersion = Annotated[Literal[1], BeforeValidator(_not_bool)]
Anchor = Annotated[str | None, BeforeValidator(_anchor), WithJsonSchema({"type": "string", "format": "date-time"})]


class _Table(BaseModel):
    """A TOML table: unknown keys are errors, types are not coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class TimerTrigger(_Table):
    """A systemd timer that starts the job today."""

    timer: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,248}\.timer$")]
    """The timer's unit name; it may not begin like an option."""
    scope: Literal["system", "user"] = "system"
    """Which manager holds it: the system's, or a user's."""
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*\$?$")] | None = None
    """Whose manager, for scope user; default: that of who runs orchctl or the worker."""


class CronTrigger(_Table):
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


class Gates(_Table):
    """What must hold before Prefect may own the job."""

    min_successes: Annotated[int, Field(ge=0, le=1000)] = 3
    """Prefect-driven runs that succeeded."""
    within: Duration = durations.parse("7d")
    """How far back they count."""


class JobTable(_Table):
    """A job as a table says it; every key may stand in `[defaults]` instead."""

    description: Text = ""
    """What the job does, for people."""
    schedules: Names = ()
    """Names of schedules; none: the job runs by hand only."""
    command: Argv | None = None
    """The program and its arguments: an argv, never a shell line."""
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
    """CPU priority of the command, as nice(1) counts it."""
    timeout: Annotated[Duration, AfterValidator(_positive)] = durations.parse("1h")
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


class Job(JobTable):
    """A job, fully resolved."""

    name: Name
    command: Argv
    data_root: AbsolutePath
    working_directory: AbsolutePath
    work_pool: Name
    asset: Asset

    @property
    def has_legacy(self) -> bool:
        """Whether something else starts the job today, so that Prefect at first only observes."""
        return bool(self.legacy)


class ScheduleTable(_Table):
    """A cadence: exactly one of `cron`, `on_calendar`, `every`, `rrule`."""

    cron: Text | None = None
    """Five fields, as crontab(5)."""
    on_calendar: Expressions = ()
    """systemd's language, one expression or a list."""
    every: Annotated[Duration, AfterValidator(_positive)] | None = None
    """An interval."""
    anchor: Anchor = None
    """The instant an interval is counted from; default 2020-01-01T00:00:00Z."""
    rrule: Text | None = None
    """RFC 5545."""
    timezone: Text | None = None
    """An IANA name; default: the file's."""


class Schedule(_Table):
    """One cadence, resolved. An `on_calendar` list becomes one Schedule a line, `name`, `name-2`, …"""

    name: Name
    cron: str | None = None
    on_calendar: Expressions = ()
    every: Duration | None = None
    anchor: Anchor = None
    rrule: str | None = None
    timezone: str


class SchedulesFile(_Table):
    """When jobs run: `schedules.toml` of orchctl."""

    version: FormatVersion
    """Version of this format."""
    timezone: Text = "UTC"
    """Default zone of every schedule, and the zone of `game_date`."""
    schedules: dict[Name, ScheduleTable] = Field(default_factory=dict)
    """The cadences, by name."""


class JobsFile(_Table):
    """What the jobs are: `jobs.toml` of orchctl."""

    version: FormatVersion
    """Version of this format."""
    name: Name = "default"
    """Which catalog this is, where several share one Prefect server: each prunes only its own."""
    defaults: JobTable = JobTable()
    """Values for every job that does not say otherwise."""
    jobs: dict[Name, JobTable] = Field(default_factory=dict)
    """The jobs, by name."""


class Catalog(_Table):
    """Both files as one frozen object. `jobs` and `schedules` are sorted by name."""

    name: Name
    timezone: str
    schedules: Mapping[str, Annotated[tuple[Schedule, ...], Field(strict=False)]]
    jobs: Mapping[str, Job]

    def schedules_of(self, job: Job) -> tuple[Schedule, ...]:
        """Return the cadences of `job`, in the order it names them."""
        return tuple(schedule for name in job.schedules for schedule in self.schedules[name])

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads: the applied catalog's form."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Catalog:
        """Read an applied catalog. Raises pydantic's ValidationError on anything else."""
        return cls.model_validate(data)

    @property
    def digest(self) -> str:
        """`sha256:…` over the canonical JSON: equal exactly for catalogs that mean the same."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
