"""The URL of Prefect's database, as SQLAlchemy writes it: where the database is, and who opens it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from orchctl.core import host_settings

Kind = Literal["sqlite", "postgresql"]

_PORT = 5432
_LONGEST = 63
"""Bytes of a name in PostgreSQL (NAMEDATALEN - 1); what is longer it cuts, silently."""
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A file. `path` is absolute."""

    path: str
    kind: Kind = "sqlite"

    @property
    def url(self) -> str:
        """The URL that Prefect opens it by."""
        return f"sqlite+aiosqlite:///{self.path}"

    @property
    def shown(self) -> str:
        """Where it is, for people."""
        return self.path


@dataclass(frozen=True, slots=True)
class Postgres:
    """A database of a PostgreSQL server. `host` may be the folder of a socket. `tls` is libpq's sslmode, None: its own
    default. `password` is a secret: it is in `url`, and nowhere else that is shown.
    """

    host: str
    port: int
    user: str
    password: str | None = field(repr=False)
    name: str
    tls: str | None = None
    kind: Kind = "postgresql"

    @property
    def url(self) -> str:
        """The URL that Prefect opens it by, with the password."""
        secret = "" if self.password is None else f":{quote(self.password, safe='')}"
        socket = self.host.startswith("/")
        query = "&".join(
            [*([f"host={quote(self.host, safe='')}"] if socket else []), *([f"ssl={self.tls}"] if self.tls else [])]
        )
        where = "" if socket else f"[{self.host}]" if ":" in self.host else self.host
        account = f"{quote(self.user, safe='')}{secret}"
        return f"postgresql+asyncpg://{account}@{where}:{self.port}/{self.name}" + (f"?{query}" if query else "")

    @property
    def shown(self) -> str:
        """Where it is, for people: no password."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.name}"

    def beside(self, suffix: str) -> Postgres:
        """Return the database of this name with a suffix, on the same server."""
        name = self.name
        if len(f"{name}{suffix}".encode()) > _LONGEST:
            # With a digest of all of it: what would be left may be another database's too.
            end = f"_{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}{suffix}"
            name, suffix = name.encode()[: _LONGEST - len(end)].decode(errors="ignore"), end
        return Postgres(self.host, self.port, self.user, self.password, name + suffix, self.tls)


def of_settings(settings: Mapping[str, str], home: str) -> Sqlite | Postgres:
    """Return the database that the settings of a server name; without one it is `prefect.db` in PREFECT_HOME.

    Raises ValueError where it is named in a way that this cannot follow.
    """
    named = host_settings.named_database(settings)
    return parse(named) if named is not None else Sqlite(f"{home.rstrip('/')}/prefect.db")


def parse(url: str) -> Sqlite | Postgres:
    """Return what a URL names. Raises ValueError, whose words hold nothing of the URL: it may hold a password."""
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme == "sqlite":
        return Sqlite(_path(url))
    if scheme not in {"postgresql", "postgres"}:
        raise ValueError("the URL of the database is neither one of SQLite nor one of PostgreSQL")
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        port = parts.port or int(query.get("port", _PORT))
    except ValueError:
        raise ValueError("the URL of the database cannot be read") from None
    # As SQLAlchemy reads it: only user and password before the @ are unquoted, and what stands in the query is already.
    name = parts.path.removeprefix("/")
    user = unquote(parts.username) if parts.username else query.get("user", "")
    if not name or not user or "/" in name:
        raise ValueError("the URL of the database names no user, or no database")
    password = unquote(parts.password) if parts.password else query.get("password")
    return Postgres(
        host=unquote(parts.hostname or "") or query.get("host", "localhost"),
        port=port,
        user=user,
        password=password,
        name=name,
        tls=_tls(query),
    )


def _path(url: str) -> str:
    path = url.partition("://")[2].partition("?")[0]
    # sqlite:////abs has an empty host and the path /abs; sqlite:///rel a path that depends on where Prefect starts.
    path = path.removeprefix("/")
    if not path.startswith("/"):
        raise ValueError("the URL of the database names no absolute path of a file")
    return path


def _tls(query: Mapping[str, str]) -> str | None:
    named = query.get("ssl") or query.get("sslmode")
    return {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(named or "", named)
