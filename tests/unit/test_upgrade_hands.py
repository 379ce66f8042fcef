"""What an upgrade does to its own process: it goes on elsewhere, whoever listens and whatever signal comes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchctl.adapters import environments, upgrade_hands
from orchctl.adapters.upgrade_hands import SIGNALS, UpgradeHands
from orchctl.cli import host_upgrade
from orchctl.core.installation import Installation
from orchctl.errors import Locked, OrchctlError, StateBroken
from support import sigint_as_usual

HANDS = """
import os, signal, sys
from orchctl.adapters.upgrade_hands import UpgradeHands
hands = UpgradeHands(None, None, None, options=(), shown=(), variables=dict(os.environ), owner=None)
"""
GOES_ON = f"""{HANDS}
print("buffered")
hands.go_on(sys.argv[1])
"""
CANNOT = f"""{HANDS}
try:
    hands.go_on(sys.argv[1])
except Exception as error:
    print(error)
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
TWICE = """
import os, signal
from orchctl.wiring.upgrade import ended_as_by_ctrl_c
with ended_as_by_ctrl_c():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), each)
        print("put back")
"""
MEANWHILE = """
import os, signal
from orchctl.adapters.upgrade_hands import SIGNALS, UpgradeHands
from orchctl.wiring.upgrade import ended_as_by_ctrl_c
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
os.kill(os.getpid(), signal.SIGTERM)
with ended_as_by_ctrl_c():
    print("goes on")
    try:
        UpgradeHands.heed_signals()
    except KeyboardInterrupt:
        print("put back")
"""
IGNORING = """
import os, signal, sys
from orchctl.adapters.upgrade_hands import UpgradeHands
UpgradeHands.ignore_signals()
os.execv(sys.executable, [sys.executable, "-c", '''
import os, signal
from orchctl.wiring.upgrade import ended_as_by_ctrl_c
with ended_as_by_ctrl_c():
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), each)
    print("put back")
'''])
"""


def run(code: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], text=True, check=False, **more)


def environment(folder: Path, script: str, by: str = "/bin/sh") -> str:
    """Make an environment whose interpreter does this."""
    python = folder / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{by}\n{script}\n")
    python.chmod(0o755)
    return str(folder)


def test_it_goes_on_where_nobody_listens_any_more(tmp_path: Path) -> None:
    place = environment(tmp_path / "venv", f"echo yes > '{tmp_path}/came'")
    reader, writer = os.pipe()
    os.close(reader)
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    try:
        run(GOES_ON, place, stdout=writer, stderr=writer, env=variables)
    finally:
        os.close(writer)
    assert (tmp_path / "came").read_text() == "yes\n"


def test_a_signal_on_the_way_waits_until_somebody_heeds_it(tmp_path: Path) -> None:
    place = environment(
        tmp_path / "venv", "import signal\nprint(sorted(signal.pthread_sigmask(0, ())))", sys.executable
    )
    assert run(GOES_ON, place, capture_output=True).stdout == f"buffered\n{sorted(SIGNALS)}\n"
    assert run(MEANWHILE, capture_output=True).stdout == "goes on\nput back\n"


def test_what_cannot_be_started_leaves_signals_as_they_were(tmp_path: Path) -> None:
    said = run(CANNOT, str(tmp_path / "none"), capture_output=True).stdout
    assert "cannot be started" in said
    assert said.endswith("\nset()\n")


@pytest.mark.parametrize("code", [TWICE, IGNORING])
def test_only_the_first_signal_counts(code: str) -> None:
    found = run(code, capture_output=True)
    assert (found.stdout, found.returncode) == ("put back\n", 0)


def installation(user: str, home: Path) -> Installation:
    return Installation(
        scope="system",
        user=user,
        api_url="http://127.0.0.1:4200/api",
        python="/opt/venv/bin/python",
        config_dir="/srv/config",
        state_dir=str(home),
        home=str(home),
        settings=f"{home}/env",
        units=(),
        pools={"local": 1},
    )


