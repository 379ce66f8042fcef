"""What looks at the legacy history, put together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from orchctl.adapters import env_files, host_facts
from orchctl.adapters.journald import Journald
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.observed import Observed
from orchctl.adapters.systemd import Systemd
from orchctl.services.observe import Eyes


def eyes(environment: Mapping[str, str], state_dir: Path, caller: str | None) -> Eyes:
    """Return what looks; `caller` is whose manager "the user's" is, None: this process's."""
    here = host_facts.here()
    return Eyes(
        systemd=Systemd(environment, caller),
        journal=Journald(environment, caller),
        looks=Observed(state_dir),
        tree=Manifests,
        host_zone=host_facts.timezone(),
        hostname=here.hostname,
        boot_id=here.boot_id,
        now=lambda: datetime.now(UTC),
        elapsed=time.monotonic,
        secrets=environment,
        env_file=env_files.variables_or_none,
    )
