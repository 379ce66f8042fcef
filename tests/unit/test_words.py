"""Names, instants, ids, durations and templates: what is written reads back, and nothing else is taken."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchctl.core import durations, names, templates

MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 (hypothesis wants naive bounds)
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=5, minutes=45))]),
)
examples = settings(max_examples=200, deadline=None, derandomize=True)
BAD = [
    "",
    "../x",
    "..",
    "/",
    "a/b",
    "a\x00",
    "a\n",
    "A",
    "-a",
    "_a",
    "a b",
    "a\u0663",
    "\u0663",
    "é",
    '"a"',
    "a'",
    "x" * 64,
]


@pytest.mark.parametrize("text", ["a", "0", "live-score", "a_b", "x" * 63])
def test_names(text: str) -> None:
    assert names.is_name(text)
    assert names.is_dotted_name(text)


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_name(text: str) -> None:
    assert not names.is_name(text)
    assert not names.is_dotted_name(text)
    assert not names.is_run_id(text)


def test_dots_make_a_name_dotted_and_two_make_it_wrong() -> None:
    assert names.is_dotted_name("minutes.features_live")
    assert not names.is_name("minutes.features_live")
    assert not names.is_dotted_name("a..b")
    assert not names.is_dotted_name(".a")


@examples
@given(st.text(max_size=8))
def test_a_name_is_a_plain_file_name(text: str) -> None:
    if names.is_dotted_name(text):
        assert re.fullmatch(r"[a-z0-9._-]+", text)
        assert text not in {".", ".."}
        assert text[0] not in ".-"


@pytest.mark.parametrize("text", ["A", "_x", "PATH_2", "a" * 128])
def test_names_of_variables(text: str) -> None:
    assert names.is_env_key(text)


@pytest.mark.parametrize("text", ["", "2A", "A=B", "A B", "A\n", "A\x00", "A-B", "É", "a" * 129, "A\u0663"])
def test_what_is_no_name_of_a_variable(text: str) -> None:
    assert not names.is_env_key(text)


@examples
@given(st.dates())
def test_a_date_reads_back(day: date) -> None:
    assert names.parse_date(day.isoformat()) == day


@pytest.mark.parametrize(
    "text",
    ["", "20251219", "2025-W51", "2025-12-19\n", "2025-13-01", "2025-02-29", "0000-01-01", "2025-12-1\u0669", "../etc",
     "2025-12-19T00:00:00Z", " 2025-12-19"],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(ValueError):
        names.parse_date(text)


@examples
@given(MOMENTS)
def test_an_instant_reads_back_to_the_millisecond(moment: datetime) -> None:
    back = names.parse_instant(names.format_instant(moment))
    assert timedelta(0) <= moment - back < timedelta(milliseconds=1)
    assert back.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "2025-12-19", "2025-12-19T05:00:00", "2025-12-19 05:00:00Z", "2025-12-19T05:00:00Z\n", "2025-12-19T24:00:00Z",
     "2025-12-19T05:00:60Z", "2025-12-19T05:00Z", "2025-12-19T05:00:00+9:00", "2025-12-19T05:00:00+99:00",
     "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2025-12-19T05:00:0\u0660Z", "now"],
)  # fmt: skip
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError):
        names.parse_instant(text)


@examples
@given(MOMENTS, MOMENTS)
def test_names_of_slots_are_file_names_that_sort_by_time(one: datetime, other: datetime) -> None:
    first, second = names.slot_name(one), names.slot_name(other)
    assert re.fullmatch(r"[0-9]{8}T[0-9]{6}(\.[0-9]{6})?Z", first)
    assert (first == second) == (one == other)
    if one.replace(microsecond=0) != other.replace(microsecond=0):
        assert (first < second) == (one < other)


@examples
@given(MOMENTS, st.uuids())
def test_a_run_id_is_whole_derived_and_holds_its_instant(moment: datetime, flow_run: object) -> None:
    run = names.run_id(moment, str(flow_run))
    assert names.is_run_id(run)
    assert run == names.run_id(moment.astimezone(UTC), str(flow_run))
    assert names.run_instant(run) == moment.astimezone(UTC).replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    ["20251219T020143Z", "20251219T020143Z-3F9A1C", "20251219T020143Z-3f9a1c\n", "../20251219T020143Z-3f9a1c",
     "20251219T020143Z-3f9a1c/..", "2025121\u0669T020143Z-3f9a1", "20251219T020143Z-3f9a1c0",
     "20251219T020143Z-\x00f9a1"],
)  # fmt: skip
def test_what_is_no_run_id(text: str) -> None:
    assert not names.is_run_id(text)


@examples
@given(st.integers(0, durations.MAX_SECONDS))
def test_a_duration_reads_back(seconds: int) -> None:
    assert durations.parse(durations.canonical(seconds)) == seconds
    assert re.fullmatch(durations.PATTERN, durations.canonical(seconds))


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5M", "-5m", "+5m", "1.5h", "5 m", "5m ", "5m\n", "\u0665m", "1h30m", "9999999999s", "367d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        durations.parse(text)


VALUES = {word: f"<{word}>" for word in templates.WORDS}
PIECES = st.lists(
    st.sampled_from(
        ["{", "}", "{{", "}}", "{game_date}", "{job}", "{jo", "b}", ".", "!r", ":>9", "[0]", "0", "__class__", " "]
    )
    | st.text(max_size=3)
)


class Untouchable(str):
    """A value that tells when anything but the text itself is asked for."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"a template reached {name}")

    def __format__(self, spec: str) -> str:
        raise AssertionError("a template formatted a value")

    def __getitem__(self, index: object) -> str:
        raise AssertionError("a template indexed a value")


@examples
@given(PIECES.map("".join))
def test_a_template_without_problems_renders_whole_and_one_with_problems_too(template: str) -> None:
    rendered = templates.render(template, VALUES)
    if templates.problems(template) == ():
        literal = template.replace("{{", "").replace("}}", "")
        for word in templates.words_in(literal):
            assert f"<{word}>" in rendered
        assert rendered.count("{") == template.count("{{")
    assert (templates.problems(template) == ()) == (re.fullmatch(templates.PATTERN[1:-1], template) is not None)


@examples
@given(PIECES.map("".join))
def test_no_text_reaches_what_a_value_has(template: str) -> None:
    templates.render(template, {word: Untouchable("x") for word in templates.WORDS})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{job}", "<job>"),
        ("{{job}}", "{job}"),
        ("{{{job}}}", "{<job>}"),
        ("{data_root}/{game_date}", "<data_root>/<game_date>"),
        ("", ""),
        ("a\n{slot}", "a\n<slot>"),
    ],
)
def test_rendering(template: str, expected: str) -> None:
    assert templates.problems(template) == ()
    assert templates.render(template, VALUES) == expected


def test_a_word_without_a_value_becomes_empty() -> None:
    assert templates.render("[{step}]", {}) == "[]"


def test_a_value_is_never_a_template_itself() -> None:
    assert templates.render("{job}", {"job": "{data_root}", "data_root": "no"}) == "{data_root}"
