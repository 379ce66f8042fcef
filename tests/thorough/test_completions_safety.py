"""Shell completion reads files that anybody may have written: nothing of them is run, and no shell option matters."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from completing import ASK, JOBS, Box, Terminal, Zsh, event, in_bash, opened, run_id, today, traced, words_of
from orchctl.adapters.completion_cache import write as write_cache
from orchctl.cli.completion_tree import SHELLS
from orchctl.core.names import is_name


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box.under(tmp_path)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def terminal(box: Box, shell: str) -> Iterator[Terminal]:
    with opened(box, shell) as open_terminal:
        yield open_terminal


# -------------------------------------------------------------------------------------------------- nothing can hurt

HOSTILE = [
    "$(touch {home}/ran)",
    "`touch {home}/ran`",
    "*",
    "live-*",
    "a;touch {home}/ran",
    "two words",
    "'",
    '"',
    "-rf",
    "\\",
    "~",
    "x" * 64,
    "Über",
    "a[0]",
    "",
    "${{PATH}}",
    "<(touch {home}/ran)",
    "given[$(touch {home}/ran)]",
]


def test_only_names_are_offered_and_nothing_is_run(box: Box, shell: str) -> None:
    hostile = [name.format(home=box.home) for name in HOSTILE]
    box.jobs("\n".join([*hostile, "live-score", "x" * 63]) + "\n")
    box.events("da$(touch ran)ta", today(), event("$(touch ran)"))
    (box.home / "live-trap").touch()
    assert sorted(ASK[shell](box, "orchctl run ")) == ["live-score", "x" * 63]
    assert ASK[shell](box, "orchctl sync -- '$(touch ran)' `touch ran` '*' [a] live") == ["live-score"]
    assert ASK[shell](box, "orchctl runs show ") == []
    assert not (box.home / "ran").exists()
    assert not any(is_name(name) for name in hostile)


def test_missing_and_unreadable_state_is_silent(box: Box, shell: str) -> None:
    shutil.rmtree(box.state)
    for line in ("orchctl run ", "orchctl runs show ", "orchctl runs --job "):
        assert ASK[shell](box, line) == []
    (box.state / "completion" / "jobs").mkdir(parents=True)
    (box.state / "completion" / "events").write_text("/nowhere\n\nrelative\n")
    assert ASK[shell](box, "orchctl run ") == []
    assert ASK[shell](box, "orchctl runs show ") == []


def test_the_cache_that_orchctl_writes_is_what_is_read(box: Box, shell: str) -> None:
    steps = [SimpleNamespace(name="rates.score", publish=True), SimpleNamespace(name="health.checks", publish=None)]
    jobs = {"nightly-eval": SimpleNamespace(data_root="/srv/data", steps=steps)}
    catalog = SimpleNamespace(jobs=jobs, contracts={})
    write_cache(box.state, catalog)  # type: ignore[arg-type]
    assert ASK[shell](box, "orchctl run ") == ["nightly-eval"]
    assert ASK[shell](box, "orchctl publish show ") == ["rates.score"]


@pytest.mark.parametrize(
    "prelude",
    [
        "set -eu",
        "set -f; set -o posix",
        "shopt -s nullglob extglob",
        "shopt -s failglob dotglob",
        "shopt -s nocasematch; IFS=-",
        "set -o pipefail; set -Eeu; trap 'echo trapped >&2' ERR",
    ],
)
def test_bash_options_change_nothing(box: Box, prelude: str) -> None:
    box.events("data", today(), event(run_id(today(), "050000Z-3f9a1c")))
    before = "kept=$(set +o; shopt)"
    same = f"{prelude}; {before}; trap '[[ $kept == \"$(set +o; shopt)\" ]] || echo options changed >&2' EXIT"
    assert in_bash(box, "orchctl run li", prelude=same) == JOBS
    assert in_bash(box, "orchctl runs show ", prelude=same) == [run_id(today(), "050000Z-3f9a1c")]
    assert in_bash(box, "orchctl runs --status=fa", prelude=same) == ["--status=failed"]
    assert "--help" in in_bash(box, "orchctl check ", prelude=same)


def test_zsh_options_change_nothing(box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = Zsh(folder, "setopt noglob nullglob nounset ksharrays shwordsplit globsubst noclobber\n")
    try:
        assert odd.ask(box, "orchctl run li") == JOBS
        assert odd.ask(box, "orchctl runs --status=fa") == ["--status=failed"]
    finally:
        odd.child.close(force=True)


@pytest.mark.parametrize("breaks", [" ", " =", " :"])
def test_bash_without_its_usual_word_breaks(box: Box, breaks: str) -> None:
    line = "orchctl runs --status=fa"
    words = line.split() if "=" not in breaks else words_of(line)
    assert in_bash(box, line, words=words) == ["failed" if "=" in breaks else "--status=failed"]


def test_bash_completes_the_word_before_the_cursor(box: Box) -> None:
    assert in_bash(box, "orchctl run livX --wait", prelude="COMP_POINT=14 COMP_CWORD=2") == JOBS
    assert in_bash(box, 'orchctl run "li', words=["orchctl", "run", '"li']) == JOBS


def test_names_need_no_process_and_no_orchctl(box: Box) -> None:
    offered, started = traced(box, "clone,clone3,fork,vfork,execve", "orchctl", "run", "li", PATH="/nowhere")
    assert offered == JOBS
    assert len(started) == 1, started
    assert "/bin/bash" in started[0]


def test_runs_need_one_process(box: Box) -> None:
    for name, run in (("data", "050000Z-3f9a1c"), ("more", "050000Z-3f9a1d")):
        box.events(name, today(), event(run_id(today(), run)))
    offered, started = traced(box, "clone,clone3,fork,vfork", "orchctl", "runs", "show", "")
    assert len(offered) == 2
    assert len(started) == 1, started


def test_runs_without_grep_are_none_and_silent(box: Box) -> None:
    box.events("data", today(), event(run_id(today(), "050000Z-3f9a1c")))
    assert in_bash(box, "orchctl runs show ", PATH="/nowhere") == []


# ----------------------------------------------------------------------------------------- as an operator presses Tab


def test_tab_in_a_terminal(box: Box, terminal: Terminal) -> None:
    assert terminal.run("orchctl pl\tnight\t--pru\t") == "<plan><nightly-eval><--prune>"
    assert terminal.run("orchctl runs --status=fa\t") == "<runs><--status=failed>"
    midnight = f"{today():%Y-%m-%d}T00:00:00Z"
    assert terminal.run(f"orchctl run --as-of {midnight[:-4]}\t") == f"<run><--as-of><{midnight}>"


def test_tab_completes_folders(box: Box, terminal: Terminal) -> None:
    (box.home / "a folder $x").mkdir()
    (box.home / "a file").touch()
    assert terminal.run("orchctl --config a\tx") == "<--config><a folder $x/x>"
    assert terminal.run("orchctl --config=a\tx") == "<--config=a folder $x/x>"


def test_tab_never_puts_a_command_on_the_line(box: Box, terminal: Terminal) -> None:
    box.jobs("$(touch ran)\n`touch ran`\nlive-score\n")
    assert terminal.run("orchctl run \t") == "<run><live-score>"
    assert not (box.home / "ran").exists()


def test_bash_lives_on_with_odd_options_and_word_breaks(box: Box) -> None:
    (box.home / "a folder").mkdir()
    with opened(box, "bash") as bash:
        bash.child.send("set -eu -o noglob; shopt -s failglob; COMP_WORDBREAKS=${COMP_WORDBREAKS//[=:]/}\r")
        assert bash.run("orchctl run live-sco\t") == "<run><live-score>"
        assert bash.run("orchctl runs --status=fa\t") == "<runs><--status=failed>"
        assert bash.run("orchctl --config=a\tx") == "<--config=a folder/x>"
        assert bash.run("orchctl nonsense x\t") == "<nonsense><x>"


def test_bash_keeps_the_clock_of_the_shell(box: Box) -> None:
    prelude = "printf -v before '%(%H %Z)T' 0; trap 'printf \"%(%H %Z)T|$before\" 0 >clock' EXIT"
    in_bash(box, "orchctl run --as-of ", prelude=prelude, TZ="Pacific/Kiritimati")
    after, before = (box.home / "clock").read_text().split("|")
    assert after == before
