"""From an event to people: what is known of it, whether it is told, and the sending."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from orchctl.core import alert_box, alert_heard
from orchctl.core.alert_box import Box, Due
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
_SENT_WITHIN_S = 30.0


class Boxes(Protocol):
    """The boxes of the channels. See `adapters/alert_boxes.py`."""

    def applied(self, catalog: str) -> AppliedAlerts | None: ...  # noqa: D102
    def box(self, catalog: str, channel: str) -> Box: ...  # noqa: D102
    def change(self, catalog: str, channel: str, change: Callable[[Box], tuple[Box, _T]]) -> _T: ...  # noqa: D102
    def sending(self, catalog: str, channel: str, *, wait: bool) -> AbstractContextManager[bool]: ...  # noqa: D102
    def watchdog_looked(self) -> datetime | None: ...  # noqa: D102


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
        self, catalog: str, channel: str, answer: Answer, at: datetime, *, waiting: int
    ) -> str | None: ...


class Ears:
    """What hears an event of Prefect on this host."""

    def __init__(
        self,
        *,
        boxes: Boxes,
        applied: Applied,
        owners: Owners,
        tree: Callable[[str], RunTree],
        mask: Callable[[str], str],
        host: str,
        now: Callable[[], datetime],
    ) -> None:
        self._boxes, self._applied, self._owners, self._tree = boxes, applied, owners, tree
        self._mask, self._host, self._now = mask, host, now

    def hear(self, body: str, *, catalog: str, channel: str) -> str:
        """Take an event in; return what became of it: `queued`, or why it is not told.

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
        if found is not None and found.name != catalog:
            return "it is of another catalog"
        known = self._known(heard, found)
        event = alert_heard.event_of(heard, known)
        reason = alert_heard.why_not(heard, known)
        if event is None or reason is not None:
            return reason or "it is no event of ours"
        if not route.takes(event, job=heard.job if heard.pool is None else None, tags=known.tags):
            return "the route does not take it"
        message = alert_heard.message(heard, known, event, host=self._host, ui_url=force.ui_url).masked(self._mask)
        return tell(self._boxes, catalog, channel, message, force.alerts, now=self._now())

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
) -> int:
    """Send what is in the box of a channel; return how many messages were taken.

    `wait`: until the box is empty, also for what is to be sent later; else only what is due now, and nothing where
    somebody else is sending.
    """
    sent = 0
    with boxes.sending(catalog, channel, wait=wait) as mine:
        while mine:
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
            sent += _send(boxes, catalog, target, due, alerts, post=post, now=now)
    return sent


def _send(
    boxes: Boxes,
    catalog: str,
    channel: Channel,
    due: Due,
    alerts: Alerts,
    *,
    post: Post,
    now: Callable[[], datetime],
) -> int:
    """Send one message and write down what came of it; return 1 where it was taken, else 0."""
    if due.message is None:
        return 0
    begun = now()
    letter = Letter(_id(catalog, channel, due), channel.name, due.message, begun, begun)
    answer = post.send(channel, letter, within_s=_SENT_WITHIN_S)
    ended = now()

    def after(box: Box) -> tuple[Box, int]:
        if answer.ok:
            box = alert_box.sent(box, due.numbers, alerts, now=ended)
        else:
            box = alert_box.failed(box, answer.said, now=ended)
        return box, len(box.waiting)

    waiting = boxes.change(catalog, channel.name, after)
    post.note(catalog, channel.name, answer, ended, waiting=waiting)
    return int(answer.ok)


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
