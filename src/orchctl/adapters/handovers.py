"""Journals of handovers: `state/handovers/<id>.jsonl`, append-only.

Which are unfinished is not looked for in all history: `handovers/open/<job>` holds the id of a job's unfinished one,
`handovers/last/<job>` that of the last that ended. Journal, then mark, then the first change; at the end journal, mark
of the last, and the open mark goes: a kill in between leaves a journal that changed nothing, or a mark of one that has
ended, which `recover` removes.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

from orchctl.adapters.state_folder import StateFolder
from orchctl.core import handover_journal as journal
from orchctl.core.handover_journal import Handover, Opened, Outcome, Record
from orchctl.core.names import is_name, is_run_id, run_instant
from orchctl.errors import StateBroken


class Handovers:
    """The handovers of this host."""

    def __init__(self, state_dir: Path) -> None:
        self._journals = StateFolder(state_dir, "handovers")
        self._open = StateFolder(state_dir, "handovers/open")
        self._last = StateFolder(state_dir, "handovers/last")

    def unfinished(self) -> tuple[str, ...]:
        """Return the jobs with an unfinished handover, sorted. One look into one folder."""
        return tuple(name for name in self._open.names() if is_name(name))

    def open_of(self, job: str) -> Handover | None:
        """Return the unfinished handover of a job, None where there is none.

        Raises StateBroken where its mark or journal cannot be believed.
        """
        found = self._marked(self._open, job)
        return None if found is None else self._or_broken(found)

    def last_of(self, job: str) -> Handover | None:
        """Return the last handover of a job that ended, None where there was none. Raises StateBroken."""
        found = self._marked(self._last, job)
        return None if found is None else self._or_broken(found)

    def read(self, id: str) -> Handover | None:  # noqa: A002 - the word of the domain
        """Return a handover by its id, None where it has no journal. Raises StateBroken."""
        content = self._journals.read(f"{id}.jsonl")
        if content is None:
            return None
        try:
            found = journal.read(content)
        except ValueError as error:
            raise StateBroken(f"the journal {self._journals.path(f'{id}.jsonl')} cannot be read: {error}") from error
        if found.opened.id != id:
            raise StateBroken(f"the journal {self._journals.path(f'{id}.jsonl')} is that of {found.opened.id}")
        return found

    def ended(self, before: datetime) -> tuple[Handover, ...]:
        """Return the handovers that began before an instant and have ended, oldest first; unreadable ones are not told.

        Not those that a job's mark names as its last, or as unfinished.
        """
        marked = {self._marked(folder, job) for folder in (self._open, self._last) for job in folder.names()}
        found = []
        for name in self._journals.names():
            id = name.removesuffix(".jsonl")  # noqa: A001 - the word of the domain
            with contextlib.suppress(StateBroken, ValueError):
                if not is_run_id(id) or id in marked or run_instant(id) >= before:
                    continue
                one = self.read(id)
                if one is not None and one.outcome is not None:
                    found.append(one)
        return tuple(found)

    def size(self, id: str) -> int:  # noqa: A002
        """Return the bytes of a journal, 0 where it is gone."""
        try:
            return self._journals.path(f"{id}.jsonl").stat().st_size
        except OSError:
            return 0

    def remove(self, id: str) -> None:  # noqa: A002
        """Remove a journal that no mark names. Repeatable."""
        self._journals.remove(f"{id}.jsonl")

    def begin(self, opened: Opened) -> None:
        """Write a journal's first line, then its mark."""
        self._journals.create_bytes(f"{opened.id}.jsonl", journal.opening(opened))
        self._open.write(opened.job, {"handover": opened.id})

    def supersede(self, opened: Opened, at: datetime) -> None:
        """Close the journal of a cutover that a rollback takes over, whose mark has replaced its own."""
        self._journals.append(f"{opened.id}.jsonl", journal.closing("superseded", at))

    def add(self, opened: Opened, record: Record) -> None:
        """Append a record."""
        self._journals.append(f"{opened.id}.jsonl", journal.line(record))

    def end(self, opened: Opened, outcome: Outcome, at: datetime) -> None:
        """Append the last line unless it is there, mark the journal as the last, remove its open mark. Repeatable."""
        found = self.read(opened.id)
        if found is not None and found.outcome is None:
            self._journals.append(f"{opened.id}.jsonl", journal.closing(outcome, at))
        self._last.write(opened.job, {"handover": opened.id})
        self._open.remove(opened.job)

    def _marked(self, folder: StateFolder, job: str) -> str | None:
        data = folder.read_json(job)
        if data is None:
            return None
        found = data.get("handover") if isinstance(data, dict) else None
        if not is_run_id(str(found)):
            raise StateBroken(f"{folder.path(job)} names no handover", hint="look at it, and remove it")
        return str(found)

    def _or_broken(self, id: str) -> Handover:  # noqa: A002 - the word of the domain
        found = self.read(id)
        if found is None:
            raise StateBroken(f"handover {id} has no journal: {self._journals.path(f'{id}.jsonl')} is gone")
        return found
