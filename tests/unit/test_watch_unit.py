"""What the watchdog's units say, and which files count for it where those of the operator are broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import receivers
from catalogs import JOBS, SCHEDULES
from doctoring import installation
from orchctl.adapters import accounts
from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.installed import Installed
from orchctl.adapters.local_stack import free_port
from orchctl.adapters.senders import Senders
from orchctl.core import unit_text, watch_unit
from orchctl.core.alerts import Alerts
from orchctl.core.deliveries import Answer
from orchctl.core.watch_unit import Watch
from orchctl.errors import UsageError
from orchctl.services import watchdog
from orchctl.wiring import App, Settings
from orchctl.wiring import watchdog as wired

ALERTS = """\
version = 1
[channels.ops]
kind = "slack"
url_env = "OPS_URL"
[routes.all]
events = ["server_gone"]
channels = ["ops"]
"""


def values(text: str, key: str) -> list[str]:
    return [each.value for each in unit_text.settings(text) if each.key == key]


def test_the_service_runs_one_bounded_look_with_its_words_as_they_are() -> None:
    watch = Watch(
        ["/usr/bin/py thon", "-m", "orchctl", "100%", "$X"],
        "system",
        "daniel",
        env_files=["/etc/orchctl/secrets", "/a b/100%"],
        writes=["/var/lib/orchctl", "/c d"],
    )
    text = watch_unit.service(watch)
    assert values(text, "ExecStart") == [':"/usr/bin/py thon" "-m" "orchctl" "100%%" "$X"']
    assert values(text, "EnvironmentFile") == ["-/etc/orchctl/secrets", "-/a b/100%%"], "it is not unquoted"
    assert values(text, "User") == ["daniel"]
    assert values(text, "TimeoutStartSec") == ["55"]
    assert values(text, "ReadWritePaths") == ["-/var/lib/orchctl", '-"/c d"'], "it is"
    assert values(text, "ProtectSystem") == ["strict"]
    assert values(text, "NoNewPrivileges") == ["yes"]
    assert values(watch_unit.timer(), "OnCalendar") == ["*-*-* *:*:00"]
    assert values(watch_unit.timer(), "Persistent") == ["true"]


def test_a_users_service_asks_for_nothing_that_its_manager_may_not_be_able_to_do() -> None:
    text = watch_unit.service(Watch(["/bin/true"], "user", "daniel", writes=["/x"]))
    assert values(text, "User") == []
    assert values(text, "ProtectSystem") == []
    assert values(text, "ReadWritePaths") == []
    assert values(text, "NoNewPrivileges") == ["yes"]


def test_what_no_unit_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        watch_unit.service(Watch(["/bin/true", "a\nb"], "system"))
    for pattern in ("/etc/*.env", "/etc/a?", "/etc/[a]"):
        with pytest.raises(ValueError, match="takes for a pattern"):
            watch_unit.service(Watch(["/bin/true"], "system", env_files=[pattern]))


@pytest.fixture
def app(tmp_path: Path) -> App:
    (tmp_path / "config").mkdir()
    write(tmp_path, jobs=JOBS, schedules=SCHEDULES)
    return fresh(tmp_path)


def fresh(root: Path, api_url: str | None = None) -> App:
    return App(Settings.of({}, config=root / "config", state_dir=root / "state", api_url=api_url), {})


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        (root / "config" / f"{name}.toml").write_text(text)


def test_the_catalog_that_was_applied_counts(app: App, tmp_path: Path) -> None:
    never = wired.in_force(app, None)
    assert (never.catalog, never.name) == (None, app.catalog.name)
    first = app.catalog
    app.applied.write(first)
    assert wired.in_force(app, None).catalog == first
    write(tmp_path, jobs=JOBS.replace("retries = 1", "retries = 2"))
    edited = wired.in_force(fresh(tmp_path), None)
    assert (edited.catalog, edited.problem) == (first, None)
    app.applied.write(fresh(tmp_path).catalog)
    write(tmp_path, jobs="version = 1\nnonsense")
    broken = wired.in_force(fresh(tmp_path), first.digest)
    assert broken.catalog == first, "the one that was in force last"
    assert broken.name == first.name
    assert "jobs.toml" in str(broken.problem)
    for path in (tmp_path / "state" / "applied").iterdir():
        path.write_text("{}")
    lost = wired.in_force(fresh(tmp_path), first.digest)
    assert (lost.catalog, lost.name) == (None, "default")


def test_an_alerts_toml_that_is_not_valid_leaves_the_last_one_that_was(app: App, tmp_path: Path) -> None:
    store = Deliveries(tmp_path / "state")
    assert wired.alerts_of(app, store, keep=True) == (Alerts(), None)
    write(tmp_path, alerts=ALERTS)
    valid, problem = wired.alerts_of(app, store, keep=True)
    assert problem is None
    write(tmp_path, alerts=ALERTS.replace('"slack"', '"pigeon"'))
    kept, problem = wired.alerts_of(app, store, keep=True)
    assert kept == valid
    assert "alerts.toml" in str(problem)


def test_a_variable_that_no_file_holds_is_told(app: App, tmp_path: Path) -> None:
    write(tmp_path, alerts=ALERTS)
    assert wired.unset_secrets(app, []) == ("alerts.toml names the variable OPS_URL, and no --env-file holds it",)
    private(tmp_path / "secrets")
    assert wired.unset_secrets(app, [str(tmp_path / "secrets")]) == ()


def private(path: Path, text: str = "OPS_URL=http://x\n") -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_the_address_of_the_api_is_written_into_the_unit_without_a_key(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    bare = fresh(tmp_path, "http://prefect.example:4200/api/")
    argv = wired.watch(bare, wired.timer(bare), ()).argv
    assert list(argv)[-3:] == ["--api-url", "http://prefect.example:4200/api", "watchdog"]
    keyed = fresh(tmp_path, "http://admin:hunter2@prefect.example:4200/api")
    with pytest.raises(UsageError, match="a user and a password, which the unit would show") as caught:
        wired.watch(keyed, wired.timer(keyed), ())
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert "PREFECT_API_AUTH_STRING=user:password goes into a file for --env-file" in str(caught.value.hint)


def test_a_file_of_variables_is_for_who_runs_the_unit_alone(app: App, tmp_path: Path) -> None:
    path = tmp_path / "a b" / "secrets.env"
    path.parent.mkdir()
    own = private(path)
    assert wired.watch(app, wired.timer(app), [own]).env_files == (own,)

    def refused() -> str:
        with pytest.raises(UsageError) as caught:
            wired.watch(app, wired.timer(app), [own])
        return f"{caught.value.message} {caught.value.hint}"

    path.chmod(0o640)
    assert "may be read by others (0640)" in refused()
    path.chmod(0o602)
    assert "may be written by anybody" in refused()
    path.chmod(0o600)
    path.parent.chmod(0o777)
    assert f"{path.parent} may be written by anybody" in refused(), "they could put another in its place"
    path.parent.chmod(0o755)
    path.rename(tmp_path / "elsewhere")
    assert "there is no file" in refused()
    path.mkdir()
    assert "is no file" in refused()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_variables_of_another_user_is_refused(app: App, tmp_path: Path) -> None:
    path = private(tmp_path / "secrets.env")
    os.chown(path, 1, 1)
    with pytest.raises(UsageError, match="belongs to daemon") as caught:
        wired.watch(app, wired.timer(app), [path])
    assert "chown" in str(caught.value.hint)
    wired.timer(app).check_env_file(path, "daemon")  # The unit runs as that user.
    with pytest.raises(UsageError, match="belongs to daemon"):
        wired.timer(app).check_env_file(path, "bin")


class Folder:
    """Systemds of which only the folders are asked: those of the test."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def call(self, *_words: object, **_more: object) -> str:
        return f"UnitPath={self._root}/system.control {self._root}/system"

    def owner(self, _manager: object) -> str:
        return accounts.user_name(os.geteuid())


