"""What `doctor` thinks of packages, the server, its port, its credentials and its database. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from orchctl.core.doctor import Finding, failure, ok, or_ok, unknown, warning
from orchctl.core.doctor_facts import FileFacts, Listener, Requirement
from orchctl.errors import OrchctlError, PrefectUnauthorized

LONGEST_WAL = 64 * 2**20
"""Bytes. SQLite folds its log into the database every 1,000 pages (4 MB); 16 times that means that something is in the
way: a reader that never ends, or a disk that is full."""
_BREAKS = frozenset({"fastapi", "prefect", "sqlalchemy"})
"""With other versions of these the server does not start, or answers and schedules nothing."""
_STACK = "`orchctl host status`, and the server's log"


# --- packages


def versions(found: Sequence[Requirement], where: str) -> Iterator[Finding]:
    """Judge the packages that an interpreter has; `where` is that interpreter."""

    def wrong() -> Iterator[Finding]:
        for each in found:
            if each.holds:
                continue
            has = f"{each.name} {each.installed}" if each.installed else f"no {each.name}"
            seen = f"{where} has {has}, and orchctl needs {each.bounds or 'it'}"
            fix = f'pip install "{each.name}{each.bounds}" there, and restart server and workers'
            bad = each.name in _BREAKS or each.installed is None
            yield (failure if bad else warning)("versions", seen, fix)

    shown = ", ".join(f"{each.name} {each.installed}" for each in found if each.name in _BREAKS)
    yield from or_ok(wrong(), "versions", f"{shown}: within their bounds")


def server_version(
    server: str, requirement: Requirement | None, *, within: Callable[[str, str], bool]
) -> Iterator[Finding]:
    """Judge the server's version by that of the clients; `requirement` None: what orchctl needs is not known."""
    check = "server-version"
    restart = "restart the server and the workers after an upgrade"
    if requirement is None or requirement.installed is None:
        yield unknown(check, f"the server runs {server}; which Prefect orchctl has here is not known", "see `versions`")
    elif not within(server, requirement.bounds):
        seen = f"the server runs {server}, and orchctl needs {requirement.bounds}"
        yield failure(check, seen, f"bring the server to {requirement.installed}")
    elif server != requirement.installed:
        yield warning(check, f"the server runs {server}, its clients here {requirement.installed}", restart)
    else:
        yield ok(check, f"both {server}")


# --- the API


