"""`env_files` and `user` of a job: what its command sees, and when it is not started."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from alert_cases import read
from desk import LEGACY, SLOT, Desk
from orchctl.adapters.accounts import Account
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.core.alerts_applied import AppliedAlerts
from orchctl.core.catalog_steps import AsOfMode
from orchctl.runner import environment
from orchctl.runner.process import CommandNotStarted
from orchctl.runner.shapes import Host, Outcome
from orchctl.wiring import runs

OTHER = "nobody"
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A desk that other users may look at."""
    root = Path(tempfile.mkdtemp(prefix="orchctl-test-"))
    root.chmod(0o755)
    yield Desk(root)
    shutil.rmtree(root)


def seen(desk: Desk) -> dict[str, str]:
    """Return the environment that the command wrote down."""
    found: dict[str, str] = json.loads((desk.root / "seen.json").read_text())
    return found


def writes_down(desk: Desk, **fields: Any) -> Outcome:
    code = "import json, os; json.dump(dict(os.environ), open('seen.json', 'w'))"
    outcome = desk.run(desk.job("python3", "-c", code, **fields))
    assert outcome.status == "success", outcome
    return outcome


def write(desk: Desk, name: str, text: str) -> str:
    path = desk.root / name
    path.write_text(text)
    return str(path)


def test_files_win_over_env_and_later_ones_over_earlier(desk: Desk) -> None:
    first, second = write(desk, "a.env", "A=file\nB=first\nC=only\n"), write(desk, "b.env", "B='second one'\n")
    writes_down(desk, env={"A": "catalog", "D": "catalog {game_date}"}, env_files=(first, second))
    found = seen(desk)
    assert [found[key] for key in "ABCD"] == ["file", "second one", "only", "catalog 2025-12-19"]


def test_nothing_in_a_file_is_a_template_or_a_variable(desk: Desk) -> None:
    writes_down(desk, env_files=(write(desk, "a.env", "A={game_date} $PATH\n"),))
    assert seen(desk)["A"] == "{game_date} $PATH"


def test_what_is_ours_wins_over_a_file(desk: Desk) -> None:
    path = write(desk, "a.env", "ORCHCTL_RUN_ID=forged\nORCHCTL_RUN_TOKEN=forged\nPATH=/usr/bin:/bin:/nowhere\n")
    outcome = writes_down(desk, env_files=(path,))
    found = seen(desk)
    assert found["ORCHCTL_RUN_ID"] == outcome.run_id
    assert found["ORCHCTL_RUN_TOKEN"] != "forged"
    assert found["PATH"] == "/usr/bin:/bin:/nowhere"


def test_a_file_may_be_missing_only_with_a_minus(desk: Desk) -> None:
    missing = str(desk.root / "missing.env")
    writes_down(desk, env_files=(f"-{missing}", write(desk, "a.env", "A=1\n")))
    assert seen(desk)["A"] == "1"

    outcome = desk.run(desk.job(env_files=(missing,)), "two", slot=None)
    manifest = desk.manifest("two")
    message = f"the environment file {missing} cannot be read: No such file or directory"
    assert (outcome.status, outcome.reason) == ("failed", message)
    assert manifest["error"]["type"] == "NotStarted"
    assert desk.ran() == 0
    assert "hint: a leading - in env_files means that it may be missing" in desk.log


@pytest.mark.parametrize("kind", ["folder", "pipe", "bytes", "nul"])
def test_a_file_that_cannot_be_read_is_passed_over_only_with_a_minus(desk: Desk, kind: str) -> None:
    path = desk.root / "odd"
    make: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "bytes": lambda: path.write_bytes(b"A=\xff\n"),
        "nul": lambda: path.write_bytes(b"A=1\0\n"),
    }
    make[kind]()
    outcome = desk.run(desk.job(env_files=(str(path),)), "one")
    assert outcome.status == "failed"
    assert str(outcome.reason).startswith(f"the environment file {path} cannot be read: ")
    assert desk.run(desk.job(env_files=(f"-{path}",)), "two", slot=None).status == "success"
    assert any(line.startswith(f"the environment file {path} is passed over: ") for line in desk.log)


@pytest.mark.parametrize("minus", ["", "-"])
def test_a_file_that_somebody_else_could_have_written_is_not_read(desk: Desk, minus: str) -> None:
    path = write(desk, "a.env", "LD_PRELOAD=/tmp/theirs.so\n")
    Path(path).chmod(0o666)
    outcome = desk.run(desk.job(env_files=(minus + path,)))
    message = f"the environment file {path} is not read: somebody else could have written it: "
    assert (outcome.status, outcome.reason) == ("failed", f"{message}{path} may be written by anybody")
    assert f"hint: look at what it says, then: chmod go-w {path}" in desk.log
    assert desk.ran() == 0