def test_by_hand_secrets_are_found_where_server_and_watchdog_have_them(app: App, tmp_path: Path) -> None:
    write(tmp_path, alerts=ALERTS)
    settings, given = tmp_path / "state" / "host" / "settings.env", tmp_path / "own 1.env"
    settings.parent.mkdir(parents=True, mode=0o700)
    private(settings, "OPS_URL=from-settings\nOTHER=from-settings\n")
    private(given, "OTHER=from-env-file\n")
    record = installation(tmp_path, settings=str(settings))
    Installed(tmp_path / "state").write(record)
    systemd = Folder(tmp_path)
    app.__dict__["systemd"] = systemd
    timer = wired.timer(app)
    (tmp_path / "system").mkdir()
    unit = tmp_path / "system" / watch_unit.SERVICE
    unit.write_text(watch_unit.service(wired.watch(app, timer, [str(given)])))
    assert timer.env_files(str(tmp_path / "state")) == (str(settings), str(given))
    assert timer.env_files("/another") == (), "that of another state directory"
    found = wired.by_hand(app, {"HOME": "/root"})
    assert (found["OPS_URL"], found["OTHER"], found["HOME"]) == ("from-settings", "from-env-file", "/root")
    assert wired.by_hand(app, {"OPS_URL": "mine"})["OPS_URL"] == "mine", "what is named goes first"
    in_unit = {"RUNTIME_DIRECTORY": f"/run/{watch_unit.RUNTIME}"}
    assert wired.by_hand(app, in_unit) == in_unit, "systemd has given it all there is"
    settings.chmod(0o644)
    assert "OPS_URL" not in wired.by_hand(app, {}), "what others may read is not believed"


