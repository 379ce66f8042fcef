"""Forty secrets, planted where operators put them, against everything that orchctl leaves or prints: none is found.

They are looked for as they are and in the forms in which programs print them: quoted for URLs, escaped for JSON, in
base64, also wrapped as `base64` and PEM wrap it. A secret that a job prints in pieces of its own making is found by
nobody, and docs/security.md says so.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

import fakes
from dag import StepsDesk
from desk import LEGACY
from loki_receiver import receiver
from orchctl.adapters.loki import Loki
from orchctl.cli import app as cli
from orchctl.cli import render, views
from orchctl.core import watch_unit
from orchctl.core.catalog import Catalog
from orchctl.core.catalog_logs import LogsTable, LokiTable
from orchctl.errors import OrchctlError, UsageError
from orchctl.services import sync
from orchctl.wiring import App, Settings
from orchctl.wiring import handover as handover_wiring
from orchctl.wiring import watchdog as watchdog_wiring

LONG = "long-" + "0123456789abcdefghijklmnopqrstuvwxyz" * 4 + "-secret"
PEM = "-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----"


def secret(number: int) -> str:
    """Return a secret that stands nowhere else, with characters that URLs, JSON and shells write otherwise."""
    return f"s3cr3t{number:02d}/ä+{number * 7919:06d}=&%"


def plain(number: int) -> str:
    """Return one that may stand in a URL or a word of an argv as it is."""
    return f"pl41n-s3cret-{number:02d}-{number * 7919:06d}"


ENVIRONMENT = {
    "DB_PASSWORD": secret(1),
    "API_TOKEN": secret(2),
    "AWS_SECRET_ACCESS_KEY": secret(3),
    "GITHUB_TOKEN": plain(4),
    "PGPASSWORD": secret(5),
    "SLACK_WEBHOOK": f"https://hooks.example/{plain(6)}",
    "SENTRY_DSN": f"https://{plain(7)}@sentry.example/1",
    "DATABASE_URL": f"postgresql://me:{plain(8)}@db/x",
    "REDIS_URL": f"redis://:{plain(9)}@cache:6379/0",
    "BROKER": f"amqp://me:{quote(secret(10), safe='')}@mq/",
    "PREFECT_API_AUTH_STRING": f"admin:{plain(11)}",
    "PREFECT_API_KEY": plain(12),
    "SESSION_COOKIE": plain(13),
    "SERVICE_JWT": plain(14),
    "SSH_PASSPHRASE": secret(15),
    "PRIVATE_KEY": PEM.format(plain(16), plain(17)),
    "MASTER_KEY": LONG,
    "CLIENT_SECRET": secret(18),
    "CREDENTIALS": plain(19),
    "SMTP_PASS": secret(20),
}
FILE = {
    "FILE_PASSWORD": plain(21),
    "FILE_TOKEN": plain(22),
    "FILE_URL": f"postgresql://me:{plain(23)}@db/x",
    "S3_SECRET": plain(24),
    "ENCRYPTION_KEY": plain(25),
}
CATALOG = {
    "MODEL_TOKEN": plain(26),
    "CATALOG_URL": f"mysql://me:{plain(27)}@db/x",
    "BASIC_AUTH": plain(28),
    "WEBHOOK_URL": f"https://hooks.example/{plain(29)}",
}
STEP = {"STEP_TOKEN": plain(30), "STEP_URL": f"mongodb://me:{plain(31)}@db/x"}
ARGV = [
    f"http://me:{plain(32)}@api.example/",
    "--password",
    plain(33),
    f"--api-token={plain(34)}",
    f"WORD_TOKEN={plain(35)}",
]
CRON = (
    f"5 4 * * * CRON_TOKEN={plain(36)} /opt/job --secret {plain(37)} "
    f"--to ftp://me:{plain(38)}@h/ -H 'Authorization: Bearer {plain(39)}'"
)
API = f"http://me:{plain(40)}@127.0.0.1:9/api"
PLANTED = [
    *(secret(number) for number in (1, 2, 3, 5, 10, 15, 18, 20)),
    *(plain(number) for number in range(1, 41) if number not in {1, 2, 3, 5, 10, 15, 18, 20}),
    LONG,
]


def forms(text: str) -> Iterator[str]:
    """Yield a secret as programs print it; of base64, what holds no bits of its neighbours, whole and by line."""
    yield from {text, quote(text, safe=""), quote(text), json.dumps(text)[1:-1], text.replace("/", "\\/")}
    encoded = base64.b64encode(text.encode()).decode().rstrip("=")[:-1]
    for each in (encoded, encoded.replace("+", "-").replace("/", "_")):
        for width in (64, 76, len(each)):
            yield from (each[at : at + width] for at in range(0, len(each), width) if len(each[at : at + width]) > 15)


@dataclass
class Outputs:
    """Everything that was left or printed, by where."""

    texts: dict[str, str]

    def leaks(self) -> dict[str, list[str]]:
        found = {
            where: [one for one in PLANTED if any(form in text for form in forms(one))]
            for where, text in self.texts.items()
        }
        return {where: secrets for where, secrets in found.items() if secrets}


def test_there_are_forty_of_them_and_one_that_leaks_is_found() -> None:
    assert len(set(PLANTED)) == 41
    everything = json.dumps([ENVIRONMENT, FILE, CATALOG, STEP, ARGV, CRON, API])
    assert set(Outputs({"all": everything}).leaks()["all"]) >= set(PLANTED) - {secret(10)}
    wrapped = base64.encodebytes(LONG.encode()).decode()
    assert Outputs({"wrapped": wrapped}).leaks() == {"wrapped": [LONG]}


# --- what a run leaves


SPILL = """
import base64, json, os, sys, time
from urllib.parse import quote
values = {key: value for key, value in os.environ.items() if not key.startswith("ORCHCTL_") and key != "PATH"}
for key, value in values.items():
    print("plain", key, value)
    print("url", key, quote(value, safe=""), quote(value))
    print("json", json.dumps({key: value}), file=sys.stderr)
    print("base64", base64.b64encode(value.encode()).decode(), base64.urlsafe_b64encode(value.encode()).decode())
    print("basic", base64.b64encode(b"user:" + value.encode()).decode())
    print("wrapped\\n" + base64.encodebytes(value.encode()).decode())
    for at in range(0, len(value), 5):
        sys.stdout.write(value[at:at + 5])
        sys.stdout.flush()
    print()
