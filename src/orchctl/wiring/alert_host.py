"""What the block in Prefect's server works with, put together: nothing of it comes from Prefect."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path

from orchctl import wiring
from orchctl.adapters import host_facts
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.adapters.alert_post import AlertPost
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.core.mask import Masker
from orchctl.errors import OrchctlError
from orchctl.services import alert_delivery


def _now() -> datetime:
    return datetime.now(UTC)


def _state_dir() -> Path:
    return wiring.state_dir_of(wiring.environment())


def hear(body: str, *, catalog: str, channel: str) -> str:
    """Take an event in; see `Ears.hear`."""
    state = _state_dir()
    ears = alert_delivery.Ears(
        boxes=AlertBoxes(state),
        applied=AppliedCatalogs(state),
        owners=Owners(state),
        tree=Manifests,
        mask=Masker.of(wiring.environment()).mask,
        host=host_facts.here().hostname,
        now=_now,
    )
    return ears.hear(body, catalog=catalog, channel=channel)


def deliver(catalog: str, channel: str) -> None:
    """Send what is in the box of a channel, until it is empty. What goes wrong is tried again with the next event."""
    with contextlib.suppress(OrchctlError, OSError):
        state = _state_dir()
        alert_delivery.deliver(
            AlertBoxes(state),
            catalog,
            channel,
            post=AlertPost(state, wiring.environment()),
            now=_now,
            sleep=time.sleep,
            wait=True,
        )
