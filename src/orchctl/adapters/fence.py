"""The fence in the legacy services: a drop-in of each. See `core/fence.py` for what it says."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchctl.adapters import files, unit_links
from orchctl.adapters.systemd import Systemd
from orchctl.adapters.unit_links import Folders, acting_as
from orchctl.core import fence, systemd_show
from orchctl.core.legacy import Manager
from orchctl.core.snapshot import Snapshot
from orchctl.errors import OrchctlError, SystemdUnavailable

_PROPERTIES = (
    "Id,Names,DropInPaths,NeedDaemonReload,ExecCondition,RootDirectory,RootImage,RootDirectoryStartOnly,Restart"
)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What systemd holds of a service. `own_root`: its commands are looked for elsewhere than in /."""

    drop_ins: tuple[str, ...] = ()
    needs_reload: bool = False
    commands: tuple[str, ...] = ()
    own_root: bool = False
    restarts: bool = False


class Fence:
    """Fences services. `owner_path` returns where the owner file of a job is, or would be."""

    def __init__(self, systemd: Systemd, owner_path: Callable[[str], Path]) -> None:
        self._systemd = systemd
        self._owner_path = owner_path

    def is_up(self, job: str, snapshot: Snapshot) -> bool:
        """Whether each service has the drop-in, systemd has loaded it, and nothing takes it away."""
        return all(self._is_up(job, snapshot, manager, names) for manager, names in snapshot.services.items())

    def put_up(self, job: str, snapshot: Snapshot) -> None:
        """Write the drop-ins and have systemd load them. Repeatable."""
        for manager, names in snapshot.services.items():
            for name in names:
                if not name.endswith(".service"):
                    raise OrchctlError(f"{name} is no service: nothing can keep it from being started")
            if self._is_up(job, snapshot, manager, names):
                continue
            where = unit_links.folders(self._systemd, manager)
            self._show_to(where.account, job)
            loaded = self._loaded(manager, names)
            with acting_as(where.account):
                for name in names:
                    path, content = self._drop_in(job, snapshot, where, name, loaded[name])
                    if _read(path) != content:
                        files.make_directory(path.parent, mode=0o755)
                        files.write_atomic(path, content.encode())
            self._systemd.call("systemctl", manager, "daemon-reload")

    def has_trace(self, job: str, snapshot: Snapshot) -> bool:
        """Whether anything of the fence is left: a file, a folder that was made for it, or in what is loaded."""
        for manager, names in snapshot.services.items():
            where = unit_links.folders(self._systemd, manager)
            with acting_as(where.account):
                if any(_files(where, name, job) for name in names):
                    return True
                if any(_is_empty(folder) for folder in _ours(snapshot, where, names)):
                    return True
            if any(_holds(job, where, name, each) for name, each in self._loaded(manager, names).items()):
                return True
        return False

    def take_down(self, job: str, snapshot: Snapshot) -> None:
        """Remove the drop-ins, and the folders that were made for them; have systemd load that. Repeatable."""
        for manager, names in snapshot.services.items():
            where = unit_links.folders(self._systemd, manager)
            with acting_as(where.account):
                for name in names:
                    for path in _files(where, name, job):
                        files.remove(path)
                unit_links.remove_empty(_ours(snapshot, where, names))
            if any(_holds(job, where, name, each) for name, each in self._loaded(manager, names).items()):
                self._systemd.call("systemctl", manager, "daemon-reload")

    def folders(self, where: Folders, names: Collection[str]) -> tuple[str, ...]:
        """Return the folders that the drop-ins of these services need and that are not there.

        Those are there too that another job's fence made: they go with the last.
        """
        with acting_as(where.account):
            found = [folder for name in names for folder in unit_links.missing(_folder(where, name) / "x")]
            for name in names:
                for path in _folder(where, name).glob("zz-orchctl-*.conf"):
                    told = set(fence.folders_of(_read(path) or ""))
                    found += [folder for folder in path.parents if str(folder) in told]
        return tuple(dict.fromkeys(map(str, found)))

    def obstacles(self, job: str, where: Folders, names: Collection[str]) -> Iterator[str]:
        """Say why these services of a manager could not be fenced."""
        owner_path = self._owner_path(job)
        try:
            fence.drop_in(job, str(owner_path), (), with_command=True)
        except ValueError as error:
            yield f"the fence cannot name the owner file: {error}"
        hidden = _hidden(where.account, owner_path.parent.parent)
        if where.manager.scope == "user" and hidden is not None:
            yield (
                f"{where.account.pw_name}, whose systemd starts the job, may not search {hidden}: the fence could not "
                f"see the owner file (`chmod a+x {hidden}`)"
            )
        with acting_as(where.account):
            readonly = {str(where.config) for name in names if not unit_links.may_write(_folder(where, name) / "x")}
        yield from (f"no right to write into {folder}: use sudo" for folder in sorted(readonly))
        for name, each in self._loaded(where.manager, names).items():
            if each.own_root and each.restarts:
                yield (
                    f"{name} ({where.manager}) has RootDirectory= or RootImage=, and Restart=: newer systemds "
                    "start it again without looking at the fence"
                )
            for path, assignment in _opened(each.drop_ins, fence.file_name(job)):
                yield f"{path} has `{assignment}`, which would take the fence out of {name} ({where.manager})"

    def _is_up(self, job: str, snapshot: Snapshot, manager: Manager, names: Sequence[str]) -> bool:
        where = unit_links.folders(self._systemd, manager)
        owner_path = self._owner_path(job)
        if where.manager.scope == "user" and _hidden(where.account, owner_path.parent) is not None:
            return False
        for name, each in self._loaded(manager, names).items():
            path, content = self._drop_in(job, snapshot, where, name, each)
            with acting_as(where.account):
                if _read(path) != content or each.needs_reload or str(path) not in each.drop_ins:
                    return False
                if any(_opened(each.drop_ins, path.name)):
                    return False
            if not each.own_root and not fence.is_command(each.commands, str(owner_path)):
                return False
        return True

    def _drop_in(self, job: str, snapshot: Snapshot, where: Folders, name: str, loaded: _Loaded) -> tuple[Path, str]:
        folder = _folder(where, name)
        made = [each for each in snapshot.folders if folder.is_relative_to(each)]
        try:
            content = fence.drop_in(job, str(self._owner_path(job)), made, with_command=not loaded.own_root)
        except ValueError as error:
            raise OrchctlError(f"the fence cannot name the owner file: {error}") from error
        return folder / fence.file_name(job), content

    def _loaded(self, manager: Manager, names: Collection[str]) -> dict[str, _Loaded]:
        if not names:
            return {}
        words = ("show", "--no-pager", f"--property={_PROPERTIES}", "--", *names)
        try:
            printed = self._systemd.call("systemctl", manager, *words)
        except SystemdUnavailable as error:
            if manager.scope == "system" or not error.absent:
                raise
            return {name: _Loaded() for name in names}
        found = dict.fromkeys(names, _Loaded())
        for block in systemd_show.blocks(printed):
            loaded = _Loaded(
                drop_ins=systemd_show.words(block.get("DropInPaths", [""])[-1]),
                needs_reload=block.get("NeedDaemonReload") == ["yes"],
                commands=tuple(block.get("ExecCondition", ())),
                own_root=_lives_elsewhere(block),
                restarts=block.get("Restart", ["no"]) != ["no"],
            )
            for name in (*block.get("Id", ()), *systemd_show.words(block.get("Names", [""])[-1])):
                if name in found:
                    found[name] = loaded
        return found

    def _show_to(self, account: pwd.struct_passwd, job: str) -> None:
        """Let a user see whether there is an owner file: the right to search the folder, and no more."""
        folder = self._owner_path(job).parent
        files.make_private(folder)
        if _hidden(account, folder) == folder:
            status = folder.stat()
            if os.geteuid() not in {0, status.st_uid}:
                raise OrchctlError(f"{account.pw_name} may not search {folder}, and it is not ours to allow it")
            folder.chmod(stat.S_IMODE(status.st_mode) | 0o011)


