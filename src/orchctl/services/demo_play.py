"""What the stories of `orchctl demo` share: a stage, commands that are shown, and checks of what came of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from orchctl.errors import OrchctlError


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


class Stage(Protocol):
    """Where a story plays: a temporary folder with a catalog, and a way to run `orchctl` in it."""

    def orchctl(self, *words: str) -> tuple[int, str, str]: ...  # noqa: D102
    def leftovers(self) -> Mapping[int, str]: ...  # noqa: D102


class DemoFailed(OrchctlError):
    """Something in the demo was not as it should be."""

    code = "demo-failed"


AnyStage = TypeVar("AnyStage", bound=Stage)


@dataclass(frozen=True)
class Play(Generic[AnyStage]):
    """A story that is being told. `say` prints a line of it, `show` a command and what it printed."""

    stage: AnyStage
    say: Callable[[str], None]
    show: Callable[[Sequence[str], Done], None]

    def curtain(self) -> None:
        """Stop everything; raises DemoFailed where something is left running."""
        self.run("host", "down")
        left = self.stage.leftovers()
        self.check(not left, f"left running: {', '.join(left.values())}")

    def run(self, *words: str, code: int = 0, has: str = "") -> Done:
        """Run a command and show it. Raises DemoFailed where it does not end with `code`, or does not say `has`."""
        done = Done(*self.stage.orchctl(*words))
        self.show(words, done)
        self.check(done.code == code, f"`orchctl {' '.join(words)}` ended with {done.code}, not with {code}")
        self.check(has in done.out, f"`orchctl {' '.join(words)}` did not print {has!r}")
        return done

    def data(self, *words: str) -> Any:
        """Return what a command says with --json; it is not shown."""
        done = Done(*self.stage.orchctl(*words, "--json"))
        said = f"`orchctl {' '.join(words)} --json` ended with {done.code}: {done.out}{done.err}"
        self.check(done.code in {0, 3}, said)
        return json.loads(done.out)["data"]

    @staticmethod
    def check(holds: bool, otherwise: str) -> None:
        """Raise DemoFailed where something does not hold."""
        if not holds:
            raise DemoFailed(otherwise, hint="the commands above say more; please report it")
