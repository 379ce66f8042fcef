"""Ask bash, zsh and fish what they would complete, in a home of their own."""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pexpect
import pytest
import typer

from orchctl.cli import completions
from orchctl.cli.app import app

ROOT = typer.main.get_command(app)
JOBS = ["live-score", "live-scrape"]


@dataclass
class Box:
    """An operator's home with state, events and, where a test wants them, hostile files. Spaces everywhere."""

    home: Path

    @classmethod
    def under(cls, folder: Path) -> Box:
        box = cls(folder / "the home")
        box.home.mkdir()
        box.jobs("live-score\nlive-scrape\nnightly-eval\n")
        return box

    @property
    def state(self) -> Path:
        return self.home / "my state"

    def jobs(self, text: str, *, state: Path | None = None) -> None:
        path = (state or self.state) / "completion" / "jobs"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def assets(self, text: str) -> None:
        self.names("assets", text)

    def names(self, kind: str, text: str) -> None:
        path = self.state / "completion" / kind
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def events(self, name: str, day: datetime, *lines: str) -> None:
        folder = self.home / name / "manifests" / "events"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{day:%Y-%m-%d}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        listed = self.state / "completion" / "events"
        listed.parent.mkdir(parents=True, exist_ok=True)
        known = set(listed.read_text().splitlines()) if listed.exists() else set()
        listed.write_text("".join(f"{path}\n" for path in sorted(known | {str(folder)})))

    def env(self, **more: str) -> dict[str, str]:
        kept = {"HOME": str(self.home), "ORCHCTL_STATE_DIR": str(self.state), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "ZDOTDIR": str(self.home), **kept, **more}

    def script(self, shell: str) -> Path:
        path = self.home / f"script.{shell}"
        if not path.exists():
            path.write_text(completions.script(shell, ROOT))
        return path


def today() -> datetime:
    return datetime.now(UTC)


def run_id(day: datetime, rest: str) -> str:
    return f"{day:%Y%m%d}T{rest}"


def event(run: str, name: str = "run_started") -> str:
    return f'{{"ts":"2025-12-19T05:00:00Z","event":"{name}","run_id":"{run}","job":"live-score"}}'


def words_of(line: str) -> list[str]:
    """Split as bash does for COMP_WORDS: at blanks, and at `=` and `:`, which become words."""
    words = re.findall(r"\"[^\"]*\"?|(?:\\.|[^\s=:\"\\])+|[=:]+", line)
    return [*words, ""] if line.endswith(" ") else words


