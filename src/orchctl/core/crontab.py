"""Crontabs, as crontab(5) of Debian's cron and cronie have them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class CronLine:
    """One line that starts something. `schedule` is five fields, None for @reboot; `user` is None in a user's own
    crontab. `command` is what the shell gets, `stdin` what it reads (after the first bare `%`), None for nothing.
    """

    schedule: str | None
    user: str | None
    command: str
    stdin: str | None = None


def read_line(line: str, *, with_user: bool) -> CronLine:
    """Read one line; `with_user` for /etc/crontab and /etc/cron.d. Raises ValueError with the reason."""
    text = line.strip()
    fields = 1 if text.startswith("@") else 5
    words = text.split(None, fields + with_user)
    if len(words) <= fields + with_user:
        raise ValueError("not a line of a crontab that starts something")
    schedule = _MACROS.get(words[0].lower(), words[0]) if fields == 1 else " ".join(words[:5])
    command, *rest = re.split(r"(?<!\\)%", words[-1])
    stdin = "\n".join(rest).replace(r"\%", "%") if rest else None
    return CronLine(
        None if schedule == "@reboot" else schedule,
        words[fields] if with_user else None,
        command.replace(r"\%", "%"),
        stdin,
    )
