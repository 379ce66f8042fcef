"""The real units of a host, read through systemctl."""

from __future__ import annotations

import pipeline_units
from box import Box


def test_the_pipeline_is_read_with_its_missing_handler(box: Box) -> None:
    pipeline_units.install(box)
    script = (
        "import os; from orchctl.adapters.systemd import Systemd; from orchctl.core.legacy import SYSTEM\n"
        "units = Systemd(os.environ).read(SYSTEM, everything=True)\n"
        "print(units.missing_handlers(units.services['live-score.service']))\n"
    )
    out, _ = box.python(script).communicate()
    assert out == "('status-email-user@live-score.service.service',)\n"
