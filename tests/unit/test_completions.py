"""Shell completion in real shells: what is offered, and that nothing of it is ever run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import pytest
import typer
from typer.testing import CliRunner

from completing import ASK, JOBS, ROOT, Box, event, run_id, today
from generated import GENERATED, is_current
from orchctl.cli import completion_scripts, completion_tree, completions
from orchctl.cli.app import app, hoist
from orchctl.cli.completion_tree import SHELLS, Argument, Command, Option, Value
from orchctl.core.manifest import STATUSES

TREE = completion_tree.read(ROOT, anywhere=lambda name: hoist(["command", name])[0] == name)
KEPT = {"bash": "completions/orchctl.bash", "zsh": "completions/_orchctl", "fish": "completions/orchctl.fish"}
EVERYWHERE = {name for option in TREE.everywhere for name in option.names}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box.under(tmp_path)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def below(*path: str) -> Command:
    return dict(TREE.walk())[path]


def long_options(*path: str) -> set[str]:
    own = {name for option in below(*path).options for name in option.names}
    return {name for name in own | EVERYWHERE if name.startswith("--")}


# ------------------------------------------------------------------------------------------------ the generated files


@pytest.mark.parametrize("name", SHELLS)
def test_the_kept_script_is_what_the_command_prints(name: str) -> None:
    assert GENERATED[KEPT[name]]() == completions.script(name, ROOT)
    assert is_current(KEPT[name]), "python -m tests.generated --write"


def test_there_is_a_script_for_each_shell() -> None:
    assert tuple(completion_scripts.SCRIPTS) == SHELLS


@pytest.mark.parametrize("path", [path for path, _ in TREE.walk()], ids=" ".join)
def test_the_tree_holds_what_the_help_says(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*path, "--help"], prog_name="orchctl", env={"COLUMNS": "200"})
    options, _, commands = done.output.partition("\nOptions:\n")[2].partition("\nCommands:\n")
    lines = re.findall(r"^  (-[^\s,]+(?:(?:, | / )-[^\s,]+)*)", options, re.M)
    said = {name for line in lines for name in re.split(", | / ", line)}
    named = set(re.findall(r"^  (\S+)", commands.partition("\n\n")[0], re.M))
    command = below(*path)
    assert {name for option in (*command.options, *command.everywhere) for name in option.names} == said
    assert {child.name for child in command.commands} == named


def test_what_stands_anywhere_is_what_hoist_moves() -> None:
    assert {"--config", "--state-dir", "--api-url", "--json", "--no-color", "--verbose"} == EVERYWHERE


def test_a_new_command_needs_only_its_metavars() -> None:
    new = typer.Typer(name="orchctl")

    @new.command()
    def other(
        names: Annotated[list[str], typer.Argument(metavar="[JOB]...")],
        tag: Annotated[list[str] | None, typer.Option("--tag")] = None,
    ) -> None:
        """Do this. And that."""

    @new.command()
    def last() -> None:
        pass

    tree = completion_tree.read(typer.main.get_command(new), anywhere=lambda _: False)
    found = tree.commands[0]
    assert (found.name, found.help) == ("other", "Do this")
    assert found.arguments == (Argument(Value("job", "JOB"), None),)
    assert found.options[0] == Option(("--tag",), "", Value("none", "TAG"), repeatable=True)


def test_a_name_that_no_script_could_hold_is_refused() -> None:
    odd = typer.Typer(name="orchctl")
    odd.command("a'b")(lambda: None)
    odd.command("other")(lambda: None)
    with pytest.raises(ValueError, match="completion script"):
        completion_tree.read(typer.main.get_command(odd), anywhere=lambda _: False)


# ---------------------------------------------------------------------------------------------------- what is offered


@pytest.mark.parametrize("path", [path for path, command in TREE.walk() if command.commands], ids=" ".join)
def test_commands_and_subcommands(box: Box, shell: str, path: tuple[str, ...]) -> None:
    offered = ASK[shell](box, " ".join(("orchctl", *path, "")))
    assert set(offered) == {command.name for command in below(*path).commands}


@pytest.mark.parametrize("path", [("run",), ("runs",), ("runs", "logs"), ("host", "up")], ids=" ".join)
def test_options(box: Box, shell: str, path: tuple[str, ...]) -> None:
    assert set(ASK[shell](box, " ".join(("orchctl", *path, "--")))) == long_options(*path)


CASES: dict[str, list[str]] = {
    "orchctl ru": ["run", "runs"],
    "orchctl runs sh": ["show"],
    "orchctl run li": JOBS,
    "orchctl jobs li": JOBS,
    "orchctl runs --job li": JOBS,
    "orchctl runs --job=li": [f"--job={job}" for job in JOBS],
    "orchctl run --wait li": JOBS,
    "orchctl run --date 2025-12-19 li": JOBS,
    "orchctl run --date=2025-12-19 --as-of 2025-12-19T05:00:00Z li": JOBS,
    "orchctl plan live-score li": ["live-scrape"],
    "orchctl sync live-score live-scrape li": [],
    "orchctl run live-score li": [],
    "orchctl runs --status fa": ["failed"],
    "orchctl runs --status=fa": ["--status=failed"],
    "orchctl runs --status ": list(STATUSES),
    "orchctl runs --status=": [f"--status={status}" for status in STATUSES],
    "orchctl runs --limit ": [],
    "orchctl completions ": list(SHELLS),
    "orchctl --json run li": JOBS,
    "orchctl --config some/where run li": JOBS,
    "orchctl --config=some/where --api-url http://127.0.0.1:4200/api run li": JOBS,
    "orchctl run --config elsewhere --verbose li": JOBS,
    "orchctl run --state-dir /nowhere li": [],
    "orchctl --state-dir=/nowhere run li": [],
    "orchctl run live-score --w": ["--wait"],
    "orchctl run --wait -- --w": [],
    "orchctl runs logs --fo": ["--follow"],
    "orchctl run -- li": JOBS,
    "orchctl run -- --w": [],
    "orchctl sync -- live-score li": ["live-scrape"],
    "orchctl nonsense li": [],
    "orchctl runs nonsense sh": [],
}


@pytest.mark.parametrize("line", CASES, ids=lambda line: str(line).removeprefix("orchctl "))
def test_cases(box: Box, shell: str, line: str) -> None:
    assert sorted(ASK[shell](box, line)) == sorted(CASES[line])


def test_assets_may_hold_dots_and_only_names_are_offered(box: Box, shell: str) -> None:
    box.assets("rates.score\nrates.features_live\n$(touch ran)\n../rates\nsim.run\n")
    assert sorted(ASK[shell](box, "orchctl publish show rates.")) == ["rates.features_live", "rates.score"]
    assert ASK[shell](box, "orchctl publish rollback --date 2025-12-19 si") == ["sim.run"]
    assert ASK[shell](box, "orchctl publish promote sim.run r") == []
    assert not (box.home / "ran").exists()


def test_contracts_and_then_files(box: Box, shell: str) -> None:
    box.names("contracts", "rates\nrates.features_live\n$(touch ran)\n")
    (box.home / "table.parquet").touch()
    assert sorted(ASK[shell](box, "orchctl contract check ra")) == ["rates", "rates.features_live"]
    assert ASK[shell](box, "orchctl contract check rates ta") in (["table.parquet"], [])  # bash leaves it to readline
    assert not (box.home / "ran").exists()


def test_an_option_is_offered_once(box: Box, shell: str) -> None:
    assert "--wait" not in ASK[shell](box, "orchctl run --wait --")


def test_where_nothing_else_can_follow_the_options_are_offered(box: Box, shell: str) -> None:
    assert set(ASK[shell](box, "orchctl check ")) == long_options("check") | {"-h"}


def test_a_state_directory_on_the_line_wins(box: Box, shell: str) -> None:
    other = box.home / "other state"
    box.jobs("elsewhere\n", state=other)
    for given in (f'--state-dir "{other}"', f'--state-dir="{other}"', "--state-dir ~/other\\ state"):
        assert ASK[shell](box, f"orchctl {given} run ") == ["elsewhere"]
        assert ASK[shell](box, f"orchctl run {given} ") == ["elsewhere"]


def test_the_state_directory_has_a_default(box: Box, shell: str) -> None:
    box.jobs("at-home\n", state=box.home / ".local" / "state" / "orchctl")
    assert ASK[shell](box, "orchctl run ", ORCHCTL_STATE_DIR="") == ["at-home"]


def test_dates_are_today_and_yesterday(box: Box, shell: str) -> None:
    before = datetime.now().astimezone()
    offered = ASK[shell](box, "orchctl run --date ")
    assert offered in [
        [f"{day:%Y-%m-%d}", f"{day - timedelta(days=1):%Y-%m-%d}"] for day in (before, datetime.now().astimezone())
    ]


def test_instants_are_whole_ones(box: Box, shell: str) -> None:
    day = today()
    offered = ASK[shell](box, f"orchctl run --as-of {day:%Y-%m-%d}T00:0")
    assert offered == [f"{day:%Y-%m-%d}T00:00:00Z"]


# Midnight is far from both clocks here, whatever the time of the test: one of the two zones is a day ahead.
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_days_follow_the_clock_that_is_meant(box: Box, shell: str, zone: str) -> None:
    local, utc = datetime.now(ZoneInfo(zone)), today()
    assert ASK[shell](box, "orchctl run --date ", TZ=zone)[0] == f"{local:%Y-%m-%d}"
    assert ASK[shell](box, "orchctl run --as-of ", TZ=zone)[0] == f"{utc:%Y-%m-%d}T00:00:00Z"


def test_runs_of_today_and_yesterday_the_newest_first(box: Box, shell: str) -> None:
    day = today()
    eve, past = day - timedelta(days=1), day - timedelta(days=2)
    newest, older = run_id(day, "050000Z-3f9a1c"), run_id(day, "045959Z-ffffff")
    last = run_id(eve, "230000Z-000001")
    box.events("data one", day, event(older), event(older, "run_finished"), "torn {", event("$(touch ran)"))
    box.events("data two", day, '{"event": "run_started", "run_id": "' + newest + '"}')
    box.events("data two", eve, event(last), event("20251219T050000Z-*"))
    box.events("data two", past, event(run_id(past, "050000Z-3f9a1c")))
    assert ASK[shell](box, "orchctl runs show ") == [newest, older, last]
    assert ASK[shell](box, f"orchctl runs logs {run_id(day, '05')}") == [newest]


# --------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(("words", "code"), [([], 2), (["tcsh"], 2), (["bash", "more"], 2)])
def test_a_wrong_shell_is_a_usage_error_that_names_the_shells(words: list[str], code: int) -> None:
    done = CliRunner().invoke(app, ["completions", *words], prog_name="orchctl")
    assert done.exit_code == code
    if len(words) < 2:
        assert all(name in done.stderr for name in SHELLS)
    assert done.stdout == ""


def test_the_command_needs_no_catalog_and_nothing_heavy(tmp_path: Path, shell: str) -> None:
    code = (
        "import sys\nfrom orchctl.cli.app import main\ntry: main(['completions', sys.argv[1]])\n"
        "finally: print(*sorted({'httpx', 'rich', 'prefect'} & set(sys.modules)), file=sys.stderr)"
    )
    env = {**os.environ, "ORCHCTL_CONFIG": "/nowhere", "HOME": str(tmp_path)}
    argv = [sys.executable, "-c", code, shell]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert done.stdout == completions.script(shell, ROOT)


def test_the_scripts_are_built_without_pydantic() -> None:
    code = (
        "import sys, typer\nfrom orchctl.cli.app import app\nfrom orchctl.cli import completions\n"
        "completions.script('zsh', typer.main.get_command(app))\nprint('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_json_holds_the_script() -> None:
    done = CliRunner().invoke(app, ["--json", "completions", "fish"], prog_name="orchctl")
    assert json.loads(done.output)["data"] == {"shell": "fish", "script": completions.script("fish", ROOT)}


def test_each_script_is_good_syntax(box: Box, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(box.script(shell))], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
