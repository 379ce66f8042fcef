"""From an event to people: what is known of it, whether it is told, and the sending."""

from __future__ import annotations

import contextlib
import json
import math
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from orchctl.core import alert_box, alert_heard
from orchctl.core.alert_box import Box, Due, Told
from orchctl.core.alert_heard import Heard, Known
from orchctl.core.alerts import Alerts, Channel, Message
from orchctl.core.alerts_applied import AppliedAlerts
from orchctl.core.catalog import Catalog, Job
from orchctl.core.deliveries import Answer, Letter
from orchctl.core.manifest import Run, Skipped
from orchctl.errors import OrchctlError
from orchctl.services.ports import Applied, Owners

_T = TypeVar("_T")
WATCHDOG_LOOKS = timedelta(minutes=5)
"""A watchdog that has looked within this is at work."""
_LONGEST_NAP_S = 60.0
"""Nobody else sends meanwhile, so nothing is due earlier than was said; but a clock may be set."""
_LOG_MOST = 1 << 16
_SENT_WITHIN_S = 60.0
"""A mail server that takes its time gives ten answers before a mail is taken."""
UNWRITTEN = "queued in memory"
"""What becomes of an event where it cannot be written down."""
_TROUBLE = (OrchctlError, OSError)


class Boxes(Protocol):
    """The boxes of the channels. See `adapters/alert_boxes.py`."""

    def catalogs(self) -> tuple[str, ...]: ...  # noqa: D102
    def applied(self, catalog: str) -> AppliedAlerts | None: ...  # noqa: D102
    def box(self, catalog: str, channel: str) -> Box: ...  # noqa: D102
    def change(self, catalog: str, channel: str, change: Callable[[Box], tuple[Box, _T]]) -> _T: ...  # noqa: D102
    def sending(self, catalog: str, channel: str, *, wait: bool) -> AbstractContextManager[bool]: ...  # noqa: D102
    def watchdog_looked(self) -> datetime | None: ...  # noqa: D102


class Spare(Boxes, Protocol):
    """Boxes in memory, for what cannot be written. See `adapters/alert_boxes.py`."""

    def newer(self, catalog: str, channel: str) -> Mapping[str, Mapping[str, Told]] | None: ...  # noqa: D102
    def settled(self, catalog: str, channel: str) -> None: ...  # noqa: D102


class RunTree(Protocol):
    """The runs under a data root. See `adapters/manifests.py`."""

    def find(self, run_id: str, *, skipped: list[Skipped]) -> Run | None: ...  # noqa: D102
    def current(self, run: Run, *, skipped: list[Skipped]) -> Run: ...  # noqa: D102
    def read(self, run: Run) -> dict[str, Any] | None: ...  # noqa: D102
    def directory_of(self, run: Run) -> Path: ...  # noqa: D102
    def logs_in(self, directory: Path) -> list[Path]: ...  # noqa: D102
    def log_end(self, path: Path, most: int) -> bytes | None: ...  # noqa: D102


class Post(Protocol):
    """What sends, and writes down how that went. See `wiring/alerts.py`."""

    def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer: ...  # noqa: D102
    def note(  # noqa: D102
        self, catalog: str, channel: str, answer: Answer, at: datetime, *, waiting: int, dropped: int
    ) -> str | None: ...


