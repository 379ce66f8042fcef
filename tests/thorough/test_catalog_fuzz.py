"""However a catalog is broken, loading it gives a catalog or CatalogInvalid, never anything else."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import CONFIG, CONTRACTS, JOBS, SCHEDULES, STEPS, problems

SHIPPED = tuple((CONFIG / name).read_text() for name in ("jobs.toml", "schedules.toml", "contracts.toml"))
TOKEN = re.compile(r'"[^"\n]*"|[A-Za-z0-9_.-]+|\s+|.', re.DOTALL)
ODD = [
    "", '""', "[]", "{}", "[[", "]]", "=", "0", "-1", "1e999", "nan", "9" * 5000,
    "0x" + "F" * 5000, "true", '"\\u0000"', '"{x}"',
    "[jobs]", "[defaults]", "[schedules]", "jobs", "defaults", "env", "legacy", "gates", "command", "version", "anchor",
    '"\U0001f600"', "'''", '"""', "#", "\n", "\r\n", "\t", "2025-12-19", "9999-12-31T23:59:59-12:00", "{ a = 1 }",
    "steps", "after", "inputs", "publish", "contracts", "partition", "as_of", "limits", '"{staging}"', '"{inputs.x}"',
    '"{snapshot_ts}"', '"{data_root}/{game_date}/run={run_id}"', '"rates.sim"', '"("', '"%Q"', "[[jobs.rates.steps]]",
    "[" * 300, "\x00", "\ufeff", "a.b.c = 1\n", '"every"', '["daily", "daily"]', '"FREQ=DAILY;INTERVAL=0"',
]  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(["", "x", "5m", "0s", "a\nb", "{job}", "{x}", "/srv", "UTC", "daily", "x.timer", "0 8 * * *"])
    | st.sampled_from(["rates.score", "rates.sim", "api", "lock", "roster", "float", "window", "{run_id}", "(", "%Y"])
    | st.integers(-5, 5)
    | st.integers()
    | st.booleans()
    | st.floats()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["timer", "cron", "user", "scope", "within", "A", "a b", ""])
            | st.sampled_from(
                ["name", "command", "path", "step", "to", "from", "first", "most", "min", "[key]", "int"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def judge(jobs: str, schedules: str, contracts: str | None = None) -> None:
    """Load; whatever is wrong must be said for a place inside the file."""
    texts = {"jobs.toml": jobs, "schedules.toml": schedules, "contracts.toml": contracts or ""}
    for problem in problems(jobs, schedules, contracts):
        assert problem.line is None or 1 <= problem.line <= texts[problem.file].count("\n") + 1
        assert f"{problem.where} {problem.place} {problem.message} {problem.hint}".isprintable()


@st.composite
def mutated(draw: st.DrawFn, text: str, by: str) -> str:
    """The text with a few tokens, lines or characters dropped, doubled, replaced or swapped."""
    pieces = TOKEN.findall(text) if by == "tokens" else text.splitlines(keepends=True) if by == "lines" else list(text)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(pieces) - 1))
        match draw(st.sampled_from(["drop", "double", "replace", "swap", "cut"])):
            case "drop":
                pieces[at] = ""
            case "double":
                pieces[at] *= 2
            case "replace":
                pieces[at] = draw(st.sampled_from(ODD) | st.text(st.characters(codec="utf-8"), max_size=3))
            case "swap":
                other = draw(st.integers(0, len(pieces) - 1))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case _ if draw(st.integers(0, 9)) == 0:
                pieces[at:] = [""]
    return "".join(pieces)


WAYS = st.sampled_from(["tokens", "lines", "characters"])


@settings(max_examples=250, deadline=None, derandomize=True)
@given(WAYS.flatmap(lambda way: mutated(SHIPPED[0], way)))
def test_a_mutated_jobs_file(jobs: str) -> None:
    judge(jobs, SHIPPED[1], SHIPPED[2])


@settings(max_examples=250, deadline=None, derandomize=True)
@given(WAYS.flatmap(lambda way: mutated(STEPS, way)), WAYS.flatmap(lambda way: mutated(CONTRACTS, way)))
def test_mutated_steps_and_contracts(jobs: str, contracts: str) -> None:
    judge(jobs, SCHEDULES, contracts)
    judge(STEPS, SCHEDULES, contracts)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(WAYS.flatmap(lambda way: mutated(SCHEDULES, way)))
def test_a_mutated_schedules_file(schedules: str) -> None:
    judge(JOBS, schedules)


@st.composite
def with_a_value_replaced(draw: st.DrawFn, text: str) -> str:
    """The same document with a value somewhere in it replaced by any other."""
    document: Any = tomllib.loads(text)
    table = document
    while True:
        key = draw(st.sampled_from(sorted(table) if isinstance(table, dict) else range(len(table))))
        if not isinstance(table[key], (dict, list)) or not table[key] or draw(st.integers(0, 3)) == 0:
            table[key] = draw(VALUES)
            return tomli_w.dumps(document)
        table = table[key]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(with_a_value_replaced(JOBS), with_a_value_replaced(SCHEDULES))
def test_any_value_in_any_place(jobs: str, schedules: str) -> None:
    judge(jobs, schedules)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(with_a_value_replaced(STEPS), with_a_value_replaced(CONTRACTS))
def test_any_value_in_any_place_of_steps_and_contracts(jobs: str, contracts: str) -> None:
    judge(jobs, SCHEDULES, CONTRACTS)
    judge(STEPS, SCHEDULES, contracts)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(["cron", "on_calendar", "every", "rrule", "timezone"]),
    TEXTS | st.text("0123456789*,-/:. ~MonTueUTC=;FREQDAILYBYINTVH", max_size=24),
)
def test_any_text_as_a_cadence(key: str, text: str) -> None:
    judge(JOBS, f"version = 1\n[schedules.daily]\n{tomli_w.dumps({key: text})}")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TEXTS, TEXTS)
def test_text_that_is_no_toml_at_all(jobs: str, schedules: str) -> None:
    judge(jobs, schedules)
