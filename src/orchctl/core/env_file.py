"""systemd's EnvironmentFile= (systemd.exec(5)), read as systemd's own state machine reads it.

It is no shell: nothing is expanded, `export` is not understood, a backslash outside quotes stands for the next
character, quoted pieces and plain ones may follow each other. A line whose name cannot be a variable's is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_NEW_LINE = "\n\r"
_BLANK = " \t\n\r"
_COMMENT = "#;"
_ESCAPED_IN_QUOTES = '"\\`$'
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# systemd takes them for no text.
_NON_CHARACTER = re.compile(
    "[\ufdd0-\ufdef]|" + "|".join(f"[{chr(n)}{chr(n + 1)}]" for n in range(0xFFFE, 0x110000, 0x10000))
)


def parse(content: bytes, *, comments_continue: bool = False) -> dict[str, str]:
    """Return the variables of a file, a later line over an earlier one of the same name.

    `comments_continue`: a backslash at the end of a comment makes the next line part of it, as it did before
    systemd 254. Raises ValueError where systemd refuses the whole file: a NUL byte, or a name or value that is not
    UTF-8 (a comment may be anything).
    """
    if b"\0" in content:
        raise ValueError("it holds a NUL byte")
    reader = _Reader(comments_continue=comments_continue)
    # One character for each byte: what is no UTF-8 matters only in names and values.
    for char in content.decode("latin-1"):
        reader.feed(char)
    return reader.end()


class _Reader:
    """One character at a time; the methods are systemd's states, and return the next one."""

    def __init__(self, *, comments_continue: bool) -> None:
        self._comments_continue = comments_continue
        self._found: dict[str, str] = {}
        self._key, self._value = "", ""
        # Where the blanks at the end of an unquoted value begin, None where it does not end in any.
        self._trailing: int | None = None
        self._state: _State = self._before_key
        self._has_value = (
            self._before_value,
            self._in_value,
            self._escape,
            self._in_single,
            self._in_double,
            self._escape_in_double,
        )

    def feed(self, char: str) -> None:
        self._state = self._state(char)

    def end(self) -> dict[str, str]:
        if self._state in self._has_value:
            self._push(trim=self._state == self._in_value)
        return self._found

    def _push(self, *, trim: bool) -> None:
        value = self._value[: self._trailing] if trim and self._trailing is not None else self._value
        name, text = _text(self._key.rstrip(_BLANK)), _text(value)
        if _NAME.match(name):
            self._found.pop(name, None)
            self._found[name] = text
        self._key, self._value, self._trailing = "", "", None

    def _before_key(self, char: str) -> _State:
        if char in _COMMENT:
            return self._in_comment
        if char in _BLANK:
            return self._before_key
        self._key = char
        return self._in_key

    def _in_key(self, char: str) -> _State:
        if char in _NEW_LINE:
            self._key = ""
            return self._before_key
        if char == "=":
            self._trailing = None
            return self._before_value
        self._key += char
        return self._in_key

    def _before_value(self, char: str) -> _State:
        if char in _NEW_LINE:
            self._push(trim=False)
            return self._before_key
        if char in _BLANK:
            return self._before_value
        quoted: Mapping[str, _State] = {"'": self._in_single, '"': self._in_double, "\\": self._escape}
        if char in quoted:
            return quoted[char]
        self._value += char
        return self._in_value

    def _in_value(self, char: str) -> _State:
        if char in _NEW_LINE:
            self._push(trim=True)
            return self._before_key
        if char == "\\":
            self._trailing = None
            return self._escape
        if char not in _BLANK:
            self._trailing = None
        elif self._trailing is None:
            self._trailing = len(self._value)
        self._value += char
        return self._in_value

    def _escape(self, char: str) -> _State:
        if char not in _NEW_LINE:
            self._value += char
        return self._in_value

    def _in_single(self, char: str) -> _State:
        if char == "'":
            return self._before_value
        self._value += char
        return self._in_single

    def _in_double(self, char: str) -> _State:
        if char == '"':
            return self._before_value
        if char == "\\":
            return self._escape_in_double
        self._value += char
        return self._in_double

    def _escape_in_double(self, char: str) -> _State:
        if char in _ESCAPED_IN_QUOTES:
            self._value += char
        elif char != "\n":
            self._value += f"\\{char}"
        return self._in_double

    def _in_comment(self, char: str) -> _State:
        if char == "\\":
            return self._escape_in_comment
        return self._before_key if char in _NEW_LINE else self._in_comment

    def _escape_in_comment(self, char: str) -> _State:
        if char in _NEW_LINE and not self._comments_continue:
            return self._before_key
        return self._in_comment


_State = Callable[[str], "_State"]


def _text(raw: str) -> str:
    try:
        text = raw.encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise ValueError("a name or value in it is not UTF-8") from error
    if _NON_CHARACTER.search(text):
        raise ValueError("a name or value in it is not UTF-8")
    return text
