"""The contracts of the catalog, and trying one by hand on files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Protocol

from orchctl.core.catalog import Catalog
from orchctl.core.contracts import Boundary, Checked, ContractTable
from orchctl.core.names import nearest, parse_instant
from orchctl.core.snapshots import instant_of
from orchctl.errors import UsageError


class Checker(Protocol):
    """What checks files in a process of its own. See `adapters/contract_process.py`."""

    def __call__(self, boundaries: Sequence[Boundary], *, cwd: str | None) -> tuple[Checked, ...]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Listed:
    """A contract, and the steps that name it, as JOB/STEP."""

    name: str
    contract: ContractTable
    used_by: tuple[str, ...]


def listed(catalog: Catalog) -> tuple[Listed, ...]:
    """Return the contracts of the catalog, by name."""
    return tuple(Listed(name, contract, _users(catalog, name)) for name, contract in catalog.contracts.items())


def check(
    catalog: Catalog,
    name: str,
    path: PurePath,
    *,
    as_of: str | None,
    snapshot: str | None,
    now: datetime,
    checker: Checker,
) -> tuple[Checked, ...]:
    """Check the file at `path`, an absolute one, or each Parquet file of that folder; one Checked for each.

    `as_of` is the run_as_of_ts, None: now. `snapshot`: when the file's snapshot was taken, also as in its name. A
    schema's module is found from the working directory of the jobs that use the contract, where they have the same.
    Raises UsageError, ContractsUnavailable, OrchctlError.
    """
    boundary = Boundary(
        contract=name,
        table=contract_of(catalog, name),
        root=path,
        file="*.parquet",
        as_of=now if as_of is None else _instant("--as-of", as_of),
        snapshot=None if snapshot is None else _snapshot(snapshot),
    )
    jobs = {use.partition("/")[0] for use in _users(catalog, name)} if boundary.table.schema_class else ()
    directories = {catalog.jobs[job].working_directory for job in jobs}
    return checker([boundary], cwd=directories.pop() if len(directories) == 1 else None)


def contract_of(catalog: Catalog, name: str) -> ContractTable:
    """Return a contract. Raises UsageError where there is none of that name."""
    if name not in catalog.contracts:
        near = nearest(name, catalog.contracts)
        known = ", ".join(catalog.contracts) or "the catalog has no contracts.toml, or it holds none"
        raise UsageError(
            f'there is no contract "{name}"', hint=f'did you mean "{near}"?' if near else f"contracts: {known}"
        )
    return catalog.contracts[name]


def _users(catalog: Catalog, name: str) -> tuple[str, ...]:
    return tuple(
        f"{job.name}/{step.name}"
        for job in catalog.jobs.values()
        for step in job.steps
        if any(use.contract == name for use in step.contracts)
    )


def _instant(option: str, text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _snapshot(text: str) -> datetime:
    found = instant_of(text)
    if found is None:
        said = f"--snapshot: {text!r:.60} is not an instant like 2025-12-19T05:00:00Z or 20251219T050000Z"
        raise UsageError(said, hint="it is the part of the snapshot's name that says when it was taken")
    return found
