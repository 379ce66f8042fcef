"""`cutover`, `confirm`, `rollback`, `recover` as an operator meets them: what they print, refuse and exit with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import fakes
from handover_fakes import Host
from orchctl.adapters import host_lock
from orchctl.adapters.handovers import Handovers
from orchctl.adapters.owners import Owners
from orchctl.cli import handover_views as views
from orchctl.cli import render
from orchctl.core.gates import Gate, ok, refused
from orchctl.core.handover import CUTOVER, ROLLBACK, Step
from orchctl.core.handover_journal import Opened
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.errors import ExitCode, GateRefused, HandoverUnfinished, Interrupted, OrchctlError, UsageError
from orchctl.services import handover, recovery, switching
from orchctl.services.gates import Table
from orchctl.services.handover import Switched
from orchctl.services.switching import Done
from orchctl.wiring import Settings

SINCE = datetime(2026, 1, 5, 17, 0, 1, tzinfo=UTC)
CATALOG = fakes.catalog({"job": {"legacy": [{"timer": "x.timer"}]}, "other": {"legacy": [{"timer": "y.timer"}]}})
TEXT, JSON = Settings(Path("/c"), Path("/s"), None), Settings(Path("/c"), Path("/s"), None, as_json=True)
DONE = Switched(
    "live-score",
    "cutover",
    "20260105T170000Z-000000",
    "done",
    since=SINCE,
    last_legacy=SINCE - timedelta(seconds=1),
    first_slot=SINCE + timedelta(minutes=5),
    held_s=1.0,
)
GATES: tuple[Gate, ...] = (
    ok("catalog", "valid"),
    refused(
        "worker",
        "no worker has asked the work pool projections-local for runs in the last minute",
        "start one: `orchctl host up`",
    ),
    Gate("runs", "waived", "0 of 3 succeeded within 7d", "`orchctl run live-score --wait`", "they ran elsewhere"),
)
REFUSED = Table("live-score", GATES, None, CUTOVER)
PASSES = replace(REFUSED, gates=(GATES[0], GATES[2]))


def orchctl(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "orchctl", *words]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=60)


def config(root: Path) -> tuple[str, ...]:
    """Write a catalog, and return the options that name it and a state directory."""
    folder = root / "config"
    folder.mkdir()
    (folder / "schedules.toml").write_text('version = 1\n[schedules.s]\ncron = "0 * * * *"\n')
    (folder / "jobs.toml").write_text(
        f'version = 1\n[defaults]\ndata_root = "{root}/data"\nworking_directory = "/tmp"\nwork_pool = "p"\n'
        '[jobs.job]\nschedules = ["s"]\ncommand = ["true"]\nlegacy = [{ timer = "job.timer" }]\n'
        '[jobs.alone]\ncommand = ["true"]\n'
    )
    return ("--config", str(folder), "--state-dir", str(root / "state"), "--api-url", "http://127.0.0.1:9/api")


def opened(kind: str = "cutover", job: str = "job") -> Opened:
    return Opened(
        "20260105T170000Z-000000", "cutover" if kind == "cutover" else "rollback", job, SINCE, "x", Snapshot()
    )


def own(root: Path, job: str = "job", **more: Any) -> None:
    Owners(root / "state").create(job, Owner(SINCE, **{"draining": False, **more}), still=lambda: True)


# --- the commands


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cutover"], "Missing argument"),
        (["cutover", "jib"], 'did you mean "job"?'),
        (["cutover", "alone"], "nothing else starts alone"),
        (["cutover", "job", "alone"], "nothing else starts alone"),
        (["cutover", "job", "--waive", "fence=x"], "fence cannot be waived"),
        (["cutover", "job", "--confirm-within", "soon"], "--confirm-within: 'soon' is not a duration"),
        (["rollback", "jib"], 'did you mean "job"?'),
        (["confirm", "job"], "there is no cutover to confirm"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_looked_at(tmp_path: Path, words: list[str], said: str) -> None:
    done = orchctl(*config(tmp_path), *words)
    assert done.returncode == ExitCode.USAGE
    assert said in done.stderr
    assert done.stdout == ""


def test_a_dry_run_shows_gates_and_steps_and_leaves_no_trace(tmp_path: Path) -> None:
    options = config(tmp_path)
    orchctl(*options, "jobs")
    before = sorted(tmp_path.rglob("*"))
    done = orchctl(*options, "cutover", "job", "--dry-run")
    assert done.returncode == ExitCode.REFUSED
    assert "  UNKNOWN  worker " in done.stdout
    assert "  1. fence " in done.stdout
    assert "nothing was changed (--dry-run)" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refusal_has_its_gates_in_the_json_envelope(tmp_path: Path) -> None:
    done = orchctl("--json", *config(tmp_path), "cutover", "job", "--yes")
    found = json.loads(done.stdout)
    assert done.returncode == ExitCode.REFUSED
    assert (found["status"], found["errors"][0]["code"], found["errors"][0]["job"]) == ("error", "refused", "job")
    (job,) = found["data"]["jobs"]
    assert (job["passes"], job["result"]) == (False, None)
    assert {gate["id"] for gate in job["gates"] if gate["state"] == "ok"} >= {"catalog", "handover"}
    assert all(gate["fix"] for gate in job["gates"] if gate["state"] != "ok")


def test_there_may_be_nothing_to_roll_back_and_nothing_to_recover(tmp_path: Path) -> None:
    options = config(tmp_path)
    assert orchctl(*options, "rollback").stdout == "Prefect owns no job: there is nothing to roll back\n"
    assert orchctl(*options, "rollback", "job").stdout == "job: legacy owns it, and nothing was to do\n"
    assert orchctl(*options, "recover").stdout == "nothing to recover\n"
    assert json.loads(orchctl("--json", *options, "recover").stdout)["data"] == {"jobs": []}


def test_a_rollback_of_all_asks_and_one_that_is_named_does_not(tmp_path: Path) -> None:
    options = config(tmp_path)
    own(tmp_path)
    done = orchctl(*options, "rollback")
    assert done.returncode == ExitCode.REFUSED
    assert "make legacy the owner of job?" in done.stderr
    assert Owners(tmp_path / "state").read("job") is not None
    dry = orchctl(*options, "rollback", "--dry-run")
    assert dry.returncode == 0
    head, first, *_ = dry.stdout.splitlines()
    assert head == "job: the steps of its rollback (Prefect owns it since 2026-01-05 17:00:01 UTC)"
    assert first.startswith("  1. drain ")
    named = orchctl(*options, "rollback", "job")
    assert "this needs an answer" not in named.stderr


def test_a_rollback_needs_no_valid_catalog(tmp_path: Path) -> None:
    options = config(tmp_path)
    own(tmp_path)
    (tmp_path / "config/jobs.toml").write_text("version = oops\n")
    done = orchctl(*options, "rollback", "--dry-run")
    assert done.returncode == 0
    assert "job: the steps of its rollback" in done.stdout
    assert orchctl(*options, "recover").returncode != ExitCode.CATALOG


@pytest.mark.parametrize("words", [["cutover", "job"], ["confirm", "job"], ["rollback", "job"], ["recover"]])
def test_one_operator_at_a_time_and_the_other_is_named_at_once(tmp_path: Path, words: list[str]) -> None:
    options = config(tmp_path)
    with host_lock.held(tmp_path / "state", "cutover other"):
        done = orchctl(*options, *words)
    assert done.returncode == ExitCode.LOCKED
    assert "orchctl cutover other (pid " in done.stderr


def test_every_command_says_once_that_a_handover_is_unfinished(tmp_path: Path) -> None:
    options = config(tmp_path)
    Handovers(tmp_path / "state").begin(opened())
    said = "warning: the handover of job is unfinished (or at work just now); `orchctl recover` goes on\n"
    done = orchctl(*options, "check")
    assert done.stderr.count(said) == 1
    assert done.returncode == 0
    as_json = orchctl("--json", *options, "jobs")
    assert as_json.stderr == said
    assert json.loads(as_json.stdout)["status"] == "success"
    for words in (["--help"], ["jobs", "--help"], ["jobs", "-h"], ["completions", "bash"], ["recover", "--help"]):
        assert orchctl(*options, *words).stderr == ""
    Handovers(tmp_path / "state").begin(replace(opened(job="alone"), id="20260105T170000Z-000001"))
    assert "the handovers of alone, job are unfinished" in orchctl(*options, "jobs").stderr


def test_a_mark_that_cannot_be_believed_stops_recover_with_14(tmp_path: Path) -> None:
    options = config(tmp_path)
    Handovers(tmp_path / "state").begin(opened())
    (tmp_path / "state/handovers/20260105T170000Z-000000.jsonl").write_text("{}\n")
    done = orchctl(*options, "recover")
    assert done.returncode == ExitCode.BROKEN_STATE
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["cutover", "job", "--dry-run"], ["cutover", "job", "--yes"], ["recover"]])
def test_an_owner_file_that_cannot_be_believed_is_14_and_no_gate_to_waive(tmp_path: Path, words: list[str]) -> None:
    options = config(tmp_path)
    own(tmp_path)
    Owners(tmp_path / "state").path("job").write_text("{}\n")
    done = orchctl(*options, *words)
    assert done.returncode == ExitCode.BROKEN_STATE
    assert "is not an owner file" in done.stderr
    assert "--waive" not in done.stderr


# --- what they print


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "width", lambda: 80)


def printed(capsys: pytest.CaptureFixture[str], show: Callable[[], object]) -> str:
    show()
    return capsys.readouterr().out


@pytest.mark.usefixtures("narrow")
def test_a_table_that_refuses_fits_a_terminal_and_has_no_steps(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, lambda: views.Cutover("UTC", TEXT, dry_run=False).table(REFUSED))
    assert text == (
        "live-score: the gates of its cutover\n"
        "  ok       catalog  valid\n"
        "  REFUSED  worker   no worker has asked the work pool projections-local for runs\n"
        "                    in the last minute\n"
        "                    -> start one: `orchctl host up`\n"
        "  WAIVED   runs     0 of 3 succeeded within 7d\n"
        "                    waived: they ran elsewhere\n"
    )
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("table", "dry_run"), [(PASSES, False), (REFUSED, True)])
def test_steps_are_shown_where_the_gates_hold_and_in_a_dry_run(
    capsys: pytest.CaptureFixture[str], table: Table, dry_run: bool
) -> None:
    text = printed(capsys, lambda: views.Cutover("UTC", TEXT, dry_run=dry_run).table(table))
    numbered = [line for line in text.splitlines() if line.strip()[:1].isdigit()]
    assert [line.split()[1] for line in numbered] == [step.value for step in CUTOVER]
    assert max(map(len, text.splitlines())) <= 80


def test_off_a_terminal_nothing_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, lambda: views.Cutover("UTC", TEXT, dry_run=False).table(REFUSED))
    assert "projections-local for runs in the last minute\n" in text


@pytest.mark.usefixtures("narrow")
def test_a_cutover_ends_with_the_seam_and_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    shown = views.Cutover("America/New_York", TEXT, dry_run=False)
    done = Done("live-score", PASSES, replace(DONE, confirm_by=SINCE + timedelta(days=1)))
    shown.ended(done)
    shown.all([done], ui=lambda: "http://ui")
    assert capsys.readouterr().out == (
        "live-score: Prefect owns it since 2026-01-05 12:00:01 EST\n"
        "  last legacy run     2026-01-05 12:00:00 EST\n"
        "  first Prefect slot  2026-01-05 12:05:01 EST\n"
        "  seam                gap 0, overlap 0\n"
        "  held                1.0s, in which nothing could begin a run\n"
        "  rolled back         by itself at 2026-01-06 12:00:01 EST, unless `orchctl\n"
        "                      confirm live-score`\n"
        "  see                 `orchctl status live-score`; back again: `orchctl rollback\n"
        "                      live-score`\n"
        "Prefect shows the runs: http://ui\n"
    )


@pytest.mark.parametrize(
    ("change", "seam", "gap", "overlap"),
    [
        ({}, "gap 0, overlap 0", 0, 0),
        ({"dropped": (SINCE,)}, "gap 1, overlap 0", 1, 0),
        ({"last_legacy": SINCE + timedelta(seconds=1)}, "gap 0, overlap 1", 0, 1),
        ({"last_legacy": None}, "not known: nobody says when legacy ran last", None, None),
    ],
)
def test_gap_and_overlap_are_counted_and_not_promised(
    capsys: pytest.CaptureFixture[str], change: dict[str, Any], seam: str, gap: int | None, overlap: int | None
) -> None:
    done = Done("live-score", PASSES, replace(DONE, **change))
    text = printed(capsys, lambda: views.Cutover("UTC", TEXT, dry_run=False).ended(done))
    assert f"  seam                {seam}\n" in text
    data = json.loads(printed(capsys, lambda: views.Cutover("UTC", JSON, dry_run=False).all([done], ui=str)))
    result = data["data"]["jobs"][0]["result"]
    assert (result["gap"], result["overlap"], result["since"]) == (gap, overlap, "2026-01-05T17:00:01Z")


def test_what_is_owed_is_told_and_makes_the_envelope_partial(capsys: pytest.CaptureFixture[str]) -> None:
    back = Switched("job", "rollback", "20260105T170000Z-000000", None, owed=(Step.CLEAR,), notes=("it was down",))
    done = Done("job", switched=back)
    text = printed(capsys, lambda: views.Rollback("UTC", TEXT).ended(done))
    assert "job: legacy owns it\n" in text
    assert "`orchctl recover` does it when Prefect answers" in text
    assert "  note                it was down\n" in text
    data = json.loads(printed(capsys, lambda: views.Rollback("UTC", JSON).all([done])))
    assert (data["status"], [each["code"] for each in data["errors"]]) == ("partial", ["owed"])
    assert switching.exit_code([done]) == ExitCode.DONE


# --- several jobs


def failing(code: type[OrchctlError]) -> Done:
    return Done("x", error=code("no"))


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([Done("a")], ExitCode.DONE),
        ([failing(GateRefused)], ExitCode.REFUSED),
        ([failing(GateRefused), failing(GateRefused)], ExitCode.REFUSED),
        ([failing(GateRefused), Done("a")], ExitCode.PARTIAL),
        ([failing(GateRefused), failing(UsageError)], ExitCode.PARTIAL),
    ],
)
def test_the_exit_code_of_several_jobs(found: list[Done], code: ExitCode) -> None:
    assert switching.exit_code(found) == code


def test_a_refused_job_keeps_no_other_back_and_one_that_stopped_does() -> None:
    def do(name: str) -> Done:
        errors = {"refused": GateRefused("no"), "stopped": HandoverUnfinished("halfway")}
        return Done(name, error=errors.get(name))

    told: list[Done] = []
    found = switching.each(["refused", "a", "stopped", "b"], do, told.append)
    assert tuple(told) == found
    assert [done.error.message if done.error else None for done in found] == [
        "no",
        None,
        "halfway",
        "b was not begun: stopped stopped",
    ]


def test_ctrl_c_ends_the_whole() -> None:
    def do(name: str) -> Done:
        raise KeyboardInterrupt

    told: list[Done] = []
    found = switching.each(["a", "b"], do, told.append)
    assert tuple(told) == found
    assert [type(done.error) for done in found] == [Interrupted, OrchctlError]


def cut_over(host: Host, job: str = "job") -> None:
    handover.cutover(
        host.hands(), job, digest=None, waived={}, confirm_by=None, command=f"cutover {job}", say=lambda _text: None
    )


def roll_back(host: Host, *jobs: str) -> tuple[Done, ...]:
    ended: list[Done] = []

    def tell(done: Done) -> Done:
        ended.append(done)
        return done

    found = switching.rollback(host.hands(), jobs, now=False, command="x", say=lambda _text: None, ended=tell)
    assert sorted(done.job for done in ended) == sorted(done.job for done in found)
    return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "state", CATALOG, "job")


def test_a_rollback_shows_only_the_steps_that_the_cutover_calls_for(host: Host) -> None:
    assert switching.rollback_of(host.hands(), "job").steps == ()
    cut_over(host)
    found = switching.rollback_of(host.hands(), "job")
    assert found.owner is not None
    assert found.steps == tuple(step for step in ROLLBACK if step not in {Step.CRON_ON, Step.DISARM})
    assert switching.live(host.hands()) == ("job",)
    (done,) = roll_back(host, "job")
    assert done.error is None
    assert switching.live(host.hands()) == ()


def test_legacy_owns_every_job_before_prefect_is_asked_for_the_first(host: Host) -> None:
    for job in ("job", "other"):
        cut_over(host, job)
    host.log.clear()
    found = roll_back(host, "job", "other")
    assert [(done.error, done.switched and done.switched.owed) for done in found] == [(None, ()), (None, ())]
    released = [number for number, what in enumerate(host.log) if what == "remove owner"]
    assert len(released) == 2
    assert max(released) < host.log.index("clear")
    assert host.handovers.unfinished() == ()


def test_a_rollback_of_several_jobs_owes_prefects_part_of_each_where_it_is_down(host: Host) -> None:
    for job in ("job", "other"):
        cut_over(host, job)
    host.reachable = False
    found = roll_back(host, "job", "other")
    assert [done.switched and done.switched.owed for done in found] == [(Step.CLEAR,), (Step.CLEAR,)]
    assert host.owners.names() == ()
    assert host.handovers.unfinished() == ("job", "other")


def test_recover_tells_what_it_did_and_then_that_there_is_nothing_to_do(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_over(host)
    host.reachable = False
    roll_back(host, "job")
    owed = recovery.recover(host.hands(), ["job"], say=lambda _text: None)
    assert [each.is_in_order for each in owed] == [False]
    host.reachable = True
    found = recovery.recover(host.hands(), ["job"], say=lambda _text: None)
    assert "job: its rollback was finished; legacy owns it" in printed(
        capsys, lambda: views.recovered(found, "UTC", TEXT)
    )
    assert [each.is_in_order for each in found] == [True]
    assert recovery.exit_code(found) == ExitCode.DONE
    assert recovery.recover(host.hands(), ["job"], say=lambda _text: None) == ()


def test_recover_goes_on_with_the_other_jobs_where_one_cannot_be_believed(host: Host) -> None:
    cut_over(host)
    host.handovers.begin(replace(opened(job="broken"), id="20260105T170000Z-0000ff"))
    (host.state_dir / "handovers/20260105T170000Z-0000ff.jsonl").write_text("{}\n")
    host.fence = False
    found = {each.job: each for each in recovery.recover(host.hands(), ["job"], say=lambda _text: None)}
    assert found["broken"].error is not None
    assert [each.code for each in found["job"].repaired] == ["fence-gone"]
    assert recovery.exit_code(tuple(found.values())) == ExitCode.BROKEN_STATE
