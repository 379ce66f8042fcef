"""What is wrong with a catalog, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `line` is 1-based, None where the file as a whole is meant. `table` is the TOML table as its header
    writes it (`jobs.live-score`), "" at the top. `key` is the key in it, None where the table is meant.
    `allowed` says what may stand there, `nearest` the allowed word most like the one found; None where
    there is nothing to say.
    """

    file: str
    line: int | None
    table: str
    key: str | None
    message: str
    allowed: str | None = None
    nearest: str | None = None

    @property
    def where(self) -> str:
        """`jobs.toml:12`, or the file alone."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def place(self) -> str:
        """`[jobs.live-score] overlap`, or as much of it as there is."""
        return " ".join(part for part in (f"[{self.table}]" if self.table else "", self.key or "") if part)

    @property
    def hint(self) -> str | None:
        """What would be right, in one line, or None."""
        nearest = f'did you mean "{self.nearest}"?' if self.nearest else None
        allowed = f"allowed: {self.allowed}" if self.allowed else None
        return "; ".join(part for part in (nearest, allowed) if part) or None

    def order(self) -> tuple[str, int, str, str, str]:
        """Sort key: file order."""
        return (self.file, self.line or 0, self.table, self.key or "", self.message)
