"""Virtual environments: what is in one, a copy beside it with other packages, and the two in each other's place.

Files in an environment are touched, and pip is run, as its owner: root that followed another user's links, or ran what
is in that user's packages, could be led anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from orchctl.adapters import files
from orchctl.adapters.accounts import Account, account_of
from orchctl.adapters.doctor_versions import folders_of
from orchctl.adapters.unit_links import acting_as
from orchctl.core.database_url import Kind
from orchctl.core.mask import Masker
from orchctl.core.upgrade import MARK, Change, Wanted, environment_of, is_aside, python_of
from orchctl.errors import GateRefused, NotAllowed, OrchctlError

_CONFIGURATION = "pyvenv.cfg"
_MIGRATIONS = "prefect/server/database/_migrations/versions"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
TELL_EACH_S = 60.0
END_PATIENCE_S = 15.0
_TAIL = 12
_VERB = 4
_PIP = ("--progress-bar=off", "--no-input", "--disable-pip-version-check")


class Environments:
    """The environments of this host. `variables` are this process's, for what is started. Raises OrchctlError."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    @staticmethod
    def place(python: str) -> str:
        """Return where the environment of an interpreter is, no link on the way: nobody can lead that elsewhere."""
        return os.path.realpath(environment_of(python))

    def of(self, python: str) -> str:
        """Return the environment of an interpreter, where it can be replaced by us.

        Raises GateRefused and NotAllowed, saying what can be done.
        """
        path = Path(environment_of(python))
        if not (path / _CONFIGURATION).is_file():
            raise GateRefused(
                f"{python} is not in a virtual environment of its own",
                hint="upgrade it with what installed it, then `orchctl host restart`",
            )
        if path.is_symlink() or path.is_mount():
            raise GateRefused(
                f"{path} is a {'symbolic link' if path.is_symlink() else 'mount'}, and cannot be replaced in one step",
                hint="install from the folder itself: orchctl host install",
            )
        path = Path(self.place(python))
        for each in (path, path.parent):
            if not os.access(each, os.W_OK | os.X_OK):
                raise NotAllowed(f"{each} may not be written", hint=f"sudo {python} -m orchctl host upgrade")
        try:
            self._run(str(path), [python_of(str(path)), "-I", "-m", "pip", "--version"])
        except OrchctlError as error:
            raise GateRefused(
                f"there is no pip in {path}", hint=f"{python_of(str(path))} -m ensurepip; or upgrade with what made it"
            ) from error
        return str(path)

    def resolve(self, environment: str, wanted: Wanted) -> tuple[Change, ...]:
        """Return what pip would install. Changes nothing."""
        with self._scratch(environment) as folder:
            report = folder / "report.json"
            self._install(environment, wanted, folder, "--dry-run", "--report", str(report))
            said = json.loads(report.read_text(encoding="utf-8"))
        installed = {_plain(each.name): each.version for each in _distributions(environment)}
        found = [each["metadata"] for each in said.get("install", [])]
        return tuple(
            Change(str(each["name"]), installed.get(_plain(each["name"])), str(each["version"]))
            for each in sorted(found, key=lambda each: _plain(each["name"]))
        )

    def migrations(self, environment: str, version: str, kind: Kind) -> int | None:
        """Return how many changes of tables a Prefect has that an environment does not, None where that is not seen."""
        with self._scratch(environment) as folder:
            words = ["download", *_PIP, "--no-deps", "--dest", str(folder), f"prefect=={version}"]
            self._run(environment, [python_of(environment), "-I", "-m", "pip", *words])
            wheel = next(folder.glob("*.whl"), None)
            if wheel is None:
                return None
            with zipfile.ZipFile(wheel) as opened:
                there = {name for name in opened.namelist() if name.startswith(f"{_MIGRATIONS}/{kind}/")}
        names = {name.rpartition("/")[2] for name in there if name.endswith(".py")}
        return len(names - _migrations(environment, kind))

    @staticmethod
    def new_migrations(old: str, new: str, kind: Kind) -> int:
        """Return how many changes of tables one environment has that another has not."""
        return len(_migrations(new, kind) - _migrations(old, kind))

    @staticmethod
    def needs_bytes(environment: str) -> int:
        """Return what an environment takes on its disk."""
        found = 0
        for folder, _folders, names in os.walk(environment):
            for name in names:
                with contextlib.suppress(OSError):
                    found += os.lstat(os.path.join(folder, name)).st_blocks * 512
        return found

    def copy(self, environment: str, aside: str) -> None:
        """Copy an environment to a place beside it, owners and times included; see first that they can be exchanged."""
        _try_exchange(Path(environment).parent)
        if os.path.lexists(aside):
            raise OrchctlError(f"{aside} is in the way", hint="look at it, and remove it")
        # As we are: its folder may be root's alone.
        status, said = self._finished(["cp", "-a", "--reflink=auto", "--", environment, aside], None)
        if status != 0:
            raise OrchctlError(f"{environment} cannot be copied: {tail(said)}")

    def install(self, aside: str, environment: str, wanted: Wanted) -> None:
        """Install into a copy, whose scripts afterwards name the place that it is to have."""
        with self._scratch(aside) as folder:
            self._install(aside, wanted, folder)
        with acting_as(_owner(aside)):
            for script in (Path(aside) / "bin").iterdir():
                if script.is_file() and not script.is_symlink():
                    _rename_in(script, aside.encode(), environment.encode())

    def complaints(self, environment: str) -> tuple[str, ...]:
        """Return what does not fit together in an environment, as pip says it."""
        argv = [python_of(environment), "-I", "-m", "pip", "--disable-pip-version-check", "check"]
        status, said = self._finished(argv, self._account(environment))
        return () if status == 0 else tuple(line for line in said.splitlines() if line)

    @staticmethod
    def mark(environment: str, stamp: str) -> None:
        """Write by which upgrade an environment was made."""
        with acting_as(_owner(environment)):
            files.write_atomic(Path(environment) / MARK, stamp.encode())

    @staticmethod
    def marked(environment: str, stamp: str) -> bool:
        """Whether an environment was made by an upgrade."""
        try:
            return (Path(environment) / MARK).read_text(encoding="utf-8") == stamp
        except FileNotFoundError:
            return False
        except (OSError, UnicodeDecodeError) as error:
            raise OrchctlError(f"{environment} cannot be looked at: {error}") from error

    @staticmethod
    def exchange(environment: str, aside: str) -> None:
        """Let two environments change places in one step; both are on the disk before and after."""
        os.sync()
        _exchange(environment, aside)
        files.sync_directory(Path(environment).parent)

    @staticmethod
    def asides(environment: str) -> tuple[str, ...]:
        """Return the environments beside one that upgrades have left, the oldest first."""
        path = Path(environment)
        found = (each for each in path.parent.iterdir() if is_aside(environment, str(each)))
        return tuple(sorted(str(each) for each in found if each.is_dir() and not each.is_symlink()))

    @staticmethod
    def remove(aside: str) -> None:
        """Remove an environment. Repeatable."""
        try:
            shutil.rmtree(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise NotAllowed(f"{aside} cannot be removed: {error.strerror}", hint="remove it by hand") from error

    def _install(self, into: str, wanted: Wanted, folder: Path, *more: str) -> None:
        """Let pip install `wanted`: of the rest only what has to change for that."""
        constraints = ["--constraint", wanted.constraints] if wanted.constraints is not None else []
        if wanted.limits:
            limits = folder / "bounds.txt"
            with acting_as(_owner(into)):
                limits.write_text("".join(f"{line}\n" for line in wanted.limits), encoding="utf-8")
            constraints += ["--constraint", str(limits)]
        words = ["install", *_PIP, "--upgrade", *constraints, *more, "--", *wanted.words]
        self._run(into, [python_of(into), "-I", "-m", "pip", *words])

    @contextmanager
    def _scratch(self, environment: str) -> Iterator[Path]:
        """Give a folder for a while that the owner of an environment may write into."""
        folder = Path(tempfile.mkdtemp(prefix="orchctl-upgrade-"))
        try:
            owner = _owner(environment)
            if os.geteuid() == 0:
                os.chown(folder, owner.pw_uid, owner.pw_gid)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _account(self, environment: str) -> Account | None:
        return account_of(_owner(environment).pw_name) if os.geteuid() == 0 else None

    def _run(self, environment: str, argv: Sequence[str]) -> None:
        status, said = self._finished(argv, self._account(environment))
        if status != 0:
            raise OrchctlError(f"pip {argv[_VERB]} failed: {tail(said)}")

    def _finished(self, argv: Sequence[str], account: Account | None) -> tuple[int, str]:
        kept = {
            key: value
            for key, value in self._variables.items()
            if not key.startswith(("PREFECT_", "ORCHCTL_", "PYTHON", "VIRTUAL_ENV"))
        }
        return run(argv, kept, account=account)


def run(
    argv: Sequence[str],
    variables: Mapping[str, str],
    *,
    account: Account | None,
    cwd: str = "/",
    patience_s: float | None = None,
    tell: Callable[[float], None] = lambda _: None,
) -> tuple[int, str]:
    """Run a program to its end, as a user (None: as we are), and return how it ended and what it said, masked.

    It is no part of the terminal's group: Ctrl-C is ours to act on, and then ends it with all that it started. After
    `patience_s` (None: never) that is done too, and TimeoutError raised with what it said. `tell` is called each
    minute, with the seconds that it has taken.
    """
    identity = {} if account is None else account.identity
    home = {} if account is None else {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**variables, **home},
            cwd=cwd,
            umask=0o022,
            start_new_session=True,
            **identity,
        )
    except OSError as error:
        raise OrchctlError(f"{argv[0]} cannot be started: {error.strerror}") from error
    with process:
        try:
            said = _said(process, patience_s, tell)
        except TimeoutError as error:
            raise TimeoutError(_masked(_ended(process), variables)) from error
        except BaseException:
            _ended(process)
            raise
    return process.returncode, _masked(said, variables)


