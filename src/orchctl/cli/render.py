"""The only place that prints. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, TextIO

from orchctl.core.names import format_instant, nearest, visible
from orchctl.errors import CatalogInvalid, GateRefused, OrchctlError, ProblemLike, UsageError
from orchctl.wiring import Settings

_STYLES = {
    "success": "green",
    "failed": "red",
    "crashed": "red bold",
    "cancelled": "yellow",
    "warned": "yellow",
    "kept": "green",
    "running": "cyan",
    "skipped": "dim",
    "observed": "dim",
    "ok": "green",
    "warning": "yellow",
    "failure": "red bold",
}


def line(text: str = "") -> None:
    """Print one line of data."""
    print(visible(text))


def note(text: str) -> None:
    """Print one line that is not data."""
    print(visible(text), file=sys.stderr, flush=True)


def heading(text: str) -> None:
    """Print a line of a story, set off from what commands print."""
    print(f"\n== {visible(text)}", flush=True)


def jsonable(value: Any) -> Any:
    """Turn results into what JSON can hold: dataclasses become objects, instants RFC 3339."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, datetime):
        return format_instant(value)
    return str(value) if isinstance(value, (Path, date)) else value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON; what JSON has no form for is written as text."""
    import json  # here: `--help` needs none

    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def emit(
    command: str,
    data: Any,
    text: Callable[[], None],
    settings: Settings,
    *,
    errors: Iterable[dict[str, Any]] = (),
    failed: bool = False,
) -> None:
    """Print a result: the JSON envelope, or `text()`.

    `errors` are those of a partial result, or of one that `failed` as a whole and has data all the same.
    """
    if not settings.as_json:
        text()
        return
    listed = list(errors)
    status = "error" if failed else "partial" if listed else "success"
    envelope = {"schema": 1, "command": command, "status": status, "data": jsonable(data), "errors": listed}
    print(to_json(envelope, indent=2))


def error(problem: OrchctlError, *, command: str, settings: Settings | None, as_json: bool = False) -> None:
    """Print an error, on stderr; with --json as an envelope on stdout."""
    problems = problem.problems if isinstance(problem, CatalogInvalid) else ()
    if as_json or (settings is not None and settings.as_json):
        listed = [_problem_json(problem.code, item) for item in problems] or [
            {"code": problem.code, "message": problem.message, "hint": problem.hint}
        ]
        envelope = {"schema": 1, "command": command, "status": "error", "data": None, "errors": listed}
        print(to_json(envelope, indent=2))
        return
    for item in problems:
        place = f"{item.place}: " if item.place else ""
        note(f"{item.where}: {place}{item.message}")
        if item.hint:
            note(f"    {item.hint}")
    for number, text in enumerate(problem.message.splitlines() or [""]):
        note(text if number else f"error: {text}")
    if problem.hint:
        note(f"hint: {problem.hint}")


def _problem_json(code: str, item: ProblemLike) -> dict[str, Any]:
    return {
        "code": code,
        "message": f"{item.place}: {item.message}" if item.place else item.message,
        "hint": item.hint,
        "file": item.file,
        "line": item.line,
        "table": item.table,
        "key": item.key,
    }


def size(count: int) -> str:
    """Return bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def check_choice(option: str, value: str | None, allowed: Sequence[str]) -> None:
    """Raise UsageError where `value` is not one of `allowed`."""
    if value is not None and value not in allowed:
        near = nearest(value, allowed)
        hint = (f'did you mean "{near}"? ' if near else "") + f"allowed: {', '.join(allowed)}"
        raise UsageError(f"{option}: there is no {value!r}", hint=hint)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal. Raises GateRefused on no, and where nobody can be asked and `yes` is not given."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise GateRefused(f"this needs an answer: {question}", hint="--yes gives it")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise GateRefused("not confirmed; nothing was changed")


