"""The settings of an installation, and those that are kept when they go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchctl.adapters.installed import Installed
from orchctl.errors import StateBroken

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_is_kept_is_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    records = Installed(tmp_path)
    with pytest.raises(StateBroken, match="there is no"):
        records.keep_settings(AT)
    assert records.kept_settings() is None
    records.write_settings("A=1\n")
    first = Path(records.keep_settings(AT))
    assert first.stat().st_mode & 0o777 == 0o600
    assert records.keep_settings(AT + timedelta(hours=1)) == str(first)
    records.write_settings("A=2\n")
    second = Path(records.keep_settings(AT))
    third = Path(records.keep_settings(AT + timedelta(hours=2)))
    records.remove_settings()
    assert (first.read_text(), second.read_text(), third) == ("A=1\n", "A=2\n", second)
    assert records.kept_settings() == str(second)
    assert first.name == "settings.env.before-20260101T000000Z"
    assert records.settings_text() is None
