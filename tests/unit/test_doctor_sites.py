"""Each failure and each warning of `doctor` is made on purpose by the tests that work with `doctoring.Host`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from doctor_sites import sites
from orchctl.core.doctor import CHECKS
from orchctl.core.doctor_jobs import CODES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the tests of doctor's service made, in a session of their own."""
    told = tmp_path_factory.mktemp("sites") / "made.json"
    others = [
        str(path)
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if "\nfrom doctoring import " in path.read_text()
    ]
    words = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "doctor_sites", *others)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "DOCTOR_SITES": str(told)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return json.loads(told.read_text())


def test_every_place_that_makes_a_failure_or_a_warning_was_reached(made: Any) -> None:
    reached = {(file, line) for file, line in made["lines"]}
    missing = [
        f"{Path(file).name}:{first}"
        for file, first, last in sites()
        if not any((file, line) in reached for line in range(first, last + 1))
    ]
    assert missing == []


def test_every_code_of_status_came_into_a_report(made: Any) -> None:
    assert set(CODES) - set(made["codes"]) == set()


def test_every_level_that_the_page_promises_of_a_check_was_seen(made: Any) -> None:
    seen = {(check, level) for check, level in made["levels"]}
    page = (ROOT / "docs" / "doctor.md").read_text()
    promised = dict(re.findall(r"^\| `([a-z-]+)` \|[^|]*\|(.*)\|$", page, re.MULTILINE))
    assert set(promised) == {check.name for check in CHECKS}
    for check, words in promised.items():
        assert {"ok"} <= {level for name, level in seen if name == check}, check
        for level in ("failure", "warning"):
            named = re.search(rf"\b{level}\b", words, re.IGNORECASE) is not None
            assert named == ((check, level) in seen), f"{check}: {level}"
