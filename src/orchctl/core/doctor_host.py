"""What `doctor` thinks of the host: clock, disks, files, units, backups. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchctl.core import durations, gates, host_units
from orchctl.core.doctor import Finding, failure, ok, or_ok, unknown, warning
from orchctl.core.doctor_facts import Backup, Disk, FileFacts, Sampled, Who
from orchctl.core.words import counted, several

if TYPE_CHECKING:
    from orchctl.core.installation import Installation
    from orchctl.core.legacy import Unit

OUT = 0.02
"""Which part of a file system, in bytes or inodes, is as good as nothing. What is little alerts.toml says
(`min_free_percent`), as for `orchctl watchdog`."""
OUT_BYTES = 100 * 2**20
"""Bytes that are as good as nothing, however small the disk is."""
BACKUP_AGE = timedelta(days=2)
"""A daily backup that failed once is no reason to be woken; twice is."""
VERIFIED_AGE = timedelta(days=30)
LEFT_FOR = timedelta(days=2)
"""What the dead left in a staging directory is swept by the next run after a day; what is older nobody sweeps."""
_TEMPORARY = ".tmp"


# --- clock and zone


def clock(*, now: datetime, offset_s: float | None, synchronised: bool | None) -> Finding:
    """Judge this host's clock as a cutover does; one that nothing keeps is a warning here."""
    gate = gates.clock(now=now, offset_s=offset_s, synchronised=synchronised, latest={})
    if not gate.holds:
        return failure("clock", gate.seen, gate.fix or "set it")
    if synchronised is False:
        return warning("clock", gate.seen, "`timedatectl set-ntp true`, or run another time client")
    return ok("clock", gate.seen)


def zone(host: str, catalog: str, *, legacy: Sequence[str], exists: Callable[[str], bool]) -> Finding:
    """Judge the host's zone; `legacy` are the jobs that timers or crontab lines of this host start."""
    if not exists(host):
        fix = "`timedatectl set-timezone`, or install tzdata"
        return failure("zone", f"this host's zone {host} is not in the time zone database", fix)
    if host != catalog and legacy:
        seen = f"timers and crontabs mean {host}, the catalog {catalog} ({several(legacy)})"
        return warning("zone", seen, "`orchctl schedule compare JOB` shows whether the instants are the same")
    apart = f"this host {host}, the catalog {catalog}; nothing of this host's zone starts a job"
    return ok("zone", host if host == catalog else apart)


# --- disks


def disks(found: Sequence[Disk], *, low: float) -> Iterator[Finding]:
    """Judge file systems, each once. `low`: which part of one, in bytes or inodes, is little."""

    def wrong() -> Iterator[Finding]:
        for disk in {disk.device: disk for disk in reversed(found)}.values():
            for what, free, total, least in (
                ("bytes", disk.free, disk.total, OUT_BYTES),
                ("inodes", disk.free_inodes, disk.inodes, 0),
            ):
                if total <= 0:
                    continue
                part = free / total
                left = f"{_size(free)} of {_size(total)}" if what == "bytes" else f"{free:,} of {total:,} inodes"
                seen = f"{left} free where {disk.path} is ({part:.0%})"
                if free <= least or part < OUT:
                    yield failure("disk", seen, f"make room: {_ROOM}")
                elif part < low:
                    yield warning("disk", seen, f"make room soon: {_ROOM}")

    fullest = min(found, key=lambda disk: disk.free / max(1, disk.total), default=None)
    seen = "nothing is to be kept"
    if fullest is not None:
        seen = f"{_size(fullest.free)} of {_size(fullest.total)} free where {fullest.path} is"
    yield from or_ok(wrong(), "disk", seen)


_ROOM = "`du -x --max-depth=2` there says what takes it; `orchctl host backup --keep N` keeps fewer backups"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


# --- files


def unfinished_restore(archive: str) -> Finding:
    """Return that a restore of this archive was interrupted."""
    seen = f"a restore of {archive} was interrupted: state, catalog and database may not fit each other"
    return failure("state", seen, f"`orchctl host restore {archive}` goes on with it")


def unfinished_upgrade(said: str) -> Finding:
    """Return that an upgrade is unfinished, in the words of `core.upgrade.told`."""
    return failure("state", said, "`orchctl host upgrade` finishes it, or puts it back")


