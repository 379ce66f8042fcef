"""Steps and contracts that are wrong in one place, and how a test says so."""

from __future__ import annotations

from catalogs import CONTRACTS, STEPS, changed, problems

Row = tuple[str, str, str, str, str | None]
"""What stands in the valid file, and in the broken one; line, table and key; how the message begins; the nearest right
word, or how what is allowed begins. Steps are those of `jobs.rates`, other tables of contracts.toml are contracts."""


def name_of(row: Row) -> str:
    """How a test of the row is called."""
    return ascii(row[1])[:40]


def check(row: Row, *, file: str = "jobs.toml") -> None:
    """The change that the row makes is reported, and nothing else."""
    old, new, where, message, hint = row
    if file == "jobs.toml":
        found = problems(changed(STEPS, old, new), contracts=CONTRACTS)
    else:
        found = problems(STEPS, contracts=changed(CONTRACTS, old, new))
    assert len(found) == 1, found
    (problem,) = found
    place = problem.place.replace("[jobs.rates] steps", "steps").replace("[contracts.", "[")
    assert (problem.file, f"{problem.line} {place}") == (file, where)
    said = problem.message
    if said.startswith("step "):
        step, _, said = said.removeprefix("step ").partition(": ")
        assert f'name = "{step}"' in STEPS + new
    assert said.startswith(message)
    assert problem.message.isprintable()
    assert (problem.nearest or problem.allowed or "").startswith(hint or "")
    assert (hint is None) == (problem.hint is None)