print("x" * 20000 + values.get("DB_PASSWORD", "") + "y" * 100)
print("http://other:p4ssword-of-nobody@host/", "argv", sys.argv)
raise SystemExit(3)
"""


@pytest.fixture
def desk(tmp_path: Path) -> StepsDesk:
    desk = StepsDesk(tmp_path)
    (tmp_path / "spill.py").write_text(SPILL)
    (tmp_path / "job.env").write_text("".join(f"{key}='{value}'\n" for key, value in FILE.items()))
    (tmp_path / "job.env").chmod(0o600)
    desk.changes["environment"] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **ENVIRONMENT}
    return desk


def left(desk: StepsDesk) -> dict[str, str]:
    """Return what is on disk of runs, and what Prefect was told."""
    found = {str(path.relative_to(desk.data)): path.read_text() for path in desk.data.rglob("*") if path.is_file()}
    return {**found, "Prefect's log": "\n".join(desk.log)}


def spilling(desk: StepsDesk, **fields: Any) -> Any:
    given = {"env": CATALOG, "env_files": (str(desk.root / "job.env"),), **fields}
    return desk.job("python3", str(desk.root / "spill.py"), ARGV[0], **given)


def test_a_command_that_prints_all_it_knows_tells_nobody(desk: StepsDesk) -> None:
    outcome = desk.run(spilling(desk))
    assert outcome.exit_code == 3
    texts = left(desk)
    assert len([line for line in texts["Prefect's log"].splitlines() if line.startswith("plain ")]) >= 25
    assert Outputs({**texts, "outcome": repr(outcome)}).leaks() == {}
    assert "p4ssword-of-nobody" not in "".join(texts.values())


def test_steps_that_print_all_they_know_tell_nobody(desk: StepsDesk) -> None:
    desk.lines["a"] = f"python3 {desk.root}/spill.py"
    job = desk.steps_job(desk.step("a", env=STEP), desk.step("b", "a"), env=CATALOG)
    outcome = desk.go(job.model_copy(update={"env_files": (str(desk.root / "job.env"),)}))
    assert outcome.status == "failed"
    assert Outputs({**left(desk), "outcome": repr(outcome)}).leaks() == {}


@pytest.mark.parametrize("argv", [["/nowhere/program", *ARGV], [f"/nowhere/{ARGV[0]}"]])
def test_a_command_that_cannot_be_started_tells_nobody(desk: StepsDesk, argv: list[str]) -> None:
    outcome = desk.run(desk.job(*argv, env=CATALOG))
    assert outcome.status == "failed"
    assert Outputs({**left(desk), "outcome": repr(outcome)}).leaks() == {}


def test_a_run_that_only_observes_tells_nobody(desk: StepsDesk) -> None:
    job = spilling(desk, legacy=LEGACY, dry_run_command=("python3", str(desk.root / "spill.py")))
    job = job.model_copy(update={"command": ("/opt/job", *ARGV)})
    outcome = desk.run(job)
    assert outcome.status == "observed"
    assert Outputs({**left(desk), "outcome": repr(outcome)}).leaks() == {}


def test_nor_does_loki_get_any(desk: StepsDesk) -> None:
    with receiver() as there:
        job = spilling(desk)
        made = Catalog(
            name="tests",
            timezone="UTC",
            schedules={},
            jobs={"job": job},
            logs=LogsTable(loki=LokiTable(url_env="LOKI_URL")),
        )
        given = {**desk.changes["environment"], "LOKI_URL": there.url.replace("//", f"//me:{plain(40)}@")}
        desk.changes |= {
            "ship": lambda table, labels: Loki(table, labels, given),
            "environment": given,
            "applied": type("Applied", (), {"read": lambda _self, _digest: made})(),
        }
        desk.run(job)
        assert len(there.texts()) > 100
        assert Outputs({"loki": json.dumps([body for _, _, body in there.requests], ensure_ascii=False)}).leaks() == {}


# --- what everybody may read on the host: unit files, and the argv in them


def test_the_units_that_orchctl_writes_hold_none(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "PREFECT_API_URL": API, "HOME": str(tmp_path), "SUDO_USER": "root"}
    app = App(Settings.of(environment, config=tmp_path / "config", state_dir=tmp_path / "state"), environment)
    with pytest.raises(UsageError) as caught:
        watchdog_wiring.watch(app, watchdog_wiring.timer(app), ())
    rollback = handover_wiring.confirm_timer(app, environment).service("job")
    assert '"--api-url" "http://127.0.0.1:9/api"' in rollback
    kept = {key: value for key, value in environment.items() if key != "PREFECT_API_URL"}
    bare = App(replace(app.settings, api_url="http://127.0.0.1:9/api"), kept)
    (tmp_path / "secrets.env").touch(0o600)
    watch = watchdog_wiring.watch(bare, watchdog_wiring.timer(bare), [str(tmp_path / "secrets.env")])
    texts = {
        "refused": f"{caught.value.message} {caught.value.hint}",
        "watchdog": watch_unit.service(watch),
        "rollback": rollback,
    }
    assert all("http://127.0.0.1:9/api" in text for text in texts.values())
    assert Outputs(texts).leaks() == {}


# --- what the command line prints


@dataclass
class Shell:
    """An operator's folder and environment, and every word that was printed."""

    root: Path
    desk: StepsDesk
    printed: dict[str, str]

    def run(self, *words: str) -> str:
        given = {
            **{key: value for key, value in ENVIRONMENT.items() if not key.startswith("PREFECT")},
            "ORCHCTL_CONFIG": str(self.root / "config"),
            "ORCHCTL_STATE_DIR": str(self.root / "state"),
            "HOME": str(self.root),
            "PREFECT_API_AUTH_STRING": ENVIRONMENT["PREFECT_API_AUTH_STRING"],
            "PREFECT_API_URL": API,
        }
        done = CliRunner().invoke(cli.app, cli.hoist(words), env=given)
        # What `import` prints as data is the text of a catalog: the operator's own line, or it would not be the same.
        said = done.stderr if words[0] == "import" else done.output
        self.printed[" ".join(words)] = text = said + (str(done.exception) if done.exception else "")
        return text