def state(path: str, folder: FileFacts | None, files: Sampled | None, *, me: Who, worker: Who) -> Iterator[Finding]:
    """Judge the state directory. `me` runs doctor, `worker` is who runs the worker."""
    check = "state"
    if folder is None:
        yield ok(check, f"{path} is not there yet: nothing is remembered")
        return

    def wrong() -> Iterator[Finding]:
        if not folder.is_folder:
            yield failure(check, f"{path} is no folder", "name another with --state-dir")
            return
        if folder.uid not in {worker.uid, 0}:
            seen = f"{path} belongs to {folder.owner}, and the worker runs as {worker.name}"
            yield failure(check, seen, f"run the worker as {folder.owner}, or give it another ORCHCTL_STATE_DIR")
        elif not folder.lets_write(worker):
            yield failure(check, f"{worker.name} may not write {path} ({folder.bits})", f"chmod u+rwx {path}")
        if me.uid not in {folder.uid, 0}:
            yield unknown(check, f"{path} is {folder.owner}'s: what is in it is not believed for {me.name}", _AS_OWNER)
        if files is None:
            return
        if files.unread is not None:
            yield unknown(check, f"{files.unread} may not be looked into", _AS_OWNER)
        # Reading refuses both, so that the job of such a file stops.
        loose = [each for each in files.files if each.mode & 0o022 and not _is_link(each)]
        if loose:
            yield _of_many(check, loose, "may be written by others: what they say is not believed", "chmod -R go-w")
        foreign = [each for each in files.files if each.uid not in {folder.uid, 0}]
        if foreign:
            seen = f"belongs to {foreign[0].owner} in a state directory of {folder.owner}'s: it is not believed"
            yield _of_many(check, foreign, seen, f"look at it, then chown {folder.owner}")

    yield from or_ok(wrong(), check, f"{path}, of {folder.owner}")


_AS_OWNER = "run doctor as that user, or with sudo"


def _is_link(each: FileFacts) -> bool:
    return each.mode & 0o170000 == 0o120000


def _of_many(check: str, found: Sequence[FileFacts], what: str, fix: str) -> Finding:
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return failure(check, f"{found[0].path} ({found[0].bits}){more}: {what}", f"{fix} {found[0].path}")


def permissions(found: Sequence[Sampled], missing: Sequence[str], worker: Who) -> Iterator[Finding]:
    """Judge what lies under the data roots, as far as it was looked at, by who runs the worker."""
    check = "permissions"
    looked = sum(len(each.files) for each in found)

    def wrong() -> Iterator[Finding]:
        for root in missing:
            yield warning(check, f"the data root {root} is not there", "make it, or see `data_root` in jobs.toml")
        for each in found:
            yield from _under(each, worker)

    whole = "all that there are" if all(each.whole for each in found) else "a sample"
    seen = f"{worker.name} may write what was looked at: {looked} files and folders, {whole}"
    yield from or_ok(wrong(), check, seen if found else "there is no data root to look at")


