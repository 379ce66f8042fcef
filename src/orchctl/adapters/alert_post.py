"""Sends through channels, and writes down how each answered, for `alerts list` and `doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from orchctl.adapters import belief
from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.senders import Senders
from orchctl.core.alerts import Channel
from orchctl.core.deliveries import Answer, Letter


class AlertPost:
    """Both. `environment` holds the secrets that channels name by variable."""

    def __init__(self, state_dir: Path, environment: Mapping[str, str]) -> None:
        self._senders = Senders(environment, trust=belief.trusted(state_dir, None))
        self._deliveries = Deliveries(state_dir)

    def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer:
        """Send one letter; see `Senders.send`."""
        return self._senders.send(channel, letter, within_s=within_s)

    def note(
        self, catalog: str, channel: str, answer: Answer, at: datetime, *, waiting: int, dropped: int
    ) -> str | None:
        """Write down how a channel answered; see `Deliveries.note`."""
        return self._deliveries.note(catalog, channel, answer, at, waiting=waiting, dropped=dropped)
