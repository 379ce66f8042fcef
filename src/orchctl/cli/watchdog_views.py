"""What `orchctl watchdog` and `orchctl alerts test` show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.alerts import Alerts, words
from orchctl.core.names import format_instant

if TYPE_CHECKING:
    from orchctl.core.deliveries import Answer
    from orchctl.core.watch import Problem
    from orchctl.services.watchdog import Look, Sent, Standing
    from orchctl.wiring import Settings


def look(found: Look, alerts: Alerts, settings: Settings) -> None:
    """Show one look."""
    errors = [{"code": "unseen", "message": f"{area}: {why}", "hint": None} for area, why in found.unseen.items()]
    errors += [
        {"code": "undelivered", "message": f"{each.channel}: {each.answer.said}", "hint": None}
        for each in found.sent
        if not each.answer.ok
    ]
    if not settings.as_json:
        for note in found.notes:
            render.note(note)
        if not alerts.channels:
            render.note("nobody is told: there is no alerts.toml with channels")
    render.emit("watchdog", _look_data(found), lambda: _look_text(found), settings, errors=errors)


def _look_data(found: Look) -> dict[str, Any]:
    decided = found.decided
    return {
        "at": found.at,
        "dry_run": found.dry,
        "well": not found.problems,
        "problems": [_problem(each, found) for each in found.problems],
        "unseen": dict(found.unseen),
        "told": {"new": list(decided.new), "again": list(decided.again), "over": list(decided.over)},
        "messages": {
            name: [{"subject": each.subject, "text": each.text} for each in messages]
            for name, messages in decided.letters.items()
        },
        "sent": [_sent(each) for each in found.sent],
        "waiting": found.waiting,
        "pinged": _answer(found.pinged) if found.pinged is not None else None,
        "notes": list(found.notes),
    }


def _problem(problem: Problem, found: Look) -> dict[str, Any]:
    trouble = found.decided.open.get(problem.key)
    return {
        "key": problem.key,
        "event": problem.event,
        "about": problem.about,
        "job": problem.job,
        "reason": problem.reason,
        "since": trouble.since if trouble is not None else None,
        "told": trouble.told if trouble is not None else None,
        "command": problem.command,
    }


def _sent(sent: Sent) -> dict[str, Any]:
    return {"channel": sent.channel, "subject": sent.subject, **_answer(sent.answer)}


def _answer(answer: Answer) -> dict[str, Any]:
    return {"ok": answer.ok, "said": answer.said, "attempts": answer.attempts}


def _look_text(found: Look) -> None:
    for problem in found.problems:
        what = problem.job or problem.about
        render.line(f"{words(problem.event)}{f' ({what})' if what else ''}: {problem.reason}")
    if not found.problems:
        render.line("all is well")
    if found.dry:
        for name, messages in found.decided.letters.items():
            for message in messages:
                render.line(f"would be told through {name}: {message.subject}")
    for sent in found.sent:
        render.line(_sent_line(sent))
    if found.waiting:
        render.line(f"{found.waiting} {'message waits' if found.waiting == 1 else 'messages wait'} to be delivered")
    if found.pinged is not None:
        render.line(f"dead-man address: {found.pinged.said}")


def _sent_line(sent: Sent) -> str:
    attempts = f" ({sent.answer.attempts} attempts)" if sent.answer.attempts > 1 else ""
    return f"{sent.channel}: {'delivered' if sent.answer.ok else 'NOT delivered'}{attempts}: {sent.answer.said}"


def tested(found: Sequence[Sent], settings: Settings) -> None:
    """Show what came of test messages."""
    errors = [
        {"code": "undelivered", "message": f"{each.channel}: {each.answer.said}", "hint": None}
        for each in found
        if not each.answer.ok
    ]

    def text() -> None:
        for each in found:
            render.line(_sent_line(each))

    failed = bool(errors) and len(errors) == len(found)
    render.emit("alerts test", [_sent(each) for each in found], text, settings, errors=errors, failed=failed)


def units(contents: Mapping[Path, str], settings: Settings) -> None:
    """Show the units that would be written."""

    def text() -> None:
        for path, content in contents.items():
            render.line(f"# {path}")
            for each in content.splitlines():
                render.line(each)

    data = {"dry_run": True, "units": {str(path): content for path, content in contents.items()}}
    render.emit("watchdog install", data, text, settings)


def installed(paths: Sequence[Path], notes: Collection[str], settings: Settings) -> None:
    """Show what was installed, and what might keep it from telling."""

    def text() -> None:
        for path in paths:
            render.line(f"wrote {path}")
        render.line("it looks every minute: `orchctl watchdog status`")

    if not settings.as_json:
        for note in notes:
            render.note(f"warning: {note}")
    data = {"dry_run": False, "units": [str(path) for path in paths], "warnings": list(notes)}
    render.emit("watchdog install", data, text, settings)


def uninstalled(paths: Sequence[Path], settings: Settings) -> None:
    """Show what was removed."""

    def text() -> None:
        for path in paths:
            render.line(f"removed {path}")
        if not paths:
            render.line("there was nothing to remove")

    render.emit("watchdog uninstall", {"removed": [str(path) for path in paths]}, text, settings)


def status(found: Standing, settings: Settings) -> None:
    """Show how the watchdog stands."""
    data = {
        "installed": found.timer.installed,
        "active": found.timer.active,
        "result": found.timer.result,
        "manager": found.timer.manager,
        "unknown": found.timer.unknown,
        "looked_at": found.looked_at,
        "open": [
            {
                "key": key,
                "event": each.event,
                "job": each.job,
                "about": each.about,
                "since": each.since,
                "told": each.told,
                "channels": list(each.channels),
            }
            for key, each in found.open.items()
        ],
        "waiting": found.waiting,
        "channels": [render.jsonable(each) for each in found.deliveries],
    }
    render.emit("watchdog status", data, lambda: _lines(_status_text(found)), settings)


def _status_text(found: Standing) -> Iterator[str]:
    state = "looks every minute" if found.timer.active else "is installed and off" if found.timer.installed else "none"
    state = state if found.timer.unknown is None else f"not known: {found.timer.unknown}"
    looked = f"; last look at {format_instant(found.looked_at)}" if found.looked_at is not None else ""
    ended = f", ended with {found.timer.result}" if found.timer.result not in {None, "success"} else ""
    yield f"timer ({found.timer.manager}): {state}{looked}{ended}"
    for each in found.open.values():
        told = f"told to {', '.join(each.channels)}" if each.told is not None else "not told yet"
        what = each.job or each.about
        yield f"open since {format_instant(each.since)}: {words(each.event)}{f' ({what})' if what else ''}; {told}"
    for delivery in found.deliveries:
        waits = f"; {delivery.waiting} wait" if delivery.waiting else ""
        arrived = "delivered" if delivery.ok else "NOT delivered"
        yield f"{delivery.channel}: last {arrived} at {format_instant(delivery.at)}: {delivery.said}{waits}"


def _lines(texts: Iterator[str]) -> None:
    for text in texts:
        render.line(text)
