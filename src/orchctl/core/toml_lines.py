"""Where each key of a TOML document stands.

`tomllib` reads a document but forgets its lines. This scanner only finds the lines: it is given text that
`tomllib` has already accepted, so it need not judge, and it runs only when there is something to report.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_INLINE_BLANK = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[A-Za-z0-9_-]+')
_SCALAR = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|\'\'\'(?:[^\']|\'{1,2}(?!\'))*\'{3,5}'
    r'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[^,\]\}\#\n\r]+',
    re.DOTALL,
)


def lines_of(text: str) -> Mapping[Path, int]:
    """Return the 1-based line of every table, key and array element of a valid document.

    A key is a path such as `("jobs", "live-score", "legacy", 0, "scope")`. Tables that a header implies
    (`[a.b]` implies `a`) get that header's line.
    """
    return _Scanner(text).scan()


def dotted(path: Path) -> str:
    """Write a path as TOML writes keys, with list indexes in brackets: `jobs."a b".legacy[0]`."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            parts.append("." + (part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False)))
    return "".join(parts).removeprefix(".")


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}
        self._counted_to = 0
        self._line = 1

    def scan(self) -> Mapping[Path, int]:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return self.lines
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def _mark(self, path: Path) -> None:
        """Note that `path` stands at the current position, unless it was seen before; its parents likewise."""
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], self._line)

    def _header(self) -> Path:
        start = self.at
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        parts = self._key()
        end, self.at = self.at, start
        path = self._resolve(parts[:-1] if is_array else parts)
        if is_array:
            array = (*path, parts[-1])
            self.arrays[array] = self.arrays.get(array, -1) + 1
            path = (*array, self.arrays[array])
        self._mark(path)
        self.at = self.text.index("]]" if is_array else "]", end) + (2 if is_array else 1)
        return path

    def _resolve(self, parts: tuple[str, ...]) -> Path:
        """Follow a header's path through arrays of tables: it means their newest element."""
        path: Path = ()
        for part in parts:
            path = (*path, part)
            if path in self.arrays:
                path = (*path, self.arrays[path])
        return path

    def _key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self._skip(_INLINE_BLANK)
            match = _KEY_PART.match(self.text, self.at)
            if match is None:  # not reached for text that tomllib accepts
                raise ValueError(f"no key at offset {self.at}")
            self.at = match.end()
            parts.append(_plain(match[0]))
            self._skip(_INLINE_BLANK)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(parts)
            self.at += 1

    def _pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self._key())
        end, self.at = self.at, start
        self._mark(path)
        self.at = self.text.index("=", end) + 1
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip(_INLINE_BLANK)
        opening = self.text[self.at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "]":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._mark((*path, index))
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "}":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._pair(path)


def _plain(key: str) -> str:
    """Return a key's text without quotes; a basic string's escapes are tomllib's business."""
    if key.startswith('"'):
        return next(iter(tomllib.loads(f"{key} = 0")))
    return key.strip("'") if key.startswith("'") else key