class Ears:
    """What hears an event of Prefect on this host."""

    def __init__(
        self,
        *,
        boxes: Boxes,
        spare: Spare,
        applied: Applied,
        owners: Owners,
        tree: Callable[[str], RunTree],
        mask: Callable[[str], str],
        host: str,
        now: Callable[[], datetime],
    ) -> None:
        self._boxes, self._spare = boxes, spare
        self._applied, self._owners, self._tree = applied, owners, tree
        self._mask, self._host, self._now = mask, host, now

    def hear(self, body: str, *, catalog: str, channel: str) -> str:
        """Take an event in; return what became of it: `queued`, `UNWRITTEN`, or why it is not told.

        Raises OrchctlError where alerts are not in force on this host, ValueError where the body is not ours.
        """
        heard = alert_heard.read(body)
        force = self._in_force(catalog, channel)
        route = next((each for each in force.alerts.routes if each.name == heard.route), None)
        if route is None or channel not in route.channels:
            return "no such way is in force"
        if heard.pool is not None and self._watched():
            return "the watchdog tells of workers"
        found = self._catalog(heard)
        # What was applied on another host is not known here; its tag says whose it is.
        others = found.name != catalog if found is not None else heard.catalogs and catalog not in heard.catalogs
        if others:
            return "it is of another catalog"
        known = self._known(heard, found)
        event = alert_heard.event_of(heard, known)
        reason = alert_heard.why_not(heard, known)
        if event is None or reason is not None:
            return reason or "it is no event of ours"
        if not route.takes(event, job=heard.job if heard.pool is None else None, tags=known.tags):
            return "the route does not take it"
        message = alert_heard.message(heard, known, event, host=self._host, ui_url=force.ui_url).masked(self._mask)
        return self._tell(catalog, channel, message, force.alerts)

    def _tell(self, catalog: str, channel: str, message: Message, alerts: Alerts) -> str:
        """Put a message into the box; where that cannot be written (a full disk), into one in memory, and say so."""
        newer, now = self._spare.newer(catalog, channel), self._now()

        def hear(box: Box) -> tuple[Box, str]:
            return alert_box.hear(box if newer is None else replace(box, troubles=newer), message, alerts, now=now)

        try:
            said = self._boxes.change(catalog, channel, hear)
        except _TROUBLE as error:
            why = f"(sent without being written down: {error})"
            message = replace(message, reason=f"{message.reason or ''} {why}".strip())
            said = tell(self._spare, catalog, channel, message, alerts, now=now)
            return UNWRITTEN if said == "queued" else said
        self._spare.settled(catalog, channel)
        return said

    def _in_force(self, catalog: str, channel: str) -> AppliedAlerts:
        force = self._boxes.applied(catalog)
        if force is None or channel not in force.alerts.channels:
            raise OrchctlError(
                f"channel {channel} of catalog {catalog} is not in force on this host",
                hint="run `orchctl alerts apply` on the host of the Prefect server",
            )
        return force

    def _watched(self) -> bool:
        looked = self._boxes.watchdog_looked()
        return looked is not None and self._now() - looked < WATCHDOG_LOOKS

    def _catalog(self, heard: Heard) -> Catalog | None:
        if heard.digest is None:
            return None
        try:
            return self._applied.read(heard.digest)
        except OrchctlError:
            return None

    def _known(self, heard: Heard, catalog: Catalog | None) -> Known:
        """Return what this host knows of a run; what it cannot read it does not know, and the alert goes out."""
        job = catalog.jobs.get(heard.job or "") if catalog is not None else None
        if job is None:
            return Known()
        try:
            found = self._run(heard, job)
        except (OrchctlError, OSError, ValueError):
            found = None
        return found or Known(mode=self._mode(job), tags=job.tags)

    def _run(self, heard: Heard, job: Job) -> Known | None:
        tree = self._tree(job.data_root)
        skipped: list[Skipped] = []
        for run_id in heard.run_ids:
            run = tree.find(run_id, skipped=skipped)
            if run is not None and run.job == job.name:
                run = tree.current(run, skipped=skipped)
                manifest = tree.read(run)
                lines = _snippet(manifest) or _tail(tree, run)
                return Known(run.run_id, manifest, run.status, run.reason, lines, run.mode, job.tags)
        return None

    def _mode(self, job: Job) -> str | None:
        try:
            return "observe" if job.has_legacy and self._owners.read(job.name) is None else "live"
        except OrchctlError:
            return None


def tell(boxes: Boxes, catalog: str, channel: str, message: Message, alerts: Alerts, *, now: datetime) -> str:
    """Put a message into the box of a channel; return what became of it."""
    return boxes.change(catalog, channel, lambda box: alert_box.hear(box, message, alerts, now=now))


def deliver(
    boxes: Boxes,
    catalog: str,
    channel: str,
    *,
    post: Post,
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
    wait: bool,
    left: Callable[[], float] = lambda: math.inf,
) -> int:
    """Send what is in the box of a channel; return how many messages were taken.

    `wait`: until the box is empty, also for what is to be sent later; else only what is due now, and nothing where
    somebody else is sending. `left`: how many seconds there are; with less than one nothing more is begun.

    Raises OrchctlError or OSError where the box cannot be written and nobody waits. Then nothing is sent: it would be
    sent again at every look.
    """
    sent = 0
    with boxes.sending(catalog, channel, wait=wait) as mine:
        while mine and left() >= 1:
            force = boxes.applied(catalog)
            target = force.alerts.channels.get(channel) if force is not None else None
            if force is None or target is None:
                break
            alerts = force.alerts
            due = alert_box.due(boxes.box(catalog, channel), alerts, now=now())
            if due.message is None:
                if due.wait_s is None or not wait:
                    break
                sleep(min(_LONGEST_NAP_S, max(0.05, due.wait_s)))
                continue
            change = _Insisting(boxes, catalog, channel, sleep if wait else None).change
            change(lambda box: (alert_box.begun(box, now=now()), None))
            sent += _send(catalog, target, due, alerts, post=post, now=now, change=change)
    return sent


