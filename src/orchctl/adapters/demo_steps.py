"""The stage of `demo --steps`: the example pipeline in a temporary folder, with a few days of raw data."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib import resources, util
from pathlib import Path

from orchctl.adapters import demo_legacy, pointers
from orchctl.adapters.demo_stage import DemoStage
from orchctl.core.publish import CURRENT, LATEST
from orchctl.errors import OrchctlError

_POINTERS = {CURRENT, LATEST}
_OURS = {"raw", "manifests"}


class StepsStage(DemoStage):
    """A folder with the example: programs, catalog and raw data. Its job has no legacy side."""

    def _choose(self) -> demo_legacy.LegacySide:
        return demo_legacy.LeftOut("the example was never started by anything else")

    def _write(self) -> None:
        if util.find_spec("polars") is None:
            raise OrchctlError(
                "the example reads and writes Parquet with Polars", hint="pip install 'orchctl[contracts]'"
            )
        example = resources.files("orchctl") / "demo_files" / "projections"
        with resources.as_file(example) as folder:
            argv = [sys.executable, str(folder / "prepare.py"), str(self.root)]
            done = subprocess.run(argv, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OrchctlError(f"the example could not be set up: {done.stderr.strip()}")

    def trouble(self, **variables: str) -> None:
        """Give the next runs these variables; none: no trouble."""
        path = self.root / "trouble.env"
        if not variables:
            path.unlink(missing_ok=True)
            return
        path.write_text("".join(f"{key}={value}\n" for key, value in variables.items()), encoding="utf-8")

    def published(self, run_id: str) -> dict[str, str]:
        """Return the SHA-256 of each file that a run has published, by its path without the run's folder."""
        data, found = self.root / "data", dict[str, str]()
        for folder in data.rglob(f"run={run_id}"):
            if folder.relative_to(data).parts[0] in _OURS:
                continue
            for path in folder.rglob("*"):
                if path.is_file() and path.name not in _POINTERS:
                    place = Path(folder.parent.relative_to(data), path.relative_to(folder))
                    found[str(place)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def current(self, folder: str) -> str | None:
        """Return the run that production reads in a folder of the data; None for none."""
        held = pointers.read_pointer(self.root / "data" / folder, CURRENT)
        return held.run_id if held is not None else None
