"""The manifest tree: `<data_root>/manifests/<asset>/game_date=<D>/run=<run_id>/`, and the events beside it.

Whoever shows what is there reads it as it is. Where a decision depends on it (what need not run again, what feeds a
step, whether a job may be cut over), it is read only where nobody else could have written it: see docs/security.md.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from orchctl.adapters import belief, files, host_facts, run_logs
from orchctl.core.manifest import Run, Skipped, fold, is_step, place_of, run_of_event, run_of_manifest
from orchctl.core.names import is_dotted_name, run_instant
from orchctl.errors import NotBelieved, OrchctlError

MANIFEST = "manifest.json"
_FOLDER_MODE = 0o755
"""Less the umask: with one of 002 the group of a shared data root could write the record."""


class Manifests:
    """The manifests under one data root.

    `trust` are users (uids) whose files count as ours; then what anybody else could have written is not read but raises
    NotBelieved. None: everything is read, for showing it.
    """

    def __init__(self, data_root: str, *, trust: Collection[int] | None = None) -> None:
        self.data_root = data_root
        self._trust = trust
        self._root = Path(data_root) / "manifests"

    def run_directory(self, asset: str, game_date: date, run_id: str) -> Path:
        """Return the folder of a run. It holds the manifest and a log for each attempt."""
        return self._root / asset / f"game_date={game_date.isoformat()}" / f"run={run_id}"

    def directory_of(self, run: Run) -> Path:
        """Return the folder of a run that was read from here."""
        return self.run_directory(run.asset, run.game_date, run.run_id)

    def write(self, manifest: Mapping[str, Any]) -> Path:
        """Write a manifest whole, in place of the one before. Repeatable."""
        partition = manifest["partition"]
        directory = self.run_directory(
            manifest["asset"], date.fromisoformat(partition["game_date"]), partition["run_id"]
        )
        files.make_directory(directory, mode=_FOLDER_MODE)
        path = directory / MANIFEST
        files.write_atomic(path, files.dump(manifest))
        return path

    def append(self, event: Mapping[str, Any]) -> None:
        """Append one event to the file of its UTC date."""
        folder = self._root / "events"
        files.make_directory(folder, mode=_FOLDER_MODE)
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"
        files.append_line(folder / f"{event['ts'][:10]}.jsonl", line.encode("utf-8", "backslashreplace"))

    def events(self, day: date, *, skipped: list[Skipped]) -> Iterator[Run]:
        """Yield the runs that the events of one UTC date tell of, in file order; several for one run.

        Lines that are not run events (other events, torn or foreign lines) are passed over; the torn and the
        foreign are noted in `skipped`.
        """
        for where, data in self._events(day, skipped):
            if "run_id" in data and not is_step(data):
                try:
                    yield run_of_event(data, data_root=self.data_root)
                except ValueError as error:
                    skipped.append(Skipped(where, _short(error)))

    def step_events(self, day: date, *, run_id: str | None = None, skipped: list[Skipped]) -> Iterator[dict[str, Any]]:
        """Yield the events of steps of one UTC date, in file order; with `run_id` only those of that run."""
        for _, data in self._events(day, skipped, holding=(run_id or '"step"').encode()):
            if is_step(data) and run_id in {None, data.get("run_id")}:
                yield data

    def _events(
        self, day: date, skipped: list[Skipped], *, holding: bytes = b""
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield where each event of one UTC date stands and what it says; only of lines with `holding` in them."""
        path = self._root / "events" / f"{day.isoformat()}.jsonl"
        try:
            content = self._content(path)
        except FileNotFoundError:
            return
        except OSError as error:
            skipped.append(Skipped(str(path), error.strerror or str(error)))
            return
        for number, line in enumerate(content.splitlines(), start=1):
            if holding not in line:
                continue
            where = f"{path}:{number}"
            try:
                data = json.loads(line)
                if not isinstance(data, dict) or "event" not in data:
                    raise ValueError("not an event of orchctl")
            except (ValueError, RecursionError) as error:
                skipped.append(Skipped(where, _short(error)))
                continue
            yield where, data

    def handover_events(self, day: date, job: str) -> Iterator[dict[str, Any]]:
        """Yield what the events of one UTC date tell of a job's handovers; what cannot be read is passed over."""
        try:
            content = (self._root / "events" / f"{day.isoformat()}.jsonl").read_bytes()
        except OSError:
            return
        for line in content.splitlines():
            if b'"handover_' not in line:
                continue
            with contextlib.suppress(ValueError, RecursionError):
                data = json.loads(line)
                if isinstance(data, dict) and data.get("job") == job and "handover" in data:
                    yield data

    def read(self, run: Run) -> dict[str, Any] | None:
        """Return the manifest of a run as it is on disk, None where there is none. Raises ValueError on a torn one."""
        return self._load(self.directory_of(run) / MANIFEST)

    def existing(self, asset: str, game_date: date, run_id: str) -> dict[str, Any] | None:
        """Return the manifest of a run by where it would be; None where none is, or a torn one.

        Raises NotAllowed or OrchctlError where that cannot be known: what may not be read may be a success.
        """
        return self._known(self.run_directory(asset, game_date, run_id) / MANIFEST)

    def steps_of(self, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the manifests of a run's steps in the run's own order, by the run's manifest.

        Those that have not begun have none; one that is running and whose process is gone is crashed. What cannot be
        read is passed over: this is for showing.
        """
        partition = manifest["partition"]
        day, run_id = date.fromisoformat(partition["game_date"]), partition["run_id"]
        rows = []
        for name in (str(row["name"]) for row in manifest.get("steps") or []):
            with contextlib.suppress(OrchctlError):
                rows.append(self.existing(name, day, run_id) if is_dotted_name(name) else None)
        return [_as_it_is(row) for row in rows if row is not None and row.get("job") == manifest["job"]]

    def step_directories(self, directory: Path) -> dict[str, Path]:
        """Return the folder of each step of the run whose folder this is, in the run's order; none for other runs."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            rows = (self._load(directory / MANIFEST) or {}).get("steps") or []
            names = [str(row["name"]) for row in rows]
            below = Path(directory.parent.name) / directory.name
            return {name: self._root / name / below for name in names if is_dotted_name(name)}
        return {}

    def of_date(self, asset: str, game_date: date) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield each manifest of an asset and a date, by run, with its path; torn ones are passed over.

        Raises NotAllowed or OrchctlError for what may not be read: who looks for the newest would take an older one.
        """
        folder = self._root / asset / f"game_date={game_date.isoformat()}"
        try:
            names = sorted(name for name in os.listdir(folder) if name.startswith("run="))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise run_logs.unreadable(folder, error) from error
        for name in names:
            if (data := self._known(folder / name / MANIFEST)) is not None:
                yield folder / name / MANIFEST, data

    def published(self, step: str, game_date: date) -> Iterator[dict[str, Any]]:
        """Yield the manifests of a step's runs for one date that succeeded and published something, by run."""
        for _, data in self.of_date(step, game_date):
            if data.get("status") == "success" and isinstance(data.get("publish"), dict):
                yield data

    def find(self, run_id: str, *, skipped: list[Skipped]) -> Run | None:
        """Return the run with this whole id, by its manifest. Looks at the dates near the run's, not at all.

        The partition of a run lies near its instant unless somebody asked for another date: then the events
        of its day say which.
        """
        try:
            day = run_instant(run_id).date()
            days = {offset: day + timedelta(days=offset) for offset in (0, 1, -1, -2, 2)}
        except (ValueError, OverflowError):
            return None  # it has the form of a run id, and no day that there can be
        told = [run for offset in (0, 1, -1) for run in self.events(days[offset], skipped=skipped)]
        newest = fold(run for run in told if run.run_id == run_id).get(run_id)
        if newest is not None:
            return self._run_at(self.directory_of(newest), skipped) or newest
        for asset in self._assets():
            for offset in (0, -1, 1, -2, 2):
                directory = self.run_directory(asset, days[offset], run_id)
                if directory.is_dir() and (run_found := self._run_at(directory, skipped)) is not None:
                    return run_found
        return None

    def current(self, run: Run, *, skipped: list[Skipped]) -> Run:
        """Return a run that the events show as running as it is now: by its manifest, or crashed."""
        run = self._run_at(self.directory_of(run), skipped) or run
        if run.status == "running" and run.place is not None and host_facts.is_gone(run.place):
            # Once more: it may have written its end and gone between the two looks.
            run = self._run_at(self.directory_of(run), skipped) or run
            if run.status == "running":
                return run.with_status("crashed", "the process is gone and left no result")
        return run

    def all_manifests(self, *, skipped: list[Skipped]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield every manifest of the tree, in no order. Reads all history: only for rebuilding the events."""
        for asset in self._assets():
            for path in sorted((self._root / asset).glob(f"game_date=*/run=*/{MANIFEST}")):
                try:
                    data = self._load(path)
                    if data is not None:
                        run_of_manifest(data, data_root=self.data_root)
                        yield path, data
                except ValueError as error:
                    skipped.append(Skipped(str(path), _short(error)))

    @staticmethod
    def logs_in(directory: Path) -> list[Path]:
        """Return the logs in a run's folder, one for each attempt, oldest first. See `run_logs`."""
        return run_logs.logs_in(directory)

    @staticmethod
    def read_log(path: Path, offset: int) -> Iterator[bytes]:
        """Return what there is of a log from `offset` on, in parts; nothing where it is not there yet."""
        return run_logs.read(path, offset)

    @staticmethod
    def log_end(path: Path, most: int) -> bytes | None:
        """Return the last bytes of a log, `most` of them at most; None where it is not there. Raises OrchctlError."""
        return run_logs.end(path, most)

    def _assets(self) -> list[str]:
        try:
            names = sorted(path.name for path in self._root.iterdir() if path.is_dir())
        except OSError:
            return []
        return [name for name in names if is_dotted_name(name) and name not in {"events", "backfills"}]

    def _run_at(self, directory: Path, skipped: list[Skipped]) -> Run | None:
        path = directory / MANIFEST
        try:
            data = self._load(path)
            return None if data is None or is_step(data) else run_of_manifest(data, data_root=self.data_root)
        except ValueError as error:
            skipped.append(Skipped(str(path), _short(error)))
            return None

    def _known(self, path: Path) -> dict[str, Any] | None:
        """Return a manifest, None where none is, or a torn one. Raises OrchctlError where that cannot be known."""
        try:
            return self._load(path)
        except ValueError as error:
            if isinstance(error.__cause__, OSError):
                raise run_logs.unreadable(path, error.__cause__) from error.__cause__
            return None

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            data = json.loads(self._content(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ValueError(error.strerror) from error
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(data, dict):
            raise ValueError("not a manifest")
        return data

    def _content(self, path: Path) -> bytes:
        """Return what a file of the tree holds. Raises OSError, NotBelieved."""
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would hold us for ever
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        content = path.read_bytes()
        if self._trust is None:
            return content
        found = belief.doubts_below(self._root, path.relative_to(self._root).parts, trust=self._trust)
        if found:
            said, hint = belief.told(found)
            raise NotBelieved(f"{path} could have been written by somebody else: {said}", hint=hint)
        return content


def _as_it_is(step: dict[str, Any]) -> dict[str, Any]:
    """Return a step's manifest as it is now: one that says running of a process that is gone is crashed."""
    if step.get("status") != "running":
        return step
    place = place_of(step["environment"])
    if place is None or not host_facts.is_gone(place):
        return step
    return {**step, "status": "crashed", "reason": "the process is gone and left no result"}


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:120]
