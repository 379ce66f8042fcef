"""Backups of a server on PostgreSQL: while runs are written, tried, and put back."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import backup_load
import postgres
from orchctl.adapters.installed import Installed
from orchctl.adapters.local_stack import SERVER, LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.core.installation import Installation
from support import STRESS, Project, answers, clean_env, eventually

AUTH = "admin:planted-auth"

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(postgres.missing()) or os.geteuid() != 0, reason="needs root and PostgreSQL's programs"),
]


class Installs:
    """A server on a database of a cluster, recorded as an installation."""

    def __init__(self, root: Path, cluster: postgres.Cluster) -> None:
        self.cluster, self.place = cluster, cluster.make("prefect")
        self.project = Project(root, "")
        self.project.jobs["hello"] = {"command": ["/bin/true"]}
        self.project.write()
        self.stack = LocalStack(root / "server", {**clean_env(), "PREFECT_SERVER_API_AUTH_STRING": AUTH})
        self.api_url = ""

    def start(self) -> None:
        self.api_url = self.stack.start_server(0, database=self.place.url)
        settings = self.project.root / "settings.env"
        # systemd's form: a quoted value, in which the percent signs of a URL are plain.
        settings.write_text(
            f'PREFECT_API_DATABASE_CONNECTION_URL="{self.place.url}"\nPREFECT_API_AUTH_STRING="{AUTH}"\n'
        )
        settings.chmod(0o600)
        record = Installation(
            scope="system",
            user="root",
            api_url=self.api_url,
            python="/usr/bin/python3",
            config_dir=str(self.project.root / "config"),
            state_dir=str(self.project.state_dir),
            home=str(self.project.root / "server" / "prefect"),
            settings=str(settings),
            units=(),
            pools={},
        )
        Installed(self.project.state_dir).write(record)
        eventually(lambda: answers(self.api_url, AUTH), within=90)

    def flow_runs(self) -> int:
        with PrefectApi(url=self.api_url, auth_string=AUTH) as api:
            return int(api.request("POST", "/flow_runs/count", {}))

    def stop(self) -> None:
        self.stack.stop(SERVER, patience_s=20)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Installs]:
    with postgres.cluster() as cluster:
        made = Installs(tmp_path, cluster)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def connected(host: Installs) -> Iterator[None]:
    """Be connected to the database."""
    place, pipe = host.place, subprocess.PIPE
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": place.password or ""}
    words = ["--host", place.host, "--port", str(place.port), "--username", place.user, "--dbname", place.name]
    with subprocess.Popen(["psql", "-qtA", *words], env=environment, stdin=pipe, stdout=pipe, text=True) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        psql.stdin.write("SELECT 1;\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "1\n"
        yield


def test_backups_while_runs_are_written_are_whole_and_one_is_put_back(host: Installs) -> None:
    project, made = host.project, list[dict[str, object]]()
    with backup_load.flow_runs(host.api_url, AUTH) as load:
        for _ in range(10 if STRESS else 2):
            eventually(lambda: load.made > len(made))
            before = load.made
            done = project.orchctl("host", "backup", "--json", "--to", str(project.root / "b"), timeout=300)
            assert "planted" not in done.stdout + done.stderr
            made.append(project.json("host", "verify") if STRESS else {})
            newest = sorted((project.root / "b").glob("*.tar.gz"))[-1]
            assert host.flow_runs() >= before
    found = project.json("host", "verify", str(newest))
    assert found["database"] == "postgresql"
    assert found["found"] == found["counts"]
    assert "orchctl" not in host.cluster.psql("SELECT datname FROM pg_database")
    then, now = found["counts"]["flow_runs"], host.flow_runs()
    assert then < now
    refused = project.orchctl("host", "restore", str(newest), "--yes", check=5)
    assert "a server answers at" in refused.stderr
    host.stop()
    with connected(host):
        refused = project.orchctl("host", "restore", str(newest), "--yes", check=5)
    assert "has the database open" in refused.stderr
    restored = project.json("host", "restore", str(newest), "--yes")
    assert "planted" not in str(restored)
    names = host.cluster.psql("SELECT datname FROM pg_database").splitlines()
    (aside,) = [name for name in names if name.startswith("prefect_before_")]
    assert int(host.cluster.psql("SELECT count(*) FROM flow_run", database=aside)) >= now
    host.start()
    assert host.flow_runs() == then
    with backup_load.flow_runs(host.api_url, AUTH) as load:
        eventually(lambda: load.made > 3)
