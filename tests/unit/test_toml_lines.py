"""Lines of keys: every path that tomllib finds, at a line that holds the key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from orchctl.core.toml_lines import Path, dotted, lines_of

TRICKY = {
    "dotted keys": "a.b.c = 1\na.b.d = 2\n[t]\nx . y = 3\n",
    "quoted keys": (
        '\'a.b\' = 1\n"c]" = 2\n"#d" = 3\n"e=f" = 4\n"g\\"h" = 5\n"\\u00e9" = 6\n\'\' = 7\nz.\'x y\'."\\t" = 8\n'
    ),
    "quoted headers": "[\"a]b\".'c#d']\nx = 1\n[ 'e' . f ]\ny = 2\n[[ \"g.h\" ]]\nz = 3\n",
    "multi-line strings": (
        'a = """\n[fake]\nb = 1\n# no comment\n"""\nc = \'\'\'\n[[fake]]\nd = "\n\'\'\'\n'
        'e = """x"" y"""""\nf = 1\ng = \'\'\'\'\'two\'\'\'\'\'\nh = """\\\n   \\" """\ni = 2\n'
    ),
    "arrays of tables": "[[a]]\nx = 1\n[[a.b]]\ny = 1\n[[a.b]]\ny = 2\n[a.b.c]\nz = 1\n[[a]]\n[[a.b]]\ny = 3\n[d]\n",
    "inline tables": "a = { b = 1, 'c.d' = [1, { e = 2 }], f.g = \"}\" } # }\nh = [ { i = 1 }, { i = 2 } ]\n",
    "lists over lines": "a = [ # [\n  1, # ,\n  # ]\n  [ 'x]', \"]\" ],\n  { b = ']' },\n]\nc = [\n\n]\nd = [1,]\n",
    "comments": "# a = 1\na = 1 # b = 2\n#[t]\n  [t] # [u]\n\n  b = '#' # x\n\tc = 1979-05-27 07:32:00 # y\n",
    "values": "a = 1_000\nb = -inf\nc = 1979-05-27T07:32:00Z\nd = 07:32:00\nf = 0x1F\ng = 1e5\nh = ''\ni = \"\"\n",
    "tables out of order": "[a.b]\nx = 1\n[c]\n[a]\ny = 2\n[a.b.d]\n",
    "no newline at the end": "a = 1\n[b]\nc = 'x'",
    "empty": "",
}


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Every path of a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def check(text: str) -> None:
    found = lines_of(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    lines = text.split("\n")
    for path, number in found.items():
        assert 1 <= number <= len(lines)
        key = next(part for part in reversed(path) if isinstance(part, str))
        if isinstance(path[-1], str):
            assert any(form in lines[number - 1] for form in (key, *written(key))), (path, number)


def written(key: str) -> tuple[str, ...]:
    """How a key may be written in quotes: as tomli_w does it, or with JSON's escapes."""
    return (tomli_w.dumps({key: 0})[:-5], json.dumps(key), json.dumps(key).replace("\\u00e9", "\\u00E9"))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", TRICKY)
def test_tricky_documents(name: str, line_end: str) -> None:
    check(TRICKY[name].replace("\n", line_end))


def test_all_of_them_below_each_other_in_tables_of_their_own() -> None:
    joined = "".join(f"[t{number}]\nx = '''\n{'#' * number}\n'''\n" for number in range(50))
    check(joined + "[last]\ny = 1\n")
    assert lines_of(joined + "[last]\ny = 1\n")[("last", "y")] == 202


def test_an_element_of_a_list_has_a_line_of_its_own() -> None:
    found = lines_of("a = [\n  1,\n  # not here\n  { b = 2 },\n]\n")
    assert (found[("a", 0)], found[("a", 1)], found[("a", 1, "b")]) == (2, 4, 4)


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=6) | st.sampled_from(
    ["a", "b", "a.b", "x]", "[x", "#", "=", '"', "'", "\\", "\n", "\t", "\r", "é", "{", "}", ",", ""]
)
STRINGS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["\n[fake]\nx = 1\n", '"""', "'''", "# no", "}\n]", "a\r\nb", "\\", '\n"\n', "x" * 120]
)
SCALARS = STRINGS | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats() | st.datetimes() | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans(), st.booleans())
def test_documents_of_tomli_w(document: dict[str, Any], multiline: bool, crlf: bool) -> None:
    text = tomli_w.dumps(document, multiline_strings=multiline)
    check(text.replace("\r\n", "\n").replace("\n", "\r\n") if crlf else text)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(KEYS | st.integers(0, 9), min_size=1, max_size=4).filter(lambda path: isinstance(path[0], str)))
def test_a_dotted_path_is_toml_again(path: list[str | int]) -> None:
    keys = tuple(part for part in path if isinstance(part, str))
    value: Any = tomllib.loads(f"{dotted(keys)} = 0")
    for key in keys:
        value = value[key]
    assert value == 0
