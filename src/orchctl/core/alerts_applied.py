"""What `alerts apply` put in force on this host: what the block in Prefect's server goes by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchctl.core.alerts import Alerts, Channel, Route, Secret, Watchdog

VERSION = 1


@dataclass(frozen=True, slots=True)
class AppliedAlerts:
    """The alerts of one catalog. `ui_url` is the address of Prefect's UI; no secret is in it, only where each is.

    Of what the watchdog goes by it holds where the dead-man address is: that, too, is kept from commands.
    """

    catalog: str
    ui_url: str
    alerts: Alerts

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it."""
        alerts = self.alerts
        return {
            "version": VERSION,
            "catalog": self.catalog,
            "ui_url": self.ui_url,
            "late_after": alerts.late_after,
            "repeat_after": alerts.repeat_after,
            "burst": alerts.burst,
            "burst_within": alerts.burst_within,
            "dead_man": alerts.watchdog.dead_man.to_json() if alerts.watchdog.dead_man is not None else None,
            "channels": {name: channel.to_json() for name, channel in alerts.channels.items()},
            "routes": [asdict(route) for route in alerts.routes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AppliedAlerts:
        """Read it. Raises KeyError, TypeError, AttributeError or ValueError on anything else."""
        if data["version"] != VERSION:
            raise ValueError(f"it is of version {data['version']!r:.20}")
        settings: dict[str, Any] = {
            key: int(data[key]) for key in ("late_after", "repeat_after", "burst", "burst_within")
        }
        routes = tuple(
            Route(
                name=str(route["name"]),
                events=tuple(route["events"]),
                channels=tuple(route["channels"]),
                jobs=tuple(route["jobs"]),
                tags=tuple(route["tags"]),
            )
            for route in data["routes"]
        )
        channels = {name: Channel.from_json(each) for name, each in data["channels"].items()}
        dead_man = Secret.from_json(data["dead_man"]) if data.get("dead_man") else None
        alerts = Alerts(channels, routes, Watchdog(dead_man), **settings)
        return cls(str(data["catalog"]), str(data["ui_url"]), alerts)