class _Insisting:
    """Changes a box. `sleep` None: it raises where that cannot be written; else it tries until it can."""

    def __init__(self, boxes: Boxes, catalog: str, channel: str, sleep: Callable[[float], None] | None) -> None:
        self._boxes, self._catalog, self._channel, self._sleep = boxes, catalog, channel, sleep

    def change(self, change: Callable[[Box], tuple[Box, _T]]) -> _T:
        """Change it."""
        while True:
            try:
                return self._boxes.change(self._catalog, self._channel, change)
            except _TROUBLE:
                if self._sleep is None:
                    raise
            self._sleep(_LONGEST_NAP_S)


def _send(
    catalog: str,
    channel: Channel,
    due: Due,
    alerts: Alerts,
    *,
    post: Post,
    now: Callable[[], datetime],
    change: Callable[[Callable[[Box], tuple[Box, Box]]], Box],
) -> int:
    """Send one message and write down what came of it; return 1 where it was taken, else 0."""
    if due.message is None:
        return 0
    begun = now()
    letter = Letter(_id(catalog, channel, due), channel.name, due.message, begun, begun)
    answer = post.send(channel, letter, within_s=_SENT_WITHIN_S)
    ended = now()

    def after(box: Box) -> tuple[Box, Box]:
        if answer.ok:
            box = alert_box.sent(box, due.numbers, alerts, now=ended)
        else:
            box = alert_box.failed(box, due.numbers, answer, now=ended)
        return box, box

    box = change(after)
    post.note(catalog, channel.name, answer, ended, waiting=len(box.waiting), dropped=box.dropped)
    return int(answer.ok)


@dataclass(frozen=True, slots=True)
class Round:
    """What came of going over the boxes: how many messages were taken, how many still wait, and what went wrong."""

    sent: int = 0
    waiting: int = 0
    problems: tuple[str, ...] = ()


def deliver_all(
    boxes: Boxes,
    *,
    post: Post,
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
    left: Callable[[], float],
) -> Round:
    """Send what is due in the boxes of every applied catalog, by that catalog's own channels. Raises nothing: where
    something is wrong with one of them, the others go on.

    `left`: how many seconds there are; with less than one nothing more is begun, and what waits is only counted.
    """
    sent, waiting, problems = 0, 0, list[str]()
    try:
        catalogs = boxes.catalogs()
    except _TROUBLE as error:
        return Round(problems=(str(error),))
    for catalog in catalogs:
        try:
            force = boxes.applied(catalog)
        except _TROUBLE as error:
            problems.append(f"catalog {catalog}: {error}")
            continue
        for channel in force.alerts.channels if force is not None else ():
            try:
                if boxes.box(catalog, channel).waiting:
                    sent += deliver(boxes, catalog, channel, post=post, now=now, sleep=sleep, wait=False, left=left)
            except Exception as error:  # noqa: BLE001 - one channel that breaks must not silence the others
                said = str(error) if isinstance(error, OrchctlError) else f"unexpected {type(error).__name__}: {error}"
                problems.append(f"channel {channel} of catalog {catalog}: {said}")
            with contextlib.suppress(*_TROUBLE):
                waiting += len(boxes.box(catalog, channel).waiting)
    return Round(sent, waiting, tuple(problems))


def _id(catalog: str, channel: Channel, due: Due) -> str:
    """Return what follows from what is sent: the same in every attempt, so that a receiver can tell."""
    said = due.message.to_json() if due.message is not None else None
    return uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([catalog, channel.name, due.numbers, said])).hex


def _snippet(manifest: Mapping[str, Any] | None) -> tuple[str, ...]:
    error = (manifest or {}).get("error")
    snippet = error.get("snippet") if isinstance(error, Mapping) else None
    return tuple(snippet.splitlines()) if isinstance(snippet, str) else ()


def _tail(tree: RunTree, run: Run) -> tuple[str, ...]:
    """Return the last lines of the last log of a run, whose secrets were masked when it was written."""
    logs = tree.logs_in(tree.directory_of(run))
    if not logs:
        return ()
    tail = tree.log_end(logs[-1], _LOG_MOST) or b""
    return tuple(tail.decode("utf-8", "backslashreplace").splitlines()[-20:])
