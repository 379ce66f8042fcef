"""Who could have written what is read: owners, modes, groups, links, and the folders on the way."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from catalogs import JOBS, SCHEDULES, write
from orchctl.adapters import accounts, belief, toml_files
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.errors import CatalogInvalid, CatalogNotBelieved, ExitCode, NotAllowed, StateBroken
from orchctl.wiring import App, Settings

ROOT = os.geteuid() == 0
SOMEBODY, DAEMON, GROUP = 54321, 1, 4
"""A uid that nobody has, a user with a group of its own, and a group that is nobody's own (adm)."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir(0o755)
    write(folder, JOBS, SCHEDULES)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def refused(folder: Path, **options: object) -> CatalogNotBelieved:
    with pytest.raises(CatalogNotBelieved) as caught:
        toml_files.load(folder, **options)  # type: ignore[arg-type]
    return caught.value


def linked(folder: Path, *, elsewhere: Path) -> None:
    """Move jobs.toml to another folder and leave a link to it."""
    elsewhere.mkdir(exist_ok=True)
    (folder / "jobs.toml").rename(elsewhere / "jobs.toml")
    (folder / "jobs.toml").symlink_to(elsewhere / "jobs.toml")


def test_a_catalog_that_nobody_else_can_write_is_read(config: Path) -> None:
    assert set(toml_files.load(config).jobs) == {"score", "other"}
    assert toml_files.texts(config)["jobs.toml"] == JOBS


@pytest.mark.parametrize(
    ("spoil", "said", "mend"),
    [
        (lambda folder: (folder / "jobs.toml").chmod(0o646), "jobs.toml may be written by anybody", "chmod go-w "),
        (lambda folder: (folder / "schedules.toml").chmod(0o666), "schedules.toml may be written by anybody", "chmod"),
        (lambda folder: folder.chmod(0o777), "config may be written by anybody", "chmod go-w "),
        (lambda folder: folder.chmod(0o1777), "config may be written by anybody", "into a folder of your own"),
        (lambda folder: folder.parent.chmod(0o777), "may be written by anybody", "chmod go-w "),
    ],
    ids=["file", "other file", "folder", "sticky folder", "folder above"],
)
def test_what_anybody_may_write_is_not(config: Path, spoil: Callable[[Path], None], said: str, mend: str) -> None:
    spoil(config)
    error = refused(config)
    assert said in error.message
    assert mend in (error.hint or "")
    assert error.exit_code is ExitCode.NOT_ALLOWED


def test_a_sticky_folder_may_stand_above_it(config: Path) -> None:
    config.parent.chmod(0o1777)
    assert toml_files.load(config).jobs


def test_everything_that_is_wrong_is_told_at_once_with_one_command_for_each(config: Path) -> None:
    config.chmod(0o777)
    (config / "jobs.toml").chmod(0o666)
    error = refused(config)
    assert error.message.count("may be written by anybody") == 2
    assert error.hint == f"look at what it says, then: chmod go-w {config} && chmod go-w {config / 'jobs.toml'}"
    for command in (error.hint or "").partition(": ")[2].split(" && "):
        os.system(command)
    assert toml_files.load(config).jobs


def test_a_link_is_followed_and_all_folders_on_the_way_count(config: Path, tmp_path: Path) -> None:
    linked(config, elsewhere=tmp_path / "real")
    assert toml_files.load(config).jobs
    (tmp_path / "real").chmod(0o777)
    assert f"{tmp_path / 'real'} may be written by anybody" in refused(config).message
    (tmp_path / "real").chmod(0o755)
    # A chain: a relative link through a folder that others may write.
    (tmp_path / "open").mkdir(0o777)
    (tmp_path / "open").chmod(0o1777)
    (tmp_path / "open" / "link").symlink_to("../real/jobs.toml")
    (config / "jobs.toml").unlink()
    (config / "jobs.toml").symlink_to("../open/link")
    assert f"{tmp_path / 'open'} may be written by anybody" in refused(config).message
    (tmp_path / "open").chmod(0o755)
    assert toml_files.load(config).jobs


def test_links_that_lead_in_a_circle_and_what_is_no_file_are_errors(config: Path) -> None:
    (config / "jobs.toml").unlink()
    (config / "jobs.toml").symlink_to("jobs.toml")
    with pytest.raises(NotAllowed, match="cannot read"):
        toml_files.load(config)
    (config / "jobs.toml").unlink()
    os.mkfifo(config / "jobs.toml")
    with pytest.raises(NotAllowed, match="not a plain file"):
        toml_files.load(config)
    (config / "jobs.toml").unlink()
    (config / "jobs.toml").mkdir()
    with pytest.raises(NotAllowed, match="not a plain file"):
        toml_files.load(config)


