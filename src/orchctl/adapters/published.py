"""What was published, for who asks by hand: the manifests of an asset's date, pointers, and whether files changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from orchctl.adapters import pointers, publishing
from orchctl.adapters.manifests import MANIFEST
from orchctl.core.publish import Pointer, Target


class Published:
    """The published runs under every data root."""

    def manifests(self, data_root: str, asset: str, day: date) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the manifests of an asset's runs of one date, by run; what cannot be read is passed over."""
        folder = Path(data_root, "manifests", asset, f"game_date={day.isoformat()}")
        for path in sorted(folder.glob(f"run=*/{MANIFEST}")):
            try:
                data = json.loads(path.read_bytes())
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(data, dict):
                yield path, data

    def pointer(self, folder: Path, name: str) -> Pointer | None:
        """Return what a pointer holds, None where there is none. Raises PublishError."""
        return pointers.read_pointer(folder, name)

    def digest(self, folder: Path) -> str:
        """Return the digest of a run's files as they are now. Raises PublishError."""
        return publishing.digest(folder)

    def move(
        self, folder: Path, name: str, run: Target, *, at: datetime, reason: str, expected: Pointer | None
    ) -> None:
        """Let a pointer hold `run`, unless it holds no more what is `expected`. Raises PublishError."""
        pointers.move_by_hand(folder, name, run, at=at, reason=reason, expected=expected)
