"""Facts of files that nobody of ours wrote: commits, outputs, processes."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchctl.adapters import host_facts

DATA = "/data"


def git(folder: Path, *words: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    env |= {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(["git", *words], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


def test_the_commit_of_a_branch(repository: Path) -> None:
    assert host_facts.git_sha(str(repository)) == git(repository, "rev-parse", "HEAD")


def test_the_commit_from_a_folder_below(repository: Path) -> None:
    below = repository / "a" / "b"
    below.mkdir(parents=True)
    assert host_facts.git_sha(str(below)) == git(repository, "rev-parse", "HEAD")


def test_the_commit_in_packed_refs(repository: Path) -> None:
    git(repository, "branch", "not-main")
    git(repository, "commit", "-q", "--allow-empty", "-m", "two")
    git(repository, "tag", "-a", "v1", "-m", "v1")
    git(repository, "pack-refs", "--all")
    assert not (repository / ".git/refs/heads/main").exists()
    assert host_facts.git_sha(str(repository)) == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_of_a_work_tree(repository: Path, packed: bool) -> None:
    tree = repository.parent / "tree"
    git(repository, "worktree", "add", "-q", "-b", "other", str(tree))
    git(tree, "commit", "-q", "--allow-empty", "-m", "two")
    if packed:
        git(repository, "pack-refs", "--all")
    assert host_facts.git_sha(str(tree)) == git(tree, "rev-parse", "HEAD") != git(repository, "rev-parse", "HEAD")


def test_a_detached_head(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    assert host_facts.git_sha(str(repository)) == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "head", ["", "ref: refs/heads/none", "ref: ../../x", "not a sha", "\xff", "ref: refs/heads/\0", "ref:"]
)
def test_no_commit(tmp_path: Path, head: str) -> None:
    assert host_facts.git_sha(str(tmp_path / "nowhere")) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text(head, encoding="latin-1")
    (tmp_path / ".git/packed-refs").write_text("none refs/heads/none\n")
    assert host_facts.git_sha(str(tmp_path)) is None


# --- outputs


def found(*declared: str, root: Path, unseen: list[OSError] | None = None, **values: str) -> list[tuple[str, int, int]]:
    """Look at outputs; what may not be looked at is noted in `unseen`, None: there must be none."""
    noted: list[OSError] = [] if unseen is None else unseen
    given = {"data_root": str(root), **values}
    outputs = host_facts.find_outputs(declared, given, str(root), unreadable=noted.append)
    assert unseen is not None or not noted
    return [(output["name"], output["file_count"], output["size_bytes"]) for output in outputs]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in (("a/x", "1"), ("a/b/y", "22"), ("a/b/.z", "333"), ("[1]/x", "4444"), ("file", "55555")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_files_folders_and_what_is_not_there(root: Path) -> None:
    assert found("{data_root}/file", "{data_root}/a", "{data_root}/none", root=root) == [
        ("file", 1, 5),
        ("a", 3, 6),
        ("none", 0, 0),
    ]


@pytest.mark.parametrize("pattern", ["a/**", "a/*", "*/**/*", "a/**/**", "a*"])
def test_a_pattern_counts_each_file_once(root: Path, pattern: str) -> None:
    ((_, count, size),) = found(f"{{data_root}}/{pattern}", root=root)
    assert (count, size) in {(3, 6), (4, 10)}


def test_a_value_is_no_pattern(root: Path) -> None:
    assert found("{data_root}/{slot}", root=root, slot="[1]") == [("[1]", 1, 4)]
    assert found("{data_root}/{slot}", root=root, slot="*") == [("*", 0, 0)]


def test_links_and_odd_times(root: Path) -> None:
    (root / "a/loop").symlink_to(root / "a")
    (root / "a/nowhere").symlink_to(root / "none")
    os.utime(root / "a/x", (0, 2**40))
    assert found("{data_root}/a", root=root)[0][1] >= 3
    assert found(str(root / "a/x"), root=root) == [("a/x", 1, 1)]


def test_a_folder_that_may_not_be_entered(root: Path) -> None:
    (root / "a/b").chmod(0)
    unseen: list[OSError] = []
    try:
        counted = found("{data_root}/a", root=root, unseen=unseen)[0][1]
        assert (counted, len(unseen)) in {(1, 1), (3, 0)}  # root may
    finally:
        (root / "a/b").chmod(0o755)


@pytest.mark.parametrize("declared", ["a", "a/*", "a/loop/x", "a/loop/**"])
def test_what_may_not_be_looked_at_is_told(root: Path, declared: str) -> None:
    (root / "a/loop").symlink_to("loop")  # not even root can follow it
    unseen: list[OSError] = []
    found(f"{{data_root}}/{declared}", root=root, unseen=unseen)
    assert {error.errno for error in unseen} == {errno.ELOOP}


# --- processes


def test_where_a_process_lives() -> None:
    here = host_facts.here()
    assert not host_facts.is_gone(here)
    assert host_facts.is_gone(replace(here, pid_started=here.pid_started + 1)), "the pid was given to another"
    assert host_facts.is_gone(replace(here, boot_id="another boot"))
    assert host_facts.is_gone(replace(here, pid=2**22 + 1))
    assert not host_facts.is_gone(replace(here, hostname="elsewhere", pid=2**22 + 1))


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen(["true"])
    started = host_facts.started_ticks(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert host_facts.started_ticks(child.pid) is None
    child.wait()
    assert started is None or started > 0


def test_a_name_with_parentheses(tmp_path: Path) -> None:
    script = tmp_path / "a) R (b"
    script.write_text("#!/bin/sh\nread x\n")
    script.chmod(0o755)
    with subprocess.Popen([str(script)], stdin=subprocess.PIPE) as child:
        assert host_facts.started_ticks(child.pid) is not None
        child.communicate(b"\n")
