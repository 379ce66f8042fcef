"""A real Prefect server and worker, one of each for the test session, on free ports of 127.0.0.1."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.prefect_api import PrefectApi
from orchctl.services import stack
from support import POOL, Live, Project, clean_env, clock


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Server and worker of the pool `tests`, up by effect; stopped by pid at the end."""
    state_dir = tmp_path_factory.mktemp("stack")
    host = LocalStack(state_dir, clean_env())
    try:
        with contextlib.ExitStack() as clients:
            found = stack.up(
                host,
                lambda url: clients.enter_context(PrefectApi(url=url)),
                {POOL: 10},
                port=0,
                external_url=None,
                clock=clock(),
                say=lambda _: None,
            )
        yield Live(found.api_url, state_dir, host)
    finally:
        stack.down(host, clock(), lambda _: None)


@pytest.fixture
def project(live: Live, tmp_path: Path) -> Iterator[Project]:
    """An empty project; its deployments and flows are deleted at the end."""
    made = Project(tmp_path, live.api_url, name=f"t{abs(hash(tmp_path)) % 10**8}")
    yield made
    with live.api() as api:
        for deployment in api.deployments(names=(), tag="orchctl"):
            if deployment.labels.get("orchctl.catalog") == made.name:
                api.delete_flow(deployment.flow_id)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