def _folder(where: Folders, name: str) -> Path:
    return where.config / f"{name}.d"


def _ours(snapshot: Snapshot, where: Folders, names: Iterable[str]) -> list[Path]:
    """Return the folders that the snapshot says go with the fence. It names only those that the fence can need."""
    drop_ins = [_folder(where, name) for name in names]
    masks = [Path(folder) for folder in snapshot.folders if Path(folder).parent == where.config]
    needed = {folder for each in (*drop_ins, *masks) for folder in (each, *each.parents)}
    return [folder for each in snapshot.folders if (folder := Path(each)) in needed]


def _holds(job: str, where: Folders, name: str, loaded: _Loaded) -> bool:
    """Whether systemd has our drop-in loaded, be it there or not."""
    return str(_folder(where, name) / fence.file_name(job)) in loaded.drop_ins


def _files(where: Folders, name: str, job: str) -> list[Path]:
    """Return the drop-in, and what a kill left of one that was being written."""
    ours, folder = fence.file_name(job), _folder(where, name)
    found = [folder / ours] if (folder / ours).exists() else []
    return found + files.torn(folder / ours)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return None


def _is_empty(folder: Path) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:
        return False


def _opened(drop_ins: Iterable[str], ours: str) -> Iterator[tuple[str, str]]:
    """Yield the drop-ins after ours that take the fence away, and by what. One that cannot be read may do so."""
    for path in map(Path, drop_ins):
        if path.name > ours and not path.name.startswith("zz-orchctl-"):
            content = _read(path)
            assignment = fence.opens(content) if content is not None else "something that may not be read"
            if assignment is not None:
                yield str(path), assignment


def _lives_elsewhere(block: systemd_show.Block) -> bool:
    root, image = block.get("RootDirectory", [""])[-1], block.get("RootImage", [""])[-1]
    return bool(image) or (root not in {"", "/"} and block.get("RootDirectoryStartOnly") != ["yes"])


def _hidden(account: pwd.struct_passwd, folder: Path) -> Path | None:
    """Return the first folder on the way to, and of, `folder` that a user may not search, None where there is none.

    One that is not there yet will be private.
    """
    if account.pw_uid == 0:
        return None
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    for each in (*reversed(folder.parents), folder):
        try:
            status = each.stat()
        except FileNotFoundError:
            return None if account.pw_uid == os.geteuid() else each
        except OSError:
            return each
        mine = status.st_uid == account.pw_uid
        bit = stat.S_IXUSR if mine else stat.S_IXGRP if status.st_gid in groups else stat.S_IXOTH
        if not status.st_mode & bit:
            return each
    return None
