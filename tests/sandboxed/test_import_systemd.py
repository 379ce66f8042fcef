"""`import systemd` on real units: what it writes is accepted, what it carries does the same."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline_units
from box import USER, Box
from orchctl.core import templates

TIMER = "[Timer]\nOnCalendar=*-*-* 04:00:00\n[Install]\nWantedBy=timers.target\n"
RECORDER = """\
#!/usr/bin/python3
import json, os, pathlib, sys
here = pathlib.Path(__file__)
keys = [key for key in os.environ if key.startswith("Z_")]
said = dict(argv=sys.argv[1:], env={key: os.environ[key] for key in keys}, cwd=os.getcwd(), uid=os.geteuid(),
            nice=os.nice(0))
with open(here.with_suffix(".jsonl"), "a") as file:
    file.write(json.dumps(said) + "\\n")
sys.exit(int(os.environ.get("Z_EXIT", "0")))
"""
# Runs an imported job as the runner does, and prints its exit code.
RUNNER = """
import json, os, subprocess, sys
job = json.loads(sys.argv[1])
who = {"user": job["user"], "extra_groups": []} if job.get("user", "root") != "root" else {}
done = subprocess.run(job["command"], env={"PATH": os.environ["PATH"], **job["env"]}, cwd=job["working_directory"],
                      preexec_fn=lambda: os.nice(job.get("nice", 0)), **who)
