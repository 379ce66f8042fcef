"""By what hosts know that their state directories are one, and what becomes of a run where they are not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fakes
from fakes import NOON, FakeApplied, FakePrefect
from orchctl.adapters import state_id
from orchctl.core.deployments import STATE_ID_VARIABLE
from orchctl.core.names import is_name
from orchctl.core.plan import Plan
from orchctl.errors import StateBroken
from orchctl.services import sync
from orchctl.wiring import runs


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def test_a_state_directory_has_no_id_before_it_is_given_one_and_keeps_that(state: Path) -> None:
    assert state_id.read(state) is None
    assert list(state.iterdir()) == []
    made = state_id.make(state)
    assert state_id.make(state) == state_id.read(state) == made
    state_id.check(state, made)
    assert not any(is_name(path.name) for path in (state / "slots").iterdir())  # or it could be in a job's way


def test_two_of_them_are_told_apart(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    made = state_id.make(state)
    for told in (state_id.make(other), made[:-1]):
        with pytest.raises(StateBroken, match="is not the one that the job was synced with"):
            state_id.check(state, told)


def test_a_copy_without_the_claims_has_another_id(state: Path, tmp_path: Path) -> None:
    made = state_id.make(state)
    other = tmp_path / "other"
    shutil.copytree(state, other)
    shutil.rmtree(other / "slots")
    assert state_id.read(other) is None
    with pytest.raises(StateBroken):
        state_id.check(other, made)
    assert state_id.make(other) != made


@pytest.mark.parametrize("content", ['{"id": "../../x"}', '{"id": 1}', "[]", "{", "null"])
def test_an_id_that_cannot_be_believed_is_said_and_never_passes(state: Path, content: str) -> None:
    made = state_id.make(state)
    (state / "slots" / "state-id.json").write_text(content)
    with pytest.raises(StateBroken):
        state_id.check(state, made)


def test_an_id_that_others_may_write_is_not_believed(state: Path) -> None:
    made = state_id.make(state)
    (state / "slots" / "state-id.json").chmod(0o666)
    with pytest.raises(StateBroken, match="may be written by others"):
        state_id.check(state, made)


def test_locks_on_another_file_system_than_the_claims_are_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = state_id.make(state)
    (state / "locks").mkdir(mode=0o700)
    state_id.check(state, made)
    usual = Path.stat

    def elsewhere(path: Path, **how: Any) -> os.stat_result:
        found = usual(path, **how)
        return os.stat_result((*found[:2], 4711, *found[3:])) if path.name == "locks" else found

    monkeypatch.setattr(Path, "stat", elsewhere)
    with pytest.raises(StateBroken, match=r"locks and slots .* are on different file systems"):
        state_id.check(state, made)


# --- what sync tells Prefect


CATALOG = fakes.catalog({"job": {"schedules": ["hourly"]}}, {"hourly": {"cron": "0 * * * *"}})


def propose(prefect: FakePrefect, applied: FakeApplied) -> Plan:
    return sync.propose(CATALOG, prefect, applied, state_dir="/state", now=NOON)


def apply(prefect: FakePrefect, applied: FakeApplied) -> None:
    applied.make_state_id()
    sync.apply(propose(prefect, applied), CATALOG, prefect, applied, now=lambda: NOON)


def test_a_sync_on_a_second_host_says_that_it_takes_the_runs_from_the_first(prefect: FakePrefect) -> None:
    first, second = FakeApplied(), FakeApplied(identity="f" * 32)
    apply(prefect, first)
    assert propose(prefect, first).empty
    proposed = propose(prefect, second)
    (change,) = proposed.changes
    assert [(each.field, each.because) for each in change.fields] == [("job_variables", "catalog")]
    assert any("with another state directory of this path, as another host has" in note for note in proposed.notes)
    apply(prefect, second)
    assert propose(prefect, second).empty
    # On the first host it is what somebody changed.
    (change,) = propose(prefect, first).changes
    assert [(each.field, each.because) for each in change.fields] == [("job_variables", "by hand")]


def test_two_hosts_that_share_their_state_change_nothing_of_each_other_s(prefect: FakePrefect) -> None:
    first = FakeApplied()
    apply(prefect, first)
    second = FakeApplied(dict(first.catalogs), first.identity)
    assert propose(prefect, second).empty


@pytest.fixture
def prefect() -> FakePrefect:
    return FakePrefect()


# --- what a run does


def host_of(state: Path, told: str | None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    monkeypatch.setenv("ORCHCTL_STATE_DIR", str(state))
    monkeypatch.delenv(STATE_ID_VARIABLE, raising=False)
    if told is not None:
        monkeypatch.setenv(STATE_ID_VARIABLE, told)
    return lambda: runs.host(dict, later_due=lambda _slot: None)


def test_a_run_on_a_host_with_another_state_directory_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = state_id.make(state)
    assert host_of(state, made, monkeypatch)()
    with pytest.raises(StateBroken, match="is not the one that the job was synced with"):
        host_of(state, "0" * 32, monkeypatch)()
    (state / "slots" / "state-id.json").write_text(json.dumps({"id": "0" * 32}))
    with pytest.raises(StateBroken):
        host_of(state, made, monkeypatch)()


def test_a_deployment_of_an_orchctl_that_knew_no_ids_runs(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_of(state, None, monkeypatch)()
