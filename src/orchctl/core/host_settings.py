"""What Prefect's server and workers are set to, and the file that holds the settings of installed ones. Pure.

The file is systemd's EnvironmentFile= and the only place of a secret: units, record and messages hold none.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from orchctl.core.installation import API_URL, AUTH_CLIENT, AUTH_SERVER, DATABASE, DATABASES, ENCRYPTION_KEYS

LOOPBACK = "127.0.0.1"
HOME = "PREFECT_HOME"
# Prefect's own defaults suit a cloud: a poll of 10 s and a scheduler that looks every minute.
SERVER: Mapping[str, str] = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "20",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # In PREFECT_HOME. In memory, the default, a server that is killed forgets who holds the places of a concurrency
    # limit, and they stay taken for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
# Where the installed server puts the files of its UI: beside the package, as it does by default, it may not write, or
# would meet those of another user's server.
UI = "PREFECT_UI_STATIC_DIRECTORY"
WORKER: Mapping[str, str] = {"PREFECT_WORKER_QUERY_SECONDS": "2"}
SERVER_ONLY = (AUTH_SERVER, *DATABASES, *ENCRYPTION_KEYS)
"""Settings in the file that a worker, and what it runs, must not be given."""
_OURS = frozenset({API_URL, HOME, AUTH_CLIENT, AUTH_SERVER, *DATABASES})
_ASYNC = {"postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_ESCAPED = str.maketrans({char: f"\\{char}" for char in '\\"`$'})
_HEADER = "# orchctl: settings of Prefect's server and workers, secrets among them. `orchctl host install` writes it.\n"


def stale_lock(home: str) -> str:
    """Return a lock of the server's that one which was killed leaves behind; it must go before the next one starts.

    It holds a pid: after a reboot that may be another program's, and the server would wait for that one for ever.
    """
    return f"{home}/concurrency_leases/expirations.lock"


def api_url(port: int) -> str:
    """Return the address of the API of a server on this host."""
    return f"http://{LOOPBACK}:{port}/api"


def port_of(url: str) -> int | None:
    """Return the port of an API's address, None where it names none."""
    try:
        return urlsplit(url).port
    except ValueError:
        return None


def sqlite(home: str) -> str:
    """Return Prefect's address of SQLite's database in PREFECT_HOME."""
    return f"sqlite+aiosqlite:///{home}/prefect.db"


def named_database(settings: Mapping[str, str]) -> str | None:
    """Return the database's URL that a server with these settings takes, None where they name none."""
    return next((settings[key] for key in DATABASES if settings.get(key)), None)


def database(asked: str, home: str) -> str:
    """Return Prefect's address of the database that `asked` means: `sqlite`, or a URL of Postgres.

    Raises ValueError, without anything of a URL in it, for what is neither.
    """
    if asked == "sqlite":
        return sqlite(home)
    neither = "it is neither sqlite nor postgresql://USER@HOST/DATABASE"
    try:
        parts, port = urlsplit(asked), urlsplit(asked).port
    except ValueError:
        raise ValueError(neither) from None
    scheme = _ASYNC.get(parts.scheme, parts.scheme)
    if port == 0 or scheme not in _ASYNC.values() or not parts.path.strip("/") or not asked.isprintable():
        raise ValueError(neither)
    return scheme + asked[len(parts.scheme) :]


def has_password(url: str) -> bool:
    """Whether a database's URL holds a password, in its user part or among its options."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    options = {option.partition("=")[0].lower() for option in parts.query.split("&")}
    return parts.password is not None or not options.isdisjoint({"password", "passwd", "sslpassword"})


def settings(
    url: str, home: str, *, auth: str | None, database_url: str | None, before: Mapping[str, str]
) -> dict[str, str]:
    """Return what the file is to hold. `before` is what it holds now: what somebody added to it stays.

    `auth` is `user:password` for the API, None for one without; `database_url` None: this host has no server.
    """
    wanted = {API_URL: url, HOME: home}
    if auth is not None:
        wanted[AUTH_CLIENT] = auth
    if database_url is not None:
        wanted[DATABASE] = database_url
        if auth is not None:
            wanted[AUTH_SERVER] = auth
    return wanted | {key: value for key, value in before.items() if key not in _OURS}


def not_ours(before: Mapping[str, str]) -> dict[str, str]:
    """Return which of the file's settings only this file may hold: what somebody added, and a database of their own."""
    own = sqlite(before.get(HOME, ""))
    return {
        key: value for key, value in before.items() if key not in _OURS or (key in DATABASES and value not in {"", own})
    }


def text(values: Mapping[str, str]) -> str:
    """Return the file. Raises ValueError for a value that no line of it can hold."""
    lines = []
    for key, value in values.items():
        if not value.isprintable():
            raise ValueError(f"{key} holds a character that cannot be written into the settings")
        lines.append(f'{key}="{value.translate(_ESCAPED)}"\n')
    return _HEADER + "".join(lines)


def concerns_worker(key: str) -> bool:
    """Whether a setting of the file reaches workers: one that changed makes them start anew."""
    return key not in SERVER_ONLY