def hands(its: Installation, owner: int | None) -> UpgradeHands:
    variables = dict(os.environ)
    return UpgradeHands(its, None, None, options=(), shown=(), variables=variables, owner=owner)  # type: ignore[arg-type]


def test_a_record_in_another_user_s_folder_does_not_make_root_run_anything(tmp_path: Path) -> None:
    its = installation("root", tmp_path)
    with pytest.raises(StateBroken, match="runs as root"):
        hands(its, 1234)
    with pytest.raises(StateBroken, match="runs as nobody-here"):
        hands(replace(its, user="nobody-here"), 1234)
    hands(its, 0)
    hands(its, None)


def test_the_tables_are_changed_by_nothing_that_lies_in_the_database_s_folder(tmp_path: Path) -> None:
    (tmp_path / "env").touch(0o600)
    place = environment(tmp_path / "venv", f'echo "$@" > "{tmp_path}/words"')
    hands(installation("root", tmp_path), None).migrate(place, print)
    assert (tmp_path / "words").read_text() == "-P -m prefect server database upgrade -y\n"


def test_tables_that_do_not_come_to_be_changed_are_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").touch(0o600)
    # As psql's session: only who is told to end, and not killed, ends what it has begun elsewhere.
    begins = f"trap 'echo told > {tmp_path}/end; exit 130' INT\necho waiting for a lock\necho $$ > {tmp_path}/pid"
    place = environment(tmp_path / "venv", f"{begins}\nwhile :; do sleep 0.1; done")
    monkeypatch.setattr(upgrade_hands, "MIGRATION_PATIENCE_S", 1.0)
    monkeypatch.setattr(environments, "TELL_EACH_S", 0.2)
    said: list[str] = []
    # What is begun in the background ignores it, and all that it begins.
    with sigint_as_usual(), pytest.raises(OrchctlError, match=r"took more than 1\.0s: waiting for a lock") as caught:
        hands(installation("root", tmp_path), None).migrate(place, said.append)
    assert "PostgreSQL" in str(caught.value.hint)
    assert said
    assert all(each.startswith("still changing the database's tables, after ") for each in said)
    assert (tmp_path / "end").read_text() == "told\n"
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_what_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").touch(0o600)
    place = environment(tmp_path / "venv", f"trap '' INT\necho $$ > {tmp_path}/pid\nwhile :; do sleep 0.1; done")
    monkeypatch.setattr(upgrade_hands, "MIGRATION_PATIENCE_S", 1.0)
    monkeypatch.setattr(environments, "END_PATIENCE_S", 0.5)
    with pytest.raises(OrchctlError, match="it said nothing"):
        hands(installation("root", tmp_path), None).migrate(place, print)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_trial_for_which_a_backup_has_to_be_waited_for_has_not_failed(tmp_path: Path) -> None:
    place = environment(tmp_path / "venv", "echo at work >&2\nexit 11")
    with pytest.raises(Locked, match="a backup is at work on this host, or the trial of one"):
        hands(installation("root", tmp_path), None).try_archive(place, "/b/a.tar.gz")


def test_what_an_archive_is_tried_with_is_told_that_it_is_on_trial(tmp_path: Path) -> None:
    place = environment(tmp_path / "venv", f'echo "$@" $ORCHCTL_UPGRADE_TRIES > "{tmp_path}/words"')
    hands(installation("root", tmp_path), None).try_archive(place, "/b/a.tar.gz")
    assert (tmp_path / "words").read_text() == "-P -m orchctl host verify /b/a.tar.gz 1\n"


def test_a_requirement_that_is_a_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "lib-1.0.whl").touch()
    monkeypatch.chdir(tmp_path)
    words = ["./prefect/", "./prefect[extra]", "lib-1.0.whl", "prefect", "prefect==3.9", "git+https://x.org/lib.git"]
    assert [host_upgrade.placed(word) for word in words] == [
        f"{tmp_path}/prefect",
        f"{tmp_path}/prefect[extra]",
        f"{tmp_path}/lib-1.0.whl",
        *words[3:],
    ]
