"""The database's URL is read as SQLAlchemy reads it, which is what Prefect opens it with."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from orchctl.core import database_url
from orchctl.core.database_url import Postgres, Sqlite


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://u@h/a%20b",
        "postgresql+asyncpg://u%40x:p%2541%2F@h:5433/db",
        "postgresql+asyncpg://u:p@[::1]:5433/db",
        "postgresql+asyncpg://u:p@/db?host=/run/pg",
    ],
)
def test_postgres_is_read_as_prefect_opens_it(url: str) -> None:
    found, theirs = database_url.parse(url), make_url(url)
    assert isinstance(found, Postgres)
    assert (found.user, found.password, found.name) == (theirs.username, theirs.password, theirs.database)
    again = make_url(found.url)
    assert (again.username, again.password, again.database) == (theirs.username, theirs.password, theirs.database)


def test_a_password_in_the_query_is_unquoted_once() -> None:
    found = database_url.parse("postgresql://u@h/db?password=a%2541")
    assert isinstance(found, Postgres)
    assert found.password == make_url("postgresql://u@h/db?password=a%2541").query["password"] == "a%41"


@pytest.mark.parametrize("path", ["/srv/prefect.db", "/srv/a%41/p.db", "/srv/a b.db"])
def test_sqlites_path_is_taken_as_it_stands(path: str) -> None:
    url = f"sqlite+aiosqlite:///{path}"
    assert database_url.parse(url) == Sqlite(path)
    assert make_url(url).database == path


def test_a_port_that_is_none_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="cannot be read") as refused:
        database_url.parse("postgresql://u@h/db?port=planted-secret")
    assert "planted-secret" not in str(refused.value)
