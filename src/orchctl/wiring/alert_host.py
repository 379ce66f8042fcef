"""What the block in Prefect's server works with, put together: nothing of it comes from Prefect."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime
from pathlib import Path

from orchctl import wiring
from orchctl.adapters import host_facts
from orchctl.adapters.alert_boxes import AlertBoxes, UnwrittenBoxes
from orchctl.adapters.alert_post import AlertPost
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.core.mask import Masker
from orchctl.errors import OrchctlError
from orchctl.services import alert_delivery

UNWRITTEN = alert_delivery.UNWRITTEN
_unwritten: dict[Path, UnwrittenBoxes] = {}
"""What cannot be written down, as long as this process lives; by state directory."""
_news: dict[tuple[str, str, bool], threading.Event] = {}
"""Wakes who sends through a channel and waits; by catalog and channel, and whether what is sent is unwritten."""


def _now() -> datetime:
    return datetime.now(UTC)


def _state_dir() -> Path:
    return wiring.state_dir_of(wiring.environment())


def _spare(state: Path) -> UnwrittenBoxes:
    return _unwritten.setdefault(state, UnwrittenBoxes(AlertBoxes(state)))


def _news_of(catalog: str, channel: str, unwritten: bool) -> threading.Event:
    return _news.setdefault((catalog, channel, unwritten), threading.Event())


def hear(body: str, *, catalog: str, channel: str) -> str:
    """Take an event in; see `Ears.hear`."""
    state = _state_dir()
    ears = alert_delivery.Ears(
        boxes=AlertBoxes(state),
        spare=_spare(state),
        applied=AppliedCatalogs(state),
        owners=Owners(state),
        tree=Manifests,
        mask=Masker.of(wiring.environment(), hidden=AlertBoxes(state).variables()).mask,
        host=host_facts.here().hostname,
        now=_now,
    )
    said = ears.hear(body, catalog=catalog, channel=channel)
    _news_of(catalog, channel, said == UNWRITTEN).set()
    return said


def deliver(catalog: str, channel: str, *, unwritten: bool = False) -> None:
    """Send what is in the box of a channel, until it is empty; `unwritten`: in the one that is in memory.

    What goes wrong is tried again with the next event.
    """
    news = _news_of(catalog, channel, unwritten)

    def nap(seconds: float) -> None:
        news.wait(seconds)
        news.clear()

    with contextlib.suppress(OrchctlError, OSError):
        state = _state_dir()
        alert_delivery.deliver(
            _spare(state) if unwritten else AlertBoxes(state),
            catalog,
            channel,
            post=AlertPost(state, wiring.environment()),
            now=_now,
            sleep=nap,
            wait=True,
        )
