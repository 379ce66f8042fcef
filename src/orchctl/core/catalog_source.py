"""One file of the catalog while it is read: its text, what it says, and every problem in it, each with its place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from orchctl.core.catalog_words import describe, printable
from orchctl.core.names import is_dotted_name
from orchctl.core.problems import Problem
from orchctl.core.toml_lines import Path, dotted, lines_of

_AT = re.compile(r"\(at line (\d+), column \d+\)")
# Far more than a catalog needs, far less than what exhausts the stack of whoever walks through it.
_DEEPEST = 30
# How much of a path is the table's header, by its first part.
_DEPTHS: Mapping[str | int, int] = {
    "jobs": 2,
    "schedules": 2,
    "contracts": 2,
    "channels": 2,
    "routes": 2,
    "defaults": 1,
    "limits": 1,
    "alerts": 1,
    "watchdog": 1,
    "logs": 2,
    "retention": 1,
}


@dataclass
class Source:
    """One file: its name as shown, its text, its form, what it says, and what is wrong with it."""

    file: str
    text: str
    model: type[BaseModel]
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _lines: Mapping[Path, int] | None = None

    def line(self, path: Path) -> int | None:
        """Return the line of `path` or of the nearest parent that has one."""
        if self._lines is None:
            self._lines = lines_of(self.text)
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None

    def wrong(self, path: Path, message: str, *, allowed: str | None = None, nearest: str | None = None) -> None:
        """Note a problem at `path`, e.g. `("jobs", "live-score", "overlap")`. In a step the message names the step."""
        depth = _DEPTHS.get(path[0], 0) if path else 0
        table, rest = path[:depth], path[depth:]
        step = self._step(path)
        problem = Problem(
            self.file,
            self.line(path),
            printable(dotted(table)),
            printable(dotted(rest)) or None,
            printable(f"step {step}: {message}" if step is not None else message),
            printable(allowed) if allowed else None,
            printable(nearest) if nearest else None,
        )
        self.problems.append(problem)

    def refused(self, error: ValidationError, prefix: Path, *, only: Iterable[str] | None = None) -> None:
        """Note what pydantic found below `prefix`; `only` limits it to these first keys."""
        wanted = None if only is None else set(only)
        for detail in error.errors(include_url=False):
            said = describe(detail, prefix, self.model)
            if wanted is None or (said.path[len(prefix) :] or (None,))[0] in wanted:
                self.wrong(said.path, said.message, allowed=said.allowed, nearest=said.nearest)

    def _step(self, path: Path) -> str | None:
        """Return the name of the step that `path` is in: an index alone would be counted wrong by people."""
        if len(path) < 4 or path[0] != "jobs" or path[2] != "steps":
            return None
        step: Any = self.data
        for part in path[:4]:
            step = step[part]
        name = step.get("name") if isinstance(step, dict) else None
        return name if isinstance(name, str) and is_dotted_name(name) else None


Content = str | bytes | None
"""What a file holds: its text, its bytes (UTF-8, or a problem), or None where it does not exist."""


def source_of(file: str, content: Content, model: type[BaseModel]) -> Source:
    """Return a file that is not parsed yet; one that does not exist, or is not UTF-8, has that as its problem."""
    if isinstance(content, str):
        return Source(file, content, model)
    if content is None:
        return Source(file, "", model, problems=[Problem(file, None, "", None, "the file does not exist")])
    try:
        return Source(file, content.decode("utf-8"), model)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Source(file, "", model, problems=[Problem(file, line, "", None, f"not UTF-8 (byte {error.start})")])


def parse(source: Source) -> bool:
    """Read the file's text into its data; return whether that can be read at all."""
    if source.problems:
        return False
    try:
        source.data = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))
        message = _AT.sub("", str(error)).strip()
        line = int(at[1]) if at else source.text.rstrip("\n").count("\n") + 1
        source.problems.append(Problem(source.file, line, "", None, printable(f"not TOML: {message}")))
        return False
    except ValueError:  # Python reads no more than 4300 digits
        source.problems.append(Problem(source.file, None, "", None, "holds a number with too many digits"))
        return False
    except RecursionError:
        return _too_deep(source)
    return _too_deep(source) if _depth(source.data) > _DEEPEST else _numbers_fit(source)


def _too_deep(source: Source) -> bool:
    source.data = {}
    source.problems.append(Problem(source.file, None, "", None, "nested too deeply"))
    return False


def _depth(data: object) -> int:
    """Return how deep tables and lists stand in each other; it does not recurse."""
    depth, level = 0, [data]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
        depth += 1
    return depth


def _numbers_fit(source: Source) -> bool:
    """Refuse integers beyond TOML's 64 bits: Python reads hexadecimal ones of any length, and cannot show them."""
    huge = [path for path, value in _leaves(source.data) if isinstance(value, int) and not -(2**63) <= value < 2**63]
    for path in huge:
        source.wrong(path, "is a number beyond 64 bits")
    return not huge


def _leaves(data: object, at: Path = ()) -> Iterator[tuple[Path, object]]:
    if isinstance(data, (dict, list)):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _leaves(value, (*at, key))
    else:
        yield at, data
