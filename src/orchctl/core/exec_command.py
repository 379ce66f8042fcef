"""Turns systemd's Exec lines into one argv: its prefixes, its `$VAR` rules, several lines in order.

systemd.service(5), "Command lines", and systemd's own `replace_env_argv`: `${FOO}` inside a word is the value as it
is, a word `$FOO` is the value split at blanks (quotes in it are obeyed), `$$` is a dollar. What is certain is put in;
what only a run can know is left to /bin/sh, which then means the same; what neither can say is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

_BLANKS = " \t\n\r"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# `${` goes to the next `}` or `:`; with a `:` it is no variable to systemd, and neither is one that never ends.
_TOKEN = re.compile(r"\$\$|\$\{([^}:]*)\}")
# systemd sets these for a service that it starts, and nobody else does.
_SYSTEMD_ONLY = re.compile(
    r"(MAINPID|MANAGERPID|INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|SERVICE_RESULT|EXIT_CODE|EXIT_STATUS|PIDFILE"
    r"|SYSTEMD_EXEC_PID|(RUNTIME|STATE|CACHE|LOGS|CONFIGURATION|CREDENTIALS)_DIRECTORY"
    r"|(TRIGGER|MONITOR|WATCHDOG|LISTEN|MEMORY_PRESSURE|REMOTE)_\w+)\Z"
)
# A shell gives these values of its own, whatever its environment says.
_SHELL_OWN = re.compile(
    r"(_|IFS|PPID|PWD|OLDPWD|OPT(IND|ARG|ERR)|PS[0-9]|LINENO|E?UID|RANDOM|SRANDOM|SECONDS|SHLVL|GROUPS|HOST(NAME|TYPE)"
    r"|MACHTYPE|OSTYPE|DIRSTACK|FUNCNAME|PIPESTATUS|EPOCH\w*|COLUMNS|LINES|BASH\w*)\Z"
)


@dataclass(frozen=True, slots=True)
class ExecLine:
    """One Exec line as systemd holds it: quotes read, specifiers filled in, variables not.

    `path` is what is started, `argv` what it is called with (they differ with the prefix `@`). `flags` are
    D-Bus's words: ignore-failure (`-`), no-env-expand (`:`), privileged (`+`), no-setuid (`!`), ambient (`!!`).
    """

    path: str
    argv: tuple[str, ...]
    flags: frozenset[str] = frozenset()

    @property
    def as_root(self) -> bool:
        """Whether it runs as root whatever User= says. `!!` does so only on kernels without ambient capabilities."""
        return bool(self.flags & {"privileged", "no-setuid"})

    @property
    def ignores_failure(self) -> bool:
        """Whether it counts as a success however it ends."""
        return "ignore-failure" in self.flags


@dataclass(frozen=True, slots=True)
class Command:
    """An argv that does what the lines do. `comments` say what was put in or is left to the run."""

    argv: tuple[str, ...]
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable whose value only a run knows. `split`: the word `$FOO`, which becomes any number of words."""

    name: str
    split: bool = False


Part = str | Variable
Word = tuple[Part, ...]


@dataclass(slots=True)
class _Values:
    """What is known of the variables, and what came of asking."""

    known: Mapping[str, str]
    put_in: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def of(self, name: str, *, split: bool = False) -> Part:
        if name in self.known:
            self.put_in.append(name)
            return self.known[name]
        if _SYSTEMD_ONLY.match(name):
            raise ValueError(f"its command uses ${name}, which systemd alone sets")
        if _SHELL_OWN.match(name):
            raise ValueError(f"its command uses ${name} from outside the unit, which a shell would set itself")
        self.outside.append(name)
        return Variable(name, split)


