"""What `doctor` thinks of other hosts whose workers poll the same pools. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from orchctl.core.deployments import LABEL_CATALOG, STATE_DIR_VARIABLE, STATE_ID_VARIABLE
from orchctl.core.doctor import Finding, failure, ok, or_ok, warning
from orchctl.core.remote import RemoteDeployment
from orchctl.core.words import several

_CHECK = "hosts"
_PAGE = "docs/scaling.md says what hosts have to share"
# By the options that the kernel shows: with these a lock is one host's alone.
_ALONE: Mapping[str, frozenset[str]] = {
    "nfs": frozenset({"nolock", "local_lock=all", "local_lock=flock"}),
    "nfs4": frozenset({"nolock", "local_lock=all", "local_lock=flock"}),
    "cifs": frozenset({"nobrl"}),
    "smb3": frozenset({"nobrl"}),
}
_REACHING = frozenset({*_ALONE, "ceph", "gfs2", "ocfs2", "fuse.glusterfs", "lustre"})
"""File systems on which a lock can be seen by other hosts."""


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system that holds a folder: `kind` as the kernel names it, and its options."""

    kind: str
    options: frozenset[str]


def mount_of(mountinfo: str, path: str) -> Mount | None:
    """Return what holds an absolute path without symlinks, by /proc/self/mountinfo; None where it says nothing."""
    found, longest = None, -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        at = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        # Of two on one place the later one lies on top.
        if (path == at or path.startswith(at.rstrip("/") + "/")) and len(at) >= longest:
            found, longest = Mount(rest[0], frozenset((*fields[5].split(","), *rest[2].split(",")))), len(at)
    return found


def others(found: Mapping[str, Iterable[str]], own: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the workers online that are not this host's, by pool; `own` names its own one of each pool it serves."""
    seen = {pool: sorted({name for name in names if name != own[pool]}) for pool, names in found.items() if pool in own}
    return {pool: names for pool, names in seen.items() if names}


def hosts(
    beside: Mapping[str, Collection[str]],
    locks: str,
    mount: Mount | None,
    deployments: Iterable[RemoteDeployment],
    *,
    catalog: str,
    pools: Collection[str],
    legacy: Mapping[str, Collection[str]],
    here: tuple[str, str | None],
) -> Iterator[Finding]:
    """Judge what this host shares with others.

    `beside` are the workers of others by pool, `locks` is the folder of the jobs' locks, `mount` what holds it (None:
    not known). `pools` are those of the catalog, `legacy` the jobs with legacy triggers by pool, `here` the path and
    the id of the state directory.
    """

    def wrong() -> Iterator[Finding]:
        yield from _catalogs(deployments, catalog, pools, here)
        for pool, each in beside.items():
            if jobs := legacy.get(pool):
                seen = (
                    f"timers of one host start {several(list(jobs))}, and {several(list(each))} polls pool {pool} too"
                )
                fix = "give it a work pool that only the host of its timers serves"
                yield warning(_CHECK, f"{seen}: another host only observes the runs that it takes", fix)
        names = sorted({name for each in beside.values() for name in each})
        if not names or mount is None:
            return
        who = f"{several(names)} {'polls' if len(names) == 1 else 'poll'} {several(sorted(beside))} too"
        alone = _ALONE.get(mount.kind, frozenset()) & mount.options
        if alone:
            seen = f"{who}, and locks in {locks} are this host's alone ({mount.kind}, {sorted(alone)[0]})"
            yield failure(_CHECK, f"{seen}: two runs of a job could go at a time", f"mount it without; {_PAGE}")
        elif mount.kind not in _REACHING:
            seen = f"{who}; if that is another host, it does not see the locks in {locks} ({mount.kind})"
            yield warning(_CHECK, seen, f"give each host a pool of its own, or share the folder; {_PAGE}")

    told = "; ".join(f"{several(list(names))} in pool {pool} too" for pool, names in beside.items())
    yield from or_ok(wrong(), _CHECK, told or "no other worker polls the pools of this host")


def nothing_served() -> Finding:
    """Return that this host has no worker that could share a pool."""
    return ok(_CHECK, "this host has no worker")


def _catalogs(
    deployments: Iterable[RemoteDeployment], catalog: str, pools: Collection[str], here: tuple[str, str | None]
) -> Iterator[Finding]:
    """Yield the pools in which jobs of another catalog wait whose runs this host would refuse."""
    strange: dict[str, set[str]] = {}
    for each in deployments:
        name, pool = each.labels.get(LABEL_CATALOG), each.work_pool
        env = each.job_variables.get("env") or {}
        same = (env.get(STATE_DIR_VARIABLE), env.get(STATE_ID_VARIABLE)) == here
        if name not in {None, catalog} and pool in pools and not same:
            strange.setdefault(str(pool), set()).add(str(name))
    for pool, names in sorted(strange.items()):
        seen = f"jobs of the catalog {several(sorted(names))}, of another state directory, are in work pool {pool} too"
        fix = f"give each catalog a work pool of its own; {_PAGE}"
        yield failure(_CHECK, f"{seen}: each host fails runs of the other's that it takes", fix)
