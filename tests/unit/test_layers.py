"""The layer contracts bite: each is broken on purpose in a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

BREAKS = [
    ("core/names.py", "import httpx", "the pure layers import nothing that reaches outside"),
    ("services/runs.py", "import subprocess", "the pure layers import nothing that reaches outside"),
    ("services/sync.py", "import orchctl.adapters.files", "layers"),
    ("core/plan.py", "import orchctl.services.sync", "layers"),
    ("adapters/files.py", "import orchctl.wiring", "layers"),
    (
        "runner/job.py",
        "import prefect",
        "only flow.py, flow_tasks.py, instants.py, alert_block.py import prefect",
    ),
    ("cli/runs.py", "import httpx", "only adapters import httpx"),
    ("runner/contracts.py", "import polars", "only adapters/contract_*.py load what checks contracts"),
    ("adapters/contract_rules.py", "import subprocess", "only the named files start processes"),
    ("adapters/manifests.py", "import subprocess", "only the named files start processes"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [
            str(tool),
            "--no-logo",
            "--no-cache",
            "--config",
            str(ROOT / "pyproject.toml"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src" / "orchctl", tmp_path / "orchctl", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(("file", "statement", "contract"), BREAKS, ids=[f"{file}: {line}" for file, line, _ in BREAKS])
def test_a_forbidden_import_breaks_its_contract(copied: Path, file: str, statement: str, contract: str) -> None:
    path = copied / "orchctl" / file
    path.write_text(path.read_text() + f"\n{statement}\n")
    done = lint(copied)
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert done.returncode == 1
    assert any(line.startswith(contract) for line in broken), done.stdout


def test_each_package_states_its_law() -> None:
    for package in ("core", "services", "adapters", "runner", "cli"):
        text = (ROOT / "src" / "orchctl" / package / "__init__.py").read_text()
        assert "Law of this layer:" in text, package


def test_files_and_functions_stay_in_their_room() -> None:
    import ast

    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") < 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"
