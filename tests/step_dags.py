"""Steps, and any DAG of them, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from orchctl.core.catalog_steps import InputTable, StepTable


def step(name: str, *after: str, reads: Sequence[str] = ()) -> StepTable:
    inputs = tuple(InputTable(name=f"i{number}", step=each) for number, each in enumerate(reads))
    return StepTable(name=name, command=("x",), after=after, inputs=inputs)


@st.composite
def dags(draw: st.DrawFn, *, most: int = 12) -> tuple[StepTable, ...]:
    """Steps that wait for others that were made before them, written in any order, by `after` or as inputs."""
    made: list[StepTable] = []
    for number in range(draw(st.integers(1, most))):
        before = [each.name for each in made]
        waits = draw(st.lists(st.sampled_from(before), unique=True, max_size=4)) if before else []
        cut = draw(st.integers(0, len(waits)))
        made.append(step(f"s{number}", *waits[:cut], reads=waits[cut:]))
    return tuple(draw(st.permutations(made)))