def _under(each: Sampled, who: Who) -> Iterator[Finding]:
    check = "permissions"
    if each.unread is not None:
        yield unknown(check, f"{each.unread} may not be looked into", _AS_OWNER)
    denied = [file for file in each.files if not _is_link(file) and not file.lets_write(who)]
    if denied:
        first, more = denied[0], f", and {len(denied) - 1} more" if len(denied) > 1 else ""
        seen = f"{who.name} may not write {first.path} (of {first.owner}, {first.bits}){more}"
        fix = f"chown -R {who.name} {first.path}, or chmod; find out which job runs as {first.owner}"
        # Runs cannot even begin where the root itself, or its manifests, cannot be written.
        at_root = any(file.path in {each.root, f"{each.root}/manifests"} for file in denied)
        yield (failure if at_root else warning)(check, seen, fix)
    loose = [file for file in each.files if file.open_to_all and not _is_link(file)]
    if loose:
        first, more = loose[0], f", and {len(loose) - 1} more" if len(loose) > 1 else ""
        yield warning(check, f"everybody may write {first.path} ({first.bits}){more}", f"chmod o-w {first.path}")


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that holds secrets (`secret`), or could. `what` says what it is for; `facts` None: it is not there."""

    what: str
    path: str
    facts: FileFacts | None
    secret: bool


def secrets(listed: Sequence[Kept], unread: Sequence[str] = ()) -> Iterator[Finding]:
    """Judge files that hold secrets; `unread` are those that may not be looked at."""
    check = "secrets"

    def wrong() -> Iterator[Finding]:
        for kept in listed:
            path, each = kept.path, kept.facts
            if each is None:
                yield failure(check, f"{path}, {kept.what}, is not there", "put it back; what reads it fails")
            elif each.mode & 0o022 and not _is_link(each):
                yield failure(check, f"others may write {path} ({each.bits}), {kept.what}", f"chmod 600 {path}")
            elif each.mode & 0o044 and kept.secret and not _is_link(each):
                yield warning(check, f"others may read {path} ({each.bits}), {kept.what}", f"chmod 600 {path}")
        for path in unread:
            yield unknown(check, f"{path} may not be looked at", _AS_OWNER)

    seen = f"{counted(len(listed), 'file')}, for their owners alone" if listed else "no file is named"
    yield from or_ok(wrong(), check, seen)


def leftovers(gone: Sequence[str], files: Iterable[FileFacts], *, now: datetime) -> Iterator[Finding]:
    """Judge what the dead left. `gone` are processes of `host up` that are recorded and do not live; `files` what was
    seen under the state directory and the data roots.
    """
    check = "leftovers"

    def wrong() -> Iterator[Finding]:
        if gone:
            seen = f"{several(gone)} of `host up` ended without `host down`"
            yield warning(check, seen, "`orchctl host up` starts it again, `orchctl host down` forgets it")
        old = [each for each in files if each.changed < now - LEFT_FOR]
        torn = [each for each in old if (name := each.path.rpartition("/")[2])[:1] == "." and name.endswith(_TEMPORARY)]
        if torn:
            yield warning(check, _left(torn, "left by a writer that was killed"), f"remove it: rm {torn[0].path}")
        staged = [each for each in old if each.is_folder and each.path.split("/")[-2:-1] == ["_staging"]]
        if staged:
            yield warning(check, _left(staged, "left in staging by a run that was killed"), "look at it, and remove it")

    yield from or_ok(wrong(), check, "none was seen")


def _left(found: Sequence[FileFacts], what: str) -> str:
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0].path} of {found[0].changed:%Y-%m-%d}{more}: {what}"


# --- units


def units(installed: Installation | None, found: Mapping[str, Unit], changed: Collection[str]) -> Iterator[Finding]:
    """Judge the units of an installation, `found` being what systemd says of them by name, `changed` those whose files
    are not what this orchctl would install.
    """
    check = "units"
    if installed is None:
        yield ok(check, "nothing was installed with `host install`")
        return
    kept = host_units.enabled(installed)
    names = dict.fromkeys([*(path.rpartition("/")[2] for path in installed.units), *kept])
    ctl = _ctl(installed)

    def wrong() -> Iterator[Finding]:
        for name in names:
            unit = found.get(name)
            if unit is None or unit.load == "not-found":
                yield failure(check, f"{name} was installed, and is gone", "`orchctl host install` puts it back")
            elif unit.load != "loaded":
                why = unit.load_error or unit.load
                yield failure(check, f"{name} cannot be started: {why}", f"`{ctl} status {name}`")
            else:
                yield from _unit(unit, installed, kept=name in kept, changed=name in changed)
        for name in installed.owed:
            yield warning(check, f"{name} has still to be restarted after an install", "`orchctl host install`")

    yield from or_ok(wrong(), check, f"{several(kept, shown=4)} run, and start at boot ({installed.scope})")


def _unit(unit: Unit, installed: Installation, *, kept: bool, changed: bool) -> Iterator[Finding]:
    """Judge a unit that is loaded. `kept`: it is to run, and to start at boot; others are started by those."""
    check, name, ctl = "units", unit.name, _ctl(installed)
    if kept and unit.active != "active":
        said = f"{unit.active} ({unit.result})" if unit.result not in {"", "success"} else unit.active
        yield failure(check, f"{name} does not run: it is {said}", "`orchctl host up`; why: `orchctl host logs`")
    if not kept and unit.result not in {"", "success"}:
        yield failure(check, f"{name} failed when it last ran ({unit.result})", f"why: `{installed.journal_of(name)}`")
    if kept and not unit.enabled.startswith("enabled"):
        seen = f"{name} is {unit.enabled or 'not enabled'}: it does not start at boot"
        yield warning(check, seen, f"`{ctl} enable {name}`")
    if unit.needs_reload:
        yield warning(check, f"{name} changed on disk since systemd read it", f"`{ctl} daemon-reload`")
    if changed:
        seen = f"{name} is not what this orchctl installs: it was changed by hand, or orchctl was upgraded"
        yield warning(check, seen, "`orchctl host install --dry-run` shows the difference")


def _ctl(installed: Installation) -> str:
    return "systemctl --user" if installed.scope == "user" else "systemctl"


# --- safekeeping


def backups(last: Backup | None, *, now: datetime, there: FileFacts | None) -> Iterator[Finding]:
    """Judge the last backup, None where there is none. `there` is its archive now, None where it is gone."""
    check, make = "backups", "`orchctl host backup`, best from a schedule of the catalog"
    if last is None:
        yield warning(check, "no backup was ever made of this host", make)
        return
    age = now - last.at

    def wrong() -> Iterator[Finding]:
        if there is None:
            yield failure(check, f"the last backup {last.path} is gone", make)
        elif last.size is not None and there.size != last.size:
            seen = f"the last backup {last.path} has {there.size:,} bytes, and had {last.size:,} when it was made"
            yield failure(check, f"{seen}: it was cut short, or is another file", make)
        elif last.problem is not None:
            yield failure(check, f"the last backup {last.path} did not verify: {last.problem}", make)
        elif last.verified is None:
            yield warning(check, f"the last backup of {last.at:%Y-%m-%d} was never verified", _VERIFY)
        elif now - last.verified > VERIFIED_AGE:
            yield warning(check, f"no backup was verified since {last.verified:%Y-%m-%d}", _VERIFY)
        if age > BACKUP_AGE:
            yield warning(check, f"the last backup is {_age(age)} old", make)

    yield from or_ok(wrong(), check, f"{_age(age)} old, verified; {last.path}")


_VERIFY = "`orchctl host verify`"


def _age(age: timedelta) -> str:
    return f"{age.days} days" if age.days > 2 else durations.human(max(0.0, age.total_seconds()))
