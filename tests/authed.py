"""A Prefect server that asks for a key, with a worker that has it, and an operator's folder beside it."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.installation import AUTH_CLIENT, AUTH_SERVER
from orchctl.services import stack
from support import POOL, Project, clean_env, clock

PASSWORD = "k3y-that-n0body-may-see-7Xq2"
KEY = f"admin:{PASSWORD}"
WRONG = "admin:wr0ng-k3y-that-n0body-may-see"
SECRETS = (PASSWORD, base64.b64encode(KEY.encode()).decode(), WRONG.partition(":")[2])


@dataclass
class Authed(Project):
    """A project whose state directory is that of server and worker, and who has the key, another one, or none."""

    key: str | None = KEY
    state: Path = Path()

    @property
    def state_dir(self) -> Path:
        return self.state

    def env(self) -> dict[str, str]:
        return {**super().env(), **({AUTH_CLIENT: self.key} if self.key is not None else {})}

    def by(self, key: str | None, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command with a key, whatever comes of it."""
        self.key = key
        try:
            return self.orchctl(*words, check=None)
        finally:
            self.key = KEY


@contextlib.contextmanager
def authed(folder: Path) -> Iterator[Authed]:
    """Yield it, with server and worker up."""
    host = LocalStack(folder / "state", {**clean_env(), AUTH_SERVER: KEY, AUTH_CLIENT: KEY})
    try:
        with contextlib.ExitStack() as clients:
            found = stack.up(
                host,
                lambda url: clients.enter_context(PrefectApi(url=url, auth_string=KEY)),
                {POOL: 2},
                port=0,
                external_url=None,
                clock=clock(),
                say=lambda _: None,
            )
        yield Authed(folder, found.api_url, state=folder / "state")
    finally:
        stack.down(host, clock(), lambda _: None)


@dataclass
class Argv:
    """What looks for secrets in the words of every process of this host, until the end of the block."""

    seen: set[str] = field(default_factory=set)

    def look(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode("utf-8", "replace")
                self.seen |= {words for secret in SECRETS if secret in words}


@contextlib.contextmanager
def argv_watched() -> Iterator[Argv]:
    """Yield what was seen so far."""
    found, over = Argv(), threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            found.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def files_with_secrets(*folders: Path) -> list[Path]:
    """Return the files under these folders that hold one of the secrets, but for the settings of an installation."""
    wanted = [secret.encode() for secret in SECRETS]
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.name != "settings.env" and any(each in path.read_bytes() for each in wanted)
    ]
