"""JSON tables with a checksum: what was damaged, or written by hand, is not what we wrote. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any


def seal(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with its checksum (`check`)."""
    return {**said, "check": _checksum(said)}


def is_whole(data: Mapping[str, Any]) -> bool:
    """Whether a table is as it was sealed: one bit that a disk turned over would make another owner of it."""
    return data.get("check") == _checksum({key: value for key, value in data.items() if key != "check"})


def _checksum(said: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(said, sort_keys=True).encode())