@needs_root
def test_a_file_of_the_jobs_own_user_is_read_and_of_another_is_not(desk: Desk) -> None:
    job, daemon = desk.job("true", user="daemon"), pwd.getpwnam("daemon").pw_uid
    path = write(desk, "a.env", "A=1\n")
    os.chown(path, daemon, 0)
    assert desk.run(job.model_copy(update={"env_files": (path,)})).status == "success"
    os.chown(path, pwd.getpwnam(OTHER).pw_uid, 0)
    outcome = desk.run(job.model_copy(update={"env_files": (path,)}), "two", slot=None)
    assert f"{path} belongs to nobody, not to root" in (outcome.reason or "")


def test_a_file_is_read_at_the_start_of_each_attempt(desk: Desk) -> None:
    path = write(desk, "a.env", "CODE=1\n")
    job = desk.job("sh", "-c", "exit $CODE", env_files=(path,))
    assert desk.run(job).exit_code == 1
    write(desk, "a.env", "CODE=0\n")
    assert desk.run(job, attempt=2).status == "success"


def test_a_secret_of_a_file_is_masked_and_what_looks_like_none_is_not(desk: Desk) -> None:
    path = write(desk, "a.env", "DB_PASSWORD=hunter2-hunter2\nSEASON=2025\n")
    desk.run(desk.job("sh", "-c", "echo $DB_PASSWORD in $SEASON", env_files=(path,)))
    (log,) = desk.data.rglob("attempt-1.log")
    assert log.read_text() == "*** in 2025\n"
    assert not [line for line in desk.log if "hunter2" in line]


@pytest.mark.parametrize("user", [None, pytest.param(OTHER, marks=needs_root)])
def test_the_secrets_of_alerts_reach_no_command_and_nothing_that_it_leaves(desk: Desk, user: str | None) -> None:
    address = "https://pager.example/T0KEN-of-the-pager"
    desk.changes = {
        "environment": {"PATH": "/usr/bin:/bin", "PAGER": address, "HARMLESS": "harmless"},
        "hidden": frozenset({"PAGER"}),
    }
    script = f"env; echo 'it was {address}'"
    outcome = desk.run(desk.job("sh", "-c", script, user=user))
    assert outcome.status == "success", outcome
    (log,) = desk.data.rglob("attempt-1.log")
    said = log.read_text()
    assert "HARMLESS=harmless" in said
    assert "PAGER=" not in said
    assert "it was ***" in said
    left = [path.read_text() for path in desk.data.rglob("*") if path.is_file()]
    assert not [each for each in [*left, *desk.log] if "T0KEN" in each]


def test_a_variable_of_alerts_that_a_job_sets_itself_is_its_own(desk: Desk) -> None:
    desk.changes = {"environment": {"PATH": "/usr/bin:/bin", "PAGER": "theirs"}, "hidden": frozenset({"PAGER"})}
    writes_down(desk, env={"PAGER": "its-own-address"})
    assert seen(desk)["PAGER"] == "its-own-address"