@pytest.fixture
def shell(desk: StepsDesk) -> Shell:
    """A catalog with secrets in it, and a run of it that printed all it knew."""
    desk.run(spilling(desk))
    config = desk.root / "config"
    config.mkdir()
    env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in CATALOG.items())
    step_env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in STEP.items())
    (config / "jobs.toml").write_text(
        f"""version = 1
[defaults]
data_root = "{desk.data}"
working_directory = "{desk.root}"
work_pool = "pool"
env = {{ {env} }}
[jobs.job]
schedules = ["often"]
command = {json.dumps(["/opt/job", *ARGV])}
env_files = ["{desk.root}/job.env"]
legacy = [{{ cron = {json.dumps(CRON)}, user = "root" }}]
[jobs.rates]
execution = "steps"
[[jobs.rates.steps]]
name = "rates.score"
command = {json.dumps(["score", *ARGV])}
env = {{ {step_env} }}
""",
        encoding="utf-8",
    )
    (config / "schedules.toml").write_text('version = 1\n[schedules.often]\ncron = "*/5 * * * *"\n')
    (desk.root / "crontab").write_text(CRON.replace("/opt/job", "/opt/other") + "\n")
    return Shell(desk.root, desk, {})


COMMANDS = [
    "check",
    "jobs",
    "jobs job",
    "jobs rates",
    "runs --since 3650d",
    "runs show {run}",
    "runs logs {run}",
    "runs reindex",
    "runs audit",
    "legacy",
    "legacy job",
    "status",
    "status --check",
    "plan",
    "sync",
    "sync --dry-run",
    "run job",
    "runs retry {run}",
    "rollback job --yes",
    "recover",
    "import cron {root}/crontab",
    "host status",
    "doctor",
    "backfill rates --start 2025-12-01 --end 2025-12-02 --dry-run",
    "publish show rates.score --date 2025-12-19",
    "contract list",
    "alerts list",
    "watchdog install --dry-run",
]
LONG_ONES = [
    "schedule next job",
    "schedule compare job --days 2",
    "cutover job --dry-run --waive cadence=compared",
    "watchdog",
]
"""Each takes seconds, and is run once."""


