"""The stories of `demo`, each with a new folder to play in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from orchctl import wiring
from orchctl.adapters.demo_stage import DemoStage
from orchctl.services.demo_play import Done

Say = Callable[[str], None]
Show = Callable[[Sequence[str], Done], None]


class Story(Protocol):
    """A story that is told from its beginning to its curtain. Both raise DemoFailed."""

    def play(self) -> None: ...  # noqa: D102
    def curtain(self) -> None: ...  # noqa: D102


def moving(say: Say, show: Show) -> tuple[DemoStage, Story]:
    """Return the story of the move from timers to Prefect."""
    from orchctl.services import demo

    stage = DemoStage(wiring.environment())
    return stage, demo.Story(stage, say, show)


def stepping(say: Say, show: Show) -> tuple[DemoStage, Story]:
    """Return the story of a job of steps. Raises OrchctlError where what the example needs is not installed."""
    from orchctl.adapters.demo_steps import StepsStage
    from orchctl.services import demo_steps

    stage = StepsStage(wiring.environment())
    return stage, demo_steps.Story(stage, say, show)
