"""What a step reads: the newest snapshot at or before the run's `run_as_of_ts`, or what an earlier step published."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchctl.adapters import inputs as disk
from orchctl.core import snapshots, templates
from orchctl.core.catalog_steps import InputTable, StepTable
from orchctl.core.names import format_instant, parse_instant
from orchctl.core.publish import LATEST
from orchctl.runner.facts import Facts


@dataclass(frozen=True, slots=True)
class Input:
    """An input as this run reads it.

    `gap` is why there is nothing to read (`path` is then empty), None where there is. `snapshot` is the instant of what
    was selected (UTC), None where its path has none. `source` is the published run it comes from, for an input that is
    a step's: its manifest's `publish`.
    """

    table: InputTable
    path: str = ""
    gap: str | None = None
    snapshot: datetime | None = None
    run_id: str | None = None
    source: Mapping[str, Any] | None = None
    pointer: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a manifest's `inputs` hold it. Raises OSError where the files may not be looked at."""
        found = disk.look(self.path) if self.gap is None else None
        return {
            "name": self.table.name,
            "path": self.path or None,
            "step": self.table.step,
            "run_id": self.run_id,
            "snapshot_ts": format_instant(self.snapshot) if self.snapshot else None,
            "file_count": found.file_count if found else 0,
            "size_bytes": found.size_bytes if found else 0,
            "mtime": found.mtime if found else None,
            "row_count": found.rows if found else None,
            "pointer_sha256": disk.sha256(self.pointer) if self.pointer else None,
            "digest": (self.source or {}).get("digest"),
            "gap": self.gap,
        }

    @property
    def identity(self) -> tuple[str, str | None, str | None]:
        """What must be the same for a step that has read it to stand: for an input that is a step's."""
        return self.table.name, self.path or None, (self.source or {}).get("digest")


def resolve(facts: Facts, step: StepTable) -> tuple[Input, ...]:
    """Return the inputs of a step in the catalog's order. Raises OSError where a folder may not be read."""
    return tuple(_of_step(facts, table) if table.step else _of_path(facts, table) for table in step.inputs)


def words(inputs: tuple[Input, ...]) -> dict[str, str]:
    """Return the words of templates for them."""
    return {f"{templates.INPUTS}{each.table.name}": each.path for each in inputs}


def _of_path(facts: Facts, table: InputTable) -> Input:
    path = templates.render(table.path or "", {**facts.values(), templates.SNAPSHOT: snapshots.MARK})
    wanted = snapshots.pattern(path)
    if wanted is None:
        beside = Path(path).parent / LATEST
        return Input(table, path, pointer=beside) if disk.is_there(path) else Input(table, gap=f"there is no {path}")
    names = disk.names_in(wanted.folder)
    for chosen in snapshots.candidates(names, wanted, as_of=facts.as_of):
        # One without the file that is asked for is not whole: it is being written, or failed.
        if disk.is_there(found := wanted.path(chosen)):
            return Input(table, found, snapshot=chosen.at, pointer=Path(wanted.folder) / LATEST)
    shown = wanted.path(snapshots.Snapshot("*", facts.as_of))
    return Input(table, gap=f"no snapshot at or before {format_instant(facts.as_of)} at {shown}")


def _of_step(facts: Facts, table: InputTable) -> Input:
    """Return what a step published: in this run, or, where the step is not part of it, newest before `run_as_of_ts`."""
    assert table.step is not None
    if any(step.name == table.step for step in facts.selected()):
        made = facts.manifests.existing(table.step, facts.game_date, facts.run_id)
        if made is None or made["status"] != "success" or not made.get("publish"):
            return Input(table, gap=f"step {table.step} published nothing in this run")
        return _published(table, made)
    earlier = [each for each in facts.manifests.published(table.step, facts.game_date) if _counts(each, facts)]
    for made in sorted(earlier, key=_age, reverse=True):
        if os.path.exists(made["publish"]["to"]):
            return _published(table, made)
    return Input(
        table,
        gap=f"step {table.step} has no success for {facts.game_date} as of {format_instant(facts.as_of)} or before",
    )


def _counts(made: Mapping[str, Any], facts: Facts) -> bool:
    if made.get("job") != facts.job.name:
        return False
    try:
        return _age(made)[0] <= facts.as_of
    except (KeyError, TypeError, ValueError):
        return False


def _age(made: Mapping[str, Any]) -> tuple[datetime, str]:
    partition = made["partition"]
    return parse_instant(partition["run_as_of_ts"]), partition["run_id"]


def _published(table: InputTable, made: Mapping[str, Any]) -> Input:
    to = made["publish"]["to"]
    return Input(
        table,
        to,
        snapshot=_age(made)[0],
        run_id=made["partition"]["run_id"],
        source=made["publish"],
        pointer=Path(to).parent / LATEST,
    )
