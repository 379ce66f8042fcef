"""Crontabs, as the crons of Debian and of cronie read them (crontab(5), and what they really do).

They differ: cronie knows CRON_TZ, RANDOM_DELAY and a leading `-`, allows an empty value and leaves `\\\\` alone; of
Debian's, `\\\\` in a command becomes `\\`, and one line that cannot be read makes it ignore the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from orchctl.core import cron_fields
from orchctl.core.cron_fields import Fields

Daemon = Literal["debian", "cronie"]
LONGEST_COMMAND = 998
"""Characters of a command that Debian's cron takes."""

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_BLANKS = " \t"
_SETTING = re.compile(
    r"""(?:"(?P<dname>[^"=]*)"|'(?P<sname>[^'=]*)'|(?P<name>[^\s='"][^\s=]*)?)\s*=\s*"""
    r"""(?:"(?P<dvalue>[^"]*)"\s*|'(?P<svalue>[^']*)'\s*|(?P<value>[^\s'"].*)?)\Z""",
    re.ASCII | re.DOTALL,
)
_MEANT_AS_SETTING = re.compile(r"[A-Za-z_]\w*\s*=", re.ASCII)


@dataclass(frozen=True, slots=True)
class CronLine:
    """One line that starts something. `schedule` is five fields that every reader of cron lines reads as cron does,
    `fields` what they match; both are None for @reboot. `user` is None in a user's own crontab. `command` is what
    the shell gets, `stdin` what it reads (after the first bare `%`), None for nothing.
    """

    schedule: str | None
    user: str | None
    command: str
    stdin: str | None = None
    fields: Fields | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that starts something, as it stands (`line`, without its newline; `number` counts from 1).

    `variables` are the settings in force at it: a later one counts from there on.
    """

    number: int
    line: str
    what: CronLine
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unread:
    """A line that is neither comment nor setting, and starts nothing that can be said; `reason` is why."""

    number: int
    line: str
    reason: str


@dataclass(frozen=True, slots=True)
class Crontab:
    """A whole crontab."""

    entries: tuple[Entry, ...] = ()
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True, slots=True)
class CronEntry:
    """A line of a crontab of this host. `user` is who it runs as; `file` is None for that user's own crontab.

    `line` is the exact line and `number` its place, as in `entry`. `ignored` says why cron runs nothing of the whole
    file that it stands in, None where it does. `cronie`: which cron reads it.
    """

    user: str
    file: str | None
    line: str
    number: int
    entry: Entry
    ignored: str | None = None
    cronie: bool = False

    @property
    def place(self) -> str:
        """`line 4 of /etc/crontab`."""
        return f"line {self.number} of {place(self.user, self.file)}"


def place(user: str, file: str | None) -> str:
    """Return what a crontab is called."""
    return file or f"the crontab of {user}"


def parse(text: str, *, with_user: bool, daemon: Daemon = "debian") -> Crontab:
    """Read a whole crontab; `with_user`: of the form of /etc/crontab and /etc/cron.d, which names a user in each
    line. What cannot be read is in `unread`, never an exception.
    """
    entries: list[Entry] = []
    unread: list[Unread] = []
    variables: Mapping[str, str] = MappingProxyType({})
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        bare = line.lstrip(_BLANKS)
        if not bare or bare.startswith("#"):
            continue
        try:
            if number == len(lines):
                raise ValueError("the file ends without a newline after it: cron ignores it")
            _check_text(line)
            setting = _setting(bare, daemon)
            if setting is not None:
                variables = MappingProxyType({**variables, **dict([setting])})
            else:
                what = read_line(line, with_user=with_user, daemon=daemon)
                entries.append(Entry(number, line, what, variables))
        except ValueError as error:
            unread.append(Unread(number, line, str(error)))
    return Crontab(tuple(entries), tuple(unread))


def read_line(line: str, *, with_user: bool, daemon: Daemon | None = None) -> CronLine:
    """Read one line that starts something; `with_user` for those of /etc/crontab and /etc/cron.d.

    `daemon` None: whatever one of them takes; a command is then read as Debian's does. Raises ValueError with the
    reason.
    """
    text = line.lstrip(_BLANKS)
    if text.startswith("-") and daemon != "debian":
        # cronie does not log such a line.
        text = text[1:]
    count = 1 if text.startswith("@") else 5
    words = re.split(f"[{_BLANKS}]+", text, maxsplit=count + with_user)
    when = words[:count]
    if count == 5 and len(words) <= 5:
        raise ValueError("not five fields of time and a command")
    schedule, fields = _schedule(when)
    if len(words) <= count + with_user or not words[-1].strip(_BLANKS):
        raise ValueError("it names no user and command" if with_user else "it has no command")
    rest = words[-1]
    if daemon == "cronie" and (option := re.match(f"-n[{_BLANKS}]+", rest)):
        rest = rest[option.end() :]
    if daemon == "debian" and len(rest) > LONGEST_COMMAND:
        raise ValueError(f"its command is longer than {LONGEST_COMMAND} characters, which Debian's cron refuses")
    command, given = _percent(rest, daemon)
    if not command.strip(_BLANKS):
        raise ValueError("it has no command")
    return CronLine(schedule, words[count] if with_user else None, command, _stdin(given), fields)


def looks_like_system(text: str, users: Collection[str]) -> bool:
    """Whether a crontab of unknown origin has the form of /etc/crontab: each of its lines names one of `users`,
    and something after it.
    """
    found = parse(text, with_user=True, daemon="cronie")
    users_named = [entry.what.user for entry in found.entries]
    return bool(users_named) and all(user in users for user in users_named)


def _check_text(line: str) -> None:
    if line.endswith("\r"):
        raise ValueError("it ends in a carriage return (the file comes from Windows), which cron takes as part of it")
    if any("\ud800" <= char <= "\udfff" or char == "\x00" for char in line):
        raise ValueError("it is not UTF-8 text")


def _schedule(words: list[str]) -> tuple[str | None, Fields | None]:
    if words[0] == "@reboot":
        return None, None
    if words[0].startswith("@"):
        if words[0] not in _MACROS:
            raise ValueError(
                f"{words[0]} is none of cron's words ({', '.join([*_MACROS, '@reboot'])}, in small letters)"
            )
        words = _MACROS[words[0]].split()
    fields = cron_fields.read(words)
    return cron_fields.plain(words), fields


def _setting(text: str, daemon: Daemon) -> tuple[str, str] | None:
    """Return the name and value of a setting, None where the line is none. Raises ValueError for a broken one."""
    match = _SETTING.match(text)
    empty = match is not None and match["dvalue"] is None and match["svalue"] is None and match["value"] is None
    if match is None or (empty and daemon == "debian"):
        if _MEANT_AS_SETTING.match(text):
            more = (
                "quotes that do not close, or text after them" if match is None else 'an empty value needs quotes ("")'
            )
            raise ValueError(f"cron cannot read this setting: {more}")
        return None
    name = next((found for key in ("dname", "sname", "name") if (found := match[key]) is not None), "")
    quoted = match["dvalue"] if match["dvalue"] is not None else match["svalue"]
    return name, quoted if quoted is not None else (match["value"] or "").rstrip()


def _percent(text: str, daemon: Daemon | None) -> tuple[str, str]:
    """Return the command, and what follows its first bare `%`."""
    unescaped = "%" if daemon == "cronie" else "%\\"
    command = ""
    at = 0
    while at < len(text):
        if text[at] == "%":
            return command, text[at + 1 :]
        if text[at] == "\\" and at + 1 < len(text):
            command += text[at + 1] if text[at + 1] in unescaped else text[at : at + 2]
            at += 2
        else:
            command += text[at]
            at += 1
    return command, ""


def _stdin(given: str) -> str | None:
    """Return what cron writes to the command, as its own loop does: `\\%` is a percent sign, `%` a new line."""
    if not given:
        return None
    written = ""
    escaped, open_line = False, False
    for char in given:
        if escaped and char != "%":
            written += "\\"
        found = "\n" if char == "%" and not escaped else char
        escaped = found == "\\"
        if not escaped:
            written += found
            open_line = found != "\n"
    return written + ("\\" if escaped else "") + ("\n" if open_line else "")
