"""`import cron`: the lines of a crontab become entries of the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from orchctl.core import crontab, import_cron
from orchctl.core.catalog import Catalog, CronTrigger
from orchctl.core.crontab import CronEntry, Unread
from orchctl.core.drafts import Imported
from orchctl.core.import_cron import Told
from orchctl.errors import UsageError
from orchctl.services.ports import Crontabs

_SYSTEM_FILE = "/etc/crontab"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which crontab. `path` None: a user's own; `given` is its text where it came on stdin.

    `user` None: who runs orchctl. `system`: of the form of /etc/crontab; False leaves it to where it stands and what
    its lines say.
    """

    path: str | None = None
    given: str | None = None
    user: str | None = None
    system: bool = False


def cron(crontabs: Crontabs, catalog: Catalog, wanted: Wanted, *, host_zone: str, default_zone: str) -> Imported:
    """Return what the lines of a crontab become: jobs, refusals, and notes on what was left out or assumed.

    Raises UsageError for a contradiction or a user that does not exist, NotAllowed and OrchctlError where it cannot
    be read.
    """
    if wanted.system and wanted.user is not None:
        raise UsageError("--system and --user exclude each other: the lines of such a file name their users")
    user = wanted.user or crontabs.caller
    if wanted.user is not None and crontabs.home(user) is None:
        raise UsageError(f"there is no user {user} on this host")
    text = _text(crontabs, wanted, user)
    daemon = crontabs.daemon or "debian"
    notes = [] if crontabs.daemon else ["cron is not installed on this host: read as Debian's cron would"]
    file = _file(crontabs, wanted, text, notes)
    found = crontab.parse(text, with_user=file is not None, daemon=daemon)
    lines = [CronEntry(each.what.user or user, file, each.line, each.number, each) for each in found.entries]
    unread: list[tuple[str, Unread]] = [(crontab.place(user, file), each) for each in found.unread]
    homes = {name: home for name in {each.user for each in lines} if (home := crontabs.home(name)) is not None}
    told = Told(me=crontabs.me, homes=homes, daemon=daemon, host_zone=host_zone, default_zone=default_zone)
    made = import_cron.imported(lines, unread, _taken(catalog), told)
    return Imported(made.jobs, made.refused, (*notes, *made.notes))


def _text(crontabs: Crontabs, wanted: Wanted, user: str) -> str:
    if wanted.given is not None:
        return wanted.given
    return crontabs.text_of(user) if wanted.path is None else crontabs.read_file(wanted.path)


def _file(crontabs: Crontabs, wanted: Wanted, text: str, notes: list[str]) -> str | None:
    """Return the file that the triggers are to name, None for a user's own crontab."""
    if wanted.path is not None and crontabs.is_system(wanted.path):
        return wanted.path
    if wanted.path is None and wanted.given is None:
        return None
    if not wanted.system:
        if wanted.user is not None or not crontab.looks_like_system(text, crontabs.users()):
            return None
        notes.append("each of its lines names a user: read as /etc/crontab is (--user NAME reads a user's crontab)")
    notes.append(f"the triggers name {_SYSTEM_FILE}: put right `file` in them where the lines stand elsewhere")
    return _SYSTEM_FILE


def _taken(catalog: Catalog) -> dict[tuple[str, str, str | None], str]:
    """Return the jobs that name a line already, by line, user and file."""
    return {
        (trigger.cron, trigger.user, trigger.file): job.name
        for job in catalog.jobs.values()
        for trigger in job.legacy
        if isinstance(trigger, CronTrigger)
    }
