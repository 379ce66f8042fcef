"""What the fence's drop-in says, and what of a later drop-in takes it away."""

from __future__ import annotations

import pytest

from orchctl.core import fence
from orchctl.core.unit_text import literal, quoted, settings


def test_the_drop_in_names_the_owner_file_in_both_its_lines() -> None:
    text = fence.drop_in("live-score", "/srv/a b/%n/live-score.json", ["/etc/x.d"], with_command=True)
    assert [str(each) for each in settings(text)] == [
        "ConditionPathExists=!/srv/a b/%%n/live-score.json",
        'ExecCondition=+:/bin/sh -c "[ ! -e \\"$0\\" ]" "/srv/a b/%%n/live-score.json"',
    ]
    assert fence.folders_of(text) == ("/etc/x.d",)


def test_a_service_with_a_root_of_its_own_gets_no_command() -> None:
    text = fence.drop_in("j", "/srv/j.json", [], with_command=False)
    assert [each.section for each in settings(text)] == ["Unit"]


@pytest.mark.parametrize("text", ["", "# folders: ", "# folders: {}", "# folders: [1, 2]", "# folders: nonsense"])
def test_a_drop_in_that_names_no_folders_has_none(text: str) -> None:
    assert fence.folders_of(text) == ()


@pytest.mark.parametrize("path", ["/srv/a\nb", "/srv/a\x00b", "/srv/a ", " /srv", "/srv/a\\", "/srv/\udc80"])
def test_what_no_unit_file_can_say_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="unit file"):
        literal(path)


def test_a_word_is_quoted() -> None:
    assert quoted('a "b" \\ %h $x') == '"a \\"b\\" \\\\ %%h $x"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Unit]\nConditionPathExists=\n", "ConditionPathExists="),
        ("[Unit]\nConditionACPower=\n", "ConditionACPower="),
        ("[Service]\nNice=1\nExecCondition =\n", "ExecCondition="),
        ("[Unit]\nConditionPathExists=/etc\n[Service]\nExecCondition=/bin/true\nExecStart=\n", None),
        ("[Service]\nConditionPathExists=\n# [Unit]\n#ConditionPathExists=\n", None),
    ],
)
def test_an_empty_condition_takes_the_fence_away(text: str, expected: str | None) -> None:
    assert fence.opens(text) == expected


def test_the_command_is_known_by_what_systemd_shows() -> None:
    shown = '{ path=/bin/sh ; argv[]=/bin/sh -c [ ! -e "$0" ] /srv/a b/j.json ; ignore_errors=no ; start_time=[n/a] ; }'
    assert fence.is_command([shown], "/srv/a b/j.json")
    assert not fence.is_command([shown], "/srv/a b/k.json")
    assert not fence.is_command([], "/srv/a b/j.json")
