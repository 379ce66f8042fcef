"""The process that checks contracts: what it answers, and what becomes of one that does not."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import eventually
from contract_data import AS_OF, good, write
from orchctl.adapters import contract_process
from orchctl.adapters.accounts import Account
from orchctl.core.contracts import Boundary, Checked, ContractTable
from orchctl.errors import ContractsUnavailable, OrchctlError
from orchctl.runner import contracts

SCHEMAS = """
import pandera.polars as pa
import polars as pl

print("a pipeline prints what it likes: {}", flush=True)


class Rates(pa.DataFrameModel):
    player_id: int = pa.Field(ge=2, unique=True)
    p50: float = pa.Field(lt=48)
    team: str
    season_fg2_pct: float
    game_id: int

    class Config:
        strict = True
        unique = [["player_id", "team"], ["team"]]

    @pa.check("team")
    def known(cls, data):
        return data.lazyframe.select(pl.col(data.key) != "LAL")

    @pa.check("p50")
    def oops(cls, data):
        raise RuntimeError("oops")

    @pa.dataframe_check
    def played(cls, data):
        return data.lazyframe.select(pl.col("games") > 1)

    @pa.dataframe_check
    def whole(cls, data):
        return False


class Good(pa.DataFrameModel):
    player_id: int = pa.Field(ge=1, unique=True)
    team: str = pa.Field(isin=["BOS", "NYK", "LAL"])


class Coerced(pa.DataFrameModel):
    team: float = pa.Field(coerce=True)
    game_id: float = pa.Field(coerce=True)


class Other:
    pass
