"""systemd's journal, through `journalctl`: fixed argv lists, a time-out on each call, read as a stream."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import IO, Any

from orchctl.adapters import host_facts
from orchctl.core import journal
from orchctl.core.journal import Entry, Written
from orchctl.core.legacy import Manager
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

CALL_TIMEOUT_S = 60.0
_HIDDEN = "not seeing messages from"
_CLOSED = "due to insufficient permissions"
_NONE = "No journal files were found"
_LOST_CURSOR = "Failed to seek to cursor"
_INVOCATIONS = ("_SYSTEMD_INVOCATION_ID", "INVOCATION_ID", "USER_INVOCATION_ID")
# What a run writes may be logged a moment before its start and after its end. A restart takes 100 ms.
_ABOUT, _LEFT_OVER = timedelta(milliseconds=50), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Read:
    """Entries, oldest first. `more`: there are others after these."""

    entries: tuple[Entry, ...]
    more: bool


class Journald:
    """The journal of this host. `environment` is the caller's; `caller` the user whose manager is meant by default."""

    def __init__(
        self, environment: Mapping[str, str], caller: str | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._environment = environment
        self._caller = caller
        self._timeout_s = timeout_s

    def entries(
        self,
        units: Mapping[Manager, Collection[str]],
        *,
        cursor: str | None = None,
        since: datetime | None = None,
        limit: int = 6000,
    ) -> Read:
        """Return what the managers said of their `units`: after `cursor`, or since an instant, at most `limit` entries.

        An entry that was rotated away since its cursor was taken is no error: reading goes on with the oldest after
        it. Raises NotAllowed where this user may not see the journal, SystemdUnavailable where there is none.
        """
        users = {str(self._uid(manager)): manager for manager in units if manager.scope == "user"}
        # Inclusive: with --after-cursor, journalctl skips an entry also where the cursor's own is gone.
        place = [f"--cursor={cursor}"] if cursor else [f"--since=@{since.timestamp():.6f}"] if since else []
        words = [f"--output-fields={journal.FIELDS}", *place, *self._matches(units)]
        found: list[Entry] = []
        try:
            with self._lines(words, units) as lines:
                for data in lines:
                    entry = journal.entry_of(data, users)
                    if entry is None or entry.cursor == cursor:
                        continue
                    if len(found) == limit:
                        return Read(tuple(found), more=True)
                    found.append(entry)
        except _CursorLost:
            return self.entries(units, since=since, limit=limit)
        return Read(tuple(found), more=False)

    def first(self, manager: Manager) -> datetime | None:
        """Return the oldest instant from which on the journal still has what a manager said; None: it has nothing."""
        sender = "_PID=1" if manager.scope == "system" else f"_UID={self._uid(manager)}"
        with self._lines(["--output-fields=MESSAGE_ID", sender], [manager]) as lines:
            for data in lines:
                return journal.instant(data["__REALTIME_TIMESTAMP"])
        return None

    def output(self, written: Written, *, last: int | None = None) -> Iterator[bytes]:
        """Yield the lines, newline included, that one run of a service wrote, oldest first; `last`: only so many.

        Where it wrote none, what its manager said about it. Raises NotAllowed, SystemdUnavailable.
        """
        user = [] if written.manager.scope == "system" else [f"_UID={self._uid(written.manager)}"]
        unit = "_SYSTEMD_USER_UNIT" if user else "_SYSTEMD_UNIT"
        said = ["USER_INVOCATION_ID", *user] if user else ["INVOCATION_ID", "_PID=1"]
        for matches in (
            [*_around(written), f"_SYSTEMD_INVOCATION_ID={written.invocation}", "+", f"{unit}={written.unit}", *user],
            [f"{said[0]}={written.invocation}", *said[1:]],
        ):
            lines = self._texts(written, matches, last)
            first = next(lines, None)
            if first is not None:
                yield first
                yield from lines
                return

    def _texts(self, written: Written, matches: Sequence[str], last: int | None) -> Iterator[bytes]:
        words = ["--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID,USER_INVOCATION_ID", *matches]
        if last is None:
            return self._messages(written, words)
        # Counted here: the journal may hold lines of other runs between these.
        return reversed(list(itertools.islice(self._messages(written, ["--reverse", *words]), last)))

    def _messages(self, written: Written, words: Sequence[str]) -> Iterator[bytes]:
        with self._lines(words, [written.manager], patient=True) as lines:
            for data in lines:
                if _is_of(data, written):
                    yield journal.text_of(data.get("MESSAGE")).rstrip(b"\n") + b"\n"

    def _matches(self, units: Mapping[Manager, Collection[str]]) -> list[str]:
        """Return the matches: any process may log `UNIT=`, so the sender is asked for as well."""
        kinds = [f"MESSAGE_ID={id_}" for id_ in journal.KINDS]
        words: list[str] = []
        for manager, names in units.items():
            system = manager.scope == "system"
            sender = ["_PID=1"] if system else [f"_UID={self._uid(manager)}"]
            field = "UNIT" if system else "USER_UNIT"
            words += [*(["+"] if words else []), *sender, *(f"{field}={name}" for name in sorted(names)), *kinds]
        return words

    def _uid(self, manager: Manager) -> int:
        return host_facts.account(manager.user or self._caller).pw_uid

    @cached_property
    def _warnings(self) -> str:
        """What journalctl says of what it cannot show. It says nothing of it where it prints JSON or messages only."""
        with self._start("--output=short", "--lines=1") as process:
            try:
                return process.communicate(timeout=self._timeout_s)[1].decode("utf-8", "replace")
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise self._silent() from error

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        fixed = {"LC_ALL": "C", "TZ": "UTC", "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_LEVEL": "notice"}
        try:
            return subprocess.Popen(
                ["journalctl", "--no-pager", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**self._environment, **fixed},
            )
        except FileNotFoundError as error:
            raise SystemdUnavailable("journalctl is not installed: this host has no journal", absent=True) from error
        except PermissionError as error:
            raise NotAllowed(f"journalctl may not be run: {error.strerror}") from error

    def _silent(self) -> SystemdUnavailable:
        return SystemdUnavailable(f"journalctl did not answer within {self._timeout_s:.0f} s")

    @contextlib.contextmanager
    def _lines(self, words: Sequence[str], managers: Collection[Manager], *, patient: bool = False) -> Iterator[_Lines]:
        """Give the entries that journalctl prints; it is ended on leaving, read whole or not.

        `patient`: without a time-out, for who reads them may take long.
        """
        self._judge(self._warnings, 0, managers)
        process = self._start("--all", "--output=json", *words)
        assert process.stdout is not None
        assert process.stderr is not None
        overdue, said = threading.Event(), list[bytes]()

        def give_up() -> None:
            overdue.set()
            process.kill()

        timer = threading.Timer(threading.TIMEOUT_MAX if patient else self._timeout_s, give_up)
        # Beside the entries: what it says may fill its pipe before they end.
        listener = threading.Thread(target=lambda pipe: said.append(pipe.read()), args=(process.stderr,), daemon=True)
        timer.daemon = True
        timer.start()
        listener.start()
        lines = _Lines(process.stdout)
        try:
            yield lines
        finally:
            if not lines.ended:
                process.kill()
            process.wait()
            timer.cancel()
            listener.join()
            process.stdout.close()
            process.stderr.close()
        if overdue.is_set():
            raise self._silent()
        code = process.returncode if lines.ended else 0
        self._judge(b"".join(said).decode("utf-8", "replace"), code, managers)

    def _judge(self, said: str, code: int, managers: Collection[Manager]) -> None:
        """Raise what journalctl's messages mean; it exits with 0 also where it shows nothing."""
        others = any(manager.scope == "system" or self._uid(manager) != os.geteuid() for manager in managers)
        if _CLOSED in said or (_HIDDEN in said and others):
            user = host_facts.account(None).pw_name
            raise NotAllowed(
                f"{user} may not read the journal",
                hint=f"`sudo usermod -aG systemd-journal {user}`, then log in anew (a worker: start it anew)",
            )
        if _NONE in said:
            raise SystemdUnavailable("this host keeps no journal", hint="see `Storage=` in journald.conf(5)")
        if _LOST_CURSOR in said:
            raise _CursorLost
        if code != 0:
            raise OrchctlError(f"`journalctl` failed: {(said.splitlines() or ['no message'])[0]}")


def _around(written: Written) -> list[str]:
    """Return between what instants the lines of a run are looked for; what it leaves behind may go on writing."""
    until = [f"--until=@{(written.until + _LEFT_OVER).timestamp():.6f}"] if written.until is not None else []
    return [f"--since=@{(written.since - _ABOUT).timestamp():.6f}", *until]


def _is_of(data: Mapping[str, Any], written: Written) -> bool:
    """Whether a line is of this run.

    journald looks up whose a line is when it gets to it, and comes too late for one in dozens that end at once: such a
    line names the service and no run, and is told by its time.
    """
    named = [data[name] for name in _INVOCATIONS if name in data]
    at = journal.instant(data["__REALTIME_TIMESTAMP"])
    return written.invocation in named if named else at <= (written.until or written.since) + _ABOUT


class _CursorLost(Exception):
    """The cursor is none that this journal takes."""


class _Lines:
    """Entries as they are printed. `ended`: the output was read to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.ended = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._stream:
            try:
                data = json.loads(line)
            except ValueError:
                continue  # torn: it was killed
            if isinstance(data, dict):
                yield data
        self.ended = True
