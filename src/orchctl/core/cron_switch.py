"""Crontab lines switched off and on again: edits of a crontab's text, every other byte of which stays. Pure.

A line is switched off by commenting it out behind a mark that names the job, or, where the operator asks for that, by
a test in front of its command: it runs only while the job has no owner file. Either form is made from the line alone:
who puts it back needs to remember nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchctl.core import crontab
from orchctl.core.crontab import Daemon
from orchctl.core.mask import Masker
from orchctl.core.names import visible

# What needs quoting neither in a shell nor in a crontab, where % and \ mean something even inside quotes.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@:+,=-]*\Z")
# The times, the user, and cronie's -n, as core.crontab.read_line takes them off.
_WHEN = r"[ \t]*-?(?:@[^ \t]+|(?:[^ \t]+[ \t]+){4}[^ \t]+)[ \t]+"
_USER, _QUIET = r"[^ \t]+[ \t]+", r"(?:-n[ \t]+)?"
_MARK = re.compile(r"#orchctl ([a-z0-9][a-z0-9_-]{0,62}): ")
_PUT_BACK = "# put back by orchctl: its place was gone"


@dataclass(frozen=True, slots=True)
class Switch:
    """A line as it stands while legacy owns the job (`on`), and while Prefect does (`off`)."""

    on: str
    off: str


def commented(job: str, line: str) -> str:
    """Return a line commented out for a job."""
    return f"#orchctl {job}: {line}"


def fenced(line: str, owner_file: str, *, with_user: bool, daemon: Daemon) -> str:
    """Return a line whose command runs only while `owner_file` does not exist.

    `with_user`: it stands in a file of the form of /etc/crontab. Raises ValueError where it cannot be made so.
    """
    if not _PLAIN_PATH.match(owner_file):
        raise ValueError(f"the path {owner_file} holds characters that mean something in a crontab")
    head = re.match(_WHEN + (_USER if with_user else "") + (_QUIET if daemon == "cronie" else ""), line)
    if head is None:
        raise ValueError("it is no line that starts something")
    test = f"test -e {owner_file} && exit 0; "
    made = line[: head.end()] + test + line[head.end() :]
    before = crontab.read_line(line, with_user=with_user, daemon=daemon)
    after = crontab.read_line(made, with_user=with_user, daemon=daemon)
    if after.command != test + before.command or (after.user, after.stdin) != (before.user, before.stdin):
        raise ValueError("a test in front of its command would change what it does")
    return made


def is_off(text: str, switches: Sequence[Switch]) -> bool:
    """Whether none of the lines stands as it did; one that somebody took out altogether starts nothing either."""
    lines = text.split("\n")
    return not any(each.on in lines for each in switches)


def is_back(text: str, switches: Sequence[Switch], *, with_user: bool, daemon: Daemon) -> bool:
    """Whether each line stands as it did, and none of ours is left.

    A line that somebody has meanwhile put there in another form, at other times, counts as that line.
    """
    lines = text.split("\n")
    return all(
        each.off not in lines and (each.on in lines or _in_another_form(text, each.on, with_user, daemon))
        for each in switches
    )


def why_not(text: str, switches: Sequence[Switch], *, with_user: bool, daemon: Daemon) -> tuple[str, ...]:
    """Say what is in the way of switching the lines off, one sentence for each."""
    lines = text.split("\n")
    found = crontab.parse(text, with_user=with_user, daemon=daemon)
    runs = {entry.line for entry in found.entries}
    unread = {each.line: each.reason for each in found.unread}
    said = []
    for each in switches:
        count = lines.count(each.on)
        marks = [mark[1] for line in lines if (mark := _MARK.match(line)) and line[mark.end() :] == each.on]
        if marks:
            said.append(f"the line {_shown(each.on)} stands commented out by orchctl for {marks[0]}")
        elif each.off in lines:
            said.append(f"the line {_shown(each.on)} stands there already with a test of the owner file")
        elif count != 1:
            times = "not found" if count == 0 else f"found {count} times, and must stand there exactly once"
            said.append(f"the line {_shown(each.on)} is {times}")
        elif each.on not in runs:
            said.append(f"the line {_shown(each.on)} is none that cron runs: {unread.get(each.on, 'it is a comment')}")
    return tuple(said)


def turn_off(text: str, switches: Sequence[Switch]) -> str:
    """Return the crontab with the lines switched off. Those that are off already stay so.

    Raises ValueError where a line does not stand there exactly once.
    """
    lines = text.split("\n")
    for each in switches:
        count = lines.count(each.on)
        if count == 0 and each.off in lines:
            continue
        if count != 1:
            raise ValueError(f"the line {_shown(each.on)} stands there {count} times, not once")
        if each.off in lines:
            raise ValueError(f"the line {_shown(each.on)} stands there again, beside the one that was switched off")
        lines[lines.index(each.on)] = each.off
    return "\n".join(lines)


def put_back(text: str, switches: Sequence[Switch], *, with_user: bool, daemon: Daemon) -> str:
    """Return the crontab with the lines as they were, each in its place.

    A line whose place somebody took out is added at the end, unless it runs in another form already: nobody might run
    the job otherwise. One that somebody has put back beside ours is not put back twice.
    """
    for each in switches:
        lines = text.split("\n")
        places = [number for number, line in enumerate(lines) if line == each.off]
        if each.on in lines:
            lines = [line for line in lines if line != each.off]
        elif places:
            lines[places[0]] = each.on
            lines = [line for line in lines if line != each.off]
        elif not _in_another_form(text, each.on, with_user, daemon):
            lines = [*(lines[:-1] if lines[-1] == "" else lines), _PUT_BACK, each.on, ""]
        text = "\n".join(lines)
    return text


def _shown(line: str) -> str:
    return f'"{visible(Masker(()).mask(line.strip()))}"'


def _in_another_form(text: str, line: str, with_user: bool, daemon: Daemon) -> bool:
    try:
        own = crontab.read_line(line, with_user=with_user, daemon=daemon)
    except ValueError:
        return False
    found = crontab.parse(text, with_user=with_user, daemon=daemon)
    what = (own.user, own.command, own.stdin)
    return any((each.what.user, each.what.command, each.what.stdin) == what for each in found.entries)
