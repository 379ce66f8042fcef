"""What the catalog says of a job's steps: what they run, read, publish and promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from orchctl.core import durations
from orchctl.core.catalog_fields import Argv, Asset, Duration, Env, Name, Names, Table, Text, Texts, positive

Missing = Literal["fail", "warn", "skip"]


class RetryDelay(Table):
    """How long to wait before each retry: `first * factor ** n`, at most `most`, plus a random share of it."""

    first: Annotated[Duration, AfterValidator(positive)]
    """Before the first retry."""
    factor: Annotated[float, Field(ge=1, le=10)] = 2.0
    """How much longer each wait is than the one before."""
    most: Annotated[Duration, AfterValidator(positive)] = durations.parse("10m")
    """The longest wait, before jitter."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.3
    """How much longer it may be at random, as a share: 0.3 is up to 30 %."""


def _delay(value: object) -> object:
    """A plain duration is the same wait each time, as for a job."""
    if isinstance(value, (dict, RetryDelay)):
        return value
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is neither a duration like "30s" nor a table {{ first = "30s", … }}')
    durations.parse(value)
    return {"first": value, "factor": 1.0, "most": value, "jitter": 0.0}


Delay = Annotated[
    RetryDelay,
    BeforeValidator(_delay),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": durations.PATTERN}, RetryDelay.model_json_schema(mode="validation")]}
    ),
]


class InputTable(Table):
    """What a step reads: either a `path`, as of the run's `run_as_of_ts`, or what an earlier `step` published."""

    name: Name
    """Its name: the step finds its path in `{inputs.NAME}` and in `ORCHCTL_INPUT_NAME`."""
    path: Text | None = None
    """A template. With `{snapshot_ts}` in one of its folders or in its file name, the newest one at or before
    `run_as_of_ts`; that part of the name is an instant (`20251219T020143Z`, `2025-12-19T02:01:43Z`) or a run id."""
    step: Asset | None = None
    """A step of this job that publishes: the input is where that step's files of this run are."""
    missing: Missing = "fail"
    """What a gap does: fails the step, only warns, or skips the step (and what needs it) without failing the run."""


class ContractUse(Table):
    """A contract that must hold at a boundary of a step."""

    contract: Asset
    """Its name in contracts.toml."""
    input: Name | None = None
    """Which input it is checked on, before the step runs; none: what the step has made, before it is published."""
    file: Text = "*.parquet"
    """Which files, as a glob below the input or the staging directory; at least one must match."""


class PublishTable(Table):
    """Where a step's files go once its contracts hold, and whether production reads them."""

    to: Text
    """A template for the immutable place of this run; its last part names `{run_id}`. The pointers are beside it."""
    source: Annotated[Text, Field(alias="from")] = ""
    """A template for what is promoted, below the staging directory; default: all of it."""
    policy: Literal["always", "manual", "window"] = "always"
    """Whether `current_run.json` moves to this run: always, only by hand, or until an instant."""
    until: Text | None = None
    """For policy window: a template for an instant, or the name of an `as_of` mode of the job."""


class StepTable(Table):
    """One step of a job."""

    name: Asset
    """Its name: that of its task in Prefect, and of its asset in the manifest tree."""
    command: Argv
    """The program and its arguments: an argv, never a shell line."""
    after: Annotated[tuple[Asset, ...], Field(strict=False)] = ()
    """Steps that must have succeeded before; default: none."""
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    """How often it is tried again. A broken contract or a missing permission never is."""
    retry_delay: Delay = RetryDelay.model_validate(_delay("30s"))
    """Wait before a retry: a duration, or `{ first, factor, most, jitter }`."""
    permanent: Texts = ()
    """Regular expressions: where the end of the output matches one, trying again would not help."""
    timeout: Annotated[Duration, AfterValidator(positive)] | None = None
    """After this an attempt is stopped; default: the job's."""
    env: Env = Field(default_factory=dict)
    """Environment of the step, on top of the job's."""
    inputs: Annotated[tuple[InputTable, ...], Field(strict=False)] = ()
    """What it reads."""
    outputs: Texts = ()
    """Templates of the files and folders it makes, beside what it publishes."""
    contracts: Annotated[tuple[ContractUse, ...], Field(strict=False)] = ()
    """What must hold of its inputs before it runs, and of its files before they are published."""
    publish: PublishTable | None = None
    """Where its files go; none: it publishes nothing."""
    optional: bool = False
    """Its failure only warns: steps after it run as if it had succeeded, and the run can succeed."""
    concurrency: Names = ()
    """Names of `[limits]`: it holds a place in each while it runs."""


class PartitionKey(Table):
    """One more key of a job's partition, beside the date: by a rule from the date, or given by who asks for a run."""

    format: Text | None = None
    """A rule: `strftime` of the game date, such as `%Y` or `%m`."""
    shift_months: Annotated[int, Field(ge=-120, le=120)] = 0
    """Months from the game date to the date that the rule is of: -9 for a season that is named by its October."""
    default: Text | None = None
    """For a key without a rule: its value where nobody gives one; none: it must be given."""


class AsOfMode(Table):
    """Where the `run_as_of_ts` of a date comes from: the output of a command, or a file."""

    command: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """A command that prints one instant; `{game_date}` is the date."""
    file: Text | None = None
    """A template for a file that holds the instant: as its only text, or as JSON or TOML under `key`."""
    key: Text | None = None
    """Where in the file: keys with dots between; `{game_date}` may be one."""
    shift: Annotated[str, Field(pattern=r"^-?[0-9]+[smhd]$")] | None = None
    """Added to the instant, such as `-15m`."""


class BackfillTable(Table):
    """How backfills of a job run."""

    parallel: Annotated[int, Field(ge=1, le=100)] = 2
    """How many partitions at a time, at most."""


Steps = Annotated[tuple[StepTable, ...], Field(strict=False)]
PartitionKeys = Mapping[
    Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")],
    PartitionKey,
]
AsOfModes = Mapping[Name, AsOfMode]
