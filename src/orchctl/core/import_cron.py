"""From the lines of crontabs to drafts of jobs, or to the true reason why a line cannot be one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchctl.core import cron_command, cron_fields
from orchctl.core.catalog_rules import is_timezone
from orchctl.core.cron_fields import Fields
from orchctl.core.crontab import CronEntry, Daemon, Unread
from orchctl.core.drafts import Imported, JobDraft, Refused, ScheduleDraft
from orchctl.core.import_units import template
from orchctl.core.mask import Masker, looks_secret
from orchctl.core.names import is_env_key, visible

DEFAULT_PATHS: Mapping[Daemon, str] = {"debian": "/usr/bin:/bin", "cronie": "/usr/bin:/bin:/usr/sbin:/sbin"}
"""The PATH of a command where its crontab sets none."""
# What tells cron something. It passes them on to the command too, which has no use for them.
_CRONS_OWN = ("SHELL", "MAILTO", "MAILFROM", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING")
_CRONIES_OWN = ("CRON_TZ", "RANDOM_DELAY")
# cron sets these itself, whatever the crontab says.
_FIXED = ("LOGNAME", "USER")
_NO_LIMIT = "cron sets no limit of time; here the timeout of the catalog's defaults applies"
_NO_OVERLAP = "cron starts it again while it still runs; here such a run is skipped (overlap)"
_OWN_LOCK = "its own lock stays: where something else holds it, flock -n exits with 1 and the run counts as failed"
_INHERITED = "the commands inherit the worker's environment, where cron's have little more than HOME, LOGNAME and PATH"
_ALL_OR_NONE = "Debian's cron ignores a whole file over one line that it cannot read"


@dataclass(frozen=True, slots=True)
class Told:
    """What the lines themselves do not say.

    `me` is who runs orchctl, `homes` the home of each user that a line runs as (a user that is not there does not
    exist on this host), `daemon` the cron of this host. `default_zone` is that of a schedule that names none.
    """

    me: str
    homes: Mapping[str, str]
    daemon: Daemon
    host_zone: str
    default_zone: str


@dataclass(frozen=True, slots=True)
class _Carried:
    """A line as keys of a job, and what is due when."""

    entry: CronEntry
    fields: Fields
    schedule: str
    zone: str
    keys: Mapping[str, Any]
    comments: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def does(self) -> tuple[object, ...]:
        """What makes two lines the same job at different times."""
        return (self.entry.user, self.entry.file, self.zone, repr(self.keys))


def imported(
    lines: Sequence[CronEntry],
    unread: Sequence[tuple[str, Unread]],
    taken: Mapping[tuple[str, str, str | None], str],
    told: Told,
) -> Imported:
    """Return what crontab lines become. `unread` are lines that cannot be read, each with the name of its crontab.

    `taken` are the jobs that already name a line, by line, user and file. Lines that do the same at different
    times are one job.
    """
    refused = [Refused(_what(f"line {each.number} of {where}", each.line), each.reason) for where, each in unread]
    notes: list[str] = []
    carried: list[_Carried] = []
    seen: set[tuple[str, str, str | None]] = set()
    for entry in lines:
        key = (entry.line, entry.user, entry.file)
        if key in taken:
            notes.append(f"{entry.place} is already a trigger of {taken[key]}: left out")
            continue
        try:
            if key in seen:
                raise ValueError("it stands there twice, so that cron starts it twice: take one of them out")
            carried.append(_carry(entry, told))
            seen.add(key)
        except ValueError as error:
            refused.append(Refused(_what(entry.place, entry.line), str(error)))
    jobs = [_draft(group, told) for group in _groups(carried)]
    if unread and told.daemon == "debian":
        notes.append(_ALL_OR_NONE)
    if jobs:
        notes.append(_INHERITED)
    return Imported(tuple(jobs), tuple(refused), tuple(notes))


def _what(where: str, line: str) -> str:
    return f"{where} ({visible(Masker(()).mask(line.strip()))})"


def _carry(entry: CronEntry, told: Told) -> _Carried:
    """Return what a line does, as keys of a job. Raises ValueError with the reason where a job could not do it."""
    what, variables = entry.entry.what, entry.entry.variables
    if what.schedule is None or what.fields is None:
        raise ValueError("@reboot starts it when the host boots, which is no cadence: a systemd unit can do that")
    home = variables.get("HOME", told.homes.get(entry.user))
    if home is None:
        raise ValueError(f"its user {entry.user} does not exist on this host")
    if not home.startswith("/") or ".." in home.split("/"):
        raise ValueError(f"its HOME is {home!r}, which is no absolute path")
    environment = _environment(variables, told.daemon)
    made = cron_command.made(what.command, what.stdin, variables)
    keys: dict[str, Any] = {"command": [template(word) for word in made.argv]}
    if entry.user != told.me or entry.file is not None:
        keys["user"] = entry.user
    keys |= {"working_directory": home, "nice": 0, "catchup": "skip"}
    keys["env"] = {key: template(value) for key, value in environment.items()}
    own_lock = cron_command.locks_itself(what.command)
    comments = [*made.comments, *_said(variables, told.daemon), _OWN_LOCK if own_lock else _NO_OVERLAP, _NO_LIMIT]
    return _Carried(
        entry,
        what.fields,
        what.schedule,
        _zone(variables, told),
        keys,
        tuple(comments),
        (*made.warnings, *_warnings(environment, variables, told.daemon)),
    )


def _environment(variables: Mapping[str, str], daemon: Daemon) -> dict[str, str]:
    """Return what a command of cron's has and a worker's has not. Raises ValueError where no catalog can hold it."""
    own = (*_CRONS_OWN, *_FIXED, *_CRONIES_OWN)
    found = {"PATH": DEFAULT_PATHS[daemon], **{key: value for key, value in variables.items() if key not in own}}
    reserved = [key for key in found if key.startswith(("ORCHCTL_", "PREFECT__"))]
    if reserved:
        raise ValueError(f"its crontab sets {', '.join(reserved)}, which the runner sets itself")
    odd = [key for key in found if not is_env_key(key)]
    if odd:
        raise ValueError(f"its crontab sets what no catalog can hold: {', '.join(map(visible, odd))}")
    return found


def _zone(variables: Mapping[str, str], told: Told) -> str:
    zone = variables.get("CRON_TZ") if told.daemon == "cronie" else None
    if zone is not None and not is_timezone(zone):
        raise ValueError(f"CRON_TZ={zone} is not a time zone")
    return zone or told.host_zone


def _said(variables: Mapping[str, str], daemon: Daemon) -> Iterator[str]:
    if "SHELL" in variables:
        yield f"SHELL={variables['SHELL']} of the crontab is what runs the line; it is not in env"
    if variables.get("MAILTO"):
        yield f"cron mails its output to {variables['MAILTO']} (MAILTO), which orchctl does not"
    elif "MAILTO" in variables:
        yield 'MAILTO="": cron mails nothing of its output'
    if daemon == "cronie" and variables.get("RANDOM_DELAY", "0") != "0":
        yield f"RANDOM_DELAY={variables['RANDOM_DELAY']} is not carried: cron delays it by up to so many minutes"


def _warnings(environment: Mapping[str, str], variables: Mapping[str, str], daemon: Daemon) -> Iterator[str]:
    secret = [key for key, value in environment.items() if value and looks_secret(key)]
    if secret:
        yield f"env holds what looks like a secret ({', '.join(secret)}): env_files would keep it out of the catalog"
    dollars = [key for key, value in environment.items() if "$" in value or value.startswith("~")]
    if dollars:
        yield f"cron expands neither $ nor ~ in {', '.join(dollars)}: carried as it stands, hardly what was meant"
    if daemon == "debian" and "CRON_TZ" in variables:
        yield f"CRON_TZ={variables['CRON_TZ']} means nothing to Debian's cron: the line runs in the host's zone"


def _groups(lines: Sequence[_Carried]) -> list[list[_Carried]]:
    """Return the lines that are one job: they do the same, and one schedule can say when."""
    found: list[list[_Carried]] = []
    for line in lines:
        same = (
            group
            for group in found
            if group[0].does == line.does and all(cron_fields.fit(each.fields, line.fields) for each in group)
        )
        group = next(same, None)
        if group is None:
            found.append([line])
        else:
            group.append(line)
    return found


def _draft(group: Sequence[_Carried], told: Told) -> JobDraft:
    first = group[0]
    name = cron_command.name_of(first.entry.entry.what.command)
    keys, lost = cron_fields.cadence([(each.fields, each.schedule) for each in group])
    warnings = [text for each in group for text in each.warnings]
    comments = [text for each in group for text in each.comments]
    if lost is not None:
        warnings.append(lost)
    if any(cron_fields.overlap(one.fields, other.fields) for at, one in enumerate(group) for other in group[at + 1 :]):
        warnings.append("several of its lines name the same instants: cron starts it once for each, Prefect once")
    if len(group) == 1 and "on_calendar" in keys:
        comments.insert(0, f"{first.schedule} in words of systemd: Prefect's cron would read it otherwise")
    zone = {"timezone": first.zone} if first.zone != told.default_zone else {}
    return JobDraft(
        name=name,
        keys=first.keys,
        schedule=ScheduleDraft(name, {**keys, **zone}),
        triggers=tuple(_trigger(each, told) for each in group),
        comments=tuple(dict.fromkeys(comments)),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _trigger(line: _Carried, told: Told) -> dict[str, str]:
    trigger = {"cron": line.entry.line, "user": line.entry.user}
    if line.entry.file is not None:
        trigger["file"] = line.entry.file
    return {**trigger, "timezone": line.zone} if line.zone != told.host_zone else trigger
