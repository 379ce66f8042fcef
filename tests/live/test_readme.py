"""README's five minutes, typed in as they stand there: each command, and what it is said to answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import ROOT
from orchctl.adapters.local_stack import LocalStack, free_port
from support import clean_env, eventually

# What differs from one reader to the next, and what stands for it; in this order.
_VARIES = (
    (r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN"),
    (r"\b\d{6}Z-[0-9a-f]{6}", "RUN"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"sha256:[0-9a-f]+", "DIGEST"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "INSTANT"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d E[SD]T", "LOCAL"),
    (r"(?<!=)\b20(?!25-12-19)\d\d-\d\d-\d\d\b", "TODAY"),
    (r"\b\d\d:\d\d(:\d\d)?\b", "TIME"),
    (r"\b\d+\.\d+s\b", "TOOK"),
    (r"pid \d+", "pid N"),
    (r"\d+ bytes", "N bytes"),
    (r"^host +\S+", "host HOST"),
    (r"^ *\d+ (config/\S+|total)", r"N \1"),
    (r"[ ]+", " "),
)


@dataclass
class Tour:
    """Who types README's commands in. `told` are the ids of runs by how README names them."""

    root: Path
    port: int
    where: Path = field(init=False)
    told: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.where = self.root

    def type(self, command: str) -> str:
        """Run a command where the last one left us, and return all that it says."""
        command = command.replace("host up", f"host up --port {self.port}")
        for written, real in self.told.items():
            command = command.replace(written, real)
        environment = {
            **clean_env(),
            "HOME": str(self.root),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "160",
        }
        left = self.root / "left"
        done = subprocess.run(
            ["bash", "-c", f"{command}\npwd > {left}"],
            cwd=self.where,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.where = Path(left.read_text().strip())
        return done.stdout

    def shape(self, text: str) -> list[str]:
        """Return its lines without what varies; lines of one shape, such as those of further runs, once."""
        text = text.replace(str(self.root), "/srv").replace(f":{self.port}", ":4200")
        return list(dict.fromkeys(_without_what_varies(line) for line in text.splitlines()))


def _without_what_varies(line: str) -> str:
    for pattern, word in _VARIES:
        line = re.sub(pattern, word, line)
    return line.strip()


def same(said: list[str], written: list[str]) -> bool:
    """Whether the lines are the same; one that is written with an ellipsis at its end only has to begin so."""
    return len(said) == len(written) and all(
        one.startswith(other[:-1]) if other.endswith("…") else one == other
        for one, other in zip(said, written, strict=True)
    )


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    """Somebody in an empty folder; what they start is stopped."""
    yield Tour(tmp_path, free_port())
    stack = LocalStack(tmp_path / ".local/state/orchctl", {})
    for name in stack.names():
        stack.stop(name, patience_s=5)


def typed(section: str) -> list[tuple[str, str]]:
    """Return the commands of a section of README, with what it shows as their answers."""
    text = (ROOT / "README.md").read_text()
    (part,) = re.findall(rf"^## {section}\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", part, flags=re.DOTALL):
        for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            first, _, rest = piece.partition("\n")
            if here := re.search(r"<<'?(\w+)'?$", first):
                document, _, rest = rest.partition(f"\n{here[1]}\n")
                first = f"{first}\n{document}\n{here[1]}"
            found.append((first, rest))
    return found


@pytest.mark.campaign
def test_the_five_minutes_are_as_they_are_written(tour: Tour) -> None:
    commands = typed("Five minutes")
    assert len(commands) > 10
    for command, answer in commands:
        if command == "orchctl runs":
            eventually(lambda: re.search(r"success +count-words +\S+ +schedule", tour.type("orchctl runs")), within=150)
        if command == "orchctl check" and "retrys" in answer:
            jobs = tour.where / "config" / "jobs.toml"
            jobs.write_text(jobs.read_text().replace('"every-minute"', '"every-minut"').replace("retries", "retrys"))
        said = tour.type(command)
        assert same(tour.shape(said), tour.shape(answer)), f"$ {command}\n{said}"
        for written, real in zip(_runs_of(answer), _runs_of(said), strict=True):
            tour.told[written] = real


def _runs_of(text: str) -> list[str]:
    """Return the runs that are begun, by the part of their ids that is unique that day."""
    return re.findall(r": run \d{8}T(\d{6}Z-[0-9a-f]{6}),", text)
