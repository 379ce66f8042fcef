"""Crontabs as cron reads them. What the real ones say was recorded; `tests/data/crontab_lines.txt` says from which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from orchctl.core.crontab import Crontab, Daemon, looks_like_system, parse, read_line

JUDGED = [
    (line.split(" ", 1)[1].encode().decode("unicode_escape"), line.startswith("ok "))
    for line in (ROOT / "tests/data/crontab_lines.txt").read_text().splitlines()[1:]
]
# Debian's cron takes them and never fires, fires at random elsewhere, or passes over what follows a number.
WE_REFUSE = (
    *("5-1 * * * * x", "0 0 * * fri-sun x", "0 0 30 2 * x", "1~5 * * * * x", "** * * * * x", "*5 * * * * x"),
    *("*-5 * * * * x", "1-2-3 * * * * x", "0 0 * * 1#2 x", "0 5 * * * x\r"),
    *("@daily", "@reboot", "* * * * *", "* * * * * ", "1 2 3 4 5", "0 0 * * * %y"),
)


def one(line: str, *, with_user: bool = False, daemon: Daemon = "debian") -> Crontab:
    return parse(f"{line}\n", with_user=with_user, daemon=daemon)


@pytest.mark.parametrize(("line", "taken"), JUDGED, ids=[repr(line) for line, _ in JUDGED])
def test_a_line_is_taken_as_debians_cron_takes_it(line: str, taken: bool) -> None:
    assert (not one(line).unread) == (taken and line not in WE_REFUSE)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0 * * fri-sun x", "runs backwards"),
        ("1~5 * * * * x", "at random"),
        ("0 0 30 2 * x", "never fires"),
        ("5/15 * * * * x", "a step needs a range"),
        ("0 0 L * * x", "not a number"),
        ("0 0 ? * * x", "other schedulers"),
        ("60 * * * * x", "outside 0-59"),
        ("@Daily x", "small letters"),
        ("1 2 3 4 x", "not five fields"),
        ("0 0 * * *", "not five fields"),
        ('FOO="bar', "quotes that do not close"),
        ("FOO=", "needs quotes"),
        ("0 5 * * * x\r", "Windows"),
        ("0 5 * * * caf\udce9", "not UTF-8"),
        (f"0 5 * * * {'x' * 999}", "longer than 998"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_reason_and_line(line: str, reason: str) -> None:
    found = parse(f"# first\n\n{line}\n0 5 * * * right\n", with_user=False)
    (unread,) = found.unread
    assert (unread.number, unread.line) == (3, line)
    assert reason in unread.reason
    assert [entry.what.command for entry in found.entries] == ["right"]


def test_the_line_and_its_place_are_exact() -> None:
    text = "# jobs\n\n \t5 4 * * *  \t run  it  \nX=1\n@daily z\n"
    found = parse(text, with_user=False).entries
    assert [(entry.number, entry.line) for entry in found] == [(3, " \t5 4 * * *  \t run  it  "), (5, "@daily z")]
    assert found[0].what.command == "run  it  "
    assert [entry.what.schedule for entry in found] == ["5 4 * * *", "0 0 * * *"]


def test_a_setting_counts_from_its_line_on_and_a_later_one_instead_of_it() -> None:
    text = 'A=1\n0 0 * * * x\nA = two words \n"B" = \'  kept \'\n0 1 * * * y\nA="3"\n0 2 * * * z\n'
    assert [dict(entry.variables) for entry in parse(text, with_user=False).entries] == [
        {"A": "1"},
        {"A": "two words", "B": "  kept "},
        {"A": "3", "B": "  kept "},
    ]


def test_nothing_is_expanded_in_a_setting() -> None:
    (entry,) = parse("PATH=$HOME/bin:~/x # no comment\n0 0 * * * x\n", with_user=False).entries
    assert entry.variables == {"PATH": "$HOME/bin:~/x # no comment"}


def test_the_last_line_needs_a_newline() -> None:
    found = parse("0 0 * * * a\n0 1 * * * b", with_user=False)
    assert [entry.what.command for entry in found.entries] == ["a"]
    assert "newline" in found.unread[0].reason


# What `printf '[%s]'` and `cat` got from the real cron of Debian, by @reboot.
@pytest.mark.parametrize(
    ("text", "command", "stdin"),
    [
        (r"date +\%F", "date +%F", None),
        (r"a\\b a\b a\\\%b", r"a\b a\b a\%b", None),
        (r"cat%one%two\%three%", "cat", "one\ntwo%three\n"),
        (r"cat%one\\%x\a", "cat", "one\\%x\\a\n"),
        ("cat%", "cat", None),
        ("cat%%a\\", "cat", "\na\\\n"),
        (r"echo a\\%b", "echo a\\", "b\n"),
        ("x\\", "x\\", None),
    ],
)
def test_percent_signs_as_debians_cron_reads_them(text: str, command: str, stdin: str | None) -> None:
    line = read_line(f"* * * * * {text}", with_user=False, daemon="debian")
    assert (line.command, line.stdin) == (command, stdin)


def test_what_cronie_does_otherwise() -> None:
    assert read_line(r"* * * * * a\\b\%c", with_user=False, daemon="cronie").command == r"a\\b%c"
    assert read_line("-5 * * * * x", with_user=False, daemon="cronie").schedule == "5 * * * *"
    assert read_line("* * * * * -n x", with_user=False, daemon="cronie").command == "x"
    (entry,) = one("FOO=\n0 0 * * * x", daemon="cronie").entries
    assert entry.variables == {"FOO": ""}
    assert not one(f"0 0 * * * {'x' * 2000}", daemon="cronie").unread


def test_the_form_of_etc_crontab() -> None:
    line = read_line("17 *\t* * *\troot\tcd / && run-parts", with_user=True)
    assert (line.schedule, line.user, line.command) == ("17 * * * *", "root", "cd / && run-parts")
    assert one("@daily root x", with_user=True).entries[0].what.user == "root"
    assert "names no user and command" in one("0 0 * * * root", with_user=True).unread[0].reason


def test_the_form_is_told_by_its_users() -> None:
    users = {"root", "daniel"}
    assert looks_like_system("A=1\n0 0 * * * root x\n@daily daniel y z\n", users)
    assert not looks_like_system("0 0 * * * root x\n0 0 * * * /bin/y z\n", users)
    assert not looks_like_system("0 0 * * * root\n", users)
    assert not looks_like_system("# nothing\n", users)


def test_reboot_has_no_schedule() -> None:
    line = read_line("@reboot x y", with_user=False)
    assert (line.schedule, line.fields, line.command) == (None, None, "x y")


@given(st.text(alphabet=st.sampled_from("0159*/-,~@#=%\\\"' \t\nrebootdailysunxFO\r\udc80\x00"), max_size=60))
def test_no_text_breaks_the_reader_and_no_line_is_lost(text: str) -> None:
    for with_user in (False, True):
        for daemon in ("debian", "cronie"):
            found = parse(text, with_user=with_user, daemon=daemon)
            lines = text.split("\n")
            places = [(each.number, each.line) for each in found.entries]
            places += [(each.number, each.line) for each in found.unread]
            assert all(lines[number - 1] == line for number, line in places)
            active = [line for line in lines if line.strip(" \t") and not line.lstrip(" \t").startswith("#")]
            assert len(found.entries) + len(found.unread) <= len(active)
