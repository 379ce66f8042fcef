"""What `alerts.toml` means, and what an alert says: channels, routes, messages. Pure, and without pydantic.

A channel names where its secrets are (a variable of the environment, or a file), never what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

from orchctl.core.names import format_instant, parse_instant, visible

Event = Literal[
    "failed",
    "crashed",
    "timed_out",
    "late",
    "recovered",
    "worker_gone",
    "handover_unfinished",
    "server_gone",
    "nothing_scheduled",
    "missed_slots",
    "disk_full",
    "backups_old",
    "catalog_invalid",
]
EVENTS: tuple[Event, ...] = get_args(Event)
FAILURES: tuple[Event, ...] = ("failed", "crashed", "timed_out", "late")
"""What begins a job's trouble; a run that succeeds ends it."""
BY_PREFECT: tuple[Event, ...] = (*FAILURES, "recovered", "worker_gone")
"""What the automations in Prefect tell."""
BY_WATCHDOG: tuple[Event, ...] = (
    "worker_gone",
    "handover_unfinished",
    "server_gone",
    "nothing_scheduled",
    "missed_slots",
    "disk_full",
    "backups_old",
    "catalog_invalid",
    "recovered",
)
"""What `orchctl watchdog` tells: all that a server which is gone cannot, and the end of it."""

