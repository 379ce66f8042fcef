"""A timeline as a picture: one self-contained SVG, readable on a light and on a dark page. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape

from orchctl.core.durations import human
from orchctl.core.names import format_instant, visible
from orchctl.core.timeline import Axis, Bar, Row, Timeline, axis

WIDTH, MARGIN, ROW, TOP, BAR = 960, 16, 26, 84, 16
_CHARACTER = 7.2
"""Pixels a character of the labels is wide, at most."""
_LONGEST_LABEL = 40
_COLORS = {
    "success": "#2f9e63",
    "kept": "#8fb8a3",
    "running": "#2d7fd3",
    "warned": "#d99a1c",
    "skipped": "#9aa3ad",
    "cancelled": "#9aa3ad",
}
_FAILED = "#d24545"
_STYLE = """
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1d2430 }
.title { font-size: 15px; font-weight: 600 }
.soft { fill: #6b7480 }
.page { fill: #ffffff }
.line { stroke: #dfe3e8 }
.cut { stroke: #6b7480; stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e8ee }
  .soft { fill: #98a2ae }
  .page { fill: #14181f }
  .line { stroke: #2c333d }
}
"""


def draw(timeline: Timeline, *, title: str, subtitle: str, now: datetime) -> str:
    """Return the SVG of a timeline. `title` and `subtitle` stand above it; `now` ends the bars that still run."""
    scale = axis(timeline, now=now)
    longest = max((len(_label(row.step)) for row in timeline.rows), default=0)
    left = MARGIN + round(longest * _CHARACTER) + 12
    right = WIDTH - MARGIN - 110
    height = TOP + ROW * len(timeline.rows) + MARGIN + 28
    size = f'width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{_safe(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" {size} rx="6"/>',
        _text(MARGIN, 28, title, "title"),
        _text(MARGIN, 48, _cut(subtitle, int((WIDTH - 2 * MARGIN) / _CHARACTER)), "soft", hover=subtitle),
        *_ticks(scale, left, right, height),
    ]
    for number, row in enumerate(timeline.rows):
        parts += _row(row, scale, (left, right), TOP + ROW * number, now)
    parts += [*_legend(timeline, height), "</svg>"]
    return "\n".join(parts) + "\n"


def _row(row: Row, scale: Axis, span: tuple[int, int], top: int, now: datetime) -> Iterator[str]:
    left, right = span
    base = top + BAR - 4
    yield _text(MARGIN, base, _label(row.step), "", hover=row.step)
    if not row.bars:
        words = f"{row.status or 'waiting'}{f': {row.reason}' if row.reason else ''}"
        room = int((right - left) / _CHARACTER)
        yield _text(left, base, _cut(words, room), "soft", hover=words)
        return
    for earlier, later in zip(row.bars, row.bars[1:], strict=False):
        begin, end = _x(scale, earlier.until(now), span), _x(scale, later.started_at, span)
        yield f'<line class="cut" x1="{begin:.1f}" x2="{end:.1f}" y1="{top + BAR / 2}" y2="{top + BAR / 2}"/>'
    for bar in row.bars:
        begin = _x(scale, bar.started_at, span)
        width = max(2.0, _x(scale, bar.until(now), span) - begin)
        yield (
            f'<rect x="{begin:.1f}" y="{top}" width="{width:.1f}" height="{BAR}" rx="3" fill="{_color(bar.status)}">'
            f"<title>{_safe(_words(row, bar))}</title></rect>"
        )
    tries = f", {len(row.bars)} tries" if len(row.bars) > 1 else ""
    yield _text(right + 8, base, human(row.busy_s) + tries, "soft")


def _words(row: Row, bar: Bar) -> str:
    took = (bar.finished_at - bar.started_at).total_seconds() if bar.finished_at else None
    reason = f": {bar.reason}" if bar.reason else ""
    began = format_instant(bar.started_at)
    return f"{row.step}, try {bar.attempt}, {bar.status}, from {began}, took {human(took)}{reason}"


def _ticks(scale: Axis, left: int, right: int, height: int) -> Iterator[str]:
    bottom = height - MARGIN - 28
    for share in (0, 0.25, 0.5, 0.75, 1):
        yield _upright(left + (right - left) * share, bottom, "line")
    yield _text(left, TOP - 14, "0s", "soft")
    yield _text(right, TOP - 14, human(scale.shown_s), "soft", anchor="end")
    for begin, end in scale.cuts:
        x = _x(scale, begin + (end - begin) / 2, (left, right))
        yield _upright(x, bottom, "cut")
        yield _text(x, TOP - 14, f"idle {human((end - begin).total_seconds())}", "soft", anchor="middle")


def _upright(x: float, bottom: int, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}"/>'


def _legend(timeline: Timeline, height: int) -> Iterator[str]:
    seen = dict.fromkeys(status for row in timeline.rows for status in (row.status, *(bar.status for bar in row.bars)))
    x = float(MARGIN)
    for status in seen:
        if status is None:
            continue
        yield f'<rect x="{x:.1f}" y="{height - MARGIN - 11}" width="11" height="11" rx="2" fill="{_color(status)}"/>'
        yield _text(x + 17, height - MARGIN - 1, status, "soft")
        x += 17 + len(status) * _CHARACTER + 22


def _x(scale: Axis, at: datetime, span: tuple[int, int]) -> float:
    return span[0] + (span[1] - span[0]) * scale.place(at)


def _color(status: str) -> str:
    return _COLORS.get(status, _FAILED)


def _label(step: str) -> str:
    return _cut(step, _LONGEST_LABEL)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _text(x: float, y: float, words: str, kind: str, *, anchor: str = "start", hover: str = "") -> str:
    about = f"<title>{_safe(hover)}</title>" if hover and hover != words else ""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{about}{_safe(words)}</text>'


def _safe(text: str) -> str:
    """Return text that XML can hold: control characters are written out, for it has no form for them."""
    return escape(visible(text))
