"""The command line as data: what shell completion is generated from. Pure: it reads the Typer app, nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer

from orchctl.core.manifest import STATUSES

SHELLS = ("bash", "zsh", "fish")
# `date` and `instant` are read from the clock when completion is asked for, names and runs from files.
Kind = Literal["none", "words", "job", "asset", "contract", "run", "date", "instant", "directory", "file"]
# The scripts hold names and words in lists that the shell splits, so they may hold no separator and no quote.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+-][A-Za-z0-9_@%+.-]*\Z")


@dataclass(frozen=True, slots=True)
class Value:
    """What an option or an argument takes.

    Only the kind `words` has `words`. `label` is what the help calls it.
    """

    kind: Kind
    label: str = "VALUE"
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option with all its names, the long ones first. `value` is None for a flag."""

    names: tuple[str, ...]
    help: str
    value: Value | None
    repeatable: bool


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument; `count` is how many words it takes, None any number."""

    value: Value
    count: int | None


@dataclass(frozen=True, slots=True)
class Command:
    """A command or a group. `everywhere` are options that may stand anywhere on the line: only the root has them."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]
    everywhere: tuple[Option, ...] = ()

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
        """Yield this command and every one below it, with the words that lead there."""
        yield path, self
        for command in self.commands:
            yield from command.walk((*path, command.name))


# The only thing kept by hand: what a metavar, or else an option's name, stands for.
VALUES: Mapping[str, Value] = {
    "ASSET": Value("asset"),
    "CONTRACT": Value("contract"),
    "DIR": Value("directory"),
    "FILE": Value("file"),
    "INSTANT": Value("instant"),
    "JOB": Value("job"),
    "PATH": Value("file"),
    "RUN": Value("run"),
    "SHELL": Value("words", words=SHELLS),
    "STATUS": Value("words", words=STATUSES),
    "WHEN": Value("date"),
    "YYYY-MM-DD": Value("date"),
    "--as-of": Value("instant"),
    "--date": Value("date"),
    "--end": Value("date"),
    "--job": Value("job"),
    "--start": Value("date"),
}


def read(root: Any, *, anywhere: Callable[[str], bool]) -> Command:
    """Return the tree of a Typer app's root command. `anywhere` says which options may stand anywhere.

    Raises ValueError where a name could not stand in a script as it is.
    """
    return _command(root, root.name, None, anywhere)


def _command(command: Any, name: str, parent: typer.Context | None, anywhere: Callable[[str], bool]) -> Command:
    context = typer.Context(command, parent=parent, info_name=name, **command.context_settings)
    shown = [param for param in command.get_params(context) if not param.hidden]
    options = [_option(param) for param in shown if param.param_type_name == "option"]
    everywhere = [option for option in options if parent is None and any(map(anywhere, option.names))]
    below = getattr(command, "commands", {})
    return Command(
        name=_plain(name),
        help=_summary(command.help),
        options=tuple(option for option in options if option not in everywhere),
        arguments=tuple(_argument(param) for param in shown if param.param_type_name == "argument"),
        commands=tuple(
            _command(child, child_name, context, anywhere) for child_name, child in below.items() if not child.hidden
        ),
        everywhere=tuple(everywhere),
    )


def _option(param: Any) -> Option:
    # Click keeps the names of --help in a set: without an order of our own, each generation would differ.
    names = sorted((*param.opts, *param.secondary_opts), key=lambda name: (not name.startswith("--"), name))
    takes_value = not (param.is_flag or param.count)
    return Option(
        names=tuple(map(_plain, names)),
        help=_summary(param.help),
        value=_value(param, names) if takes_value else None,
        repeatable=param.multiple or param.count,
    )


def _argument(param: Any) -> Argument:
    return Argument(_value(param, ()), None if param.nargs == -1 else param.nargs)


def _value(param: Any, names: Sequence[str]) -> Value:
    label = re.sub(r"[^A-Za-z0-9_-]+", "", param.metavar or param.name.upper())
    described = param.type_descriptor
    if described.choices is not None:
        words = tuple(_plain(str(getattr(choice, "value", choice))) for choice in described.choices)
        return Value("words", label, words)
    for key in (label, *names):
        if key in VALUES:
            return Value(VALUES[key].kind, label, VALUES[key].words)
    if described.is_path:
        return Value("file" if described.parameter_info.file_okay else "directory", label)
    return Value("none", label)


def _plain(word: str) -> str:
    if not _PLAIN.match(word):
        raise ValueError(f"{word!r} cannot stand in a completion script as it is")
    return word


def _summary(text: str | None) -> str:
    """Return the first sentence without its full stop, on one line."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[^.])\. (?=[A-Z])", paragraph)[0].removesuffix(".")