def width() -> int | None:
    """Return the columns of the terminal that data goes to; None where it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    settings: Settings,
    *,
    right: Iterable[str] = (),
    flexible: str = "",
) -> None:
    """Print a table without lines. On a terminal the column `flexible` gives way; elsewhere nothing is cut."""
    lines = table_lines(headings, rows, settings, right=right, flexible=flexible)
    sys.stdout.write("".join(f"{text}\n" for text in lines))


def table_lines(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    settings: Settings,
    *,
    right: Iterable[str] = (),
    flexible: str = "",
) -> list[str]:
    """Return the lines that `table` prints, with what colours them on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = width()
    console = Console(width=columns or 10_000, no_color=not settings.color, highlight=False, soft_wrap=False)
    printed = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    rights = set(right)
    widths = [max([len(heading), *(len(row[index]) for row in rows)]) for index, heading in enumerate(headings)]
    # What is too much for the terminal is taken from the one column; rich would take it from each.
    over = max(0, sum(widths) + len(widths) - columns) if columns is not None else 0
    for index, heading in enumerate(headings):
        printed.add_column(
            heading,
            justify="right" if heading in rights else "left",
            no_wrap=True,
            overflow="ellipsis",
            header_style="bold",
            width=max(min(6, widths[index]), widths[index] - over) if heading == flexible else widths[index],
        )
    for row in rows:
        printed.add_row(*(Text(visible(cell), style=_STYLES.get(cell, "")) for cell in row))
    with console.capture() as captured:
        console.print(printed)
    # A table pads its last column: blanks at the end of a line help nobody.
    return [text.rstrip() for text in captured.get().splitlines()]


def raw(chunks: Iterable[bytes]) -> None:
    """Write bytes to stdout as they come; on a terminal without what it would obey (see `_tame`)."""
    for chunk in chunks:
        sys.stdout.buffer.write(_tame(chunk, sys.stdout))
        sys.stdout.buffer.flush()


def _tame(chunk: bytes, stream: TextIO) -> bytes:
    """Write out the control characters of a script's output where it goes to a terminal; a file gets the bytes."""
    if not stream.isatty():
        return chunk
    lines = chunk.decode("utf-8", "backslashreplace").split("\n")
    return "\n".join(visible(text.replace("\t", "    ")) for text in lines).encode()


@contextlib.contextmanager
def counter(total: int, word: str, settings: Settings) -> Iterator[Callable[[], None]]:
    """Show `synced 12/1000` on a terminal while a long work goes on."""
    shown = sys.stderr.isatty() and not settings.as_json and total > 1
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if shown:
            print(f"\r{word} {done}/{total}", end="", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        if shown and done:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def status_line(settings: Settings) -> Iterator[Callable[[str, bytes], None]]:
    """Show a line that changes below output that grows; off a terminal only the output is written."""
    shown = sys.stderr.isatty() and not settings.as_json
    unfinished = False

    def show(text: str, output: bytes) -> None:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        nonlocal unfinished
        if output:
            unfinished = not output.endswith(b"\n")
            stream = sys.stderr if settings.as_json else sys.stdout
            stream.buffer.write(_tame(output, stream))
            stream.buffer.flush()
        if shown:
            columns = shutil.get_terminal_size().columns
            print(visible(text)[: columns - 1], end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if unfinished:
            note("")


@contextlib.contextmanager
def bar(total: int, settings: Settings) -> Iterator[Callable[[int, str, Sequence[str]], None]]:
    """Show how far a long work has come, with what is to be known of it; `news` stay, a line each.

    On a terminal a bar on stderr that goes at the end; elsewhere, and with --json, only the news.
    """
    if not sys.stderr.isatty() or settings.as_json:

        def tell(_done: int, _text: str, news: Sequence[str]) -> None:
            for each in news:
                note(each)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    console = Console(stderr=True, no_color=not settings.color, highlight=False)
    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)

        def show(done: int, text: str, news: Sequence[str]) -> None:
            for each in news:
                progress.console.print(Text(visible(each)))
            progress.update(task, completed=done, description=visible(text))

        yield show


@contextlib.contextmanager
def screen() -> Iterator[Callable[[Sequence[str]], None]]:
    """Give what paints lines over the whole terminal, again and again. The screen from before comes back at the end.

    Each line is written over the one that stood there, and only then is what is left of that cleared: an empty screen
    in between would flicker. The caller cuts the lines to the terminal's width and height.
    """
    home, clear_line, clear_below = "\x1b[H", "\x1b[K", "\x1b[J"

    def paint(lines: Sequence[str]) -> None:
        sys.stdout.write(home + f"{clear_line}\n".join(lines) + clear_line + clear_below)
        sys.stdout.flush()

    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield paint
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def height() -> int:
    """Return the lines of the terminal."""
    return shutil.get_terminal_size().lines


def save(option: str, path: Path, text: str) -> None:
    """Write a result to the file that the user gave with `option`. Raises UsageError where that cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{option}: cannot write {path}: {error.strerror or error}") from error


def close_stdout() -> None:
    """Point stdout at nothing, so that Python's last flush does not complain about a closed pipe."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
