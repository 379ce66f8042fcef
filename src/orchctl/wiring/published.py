"""What `publish` works with beside the catalog."""

from __future__ import annotations

from orchctl.adapters.published import Published


def published() -> Published:
    """Return what was published, under every data root."""
    return Published()
