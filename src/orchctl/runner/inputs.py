"""What a step reads: the newest snapshot at or before the run's `run_as_of_ts`, or what an earlier step published."""

from __future__ import annotations

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
    """Return the inputs of a step in the catalog's order.

    Raises OSError where a folder may not be read, OrchctlError where a manifest may not.
    """
    return tuple(_of_step(facts, table) if table.step else _of_path(facts, step, table) for table in step.inputs)


def words(inputs: tuple[Input, ...]) -> dict[str, str]:
    """Return the words of templates for them."""
    return {f"{templates.INPUTS}{each.table.name}": each.path for each in inputs}


def _of_path(facts: Facts, step: StepTable, table: InputTable) -> Input:
    path = templates.render(table.path or "", {**facts.values(step.name), templates.SNAPSHOT: snapshots.MARK})
    found = snapshots.choose(path, as_of=facts.as_of, names_in=disk.names_in, is_there=disk.is_there)
    if found.gap is not None:
        return Input(table, gap=found.gap)
    return Input(table, found.path, snapshot=found.at, pointer=Path(found.folder) / LATEST)


def _of_step(facts: Facts, table: InputTable) -> Input:
    """Return what a step published: in this run, or, where the step is not part of it, newest before `run_as_of_ts`."""
    assert table.step is not None
    if any(step.name == table.step for step in facts.selected()):
        made = facts.manifests.existing(table.step, facts.game_date, facts.run_id)
        if made is None or made["status"] != "success" or not made.get("publish"):
            return Input(table, gap=f"step {table.step} published nothing in this run")
        at = parse_instant(made["partition"]["run_as_of_ts"])
        return _published(table, snapshots.Earlier(at, made["partition"]["run_id"], made))
    manifests = facts.manifests.published(table.step, facts.game_date)
    for each in snapshots.earlier(manifests, job=facts.job, keys=facts.keys, as_of=facts.as_of):
        if disk.is_there(each.path):
            return _published(table, each)
    return Input(
        table,
        gap=f"step {table.step} has no success for {facts.game_date} as of {format_instant(facts.as_of)} or before",
    )


def _published(table: InputTable, made: snapshots.Earlier) -> Input:
    return Input(
        table,
        made.path,
        snapshot=made.as_of,
        run_id=made.run_id,
        source=made.manifest["publish"],
        pointer=Path(made.path).parent / LATEST,
    )
