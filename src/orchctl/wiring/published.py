"""What `publish` works with beside the catalog."""

from __future__ import annotations

from collections.abc import Collection

from orchctl.adapters.published import Published


def published(trust: Collection[int] | None = None) -> Published:
    """Return what was published, under every data root; to move production by it, `trust` says whom it may be from."""
    return Published(trust)
