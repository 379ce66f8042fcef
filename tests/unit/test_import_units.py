"""A service becomes the keys of a job, or the reason why it cannot be one."""

from __future__ import annotations

from typing import Any

import pytest

from made_units import service, shown, units
from orchctl.core.exec_command import ExecLine
from orchctl.core.import_units import Carried, Details, carry
from orchctl.core.legacy import Manager
from orchctl.core.unit_text import settings

RUN = ExecLine("/bin/run", ("/bin/run", "a"))


def details(text: str = "", *, lines: dict[str, tuple[ExecLine, ...]] | None = None, **more: Any) -> Details:
    given = {"account": "root", "home": "/root", **more}
    return Details(settings(text), {"ExecStart": (RUN,)} if lines is None else lines, **given)


def carried(text: str = "", *, about: dict[str, Any] | None = None, **properties: str) -> Carried:
    one = units(shown("job.service", **properties)).services["job.service"]
    return carry(one, details(text, **(about or {})), me="root")


def test_the_plain_case_says_everything_once() -> None:
    text = "[Unit]\nDescription=Does it\nAfter=network.target\n[Service]\nType=oneshot\nNice=5\n"
    one = carried(text, Nice="5", Environment='A=1 "B=x y"', TimeoutStartUSec="20min", WorkingDirectory="/srv")
    assert one.keys == {
        "description": "Does it",
        "command": ["/bin/run", "a"],
        "user": "root",
        "working_directory": "/srv",
        "nice": 5,
        "timeout": "20m",
        "kill_after": "90s",
        "env": {"A": "1", "B": "x y"},
    }
    assert (one.comments, one.warnings) == ((), ())


def test_braces_are_doubled_in_what_becomes_a_template() -> None:
    lines = {"ExecStart": (ExecLine("/bin/run", ("/bin/run", "{a}")),)}
    one = carried(about={"lines": lines}, Environment='"A={b}"')
    assert one.keys["command"] == ["/bin/run", "{{a}}"]
    assert one.keys["env"] == {"A": "{{b}}"}


@pytest.mark.parametrize(
    ("said", "found"),
    [("", "/"), ("~", "/root"), ("!~", "/root"), ("!/srv/x", "/srv/x"), ("/srv/y", "/srv/y")],
)
def test_the_working_directory_is_systemds(said: str, found: str) -> None:
    one = carried(f"[Service]\nWorkingDirectory={said}\n", WorkingDirectory=said)
    assert one.keys["working_directory"] == found
    assert any("may be missing" in text for text in one.comments) == said.startswith("!")


def test_a_users_service_starts_at_home_and_names_no_user() -> None:
    manager = Manager("user")
    own = carry(service(manager=manager), details(account="ann", home="/home/ann"), me="ann")
    assert own.keys["working_directory"] == "/home/ann"
    assert "user" not in own.keys
    default = carry(service(manager=manager, WorkingDirectory="!/home/ann"), details(account="ann"), me="ann")
    assert (default.keys["working_directory"], default.comments[1:]) == ("/home/ann", ())
    foreign = carry(service(manager=manager), details(account="ann", home="/home/ann"), me="root")
    assert foreign.keys["user"] == "ann"


def test_limits_that_systemd_does_not_set_are_the_catalogs() -> None:
    one = carried(TimeoutStopUSec="infinity")
    assert not {"timeout", "kill_after"} & one.keys.keys()
    assert sum("here the timeout of the catalog" in text for text in one.comments) == 1
    other = carried(Type="simple", RuntimeMaxUSec="1h 30min", TimeoutStopUSec="1500ms")
    assert (other.keys["timeout"], other.keys["kill_after"]) == ("90m", "2s")
    assert "TimeoutStopSec=1.5s is rounded up" in other.comments


def test_lines_before_and_after_belong_to_the_work_of_a_oneshot_only() -> None:
    lines = {
        "ExecStartPre": (ExecLine("/bin/pre", ("/bin/pre",)),),
        "ExecStart": (RUN,),
        "ExecStartPost": (ExecLine("/bin/post", ("/bin/post",)),),
    }
    one = carried(about={"lines": lines})
    assert one.keys["command"] == ["/bin/sh", "-ec", "/bin/pre; /bin/run a; /bin/post"]
    beside = carried(about={"lines": lines}, Type="simple", RuntimeMaxUSec="infinity")
    assert beside.keys["command"] == ["/bin/sh", "-ec", "/bin/pre; /bin/run a"]
    assert "ExecStartPost= is not carried: systemd runs it beside the program" in beside.warnings


