"""The drawing of a DAG: it shows every step and every edge, and no other edge."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given

from orchctl.core import step_graph, steps
from orchctl.core.catalog_steps import StepTable
from step_dags import dags, step

UP = set("│├┤┼╰╯┴")
DOWN = set("│├┤┼╭╮┬")
LEFT = set("┤┼╯┴╮┬─")
RIGHT = set("├┼╰┴╭┬─")


def drawn(*tables: StepTable) -> list[str]:
    return [f"{row.lanes} {row.step.name}" if row.step else row.lanes for row in step_graph.draw(tables)]


def test_a_chain() -> None:
    assert drawn(step("a"), step("b", "a"), step("c", "b")) == ["● a", "● b", "● c"]


def test_a_diamond_and_a_step_that_is_optional() -> None:
    side = step("c", "a").model_copy(update={"optional": True})
    assert drawn(step("a"), step("b", "a"), side, step("d", "b", "c")) == [
        "● a",
        "├─╮",
        "● │ b",
        "│ ○ c",
        "├─╯",
        "● d",
    ]


def test_a_line_passes_behind_a_lane_that_is_not_its_own() -> None:
    assert drawn(step("a"), step("b"), step("c", "a", "b"), step("d", "a"), step("e", "b", "d")) == [
        "● a",
        "├─╮",
        "│ │ ● b",
        "├─│─┤",
        "● │ │ c",
        "  ● │ d",
        "  ╰─┤",
        "    ● e",
    ]


def test_a_column_that_leads_nowhere_is_used_again() -> None:
    first = (step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
    assert drawn(*first, step("e", "d"), step("f", "d"), step("g", "f"), step("h", "e")) == [
        "● a",
        "├─╮",
        "● │ b",
        "│ ● c",
        "├─╯",
        "● d",
        "├─╮",
        "● │ e",
        "│ ● f",
        "│ ● g",
        "● h",
    ]
    assert drawn(step("a"), step("b", "a"), step("c", "b"), step("x")) == ["● a", "● b", "● c", "● x"]


def test_what_follows_from_other_edges_is_not_drawn() -> None:
    assert drawn(step("a"), step("b", "a"), step("c", "a", "b")) == ["● a", "● b", "● c"]


def test_the_lanes_under_a_step_go_on_where_something_follows() -> None:
    rows = step_graph.draw([step("a"), step("b", "a"), step("c", "a")])
    assert [(row.lanes, row.below) for row in rows if row.step] == [("●", "│"), ("● │", "  │"), ("  ●", "")]


def edges(tables: Sequence[StepTable]) -> set[tuple[str, str]]:
    """Read the drawing as a person does: from each step down its lane, along what leaves it, to the next step there."""
    rows = step_graph.draw(tables)
    found = set()
    for number, row in enumerate(rows):
        if row.step is None:
            continue
        here = column(row)
        starts = {here} if row.below[2 * here : 2 * here + 1] == "│" else set()
        after = number + 1
        if after < len(rows) and rows[after].step is None and starts:
            starts = along(rows[after].lanes, 2 * here)
            after += 1
        found |= {(row.step.name, reached(rows[after:], start)) for start in starts}
    return found


def column(row: step_graph.Row) -> int:
    return min(row.lanes.index(node) for node in "●○" if node in row.lanes) // 2


def along(line: str, at: int) -> set[int]:
    """The columns that a line from above at `at` goes down in, itself among them."""
    found = {at // 2} if line[at] in DOWN else set()
    for way, forward, back in ((1, RIGHT, LEFT), (-1, LEFT, RIGHT)):
        if line[at] not in forward:
            continue
        place = at + way
        while line[place] in "─│":
            place += way
        while True:
            assert line[place] in back
            if line[place] in DOWN:
                found.add(place // 2)
            if line[place] not in forward:
                break
            place += way
            while line[place] in "─│":
                place += way
    return found


def reached(rows: Sequence[step_graph.Row], at: int) -> str:
    """The step that the lane in a column leads to."""
    for row in rows:
        cell = row.lanes[2 * at]
        if row.step is not None and column(row) == at:
            return row.step.name
        assert cell in UP & DOWN
    raise AssertionError("a lane leads nowhere")


@given(dags())
def test_what_is_drawn_are_the_edges_and_nothing_else(dag: tuple[StepTable, ...]) -> None:
    direct = steps.direct(dag)
    assert edges(dag) == {(need, name) for name, needs in direct.items() for need in needs}


@given(dags())
def test_the_steps_are_there_in_the_order_in_which_they_run(dag: tuple[StepTable, ...]) -> None:
    assert [row.step for row in step_graph.draw(dag) if row.step] == list(steps.order(dag))


@given(dags(most=30))
def test_no_line_is_wider_than_two_places_for_each_step(dag: tuple[StepTable, ...]) -> None:
    assert all(len(row.lanes) < 2 * len(dag) for row in step_graph.draw(dag))
    assert all(row.lanes == row.lanes.rstrip() for row in step_graph.draw(dag))