def test_a_worker_knows_the_secrets_of_the_alerts_that_are_in_force(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    AlertBoxes(desk.state).apply(AppliedAlerts("mine", "http://ui", read()))
    monkeypatch.setenv("ORCHCTL_STATE_DIR", str(desk.state))
    monkeypatch.setenv("SLACK_URL", "https://hooks.example/T0KEN")
    host = runs.host(Host, later_due=lambda _due: None)
    assert host.hidden == {"SLACK_URL", "SMTP_PASSWORD", "DEAD_MAN_URL"}
    asking = desk.job("true", as_of={"now": AsOfMode(command=("sh", "-c", "test -z $SLACK_URL && date -u +%FT%TZ"))})
    assert host.as_of(asking, "now", date(2025, 12, 19), {}).year > 2000


def test_a_run_that_only_observes_says_that_it_could_not_be_started(desk: Desk) -> None:
    outcome = desk.run(desk.job(env_files=("/nowhere/x.env",), legacy=LEGACY))
    assert outcome.status == "observed"
    assert any("could not be started: the environment file /nowhere/x.env" in line for line in desk.log)


def test_the_workers_own_user_is_nothing_to_become(desk: Desk) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert environment.who(me) == environment.who(None) == environment.Who()
    writes_down(desk, user=me)
    assert not list(desk.data.rglob(environment.OWN_FOLDER))


def test_a_user_that_does_not_exist_fails_the_run(desk: Desk) -> None:
    outcome = desk.run(desk.job(user="nobody-of-that-name"))
    assert (outcome.status, outcome.reason) == (
        "failed",
        "this job runs as nobody-of-that-name, and this host has no such user",
    )
    assert (desk.manifest()["error"]["type"], desk.ran()) == ("NotStarted", 0)


def as_other(ask: Callable[[], str]) -> str:
    """Return what `ask` answers in a process of another user's."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            entry = pwd.getpwnam(OTHER)
            os.setgroups([])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
            os.write(writing, ask().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


@needs_root
def test_a_worker_that_is_not_root_becomes_nobody_else() -> None:
    def ask() -> str:
        unfit = environment.who("daemon").unfit
        assert unfit is not None
        return f"{unfit.message}; {unfit.hint}; {environment.who(OTHER)}"

    assert as_other(ask) == (
        f"this job runs as daemon, the worker runs as {OTHER}; start the worker as daemon or as root, or leave `user` "
        f"out of the catalog; {environment.Who()}"
    )


@needs_root
def test_a_file_that_the_worker_may_not_read(desk: Desk) -> None:
    path = desk.root / "secret.env"
    path.write_text("A=1\n")
    path.chmod(0o600)
    unfit = as_other(lambda: str(environment.variables([str(path)]).unfit))
    assert unfit == f"the environment file {path} cannot be read: Permission denied"


@needs_root
def test_root_becomes_the_user_with_its_groups_and_surroundings(desk: Desk) -> None:
    entry = pwd.getpwnam(OTHER)
    code = (
        "import json, os; json.dump(dict(ids=[os.getresuid(), os.getresgid(), sorted(os.getgroups())], "
        "env=dict(os.environ)), open(os.environ['ORCHCTL_RUN_DIR'] + '/seen.json', 'w'))"
    )
    desk.changes["environment"] = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "USER": "root",
        "XDG_RUNTIME_DIR": "/run/user/0",
        "XDG_CONFIG_HOME": "/root/.config",
        "PREFECT_API_KEY": "x",
        "LANG": "C.UTF-8",
    }
    path = write(desk, "a.env", "B=2\n")
    Path(path).chmod(0o600)
    outcome = desk.run(desk.job("python3", "-c", code, user=OTHER, env={"A": "1"}, env_files=(path,)))
    assert outcome.status == "success", outcome
    (own,) = desk.data.rglob(environment.OWN_FOLDER)
    found = json.loads((own / "seen.json").read_text())
    groups = sorted(os.getgrouplist(OTHER, entry.pw_gid))
    assert found["ids"] == [[entry.pw_uid] * 3, [entry.pw_gid] * 3, groups]
    env = found["env"]
    assert [env[key] for key in ("HOME", "LOGNAME", "USER", "SHELL")] == [
        entry.pw_dir,
        OTHER,
        OTHER,
        entry.pw_shell,
    ]
    assert [env[key] for key in ("A", "B", "LANG", "ORCHCTL_RUN_DIR")] == ["1", "2", "C.UTF-8", str(own)]
    assert not {"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PREFECT_API_KEY"} & env.keys()


@needs_root
def test_the_record_stays_out_of_the_reach_of_the_commands_user(desk: Desk) -> None:
    job = desk.job(
        "sh",
        "-c",
        'echo out > {run_dir}/out; echo said; for file in {run_dir}/../*; do ! [ -w "$file" ] || echo "$file"; done',
        user=OTHER,
        outputs=("{run_dir}/out",),
    )
    assert desk.run(job).status == "success"
    (log,) = desk.data.rglob("attempt-1.log")
    (own,) = desk.data.rglob(environment.OWN_FOLDER)
    assert log.read_text().splitlines() == ["said", f"{own}/../{environment.OWN_FOLDER}"]
    assert {path.name: path.owner() for path in log.parent.iterdir()} == {
        "attempt-1.log": "root",
        "manifest.json": "root",
        environment.OWN_FOLDER: OTHER,
    }
    assert [one["path"] for one in desk.manifest()["outputs"]] == [str(own / "out")]


@needs_root
def test_what_the_user_starts_is_ended_with_its_command(desk: Desk) -> None:
    script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > {run_dir}/pid; sleep 60' & sleep 60"
    outcome = desk.run(desk.job("sh", "-c", script, user=OTHER, timeout="1s", kill_after="1s"))
    assert (outcome.status, outcome.reason) == ("failed", "stopped after its time-out of 1.0s")
    (pid,) = [int(path.read_text()) for path in desk.data.rglob("pid")]
    assert not Path(f"/proc/{pid}").exists()


@needs_root
def test_a_retry_finds_the_users_folder_again(desk: Desk) -> None:
    job = desk.job("sh", "-c", "echo x >> {run_dir}/x; test $(wc -l < {run_dir}/x) = 2", user=OTHER)
    assert desk.run(job).status == "failed"
    assert desk.run(job, attempt=2).status == "success"


@needs_root
def test_a_folder_of_somebody_elses_is_not_given_away(desk: Desk) -> None:
    entry = pwd.getpwnam(OTHER)
    account = Account(OTHER, entry.pw_uid, entry.pw_gid, (entry.pw_gid,), "/", "/bin/sh")
    target = desk.root / "roots"
    target.mkdir()
    (desk.root / environment.OWN_FOLDER).symlink_to(target)
    with pytest.raises(CommandNotStarted, match="no folder of nobody"):
        environment.own_folder(desk.root, account)
    assert target.stat().st_uid == 0


def test_the_slot_is_claimed_before_the_files_are_read(desk: Desk) -> None:
    """A run that fails to start has had its slot: nothing else runs it in its place."""
    desk.run(desk.job(env_files=("/nowhere/x.env",)))
    assert desk.run(desk.job(), "two", slot=SLOT).status == "skipped"
