"""What shell completion answers from without starting Python: plain text under `state/completion/`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from orchctl.adapters.state_folder import StateFolder
from orchctl.core.catalog import Catalog
from orchctl.errors import OrchctlError


def write(state_dir: Path, catalog: Catalog) -> None:
    """Keep the names of jobs, contracts and steps that publish, and the folders of events, one a line.

    Written only where something changed.

    Completion is a comfort: a state directory that cannot be written stops no command.
    """
    lines = {
        "jobs": sorted(catalog.jobs),
        "assets": sorted({step.name for job in catalog.jobs.values() for step in job.steps if step.publish}),
        "contracts": sorted(catalog.contracts),
        "events": sorted({f"{job.data_root}/manifests/events" for job in catalog.jobs.values()}),
    }
    folder = StateFolder(state_dir, "completion")
    for name, words in lines.items():
        path = folder.path(name)
        content = "".join(f"{word}\n" for word in words).encode()
        with contextlib.suppress(OrchctlError, OSError):
            if not path.is_file() or path.read_bytes() != content:
                folder.write_bytes(name, content)
