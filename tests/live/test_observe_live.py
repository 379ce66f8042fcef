"""A job of legacy triggers, observed by a real worker."""

from __future__ import annotations

import time
from pathlib import Path

import live_runs
from orchctl.core.names import format_instant
from support import Live, eventually


def test_an_observed_slot_says_what_became_of_it_and_keeps_nobody_waiting(live: Live, tmp_path: Path) -> None:
    with live_runs.project_in(tmp_path, live) as project:
        dry = project.script("dry.sh", 'echo "checking with $DB_PASSWORD"; touch "$ORCHCTL_RUN_DIR/x"; exit 3')
        project.jobs = {
            "watched": {
                "command": ["touch", "ran"],
                "dry_run_command": [dry],
                "env": {"DB_PASSWORD": "hunter2-of-the-env"},
                "legacy": [{"timer": "orchctl-no-such.timer", "scope": "system"}],
            }
        }
        project.write()
        project.orchctl("sync")
        begun = time.monotonic()
        asked = live_runs.ask(live, "watched", parameters={"slot": format_instant(live_runs.now())})
        run = live_runs.finished(live, asked.id, within=60)
        assert (run.state_type, run.state_name) == ("COMPLETED", "Observed")
        # Whether this machine runs a systemd or not: it has no such timer, and nothing comes.
        assert time.monotonic() - begun < 45
        said = run.state_message or ""
        assert said.startswith(
            ("legacy owns the job; what systemd did is not known: ", "legacy owns the job; systemd did ")
        )
        assert "; the dry run ended with exit code 3 after " in said
        assert said.endswith(f"would have run touch ran in {project.root}")
        manifest = project.manifest(run.name)
        assert (manifest["status"], manifest["mode"]) == ("observed", "observe")
        assert said.startswith(manifest["reason"])
        assert not (project.root / "ran").exists()
        eventually(lambda: "checking with ***" in live_runs.log_of(live, run.id), within=30)
        assert project.orchctl("runs", "logs", run.name).stdout == "checking with ***\n"
