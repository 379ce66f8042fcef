"""`host upgrade` while all still runs: what it waits for, and which room it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchctl.errors import GateRefused, Locked
from orchctl.services import upgrade as service
from orchctl.services.upgrade_ports import Asked
from upgrading import OLD, Rig, version_in

MB = 10**6


@pytest.mark.parametrize("at", ["mark", "try"])
def test_while_it_prepares_a_backup_is_waited_for(tmp_path: Path, at: str) -> None:
    rig = Rig(tmp_path, busy=(at, 40))
    assert rig.upgrade() is not None
    assert rig.said.count("waiting: orchctl host verify is at work on this host") == 1


@pytest.mark.parametrize("at", ["mark", "try"])
def test_a_backup_that_takes_too_long_while_it_prepares_is_told(tmp_path: Path, at: str) -> None:
    rig = Rig(tmp_path, busy=(at, 10**6))
    with pytest.raises(Locked, match="orchctl host verify is at work on this host") as caught:
        rig.upgrade()
    assert "nothing was changed" in str(caught.value.hint)
    assert version_in(rig.environment) == OLD
    assert list(tmp_path.glob("venv.*")) == []
    assert rig.world().journal.read() is None
    assert not any(what.startswith(("stop", "let go")) for what in rig.computer.done)


@pytest.mark.parametrize(
    ("disks", "said"),
    [
        ({"": 5 * MB, "/b": 10**9}, None),
        ({"": 5 * MB, "/b": 2 * MB}, "3 MB are needed where /b/archives is, and 2 MB are free"),
        ({"": 2 * MB}, "4 MB are needed where .*venv and .*backups and .*state and .*prefect are, and 2 MB are free"),
        ({"": 10**9, "/state": MB}, "4 MB are needed where [^ ]*backups and .*state and .*prefect are, and 1 MB are"),
        ({"": 10**9, "/state/prefect": MB // 2}, "1 MB are needed where [^ ]*/state/prefect is, and 0 MB are free"),
    ],
)
def test_room_is_looked_at_where_it_is_used_and_added_up(
    tmp_path: Path, disks: dict[str, int], said: str | None
) -> None:
    rig = Rig(tmp_path)
    rig.disks = {place if place == "/b" else f"{tmp_path}{place}": free for place, free in disks.items()}
    asked = Asked(None, (), None, Path("/b/archives") if "/b" in disks else None, None)
    if said is None:
        assert not service.propose(rig.world(), asked).is_empty
        return
    with pytest.raises(GateRefused, match=said):
        service.propose(rig.world(), asked)