print(done.returncode)
"""


@pytest.fixture
def folder(box: Box) -> Iterator[Path]:
    """A folder for catalogs and recorders, inside and outside the same."""
    place = box.share / "import"
    place.mkdir(mode=0o755)
    yield place
    box.sh("rm -rf -- $1", place)


def warnings_of(stderr: str) -> list[str]:
    return [line.removeprefix("warning: ") for line in stderr.splitlines() if line.startswith("warning: ")]


def test_the_pipeline_becomes_a_catalog_that_check_accepts(box: Box, folder: Path) -> None:
    pipeline_units.install(box)
    names = ("--config", str(folder), "--state-dir", str(folder / "state"))
    done = box.orchctl(*names, "import", "systemd", "--scope", "all", "--write", SUDO_USER=USER)
    assert done.returncode == 0, done.stderr
    jobs = tomllib.loads((folder / "jobs.toml").read_text())["jobs"]
    assert sorted(jobs) == sorted({one.name for one in pipeline_units.JOBS})
    assert jobs["live-score"]["legacy"] == [
        {"timer": "live-score.timer", "scope": "system"},
        {"timer": "live-score.timer", "scope": "user", "user": USER},
    ]
    assert jobs["live-score"]["env"] == dict(item.split("=", 1) for item in pipeline_units.SYSTEM_LIVE)
    assert box.orchctl(*names, "check").returncode == 0
    said = warnings_of(done.stderr)
    assert sum("Requires= its service" in line for line in said) == 3
    missing = [line for line in said if "status-email-user@live-score.service.service" in line]
    assert len(missing) == 2
    (differs,) = [line for line in said if line.startswith("live-score: live-score.timer (user) differs")]
    for part in ('LIVE_DISABLE_TIP_WINDOW "0" (kept: "1")', 'LIVE_SIM_PROFILE not set (kept: "sim_v3")'):
        assert part in differs
    assert not any("live-scrape.timer (user) differs" in line for line in said)
    assert any("live-score: live-score.timer: *-*-* 08..23:*:00/5 says every 5 seconds" in line for line in said)
    text = (folder / "jobs.toml").read_text()
    for name in (*(f"{one.name}.timer" for one in pipeline_units.DISABLED), *pipeline_units.PIPELINE_TIMERS):
        assert f"{name} (system)" in done.stderr
        assert name not in text

    again = box.orchctl(*names, "import", "systemd", "--write", SUDO_USER=USER)
    assert (again.returncode, again.stdout) == (0, "")
    assert "live-score.timer (user) is already a trigger of live-score: left out" in again.stderr

    before = (folder / "jobs.toml").read_bytes()
    more = box.orchctl(*names, "import", "systemd", pipeline_units.PIPELINE, "--write", SUDO_USER=USER)
    assert more.returncode == 0, more.stderr
    assert "live-pipeline.service (system) is enabled by itself: it starts at boot too" in more.stderr
    job = tomllib.loads((folder / "jobs.toml").read_text())["jobs"]["live-pipeline"]
    assert [each["timer"] for each in job["legacy"]] == sorted(pipeline_units.PIPELINE_TIMERS)
    # A drop-in clears it.
    assert job["env"]["LIVE_BACKFILL_MODE"] == ""
    lines = tomllib.loads((folder / "schedules.toml").read_text())["schedules"]["live-pipeline"]["on_calendar"]
    assert lines == ["Mon..Fri *-*-* 16..23:00/10:00", "*-*-* 08..23:00:00", "Sat,Sun *-*-* 12..23:00/15:00"]
    assert (folder / "jobs.toml").read_bytes().startswith(before)
    assert box.orchctl(*names, "check").returncode == 0


def test_what_the_copies_and_the_timers_have_besides_is_said(box: Box, folder: Path) -> None:
    box.unit("twin.timer", TIMER)
    box.unit("twin.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nMemoryMax=1G\nUMask=0077\n")
    box.unit("twin.timer", f"[Unit]\nConditionPathExists=/srv\n{TIMER}", scope="user")
    box.unit("twin.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nMemoryMax=2G\nUMask=0077\n", scope="user")
    for setting in ("Wants", "BindsTo", "Upholds"):
        box.unit(f"{setting.lower()}.timer", f"[Unit]\n{setting}={setting.lower()}.service\n{TIMER}")
        box.unit(f"{setting.lower()}.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    box.unit("if.timer", f"[Unit]\nConditionACPower=true\n{TIMER}[Timer]\nRemainAfterElapse=no\nOnCallendar=daily\n")
    box.unit("if.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    box.reload()
    names = ("--config", str(folder), "--state-dir", str(folder / "state"))
    units = ("twin", "wants", "bindsto", "upholds", "if")
    done = box.orchctl(*names, "import", "systemd", *units, SUDO_USER=USER)
    assert done.returncode == 0, done.stderr
    said = warnings_of(done.stderr)
    (differs,) = [line for line in said if line.startswith("twin: twin.timer (user) differs")]
    for part in (
        f"user {USER} (kept: root)",
        "not carried of it: MemoryMax=2G, ConditionPathExists=/srv; of the other",
    ):
        assert part in differs
    assert differs.endswith("of the other: MemoryMax=1G")
    for setting in ("Wants", "BindsTo", "Upholds"):
        assert any(f"{setting}= its service: starting the timer starts the job" in line for line in said), said
    assert "if: if.timer: not carried: ConditionACPower=true" in said
    assert "# if.timer: not carried: RemainAfterElapse=no, OnCallendar=daily" in done.stdout


def test_under_sudo_the_caller_s_timers_are_named_with_their_owner(box: Box, folder: Path) -> None:
    box.unit("own.timer", TIMER, scope="user")
    box.unit("own.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n", scope="user")
    box.reload()
    names = ("--config", str(folder), "--state-dir", str(folder / "state"))
    done = box.orchctl(*names, "import", "systemd", "own", "--scope", "user", "--write", SUDO_USER=USER)
    assert done.returncode == 0, done.stderr
    job = tomllib.loads((folder / "jobs.toml").read_text())["jobs"]["own"]
    assert job["user"] == USER
    assert job["legacy"] == [{"timer": "own.timer", "scope": "user", "user": USER}]
    assert job["working_directory"] == f"/home/{USER}"


def test_what_no_systemd_knows_is_a_wrong_word_and_writes_nothing(box: Box, folder: Path) -> None:
    done = box.orchctl("--config", str(folder), "import", "systemd", "no-such", "--write", "--scope", "system")
    assert done.returncode == 2
    assert "there is no no-such.timer on this host" in done.stderr
    assert list(folder.glob("*.toml")) == []


ZOO = {
    "quotes": """ExecStart={record} "two words" 'single "inside"' a\\x20b tab\\there "" "\\"q\\"" é ünï %% 100%%""",
    "specifiers": "ExecStart={record} %n %p %N %u %h %H\nUser=daniel\nWorkingDirectory=%S",
    "braces": 'ExecStart={record} {{a}} "{{"\nEnvironment="Z_JSON={{\\"a\\": {{}}}}"',
    "prefixes": "ExecStart=-+{record} plus minus\nUser=daniel\nEnvironment=Z_EXIT=3",
    "root-prefix": "ExecStart=!{record} as root\nUser=daniel",
    "literal": "ExecStart=:{record} $Z_A ${{Z_A}} $$\nEnvironment=Z_A=1",
    "renamed": """ExecStart=@/bin/sh zero -c '{record} "a b" "$$0"'""",
    "renamed-soft": """ExecStart=-@/bin/sh zero -c '{record} "$$0"; exit 3'""",
    "variables": (
        "ExecStart={record} $Z_A ${{Z_A}} x${{Z_A}}y $Z_NONE_ a$Z_A $$Z_A $$${{Z_A}} ${{Z_A:-b}} $Z_A/b ${{Z_A "
        "$Z_Q ${{Z_Q}} $ a$ ${{Z A}}x\n"
        "Environment='Z_A=one two' \"Z_Q=\\'three four\\' fi\\\"ve\\\" \\\\\\\\six '' end\" Z_NONE_="
    ),
    "drop-in": "ExecStart={record} first\nEnvironment=Z_A=1 Z_B=2",
    "drop-in.d/10.conf": "ExecStart=\nExecStart={record} second $Z_A\nEnvironment=Z_A=3\nUnsetEnvironment=Z_B",
    "several": "ExecStart={record} one\nExecStart=-{record} two $Z_A\nExecStart={record} three\nEnvironment='Z_A=a b'",
    "around": "ExecStartPre={record} before\nExecStart={record} it\nExecStartPost={record} after",
    "files": (
        'ExecStart={record} ${{Z_A}} $Z_A $Z_B [${{Z_MISSING}}] "a b" ${{Z_B}}${{Z_A}}\n'
        "Environment=Z_B=unit 'Z_C=x y'\nEnvironmentFile={file}\nEnvironmentFile=-/etc/no-such-file"
    ),
    "home": "ExecStart={record} x\nUser=daniel\nWorkingDirectory=~\nNice=7",
}


@pytest.fixture
def zoo(box: Box, folder: Path) -> dict[str, Path]:
    """Install the zoo, let systemd run each unit once, and return where each one's recordings are."""
    box.inside.add_user(USER)
    (folder / "vars.env").write_text("Z_A=from the file\nZ_B='over  ruled'\n")
    places = {}
    for name, text in ZOO.items():
        stem = name.partition(".d/")[0]
        record = folder / f"record-{stem}"
        if stem not in places:
            record.write_text(RECORDER)
            record.chmod(0o755)
            places[stem] = record.with_suffix(".jsonl")
            places[stem].touch()
            places[stem].chmod(0o666)
            box.unit(f"{stem}.timer", TIMER)
        body = text.format(record=record, file=folder / "vars.env")
        unit = f"{stem}.service" if stem == name else f"{stem}.service.d/10.conf"
        box.unit(unit, f"[Service]\n{'Type=oneshot' if stem == name else ''}\n{body}\n")
    box.reload()
    for stem in places:
        box.systemctl("start", f"{stem}.service", check=False)
    return places


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_imported(box: Box, job: dict[str, Any]) -> str:
    values = dict.fromkeys(templates.WORDS, "")
    env = {key: templates.render(value, values) for key, value in job.get("env", {}).items()}
    for file in job.get("env_files", ()):
        path = Path(file.removeprefix("-"))
        if path.exists():
            pairs = (line.partition("=") for line in path.read_text().splitlines())
            env |= {key: value.strip("'") for key, _, value in pairs}
    whole = {**job, "env": env, "command": [templates.render(word, values) for word in job["command"]]}
    return box.python(RUNNER, json.dumps(whole)).communicate(timeout=20)[0].strip()