def command(lines: Sequence[ExecLine], environment: Mapping[str, str], *, certain: bool = True) -> Command:
    """Return one argv that runs the lines in order, up to the first that fails.

    `environment` is that of Environment=; `certain` False where files can override it: then every variable is left
    to the run. Bare names of programs must have been resolved. Raises ValueError with the reason.
    """
    strange = sorted({flag for line in lines for flag in line.flags} - {*_PREFIXES.values()})
    if strange:
        # `|` of systemd 258 for one: what its argv means is decided by the flag.
        raise ValueError(f"systemd calls its command {', '.join(strange)}, and what it does then is not known here")
    values = _Values(environment if certain else {})
    words = [_words(line, values) for line in lines]
    argv = _argv(lines, words)
    return Command(argv, tuple(_comments(values, lines, certain=certain)))


def _comments(values: _Values, lines: Sequence[ExecLine], *, certain: bool) -> Iterator[str]:
    if values.put_in:
        yield f"systemd expands {_dollars(values.put_in)} in the command: put in as Environment= has it"
    if values.dropped:
        yield f"systemd drops {' '.join(dict.fromkeys(values.dropped))} from the command: no variable can be named so"
    if values.outside and certain:
        yield (
            f"{_dollars(values.outside)} in the command is not the unit's own: a shell takes it from the worker's "
            "environment at run time, systemd from its manager's"
        )
    elif values.outside:
        yield f"{_dollars(values.outside)} in the command can come from an environment file: a shell expands it"
    if any(line.ignores_failure for line in lines):
        yield "prefix `-`: the command counts as a success however it ends"
    if len(lines) > 1:
        yield f"its {len(lines)} commands run in order, up to the first that fails"


def _dollars(names: Sequence[str]) -> str:
    return ", ".join(f"${name}" for name in dict.fromkeys(names))


def _words(line: ExecLine, values: _Values) -> tuple[Word, ...]:
    """Return the words after the program, expanded as far as it is certain."""
    if "no-env-expand" in line.flags:
        return tuple((word,) for word in line.argv[1:])
    if "$" in line.path or "$" in line.argv[0]:
        raise ValueError("its program's name holds a $")
    return tuple(expanded for word in line.argv[1:] for expanded in _expand(word, values))


def _expand(word: str, values: _Values) -> Iterator[Word]:
    if word.startswith("$") and word[1:2] not in {"{", "$"}:
        name = word[1:]
        if not _NAME.match(name):
            values.dropped.append(word)
            return
        value = values.of(name, split=True)
        if isinstance(value, str):
            yield from ((found,) for found in split(value))
        else:
            yield (value,)
        return
    yield _inside(word, values)


def _inside(word: str, values: _Values) -> Word:
    parts: list[Part] = []
    at = 0
    for token in _TOKEN.finditer(word):
        parts.append(word[at : token.start()])
        at = token.end()
        if token[1] is None:
            parts.append("$")
        elif _NAME.match(token[1]):
            parts.append(values.of(token[1]))
        else:
            values.dropped.append(token[0])
    parts.append(word[at:])
    return _joined(parts)


def _joined(parts: Sequence[Part]) -> Word:
    """Put neighbouring texts together, so that a word without variables is one text."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        elif part != "":
            joined.append(part)
    return tuple(joined) or ("",)


def split(value: str) -> list[str]:
    """Split a variable's value as systemd does for the word `$FOO`: at blanks, quotes and backslashes obeyed."""
    words: list[str] = []
    word: str | None = None
    quote, escaped = "", False
    for char in value:
        if escaped:
            word, escaped = (word or "") + char, False
        elif char == "\\":
            word, escaped = word or "", True
        elif quote:
            word = word or ""
            quote, word = ("", word) if char == quote else (quote, word + char)
        elif char in "'\"":
            word, quote = word or "", char
        elif char in _BLANKS:
            words, word = ([*words, word] if word is not None else words), None
        else:
            word = (word or "") + char
    return words if word is None else [*words, word]