def test_prefixes_that_mean_root_make_a_job_of_root() -> None:
    privileged = {"ExecStart": (ExecLine("/bin/run", ("/bin/run",), frozenset({"privileged"})),)}
    one = carried(about={"lines": privileged, "account": "ann"}, User="ann")
    assert one.keys["user"] == "root"
    mixed = {**privileged, "ExecStartPre": (RUN,)}
    with pytest.raises(ValueError, match="some of its commands run as root"):
        carried(about={"lines": mixed, "account": "ann"}, User="ann")


def test_a_bare_name_is_where_systemd_finds_it() -> None:
    lines = {"ExecStart": (ExecLine("env", ("env", "x")),)}
    one = carried(about={"lines": lines, "programs": {"env": "/usr/bin/env"}})
    assert one.keys["command"] == ["/usr/bin/env", "x"]
    assert "systemd finds env at /usr/bin/env" in one.comments
    lost = carried(about={"lines": lines})
    assert lost.keys["command"] == ["env", "x"]
    assert any("systemd itself could not start it" in text for text in lost.warnings)


@pytest.mark.parametrize(
    ("text", "properties", "reason"),
    [
        ("", {"Type": "forking"}, "a daemon that stays"),
        ("", {"Type": "dbus"}, "takes a bus name"),
        ("[Service]\nDynamicUser=yes", {}, "DynamicUser=yes"),
        ("[Service]\nRootImage=/x.img", {}, "RootImage=/x.img"),
        ("", {"Environment": "ORCHCTL_A=1"}, "ORCHCTL_A, which the runner sets itself"),
        ("", {"Environment": "PREFECT__X=1"}, "PREFECT__X"),
        ("", {"EnvironmentFiles": "/etc/x/*.env (ignore_errors=no)"}, "is a pattern"),
    ],
)
def test_what_is_no_batch_job_is_refused(text: str, properties: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("*", r"\*")):
        carry(units(shown("job.service", **properties)).services["job.service"], details(text), me="root")


def test_what_is_not_known_exactly_is_refused_with_the_cause() -> None:
    with pytest.raises(ValueError, match=r"^no answer$"):
        carry(service(), Details((), None, problem="no answer"), me="root")
    with pytest.raises(ValueError, match="has no ExecStart="):
        carried(about={"lines": {}})
    with pytest.raises(ValueError, match="its user ghost does not exist"):
        carried(about={"account": None}, User="ghost")


def test_settings_that_change_what_the_job_does_are_warnings_others_comments() -> None:
    text = (
        "[Unit]\nConditionACPower=true\nOnFailure=x.service\nX-Mine=1\nWants=a.target\n"
        "[Service]\nMemoryMax=1G\nCPUQuota=50%\nRestart=on-failure\nStandardOutput=journal\nStandardError=append:/x\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    one = carried(text)
    assert one.warnings == ("not carried: ConditionACPower=true, Restart=on-failure",)
    assert one.comments[-1] == "not carried: Wants=a.target, MemoryMax=1G, CPUQuota=50%, StandardError=append:/x"


def test_no_secret_is_said() -> None:
    text = (
        "[Service]\nExecStop=/bin/x --api-token s3cret-value --password=hunter2 postgres://u:pw1234@h/db SEEN\n"
        "SetCredential=k:topsecret\n"
    )
    one = carried(text, Environment="API_KEY=abcd1234 SEEN=abcd1234")
    said = " ".join((*one.comments, *one.warnings))
    for secret in ("s3cret-value", "hunter2", "pw1234", "topsecret", "abcd1234"):
        assert secret not in said
    assert "(API_KEY)" in said


def test_environment_files_leave_every_variable_to_the_run() -> None:
    lines = {"ExecStart": (ExecLine("/bin/run", ("/bin/run", "${A}")),)}
    one = carried(about={"lines": lines}, Environment="A=1", EnvironmentFiles="/etc/x.env (ignore_errors=yes)")
    assert one.keys["env_files"] == ["-/etc/x.env"]
    assert one.keys["command"] == ["/bin/sh", "-c", 'exec /bin/run "$A"']
    assert one.keys["env"] == {"A": "1"}


def test_variables_that_are_unset_again_are_left_out() -> None:
    one = carried(about={"unset": ("A", "C")}, Environment="A=1 B=2")
    assert one.keys["env"] == {"B": "2"}
    assert one.warnings == ("UnsetEnvironment=C is not carried: the job has them where the worker has them",)