def test_an_imported_command_does_what_systemd_did(box: Box, folder: Path, zoo: dict[str, Path]) -> None:
    names = ("--config", str(folder), "--state-dir", str(folder / "state"))
    done = box.orchctl(*names, "import", "systemd", *zoo, "--scope", "system", "--write")
    assert done.returncode == 0, done.stderr
    jobs = tomllib.loads((folder / "jobs.toml").read_text())["jobs"]
    assert sorted(jobs) == sorted(zoo)
    for stem, path in zoo.items():
        by_systemd = recorded(path)
        assert by_systemd, f"{stem} did not run under systemd"
        path.write_text("")
        code = run_imported(box, jobs[stem])
        assert recorded(path) == by_systemd, f"{stem}: {jobs[stem]['command']}"
        assert code == "0", stem
    assert box.orchctl(*names, "check").returncode == 0


def test_without_a_bus_only_what_is_certain_is_read(box: Box, folder: Path, zoo: dict[str, Path]) -> None:
    names = ("--config", str(folder), "--state-dir", str(folder / "state"))
    nowhere = "unix:path=/run/no-such-bus"
    words = ["import", "systemd", *zoo, "--scope", "system", "--write"]
    done = box.orchctl(*names, *words, DBUS_SYSTEM_BUS_ADDRESS=nowhere)
    assert done.returncode == 4, done.stderr
    jobs = tomllib.loads((folder / "jobs.toml").read_text())["jobs"]
    refused = {line.split()[1]: line for line in done.stderr.splitlines() if line.startswith("refused: ")}
    assert {name for name in zoo if f"{name}.timer" in refused} == {
        "quotes",
        "specifiers",
        "braces",
        "renamed",
        "renamed-soft",
        "files",
    }
    assert "quotes, which only systemd can read" in refused["files.timer"]
    for stem, job in jobs.items():
        by_systemd = recorded(zoo[stem])
        zoo[stem].write_text("")
        run_imported(box, job)
        assert recorded(zoo[stem]) == by_systemd, stem


