"""The keys of `--json` are a contract: they are only ever added to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support import Project

ENVELOPE = {"schema", "command", "status", "data", "errors"}
CHECKED = {
    "name", "digest", "jobs", "schedules", "with_legacy_triggers", "steps", "contracts", "limits", "channels", "routes",
}  # fmt: skip
CHANGE = {"job", "action", "deployment_id", "drift", "fields", "schedules", "runs_deleted", "runs_kept"}
RUN = {
    "run_id", "job", "asset", "game_date", "status", "slot", "origin", "trigger", "mode", "attempt", "started_at",
    "finished_at", "duration_s", "exit_code", "signal", "reason", "data_root",
}  # fmt: skip
JOB = {
    "name", "description", "schedules", "command", "dry_run_command", "env", "data_root", "working_directory",
    "work_pool", "asset", "game_date_offset_days", "nice", "timeout", "kill_after", "retries", "retry_delay", "overlap",
    "catchup", "catchup_window", "outputs", "tags", "legacy", "gates", "env_files", "user", "accept_cadence",
    "execution", "steps", "parallel_steps", "partition", "as_of", "backfill",
}  # fmt: skip

PLAN = {
    "digest", "empty", "writes_catalog", "work_pools", "queues", "limits", "changes", "notes", "conflicts",
}  # fmt: skip
BACKFILL = {"backfill", "catalog", "job", "start", "end", "only_steps", "as_of_mode", "partition"}
SUMMARY = {
    "summary_version", "finished_at", "partitions", "attempted", "succeeded", "failed", "skipped", "steps", "errors",
    "input_gaps", "runs", "path",
}  # fmt: skip
ENDING = {"game_date", "outcome", "kept", "reason", "run_id", "flow_run_id", "attempts", "duration_s"}
STEP_TIMES = {"step", "runs", "kept", "failed", "skipped", "total_s", "min_s", "median_s", "max_s"}


LOOK = {
    "at", "dry_run", "well", "problems", "unseen", "told", "messages", "sent", "waiting", "pinged", "notes",
}  # fmt: skip
PROBLEM = {"key", "event", "about", "job", "reason", "since", "told", "command"}
STANDING = {
    "installed", "active", "result", "manager", "unknown", "looked_at", "open", "waiting", "channels",
}  # fmt: skip
DELIVERY = {"boxed", "dropped", "channel", "at", "ok", "said", "ok_at", "waiting"}
SENT = {"channel", "subject", "ok", "said", "attempts"}
ALERTS = """\
version = 1
[watchdog]
min_free_percent = 1
server_after = "10s"
[channels.ops]
kind = "webhook"
url_file = "{url}"
[routes.all]
events = ["failed", "disk_full", "missed_slots"]
channels = ["ops"]
"""


def envelope(project: Project, *words: str, check: int = 0) -> Any:
    done = project.orchctl(*words, "--json", check=check)
    content = json.loads(done.stdout)
    assert set(content) == ENVELOPE
    assert content["schema"] == 1
    return content


@pytest.fixture
def one_run(project: Project) -> Project:
    project.schedules["yearly"] = {"cron": "0 5 1 1 *"}
    project.jobs["hello"] = {"command": [project.script("hello.sh", "echo hello")], "schedules": ["yearly"]}
    project.write()
    return project


def test_every_command_prints_one_envelope_with_its_keys(one_run: Project) -> None:
    project = one_run
    assert set(envelope(project, "check")["data"]) == CHECKED
    assert set(envelope(project, "jobs")["data"]["jobs"][0]) == JOB
    assert set(envelope(project, "jobs", "hello")["data"]) == {"job", "schedules", "dag"}
    plan = envelope(project, "plan", check=3)
    assert plan["command"] == "plan"
    assert set(plan["data"]) == PLAN
    # Empty where another test has synced to the same pool.
    queue = {"work_pool", "queue", "action", "before", "after", "because"}
    assert all(set(each) == queue for each in plan["data"]["queues"])
    assert set(plan["data"]["changes"][0]) == CHANGE
    assert set(plan["data"]["changes"][0]["fields"][0]) == {"field", "before", "after", "because"}
    assert set(plan["data"]["changes"][0]["schedules"][0]) == {"slug", "action", "before", "after", "because"}
    assert set(envelope(project, "sync")["data"]) == PLAN - {"empty", "writes_catalog", "conflicts"}
    days = ("--start", "2025-12-01", "--end", "2025-12-01")
    looked = envelope(project, "backfill", "hello", *days, "--dry-run")["data"]
    assert set(looked) == BACKFILL | {"queue_limit", "notes", "partitions"}
    assert set(looked["partitions"][0]) == {"game_date", "action", "why", "run_as_of_ts", "problem", "inputs"}
    submitted = {"submitted", "new", "again", "already_going", "kept", "skipped", "failed", "queue_limit", "notes"}
    assert set(envelope(project, "backfill", "hello", *days)["data"]) == BACKFILL | submitted
    summed_up = envelope(project, "backfill", "hello", *days, "--wait")["data"]
    assert set(summed_up) == BACKFILL | SUMMARY
    assert set(summed_up["runs"][0]) == ENDING
    assert set(summed_up["steps"][0]) == STEP_TIMES
    ended = envelope(project, "run", "hello", "--wait")["data"]
    assert set(ended) == {"job", "run_id", "flow_run_id", "status", "reason", "exit_code", "run", "ui_url"}
    asked = envelope(project, "run", "hello")["data"]
    assert set(asked) == {"job", "run_id", "flow_run_id", "directory", "ui_url", "notes"}
    listed = envelope(project, "runs")["data"]
    assert set(listed) == {"timezone", "start", "end", "runs", "totals", "hidden"}
    assert set(listed["runs"][0]) == RUN
    shown = envelope(project, "runs", "show", ended["run_id"])
    assert shown["command"] == "runs show"
    assert set(shown["data"]) == {"run", "manifest", "directory", "logs", "ui_url", "timeline"}
    assert set(envelope(project, "runs", "reindex")["data"]) == {"manifests", "added"}
    assert set(envelope(project, "status")["data"]) == {"at", "prefect", "ok", "jobs", "problems"}
    audit = envelope(project, "runs", "audit")["data"]
    assert set(audit) == {"timezone", "start", "end", "wrong", "totals", "jobs"}
    assert set(audit["jobs"][0]) == {"job", "wrong", "counts", "slots", "gaps", "extra"}
    status = envelope(project, "host", "status")["data"]
    assert set(status) == {"ok", "api_url", "ui_url", "version", "schedules", "parts"}


def test_what_tells_people_prints_one_envelope_with_its_keys(one_run: Project) -> None:
    project = one_run
    project.jobs["hello"]["work_pool"] = "nobody-polls-it"
    project.write()
    url = project.root / "hook"
    url.touch(0o600)
    url.write_text("http://127.0.0.1:9/hook")
    (project.root / "config" / "alerts.toml").write_text(ALERTS.format(url=url))
    project.orchctl("sync")
    listed = envelope(project, "alerts", "list")["data"]
    assert set(listed) == {"channels", "routes"}
    channel = {"name", "kind", "to", "events", "last", "waiting", "troubles", "given_up"}
    assert set(listed["channels"][0]) == channel
    route = {"name", "events", "jobs", "tags", "channels", "by_prefect", "by_watchdog", "state"}
    assert set(listed["routes"][0]) == route
    planned = envelope(project, "alerts", "apply", "--dry-run", check=3)["data"]
    assert set(planned) == {"changes", "writes"}
    assert set(planned["changes"][0]) == {"kind", "action", "name", "fields"}
    tested = envelope(project, "alerts", "test", check=1)
    assert (tested["status"], tested["errors"][0]["code"]) == ("error", "undelivered")
    assert set(tested["data"][0]) == SENT
    look = envelope(project, "watchdog", check=3)
    assert look["command"] == "watchdog"
    assert set(look["data"]) == LOOK
    assert set(look["data"]["problems"][0]) == PROBLEM
    assert set(look["data"]["told"]) == {"new", "again", "over"}
    assert set(envelope(project, "watchdog", "--dry-run", check=3)["data"]) == LOOK
    standing = envelope(project, "watchdog", "status", check=1)["data"]
    assert set(standing) == STANDING
    assert set(standing["open"][0]) == {"key", "event", "job", "about", "since", "told", "channels"}
    assert set(standing["channels"][0]) == DELIVERY
    found = envelope(project, "doctor", "alerts", check=3)["data"]
    assert set(found) == {"at", "ok", "strict", "checks", "counts", "first", "findings"}
    assert set(found["findings"][0]) == {"check", "group", "level", "seen", "fix"}
    assert set(envelope(project, "doctor", "--list")["data"]["checks"][0]) == {"check", "group", "asks"}


def test_what_looks_at_schedules_jobs_and_contracts_prints_one_envelope_with_its_keys(one_run: Project) -> None:
    project = one_run
    project.jobs["bad"] = {"command": [project.script("bad.sh", "exit 3")]}
    project.write()
    project.orchctl("sync")
    coming = envelope(project, "schedule", "next", "hello")["data"]
    assert set(coming) == {"job", "now", "schedules", "legacy"}
    assert set(coming["schedules"][0]) == {"name", "zone", "rule", "instants", "notes"}
    assert set(envelope(project, "contract", "list")["data"]) == {"contracts"}
    assert set(envelope(project, "recover")["data"]) == {"jobs"}
    taken_back = envelope(project, "rollback", "hello", "--yes")["data"]
    assert set(taken_back) == {"dry_run", "jobs"}
    assert set(taken_back["jobs"][0]) == {"job", "result", "passes", "gates", "steps"}
    drafted = {"directory", "jobs", "jobs_toml", "schedules_toml", "notes", "refused", "written"}
    lines = project.root / "crontab"
    lines.write_text("5 4 * * * /bin/true\n")
    assert set(envelope(project, "import", "cron", str(lines))["data"]) == drafted
    assert set(envelope(project, "completions", "bash")["data"]) == {"shell", "script"}
    failed = envelope(project, "run", "bad", "--wait", check=3)["data"]
    again = envelope(project, "runs", "retry", failed["run_id"])["data"]
    assert set(again) == {"job", "run_id", "flow_run_id", "attempt", "kept", "again", "ui_url", "notes"}


def test_a_torn_event_makes_the_status_partial(one_run: Project) -> None:
    events = one_run.data_root / "manifests" / "events"
    events.mkdir(parents=True)
    for day in ("2025-12-19", "2025-12-20"):
        (events / f"{day}.jsonl").write_text('{"event": "run_star\n')
    content = envelope(one_run, "runs", "--date", "2025-12-19")
    assert content["status"] == "partial"
    assert {error["code"] for error in content["errors"]} == {"skipped"}


def test_an_error_names_the_command_it_came_from(one_run: Project) -> None:
    content = envelope(one_run, "runs", "show", "20251219T050000Z-000000", check=2)
    assert (content["command"], content["status"]) == ("runs", "error")
    assert content["errors"][0]["code"] == "usage"