def test_no_command_prints_one(shell: Shell) -> None:
    run = shell.desk.manifest()["partition"]["run_id"]
    for command in COMMANDS:
        words = shlex.split(command.format(run=run, root=shell.root))
        shell.run(*words, "--json")
        shell.run(*words, "--verbose")
    for command in LONG_ONES:
        shell.run(*shlex.split(command), "--json")
    silent = {command for command, text in shell.printed.items() if not text and "import" not in command}
    assert not [command for command in silent if "--json" in command]
    assert "***" in shell.printed["jobs job --verbose"]
    assert Outputs(shell.printed).leaks() == {}


def test_a_broken_catalog_is_told_without_them(shell: Shell) -> None:
    path = shell.root / "config" / "jobs.toml"
    whole = path.read_text()
    for broken in (
        whole.replace("schedules = [", "schedule = ["),
        whole.replace('env = { MODEL_TOKEN = "', 'env = { MODEL_TOKEN = 1, X_TOKEN = "'),
        whole.replace("command = [", "command = [[", 1),
        whole + "= = =\n",
        whole.replace('user = "root"', f'user = "root", cron = "{plain(36)}"'),
    ):
        assert broken != whole
        path.write_text(broken)
        shell.run("check")
        shell.run("check", "--json")
        shell.printed = {f"{command} {hash(broken)}": text for command, text in shell.printed.items()}
    assert Outputs(shell.printed).leaks() == {}


def test_a_plan_and_its_errors_are_told_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    before = fakes.catalog({"job": {"command": ["/opt/old", *ARGV], "env": CATALOG, "schedules": []}})
    after = fakes.catalog(
        {
            "job": {
                "command": ["/opt/new", *reversed(ARGV[:1])],
                "env": {**CATALOG, "MODEL_TOKEN": plain(22), "NEW_TOKEN": plain(23)},
                "schedules": [],
                "retries": 2,
                "legacy": [{"cron": CRON, "user": "root"}],
            }
        }
    )
    prefect, applied = fakes.FakePrefect(), fakes.FakeApplied()
    given: dict[str, Any] = {"state_dir": "/state", "now": fakes.NOON}
    sync.apply(sync.propose(before, prefect, applied, **given), before, prefect, applied, now=lambda: fakes.NOON)
    proposed = sync.propose(after, prefect, applied, **given)
    assert not proposed.empty
    settings = Settings.of({}, config=Path("/c"), state_dir=Path("/s"))
    for each in (settings, replace(settings, as_json=True), replace(settings, verbose=True)):
        views.plan(proposed, each, command="plan")
        render.error(OrchctlError("no"), command="plan", settings=each)
    said = capsys.readouterr()
    assert "***" in said.out
    assert Outputs({"out": said.out, "err": said.err}).leaks() == {}


@pytest.mark.parametrize("words", [["check"], ["check", "--json"], ["check", "--verbose"]])
def test_a_bug_is_told_without_them(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)

    def broken(**_: object) -> None:
        raise RuntimeError(f"{ENVIRONMENT['DB_PASSWORD']} {ENVIRONMENT['DATABASE_URL']} {ENVIRONMENT['PRIVATE_KEY']}")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert "RuntimeError" in said.out + said.err
    assert ("Traceback" in said.err) == ("--verbose" in words)
    assert "***" in said.out + said.err
    assert Outputs({"out": said.out, "err": said.err}).leaks() == {}
