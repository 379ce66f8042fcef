"""An upgrade of what is installed: what it would change, its journal, and what is to be done after a kill. Pure.

The new environment is made in a copy beside the old one; the two change places in one step, so that at each instant
there is a whole one in the place that the units know. Both are told apart by what is in them (`MARK`), never by what
the journal says.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal, get_args

Step = Literal["preparing", "stopping", "switching", "migrating", "starting", "restoring"]
STEPS: tuple[Step, ...] = get_args(Step)
Move = Literal["start", "finish", "only finish", "put back"]
JOURNAL = "upgrade.json"
MARK = ".orchctl-upgrade"
"""The file of an environment that says by which upgrade it was made."""
VERSION = 1
_ASIDE = re.compile(r"\.before-\d{8}T\d{6}Z\Z")
_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_FILE = re.compile(r"-\d|\.whl|\.tar|\.git")
_OURS = "orchctl"


@dataclass(frozen=True, slots=True)
class Change:
    """A package that is installed in another version; `before` None: it is new."""

    name: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What pip is asked for. `version` None: the newest Prefect that orchctl's bounds allow. `requirements` are more
    of its words, `constraints` its file of them; `bounds` what each package that orchctl needs has to be within.
    """

    version: str | None
    requirements: tuple[str, ...]
    constraints: str | None
    bounds: Mapping[str, str]

    @property
    def words(self) -> tuple[str, ...]:
        """What is to be installed, in pip's words."""
        return (f"prefect=={self.version}" if self.version else "prefect", *self.requirements)

    @property
    def limits(self) -> tuple[str, ...]:
        """The bounds as lines of constraints; none where another orchctl brings its own."""
        if any(map(names_orchctl, self.requirements)):
            return ()
        return tuple(f"{name}{bounds}" for name, bounds in sorted(self.bounds.items()) if bounds)


@dataclass(frozen=True, slots=True)
class Journal:
    """How far an upgrade has come: written before each step.

    `id` is its start as it stands in names. `environment` is the place that the units know, `aside` that beside it, in
    which the new one is made and the old one ends. `before` and `after` are versions of Prefect. `migrations`: how many
    changes of the database's tables are due; `archive` is that of the database as it was when all stood still, None
    where none was made, `counts` what was in it, and `revision` that of its tables. `begun`: a change of the tables was
    begun, by us or by the new server. `problem` says why all is put back, and `interrupted` that it was somebody's
    wish.
    """

    id: str
    step: Step
    environment: str
    aside: str
    before: str
    after: str
    migrations: int
    archive: str | None = None
    counts: Mapping[str, int] | None = None
    revision: str | None = None
    begun: bool = False
    problem: str | None = None
    interrupted: bool = False

    @property
    def restores(self) -> bool:
        """Whether putting back takes the archive too: the tables are other ones, or may be."""
        return self.begun and self.migrations > 0 and self.archive is not None

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in `state/host/upgrade.json`. It holds no secret."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Journal:
        """Return what a journal says. Raises ValueError where it is none of this version."""
        if not isinstance(data, dict) or data.get("version") != VERSION or data.get("step") not in STEPS:
            raise ValueError("it is not the journal of an upgrade that this orchctl can read")
        texts = ("id", "environment", "aside", "before", "after")
        if not all(isinstance(data.get(key), str) for key in texts) or not is_aside(data["environment"], data["aside"]):
            raise ValueError("it does not say which environments it is about")
        archive, counts, problem = data.get("archive"), data.get("counts"), data.get("problem")
        revision = data.get("revision")
        if not isinstance(counts, dict | None) or any(type(count) is not int for count in (counts or {}).values()):
            raise ValueError("it does not say what the database held")
        return cls(
            **{key: data[key] for key in texts},
            step=data["step"],
            migrations=int(data["migrations"]),
            archive=archive if isinstance(archive, str) else None,
            counts=counts,
            revision=revision if isinstance(revision, str) else None,
            begun=data.get("begun") is True,
            problem=problem if isinstance(problem, str) else None,
            interrupted=data.get("interrupted") is True,
        )


def move(journal: Journal, *, switched: bool, ran: bool) -> Move:
    """Return what becomes of an upgrade that has stopped something.

    `switched`: the new environment is in place; `ran`: its server runs, or has run. What the new one has begun may have
    run for days when somebody looks: it is finished, and put back only where it does not work. Where that would put an
    old database in place of what was written since, it is not put back by us. Before that, what was stopped is started
    again.
    """
    if not switched:
        return "start"
    if journal.migrations and (ran or journal.step == "starting"):
        return "only finish"
    return "put back" if journal.step == "restoring" else "finish"


def aside(environment: str, stamp: str) -> str:
    """Return the place beside an environment for an upgrade that began then (`core.backup.stamp`)."""
    return f"{environment}.before-{stamp}"


def is_aside(environment: str, path: str) -> bool:
    """Whether a path is such a place of this environment."""
    return path.startswith(environment) and _ASIDE.fullmatch(path[len(environment) :]) is not None


def names_orchctl(requirement: str) -> bool:
    """Whether a requirement of pip's is orchctl itself: by name, or by the name of its file or folder."""
    found = (_PACKAGE.match(text) for text in (requirement, requirement.rstrip("/").rpartition("/")[2]))
    return any(_FILE.split(each[0])[0].lower() == _OURS for each in found if each is not None)


def fewer(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, ...]:
    """Return what of `before` there is less of now, in words."""
    return tuple(
        f"{name.replace('_', ' ')}: {after.get(name, 0)} of {count}"
        for name, count in before.items()
        if after.get(name, 0) < count
    )


def environment_of(python: str) -> str:
    """Return the environment of an interpreter."""
    return str(PurePath(python).parent.parent)


def python_of(environment: str) -> str:
    """Return the interpreter of an environment."""
    return f"{environment}/bin/python"


def command(environment: str, *words: str) -> tuple[str, ...]:
    """Return what runs orchctl with the packages of an environment."""
    return (python_of(environment), "-P", "-m", "orchctl", *words)


def by_hand(journal: Journal, *, switched: bool, options: Sequence[str]) -> tuple[str, ...]:
    """Return the commands that put all back as it was. `options` say where catalog and state directory are."""
    place, old = journal.environment, journal.aside if switched else journal.environment
    lines = [_line(old, *options, "host", "down")]
    if switched and journal.restores and journal.archive is not None:
        lines.append(_line(old, *options, "host", "restore", journal.archive, "--only", "database"))
    if switched:
        lines.append(f"{shlex.join(['mv', place, f'{place}.failed'])} && {shlex.join(['mv', old, place])}")
    return (*lines, _line(place, *options, "host", "up"))


def _line(environment: str, *words: str) -> str:
    return shlex.join(command(environment, *words))


def told(journal: Journal) -> str:
    """Say that an upgrade is unfinished."""
    return f"an upgrade from Prefect {journal.before} to {journal.after} is unfinished ({journal.step})"