def test_a_channel_is_tested_with_the_secret_of_the_settings(app: App, tmp_path: Path) -> None:
    with receivers.http() as hook:
        settings = tmp_path / "state" / "host" / "settings.env"
        settings.parent.mkdir(parents=True, mode=0o700)
        private(settings, f"OPS_URL={hook.url}/services/secret\n")
        Installed(tmp_path / "state").write(installation(tmp_path, settings=str(settings)))
        write(tmp_path, alerts=ALERTS.replace('"slack"', '"webhook"'))
        (sent,) = watchdog.send_test(wired.sending(app, {}), ["ops"], at=app.now())
        assert sent.answer.ok, sent.answer.said
        assert [each["event"] for each in hook.got] == ["test"]


def test_what_never_came_to_be_sent_says_nothing_of_a_channel(app: App, tmp_path: Path) -> None:
    write(tmp_path, alerts=ALERTS)
    store = Deliveries(tmp_path / "state")
    store.note(app.catalog.name, "ops", Answer(True, "200 ok", 1), app.now(), waiting=0)
    (sent,) = watchdog.send_test(wired.sending(app, {}), ["ops"], at=app.now())
    assert not sent.answer.ok
    assert "the variable OPS_URL" in sent.answer.said
    assert store.last(app.catalog.name)["ops"].ok, "the server may well have what this shell has not"


def test_the_whole_look_by_its_wiring_without_a_server_or_a_catalog(tmp_path: Path) -> None:
    root = tmp_path
    (root / "config").mkdir()
    environment = {"PREFECT_API_URL": f"http://user:hunter2@127.0.0.1:{free_port()}/api"}
    app = App(Settings.of(environment, config=root / "config", state_dir=root / "state"), environment)
    world = wired.world(app, environment, dry=True)
    assert "hunter2" not in world.api_url
    assert isinstance(world.post, Senders)
    assert world.in_force(None).catalog is None
    assert world.places(None)["orchctl's state"] == str(root / "state")
    assert world.disk(str(root)).total > 0
    assert not (root / "state").exists()