def test_a_catalog_that_is_not_there_is_missing_and_nothing_else(config: Path) -> None:
    config.chmod(0o777)
    for path in config.iterdir():
        path.unlink()
    with pytest.raises(CatalogInvalid, match="there is no catalog in") as caught:
        toml_files.load(config)
    assert caught.value.exit_code is ExitCode.CATALOG


def test_what_works_without_a_catalog_works_without_one_that_is_not_believed(config: Path, tmp_path: Path) -> None:
    app = App(Settings.of({}, config=config, state_dir=tmp_path / "state"), {})
    (config / "jobs.toml").chmod(0o666)
    assert app.catalog_if_valid is None
    with pytest.raises(CatalogNotBelieved):
        app.catalog_texts  # noqa: B018


# --- what only root can set up

if ROOT:

    @pytest.mark.parametrize("which", ["jobs.toml", "."])
    def test_what_belongs_to_another_user_is_not_believed_unless_root_trusts_it(config: Path, which: str) -> None:
        os.chown(config / which, SOMEBODY, SOMEBODY)
        error = refused(config)
        assert f"belongs to uid {SOMEBODY}, not to root" in error.message
        assert "chown -h root" in (error.hint or "")
        assert toml_files.load(config, trust={SOMEBODY}).jobs

    def test_a_link_of_another_user_is_not_believed(config: Path, tmp_path: Path) -> None:
        linked(config, elsewhere=tmp_path / "real")
        os.chown(config / "jobs.toml", SOMEBODY, SOMEBODY, follow_symlinks=False)
        assert f"{config / 'jobs.toml'} belongs to uid {SOMEBODY}" in refused(config).message

    def test_a_group_of_ones_own_may_write_and_no_other_group(config: Path) -> None:
        for path in (config, *config.iterdir()):
            os.chown(path, DAEMON, DAEMON)
            path.chmod(0o775 if path.is_dir() else 0o664)
        assert toml_files.load(config, trust={DAEMON}).jobs
        os.chown(config / "jobs.toml", DAEMON, GROUP)
        error = refused(config, trust={DAEMON})
        assert "jobs.toml may be written by the group adm" in error.message

    def test_with_an_access_control_list_the_mode_of_the_group_tells_of_others_too(config: Path) -> None:
        path = config / "jobs.toml"
        os.chown(path, DAEMON, DAEMON)
        # owner rw, user 54321 rw, group r, mask rw, others r
        entries = ((1, 6, 2**32 - 1), (2, 6, SOMEBODY), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1), (32, 4, 2**32 - 1))
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(path, "system.posix_acl_access", acl)
        assert path.stat().st_mode & 0o777 == 0o664
        assert "jobs.toml may be written by the group daemon" in refused(config, trust={DAEMON}).message

    def test_root_trusts_who_called_sudo_and_whom_the_state_directory_belongs_to(tmp_path: Path) -> None:
        state = tmp_path / "state"
        assert belief.trusted(state, None) == frozenset()
        assert belief.trusted(state, "no-user-of-that-name") == frozenset()
        assert belief.trusted(state, "daemon") == {DAEMON}
        state.mkdir()
        os.chown(state, SOMEBODY, SOMEBODY)
        assert belief.trusted(state, "daemon") == {DAEMON, SOMEBODY}
        app = App(Settings.of({}, config=tmp_path, state_dir=state), {"SUDO_USER": "daemon"})
        assert app.trusted == {DAEMON, SOMEBODY}

    def test_what_root_applies_is_the_owners_and_what_the_owner_applied_root_reads_but_does_not_run(
        tmp_path: Path, config: Path
    ) -> None:
        state = tmp_path / "state"
        state.mkdir(0o755)
        os.chown(state, SOMEBODY, SOMEBODY)
        catalog = toml_files.load(config)
        path = App(Settings.of({}, state_dir=state), {}).applied.write(catalog)
        assert [(each.stat().st_uid, each.stat().st_mode & 0o777) for each in (path, path.parent)] == [
            (SOMEBODY, 0o600),
            (SOMEBODY, 0o700),
        ]
        assert App(Settings.of({}, state_dir=state), {}).applied.read(catalog.digest) == catalog
        with pytest.raises(StateBroken, match="belongs to uid"):
            AppliedCatalogs(state).read(catalog.digest)


@pytest.mark.parametrize(
    ("uid", "gid", "own"),
    [
        (DAEMON, DAEMON, True),
        (DAEMON, 0, False),
        (0, GROUP, False),
        (65534, 65534, False),  # nobody and nogroup: primary, and of another name
        (DAEMON, 54321, False),
        (54321, DAEMON, False),
    ],
)
def test_which_group_is_a_users_own(uid: int, gid: int, own: bool) -> None:
    assert accounts.is_private_group(uid, gid) is own
