"""Where a manager's units are, and the symbolic links that start one with another: what "enabled" consists of.

Files are touched as the user whose units they are: root that followed a user's own links in that user's home could be
led anywhere.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchctl.adapters import files, host_facts
from orchctl.adapters.systemd import Systemd
from orchctl.core import systemd_show
from orchctl.core.legacy import SYSTEM, Manager
from orchctl.core.snapshot import Link
from orchctl.errors import NotAllowed, OrchctlError, SystemdUnavailable

NOWHERE = "/dev/null"
TIMERS_WANTED = "timers.target.wants"
"""The folder of the links that start timers at boot."""
_STARTING = (".wants", ".requires", ".upholds")
_MADE_BY_SYSTEMD = ("generator", "transient")

Kind = Literal["own", "vendor", "made"]


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders in which a manager looks for units, `search` from the first to the last that counts.

    `config` is where the manager's owner keeps units: /etc/systemd/system, ~/.config/systemd/user. `data` holds the
    stamps of Persistent=. `account` is whose they are.
    """

    manager: Manager
    account: pwd.struct_passwd
    config: Path
    data: Path
    search: tuple[Path, ...]

    def kind(self, path: Path) -> Kind:
        """Say whose a link is: `own` can be removed, a `vendor`'s masked, one `made` by systemd comes back."""
        if any(path.is_relative_to(place) for place in self.search if place.name.startswith(_MADE_BY_SYSTEMD)):
            return "made"
        if self.manager.scope == "system":
            return "own" if path.parts[1] in {"etc", "run"} else "vendor"
        return "vendor" if str(path).startswith(("/etc/", "/usr/", "/lib/", "/run/systemd/")) else "own"

    def is_gone(self, path: Path) -> bool:
        """Whether a link was in what is there only while its user's manager runs, and that does not run."""
        runtime = Path(f"/run/user/{self.account.pw_uid}")
        return path.is_relative_to(runtime) and not runtime.exists()

    def stamp(self, timer: str) -> Path:
        """Return the file whose time of change says when a timer with Persistent= last fired."""
        return self.data / "timers" / f"stamp-{timer}"

    def mask_of(self, link: Path) -> Path:
        """Return where a link to nowhere makes systemd pass over a vendor's."""
        return self.config / link.parent.name / link.name

    def links(self, name: str) -> tuple[Link, ...]:
        """Return the links that start a unit, those left out that another hides as a mask."""
        found, hidden = list[Link](), set[str]()
        for place in self.search:
            for folder in _starting(place):
                path = place / folder / name
                try:
                    target = os.readlink(path)
                except OSError:
                    continue
                if folder in hidden:
                    continue
                if _is_nowhere(path):
                    hidden.add(folder)
                else:
                    found.append(Link(str(path), target))
        return tuple(found)


def folders(systemd: Systemd, manager: Manager) -> Folders:
    """Return a manager's folders; of a user's that does not run, those that are the default. Raises as `call`."""
    account = host_facts.account(systemd.owner(manager)) if manager.scope == "user" else pwd.getpwuid(0)
    try:
        printed = systemd.call("systemctl", manager, "show", "--property=UnitPath")
    except SystemdUnavailable as error:
        if manager.scope == "system" or not error.absent:
            raise
        home = Path(account.pw_dir)
        printed = f"UnitPath={home / '.config/systemd/user.control'} {home / '.local/share/systemd/user'}"
        printed = printed.replace(" ", f" /run/user/{account.pw_uid}/systemd/user {home / '.config/systemd/user'} ", 1)
    search = tuple(map(Path, systemd_show.words(printed.strip().removeprefix("UnitPath="))))
    if not search or search[0].suffix != ".control":
        raise OrchctlError(f"where systemd looks for units cannot be read ({manager}): {printed.strip()[:200]}")
    config = search[0].with_suffix("")
    own = [place for place in search if manager.scope == "user" and place.parts[1] not in {"etc", "usr", "lib", "run"}]
    data = own[-1].parent if own else Path("/var/lib/systemd")
    return Folders(manager, account, config, data, search)


def own_manager() -> Manager:
    """Return the manager of who runs us: root's is the system's."""
    return SYSTEM if os.geteuid() == 0 else Manager("user", host_facts.account(None).pw_name)


def ends_with_login(systemd: Systemd, manager: Manager) -> tuple[str, ...]:
    """Say that a manager's timers stop with its user's last login, and what keeps them; () where they do not."""
    if systemd.lingers(manager) is not False:
        return ()
    who = host_facts.account(manager.user).pw_name
    return (
        f"the systemd of {who} ends with the last login, and no timer fires then: `sudo loginctl enable-linger {who}`",
    )


@contextlib.contextmanager
def acting_as(account: pwd.struct_passwd) -> Iterator[None]:
    """Touch files as a user, where root runs us; else as we are."""
    if os.geteuid() != 0 or account.pw_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        os.setgroups(os.getgrouplist(account.pw_name, account.pw_gid))
        os.setegid(account.pw_gid)
        os.seteuid(account.pw_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def lead(changes: Iterable[tuple[Path, str | None]]) -> bool:
    """Make links lead where they shall, None: nowhere, no link. Returns whether anything had to be done. Repeatable."""
    done = False
    for path, target in changes:
        try:
            done |= _lead(path, target)
        except PermissionError as error:
            raise NotAllowed(f"cannot change {path}: {error.strerror}", hint="see who owns the folder") from error
        except OSError as error:
            raise OrchctlError(f"cannot change {path}: {error.strerror}") from error
    return done


def _lead(path: Path, target: str | None) -> bool:
    if target_of(path) == target:
        return False
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    if target is not None:
        files.make_directory(path.parent, mode=0o755)
        path.symlink_to(target)
    files.sync_directory(path.parent)
    return True


def target_of(path: Path) -> str | None:
    """Return what a link says, None where there is none."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OrchctlError(f"{path} is in the way, and is no link: {error.strerror}") from error


def missing(path: Path) -> tuple[Path, ...]:
    """Return the folders above `path` that do not exist, the outermost first."""
    return tuple(folder for folder in reversed(path.parents) if not folder.exists())


def remove_empty(paths: Sequence[Path]) -> None:
    """Remove folders that are empty, the innermost first. Repeatable."""
    for path in sorted(paths, key=lambda each: len(each.parts), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()


def may_write(path: Path) -> bool:
    """Whether we, acting as we do now, could make `path`."""
    above = next(folder for folder in path.parents if folder.exists())
    return os.access(above, os.W_OK | os.X_OK, effective_ids=True)


def _starting(place: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(place) if name.endswith(_STARTING))
    except OSError:
        return []


def _is_nowhere(path: Path) -> bool:
    """Whether a link leads to nothing on purpose: what systemd takes as a mask."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_size == 0)
