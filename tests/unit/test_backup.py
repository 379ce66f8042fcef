"""Archives, purely: what belongs in one, which may go, what of a restored database must not run again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from backup_cases import DIGEST, MANIFEST, NOW
from orchctl.core import backup, database_url
from orchctl.core.backup import Archive, Manifest, OpenRun
from orchctl.core.database_url import Postgres, Sqlite


def test_a_manifest_reads_back() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert [member.path for member in MANIFEST.part("state")] == ["state/owners/live-score.json"]
    assert MANIFEST.size_bytes == 12


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "state/../../etc/passwd",
        "../state/x",
        "state",
        "state/",
        "state//x",
        "state/./x",
        "elsewhere/x",
        "state/x\0y",
        "state/" + "x" * 1000,
        "",
        7,
    ],
)
def test_a_member_never_leads_out_of_the_archive(path: Any) -> None:
    data = MANIFEST.to_json()
    data["members"].append({"path": path, "size_bytes": 1, "sha256": DIGEST})
    with pytest.raises(ValueError, match="no place for a member"):
        Manifest.from_json(data)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", "tar", "not an archive of orchctl"),
        ("version", 2, "its version is 2"),
        ("hostname", "", "does not say its hostname"),
        ("created_at", "yesterday", "is not an instant"),
        ("members", "all", "names no members"),
        ("members", [], "holds no database"),
        ("members", [{"path": "state/a", "size_bytes": -1, "sha256": DIGEST}], "does not say what state/a holds"),
        ("members", [{"path": "state/a", "size_bytes": 1, "sha256": "z"}], "does not say what state/a holds"),
        ("members", ["state/a"], "a member is no table"),
        ("members", [{"path": "state/a", "size_bytes": 1, "sha256": DIGEST}] * 2, "names a member twice"),
        ("database", {"kind": "oracle"}, "which database"),
        ("database", {"kind": "sqlite", "counts": {"flow_runs": "7"}}, "how much its database holds"),
    ],
)
def test_what_is_no_manifest(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Manifest.from_json({**MANIFEST.to_json(), key: value})


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("owners/live-score.json", True),
        ("slots/live-score/20251219T050000Z.json", True),
        ("handovers/open/live-score", True),
        ("alerts/applied.json", True),
        ("prefect/prefect.db", False),
        ("locks/live-score.lock", False),
        ("orchctl.lock", False),
        ("backfills/live-score.lock", False),
        ("host/server.json", False),
        ("backups/orchctl-box-20251219T050000Z.tar.gz", False),
        ("elsewhere/orchctl-box-20251219T050000Z.tar.gz", False),
        ("owners/.live-score.json.a1b2.tmp", False),
        ("owners.before-20251219T050000Z/live-score.json", False),
        ("owners.before-20251219T050000Z.1/live-score.json", False),
        ("completion/jobs", False),
    ],
)
def test_which_files_of_the_state_directory_belong_in_an_archive(path: str, there: bool) -> None:
    assert backup.belongs(path) is there


def archive(minutes: int, **changes: Any) -> Archive:
    at = NOW + timedelta(minutes=minutes)
    return Archive(f"/b/{backup.archive_name('box', at)}", 1, replace(MANIFEST, created_at=at, **changes))


def test_the_oldest_of_this_host_and_state_directory_are_too_many() -> None:
    shelf = [
        archive(-1),
        archive(-3),
        archive(0),
        archive(-2),
        archive(-9, hostname="other"),
        archive(-9, state_dir="/"),
    ]
    mine = replace(MANIFEST, created_at=NOW)
    assert [each.manifest.created_at.minute for each in backup.surplus(shelf, mine, 2)] == [57, 58]
    assert backup.surplus(shelf, mine, 4) == ()


def test_the_new_one_stays_whatever_is_asked() -> None:
    assert backup.surplus([archive(0), archive(-1)], MANIFEST, 0) == (archive(-1),)


def test_of_one_second_the_one_with_the_highest_number_is_the_newest() -> None:
    same = [Archive(f"/b/{backup.archive_name('box', NOW, number)}", 1, MANIFEST) for number in range(12)]
    assert backup.surplus(same, MANIFEST, 1) == tuple(same[:-1])


def test_an_archive_of_a_clock_that_was_ahead_is_left() -> None:
    assert backup.surplus([archive(0), archive(60)], MANIFEST, 1) == ()


@pytest.mark.parametrize("host", ["box", "a.b-c_d", "ho st/../x"])
def test_names_of_archives(host: str) -> None:
    name = backup.archive_name(host, NOW)
    assert backup.is_archive_name(name)
    assert backup.is_archive_name(backup.archive_name(host, NOW, 3))
    assert "/" not in name


@pytest.mark.parametrize("name", ["orchctl.tar.gz", "orchctl-box-20251219.tar.gz", "orchctl-box-20251219T050000Z.tar"])
def test_what_is_no_name_of_an_archive(name: str) -> None:
    assert not backup.is_archive_name(name)


def run(type: str = "SCHEDULED", minutes: float = -5, *, by_schedule: bool = True) -> OpenRun:  # noqa: A002
    return OpenRun("id", "happy-owl", type, NOW + timedelta(minutes=minutes), by_schedule)


@pytest.mark.parametrize(
    ("found", "claimed", "known", "why"),
    [
        (run("COMPLETED"), {"id"}, True, None),
        (run("RUNNING"), set(), True, "was going"),
        (run("PENDING", 5), set(), True, "was going"),
        (run("CANCELLING"), set(), True, "was going"),
        (run(), {"id"}, True, "its slot was taken"),
        (run(minutes=5), {"id"}, True, "its slot was taken"),
        (run(minutes=5), set(), False, None),
        (run(), set(), True, None),
        (run(), set(), False, "is not known"),
        (run(by_schedule=False), set(), True, "asked for before"),
        (run(minutes=5, by_schedule=False), set(), True, None),
        (OpenRun("id", "owl", "SCHEDULED", None, False), set(), True, "asked for before"),
    ],
)
def test_which_runs_of_a_restored_database_must_not_go_on(
    found: OpenRun, claimed: set[str], known: bool, why: str | None
) -> None:
    said = backup.over(found, claimed=claimed, claims_known=known, now=NOW)
    assert (said is None) == (why is None)
    assert (why or "") in (said or "")


def test_differences_are_named() -> None:
    assert backup.differences({"flow_runs": 7, "flows": 1}, {"flow_runs": 6, "flows": 1}) == (
        "flow runs: 6 instead of 7",
    )
    assert backup.differences({"flows": 1}, {}) == ("flows: none instead of 1",)


@pytest.mark.parametrize(
    ("archive", "here", "newer"),
    [("3.8.8", "3.8.8", False), ("3.8.9", "3.8.8", True), ("3.10.0", "3.9.1", True), ("3.8.8.dev1", "3.9.0", False)],
)
def test_an_archive_of_a_newer_prefect(archive: str, here: str, newer: bool) -> None:
    assert backup.newer_prefect(archive, here) is newer


def test_parts() -> None:
    assert backup.chosen_parts(None) == ("database", "state", "catalog")
    assert backup.chosen_parts("catalog, database") == ("database", "catalog")
    for wrong in ("", "databse", "state,host"):
        with pytest.raises(ValueError, match="names no parts"):
            backup.chosen_parts(wrong)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sqlite+aiosqlite:////var/lib/prefect.db", Sqlite("/var/lib/prefect.db")),
        ("sqlite:////var/lib/pre%20fect.db?timeout=5", Sqlite("/var/lib/pre%20fect.db")),
        (
            "postgresql+asyncpg://pre:p%40ss%3Aw@db.example:6543/prefect?ssl=require",
            Postgres("db.example", 6543, "pre", "p@ss:w", "prefect", "require"),
        ),
        ("postgresql+asyncpg://pre@localhost/prefect", Postgres("localhost", 5432, "pre", None, "prefect")),
        ("postgres://pre:x@[::1]:1/prefect", Postgres("::1", 1, "pre", "x", "prefect")),
        (
            "postgresql+asyncpg://pre:x@/prefect?host=/run/postgresql",
            Postgres("/run/postgresql", 5432, "pre", "x", "prefect"),
        ),
    ],
)
def test_where_a_database_is(url: str, place: Sqlite | Postgres) -> None:
    assert database_url.parse(url) == place
    assert database_url.parse(place.url) == place


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:planted-secret@h/db",
        "sqlite+aiosqlite:///prefect.db",
        "sqlite://",
        "postgresql://:planted-secret@h/db",
        "postgresql://u:planted-secret@h/",
        "postgresql://u:planted-secret@h:port/db",
        "planted-secret",
    ],
)
def test_a_url_that_cannot_be_followed_is_not_quoted(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        database_url.parse(url)
    assert "planted-secret" not in str(refused.value)


def test_the_password_is_in_the_url_only() -> None:
    place = Postgres("h", 1, "u", "planted-secret", "db")
    assert "planted-secret" in place.url
    assert "planted-secret" not in f"{place} {place!r} {place.shown} {place.beside('_x').shown}"


def test_a_database_beside_keeps_a_name_that_postgres_does_not_cut() -> None:
    assert Postgres("h", 1, "u", None, "prefect").beside("_orchctl_verify").name == "prefect_orchctl_verify"
    assert Postgres("h", 1, "u", None, "p" * 48).beside("_orchctl_verify").name == f"{'p' * 48}_orchctl_verify"
    for name in ("p" * 49, "p" * 63, "ü" * 31):
        found = Postgres("h", 1, "u", None, name).beside("_orchctl_verify").name
        assert found.endswith("_orchctl_verify")
        assert len(found.encode()) <= 63


def test_two_databases_with_long_names_have_no_database_beside_in_common() -> None:
    ones = [f"{'p' * 50}_{word}" for word in ("test", "prod")]
    assert len({Postgres("h", 1, "u", None, name).beside("_orchctl_verify").name for name in ones}) == 2


def test_the_settings_name_the_database_and_else_it_is_in_the_home() -> None:
    named = "postgresql+asyncpg://u:x@h:1/db"
    assert database_url.of_settings({"PREFECT_API_DATABASE_CONNECTION_URL": named}, "/h").url == named
    first = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite:////a.db", "PREFECT_API_DATABASE_CONNECTION_URL": named}
    assert database_url.of_settings(first, "/h") == Sqlite("/a.db")
    assert database_url.of_settings({}, "/h/") == Sqlite("/h/prefect.db")
