"""One argv for what systemd would run. What systemd itself does is asked in tests/sandboxed/test_import_systemd.py."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchctl.core.exec_command import ExecLine, command, fallback, split

ENV = {"A": "one two", "Q": "'three four' fi\"ve\" \\six '' end", "EMPTY": "", "BLANK": "  "}


def line(*words: str, flags: tuple[str, ...] = (), path: str | None = None) -> ExecLine:
    return ExecLine(path or words[0], words, frozenset(flags))


def argv(*words: str, flags: tuple[str, ...] = (), certain: bool = True) -> tuple[str, ...]:
    return command([line("/p", *words, flags=flags)], ENV, certain=certain).argv


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("plain", ("plain",)),
        ("${A}", ("one two",)),
        ("$A", ("one", "two")),
        ("x${A}y${EMPTY}", ("xone twoy",)),
        ("${EMPTY}", ("",)),
        ("$EMPTY", ()),
        ("$BLANK", ()),
        ("a$A", ("a$A",)),
        ("$$A", ("$A",)),
        ("$${A}", ("${A}",)),
        ("a$$", ("a$",)),
        ("$A/b", ()),
        ("$", ()),
        ("${A", ("${A",)),
        ("${A:-x}", ("${A:-x}",)),
        ("${A b}x", ("x",)),
        ("$Q", ("three four", "five", "six", "", "end")),
        ("{A}", ("{A}",)),
    ],
)
def test_a_variable_of_the_unit_is_put_in_as_systemd_would(word: str, found: tuple[str, ...]) -> None:
    assert argv(word) == ("/p", *found)


def test_with_the_prefix_colon_nothing_is_expanded() -> None:
    assert argv("$A", "${A}", "$$", flags=("no-env-expand",)) == ("/p", "$A", "${A}", "$$")


def test_what_a_file_can_override_is_left_to_a_shell() -> None:
    made = command([line("/p q", "--x=${A}y", "it's", "$$")], ENV, certain=False)
    assert made.argv == ("/bin/sh", "-c", """exec '/p q' --x="$A"y 'it'"'"'s' '$'""")
    assert made.comments == ("$A in the command can come from an environment file: a shell expands it",)


def test_what_is_not_the_units_own_is_left_to_a_shell_and_said() -> None:
    made = command([line("/p", "${LANG}")], ENV)
    assert made.argv == ("/bin/sh", "-c", 'exec /p "$LANG"')
    (said,) = made.comments
    assert "takes it from the worker's environment at run time" in said


@pytest.mark.parametrize(
    "name", ["INVOCATION_ID", "TRIGGER_UNIT", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "MAINPID"]
)
def test_what_systemd_alone_sets_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"uses \${name}, which systemd alone sets"):
        argv(f"x${{{name}}}")


@pytest.mark.parametrize("name", ["PWD", "IFS", "UID", "RANDOM", "PS1", "OPTIND", "_"])
def test_what_a_shell_would_set_itself_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="which a shell would set itself"):
        argv(f"${name}")


def test_a_dollar_in_the_programs_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"name holds a \$"):
        command([line("/opt/$A/p")], ENV)


def test_a_prefix_that_a_newer_systemd_knows_is_refused() -> None:
    # As systemd 258 gives back `ExecStart=|echo hello`: its argv is none that could be run.
    with pytest.raises(ValueError, match="systemd calls its command via-shell"):
        command([line("sh", "echo", "hello", path="/bin/sh", flags=("ignore-failure", "via-shell"))], {})


def test_the_prefix_minus_makes_any_end_a_success() -> None:
    made = command([line("/bin/sh", "-c", "exit 3", flags=("ignore-failure",))], {})
    assert subprocess.run(made.argv, check=False).returncode == 0
    assert command([line("/bin/sh", "-c", "exit 3")], {}).argv == ("/bin/sh", "-c", "exit 3")


def test_another_name_than_the_programs_is_kept() -> None:
    made = command([line("zero", "-c", 'echo "$0" "$1"', "x", "a b", path="/bin/sh", flags=("no-env-expand",))], {})
    done = subprocess.run(made.argv, capture_output=True, text=True, check=True)
    assert done.stdout == "x a b\n"
    named = command([line("zero", "-c", 'tr "\\0" " " < /proc/$$$$/cmdline', path="/bin/sh")], {})
    assert subprocess.run(named.argv, capture_output=True, text=True, check=True).stdout.startswith("zero -c ")


def test_several_lines_run_in_order_up_to_the_first_that_fails() -> None:
    lines = [line("/bin/echo", "a b"), line("/bin/false", flags=("ignore-failure",)), line("/bin/echo", "$A", "'c'")]
    made = command(lines, ENV)
    done = subprocess.run(made.argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a b\none two 'c'\n")
    stopped = command([line("/bin/echo", "1"), line("/bin/sh", "-c", "exit 7"), line("/bin/echo", "2")], {})
    done = subprocess.run(stopped.argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "1\n")


def test_a_name_without_a_path_goes_through_no_shell() -> None:
    assert command([line("uv", "run")], {}).argv == ("uv", "run")
    with pytest.raises(ValueError, match="not found in systemd's search path"):
        command([line("echo", "${LANG}")], {})


def test_a_value_that_only_systemd_can_split_ends_the_run_loudly() -> None:
    made = command([line("/bin/echo", "$X")], {}, certain=False)
    for value in ("it's", 'a "b c"', "back\\slash", "a\rb"):
        done = subprocess.run(made.argv, env={"X": value}, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (78, ""), value
        assert "X holds quotes or backslashes" in done.stderr
    done = subprocess.run(made.argv, env={"X": " a  * b\t"}, capture_output=True, text=True, check=False)
    assert done.stdout == "a * b\n"


TEXT = st.text(st.sampled_from("ab *?\t$~'\"\\;&|<>(){}#=%é\n"), max_size=6)
WORD = st.lists(st.one_of(TEXT, st.sampled_from(["${X}", "${Y}", "$$"])), max_size=4).map("".join)


@settings(max_examples=60)
@given(words=st.lists(st.one_of(WORD, st.sampled_from(["$X", "$Y"])), max_size=4), x=TEXT, y=TEXT)
def test_a_shell_expands_at_run_time_what_would_be_put_in_now(words: list[str], x: str, y: str) -> None:
    here = line("/usr/bin/printf", "%s\\0", "", *words)
    env = {"X": x, "Y": y}
    try:
        now = command([here], env).argv
        later = command([here], env, certain=False).argv
    except ValueError:
        return
    done = subprocess.run(later, env=env, capture_output=True, text=True, check=False)
    split_at_run_time = [name for name in env if f"${name}" in words]
    if any(set(env[name]) & set("'\"\\") for name in split_at_run_time):
        assert done.returncode == 78
        return
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.split("\0")[:-1]) == now[2:]


@given(st.text(st.sampled_from("ab '\"\\\t\n\r"), max_size=12))
def test_splitting_never_fails_and_keeps_plain_words(value: str) -> None:
    words = split(value)
    assert len(words) <= len(value)
    if not set(value) & set("'\"\\"):
        assert words == value.split()


def test_without_a_bus_a_plain_line_is_read() -> None:
    (one,) = fallback(["-:/bin/echo  a\tb $X"])
    assert one == ExecLine("/bin/echo", ("/bin/echo", "a", "b", "$X"), frozenset({"ignore-failure", "no-env-expand"}))
    (two,) = fallback(["!!/bin/true"])
    assert two.flags == {"ambient"}
    assert not two.as_root


@pytest.mark.parametrize(
    "text", ['/p "a b"', "/p 'a'", r"/p a\x20b", "/p %n", "@/p q", "-@/p q", "|/p q", "-|p", "/p a ; /q", "/p ;", "-"]
)
def test_without_a_bus_what_has_two_readings_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"D-Bus does not answer|is empty"):
        fallback([text])
