"""What the watchdog's units say, and which files count for it where those of the operator are broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs import JOBS, SCHEDULES
from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.local_stack import free_port
from orchctl.adapters.senders import Senders
from orchctl.core import unit_text, watch_unit
from orchctl.core.alerts import Alerts
from orchctl.core.watch_unit import Watch
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
        env_files=["/etc/orchctl/secrets", "/a b"],
        writes=["/var/lib/orchctl"],
    )
    text = watch_unit.service(watch)
    assert values(text, "ExecStart") == [':"/usr/bin/py thon" "-m" "orchctl" "100%%" "$X"']
    assert values(text, "EnvironmentFile") == ["-/etc/orchctl/secrets", '-"/a b"']
    assert values(text, "User") == ["daniel"]
    assert values(text, "TimeoutStartSec") == ["55"]
    assert values(text, "ReadWritePaths") == ["-/var/lib/orchctl"]
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


@pytest.fixture
def app(tmp_path: Path) -> App:
    (tmp_path / "config").mkdir()
    write(tmp_path, jobs=JOBS, schedules=SCHEDULES)
    return fresh(tmp_path)


def fresh(root: Path) -> App:
    return App(Settings.of({}, config=root / "config", state_dir=root / "state"), {})


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
    (tmp_path / "secrets").write_text("OPS_URL=http://x\n")
    assert wired.unset_secrets(app, [str(tmp_path / "secrets")]) == ()


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
