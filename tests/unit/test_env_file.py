"""systemd's environment files. tests/sandboxed/test_env_file_systemd.py asks systemd itself about all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from env_files import ZOO
from orchctl.core.env_file import parse

# As systemd 252 gives them to a service.
TOLD: dict[str, dict[str, str]] = {
    "blanks": {"A": "1", "B": "2", "C": "a  b"},
    "comments": {"D": "4 # not a comment", "E": "5;6"},
    "single": {"A": "x  y", "B": 'it"s', "C": "a\\nb", "D": "$HOME `x`"},
    "double": {"A": "x  y", "B": "it's", "C": 'a"b\\c$d`e', "D": "\\n\\t\\x"},
    "pieces": {"A": "xyz", "B": "xy", "C": "xy z", "D": "x'y'", "E": 'x "y"'},
    "escapes": {"A": "a b ", "B": "x41", "C": "\\", "D": '"q"', "E": "a'b"},
    "continued": {"A": "onetwo", "B": "onetwo", "C": "one\\\ntwo", "D": "later", "E": "x", "F": "6"},
    "lines in quotes": {"A": "one\ntwo", "B": "three\n\nfour", "C": "5"},
    "empty": {"A": "", "B": "", "C": "", "D": "", "E": "# x"},
    "again": {"B": "2", "A": "3"},
    "bad names": {"H": "7", "_I": "8"},
    "export": {"B": "2"},
    "no value": {"B": "2", "E": "5"},
    "unfinished": {"A": "1", "B": "x\nC=2\n"},
    "no newline": {"A": "1", "B": "2"},
    "expansions": {"A": "1", "B": "$A", "C": "${A}x", "D": "~/x", "E": "%h"},
    "no utf-8 in a comment": {"A": "1"},
    "byte order mark": {"B": "2"},
    "nothing": {},
}


@pytest.mark.parametrize("name", TOLD)
def test_a_file_as_systemd_reads_it(name: str) -> None:
    assert parse(ZOO[name]) == TOLD[name]


@pytest.mark.parametrize("name", ["no utf-8 in a value", "a surrogate", "overlong", "a non-character"])
def test_what_is_no_text_makes_systemd_refuse_the_file(name: str) -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        parse(ZOO[name])


def test_a_nul_makes_systemd_refuse_the_file() -> None:
    with pytest.raises(ValueError, match="NUL"):
        parse(ZOO["nul"])


def test_a_comment_that_goes_on_only_did_before_systemd_254() -> None:
    content = ZOO["comment that goes on"]
    assert parse(content) == {"A": "1", "B": "2", "C": "3", "D": "4"}
    assert parse(content, comments_continue=True) == {"B": "2", "C": "3", "D": "4"}


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        found = parse(content)
    except ValueError:
        return
    assert all(name.isidentifier() and name.isascii() and "\0" not in value for name, value in found.items())


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True),
        st.text(
            alphabet=st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cn", "Cs", "Co")),
            max_size=30,
        ),
        max_size=4,
    )
)
def test_what_is_quoted_comes_back(values: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return "".join(f"\\{char}" if char in '"\\`$' else char for char in value)

    text = "".join(f'{name}="{quoted(value)}"\n' for name, value in values.items())
    assert parse(text.encode()) == values