BASH_CALL = """
COMP_LINE=$1 COMP_POINT=${{#1}}; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
{prelude}
_orchctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def in_bash(box: Box, line: str, *, prelude: str = "", words: list[str] | None = None, **env: str) -> list[str]:
    call = f". {str(box.script('bash'))!r}\n{BASH_CALL.format(prelude=prelude)}"
    argv = ["/bin/bash", "--norc", "-c", call, "bash", line, *(words or words_of(line))]
    done = subprocess.run(argv, env=box.env(**env), cwd=box.home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # Bash wants only what follows the last `=` or `:` of the word: here the whole word is put together again.
    kept = "" if words else (re.search(r"(\S*[=:])?[^\s=:]*$", line) or [""])[1] or ""
    return [kept + reply for reply in done.stdout.splitlines() if reply]


def in_fish(box: Box, line: str, **env: str) -> list[str]:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    argv = ["fish", "--no-config", "-c", f"source {str(box.script('fish'))!r}; complete -C $argv[1]", "--", line]
    done = subprocess.run(argv, env=box.env(**env), cwd=box.home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [offered.split("\t")[0] for offered in done.stdout.splitlines()]


# Zsh completes only in its line editor; each compadd also writes what matched to a file.
ZSH_SETUP = """
PS1='%% ' PROMPT_EOL_MARK=
fpath=("$ZDOTDIR" $fpath)
autoload -Uz compinit && compinit -u -D
compadd() {
    local -a matched
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\\ * ]]; then
        builtin compadd -A matched "$@"
        (( $#matched )) && print -rl -- $IPREFIX$^matched >> $ZDOTDIR/offered
    fi
    builtin compadd "$@"
}
finished() { print "done $turn" >> $ZDOTDIR/offered; BUFFER= }
setup() { . $ZDOTDIR/setup; }
zle -N setup; zle -N finished
bindkey '^G' setup '^T' finished '^I' list-choices
"""


class Zsh:
    """A zsh that stays, for its start costs half a second."""

    def __init__(self, folder: Path, prelude: str = "") -> None:
        if not shutil.which("zsh"):
            pytest.skip("zsh is not installed")
        self.offered = folder / "offered"
        self.turn = 0
        (folder / "_orchctl").write_text(completions.script("zsh", ROOT))
        (folder / ".zshrc").write_text(ZSH_SETUP + prelude)
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "ZDOTDIR": str(folder),
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
        }
        self.child: pexpect.spawn[str] = pexpect.spawn(
            "zsh", ["-d", "-i"], env=env, timeout=10, dimensions=(200, 200), encoding="utf-8"
        )
        self.child.expect("% ")

    def ask(self, box: Box, line: str, **env: str) -> list[str]:
        values = box.env(**env)
        self.turn += 1
        exported = f"HOME={values['HOME']!r} ORCHCTL_STATE_DIR={values['ORCHCTL_STATE_DIR']!r}"
        zone = f"export TZ={values['TZ']}" if "TZ" in values else "unset TZ"
        (self.offered.parent / "setup").write_text(f"export {exported}\ncd\n{zone}\nturn={self.turn}\n")
        self.offered.write_text("")
        self.child.send(f"\x07{line}\t\x14")
        until = time.monotonic() + 10
        while not self.offered.read_text().endswith(f"done {self.turn}\n"):
            # Whatever zsh draws must be taken from it, or it waits.
            with suppress(pexpect.TIMEOUT):
                self.child.read_nonblocking(100_000, 0.01)
            assert time.monotonic() < until
        return self.offered.read_text().splitlines()[:-1]


@functools.cache
def one_zsh() -> Zsh:
    folder = Path(tempfile.mkdtemp(prefix="orchctl-zsh-"))
    zsh = Zsh(folder)
    atexit.register(shutil.rmtree, folder)
    atexit.register(zsh.child.close, force=True)
    return zsh


def in_zsh(box: Box, line: str, **env: str) -> list[str]:
    return one_zsh().ask(box, line, **env)


ASK: dict[str, Callable[..., list[str]]] = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}


def traced(box: Box, calls: str, *words: str, **env: str) -> tuple[list[str], list[str]]:
    """Return what was offered for a line, and the lines of strace that start a process or a program."""
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    trace = box.home / "trace"
    call = f". {str(box.script('bash'))!r}\n{BASH_CALL.format(prelude='')}"
    argv = [strace, "-f", "-o", str(trace), "-e", f"trace={calls}", "/bin/bash", "--norc", "-c", call, "bash"]
    done = subprocess.run(
        [*argv, " ".join(words), *words], env=box.env(**env), capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr}")
    started = [line for line in trace.read_text().splitlines() if re.search(rf"({calls.replace(',', '|')})\(", line)]
    return done.stdout.split(), started


SHOW_ARGUMENTS = {
    "bash": "orchctl() { printf '<%s>' \"$@\"; echo; }",
    "fish": "function orchctl; printf '<%s>' $argv; echo; end",
}
SHOW_ARGUMENTS["zsh"] = SHOW_ARGUMENTS["bash"]
START = {"bash": ["--norc", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
READ = {
    "bash": ". ~/script.bash",
    "zsh": "autoload -Uz compinit; compinit -u -D; . ~/script.zsh",
    "fish": ". ~/script.fish",
}


@dataclass
class Terminal:
    child: pexpect.spawn[str]

    def run(self, typed: str) -> str:
        """Type a line (`\t` is Tab) and Enter; return the arguments as orchctl would get them."""
        self.child.send(typed)
        # Enter must not come before the shell has answered the last Tab.
        time.sleep(0.3)
        self.child.send("\r")
        self.child.expect(r"(<[^\r\n]*>)\s*\r?\n")
        return str(self.child.match.group(1))  # type: ignore[union-attr]


@contextmanager
def opened(box: Box, shell: str) -> Iterator[Terminal]:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    box.script(shell)
    env = {**box.env(), "PS1": "$ "}
    child: pexpect.spawn[str] = pexpect.spawn(
        shell, START[shell], env=env, cwd=str(box.home), timeout=10, encoding="utf-8", dimensions=(40, 160)
    )
    try:
        child.send(f"{READ[shell]}\r")
        child.send(f"{SHOW_ARGUMENTS[shell]}\r")
        child.send("orchctl 'is ready'\r")
        child.expect("<is ready>")
        yield Terminal(child)
    finally:
        child.close(force=True)
