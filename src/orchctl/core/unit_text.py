"""Reads the text of unit files, as `systemctl cat` prints them: systemd.syntax(7). Pure.

Only what is in force is returned. Values are as they stand in the file: quotes, escapes and specifiers unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SECTION = re.compile(r"\[([^\]]+)\]\Z")
# Of these each assignment adds to those before it; of all others the last one counts.
_LISTS = re.compile(
    r"(Exec\w+|Condition\w+|Assert\w+|On(Calendar|\w+Sec|Failure|Success)|\w+Paths|(Pass|Unset)?Environment(File)?"
    r"|After|Before|Requires|Requisite|Wants|BindsTo|PartOf|Upholds|Conflicts|Propagates\w+|Documentation|Sockets"
    r"|JoinsNamespaceOf|SupplementaryGroups|\w+Filter|(Load|Set|Import)Credential(Encrypted)?|DeviceAllow|IPAddress\w+"
    r"|(Runtime|State|Cache|Logs|Configuration)Directory|TemporaryFileSystem|Restrict(AddressFamilies|FileSystems)"
    r"|LogExtraFields|RequiresMountsFor|SuccessExitStatus|Restart(Prevent|Force)ExitStatus|\w+Capabilit\w+)\Z"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that is in force: `[Service] MemoryMax=1G`. `value` is one line."""

    section: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def settings(text: str) -> tuple[Setting, ...]:
    """Return the settings in force in a unit's file and drop-ins, in the order of their first assignment.

    An empty assignment clears what stands before it. Of a setting that holds one value the last one counts.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for setting in assignments(text):
        values = found.setdefault((setting.section, setting.key), [])
        if not setting.value or _LISTS.match(setting.key) is None:
            values.clear()
        if setting.value:
            values.append(setting.value)
    return tuple(Setting(section, key, value) for (section, key), values in found.items() for value in values)


def assignments(text: str) -> Iterator[Setting]:
    """Yield every assignment, in file order."""
    section = ""
    for line in _lines(text):
        header = _SECTION.match(line)
        if header is not None:
            section = header[1]
            continue
        key, equals, value = line.partition("=")
        if equals:
            yield Setting(section, key.strip(), value.strip())


def _lines(text: str) -> Iterator[str]:
    """Yield the lines without comments; those that a backslash continues are put together with a blank."""
    whole = ""
    for raw in text.split("\n"):
        line = raw.strip(" \t\r")
        if line.startswith(("#", ";")) or (not line and not whole):
            continue
        ending = raw.rstrip("\r")
        if (len(ending) - len(ending.rstrip("\\"))) % 2:
            whole += line[:-1] + " "
            continue
        yield (whole + line).strip(" \t\r")
        whole = ""
    if whole:
        yield whole.strip(" \t\r")


def literal(text: str) -> str:
    """Return `text` as a setting's value that means just that: `%` begins a specifier.

    Raises ValueError for what no one line of a unit file can say.
    """
    if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise ValueError(f"{text!r} cannot be written into a unit file")
    if text != text.strip() or text.endswith("\\"):
        raise ValueError(f"{text!r} begins or ends with what a unit file drops")
    return text.replace("%", "%%")


def quoted(word: str) -> str:
    """Return one word of a command line or of Environment=, quoted. Raises ValueError as `literal` does.

    `$` stays: what holds one needs the prefix `:` on its Exec line.
    """
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return literal(f'"{escaped}"')
