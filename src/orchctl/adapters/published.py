"""What was published, for who asks by hand: the manifests of an asset's date, pointers, and whether files changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from orchctl.adapters import pointers, publishing
from orchctl.adapters.manifests import Manifests
from orchctl.core.publish import Pointer, Target


class Published:
    """The published runs under every data root. `trust` is as in `Manifests`."""

    def __init__(self, trust: Collection[int] | None = None) -> None:
        self._trust = trust

    def manifests(self, data_root: str, asset: str, day: date) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Return the manifests of an asset's runs of one date, by run; torn ones are passed over.

        Raises OrchctlError for what may not be read.
        """
        return Manifests(data_root, trust=self._trust).of_date(asset, day)

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