Kind = Literal["slack", "webhook", "email"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Security = Literal["starttls", "tls", "none"]

_WORDS: Mapping[Event | Literal["test"], str] = {
    "test": "this is a test, and it arrived",
    "failed": "failed",
    "crashed": "crashed",
    "timed_out": "timed out",
    "late": "is late",
    "recovered": "recovered",
    "worker_gone": "no worker asks for runs",
    "handover_unfinished": "handover unfinished",
    "server_gone": "the Prefect server does not answer",
    "nothing_scheduled": "has nothing scheduled ahead",
    "missed_slots": "missed slots",
    "disk_full": "the disk is nearly full",
    "backups_old": "the last good backup is too old",
    "catalog_invalid": "the catalog is invalid",
}

SUBJECT_MOST = 200
"""Characters of a subject: a line of mail holds 998 bytes."""
TEXT_MOST = 3500
"""Characters of a text: Slack cuts a message at 4000."""
_LINES_MOST = 20
_LINE_MOST = 300


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is: exactly one of a variable of the environment, and a file that holds nothing else."""

    env: str | None = None
    file: str | None = None

    @property
    def shown(self) -> str:
        """`$SLACK_URL`, or the file's path: what may be shown of it."""
        return f"${self.env}" if self.env is not None else str(self.file)

    def to_json(self) -> dict[str, str]:
        """Return it as `from_json` reads it."""
        return {"env": self.env} if self.env is not None else {"file": str(self.file)}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Secret:
        """Read it."""
        return cls(env=data.get("env"), file=data.get("file"))


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to people.

    `url` is that of a slack or webhook channel, and None for email, which has the fields from `host` on. `sender`
    and `to` are addresses. `username` None: no login. `ca_file`: who is trusted beside the system's authorities, None:
    nobody. `timeout` is seconds for one attempt.
    """

    name: str
    kind: Kind
    url: Secret | None = None
    host: str = ""
    port: int = 587
    security: Security = "starttls"
    sender: str = ""
    to: tuple[str, ...] = ()
    username: str | None = None
    password: Secret | None = None
    ca_file: str | None = None
    timeout: int = 10

    @property
    def shown(self) -> str:
        """Where it leads, without anything secret."""
        if self.kind == "email":
            return f"{', '.join(self.to)} by {self.host}:{self.port} ({self.security})"
        return self.url.shown if self.url is not None else "-"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets it needs."""
        return tuple(secret for secret in (self.url, self.password) if secret is not None)

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it: no secret is in it, only where each is."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind, "timeout": self.timeout}
        if self.url is not None:
            data["url"] = self.url.to_json()
        if self.kind == "email":
            data |= {"host": self.host, "port": self.port, "security": self.security}
            data |= {"sender": self.sender, "to": list(self.to), "username": self.username}
            data["password"] = self.password.to_json() if self.password is not None else None
        return data | ({"ca_file": self.ca_file} if self.ca_file is not None else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Channel:
        """Read it. Raises KeyError, TypeError or ValueError on anything else."""
        kind = data["kind"]
        if kind not in KINDS:
            raise ValueError(f"there is no kind of channel {kind!r:.40}")
        plain: dict[str, Any] = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        for key in ("url", "password"):
            plain[key] = Secret.from_json(data[key]) if data.get(key) else None
        return cls(**{**plain, "to": tuple(data.get("to", ()))})


@dataclass(frozen=True, slots=True)
class Route:
    """Which events go to which channels.

    `jobs` and `tags` narrow the events of jobs: a job that is named, or carries one of the tags; both empty: every
    job. Events of the host (`server_gone` and the like) are not narrowed.
    """

    name: str
    events: tuple[Event, ...]
    channels: tuple[str, ...]
    jobs: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def takes(self, event: Event, *, job: str | None, tags: tuple[str, ...] = ()) -> bool:
        """Whether an event goes this way. `job` None: it is the host's; `tags`: those of the job."""
        if event not in self.events:
            return False
        everything = job is None or not (self.jobs or self.tags)
        return everything or job in self.jobs or not set(self.tags).isdisjoint(tags)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """What `orchctl watchdog` looks at. Durations are seconds.

    `dead_man` is pinged after each look at which all was well, None: nothing is. `min_free_percent`: less space free
    than this, where state or data lie, is `disk_full`. `worker_after`, `server_after`, `handover_after`: how long a
    worker, the server or a handover may stay away before it is told. `missed_after`: how long after it fell due a
    slot counts as missed, beyond the job's own `catchup_window`.
    """

    dead_man: Secret | None = None
    min_free_percent: int = 10
    worker_after: int = 180
    server_after: int = 60
    handover_after: int = 900
    missed_after: int = 300


@dataclass(frozen=True, slots=True)
class Alerts:
    """The whole of `alerts.toml`, resolved. Durations are seconds.

    `late_after`: how long a run that Prefect calls Late may stay so before it is told. `repeat_after`: the same
    trouble of the same job is told again after this. `burst`: so many messages go to a channel one by one within
    `burst_within`; more are held together and sent as one.
    """

    channels: Mapping[str, Channel] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    watchdog: Watchdog = Watchdog()
    late_after: int = 120
    repeat_after: int = 6 * 3600
    burst: int = 5
    burst_within: int = 60

    @property
    def variables(self) -> frozenset[str]:
        """The variables of the environment that secrets are in."""
        secrets = [secret for channel in self.channels.values() for secret in channel.secrets]
        return frozenset(each.env for each in [*secrets, self.watchdog.dead_man] if each is not None and each.env)

    def ways(self, event: Event, *, job: str | None = None, tags: tuple[str, ...] = ()) -> tuple[Channel, ...]:
        """Return the channels that an event goes to, each once, by name."""
        names = {
            channel for route in self.routes if route.takes(event, job=job, tags=tags) for channel in route.channels
        }
        return tuple(self.channels[name] for name in sorted(names))


@dataclass(frozen=True, slots=True)
class Message:
    """One alert. None: not known, or there is none. Instants are UTC.

    `about` is what an event of the host is about (`work pool projections-local`, a path); None for one of a job.
    `last_lines` are the end of the run's output; `command` is what to type to look further; `count` is how many
    events it stands for, `held` the first lines of those that were held together.
    """

    event: Event | Literal["test"]
    at: datetime
    host: str
    job: str | None = None
    about: str | None = None
    slot: datetime | None = None
    run_id: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    last_lines: tuple[str, ...] = ()
    ui_url: str | None = None
    command: str | None = None
    count: int = 1
    held: tuple[str, ...] = ()

    @property
    def trouble(self) -> str:
        """What is in trouble: failures of one job are one trouble, which its recovery ends."""
        return f"job {self.job}" if self.job is not None else self.about or self.event

    @property
    def subject(self) -> str:
        """One line, at most `SUBJECT_MOST` characters."""
        if self.held:
            return _line(f"[orchctl] {self.count} alerts on {self.host}", SUBJECT_MOST)
        what = self.job or self.about
        words = _WORDS[self.event]
        more = f" ({self.count} times)" if self.count > 1 else ""
        said = f"{what} {words}" if self.job is not None or self.event == "recovered" else words
        about = f" ({self.about})" if self.job is None and self.about and self.event != "recovered" else ""
        return _line(f"[orchctl] {said}{about}{more} on {self.host}", SUBJECT_MOST)

    @property
    def text(self) -> str:
        """The whole message as plain text, at most `TEXT_MOST` characters; its last lines give way first."""
        head = "\n".join(_line(line, 2 * _LINE_MOST) for line in self._head())
        foot = "\n".join(_line(line, 2 * _LINE_MOST) for line in self._foot())
        body = [_line(line, _LINE_MOST) for line in (self.held or self.last_lines)]
        body = body[:_LINES_MOST] if self.held else body[-_LINES_MOST:]
        room = TEXT_MOST - len(head) - len(foot) - 30
        while body and sum(len(line) + 5 for line in body) > room:
            body = body[:-1] if self.held else body[1:]
        if not body:
            return f"{head}\n{foot}"[:TEXT_MOST]
        title = [] if self.held else ["last lines:"]
        return "\n".join((head, *title, *(f"    {line}" for line in body), foot))

    def masked(self, mask: Callable[[str], str]) -> Message:
        """Return it with `mask` applied to all that came from outside."""

        def of(text: str | None) -> str | None:
            return mask(text) if text is not None else None

        return replace(
            self,
            about=of(self.about),
            reason=of(self.reason),
            last_lines=tuple(mask(line) for line in self.last_lines),
            held=tuple(mask(line) for line in self.held),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` reads it, and as a generic webhook gets it beside `subject` and `text`."""
        return {
            "event": self.event,
            "at": format_instant(self.at),
            "host": self.host,
            "job": self.job,
            "about": self.about,
            "slot": format_instant(self.slot) if self.slot is not None else None,
            "run_id": self.run_id,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "last_lines": list(self.last_lines),
            "ui_url": self.ui_url,
            "command": self.command,
            "count": self.count,
            "held": list(self.held),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        """Read it. Raises KeyError, TypeError or ValueError on anything else."""
        if data["event"] not in EVENTS:
            raise ValueError(f"there is no event {data['event']!r:.40}")
        plain = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        return cls(
            **{
                **plain,
                "at": parse_instant(data["at"]),
                "slot": parse_instant(data["slot"]) if data.get("slot") else None,
                "last_lines": tuple(data.get("last_lines", ())),
                "held": tuple(data.get("held", ())),
            }
        )

    def _head(self) -> list[str]:
        if self.held:
            return [self.subject.removeprefix("[orchctl] ")]
        facts = [
            ("slot", format_instant(self.slot) if self.slot is not None else None),
            ("run", self.run_id),
            ("exit code", str(self.exit_code) if self.exit_code is not None else None),
            ("reason", self.reason),
        ]
        lines = [self.subject.removeprefix("[orchctl] ")]
        return lines + [f"{name}: {value}" for name, value in facts if value is not None]

    def _foot(self) -> list[str]:
        facts = [("in the UI", self.ui_url), ("look further", self.command), ("at", format_instant(self.at))]
        return [f"{name}: {value}" for name, value in facts if value is not None]


def words(event: Event) -> str:
    """Return what has happened, as a subject says it."""
    return _WORDS[event]


def held_together(messages: tuple[Message, ...]) -> Message:
    """Return one message that stands for all of `messages`, which are at least one, oldest first."""
    last = messages[-1]
    return Message(
        last.event,
        last.at,
        last.host,
        ui_url=last.ui_url,
        command="orchctl runs --status failed",
        count=sum(message.count for message in messages),
        held=tuple(message.subject.removeprefix("[orchctl] ") for message in messages),
    )


def _line(text: str, most: int) -> str:
    """Return `text` as one line that no terminal and no header of a mail would obey."""
    line = visible(" ".join(text.split()) if "\n" in text or "\r" in text else text)
    return line if len(line) <= most else line[: most - 1] + "…"