def is_local(url: str) -> bool:
    """Whether an address means this host. Names but `localhost` are not looked up."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def port_of(url: str) -> int | None:
    """Return the port of an address, None where it is none."""
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None


def api(shown: str, version: str | OrchctlError) -> Finding:
    """Judge whether the API answers; `version` is its answer, or what came instead."""
    if isinstance(version, PrefectUnauthorized):
        return ok("api", f"{shown} answers, and asks for credentials")
    if isinstance(version, OrchctlError):
        return failure("api", version.message, version.hint or _STACK)
    return ok("api", f"Prefect {version} at {shown}")


def auth(version: str | OrchctlError, bare: str | OrchctlError, *, ours: bool, demanded: bool, local: bool) -> Finding:
    """Judge credentials. `version` is what the API answers us, `bare` what it answers somebody without credentials.

    `ours`: we have some. `demanded`: `host install` configured the server to ask for them. `local`: it is on this host.
    """
    if isinstance(version, PrefectUnauthorized):
        said = "our credentials are refused" if ours else "the server asks for credentials, and we have none"
        return failure("auth", said, version.hint or "set PREFECT_API_AUTH_STRING to user:password")
    if isinstance(version, OrchctlError):
        return unknown("auth", "the API does not answer", "see `api`")
    if isinstance(bare, PrefectUnauthorized):
        return ok("auth", "the server asks for credentials, and takes ours")
    if isinstance(bare, OrchctlError):
        return unknown("auth", f"whether it answers without credentials is not known: {bare.message}", bare.hint)
    return _open_to_all(configured=demanded or ours, local=local)


def _open_to_all(*, configured: bool, local: bool) -> Finding:
    if configured:
        seen = "credentials are configured, and the server answers without them"
        fix = "it runs with other settings: `orchctl host restart`, or set PREFECT_SERVER_API_AUTH_STRING for it"
        return failure("auth", seen, fix)
    if local:
        return ok("auth", "it asks for none; every user and program of this host may use it")
    fix = "set PREFECT_SERVER_API_AUTH_STRING on its host, and PREFECT_API_AUTH_STRING here"
    return failure("auth", "it asks for none, and it is another host's server", fix)


def exposed(url: str, found: Sequence[Listener], *, answers_all: bool | None) -> Iterator[Finding]:
    """Judge who can reach the server. `found` are the sockets of its port here; `answers_all`: whether it answers
    without credentials, None where that is not known.
    """
    check, local = "exposed", is_local(url)
    found = [each for each in found if each.is_prefect is not False]
    public = [each for each in found if not each.is_loopback]
    fix = "let it listen on 127.0.0.1 only (`--host 127.0.0.1`), or turn credentials on and put TLS before it"
    for each in public:
        seen = f"{each.label} listens on {each.address}:{each.port}, for other hosts too"
        if answers_all is False:
            yield warning(check, f"{seen}; it asks for credentials, which cross the network unencrypted", fix)
        elif answers_all:
            yield failure(check, f"{seen}, and asks for no credentials: whoever reaches it can start jobs", fix)
        else:
            yield failure(check, f"{seen}, and whether it asks for credentials is not known", fix)
    if public:
        return
    if local and found:
        yield ok(check, f"it listens on {', '.join(dict.fromkeys(each.address for each in found))} only")
    elif local:
        yield ok(check, "no Prefect server listens on the API's port")
    elif urlsplit(url).scheme == "https":
        yield ok(check, "another host's server, over TLS")
    else:
        seen = "another host's server without TLS: credentials cross the network unencrypted"
        yield warning(check, seen, "put TLS before it, and use https")


def ports(
    url: str, found: Sequence[Listener], *, answers: bool, held_by_two: bool, silent: str | None = None
) -> Iterator[Finding]:
    """Judge what holds the API's port, `found` being its sockets here. `answers`: a Prefect API does there.

    `held_by_two`: `host up` and `host install` both run a server on this host. `silent` says why sockets could not be
    looked at.
    """
    check, port = "ports", port_of(url)

    def wrong() -> Iterator[Finding]:
        if held_by_two:
            seen = "`host up` and `host install` both run a server on this host: jobs would be scheduled by each"
            yield failure(check, seen, "`orchctl host down` ends that of `host up`")
        if not is_local(url):
            return
        if silent is not None:
            yield unknown(check, silent)
            return
        strangers = [each for each in found if each.is_prefect is False]
        if strangers and not answers:
            seen = f"port {port} is taken by {strangers[0].label}, which is no Prefect server"
            yield failure(check, seen, "stop it, or give the server another port")
        elif found and not answers and all(each.is_prefect is None for each in found):
            yield unknown(
                check, f"port {port} is held by {found[0].label}; whether it is Prefect's is not known", _SUDO
            )
        holders = {each.pid for each in found if each.pid is not None}
        if len(holders) > 1:
            labels = " and ".join(dict.fromkeys(f"{each.label} on {each.address}" for each in found))
            yield failure(check, f"port {port} is held by several programs: {labels}", "stop all but Prefect's server")

    where = f"port {port}: {found[0].label}" if found else f"nothing else holds port {port}"
    yield from or_ok(wrong(), check, where if is_local(url) else "another host's server")


_SUDO = "root may look: use sudo"


# --- the database


def database(found: Sequence[FileFacts], *, kind: str) -> Iterator[Finding]:
    """Judge the files of Prefect's database: itself, and its log. `kind` says what database it is."""
    check = "database"

    def wrong() -> Iterator[Finding]:
        for each in found:
            if each.mode & 0o022:
                yield failure(check, f"others may write {each.path} ({each.bits})", f"chmod 600 {each.path}")
            elif each.mode & 0o044:
                yield warning(check, f"others may read {each.path} ({each.bits})", f"chmod 600 {each.path}")
            if each.path.endswith("-wal") and each.size > LONGEST_WAL:
                seen = f"its log {each.path} has {each.size >> 20} MiB: it is not folded into the database"
                yield warning(
                    check, seen, "see whether a program keeps the database open; a restart of the server ends it"
                )

    size = f", {sum(each.size for each in found) / 2**20:.1f} MiB" if found else ""
    yield from or_ok(wrong(), check, f"{kind}{size}")
