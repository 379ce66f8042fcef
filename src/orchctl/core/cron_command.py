"""From what a crontab line has the shell do to an argv of the catalog, and to a name for the job. Pure.

A line without anything of the shell's becomes its words; any other stays a line that the same shell reads.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# zsh, csh and fish read startup files for a line too, and expand more: what they are given stays theirs.
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh"})
# A word of these and quoted pieces means the same to every shell and to exec.
_PLAIN_WORD = re.compile(r"""(?:[A-Za-z0-9_@%+:,./=-]|'[^']*'|"[^"$`\\!]*")+\Z""")
_WORDS = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
_PIECE = re.compile(
    r"""(?P<single>'[^']*')|(?P<double>"(?:[^"\\]|\\.)*")|(?P<inner>\$\([^)]*\)|`[^`]*`|\\.)|(?P<blank>\s+)"""
    r"""|(?P<operator>&&|\|\||;;|&>>|&>|>>|>&|>\||<<<|<<|<&|[<>&|;()])|(?P<text>[^\s'"$`\\<>&|;()]+|.)""",
    re.DOTALL,
)
# What a shell does itself instead of starting a program of that name.
_OWN = frozenset(
    ". : [ alias bg break builtin case cd command continue declare do done echo elif else esac eval exec exit export "  # noqa: SIM905
    "false fg fi for function getopts hash help if jobs kill let local printf pushd popd pwd read readonly return "
    "select set shift shopt source test then time times trap true type typeset ulimit umask unalias unset until wait "
    "while".split()
)
# Startup files that a shell reads for a line, too: without the shell they would be missed.
_STARTUP = ("BASH_ENV", "ENV", "ZDOTDIR")
_OPERATORS = frozenset({"&&", "||", ";", "|", "&", "(", ")", "|&", ";;"})
_DETACHING = frozenset({"nohup", "setsid", "disown"})
_OUTPUT = frozenset({">", ">>", ">|", "&>", "&>>"})

