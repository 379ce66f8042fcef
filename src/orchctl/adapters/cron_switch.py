"""The crontab lines of a job, switched off and put back: users' through crontab(1), files by replacing them whole.

cron looks at its crontabs when a minute begins, and then starts what is due. So lines are only commented out while a
minute is well under way: what was due in it has been started, and what is due in the next will not be. With whole
seconds of a file's time cron also tells whether it has changed, which two changes of one second would hide from it if
it looked between them.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from orchctl.adapters.cron import Crontabs
from orchctl.adapters.owners import Owners
from orchctl.core import cron_switch
from orchctl.core.catalog import CronTrigger, Job
from orchctl.core.cron_switch import Switch
from orchctl.core.crontab import Daemon, place
from orchctl.core.snapshot import CronState, Snapshot
from orchctl.errors import OrchctlError, StateBroken

OFF_S = (3, 50)
"""Seconds of a minute between which lines are switched off: cron has looked, and the commit comes before the next."""
BACK_S = (1, 57)
"""The same for putting them back, for which nobody should wait: whose a minute is must only not be left open."""

Place = tuple[str, str | None]


class CronSwitch:
    """`owners` tells where owner files are; `now` is the clock that cron goes by, `sleep` waits seconds."""

    def __init__(
        self, crontabs: Crontabs, owners: Owners, *, now: Callable[[], datetime], sleep: Callable[[float], None]
    ) -> None:
        self._crontabs, self._owners, self._now, self._sleep = crontabs, owners, now, sleep

    def snapshot(self, job: Job) -> Snapshot:
        """Return the lines of a job as the catalog has them: a line is found by its exact text."""
        lines = dict.fromkeys(each for each in job.legacy if isinstance(each, CronTrigger))
        return Snapshot(cron=tuple(CronState(each, each.fence) for each in lines))

    def obstacles(self, job: Job) -> tuple[str, ...]:
        """Say why the lines could not be switched, one sentence each."""
        said: list[str] = []
        for where, states in _places(self.snapshot(job)).items():
            try:
                said += self._obstacles(job.name, where, states)
            except OrchctlError as error:
                said.append(error.message)
        return tuple(said)

    def _obstacles(self, job: str, where: Place, states: tuple[CronState, ...]) -> Iterator[str]:
        user, file = where
        if self._crontabs.daemon is None:
            yield f"cron is not installed on this host, and {place(user, file)} holds a line of the job"
            return
        why = None if file is None else self._crontabs.why_not_replaced(file)
        if why is not None:
            yield why
            return
        text = self._crontabs.text(user, file)
        ignored = self._crontabs.why_ignored(text, user, file)
        if ignored is not None:
            yield ignored
        for state in states:
            if state.fence and (blind := self._blind(state.trigger.user)) is not None:
                yield blind
        try:
            switches = self._switches(job, where, states)
        except ValueError as error:
            yield f"a line in {place(user, file)} cannot be fenced: {error}"
            return
        found = cron_switch.why_not(text, switches, with_user=file is not None, daemon=self._daemon)
        yield from (f"{place(user, file)}: {each}" for each in found)

    def are_off(self, job: str, snapshot: Snapshot) -> bool:
        """Whether none of the lines starts the job while it has an owner file. Raises OrchctlError, NotAllowed."""
        return all(
            cron_switch.is_off(self._crontabs.text(*where), self._or_broken(job, where, states))
            for where, states in _places(snapshot).items()
        )

    def turn_off(self, job: str, snapshot: Snapshot) -> None:
        """Comment the lines out, or fence them. Waits until cron has taken up this minute. Raises OrchctlError."""
        if not self.are_off(job, snapshot):
            self._wait(*OFF_S)
        for where, states in _places(snapshot).items():
            text, switches = self._crontabs.text(*where), self._or_broken(job, where, states)
            if cron_switch.is_off(text, switches):
                continue
            try:
                changed = cron_switch.turn_off(text, switches)
            except ValueError as error:
                raise OrchctlError(
                    f"{place(*where)} cannot be changed: {error}", hint="see `crontab -l`, and mend it"
                ) from error
            self._crontabs.replace(*where, changed)

    def are_back(self, job: str, snapshot: Snapshot) -> bool:
        """Whether the lines are as they were. Raises OrchctlError, NotAllowed."""
        return all(
            cron_switch.is_back(
                self._crontabs.text(*where),
                self._or_broken(job, where, states),
                with_user=where[1] is not None,
                daemon=self._daemon,
            )
            for where, states in _places(snapshot).items()
        )

    def put_back(self, job: str, snapshot: Snapshot) -> None:
        """Put the lines back as they were. Waits where a minute is just beginning. Raises OrchctlError, NotAllowed."""
        if not self.are_back(job, snapshot):
            self._wait(*BACK_S)
        for where, states in _places(snapshot).items():
            text = self._crontabs.text(*where)
            changed = cron_switch.put_back(
                text, self._or_broken(job, where, states), with_user=where[1] is not None, daemon=self._daemon
            )
            if changed != text:
                self._crontabs.replace(*where, changed)

    @property
    def _daemon(self) -> Daemon:
        return self._crontabs.daemon or "debian"

    def _or_broken(self, job: str, where: Place, states: tuple[CronState, ...]) -> tuple[Switch, ...]:
        try:
            return self._switches(job, where, states)
        except ValueError as error:
            raise StateBroken(f"a line of {job} in {place(*where)} cannot have been fenced: {error}") from error

    def _switches(self, job: str, where: Place, states: tuple[CronState, ...]) -> tuple[Switch, ...]:
        owner_file = str(self._owners.path(job))
        return tuple(
            Switch(
                state.trigger.cron,
                cron_switch.fenced(state.trigger.cron, owner_file, with_user=where[1] is not None, daemon=self._daemon)
                if state.fence
                else cron_switch.commented(job, state.trigger.cron),
            )
            for state in states
        )

    def _wait(self, first: int, last: int) -> None:
        # Again and again: the clock may be set while we sleep.
        while not first <= (second := self._now().second) <= last:
            self._sleep(first - second if second < first else 60 + first - second)

    def _blind(self, user: str) -> str | None:
        """Say why a user could not see an owner file, None where they can: a fence would let both sides run."""
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            return f"user {user} does not exist on this host"
        folder = self._owners.path("x").parent
        groups = set(os.getgrouplist(user, account.pw_gid))
        for each in (*reversed(folder.parents), folder):
            if not _may_search(each, account.pw_uid, groups):
                return (
                    f"{user} could not see the owner file: `chmod o+x {each}` allows it, or fence = false does without"
                )
        return None


def _may_search(folder: Path, uid: int, groups: set[int]) -> bool:
    """Whether a user may look up names in a folder. One that is not there yet will belong to its parent's owner."""
    if uid == 0:
        return True
    try:
        found = folder.stat()
    except FileNotFoundError:
        return folder.parent.exists() and folder.parent.stat().st_uid == uid
    bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid in groups else stat.S_IXOTH
    return bool(found.st_mode & bit)


def _places(snapshot: Snapshot) -> dict[Place, tuple[CronState, ...]]:
    """Return the lines by where they stand: each crontab is changed once."""
    found: dict[Place, tuple[CronState, ...]] = {}
    for each in snapshot.cron:
        where = ("" if each.trigger.file else each.trigger.user, each.trigger.file)
        found[where] = (*found.get(where, ()), each)
    return found
