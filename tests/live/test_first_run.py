"""The main job, end to end: catalog, sync, a run by hand, its manifest, its line in `runs`."""

from __future__ import annotations

from support import Project


def test_a_run_by_hand_leaves_a_manifest_a_log_and_a_line(project: Project) -> None:
    project.jobs["hello"] = {
        "command": [project.script("hello.sh", "echo hello {game_date} on $1; echo to-stderr >&2"), "{game_date}"],
    }
    project.write()
    project.orchctl("sync")
    done = project.orchctl("run", "hello", "--date", "2025-12-19", "--wait")
    assert "on 2025-12-19\nto-stderr\n" in done.stdout
    (run,) = project.json("runs")["runs"]
    assert (run["status"], run["trigger"], run["exit_code"], run["game_date"]) == ("success", "manual", 0, "2025-12-19")
    manifest = project.manifest(run["run_id"])
    assert manifest["status"] == "success"
    assert manifest["attempts"][0]["exit_code"] == 0
    assert project.orchctl("runs", "logs", run["run_id"]).stdout.endswith("to-stderr\n")
