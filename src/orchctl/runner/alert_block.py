"""The block that Prefect's automations send through: it hears an event, and sees to it that people do.

Prefect's server loads it by the entry point `prefect.collections`. It holds two names; where a channel leads and which
secret opens it says this host's disk. The event is written down at once and sent from a thread of its own: a receiver
that is slow, or gone, holds up neither the server nor any other automation.
"""

from __future__ import annotations

import asyncio
import threading

from prefect.blocks.abstract import NotificationBlock, NotificationError
from pydantic import Field

from orchctl.errors import OrchctlError
from orchctl.wiring import alert_host

_threads: dict[tuple[str, str, bool], list[threading.Thread]] = {}
"""By catalog and channel, and whether what they send is written down."""
_guard = threading.Lock()


class AlertChannel(NotificationBlock):
    """A channel of orchctl's alerts.toml. The server's host knows where it leads."""

    _block_type_name = "orchctl alert channel"
    _block_type_slug = "orchctl-alert-channel"

    catalog: str = Field(description="The name of the catalog.")
    channel: str = Field(description="The name of the channel.")

    async def notify(self, body: str, subject: str | None = None) -> None:  # noqa: ARG002 - Prefect's signature
        """Take an event in. Raises NotificationError where nobody will ever hear of it."""
        try:
            said = await asyncio.to_thread(alert_host.hear, body, catalog=self.catalog, channel=self.channel)
        except (OrchctlError, ValueError, OSError) as error:
            raise NotificationError(f"not told: {error}") from error
        self.logger.debug("alert through %s: %s", self.channel, said)
        if said == alert_host.UNWRITTEN:
            self.logger.warning("an alert through %s could not be written down, and is sent all the same", self.channel)
        if said in {"queued", alert_host.UNWRITTEN}:
            _send_soon(self.catalog, self.channel, unwritten=said == alert_host.UNWRITTEN)


def _send_soon(catalog: str, channel: str, *, unwritten: bool = False) -> None:
    """See to it that somebody looks into the box from now on: one thread may be about to end, a second one is not."""
    with _guard:
        alive = [thread for thread in _threads.get((catalog, channel, unwritten), []) if thread.is_alive()]
        if len(alive) < 2:
            words = {"unwritten": unwritten}
            thread = threading.Thread(target=alert_host.deliver, args=(catalog, channel), kwargs=words, daemon=True)
            alive.append(thread)
            thread.start()
        _threads[catalog, channel, unwritten] = alive
