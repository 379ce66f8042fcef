"""Applied catalogs: `state/applied/<digest>.json`, from which alone the runner takes commands."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from orchctl.adapters import files, state_id
from orchctl.adapters.state_folder import StateFolder
from orchctl.core.catalog import Catalog
from orchctl.errors import StateBroken

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")


class AppliedCatalogs:
    """The catalogs that `sync` applied, by digest.

    `trust` is a user whose files count as ours: nobody (None) for who runs what they say, whoever the state directory
    belongs to (`belief.owner`) for others.
    """

    def __init__(self, state_dir: Path, *, trust: int | None = None) -> None:
        self._state_dir = state_dir
        self._folder = StateFolder(state_dir, "applied")
        self._trust = trust

    def read(self, digest: str) -> Catalog | None:
        """Return the catalog with `digest`, None where it is not on this host.

        Raises StateBroken where the file is not what `sync` wrote: its content must have the digest that
        its name says.
        """
        match = _DIGEST.match(digest)
        if match is None:
            return None
        path = self._folder.path(f"{match[1]}.json")
        data = files.read_json(path, trust=self._trust)
        if data is None:
            return None
        try:
            catalog = Catalog.from_json(data)
        except ValidationError as error:
            raise StateBroken(f"{path} is not a catalog", hint="run `orchctl sync`, which writes it anew") from error
        if catalog.digest != digest:
            raise StateBroken(f"{path} was changed after it was applied", hint="delete it and run `orchctl sync`")
        return catalog

    def written(self) -> dict[str, datetime]:
        """Return when each catalog was first applied (UTC), by digest: `sync` never writes one that is there."""
        found = {}
        for path in self._folder.path("").glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                found[f"sha256:{path.stem}"] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return found

    def write(self, catalog: Catalog) -> Path:
        """Keep `catalog` under its digest. Repeatable."""
        name = f"{catalog.digest.removeprefix('sha256:')}.json"
        self._folder.write(name, catalog.to_json())
        return self._folder.path(name)

    def state_id(self) -> str | None:
        """Return the id of the state directory, None where it has none yet. Raises StateBroken."""
        return state_id.read(self._state_dir)

    def make_state_id(self) -> str:
        """Return the id of the state directory, which is given one where it has none. Repeatable."""
        return state_id.make(self._state_dir)