# Programs that start the one after them: the options that take a value, and how many words of their own follow.
_WRAPPERS: Mapping[str, tuple[str, int]] = {
    "chronic": ("", 0),
    "command": ("", 0),
    "env": ("uCS", 0),
    "exec": ("a", 0),
    "flock": ("wE", 1),
    "ionice": ("cnp", 0),
    "nice": ("n", 0),
    "nohup": ("", 0),
    "setsid": ("", 0),
    "stdbuf": ("ioe", 0),
    "sudo": ("ughpCT", 0),
    "time": ("fo", 0),
    "timeout": ("ks", 1),
}
_RUNNERS = frozenset({"uv", "poetry", "pipenv", "pdm", "hatch", "rye"})
_INTERPRETER = re.compile(r"(python[0-9.]*|perl|ruby|node|php|Rscript|bash|sh|dash|zsh|ksh)\Z")
_PREPARING = frozenset({"cd", ".", "source", "export", "set", "sleep", "[", "test", "echo", "umask", "ulimit", "mkdir"})
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_EXTENSION = re.compile(r"\.(sh|bash|py|pl|rb|js|php|r)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Made:
    """An argv that does what cron does with a line. `comments` and `warnings` say what is to know about it."""

    argv: tuple[str, ...]
    comments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def made(command: str, stdin: str | None, variables: Mapping[str, str]) -> Made:
    """Return what runs `command` with `stdin` as cron does. Raises ValueError where the shell cannot be started."""
    shell = variables.get("SHELL", "/bin/sh")
    if not shell.startswith("/"):
        raise ValueError(f"its SHELL is {shell!r}, which is no absolute path")
    line = command.strip(" \t")
    knows = shell.rpartition("/")[2] in _SHELLS
    tokens = _tokens(line)
    plain = knows and stdin is None and not any(name in variables for name in _STARTUP)
    words = plain_words(line) if plain else None
    if stdin is not None:
        argv: tuple[str, ...] = ("/bin/sh", "-c", 'printf %s "$1" | "$0" -c "$2"', shell, stdin, line)
    else:
        argv = tuple(words) if words is not None else (shell, "-c", line)
    return Made(argv, tuple(_comments(tokens, stdin)), tuple(_warnings(tokens)))


def plain_words(line: str) -> list[str] | None:
    """Return the words of a line that holds nothing of the shell's but quotes, None for any other."""
    if _WORDS.sub("", line).strip(" \t") or any(char in line for char in "\r\n\v\f"):
        return None
    raw = _WORDS.findall(line)
    if not raw or not all(_PLAIN_WORD.match(word) for word in raw):
        return None
    words = shlex.split(line, comments=False)
    if "=" in raw[0] or words[0] in _OWN or not words[0]:
        return None
    return words


def locks_itself(command: str) -> bool:
    """Whether the line takes a lock of its own without waiting (`flock -n`): cron then never starts it twice."""
    tokens = _tokens(command)
    at = next((at for at, token in enumerate(tokens) if token.program == "flock"), None)
    if at is None:
        return False
    options = [token.text for token in tokens[at + 1 : at + 5] if token.text.startswith("-")]
    return any(re.fullmatch(r"--non-?block|--nb|-[a-z]*n[a-z]*", option) for option in options)


@dataclass(frozen=True, slots=True)
class _Token:
    """A word, quotes taken off, or an operator of the shell."""

    text: str
    operator: bool = False

    @property
    def program(self) -> str:
        return self.text.rpartition("/")[2]


def _tokens(line: str) -> list[_Token]:
    """Return the words and operators of a line, well enough to say what it does in words."""
    found: list[_Token] = []
    word: str | None = None
    for piece in _PIECE.finditer(line):
        kind, text = piece.lastgroup, piece[0]
        if kind in {"blank", "operator"}:
            found += [_Token(word)] if word is not None else []
            found += [_Token(text, operator=True)] if kind == "operator" else []
            word = None
        else:
            word = (word or "") + (text[1:-1] if kind in {"single", "double"} else text)
    return found if word is None else [*found, _Token(word)]


def _comments(tokens: Sequence[_Token], stdin: str | None) -> Iterator[str]:
    targets = [target.text for token, target in pairwise(tokens) if token.operator and token.text in _OUTPUT]
    files = list(dict.fromkeys(name for name in targets if name != "/dev/null"))
    if files:
        yield f"its output goes to {' and '.join(files)}, as before: `runs logs` shows only what does not"
    elif targets:
        yield "its output goes to /dev/null, as before: `runs logs` shows only what does not"
    if stdin is not None:
        yield "what follows the first % of the line is its input: printf gives it the same"


def _warnings(tokens: Sequence[_Token]) -> Iterator[str]:
    if any(token.text == "&" if token.operator else token.program in _DETACHING for token in tokens):
        yield "it leaves something running in the background: a run of orchctl ends whatever its command leaves behind"


def name_of(command: str) -> str:
    """Return a job's name for a command: that of the script or module that it starts in the end."""
    for words in _commands(_tokens(command)):
        program = _program(words)
        if program and program not in _PREPARING:
            return clean(program)
    return "job"


def clean(text: str) -> str:
    """Return `text` as a job's name."""
    found = re.sub(r"[^a-z0-9_-]+", "-", _EXTENSION.sub("", text.rstrip("/").rpartition("/")[2]).lower())
    return found.strip("-_")[:63].rstrip("-_") or "job"


def _commands(tokens: Sequence[_Token]) -> Iterator[list[str]]:
    words: list[str] = []
    for token in [*tokens, _Token(";", operator=True)]:
        if not token.operator:
            words.append(token.text)
        elif token.text in _OPERATORS:
            yield words
            words = []


def _program(words: Sequence[str]) -> str:
    """Return what a simple command starts, behind `flock`, `nice`, `uv run python -m` and so on; "" for nothing."""
    rest = list(words)
    while rest and _ASSIGNMENT.match(rest[0]):
        rest.pop(0)
    if not rest:
        return ""
    first = rest[0].rpartition("/")[2]
    if first in _WRAPPERS:
        valued, own = _WRAPPERS[first]
        behind = _after_options(rest[1:], valued)
        inner = _inline(rest[1:]) if first == "flock" else None
        return name_of(inner) if inner else _program(behind[own:]) or first
    if first in _RUNNERS and "run" in rest[1:3]:
        return _program(_after_options(rest[rest.index("run") + 1 :], "p")) or first
    if _INTERPRETER.match(first):
        return _script(rest[1:]) or first
    return rest[0]


def _after_options(words: Sequence[str], valued: str) -> list[str]:
    rest = list(words)
    while rest and (rest[0].startswith("-") or _ASSIGNMENT.match(rest[0])):
        option = rest.pop(0)
        if option == "--":
            break
        if len(option) == 2 and option[1] in valued and rest:
            rest.pop(0)
    return rest


def _inline(words: Sequence[str]) -> str | None:
    """Return the script of `-c SCRIPT`, None where there is none."""
    at = next((at for at, word in enumerate(words) if re.fullmatch(r"-[a-z]*c", word)), None)
    return words[at + 1] if at is not None and at + 1 < len(words) else None


def _script(words: Sequence[str]) -> str:
    if words[:1] and words[0] == "-m":
        return words[1].rpartition(".")[2] if len(words) > 1 else ""
    inner = _inline(words[:2])
    if inner is not None:
        return name_of(inner)
    rest = _after_options(words, "WX")
    if words and "-m" in words[:3]:
        at = words.index("-m")
        return words[at + 1].rpartition(".")[2] if len(words) > at + 1 else ""
    return rest[0] if rest else ""