"""


def ask(root: Path, *tables: dict[str, object], timeout_s: float = 60, **options: object) -> tuple[Checked, ...]:
    boundaries = [
        Boundary(f"c{number}", ContractTable.model_validate(table), root, "*.parquet", AS_OF)
        for number, table in enumerate(tables)
    ]
    return contracts.check(
        boundaries,
        cwd=str(root),
        env=dict(os.environ),
        timeout_s=timeout_s,
        **options,  # type: ignore[arg-type]
    )


def said(found: Checked) -> list[str]:
    return [finding.message for finding in found.findings]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(good(), tmp_path / "table.parquet")
    (tmp_path / "shapes.py").write_text(SCHEMAS)
    return tmp_path


def test_each_boundary_is_answered_in_the_order_asked(root: Path) -> None:
    found = ask(root, {"columns": {"team": {}}}, {"columns": {"x": {}}}, {"rows": {"min": 6}})
    assert [(each.contract, each.file, each.rows, said(each)) for each in found] == [
        ("c0", "table.parquet", 5, []),
        ("c1", "table.parquet", 5, ["missing column x"]),
        ("c2", "table.parquet", 5, ["5 rows, at least 6"]),
    ]


def test_nothing_asked_starts_nothing(tmp_path: Path) -> None:
    assert contracts.check((), cwd=str(tmp_path / "not there"), env={}, timeout_s=0) == ()


def test_a_schema_class_is_checked_by_pandera_and_said_in_our_words(root: Path) -> None:
    broken, holds, coerced = ask(
        root,
        {"schema": "shapes:Rates", "rows": {"min": 6}},
        {"schema": "shapes:Good"},
        {"schema": "shapes:Coerced"},
    )
    assert said(broken) == [
        "missing column season_fg2_pct",
        "1 of 5 rows has player_id < 2",
        "1 of 5 rows has p50 >= 48",
        'oops ended in an error in p50: RuntimeError("oops")',
        "1 of 5 rows breaks known in team",
        "game_id is int32, not int64",
        "1 of 5 rows breaks played",
        "whole does not hold",
        "extra column position",
        "extra column share",
        "extra column games",
        "extra column salary",
        "extra column active",
        "extra column game_date",
        "extra column updated_at",
        "extra column local_at",
        "extra column rest",
        "4 rows share team",
        "5 rows, at least 6",
    ]
    assert said(holds) == []
    assert said(coerced) == ['5 of 5 rows have a value of team that is no float64, such as "BOS"']


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing:Rates", "ModuleNotFoundError: No module named 'nothing'"),
        ("shapes:Nothing", "AttributeError: module 'shapes' has no attribute 'Nothing'"),
        ("shapes:Other", "TypeError: Other is no pandera.polars.DataFrameModel"),
        ("leaves:Rates", "SystemExit: 3"),
        ("wrong:Rates", "SyntaxError: invalid syntax (wrong.py, line 1)"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_finding(name: str, reason: str, root: Path) -> None:
    (root / "leaves.py").write_text("raise SystemExit(3)\n")
    (root / "wrong.py").write_text("if\n")
    (found,) = ask(root, {"schema": name})
    assert said(found) == [f"the schema {name} cannot be used: {reason}"]
    assert found.rows == 5


def test_modules_of_the_pipeline_take_the_place_of_none_of_ours(root: Path) -> None:
    for name in ("polars", "pandera", "json", "pydantic", "orchctl"):
        (root / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    env = {**os.environ, "PYTHONPATH": str(root)}
    table = ContractTable.model_validate({"schema": "shapes:Good"})
    boundary = Boundary("c", table, root, "*.parquet", AS_OF)
    (found,) = contracts.check([boundary], cwd=str(root), env=env, timeout_s=60)
    assert said(found) == []


def test_a_module_is_found_from_pythonpath_too(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    library = tmp_path_factory.mktemp("library")
    (root / "shapes.py").rename(library / "shapes.py")
    table = ContractTable.model_validate({"schema": "shapes:Good"})
    boundary = Boundary("c", table, root, "*.parquet", AS_OF)
    env = {**os.environ, "PYTHONPATH": f"/nowhere:{library}"}
    (found,) = contracts.check([boundary], cwd=str(root), env=env, timeout_s=60)
    assert said(found) == []


# ------------------------------------------------------------------------------------------------ no answer


SLEEPS = """
import os, subprocess, sys
from pathlib import Path
child = subprocess.Popen(["sleep", "77.25"])
Path("new").write_text(f"{os.getpid()} {child.pid}")
Path("new").rename("pids")
child.wait()
"""


def pids(root: Path) -> list[int]:
    return [int(pid) for pid in (root / "pids").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX"
    except OSError:
        return True


def test_a_check_that_takes_too_long_is_killed_with_its_children(root: Path) -> None:
    (root / "sleeps.py").write_text(SLEEPS)
    with pytest.raises(OrchctlError, match="took more than 5 s, and was stopped"):
        ask(root, {"schema": "sleeps:Rates"}, timeout_s=5)
    if (root / "pids").exists():  # else the machine was too busy for it to come that far
        assert eventually(lambda: all(map(is_gone, pids(root))))


def test_a_check_that_is_stopped_is_killed_with_its_children(root: Path) -> None:
    (root / "sleeps.py").write_text(SLEEPS)
    stop = threading.Event()

    def stop_it() -> None:
        eventually((root / "pids").exists, 60)
        stop.set()

    began = threading.Thread(target=stop_it)
    began.start()
    with pytest.raises(OrchctlError, match="the contract check was stopped"):
        ask(root, {"schema": "sleeps:Rates"}, timeout_s=120, stop=stop)
    began.join()
    assert eventually(lambda: all(map(is_gone, pids(root))))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os._exit(7)", "the contract check ended with exit code 7"),
        ("import os; os.write(1, b'[]'); os._exit(0)", "the contract check ended with exit code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the contract check was killed by SIGKILL"),
        ("import os, sys; print('why', file=sys.stderr, flush=True); os._exit(9)", "exit code 9: why"),
    ],
)
def test_a_crash_is_an_error_and_no_finding(code: str, message: str, root: Path) -> None:
    (root / "crashes.py").write_text(code)
    with pytest.raises(OrchctlError, match=message):
        ask(root, {"schema": "crashes:Rates"})


def test_a_working_directory_that_is_not_there_is_said(root: Path) -> None:
    boundary = Boundary("c", ContractTable(), root, "*", AS_OF)
    with pytest.raises(OrchctlError, match="could not be started: there is no directory /nowhere"):
        contracts.check([boundary], cwd="/nowhere", env={}, timeout_s=5)


def test_without_polars_the_hint_says_what_to_install() -> None:
    blocked = "import sys; sys.modules['polars'] = None; from orchctl.adapters.contract_check import main; main()"
    done = subprocess.run([sys.executable, "-c", blocked], input=b"{}", capture_output=True, check=True)
    assert json.loads(done.stdout) == {"unavailable": "polars cannot be imported"}
    with pytest.raises(ContractsUnavailable, match="polars cannot be imported") as raised:
        contract_process._read(0, done.stdout, b"")
    assert raised.value.hint == "install what checks them: pip install 'orchctl[contracts]'"


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="orchctl-test-"))
    folder.chmod(0o755)
    write(good(), folder / "table.parquet")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_runs_as_the_user_of_the_job(open_root: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid,), "/nonexistent", "/bin/sh")
    (open_root / "who.py").write_text(
        "import os\nraise OSError(f'{os.getresuid()} {os.getresgid()} {os.getgroups()}')\n"
    )
    (open_root / "secret.parquet").write_bytes((open_root / "table.parquet").read_bytes())
    (open_root / "secret.parquet").chmod(0o600)
    secret, found = ask(open_root, {"schema": "who:Rates"}, account=account)
    ids = f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} [{nobody.pw_gid}]"
    assert said(found) == [f"the schema who:Rates cannot be used: OSError: {ids}"]
    assert said(secret) == ["the file cannot be read: Permission denied"]


def test_the_environment_of_the_job_is_there_only_once_it_is_that_user(root: Path) -> None:
    (root / "env.py").write_text(
        "import os\nfrom pathlib import Path\n"
        'raise OSError(f\'{sorted(os.environ)} {"LATE" in Path("/proc/self/environ").read_text()}\')\n'
    )
    table = ContractTable.model_validate({"schema": "env:Rates"})
    boundary = Boundary("c", table, root, "*.parquet", AS_OF)
    (found,) = contracts.check([boundary], cwd=str(root), env={"LATE": "1"}, timeout_s=60)
    assert said(found) == ["the schema env:Rates cannot be used: OSError: ['LATE'] False"]
