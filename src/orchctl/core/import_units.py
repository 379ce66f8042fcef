"""From a service as systemd holds it to the keys of a job, or to the true reason why it cannot be one. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchctl.core import durations, exec_command
from orchctl.core.exec_command import ExecLine
from orchctl.core.import_cadence import span
from orchctl.core.legacy import Service, Timer
from orchctl.core.mask import STARS, Masker, looks_secret
from orchctl.core.names import is_env_key, visible
from orchctl.core.unit_text import Setting

EXECS = ("ExecStartPre", "ExecStart", "ExecStartPost")
"""The settings whose lines are the work of a service, in order."""
_NO_BATCH = {
    "forking": "Type=forking starts a daemon that stays, which is no batch job",
    "dbus": "Type=dbus starts a daemon that takes a bus name, which is no batch job",
}
_CARRIED = {
    "Service": frozenset(
        {"Type", "ExecStart", "ExecStartPre", "ExecStartPost", "Environment", "EnvironmentFile", "UnsetEnvironment"}
        | {"WorkingDirectory", "User", "Nice", "TimeoutStartSec", "TimeoutStopSec", "TimeoutSec", "RuntimeMaxSec"}
        | {"SyslogIdentifier", "DynamicUser", "RootDirectory", "RootImage"}
    ),
    # Order means nothing where nothing else is started with it.
    "Unit": frozenset({"Description", "Documentation", "After", "Before", "DefaultDependencies", "OnFailure"}),
    # What `import_cadence` carries, or says itself.
    "Timer": frozenset(
        {"OnCalendar", "OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec"}
        | {"AccuracySec", "RandomizedDelaySec", "RandomizedOffsetSec", "FixedRandomDelay", "Persistent", "WakeSystem"}
        | {"Unit", "OnClockChange", "OnTimezoneChange", "TimeZone", "Timezone"}
    ),
}
# What starts a timer's service together with the timer: `import_choice` says it.
_PULLS = frozenset({"Requires", "BindsTo", "Wants", "Upholds"})
_USUAL = {
    "StandardOutput": {"journal", "inherit"},
    "StandardError": {"journal", "inherit"},
    "StandardInput": {"null"},
    "Restart": {"no"},
    "RemainAfterExit": {"no", "false", "0", "off", "n", "f"},
    "RemainAfterElapse": {"yes", "true", "1", "on", "y", "t"},
}
# What a job without them does otherwise, not only with more or less of something.
_MATTERS = re.compile(
    r"(Condition|Assert)\w+|ExecCondition|ExecStop(Post)?|SuccessExitStatus|Restart|RemainAfterExit|StandardInput\w*"
    r"|(Runtime|State|Cache|Logs|Configuration)Directory|(Load|Set|Import)Credential\w*|PassEnvironment|Group|OnSuccess"
    r"|Requires|BindsTo|Requisite|PrivateNetwork|TemporaryFileSystem|Bind(ReadOnly)?Paths|UMask"
)
_FLAG = re.compile(r"(--?([A-Za-z][\w-]*)[= ])(\S+)")


@dataclass(frozen=True, slots=True)
class Details:
    """What `systemctl show` does not say of a service, or not exactly.

    `settings` are those in force in its files. `exec` are its Exec lines by setting (`ExecStart`, `ExecStartPre`, …),
    None where they cannot be known exactly: then `problem` says why. `programs` are the paths of the programs that
    it names without one, in systemd's own search path. `account` is the user that it runs as, None where there is
    no such user on this host, and `home` that user's home.
    """

    settings: tuple[Setting, ...]
    exec: Mapping[str, tuple[ExecLine, ...]] | None
    problem: str | None = None
    unset: tuple[str, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)
    account: str | None = None
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """A service as keys of a job. `comments` and `warnings` say what the keys do not, one sentence each.

    `runs_as` is the user whom systemd runs it as. `left` are the settings that are not carried, each with how it may
    be shown.
    """

    keys: Mapping[str, Any]
    comments: tuple[str, ...]
    warnings: tuple[str, ...]
    runs_as: str | None = None
    left: Mapping[Setting, str] = field(default_factory=dict)


def carry(service: Service, details: Details, *, me: str) -> Carried:
    """Return what a service does, as keys of a job. `me` is the user who runs orchctl.

    Raises ValueError with the reason where a job could not do the same.
    """
    _refuse(service, details)
    masker = Masker.of(service.environment)
    lines, left_out = _lines(service, details)
    environment = {key: value for key, value in service.environment.items() if key not in details.unset}
    certain = not service.environment_files
    made = exec_command.command(lines, environment, certain=certain)
    directory, directory_said = _directory(service, details)
    keys: dict[str, Any] = {}
    if description := _description(details):
        keys["description"] = description
    keys["command"] = [template(word) for word in made.argv]
    if service.environment_files:
        keys["env_files"] = list(service.environment_files)
    user = _user(service, details, lines, me)
    if user is not None:
        keys["user"] = user
    keys["working_directory"] = directory
    keys["nice"] = service.nice
    limits, limits_said = _limits(service, several=len(lines) > 1)
    keys |= limits
    if environment:
        keys["env"] = {key: template(value) for key, value in environment.items()}
    comments = [*(masker.mask(text) for text in made.comments), *directory_said, *limits_said]
    comments += [f"systemd finds {name} at {path}" for name, path in details.programs.items()]
    if service.user is not None and user == "root" and details.account != "root":
        said = f"a prefix + or ! runs it as root, with HOME, USER and groups of {service.user}: those are not carried"
        left_out.append(said)
    warnings = [*left_out, *_secrets(environment), *_dropped_keys(service, details)]
    left = _left(details.settings, masker)
    settings, settings_matter = _not_carried(left)
    runs_as = user or details.account
    return Carried(keys, (*comments, *settings), (*warnings, *settings_matter), runs_as, left)


def left_of_timer(timer: Timer, settings: Sequence[Setting]) -> Mapping[Setting, str]:
    """Return what a timer's files set and no schedule has, each with how it may be shown."""
    own = [each for each in settings if each.key not in _PULLS or each.value.split() != [timer.unit]]
    return _left(own, Masker(()))


