"""How many rows a Parquet file has, from its footer alone: a few kilobytes are read, and nothing of Polars is loaded.

The footer is a `FileMetaData` in Thrift's compact protocol; its third field is the number of rows. What comes before
it is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_MAGIC = b"PAR1"
_MOST_FOOTER = 64 * 1024 * 1024
_MOST_DEPTH = 16
_NUM_ROWS, _I64 = 3, 6


def row_count(path: str | os.PathLike[str]) -> int | None:
    """Return the rows of a Parquet file; None where it is none, is torn, is encrypted or cannot be read."""
    try:
        # Not blocking: a named pipe would be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            tail = file.read(8)
            length = int.from_bytes(tail[:4], "little")
            if tail[4:] != _MAGIC or not 0 < length <= min(size - 12, _MOST_FOOTER):
                return None
            file.seek(size - 8 - length)
            return _Footer(file.read(length)).rows()
    except (OSError, ValueError, IndexError):
        return None


def rows_of(paths: Iterable[str]) -> int | None:
    """Return the rows of all Parquet files among `paths`; None where there is none, or one that cannot be counted."""
    counts = [row_count(path) for path in paths if path.endswith(".parquet")]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


class _Footer:
    """A reader of the compact protocol. Raises IndexError where the bytes end, ValueError where they are no such."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def rows(self) -> int | None:
        """Return the third field of the structure, None where it has none that can be right."""
        number = 0
        while field := self._field(number):
            number, kind = field
            if (number, kind) == (_NUM_ROWS, _I64):
                rows = self._varint()
                return (rows >> 1) if rows % 2 == 0 else None  # odd: negative
            self._skip(kind, 0)
        return None

    def _field(self, before: int) -> tuple[int, int] | None:
        """Return number and type of the next field; None at the end of a structure."""
        header = self._byte()
        if header == 0:
            return None
        number = before + (header >> 4) if header >> 4 else self._varint() >> 1
        return number, header & 0x0F

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise ValueError("nested too deeply")
        if kind in (1, 2):  # true, false: in the header itself
            return
        if kind in (4, 5, 6):  # integers
            self._varint()
        elif kind in (3, 7, 8):  # a byte, a double, bytes
            self._forward({3: 1, 7: 8}.get(kind) or self._varint())
        elif kind in (9, 10):  # a list, a set
            self._skip_list(depth)
        elif kind == 12:  # a structure
            number = 0
            while field := self._field(number):
                number = field[0]
                self._skip(field[1], depth + 1)
        else:
            raise ValueError(f"{kind} is no type that stands before the number of rows")

    def _skip_list(self, depth: int) -> None:
        header = self._byte()
        size, kind = header >> 4, header & 0x0F
        for _ in range(self._varint() if size == 15 else size):
            # In a list a truth value is a byte.
            self._skip(3 if kind in (1, 2) else kind, depth + 1)

    def _forward(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise IndexError("the footer ends too early")

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