def _argv(lines: Sequence[ExecLine], words: Sequence[Sequence[Word]]) -> tuple[str, ...]:
    literal = all(isinstance(part, str) for line in words for word in line for part in word)
    if len(lines) == 1 and literal:
        plain = tuple("".join(map(str, word)) for word in words[0])
        return _single(lines[0], plain)
    scripts = [_script(line, parts) for line, parts in zip(lines, words, strict=True)]
    guards = [_guard(name) for name in _split_names(words)]
    if len(lines) == 1 and not lines[0].ignores_failure:
        scripts = [f"exec {scripts[0]}"]
    setup = ["set -f", *guards] if guards else []
    return ("/bin/sh", "-ec" if len(lines) > 1 else "-c", "; ".join([*setup, *scripts]))


def _single(line: ExecLine, words: tuple[str, ...]) -> tuple[str, ...]:
    argv = (line.path, *words)
    if line.path != line.argv[0]:
        # The prefix `@`: only bash can start a program under another name.
        ending = " || true" if line.ignores_failure else ""
        start = '(exec -a "$0" "$@")' if line.ignores_failure else 'exec -a "$0" "$@"'
        return ("/bin/bash", "-c", f"{start}{ending}", line.argv[0], *argv)
    return ("/bin/sh", "-c", '"$@" || true', "sh", *argv) if line.ignores_failure else argv


def _script(line: ExecLine, words: Sequence[Word]) -> str:
    """Return one line as a shell's."""
    if line.path != line.argv[0]:
        raise ValueError("its command is started under another name (prefix @) and needs a shell for something else")
    if "/" not in line.path:
        raise ValueError(f"its program {line.path} is not found in systemd's search path")
    text = " ".join([shlex.quote(line.path), *("".join(map(_quoted, word)) for word in words)])
    return f"{text} || true" if line.ignores_failure else text


def _quoted(part: Part) -> str:
    if isinstance(part, str):
        return shlex.quote(part)
    return f"${part.name}" if part.split else f'"${part.name}"'


def _split_names(words: Sequence[Sequence[Word]]) -> list[str]:
    parts = (part for line in words for word in line for part in word)
    return list(dict.fromkeys(part.name for part in parts if isinstance(part, Variable) and part.split))


def _guard(name: str) -> str:
    """Return what ends the run where a shell would split the value otherwise than systemd."""
    message = f"{name} holds quotes or backslashes, which only systemd reads"
    return f"case ${name} in *[\\\\\\'\\\"\r]*) echo {shlex.quote(message)} >&2; exit 78;; esac"


def fallback(values: Sequence[str]) -> tuple[ExecLine, ...]:
    """Read Exec lines from a unit file's text, where only one reading is possible.

    Raises ValueError where systemd's own reading is needed: quotes, backslashes, specifiers, several commands in a
    line, a program under another name.
    """
    return tuple(_read(value) for value in values)


_PREFIXES: Mapping[str, Literal["ignore-failure", "no-env-expand", "privileged", "no-setuid", "ambient"]] = {
    "-": "ignore-failure",
    ":": "no-env-expand",
    "+": "privileged",
    "!!": "ambient",
    "!": "no-setuid",
}


def _read(value: str) -> ExecLine:
    found = re.search(r"[\"'\\%]", value)
    if found or value.startswith("@") or re.search(r"(^|[ \t]);([ \t]|$)", value):
        what = {"%": "a specifier (%)", "\\": "a backslash"}.get(found[0], "quotes") if found else "@ or ;"
        raise ValueError(f"its command holds {what}, which only systemd can read, and its D-Bus does not answer")
    flags = set()
    rest = value
    while prefix := next((mark for mark in ("!!", *_PREFIXES) if rest.startswith(mark)), None):
        flags.add(_PREFIXES[prefix])
        rest = rest.removeprefix(prefix)
    if rest.startswith(("@", "|")):
        raise ValueError(f"its command has the prefix {rest[0]}, and systemd's D-Bus does not answer")
    words = [word for word in re.split(f"[{_BLANKS}]", rest) if word]
    if not words:
        raise ValueError("its command is empty")
    return ExecLine(words[0], tuple(words), frozenset(flags))