def of_timer(timer: Timer, settings: Sequence[Setting]) -> tuple[list[str], list[str]]:
    """Return, as comments and as warnings, what a timer's files set and no schedule has."""
    comments, warnings = _not_carried(left_of_timer(timer, settings))
    return [f"{timer.name}: {text}" for text in comments], [f"{timer.name}: {text}" for text in warnings]


def template(text: str) -> str:
    """Return `text` as a template that means it: braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def value_of(settings: Sequence[Setting], section: str, key: str) -> str | None:
    """Return the last value of a setting in force, None where it is not set."""
    found = [each.value for each in settings if (each.section, each.key) == (section, key)]
    return found[-1] if found else None


def _refuse(service: Service, details: Details) -> None:
    """Raise ValueError for what is no batch job, or one that only systemd can run."""
    if service.type in _NO_BATCH:
        raise ValueError(_NO_BATCH[service.type])
    if (value_of(details.settings, "Service", "DynamicUser") or "no").lower() in {"yes", "true", "1", "on", "y", "t"}:
        raise ValueError("DynamicUser=yes: its user exists only while systemd runs it")
    for key in ("RootDirectory", "RootImage"):
        if value := value_of(details.settings, "Service", key):
            raise ValueError(f"{key}={value}: its paths mean files inside another root")
    if details.exec is None:
        raise ValueError(details.problem or "its command is not known")
    if not details.exec.get("ExecStart"):
        raise ValueError("it has no ExecStart=")
    reserved = [key for key in service.environment if key.startswith(("ORCHCTL_", "PREFECT__"))]
    if reserved:
        raise ValueError(f"its environment sets {', '.join(reserved)}, which the runner sets itself")
    odd = [key for key in service.environment if not is_env_key(key)]
    if odd:
        raise ValueError(f"its environment has keys that no catalog can hold: {', '.join(map(visible, odd))}")
    patterns = [file for file in service.environment_files if re.search(r"[*?\[]", file)]
    if patterns:
        raise ValueError(f"EnvironmentFile={patterns[0]} is a pattern; the catalog names each file")


def _lines(service: Service, details: Details) -> tuple[list[ExecLine], list[str]]:
    """Return what is run, in order, and what of the Exec lines is left out."""
    exec_lines = details.exec or {}
    post = list(exec_lines.get("ExecStartPost", ()))
    # Of a service that is not oneshot they run beside the program, once it is started.
    after = post if service.type == "oneshot" else []
    left_out = ["ExecStartPost= is not carried: systemd runs it beside the program"] if post and not after else []
    chosen = [*exec_lines.get("ExecStartPre", ()), *exec_lines["ExecStart"], *after]
    lines = []
    for line in chosen:
        path = details.programs.get(line.path, line.path)
        argv = (path, *line.argv[1:]) if line.argv[:1] == (line.path,) else line.argv
        lines.append(replace(line, path=path, argv=argv))
        if "/" not in path:
            left_out.append(f"its program {path} is not in systemd's search path: systemd itself could not start it")
    return lines, left_out


def _user(service: Service, details: Details, lines: Sequence[ExecLine], me: str) -> str | None:
    """Return who the job runs as, None for whoever the worker is: the owner of a user's systemd."""
    if service.manager.scope == "user":
        return details.account if details.account != me else None
    if details.account is None:
        raise ValueError(f"its user {service.user} does not exist on this host")
    roots = {line.as_root for line in lines}
    if roots == {True, False} and details.account != "root":
        raise ValueError(f"some of its commands run as root (prefix + or !), others as {details.account}")
    return "root" if roots == {True} else details.account


