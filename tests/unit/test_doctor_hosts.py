"""What `doctor` says of other hosts whose workers poll the same pools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from doctoring import Host, Server
from fakes import NOON
from orchctl.adapters import doctor_facts
from orchctl.core.doctor import Finding
from orchctl.core.doctor_hosts import Mount, mount_of
from orchctl.core.remote import RemoteWorker

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
22 21 0:5 / /proc rw,nosuid - proc proc rw
30 21 0:44 / /home rw,relatime shared:9 - nfs4 nas:/home rw,vers=4.2,local_lock=none,addr=10.0.0.2
31 30 0:45 / /home/a\\040b rw,relatime shared:9 - nfs nas:/x rw,vers=3,nolock,local_lock=all
32 21 0:46 / /mnt rw - cifs //nas/x rw
33 32 0:47 / /mnt rw - tmpfs tmpfs rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind", "option"),
    [
        ("/srv/state/locks", "ext4", "errors=remount-ro"),
        ("/home/ops/locks", "nfs4", "local_lock=none"),
        ("/homes/ops/locks", "ext4", "relatime"),
        ("/home/a b/locks", "nfs", "nolock"),
        ("/home", "nfs4", "rw"),
        ("/mnt/x", "tmpfs", "rw"),
    ],
)
def test_a_folder_is_held_by_the_nearest_mount_and_of_two_by_the_later(path: str, kind: str, option: str) -> None:
    found = mount_of(MOUNTS, path)
    assert found is not None
    assert found.kind == kind
    assert option in found.options


def test_where_the_kernel_says_nothing_nothing_is_known() -> None:
    assert mount_of("", "/x") is None
    found = doctor_facts.mount("/proc/self")
    assert found is not None
    assert found.kind == "proc"


class Shared(Server):
    """A server that also hears of a worker of another host."""

    def workers(self, pool: str) -> tuple[RemoteWorker, ...]:
        return (*super().workers(pool), RemoteWorker(f"there-{pool}", True, NOON))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Host:
    return Host(tmp_path, prefect=Shared())


def findings(host: Host) -> list[Finding]:
    return host.findings("hosts")


def test_a_host_alone_is_well(host: Host) -> None:
    assert findings(host) == []


def test_a_worker_of_another_name_beside_a_folder_that_only_this_host_sees_is_told(shared: Host) -> None:
    (found,) = findings(shared)
    assert found.level == "warning"
    assert "there-nobody polls nobody too; if that is another host, it does not see the locks in" in found.seen
    assert "(ext4)" in found.seen


def test_a_worker_of_this_host_that_is_dead_leaves_nothing_to_share(shared: Host) -> None:
    shared.stack.processes["worker-nobody"] = None
    assert findings(shared) == []


@pytest.mark.parametrize("kind", ["nfs4", "nfs", "cifs", "ceph"])
def test_a_folder_that_hosts_share_is_well(shared: Host, kind: str) -> None:
    shared.mount = Mount(kind, frozenset({"rw", "local_lock=none"}))
    assert findings(shared) == []


@pytest.mark.parametrize(
    ("kind", "option"), [("nfs", "nolock"), ("nfs4", "local_lock=all"), ("nfs4", "local_lock=flock"), ("cifs", "nobrl")]
)
def test_locks_that_are_one_host_s_alone_are_a_failure(shared: Host, kind: str, option: str) -> None:
    shared.mount = Mount(kind, frozenset({"rw", option}))
    (found,) = findings(shared)
    assert found.level == "failure"
    assert f"are this host's alone ({kind}, {option})" in found.seen


def test_a_job_with_timers_in_a_pool_of_several_hosts_is_told(tmp_path: Path) -> None:
    timer = {"timer": "old.timer", "scope": "system"}
    jobs = {"job": {"schedules": ["hourly"], "legacy": [timer]}}
    shared = Host(tmp_path, jobs=jobs, prefect=Shared(), mount=Mount("nfs4", frozenset()))
    (found,) = findings(shared)
    assert found.level == "warning"
    assert "timers of one host start job, and there-nobody polls pool nobody too" in found.seen


def test_a_file_system_that_is_not_known_is_not_judged(shared: Host) -> None:
    shared.mount = None
    assert findings(shared) == []


@pytest.mark.parametrize(
    ("env", "wrong"),
    [
        ({"ORCHCTL_STATE_DIR": "/elsewhere"}, True),
        ({"ORCHCTL_STATE_ID": "0" * 32}, True),
        ({}, False),
    ],
)
def test_jobs_of_another_catalog_in_our_pool_are_a_failure_unless_the_state_is_ours(
    host: Host, env: dict[str, str], wrong: bool
) -> None:
    (own,) = (each for each in host.prefect.by_id.values() if each.name == next(iter(host.catalog.jobs)))
    theirs = {**own.job_variables["env"], **env}
    other = replace(
        own,
        id="theirs",
        name="theirs",
        labels={"orchctl.catalog": "theirs", "orchctl.job": "theirs"},
        job_variables={"env": theirs},
    )
    host.prefect.by_id["theirs"] = other
    found = findings(host)
    assert [each.level for each in found] == ["failure"] * wrong
    assert all(
        "jobs of the catalog theirs, of another state directory, are in work pool nobody too" in each.seen
        for each in found
    )


def test_without_prefect_it_is_not_known(host: Host) -> None:
    from orchctl.errors import PrefectUnreachable

    host.prefect.fails = PrefectUnreachable("cannot reach the Prefect API")
    (found,) = findings(host)
    assert found.level == "unknown"
