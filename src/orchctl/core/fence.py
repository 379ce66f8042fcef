"""The fence: a drop-in that lets a legacy service start only while its job has no owner file. Pure.

Two lines, for each has a hole that the other closes. `ConditionPathExists=` is looked at by systemd itself, before
anything of the service is touched: no User=, RootDirectory= or lack of a shell can open it, and systemd still knows
when the service last ran. But since version 254 a service that Restart= starts again is not asked for its conditions.
`ExecCondition=` is asked for at every start; but it wipes out when the service last ran, and it is looked for in
RootDirectory=. The first holds all starts but those, the second those.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from orchctl.core.unit_text import assignments, literal, quoted

_MARK = "# folders: "
_TEST = '[ ! -e "$0" ]'


def file_name(job: str) -> str:
    """Return the name of the drop-in: late, so that few come after it."""
    return f"zz-orchctl-{job}.conf"


def drop_in(job: str, owner_path: str, folders: Sequence[str], *, with_command: bool) -> str:
    """Return the content of the drop-in. `folders` are those that go with the last one in them.

    `with_command` False where a shell and the owner file are not where the service lives (RootDirectory=). Raises
    ValueError for a path that no unit file can name.
    """
    lines = [
        f"# orchctl, job {job}: while this file exists Prefect owns the job, and the service does not start.",
        f"# `orchctl rollback {job}` removes it, and this drop-in.",
        f"{_MARK}{json.dumps(list(folders))}",
        "[Unit]",
        f"ConditionPathExists=!{literal(owner_path)}",
    ]
    if with_command:
        # `+`: as the manager itself, outside the service's user, namespaces and limits. `:`: `$0` is the shell's.
        command = f"/bin/sh -c {quoted(_TEST)} {quoted(owner_path)}"
        lines += ["[Service]", f"ExecCondition=+:{command}"]
    return "\n".join(lines) + "\n"


def folders_of(content: str) -> tuple[str, ...]:
    """Return the folders that a drop-in of ours says go with it, none where it does not say."""
    for line in content.splitlines():
        if line.startswith(_MARK):
            try:
                found = json.loads(line.removeprefix(_MARK))
            except ValueError:
                return ()
            return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()
    return ()


def is_command(printed: Iterable[str], owner_path: str) -> bool:
    """Whether systemd holds our command: `printed` are the lines of ExecCondition= that it shows."""
    return any(f" argv[]=/bin/sh -c {_TEST} {owner_path} ; " in line for line in printed)


def opens(content: str) -> str | None:
    """Return the assignment in a later drop-in that takes the fence away, None where there is none.

    An empty condition clears all conditions, of whatever kind.
    """
    for each in assignments(content):
        if not each.value and (
            (each.section == "Unit" and each.key.startswith("Condition"))
            or (each.section == "Service" and each.key == "ExecCondition")
        ):
            return str(each)
    return None
