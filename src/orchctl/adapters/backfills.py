"""What a backfill needs of the disk: all runs of one date, and the place of its summary."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from orchctl.adapters import files
from orchctl.adapters.manifests import Manifests
from orchctl.core.manifest import Run, run_of_manifest
from orchctl.errors import OrchctlError

FOLDER = "backfills"
SUMMARY = "summary.json"


class Backfills:
    """The backfills under one data root, beside the manifests of the runs. `trust` is as in `Manifests`."""

    def __init__(self, data_root: str, *, trust: Collection[int] | None = None) -> None:
        self._root = Path(data_root) / "manifests"
        self._tree = Manifests(data_root, trust=trust)

    def runs_on(self, asset: str, day: date) -> Iterator[tuple[Run, dict[str, Any]]]:
        """Yield every run of an asset (a job's, or a step's) for one date, with its manifest, by run.

        One that says running, and whose process is gone, is crashed. Torn ones are passed over. Raises OrchctlError for
        what may not be read.
        """
        for _, data in self._tree.of_date(asset, day):
            try:
                run = run_of_manifest(data, data_root=self._tree.data_root)
            except (ValueError, AttributeError):
                continue
            yield (self._tree.current(run, skipped=[]) if run.status == "running" else run), data

    def manifest(self, asset: str, day: date, run_id: str) -> dict[str, Any] | None:
        """Return the manifest of a run by where it would be, None where none can be read: it is for showing."""
        with contextlib.suppress(OrchctlError):
            return self._tree.existing(asset, day, run_id)
        return None

    def run(self, asset: str, day: date, run_id: str) -> Run | None:
        """Return a run by where its manifest would be, as `runs_on` gives it; None where there is none, or a torn one.

        Raises OrchctlError where it may not be read: it may be a success.
        """
        data = self._tree.existing(asset, day, run_id)
        try:
            run = None if data is None else run_of_manifest(data, data_root=self._tree.data_root)
        except ValueError:
            return None
        return self._tree.current(run, skipped=[]) if run is not None and run.status == "running" else run

    def steps_of(self, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the manifests of a run's steps, by the run's own."""
        return self._tree.steps_of(manifest)

    def published(self, step: str, day: date) -> Iterator[dict[str, Any]]:
        """Yield the manifests of a step's runs for one date that published something."""
        return self._tree.published(step, day)

    def write(self, backfill: str, summary: Mapping[str, Any]) -> Path:
        """Write the summary of a backfill whole, in place of an earlier one; return its path. Repeatable."""
        folder = self._root / FOLDER / backfill
        files.make_directory(folder)
        path = folder / SUMMARY
        files.write_atomic(path, files.dump(summary))
        return path

    def has_ended(self, backfill: str) -> bool:
        """Whether every date of a backfill has ended once: its summary is there."""
        return (self._root / FOLDER / backfill / SUMMARY).exists()