def _masked(said: bytes, variables: Mapping[str, str]) -> str:
    return Masker.of(variables).mask(said.decode("utf-8", "replace"))


def _said(process: subprocess.Popen[bytes], patience_s: float | None, tell: Callable[[float], None]) -> bytes:
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        left = TELL_EACH_S if patience_s is None else min(TELL_EACH_S, patience_s - waited)
        if left <= 0:
            raise TimeoutError
        try:
            return process.communicate(timeout=left)[0]
        except subprocess.TimeoutExpired:
            tell(time.monotonic() - began)


def _ended(process: subprocess.Popen[bytes]) -> bytes:
    """End a program with all that it started, and return what it said.

    First as Ctrl-C would: one that is killed leaves its session in PostgreSQL, which goes on waiting, and then does it.
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=END_PATIENCE_S)[0]
    return b""


def tail(said: str) -> str:
    """Return the last lines of what a program said."""
    lines = [line for line in said.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL:]) or "it said nothing"


def _owner(environment: str) -> pwd.struct_passwd:
    uid = os.stat(environment).st_uid
    try:
        return pwd.getpwuid(uid)
    except KeyError as error:
        raise OrchctlError(f"{environment} belongs to uid {uid}, and no user of this host has it") from error


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _distributions(environment: str) -> Iterator[metadata.Distribution]:
    return iter(metadata.distributions(path=folders_of(python_of(environment))))


def _migrations(environment: str, kind: Kind) -> set[str]:
    folders = [Path(each, _MIGRATIONS, kind) for each in folders_of(python_of(environment))]
    return {path.name for folder in folders for path in folder.glob("*.py")}


def _rename_in(script: Path, before: bytes, after: bytes) -> None:
    content = script.read_bytes()
    renamed = content.replace(before + b"/", after + b"/")
    if content.startswith(b"#!") and renamed != content:
        files.write_together([files.Content(script, renamed, script.stat().st_mode & 0o777, exact=True)])


def _try_exchange(folder: Path) -> None:
    """Raise GateRefused where the file system cannot exchange two folders."""
    with tempfile.TemporaryDirectory(prefix=".orchctl-", dir=folder) as scratch:
        one, other = Path(scratch, "one"), Path(scratch, "other")
        one.mkdir()
        other.mkdir()
        try:
            _exchange(str(one), str(other))
        except OrchctlError as error:
            raise GateRefused(
                f"the file system of {folder} cannot exchange two folders in one step",
                hint="make the environment anew on a local file system, and `orchctl host install` from there",
            ) from error


def _exchange(one: str, other: str) -> None:
    """Exchange two names: renameat2(2), which Python does not have."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OrchctlError("this system's C library has no renameat2")
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        said = os.strerror(ctypes.get_errno())
        raise OrchctlError(f"{one} and {other} cannot change places: {said}")