def _directory(service: Service, details: Details) -> tuple[str, list[str]]:
    said = service.working_directory or ""
    optional, place = said.startswith("!"), said.removeprefix("!")
    if not place:
        place = "~" if service.manager.scope == "user" else "/"
    if place == "~":
        if details.home is None:
            raise ValueError("WorkingDirectory= is a home that is not known on this host")
        place = details.home
    # A user's services have that prefix by default: nobody meant it.
    meant = optional and value_of(details.settings, "Service", "WorkingDirectory")
    comments = ["prefix `-` of WorkingDirectory=: under systemd it may be missing, here it must exist"]
    return place, comments if meant else []


def _limits(service: Service, *, several: bool) -> tuple[dict[str, Any], list[str]]:
    """Return `timeout` and `kill_after`, and what is said about them."""
    oneshot = service.type == "oneshot"
    name, seconds = (
        ("TimeoutStartSec", service.timeout_start_s) if oneshot else ("RuntimeMaxSec", service.runtime_max_s)
    )
    keys, said = {}, []
    for key, setting, value in (("timeout", name, seconds), ("kill_after", "TimeoutStopSec", service.timeout_stop_s)):
        if value is None or value > durations.MAX_SECONDS:
            said.append(f"{setting}=infinity: systemd sets no limit; here the {key} of the catalog's defaults applies")
            continue
        keys[key] = durations.canonical(max(1, math.ceil(value)))
        if value != math.ceil(value):
            said.append(f"{setting}={span(value)} is rounded up")
    if several and "timeout" in keys:
        said.append(f"{name}= is the limit of each command, timeout that of all together")
    return keys, said


def _description(details: Details) -> str | None:
    """Return Description=, unless only systemd can read it."""
    text = value_of(details.settings, "Unit", "Description")
    return text if text and "%" not in text and text.isprintable() else None


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    secret = [key for key, value in environment.items() if value and looks_secret(key)]
    if secret:
        yield f"env holds what looks like a secret ({', '.join(secret)}): env_files would keep it out of the catalog"


def _dropped_keys(service: Service, details: Details) -> Iterator[str]:
    files = bool(service.environment_files)
    left = [key for key in details.unset if files or key not in service.environment]
    if left:
        yield f"UnsetEnvironment={' '.join(left)} is not carried: the job has them where the worker has them"


def _left(settings: Sequence[Setting], masker: Masker) -> Mapping[Setting, str]:
    """Return what else a unit sets, each with how it may be shown."""
    return {each: _shown(each, masker) for each in settings if _is_left(each)}


def _not_carried(left: Mapping[Setting, str]) -> tuple[list[str], list[str]]:
    """Say what else a unit sets: that of which a job has less, and that without which it does something else."""
    plain = [shown for each, shown in left.items() if _MATTERS.fullmatch(each.key) is None]
    matter = [shown for each, shown in left.items() if _MATTERS.fullmatch(each.key) is not None]
    comments = [f"not carried: {', '.join(plain)}"] if plain else []
    return comments, [f"not carried: {', '.join(matter)}"] if matter else []


def _is_left(each: Setting) -> bool:
    known = _CARRIED.get(each.section)
    if known is None or each.key.startswith("X-") or each.key in known:
        return False
    return each.value.lower() not in _USUAL.get(each.key, ())


def _shown(each: Setting, masker: Masker) -> str:
    """Return a setting as it stands in the file, on one line, without secrets."""
    if looks_secret(each.key) or each.key.startswith("SetCredential"):
        return f"{each.key}={STARS}"
    return visible(f"{each.key}={masked(each.value, masker)}")


def masked(words: str, masker: Masker) -> str:
    """Return words of a command line without secrets: also without what follows a flag such as `--token`."""

    def flag(found: re.Match[str]) -> str:
        return f"{found[1]}{STARS}" if looks_secret(found[2].replace("-", "_").upper()) else found[0]

    return masker.mask(_FLAG.sub(flag, words))
