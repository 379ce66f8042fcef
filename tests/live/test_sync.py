"""`plan` and `sync` on a real server: nothing to do means nothing done, and only what is ours is touched."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fakes import catalog
from orchctl.adapters import toml_files
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.core.catalog import Catalog
from orchctl.errors import ExitCode, GateRefused, UsageError
from support import POOL, Live, Project
from syncing import Site, site

YEARLY = {"cron": "0 5 1 1 *"}


def wanted(name: str = "tests", **jobs: dict[str, Any]) -> Catalog:
    return catalog(jobs or {"sa": {"schedules": ["one"]}, "sb": {}}, {"one": YEARLY}, name=name)


@pytest.fixture
def here(live: Live, tmp_path: Path) -> Iterator[Site]:
    with site(live.api_url, tmp_path / "state", wanted()) as made:
        made.names |= {"sa", "sb", "sold"}
        yield made


def beside(here: Site, other: Catalog) -> Site:
    """Return a second operator of the same server, with a catalog and a state directory of their own."""
    state = Path(here.state_dir).with_name("other")
    here.names |= set(other.jobs)
    return Site(here.api, AppliedCatalogs(state), str(state), other, here.now, api=here.api, wire=here.wire)


def digests(here: Site) -> dict[str, Any]:
    return {name: here.deployment(name).parameters["digest"] for name in here.catalog.jobs}


def files(here: Site) -> set[str]:
    return {"sha256:" + path.stem for path in Path(here.state_dir).glob("applied/*.json")}


def test_the_shipped_catalog_is_synced_once_and_then_nothing_is_written(here: Site) -> None:
    here.catalog = toml_files.load(Path(__file__).parents[2] / "config")
    plan = here.plan()
    assert {change.action for change in plan.changes} == {"create"}
    assert not here.wire.writes
    here.sync()
    assert here.wire.writes
    here.wire.heal()
    was = {name: here.ids(name) for name in here.catalog.jobs}
    assert here.plan().empty
    assert here.sync().applied == ()
    assert {name: here.ids(name) for name in here.catalog.jobs} == was
    assert not here.wire.writes


def test_a_plan_with_changes_of_every_kind_writes_nothing(here: Site) -> None:
    here.catalog = wanted(sa={"schedules": ["one"]}, sold={})
    here.sync()
    here.by_hand("POST", "/deployments/", {"name": "sb", "flow_id": here.api.create_flow("sb")})
    here.catalog = wanted(sa={"description": "new", "work_pool": "another"}, sb={}, sc={})
    was = files(here)
    here.wire.heal()
    plan = here.plan(prune=True)
    assert [change.action for change in plan.changes] == ["update", "create", "delete"]
    assert (len(plan.conflicts), plan.pools) == (1, ("another",))
    assert not here.wire.writes
    assert files(here) == was


def test_one_job_is_synced_alone(here: Site) -> None:
    assert [change.job for change in here.sync("sb").applied] == ["sb"]
    assert here.prefect.deployment("sa", "sa") is None
    assert here.plan("sb").empty
    with pytest.raises(UsageError) as raised:
        here.plan("sbb")
    assert raised.value.hint == 'did you mean "sb"?'


def test_prune_deletes_only_what_carries_our_mark(here: Site) -> None:
    here.catalog = wanted(sa={}, sold={})
    here.sync()
    other = beside(here, wanted("other", sother={}))
    other.sync()
    here.names |= {"shand", "slook", "slost"}
    for name, body in {
        "shand": {},
        "slook": {"tags": ["orchctl"], "parameters": {"job": "something"}},
        "slost": {"tags": ["orchctl"], "parameters": {"job": "slost"}},
    }.items():
        here.by_hand("POST", "/deployments/", {"name": name, "flow_id": here.api.create_flow(name), **body})
    here.catalog = wanted(sa={})
    assert here.plan().changes == ()
    assert here.plan().notes == ("sold: gone from the catalog and still in Prefect; --prune deletes its deployment",)
    assert [(change.job, change.action) for change in here.sync(prune=True).applied] == [("sold", "delete")]
    assert here.prefect.deployment("sold", "sold") is None
    for name in ("sa", "sother", "shand", "slook", "slost"):
        here.deployment(name)
    assert here.plan(prune=True).empty
    assert other.plan(prune=True).empty


def test_two_catalogs_side_by_side(here: Site) -> None:
    here.sync()
    other = beside(here, wanted("other", sc={"schedules": ["one"]}))
    other.sync()
    was = here.ids("sa"), other.ids("sc")
    here.catalog = wanted(sa={"schedules": ["one"], "description": "new"})
    here.sync(prune=True)
    assert other.plan(prune=True).empty
    assert (here.ids("sa"), other.ids("sc")) == was
    other.catalog = wanted("other", sa={})
    with pytest.raises(GateRefused, match=r"nothing was changed: sa/sa .* belongs to the catalog 'tests'"):
        other.sync(prune=True)
    other.deployment("sc")


@pytest.mark.parametrize("mark", [{}, {"tags": ["orchctl"]}, {"labels": {"orchctl.catalog": "somebody's"}}])
def test_a_taken_name_is_refused_before_the_first_write(here: Site, mark: dict[str, Any]) -> None:
    here.by_hand("POST", "/deployments/", {"name": "sb", "flow_id": here.api.create_flow("sb"), **mark})
    here.wire.heal()
    with pytest.raises(GateRefused, match="nothing was changed: sb/sb"):
        here.sync()
    assert not here.wire.writes
    assert not Path(here.state_dir).exists()
    assert here.prefect.deployment("sa", "sa") is None


def test_a_name_under_another_flow_is_not_taken(here: Site) -> None:
    here.names.add("someones-flow")
    flow = here.api.create_flow("someones-flow")
    look = {"tags": ["orchctl"], "parameters": {"job": "sb"}, "labels": {"orchctl.catalog": "tests"}}
    here.by_hand("POST", "/deployments/", {"name": "sb", "flow_id": flow, **look})
    here.sync()
    here.catalog = wanted(sa={"schedules": ["one"]})
    here.sync(prune=True)
    assert here.prefect.deployment("someones-flow", "sb") is not None
    assert here.prefect.deployment("sb", "sb") is None


def test_an_edited_job_changes_only_its_deployment_and_every_digest_has_its_file(here: Site) -> None:
    here.sync()
    was = digests(here)
    here.catalog = wanted(sa={"schedules": ["one"]}, sb={"timeout": "2m"})
    assert {item.field for item in here.change("sb").fields} == {"parameters", "job.timeout"}
    here.sync()
    now = digests(here)
    assert now["sa"] == was["sa"]
    assert now["sb"] == here.catalog.digest != was["sb"]
    assert files(here) == set(now.values())
    here.catalog = wanted()
    here.sync()
    assert digests(here) == was
    assert here.plan().empty


@pytest.mark.parametrize("damage", ["gone", "tampered", "torn"])
def test_a_damaged_applied_catalog_is_written_anew(here: Site, damage: str) -> None:
    here.sync()
    (path,) = Path(here.state_dir).glob("applied/*.json")
    good = path.read_text()
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(good.replace('"true"', '"false"') if damage == "tampered" else good[:50])
    here.wire.heal()
    plan = here.plan()
    assert (plan.writes_catalog, plan.changes) == (True, ())
    here.sync()
    assert path.read_text() == good
    assert here.plan().empty
    assert not here.wire.writes


def test_an_older_applied_catalog_that_is_lost_moves_its_jobs_to_the_new_one(here: Site) -> None:
    here.sync()
    (old,) = files(here)
    here.catalog = wanted(sa={"schedules": ["one"]}, sb={"timeout": "2m"})
    here.sync()
    (Path(here.state_dir) / "applied" / f"{old.removeprefix('sha256:')}.json").unlink()
    here.sync()
    assert set(digests(here).values()) == files(here) == {here.catalog.digest}
    assert here.plan().empty


def test_the_command_line_from_the_first_plan_to_the_last_prune(project: Project) -> None:
    project.schedules["one"] = YEARLY
    project.jobs |= {"sa": {"command": ["true"], "schedules": ["one"]}, "sold": {"command": ["true"]}}
    project.write()
    assert [change["action"] for change in project.json("plan", check=3)["changes"]] == ["create", "create"]
    assert not (project.state_dir / "applied").exists()
    project.orchctl("sync")
    assert not project.json("plan", check=0)["changes"]
    for path in [project.state_dir, *project.state_dir.rglob("applied*"), *project.state_dir.rglob("applied/*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert 'did you mean "sold"?' in project.orchctl("sync", "sodl", check=2).stderr
    del project.jobs["sold"]
    project.write()
    refused = project.orchctl("sync", "--prune", check=5)
    assert "--yes" in refused.stderr
    project.orchctl("sync", "--dry-run", "--prune", check=3)
    project.orchctl("sync", "--prune", "--yes")
    project.orchctl("plan", "--prune")


class NotPrefect(BaseHTTPRequestHandler):
    """A server that answers everything with one status and a page, or with a login."""

    status = 200

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Welcome to nginx!</html>")

    do_GET = do_POST  # noqa: N815 - http.server's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        return


@pytest.mark.parametrize(
    ("status", "code"),
    [(None, ExitCode.PREFECT), (200, ExitCode.PREFECT), (404, ExitCode.PREFECT), (401, ExitCode.NOT_ALLOWED)],
)
def test_a_wrong_address_is_told_quickly(tmp_path: Path, status: int | None, code: int) -> None:
    server = HTTPServer(("127.0.0.1", 0), type("Answers", (NotPrefect,), {"status": status}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    project = Project(tmp_path, f"http://127.0.0.1:{server.server_port}/api", jobs={"sa": {"command": ["true"]}})
    project.write()
    if status is None:
        server.shutdown()
        server.server_close()
    begun = time.monotonic()
    done = project.orchctl("plan", "--json", check=code)
    assert time.monotonic() - begun < 15
    server.shutdown()
    server.server_close()
    thread.join()
    (error,) = json.loads(done.stdout)["errors"]
    assert f"127.0.0.1:{server.server_port}" in error["message"]
    assert error["hint"]
    assert POOL not in error["message"]
