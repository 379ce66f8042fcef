"""A server that asks for a key: every command works with it, says clearly what is missing without, and shows none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authed import KEY, SECRETS, WRONG, Argv, Authed, argv_watched, authed, files_with_secrets
from command_tree import commands
from orchctl.core.installation import AUTH_CLIENT
from support import eventually

REFUSED = 12
ALERTS = """\
version = 1
[watchdog]
min_free_percent = 1
[channels.ops]
kind = "webhook"
url_env = "NOT_SET"
[routes.all]
events = ["failed"]
channels = ["ops"]
"""


@dataclass(frozen=True)
class Case:
    """How a command is called, and how it ends with the key and without.

    `words` are those after its name; RUN stands for a run that failed. A code None: whatever it is, it has nothing to
    do with Prefect. `says`: without the key it does the rest, and says why Prefect was not asked.
    """

    words: str = ""
    with_key: int | None = 0
    without: int | None = REFUSED
    says: bool = False


def local(words: str = "", code: int | None = 0) -> Case:
    """Return how a command is called that needs no server."""
    return Case(words, code, code)


def tolerant(words: str = "", code: int | None = 0, without: int | None = None) -> Case:
    """Return how a command is called that does without the server what it can."""
    return Case(words, code, code if without is None else without, says=True)


DAYS = "hello --start 2025-12-01 --end 2025-12-01"
CASES = {
    "check": local(),
    "jobs": local(),
    "plan": Case(),
    "sync": Case(),
    "status": tolerant(),
    "cutover": local("hello --dry-run", 2),
    "confirm": local("hello", 2),
    "rollback": local("hello --dry-run"),
    "recover": local(),
    "run": Case("hello"),
    "backfill": Case(DAYS),
    "legacy": local(code=None),
    "completions": local("bash"),
    "doctor": tolerant("auth", 0, 3),
    "runs": local(),
    "runs show": local("RUN"),
    "runs logs": local("RUN"),
    "runs retry": Case("RUN"),
    "runs reindex": local(),
    "runs audit": local(),
    "publish show": local("a.b --date 2025-12-01", 2),
    "publish promote": local("a.b --date 2025-12-01 --yes", 2),
    "publish rollback": local("a.b --date 2025-12-01 --yes", 2),
    "contract list": local(),
    "contract check": local("a.b nowhere.csv", 2),
    "alerts list": tolerant(),
    "alerts apply": Case(),
    "alerts test": local(code=1),
    "host up": Case(),
    "host status": tolerant(without=1),
    "host logs": local("server --lines 3"),
    "host restart": local("nobody", None),
    "host backup": local("--to TO"),
    "host verify": local("nowhere.tar.gz", None),
    "host restore": local("nowhere.tar.gz --dry-run", None),
    "host install": local("--dry-run", None),
    "host uninstall": local("--yes", None),
    "host database move": local(code=None),
    "host upgrade": local("--dry-run", None),
    "host prune": local("--dry-run", None),
    "import systemd": local(code=None),
    "import cron": local("crontab", None),
    "schedule next": local("hello"),
    "schedule compare": local("hello", 2),
    "watchdog": tolerant(code=None, without=3),
    "watchdog install": local("--dry-run", None),
    "watchdog status": local(code=None),
}
UNIT = "a unit of `host install` calls it, which has the key from its settings: see tests/sandboxed"
NOT_CALLED = {
    **dict.fromkeys(
        ("host unit ready", "host unit before-worker", "host unit after-worker", "host unit recover"), UNIT
    ),
    "demo": "it starts a server of its own, in a folder of its own",
    "host down": "it ends the server of this test",
    "watchdog uninstall": "it changes the systemd of the host that runs the tests",
}


@pytest.fixture(scope="module")
def argv() -> Iterator[Argv]:
    with argv_watched() as found:
        yield found


@pytest.fixture(scope="module")
def here(argv: Argv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Authed, str]]:
    """The project, and a run that failed; the jobs print the environment that they are given."""
    with authed(tmp_path_factory.mktemp("authed")) as project:
        project.schedules["yearly"] = {"cron": "0 5 1 1 *"}
        for name, script in {"hello": "env", "bad": "env; exit 3"}.items():
            project.jobs[name] = {"command": [project.script(f"{name}.sh", script)], "schedules": ["yearly"]}
        project.write()
        (project.root / "config" / "alerts.toml").write_text(ALERTS)
        (project.root / "crontab").write_text("5 4 * * * /bin/true\n")
        project.orchctl("sync")
        run = project.json("run", "bad")
        eventually(lambda: _status(project, run["run_id"]) == "failed")
        yield project, run["run_id"]


def _status(project: Authed, run: str) -> Any:
    shown = project.json("runs", "show", run, check=None)
    return shown["run"]["status"] if shown is not None else None


def test_every_command_has_a_case() -> None:
    assert {*CASES, *NOT_CALLED} == set(commands())


@pytest.mark.campaign
@pytest.mark.parametrize("command", CASES)
def test_every_command_works_with_the_key_and_says_what_is_missing_without(
    here: tuple[Authed, str], command: str
) -> None:
    (project, run), case = here, CASES[command]
    places = {"RUN": run, "TO": str(project.root / "backups")}
    words = [*command.split(), *(places.get(word, word) for word in case.words.split())]
    for key in (None, WRONG, KEY):
        done = project.by(key, *words)
        said = done.stdout + done.stderr
        wanted = case.with_key if key == KEY else case.without
        assert done.returncode == wanted if wanted is not None else done.returncode not in {REFUSED, 13}, said
        assert not [secret for secret in SECRETS if secret in said]
        named = AUTH_CLIENT in said or "refuses this user" in said
        assert named == (key != KEY and (case.says or case.without == REFUSED)), said
        if wanted == REFUSED:
            *progress, error, hint = done.stderr.strip().splitlines()
            assert not [line for line in progress if "error" in line]
            assert error.startswith("error: the Prefect API at ")
            assert AUTH_CLIENT in hint


@pytest.mark.campaign
def test_the_key_is_nowhere_to_be_seen(here: tuple[Authed, str], argv: Argv, tmp_path: Path) -> None:
    project, run = here
    # The search finds what is there to be found.
    (tmp_path / "x").write_text(f"key={KEY}")
    (tmp_path / "settings.env").write_text(f"key={KEY}")
    assert files_with_secrets(tmp_path) == [tmp_path / "x"]
    assert files_with_secrets(project.root) == []
    assert argv.seen == set()
    log = project.orchctl("runs", "logs", run).stdout
    assert "ORCHCTL_RUN_ID=" in log
    assert AUTH_CLIENT not in log
