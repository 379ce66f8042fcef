"""Environments that are real, with packages that are made here: what pip is asked for, and what changes places."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchctl.adapters import environments
from orchctl.adapters.environments import Environments
from orchctl.core.upgrade import Change, Wanted
from orchctl.errors import GateRefused, OrchctlError

STAMP = "20260101T000000Z"
MIGRATIONS = "prefect/server/database/_migrations/versions"


def wheel(folder: Path, name: str, version: str, files: dict[str, str], needs: str = "", entry: str = "") -> None:
    """Make a package. `needs` is what it requires, `entry` a console script."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        **files,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{entry}\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in files)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        for path, text in files.items():
            made.writestr(path, text)


def prefect(folder: Path, version: str, migrations: int, needs: str) -> None:
    files = {f"{MIGRATIONS}/sqlite/{number}.py": "" for number in range(migrations)}
    source = {"prefect/__init__.py": f"def main():\n    print('{version}')\n", f"{MIGRATIONS}/sqlite/README.md": ""}
    wheel(folder, "prefect", version, {**source, **files}, needs, "prefect = prefect:main")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages: Prefect 3.1 to 3.3, and a library that the last two need newer."""
    folder = tmp_path_factory.mktemp("shelf")
    prefect(folder, "3.1", 1, "lib>=1")
    prefect(folder, "3.2", 3, "lib>=2")
    prefect(folder, "3.3", 3, "lib>=3")
    for version in ("1.0", "2.0", "3.0"):
        wheel(folder, "lib", version, {"lib.py": ""})
    wheel(folder, "other", "1.0", {"other.py": ""}, "lib<2")
    return folder


@pytest.fixture(scope="module")
def variables(shelf: Path) -> dict[str, str]:
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf), "PIP_CONFIG_FILE": os.devnull}
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **pip}


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> str:
    folder = tmp_path_factory.mktemp("of a user") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    words = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "prefect==3.1", "lib==1.0"]
    subprocess.run(words, check=True, env=variables)
    return str(folder)


def wanted(version: str | None = None, **bounds: str) -> Wanted:
    return Wanted(version, (), None, bounds)


def said_by(environment: str) -> str:
    return subprocess.run([f"{environment}/bin/prefect"], capture_output=True, text=True, check=True).stdout.strip()


def test_what_pip_would_do_is_known_before(venv: str, variables: dict[str, str]) -> None:
    made = Environments(variables)
    assert made.of(f"{venv}/bin/python") == venv
    newest = made.resolve(venv, wanted())
    assert newest == (Change("lib", "1.0", "3.0"), Change("prefect", "3.1", "3.3"))
    assert made.resolve(venv, wanted(prefect=">=3.1,<3.3")) == (
        Change("lib", "1.0", "3.0"),
        Change("prefect", "3.1", "3.2"),
    )
    assert made.resolve(venv, wanted("3.1")) == ()
    assert made.migrations(venv, "3.3", "sqlite") == 2
    assert made.migrations(venv, "3.1", "sqlite") == 0
    assert said_by(venv) == "3.1"


def test_what_cannot_be_had_is_told_in_pip_s_words(venv: str, variables: dict[str, str]) -> None:
    with pytest.raises(OrchctlError, match=r"pip install failed: (.|\n)*No matching distribution"):
        Environments(variables).resolve(venv, wanted("9.9"))
    with pytest.raises(OrchctlError, match=r"pip install failed: (.|\n)*lib"):
        Environments(variables).resolve(venv, wanted("3.3", lib="<2"))


def test_the_new_one_takes_the_place_of_the_old_one_and_back(venv: str, variables: dict[str, str]) -> None:
    made, aside = Environments(variables), f"{venv}.before-{STAMP}"
    made.copy(venv, aside)
    made.install(aside, venv, wanted("3.3"))
    made.mark(aside, STAMP)
    assert made.new_migrations(venv, aside, "sqlite") == 2
    assert (made.marked(venv, STAMP), made.marked(aside, STAMP), made.marked(aside, "x")) == (False, True, False)
    assert made.asides(venv) == (aside,)
    made.exchange(venv, aside)
    # Scripts name the place that the new one has now, and are as they were otherwise.
    assert Path(f"{venv}/bin/prefect").read_text().startswith(f"#!{venv}/bin/python") or " " in venv
    assert aside not in Path(f"{venv}/bin/prefect").read_text()
    assert os.access(f"{venv}/bin/prefect", os.X_OK)
    assert said_by(venv) == "3.3"
    assert made.marked(venv, STAMP)
    made.exchange(venv, aside)
    assert said_by(venv) == "3.1"
    made.remove(aside)
    made.remove(aside)
    assert made.asides(venv) == ()


def test_what_does_not_fit_together_is_seen(venv: str, variables: dict[str, str]) -> None:
    made, aside = Environments(variables), f"{venv}.before-20260101T000001Z"
    made.copy(venv, aside)
    try:
        with pytest.raises(OrchctlError, match="is in the way"):
            made.copy(venv, aside)
        words = [f"{aside}/bin/python", "-m", "pip", "install", "-q", "other==1.0"]
        subprocess.run(words, check=True, env=variables)
        assert made.complaints(aside) == ()
        made.install(aside, venv, wanted("3.2"))
        (line,) = made.complaints(aside)
        assert "other 1.0" in line
    finally:
        made.remove(aside)


def test_what_is_no_environment_of_its_own_is_refused(tmp_path: Path, venv: str, variables: dict[str, str]) -> None:
    made = Environments(variables)
    with pytest.raises(GateRefused, match="is not in a virtual environment"):
        made.of("/usr/bin/python3")
    (tmp_path / "link").symlink_to(venv)
    with pytest.raises(GateRefused, match="symbolic link"):
        made.of(str(tmp_path / "link/bin/python"))
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(GateRefused, match="there is no pip") as caught:
        made.of(str(bare / "bin/python"))
    assert "ensurepip" in str(caught.value.hint)


def test_a_program_that_is_interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    import signal

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            environments.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 600"], dict(os.environ), account=None)
    finally:
        signal.signal(signal.SIGALRM, before)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
