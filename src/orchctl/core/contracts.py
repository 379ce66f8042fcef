"""Data contracts: what `contracts.toml` says of a table's columns and rows. What is found is a `Finding`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field

from orchctl.core.catalog_fields import Asset, Duration, FormatVersion, Table, Text, Texts
from orchctl.core.names import format_exact

Scalar = bool | int | float | str
DType = Literal[
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64",
    "bool", "string", "date", "datetime", "duration", "integer", "float", "number",
]  # fmt: skip
"""`integer`, `float` and `number` mean any of their kind."""


class ColumnTable(Table):
    """What must hold of one column."""

    dtype: DType | None = None
    """Its type; none: any."""
    required: bool = True
    """Whether it must be there."""
    nullable: bool = False
    """Whether it may hold nulls (and, for numbers, NaN)."""
    unique: bool = False
    """Whether no value may come twice."""
    min: int | float | Text | None = None
    """The least value; for dates and instants as text."""
    max: int | float | Text | None = None
    """The greatest value."""
    allowed: Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)] = ()
    """The only values there may be; none: any."""
    pattern: Text | None = None
    """A regular expression that each text must match from its beginning to its end."""


class RowsTable(Table):
    """Bounds of the number of rows."""

    min: Annotated[int, Field(ge=0)] = 0
    """At least."""
    max: Annotated[int, Field(ge=0)] | None = None
    """At most; none: any number."""


class FreshnessTable(Table):
    """How old the data may be, counted back from `run_as_of_ts`."""

    within: Duration
    """The newest may be this old."""
    column: Text | None = None
    """The column that holds the instants; none: the instant of the snapshot that was selected."""


class ContractTable(Table):
    """A contract: columns and rows as listed, or a schema class of the pipeline's own."""

    description: Text = ""
    """What it promises, for people."""
    schema_class: Annotated[
        Annotated[str, Field(pattern=r"^[\w.]+:[A-Za-z_]\w*$")] | None,
        Field(alias="schema"),
    ] = None
    """`module:SchemaClass`, a Pandera model for Polars, found from the working directory; instead of `columns`."""
    columns: Mapping[Text, ColumnTable] = Field(default_factory=dict)
    """The columns, by name."""
    strict: bool = False
    """Whether there may be no other columns."""
    unique: Annotated[tuple[Texts, ...], Field(strict=False)] = ()
    """Keys: lists of columns whose values together may come only once."""
    rows: RowsTable = RowsTable()
    """How many rows there may be."""
    freshness: FreshnessTable | None = None
    """How old the data may be; none: any age."""


class ContractsFile(Table):
    """What data must look like at the boundaries of steps: `contracts.toml` of orchctl."""

    version: FormatVersion
    """Version of this format."""
    contracts: Mapping[Asset, ContractTable] = Field(default_factory=dict)
    """The contracts, by name."""


Contracts = Mapping[Asset, ContractTable]


@dataclass(frozen=True, slots=True)
class Boundary:
    """A contract and the files it must hold of.

    `file` is a glob below the folder `root`; where `root` is a file, it is that one. `as_of` is the run's
    `run_as_of_ts`, `snapshot` the instant of the input that was selected, None where there is none. Both are aware.
    """

    contract: str
    table: ContractTable
    root: PurePath
    file: str
    as_of: datetime
    snapshot: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the process reads."""
        return {
            "contract": self.contract,
            "table": self.table.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            "root": str(self.root),
            "file": self.file,
            "as_of": format_exact(self.as_of),
            "snapshot": format_exact(self.snapshot) if self.snapshot else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Boundary:
        """Read it there."""
        return cls(
            data["contract"],
            ContractTable.model_validate(data["table"]),
            PurePath(data["root"]),
            data["file"],
            datetime.fromisoformat(data["as_of"]),
            datetime.fromisoformat(data["snapshot"]) if data["snapshot"] else None,
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which data breaks a contract. `count` of `rows` rows do, None where rows are not what is wrong.

    `check` is the rule in one word (`missing`, `dtype`, `nullable`, `range`, …), `column` None for the whole table.
    `message` says it to a person: "3 of 412 rows have p50 > 48".
    """

    check: str
    column: str | None
    message: str
    count: int | None = None
    rows: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a manifest's `checks` hold it."""
        return {
            "check": self.check,
            "column": self.column,
            "message": self.message,
            "count": self.count,
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Read it."""
        return cls(data["check"], data["column"], data["message"], data["count"], data["rows"])


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking one contract on one file: it holds where there are no findings."""

    contract: str
    file: str
    rows: int | None
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether the contract holds."""
        return not self.findings

    def masked(self, mask: Callable[[str], str]) -> Checked:
        """Return it with what `mask` makes of its texts."""
        findings = tuple(replace(finding, message=mask(finding.message)) for finding in self.findings)
        return replace(self, file=mask(self.file), findings=findings)

    @property
    def message(self) -> str:
        """Say it in a sentence."""
        if self.holds:
            return f"contract holds: {self.contract}"
        return f"contract broken: {self.contract}: {'; '.join(finding.message for finding in self.findings)}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a manifest's `checks` hold it."""
        return {
            "contract": self.contract,
            "file": self.file,
            "rows": self.rows,
            "status": "ok" if self.holds else "broken",
            "findings": [finding.to_json() for finding in self.findings],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Checked:
        """Read it."""
        findings = tuple(Finding.from_json(each) for each in data["findings"])
        return cls(data["contract"], data["file"], data["rows"], findings)
