"""How long the command line takes before it does anything, and how much memory."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harness import ROOT, Aim, Options, Ratio, Report, Used, alternate, clean_env, folder, launch, ms

BARE, TYPER, PREFECT, BASH = "python -c pass", 'python -c "import typer"', "prefect --version", "bash -c true"
HELP, TAB = "orchctl --help", "bash: 100 times TAB on a job name"
COMPLETION = ROOT / "completions" / "orchctl.bash"
# What bash does on TAB: the script is read once a shell, then its function is called, here a hundred times.
_PRESS_TAB = """
source "$1"
COMP_WORDS=(orchctl run live) COMP_CWORD=2 COMP_LINE="orchctl run live" COMP_POINT=16
function=$(complete -p orchctl); function=${function##*-F }; function=${function%% *}
for _ in {1..100}; do "$function" orchctl live run; done
((${#COMPREPLY[@]})) || exit 9
"""


def run(options: Options) -> Report:
    with folder() as base:
        env = clean_env(
            ORCHCTL_CONFIG=str(ROOT / "config"), ORCHCTL_STATE_DIR=str(base / "state"), PREFECT_HOME=str(base / "home")
        )
        found = _measure(_commands(), env, base, rounds=30 if options.full else 15)
    report = Report("startup", ("Command", "Wall", "Peak RSS", "Wall against bare Python"))
    bare = [used.wall for used in found[BARE]]
    for name, used in found.items():
        wall = [each.wall for each in used]
        rss = statistics.median(each.rss for each in used)
        # The launcher itself has the size of a bare Python: what is smaller cannot be seen.
        size = "" if name in {BASH, TAB} else f"{rss:.1f} MiB"
        report.row(f"`{name}`", ms(wall), size, Ratio.of(wall, bare))
        report.raw[name] = [[each.wall, each.cpu, each.rss] for each in used]
    report.aims.append(_aim(found))
    if TAB in found:
        each = [(tab.wall - bash.wall) / 100 for tab, bash in zip(found[TAB], found[BASH], strict=True)]
        report.notes.append(
            f"One TAB on a job name in a running shell: {ms(each)}, {Ratio.of(each, bare)} bare Pythons."
        )
    else:
        report.notes.append("There is no completions/orchctl.bash: TAB is left out.")
    return report


def _commands() -> dict[str, list[str]]:
    python, bin_directory = sys.executable, Path(sys.executable).parent
    orchctl = str(bin_directory / "orchctl")
    commands = {
        BARE: [python, "-c", "pass"],
        TYPER: [python, "-c", "import typer"],
        HELP: [orchctl, "--help"],
        "orchctl check": [orchctl, "check"],
        "orchctl runs": [orchctl, "runs"],
        PREFECT: [str(bin_directory / "prefect"), "--version"],
    }
    if COMPLETION.exists():
        commands[BASH] = ["bash", "-c", "true"]
        commands[TAB] = ["bash", "--norc", "-c", _PRESS_TAB, "bash", str(COMPLETION)]
    return commands


def _measure(commands: dict[str, list[str]], env: dict[str, str], cwd: Path, *, rounds: int) -> dict[str, list[Used]]:
    cases: dict[str, Callable[[], Used]] = {
        name: partial(launch, argv, env=env, cwd=cwd) for name, argv in commands.items()
    }
    return alternate(cases, rounds=rounds)


def _aim(found: dict[str, list[Used]]) -> Aim:
    """`--help` against four times bare Python plus what importing Typer adds to it."""
    allowed = [4 * b.wall + (t.wall - b.wall) for b, t in zip(found[BARE], found[TYPER], strict=True)]
    ratio = Ratio.of([used.wall for used in found[HELP]], allowed)
    return Aim(
        "`orchctl --help` within four bare Pythons and Typer's own import",
        f"{ratio} of that allowance",
        ratio.median <= 1,
    )
