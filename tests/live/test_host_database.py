"""Whether a server would reach a database, tried before an install leads it there: a PostgreSQL of the tests' own."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import pytest

import postgres
from orchctl.adapters.host_units import no_way_to_database
from orchctl.core.installation import DATABASE


def test_a_database_is_opened_as_the_server_would_and_what_is_wrong_is_said_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := postgres.missing():
        pytest.skip(f"{missing[0]} is not installed")
    # Of what our shell has, the server's unit has nothing.
    monkeypatch.setenv("PGPASSWORD", "of the shell")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:///:memory:")

    def tried(url: str) -> str | None:
        settings = {DATABASE: url, "PREFECT_HOME": str(tmp_path / "prefect")}
        return no_way_to_database(settings, sys.executable, getpass.getuser())

    with postgres.cluster() as cluster:
        url = cluster.make("history").url
        assert tried(url) is None
        wrong = {
            url.replace("/history", "/hystory"): 'database "hystory" does not exist',
            url.replace("planted", "p1anted"): 'password authentication failed for user "prefect"',
        }
        for each, why in wrong.items():
            said = tried(each)
            assert said is not None
            assert why in said
            assert "p@ss" not in said
            assert "p%40ss" not in said
    assert not (tmp_path / "prefect").exists()
