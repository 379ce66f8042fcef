"""The DAG of steps: its order, its cycles, who comes before and after whom; for any DAG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.core import steps
from orchctl.core.catalog_steps import StepTable
from step_dags import dags, step


def names(found: Sequence[StepTable]) -> list[str]:
    return [each.name for each in found]


def test_what_a_step_waits_for_is_after_and_what_it_reads_each_once() -> None:
    assert steps.needs(step("c", "b", "a", reads=["a", "d"])) == ("b", "a", "d")


def test_what_was_written_in_order_stays_so() -> None:
    written = (step("a"), step("b", "a"), step("c"), step("d", "b", "c"))
    assert steps.order(written) == written


def test_else_the_one_that_was_written_first_goes_first() -> None:
    assert names(steps.order([step("d", "a"), step("b"), step("a"), step("c", "b")])) == ["b", "a", "d", "c"]


@given(dags())
def test_each_step_comes_after_those_it_needs(dag: tuple[StepTable, ...]) -> None:
    place = {each.name: number for number, each in enumerate(steps.order(dag))}
    assert sorted(place) == sorted(names(dag))
    assert all(place[need] < place[each.name] for each in dag for need in steps.needs(each))


@given(dags())
def test_the_order_is_stable(dag: tuple[StepTable, ...]) -> None:
    once = steps.order(dag)
    assert steps.order(once) == once


@given(dags())
def test_the_order_takes_the_earliest_that_is_ready(dag: tuple[StepTable, ...]) -> None:
    done: set[str] = set()
    for chosen in steps.order(dag):
        ready = [each.name for each in dag if each.name not in done and done >= set(steps.needs(each))]
        assert chosen.name == ready[0]
        done.add(chosen.name)


@given(dags())
def test_ancestors_and_descendants_are_two_views_of_one_thing(dag: tuple[StepTable, ...]) -> None:
    below = {each.name: steps.descendants(dag, each.name) for each in dag}
    above = {each.name: steps.ancestors(dag, each.name) for each in dag}
    assert {(a, b) for a in below for b in below[a]} == {(a, b) for b in above for a in above[b]}
    for each in dag:
        needs = steps.needs(each)
        assert above[each.name] == set(needs).union(*(above[need] for need in needs))
        assert each.name not in above[each.name]


@given(dags())
def test_the_direct_edges_say_as_much_as_all_and_none_is_too_many(dag: tuple[StepTable, ...]) -> None:
    direct = steps.direct(dag)
    drawn = tuple(step(each.name, *direct[each.name]) for each in dag)
    for each in dag:
        assert set(direct[each.name]) <= set(steps.needs(each))
        assert steps.ancestors(drawn, each.name) == steps.ancestors(dag, each.name)
        for edge in direct[each.name]:
            others = step(each.name, *(other for other in direct[each.name] if other != edge))
            fewer = tuple(others if one.name == each.name else one for one in drawn)
            assert edge not in steps.ancestors(fewer, each.name)


@given(dags())
def test_a_dag_has_no_cycle(dag: tuple[StepTable, ...]) -> None:
    assert steps.cycle(dag) is None


@given(dags(), st.data())
def test_a_step_that_waits_for_its_descendant_is_found_as_a_cycle(
    dag: tuple[StepTable, ...], data: st.DataObject
) -> None:
    first = data.draw(st.sampled_from(dag))
    last = data.draw(st.sampled_from(sorted({first.name} | steps.descendants(dag, first.name))))
    broken = [step(each.name, *steps.needs(each), last) if each is first else each for each in dag]
    ring = steps.cycle(broken)
    assert ring is not None
    by_name = {each.name: each for each in broken}
    assert ring[0] == ring[-1]
    assert len(set(ring)) == len(ring) - 1
    assert all(after in steps.needs(by_name[name]) for name, after in pairwise(ring))
    assert ring[0] == min(ring, key=names(broken).index)
    with pytest.raises(ValueError, match=" -> ") as caught:
        steps.order(broken)
    assert str(caught.value) == " -> ".join(ring)


def test_a_step_that_waits_for_itself() -> None:
    assert steps.cycle([step("a"), step("b", "b")]) == ("b", "b")


def test_what_is_not_among_the_steps_is_waited_for_by_nobody() -> None:
    dag = (step("b", "gone"), step("a"))
    assert names(steps.order(dag)) == ["b", "a"]
    assert steps.cycle(dag) is None
    assert steps.direct(dag) == {"b": (), "a": ()}


def test_a_wide_and_deep_dag_is_ordered_without_recursion() -> None:
    chain = [step("s0"), *(step(f"s{number}", f"s{number - 1}") for number in range(1, 3000))]
    assert names(steps.order(reversed(chain))) == names(chain)
    assert len(steps.descendants(chain, "s0")) == 2999
