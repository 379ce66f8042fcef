"""What `doctor` thinks of alerts: what is in force, what arrived, what waits, what was lost, and who looks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchctl.core.doctor import Finding, failure, or_ok, warning
from orchctl.core.doctor_facts import Sampled
from orchctl.core.words import counted, several

if TYPE_CHECKING:
    from orchctl.core.alerts import Alerts
    from orchctl.core.deliveries import Delivery

_CHECK = "alerts"
WATCHED_WITHIN = timedelta(minutes=10)
"""The watchdog looks every minute."""
WAITS_FOR = timedelta(minutes=20)
"""Messages are held together for seconds, and one that was not taken is tried again within a quarter of an hour."""
GIVEN_UP_WITHIN = timedelta(days=1)
"""What the server gave up earlier is over."""


@dataclass(frozen=True, slots=True)
class InPrefect:
    """Whether Prefect and this host have what alerts.toml says, and which automations of it somebody switched off."""

    applied: bool
    switched_off: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """When the watchdog looked last (UTC), None: never. `blind`: what it could not look at for too long, since when."""

    looked: datetime | None
    blind: Mapping[str, datetime]


def in_prefect(found: InPrefect) -> Iterator[Finding]:
    """Yield where Prefect tells other things than alerts.toml says, or less."""
    if not found.applied:
        yield warning(_CHECK, "alerts.toml is not what is in force", "`orchctl alerts apply`")
    if found.switched_off:
        names = several([f"`{name}`" for name in found.switched_off])
        many = len(found.switched_off) > 1
        seen = f"{'automations' if many else 'automation'} {names} {'are' if many else 'is'} switched off in Prefect"
        fix = "switch it on in Prefect (Automations), or take its route out of alerts.toml"
        yield warning(_CHECK, f"{seen}: what it would tell nobody is told", fix)


def given_up(found: Sampled, *, now: datetime) -> Iterator[Finding]:
    """Tell of what Prefect's server gave up lately, `found` being its dead letter queue: a file for each event."""
    lately = [each for each in found.files if not each.is_folder and each.changed > now - GIVEN_UP_WITHIN]
    if lately:
        newest = max(each.changed for each in lately)
        least = "" if found.whole else "at least "
        seen = f"Prefect gave up {least}{counted(len(lately), 'event')} in the last day, the last at {newest:%H:%M}Z"
        fix = "alerts of them are lost: `orchctl runs --status failed` has the runs; docs/alerts.md says how it comes"
        yield warning(_CHECK, f"{seen} ({found.root})", fix)


def alerts(found: Alerts | None, last: Iterable[Delivery], *, watched: Watched, now: datetime) -> Iterator[Finding]:
    """Judge alerts: what alerts.toml says, None where there is none, and what came of each channel's last message."""
    if found is None or not (found.channels and found.routes):
        seen = "no alerts are set up: when a job fails nobody is told"
        yield warning(_CHECK, seen, "write config/alerts.toml, then `orchctl alerts apply`")
        return
    by_channel = {each.channel: each for each in last if each.channel in found.channels}

    def wrong() -> Iterator[Finding]:
        for name in found.channels:
            yield from _channel(name, by_channel.get(name), now)
        yield from _watchdog(watched, now)

    newest = max((each.at for each in by_channel.values()), default=None)
    arrived = f"; the last message arrived at {newest:%Y-%m-%d %H:%M}Z" if newest else ""
    yield from or_ok(wrong(), _CHECK, f"{several(list(found.channels))}{arrived}")


def _channel(name: str, last: Delivery | None, now: datetime) -> Iterator[Finding]:
    test = f"`orchctl alerts test {name}`"
    if last is None:
        yield warning(_CHECK, f"nothing was ever sent through {name}", test)
        return
    if not last.ok:
        waits = f"; {last.waiting} wait" if last.waiting else ""
        seen = f"the last message through {name} ({last.at:%Y-%m-%d %H:%M}Z) did not arrive: {last.said}{waits}"
        yield failure(_CHECK, seen, f"put it right, then {test}")
    elif last.waiting and now - last.at > WAITS_FOR:
        waits = f"{counted(last.waiting, 'message')} wait{'s' if last.waiting == 1 else ''}"
        seen = f"{waits} for {name}, and nothing was sent through it since {last.at:%Y-%m-%d %H:%M}Z"
        yield warning(_CHECK, seen, "server and watchdog send: `orchctl host status`, `orchctl watchdog status`")
    if last.dropped:
        lost = f"{counted(last.dropped, 'alert')} {'was' if last.dropped == 1 else 'were'}"
        fix = "`orchctl runs --status failed` has the runs; its box in state/alerts/boxes counts, until it is removed"
        yield warning(_CHECK, f"{lost} given up that should have gone through {name}", fix)


def _watchdog(found: Watched, now: datetime) -> Iterator[Finding]:
    if found.looked is None:
        seen = "no watchdog looks: that the server is gone, or a slot was missed, nobody is told"
        yield warning(_CHECK, seen, "`orchctl watchdog install`")
        return
    if now - found.looked > WATCHED_WITHIN:
        seen = f"the watchdog looked last at {found.looked:%Y-%m-%d %H:%M}Z"
        yield failure(_CHECK, seen, "`orchctl watchdog status`; `orchctl watchdog install` puts it back")
        return
    for what, since in found.blind.items():
        seen = f"the watchdog cannot look at `{what}` since {since:%Y-%m-%d %H:%M}Z: of that it tells nobody anything"
        yield warning(_CHECK, seen, "`orchctl watchdog --dry-run` says why")
