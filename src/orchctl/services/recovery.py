"""`orchctl recover`: every job of this host brought to a legal state, one after another, by looking."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from orchctl.errors import ExitCode, Interrupted, OrchctlError
from orchctl.services import handover, ownership
from orchctl.services.handover import Switched
from orchctl.services.handover_steps import Hands
from orchctl.services.ownership import Repaired


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found of a job, and what was done. `error` is what stopped it, None where it is in order now.

    `switched` is how its unfinished handover ended, None where there was none; `repaired` what else had drifted.
    """

    job: str
    switched: Switched | None = None
    repaired: tuple[Repaired, ...] = ()
    error: OrchctlError | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether there was nothing to do."""
        return self.switched is None and not self.repaired and self.error is None

    @property
    def is_in_order(self) -> bool:
        """Whether nothing is left to do."""
        owed = self.switched is not None and bool(self.switched.owed)
        return self.error is None and not owed and all(each.done for each in self.repaired)

    @property
    def why_not(self) -> str:
        """Why what is owed is owed still; empty where nothing is."""
        if self.error is not None:
            return self.error.message
        return "; ".join(self.switched.notes) if self.switched is not None and self.switched.owed else ""


def recover(hands: Hands, jobs: Collection[str], *, say: Callable[[str], None]) -> tuple[Recovered, ...]:
    """Go on with what is unfinished, and put right what has drifted. Under the host's lock. Repeatable.

    `jobs` are those of the catalog, as far as there is one: what this host knows of others is looked at too. What stops
    one job does not stop the others; Ctrl-C does.
    """
    names = sorted({*jobs, *hands.handovers.unfinished(), *hands.owners.names()})
    found = []
    for job in names:
        found.append(_one(hands, job, say))
        error = found[-1].error
        if error is not None and error.exit_code == ExitCode.INTERRUPTED:
            break
    return tuple(each for each in found if not each.is_nothing)


def pay(hands: Hands, *, say: Callable[[str], None]) -> tuple[Recovered, ...]:
    """Do what handovers owe to Prefect, and nothing else. Under the host's lock. What fails is still owed."""
    found = []
    for job, what in ownership.debts(hands.handovers):
        say(f"{job}: {what}")
        try:
            found.append(Recovered(job, handover.resume(hands, job, say=say)))
        except OrchctlError as error:
            found.append(Recovered(job, error=error))
            if error.exit_code == ExitCode.INTERRUPTED:
                break
    return tuple(found)


def _one(hands: Hands, job: str, say: Callable[[str], None]) -> Recovered:
    switched: Switched | None = None
    try:
        switched = handover.resume(hands, job, say=lambda text: say(f"{job}: {text}"))
        if switched is not None and switched.owed:
            return Recovered(job, switched)
        return Recovered(job, switched, ownership.repair(hands, job, say=lambda text: say(f"{job}: {text}")))
    except OrchctlError as error:
        return Recovered(job, switched, error=error)
    except KeyboardInterrupt:
        hint = "run `orchctl recover` again: it goes on from there"
        return Recovered(job, switched, error=Interrupted(f"interrupted at {job}", hint=hint))


def exit_code(found: Collection[Recovered]) -> ExitCode:
    """Return what the command exits with: 0 also where Prefect's part is owed still."""
    codes = {each.error.exit_code for each in found if each.error is not None}
    if not codes:
        return ExitCode.DONE
    return codes.pop() if len(codes) == 1 else ExitCode.PARTIAL