REFUSED = {
    "forks": ("[Service]\nType=forking\nExecStart=/bin/true\n", "a daemon that stays"),
    "ephemeral": ("[Service]\nType=oneshot\nDynamicUser=yes\nExecStart=/bin/true\n", "DynamicUser=yes"),
    "elsewhere": ("[Service]\nType=oneshot\nRootDirectory=/srv\nExecStart=/bin/true\n", "RootDirectory=/srv"),
    "stranger": ("[Service]\nType=oneshot\nUser=no-such-user\nExecStart=/bin/true\n", "no-such-user does not exist"),
    "own-var": ("[Service]\nType=oneshot\nExecStart=/bin/echo $INVOCATION_ID\n", "which systemd alone sets"),
    "reserved": ("[Service]\nType=oneshot\nEnvironment=ORCHCTL_X=1\nExecStart=/bin/true\n", "ORCHCTL_X"),
    "mixed": (
        "[Service]\nType=oneshot\nUser=daniel\nExecStartPre=+/bin/true\nExecStart=/bin/true\n",
        "some of its commands run as root",
    ),
    "broken": ("[Service]\nType=oneshot\n", "bad-setting"),
    "nothing": (None, "nothing.service, which does not exist"),
}


def test_each_unit_that_cannot_be_a_job_is_refused_with_its_own_reason(box: Box, folder: Path) -> None:
    box.inside.add_user(USER)
    for name, (service, _) in REFUSED.items():
        box.unit(f"{name}.timer", TIMER)
        if service is not None:
            box.unit(f"{name}.service", service)
    box.unit("good.timer", TIMER)
    box.unit("good.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    box.unit("to-target.timer", "[Timer]\nUnit=basic.target\nOnCalendar=daily\n")
    box.unit("no-line.timer", "[Timer]\nOnCalendar=not a day\n")
    box.unit("pattern@.timer", TIMER)
    box.reload()
    box.systemctl("mask", "--runtime", "fstrim.timer")
    box.sh("systemd-run --quiet --on-calendar='*-*-* 05:00' --unit=passing /bin/true")
    reasons = {f"{name}.timer": reason for name, (_, reason) in REFUSED.items()} | {
        "to-target.timer": "it starts basic.target, which is no service",
        "no-line.timer": "systemd cannot load it (bad-setting",
        "pattern@.timer": "it is a template",
        "passing.timer": "it is transient",
        "fstrim.timer": "it is masked",
    }
    words = ["import", "systemd", "good", *reasons, "--scope", "system", "--json"]
    done = box.orchctl("--config", str(folder), *words)
    box.systemctl("unmask", "--runtime", "fstrim.timer")
    box.systemctl("stop", "passing.timer")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"]) == (4, "partial")
    assert [job["name"] for job in answer["data"]["jobs"]] == ["good"]
    refused = {each["what"].partition(" ")[0]: each["reason"] for each in answer["data"]["refused"]}
    assert refused.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in refused[name], (name, refused[name])

    alone = box.orchctl("--config", str(folder), "import", "systemd", "forks", "--scope", "system", "--write")
    assert alone.returncode == 1
    assert list(folder.glob("*.toml")) == []


def test_what_a_job_cannot_hold_is_said_with_its_value_and_without_secrets(box: Box, folder: Path) -> None:
    box.unit("limited.timer", TIMER)
    text = """\
        [Unit]
        ConditionPathExists=/etc
        [Service]
        Type=oneshot
        MemoryMax=1G
        PrivateTmp=yes
        Environment="DB_PASSWORD=hunter2hunter2"
        ExecStopPost=/bin/echo --token=abcdefgh
        SetCredential=key:value1234
        SuccessExitStatus=3
        ExecStart=/bin/true
        """
    box.unit("limited.service", textwrap.dedent(text))
    box.unit("limited.service.d/50.conf", "[Service]\nMemoryMax=2G\n")
    box.reload()
    done = box.orchctl("--config", str(folder), "import", "systemd", "limited", "--scope", "system")
    assert done.returncode == 0, done.stderr
    comments = "".join(line for line in done.stdout.splitlines() if line.startswith("#"))
    assert "MemoryMax=2G, PrivateTmp=yes" in comments
    assert "MemoryMax=1G" not in comments
    for said in ("ConditionPathExists=/etc", "SuccessExitStatus=3", "--token=***", "SetCredential=***"):
        assert said in done.stderr
    assert "hunter2" not in done.stderr + comments
    assert "env holds what looks like a secret (DB_PASSWORD)" in done.stderr
    (job,) = tomllib.loads(done.stdout)["jobs"].values()
    assert job["env"] == {"DB_PASSWORD": "hunter2hunter2"}
