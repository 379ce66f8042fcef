"""Facts of this machine and of files that nobody of ours wrote: processes, boots, git, outputs."""

from __future__ import annotations

import glob
import os
import pwd
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchctl.adapters import parquet
from orchctl.core import templates
from orchctl.core.manifest import Place
from orchctl.core.names import format_instant
from orchctl.errors import OrchctlError

_SHA = re.compile(r"[0-9a-f]{40,64}\Z")


def account(name: str | None) -> pwd.struct_passwd:
    """Return a user of this host, None for this process's. Raises OrchctlError where there is none of that name."""
    try:
        return pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise OrchctlError(f"there is no user {name or os.geteuid()} on this host") from error


def boot_id() -> str:
    """Return the kernel's id of this boot, "" where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def timezone() -> str:
    """Return this host's zone as systemd and cron take it: the IANA name of /etc/localtime, "UTC" where unknown."""
    try:
        target = os.path.realpath("/etc/localtime")
        if "/zoneinfo/" in target:
            return target.partition("/zoneinfo/")[2].removeprefix("posix/").removeprefix("right/")
        return Path("/etc/timezone").read_text().strip() or "UTC"
    except OSError:
        return "UTC"


def started_ticks(pid: int) -> int | None:
    """Return when `pid` started, in clock ticks after boot; None where there is no such process, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name may hold spaces and parentheses: the fields begin after the last one.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def here() -> Place:
    """Return where this process lives."""
    pid = os.getpid()
    return Place(socket.gethostname(), boot_id(), pid, started_ticks(pid) or 0)


def is_elsewhere(place: Place) -> bool:
    """Whether a process is, or was, one of another host."""
    return place.hostname != socket.gethostname()


def is_gone(place: Place) -> bool:
    """Whether the process at `place` certainly lives no more. A process of another host is not judged."""
    if is_elsewhere(place):
        return False
    return place.boot_id != boot_id() or started_ticks(place.pid) != place.pid_started


def flow_runs_here() -> frozenset[str] | None:
    """Return the ids of the flow runs that a process of this host is at work for, its guard included.

    None where that cannot be known: a process that may be one is another user's.
    """
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environ = (path / "environ").read_bytes()
        except PermissionError:
            if _may_be_a_flow_run(path):
                return None
            continue
        except OSError:
            continue
        found.update(
            entry.partition(b"=")[2].decode("ascii", "replace")
            for entry in environ.split(b"\0")
            if entry.startswith(b"PREFECT__FLOW_RUN_ID=")
        )
    return frozenset(found)


def _may_be_a_flow_run(process: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return any(word in command for word in (b"prefect.engine", b"prefect.runner", b"orchctl.runner"))


def git_sha(directory: str) -> str | None:
    """Return the commit that is checked out in `directory` or above; None where there is none. Starts no git."""
    for folder in (Path(directory), *Path(directory).parents):
        try:
            found = _head(folder / ".git")
        except (OSError, UnicodeDecodeError):
            return None
        if found is not None:
            return found
    return None


def _head(git: Path) -> str | None:
    if git.is_file():  # a work tree or a submodule: the file names the real folder
        git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
    if not (git / "HEAD").is_file():
        return None
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head if _SHA.match(head) else None
    name = head.removeprefix("ref:").strip()
    common = git / "commondir"
    roots = [git, (git / common.read_text().strip()).resolve()] if common.is_file() else [git]
    for root in roots:
        if (root / name).is_file():
            sha = (root / name).read_text().strip()
            return sha if _SHA.match(sha) else None
        packed = root / "packed-refs"
        if packed.is_file():
            for line in packed.read_text().splitlines():
                sha, _, packed_name = line.partition(" ")
                if packed_name == name and _SHA.match(sha):
                    return sha
    return None


def find_outputs(
    declared: tuple[str, ...], values: Mapping[str, str], data_root: str, *, unreadable: Callable[[OSError], None]
) -> list[dict[str, Any]]:
    """Look at what a run's declared outputs are: files, bytes, rows of Parquet and newest mtime for each.

    `*` in a declared path matches as in a shell. What does not exist counts 0, and so does what may not be looked at:
    `unreadable` is told of that, and may raise it.
    """
    return [_output(template, values, data_root, unreadable) for template in declared]


def _output(
    template: str, values: Mapping[str, str], data_root: str, unreadable: Callable[[OSError], None]
) -> dict[str, Any]:
    path = templates.render(template, values)
    pattern = templates.render(template, {key: glob.escape(value) for key, value in values.items()})
    _enter(pattern, unreadable)
    # By path: a pattern with `**` matches a folder, the folders in it and their files.
    found = {
        name: status
        for match in glob.iglob(pattern, recursive=True, include_hidden=True)
        for name, status in files_at(match, unreadable=unreadable)
    }
    newest = max((status.st_mtime for status in found.values()), default=None)
    return {
        "name": path.removeprefix(data_root.rstrip("/") + "/"),
        "path": path,
        "file_count": len(found),
        "size_bytes": sum(status.st_size for status in found.values()),
        "row_count": parquet.rows_of(found),
        "newest_mtime": _instant(newest) if newest is not None else None,
    }


def _instant(mtime: float) -> str | None:
    try:
        return format_instant(datetime.fromtimestamp(mtime, UTC))
    except (ValueError, OverflowError, OSError):
        return None  # `touch` can set any time


def _enter(pattern: str, unreadable: Callable[[OSError], None]) -> None:
    """Look whether the folder in which a pattern begins can be listed: `glob` would only find nothing in it."""
    parts = pattern.split("/")
    plain = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    try:
        os.scandir("/".join(parts[:plain]) or "/").close()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        unreadable(error)


def files_at(path: str, *, unreadable: Callable[[OSError], None]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the file at `path`, or every file below it, with its state. Symlinks are not followed below.

    What went while we looked, and what points nowhere, is not there; `unreadable` is told of what may not be looked at.
    """

    def failed(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            unreadable(error)

    paths: Iterable[str] = [path]
    if os.path.isdir(path):
        walk = os.walk(path, onerror=failed)
        paths = (os.path.join(folder, name) for folder, _, names in walk for name in names)
    for name in paths:
        try:
            yield os.path.normpath(name), os.stat(name)
        except OSError as error:
            failed(error)
