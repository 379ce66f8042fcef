"""What `legacy` says of recorded units, beside a catalog that names some of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchctl.core import legacy_findings, legacy_report
from orchctl.core.catalog import CronTrigger, Job, TimerTrigger
from orchctl.core.crontab import CronEntry, parse
from orchctl.core.legacy import SYSTEM, Manager, Units
from orchctl.core.legacy_report import Heard, Trigger, masked, masked_environment
from orchctl.core.systemd_show import units_of
from orchctl.errors import OrchctlError, SystemdUnavailable
from orchctl.services import legacy as service

DATA = Path(__file__).parents[1] / "data" / "systemd"
USER = Manager("user")
NOW = datetime(2026, 11, 24, 17, 0, tzinfo=UTC)
ZOO = units_of((DATA / "show-262.txt").read_bytes().decode(), SYSTEM)


def job(name: str, *legacy: TimerTrigger | CronTrigger) -> Job:
    return Job(
        name=name,
        command=("true",),
        data_root="/d",
        working_directory="/w",
        work_pool="p",
        asset=name,
        legacy=legacy,
    )


def timer(name: str, **keys: Any) -> TimerTrigger:
    return TimerTrigger(timer=name, **keys)


def cron_entries(text: str, *, user: str = "daniel", file: str | None = None) -> tuple[CronEntry, ...]:
    found = parse(text, with_user=file is not None, daemon="cronie").entries
    return tuple(CronEntry(user, file, entry.line, entry.number, entry) for entry in found)


def units(text: str, manager: Manager = SYSTEM) -> Units:
    return units_of(text, manager)


def heard(*answers: Units, **changes: Any) -> Heard:
    plain = Heard(
        units={each.manager: each for each in answers},
        silent={},
        owners={USER: "daniel"},
        lingers={},
        crontab=(),
        found={},
        host_zone="America/New_York",
        now=NOW,
    )
    return replace(plain, **changes)


def seen(jobs: Sequence[Job], told: Heard, *, others: bool = True) -> tuple[Trigger, ...]:
    return legacy_report.triggers({each.name: each for each in jobs}, told, others=others)


def said(jobs: Sequence[Job], told: Heard, *, others: bool = True) -> dict[str, list[str]]:
    """Return the messages of the findings, by code."""
    found: dict[str, list[str]] = {}
    for finding in legacy_findings.findings(seen(jobs, told, others=others), told):
        found.setdefault(finding.code, []).append(finding.message)
    return found


ON = "LoadState=loaded\nActiveState=active\nSubState=waiting\nUnitFileState=enabled\n"
LOADED = "LoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=static\n"


def pair(name: str, *, timer: str = "", service: str = "") -> str:
    return f"Id={name}.timer\nUnit={name}.service\n{ON}{timer}\n\nId={name}.service\n{LOADED}{service}\n\n"


def test_groups_of_a_whole_host() -> None:
    found = seen([job("a", timer("zoo-plain.timer"))], heard(ZOO))
    groups = {each.name: each.group for each in found}
    assert groups["zoo-plain.timer"] == "job"
    assert groups["zoo-pulls.timer"] == "unnamed"
    assert groups["zoo-off.timer"] == "off"
    assert groups["zoo-masked.timer"] == "off"
    assert "zoo-nothing.timer" not in groups
    assert len(groups) == len(found)


def test_the_distributions_own_are_apart() -> None:
    text = pair("apt-daily", timer="FragmentPath=/lib/systemd/system/apt-daily.timer")
    text += pair("mine", timer="FragmentPath=/etc/systemd/system/mine.timer")
    groups = {each.name: each.group for each in seen([], heard(units(text)))}
    assert groups == {"apt-daily.timer": "distribution", "mine.timer": "unnamed"}


def test_a_timer_that_is_off_and_whose_service_is_enabled_is_not_passed_over() -> None:
    found = {each.name: each for each in seen([], heard(ZOO))}
    assert found["zoo-shared-b.timer"].group == "unnamed"
    assert not found["zoo-shared-b.timer"].on


def test_a_job_names_its_triggers_in_its_order_and_knows_what_they_start() -> None:
    one = job("a", timer("zoo-failed.timer"), timer("zoo-plain.timer"))
    first, second = seen([one], heard(ZOO), others=False)
    assert (first.name, second.name) == ("zoo-failed.timer", "zoo-plain.timer")
    assert first.service is not None
    assert first.service.name == "zoo-failed.service"
    assert first.next_fire == ZOO.timers["zoo-failed.timer"].next_fire
    assert first.on
    assert first.command == "/bin/sh -c exit 3"


def test_one_systemd_under_two_names_shows_its_timers_once() -> None:
    named = Manager("user", "daniel")
    told = heard(units(pair("a"), USER), owners={USER: "daniel", named: "daniel"})
    told = replace(told, units={**told.units, named: told.units[USER]})
    found = seen([job("a", timer("a.timer", scope="user", user="daniel"))], told)
    assert [(each.name, each.group) for each in found] == [("a.timer", "job")]


def test_findings_of_the_zoo_without_a_catalog() -> None:
    found = said([], heard(ZOO))
    assert found["starts-job"] == [
        "zoo-pulls.timer (system) has Requires= on its service: starting the timer starts the job"
    ]
    assert found["missing-handler"] == [
        "the failure handler of zoo-handler.service (system) does not exist: zoo-missing@zoo-handler.service.service"
    ]
    assert found["transient"][0].startswith("zoo-run.timer (system) is transient (systemd-run)")
    assert found["generated"] == [
        "zoo-generated.timer (system) is made by a generator from /etc/crontab: it comes back at each reload"
    ]
    assert found["missing-service"] == ["zoo-orphan.timer (system) starts zoo-orphan.service, which does not exist"]
    assert found["enabled-but-stopped"] == [
        "zoo-orphan.timer (system) is stopped and enabled: it starts again at the next boot"
    ]
    assert found["starts-at-boot"][0].startswith("zoo-shared.service (system) is enabled by itself: it starts at boot")
    assert found["several-timers"] == [
        "zoo-shared.service (system) is started by 2 timers: zoo-shared-a.timer, zoo-shared-b.timer (off)"
    ]
    assert found["elapsed"] == [
        "zoo-never.timer (system) is active and has nothing ahead: it will not fire again by itself"
    ]
    assert any(message.startswith("zoo-stale.timer (system) changed on disk") for message in found["needs-reload"])
    assert "missing-timer" not in found


@pytest.mark.parametrize("setting", ["Requires", "BindsTo", "Wants", "Upholds"])
def test_whatever_starts_the_job_with_its_timer_is_told(setting: str) -> None:
    found = said([], heard(units(pair("a", timer=f"{setting}=b.service a.service\n"))))
    assert found["starts-job"] == [f"a.timer (system) has {setting}= on its service: starting the timer starts the job"]
    assert "starts-job" not in said([], heard(units(pair("a", timer=f"{setting}=b.service\n"))))


def test_a_timer_that_is_off_and_in_no_job_is_nobodys_trouble() -> None:
    text = "Id=a.timer\nLoadState=loaded\nActiveState=inactive\nUnitFileState=disabled\nRequires=a.service\n"
    assert said([], heard(units(text))) == {}


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("zoo-plan.timer", "missing-timer", 'does not exist on this host; did you mean "zoo-plain.timer"?'),
        ("other.timer", "missing-timer", "does not exist on this host"),
        ("zoo-masked.timer", "masked", "is masked: it starts nothing"),
        (
            "zoo-bad.timer",
            "bad-setting",
            "is of no use to systemd: Unit zoo-bad.timer has a bad unit file setting.",
        ),
    ],
)
def test_a_job_names_what_is_not_there(name: str, code: str, message: str) -> None:
    jobs = [job("a", timer(name))]
    assert said(jobs, heard(ZOO), others=False) == {code: [f"{name} (system) {message}"]}
    (one,) = seen(jobs, heard(ZOO), others=False)
    assert one.missing
    assert not one.on


def test_a_systemd_that_was_not_asked() -> None:
    told = heard(silent={USER: "the systemd of user daniel does not run"})
    assert said([job("a", timer("a.timer", scope="user"))], told) == {
        "not-asked": ["a.timer (user): the systemd of user daniel does not run"]
    }


SYSTEM_COPY = pair("a", service='User=daniel\nNice=5\nWorkingDirectory=/w\nEnvironment=A=1 B=2 "C=x y"\n')
USER_COPY = pair(
    "a",
    timer="TimersCalendar={ OnCalendar=*-*-* 01:00:00 ; next_elapse=(null) }\n",
    service=(
        'Nice=0\nWorkingDirectory=/v\nEnvironment=A=2 "C=x y" D=4\nExecStart={ path=/x ; argv[]=/x y ; flags= ; }\n'
    ),
)
TWO = job("a", timer("a.timer"), timer("a.timer", scope="user"))


def differences(first: str, second: str) -> dict[str, tuple[str | None, str | None]]:
    found = legacy_findings.differences(seen([TWO], heard(units(first), units(second, USER))))
    assert all((each.job, each.first, each.second) == ("a", "system", "user") for each in found)
    return {each.key: (each.first_value, each.second_value) for each in found}


def test_copies_differ_key_by_key() -> None:
    assert differences(SYSTEM_COPY, USER_COPY) == {
        "OnCalendar": (None, "*-*-* 01:00:00"),
        "command": ("", "/x y"),
        "working directory": ("/w", "/v"),
        "nice": ("5", "0"),
        "env A": ("1", "2"),
        "env B": ("2", None),
        "env D": (None, "4"),
    }


def test_equal_copies_do_not_differ() -> None:
    assert differences(SYSTEM_COPY, SYSTEM_COPY) == {}


def test_a_copy_that_is_off_differs() -> None:
    off = SYSTEM_COPY.replace("UnitFileState=enabled", "UnitFileState=disabled").replace("=active", "=inactive")
    assert differences(SYSTEM_COPY, off) == {"enabled": ("enabled", "disabled"), "active": ("active", "inactive")}


def test_secrets_differ_and_are_not_shown() -> None:
    command = "ExecStart={ path=/x ; argv[]=/x --token=abcdef hunter2hunter2 ; flags= ; }\n"
    first = pair("a", service=f"Environment=DB_PASSWORD=hunter2hunter2 A=1\n{command}")
    second = pair("a", service=f"Environment=DB_PASSWORD=swordfish A=1\n{command}")
    found = legacy_findings.differences(seen([TWO], heard(units(first), units(second, USER))))
    assert {each.key: (each.first_value, each.second_value) for each in found} == {
        "user": ("root", "daniel"),
        "env DB_PASSWORD": ("***", "***"),
    }
    told = seen([TWO], heard(units(first), units(second, USER)))
    assert told[0].command == "/x --token=*** ***"


def test_copies_that_are_both_on_are_told() -> None:
    found = said([TWO], heard(units(SYSTEM_COPY), units(USER_COPY, USER)))
    assert found["runs-twice"] == [
        "a.timer (system) and a.timer (user) are both on: the job is started by each of them"
    ]
    off = USER_COPY.replace("ActiveState=active", "ActiveState=inactive")
    assert "runs-twice" not in said([TWO], heard(units(SYSTEM_COPY), units(off, USER)))


@pytest.mark.parametrize(("lingers", "told"), [(False, True), (True, False)])
def test_a_user_without_linger(lingers: bool, told: bool) -> None:
    found = said([TWO], heard(units(SYSTEM_COPY), units(USER_COPY, USER), lingers={USER: lingers}))
    message = "daniel is without linger: the user's timers (a) run only while daniel is logged in"
    assert found.get("no-linger") == ([message] if told else None)


def test_several_timers_say_whose_they_are() -> None:
    text = "".join(f"Id={name}.timer\nUnit=s.service\n{ON}\n" for name in "abc") + f"Id=s.service\n{LOADED}\n"
    jobs = [job("one", timer("a.timer")), job("two", timer("b.timer"))]
    found = said(jobs, heard(units(text)))
    assert found["several-timers"] == [
        "s.service (system) is started by 3 timers: a.timer, b.timer (job two), c.timer (in no job)",
        "s.service (system) is started by 3 timers: a.timer (job one), b.timer, c.timer (in no job)",
        "s.service (system) is started by 3 timers: a.timer (job one), b.timer (job two), c.timer",
    ]


def test_what_else_starts_a_service_is_told() -> None:
    found = said([], heard(units(pair("a", service="TriggeredBy=a.timer a.path\n"))))
    assert found == {"other-triggers": ["a.service (system) is also started by a.path"]}


LINE = "0 15 * * * /home/daniel/scrape.sh --password hunter2hunter2"


def cron_job(line: str = LINE, **keys: Any) -> Job:
    return job("scrape", CronTrigger(cron=line, user="daniel", **keys))


def cron_heard(one: Job, times: int | None, text: str = "") -> Heard:
    (trigger,) = one.legacy
    assert isinstance(trigger, CronTrigger)
    return heard(crontab=cron_entries(text), found={trigger: times})


def test_a_cron_line_that_is_there() -> None:
    one = cron_job()
    (found,) = seen([one], cron_heard(one, 1, f"{LINE}\n"))
    assert (found.kind, found.scope, found.on, found.missing) == ("cron", "cron", True, None)
    assert found.name == "0 15 * * * /home/daniel/scrape.sh --password ***"
    assert found.next_fire == datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
    assert said([one], cron_heard(one, 1, f"{LINE}\n")) == {}


def test_the_next_of_a_cron_line_is_in_its_own_zone() -> None:
    one = cron_job(timezone="UTC")
    (found,) = seen([one], cron_heard(one, 1))
    assert found.next_fire == datetime(2026, 11, 25, 15, 0, tzinfo=UTC)


def test_a_cron_line_that_is_gone_is_told_with_the_nearest() -> None:
    one = cron_job()
    found = said([one], cron_heard(one, 0, LINE.replace("0 15", "5 15") + "\n"))
    shown = "15 * * * /home/daniel/scrape.sh --password ***"
    message = f"the cron line of daniel (`0 {shown}`): there is no such line in it; the nearest is `5 {shown}`"
    assert found == {"missing-line": [message]}


def test_a_crontab_that_cannot_be_read() -> None:
    one = cron_job()
    (found,) = seen([one], cron_heard(one, None))
    assert (found.missing, found.on, found.next_fire) == ("that crontab cannot be read", False, None)


def test_cron_lines_that_no_job_names() -> None:
    text = "CRON_TZ=UTC\n0 1 * * * /a\n@reboot /b\n"
    found = seen([], heard(crontab=cron_entries(text)))
    assert [(each.name, each.group, each.job) for each in found] == [
        ("0 1 * * * /a", "unnamed", None),
        ("@reboot /b", "unnamed", None),
    ]
    # CRON_TZ means nothing to Debian's cron: 01:00 of the host's zone.
    assert found[0].next_fire == datetime(2026, 11, 25, 6, 0, tzinfo=UTC)
    assert found[1].next_fire is None
    (cronie,) = seen([], heard(crontab=tuple(replace(one, cronie=True) for one in cron_entries(text)[:1])))
    assert cronie.next_fire == datetime(2026, 11, 25, 1, 0, tzinfo=UTC)
    (dead,) = seen([], heard(crontab=tuple(replace(one, ignored="for line 9") for one in cron_entries(text)[:1])))
    assert (dead.on, dead.next_fire) == (False, None)
    vendor = cron_entries(
        "17 * * * * root cd / && run-parts --report /etc/cron.hourly\n", user="root", file="/etc/crontab"
    )
    assert [each.group for each in seen([], heard(crontab=vendor))] == ["distribution"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x --token abc --n 3", "x --token *** --n 3"),
        ("x --api-key='a b' y", "x --api-key=*** y"),
        ("DB_PASSWORD=abc x", "DB_PASSWORD=*** x"),
        ("x --password-file /p --verbose", "x --password-file /p --verbose"),
        ("curl -H 'Authorization: Bearer abc' u", "curl -H 'Authorization: ***' u"),
        ("x postgres://u:pw@h/d", "x postgres://u:***@h/d"),
        ("x --date=2026-01-01 A=b", "x --date=2026-01-01 A=b"),
    ],
)
def test_command_lines_are_masked(text: str, expected: str) -> None:
    assert masked(text, {}) == expected


def test_environments_are_masked() -> None:
    given = {"API_TOKEN": "abcdef", "URL": "http://u:pw@h", "COPY": "x-abcdef", "A": "1", "EMPTY_SECRET": ""}
    assert masked_environment(given) == {
        "API_TOKEN": "***",
        "URL": "http://u:***@h",
        "COPY": "x-***",
        "A": "1",
        "EMPTY_SECRET": "",
    }


class Host:
    """Systemds as a test tells them. `calls` are the managers asked, and whether for everything."""

    def __init__(self, **answers: Units | OrchctlError) -> None:
        self._answers = answers
        self.calls: list[tuple[Manager, bool]] = []

    def read(self, manager: Manager, names: Any = (), *, everything: bool = False) -> Units:
        self.calls.append((manager, everything))
        answer = self._answers.get(manager.scope, SystemdUnavailable("does not run", absent=True))
        if isinstance(answer, OrchctlError):
            raise answer
        if everything:
            return answer
        wanted = set(names) | {name.replace(".timer", ".service") for name in names}
        timers = {name: each for name, each in answer.timers.items() if name in wanted}
        return Units(manager, timers, answer.services, answer.others)

    def owner(self, manager: Manager) -> str | None:
        return (manager.user or "daniel") if manager.scope == "user" else None

    def lingers(self, manager: Manager) -> bool | None:
        return False if manager.scope == "user" else None


class Crontabs:
    def __init__(self, text: str = "", *, notes: tuple[str, ...] = ()) -> None:
        self._text, self._notes = text, notes

    def entries(self) -> tuple[tuple[CronEntry, ...], tuple[str, ...]]:
        return cron_entries(self._text), self._notes

    def find(self, trigger: CronTrigger) -> int | None:
        return self._text.splitlines().count(trigger.cron)


def survey(host: Host, *jobs: Job, whole: bool = True, crontabs: Crontabs | None = None) -> legacy_report.Report:
    named = {each.name: each for each in jobs}
    return service.survey(host, crontabs or Crontabs(), named, whole=whole, host_zone="UTC", now=NOW)


def test_a_whole_survey_asks_both_scopes_once() -> None:
    host = Host(system=ZOO, user=units("", USER))
    report = survey(host)
    assert host.calls == [(SYSTEM, True), (USER, True)]
    assert (report.notes, report.silent) == ((), ())
    assert report.of("unnamed")


def test_a_users_systemd_that_nobody_named_is_a_note_only() -> None:
    report = survey(Host(system=ZOO))
    assert (report.notes, report.silent) == (("does not run",), ())


def test_one_that_the_catalog_names_is_more_than_a_note() -> None:
    report = survey(Host(system=ZOO), job("a", timer("a.timer", scope="user")))
    assert (report.notes, report.silent) == ((), ("user: does not run",))
    assert [each.missing for each in report.of("job")] == ["does not run"]


def test_one_job_asks_only_for_its_own() -> None:
    host = Host(system=ZOO, user=units("", USER))
    report = survey(host, job("a", timer("zoo-plain.timer")), whole=False)
    assert host.calls == [(SYSTEM, False)]
    assert [each.group for each in report.triggers] == ["job"]


def test_one_job_whose_timer_is_missing_asks_for_all_to_name_the_nearest() -> None:
    host = Host(system=ZOO)
    missing = units("Id=zoo-plan.timer\nLoadState=not-found\n")
    told = replace(ZOO, timers={**ZOO.timers, **missing.timers})
    host = Host(system=told)
    report = survey(host, job("a", timer("zoo-plan.timer")), whole=False)
    assert host.calls == [(SYSTEM, False), (SYSTEM, True)]
    assert 'did you mean "zoo-plain.timer"?' in report.findings[0].message


def test_a_manager_with_two_names_is_asked_once() -> None:
    host = Host(system=ZOO, user=units(pair("a"), USER))
    report = survey(host, job("a", timer("a.timer", scope="user", user="daniel")))
    assert [manager.scope for manager, _ in host.calls] == ["system", "user"]
    assert [each.name for each in report.of("job")] == ["a.timer"]
    assert not [each for each in report.of("unnamed") if each.name == "a.timer"]


def test_where_nothing_answers_the_first_error_is_raised() -> None:
    with pytest.raises(SystemdUnavailable, match="does not run"):
        survey(Host())


def test_where_only_crontabs_answer_they_are_shown() -> None:
    report = survey(Host(), crontabs=Crontabs("0 1 * * * /a\n", notes=("root's cannot be read",)))
    assert [each.name for each in report.triggers] == ["0 1 * * * /a"]
    assert "root's cannot be read" in report.notes


def test_a_job_of_cron_lines_asks_no_systemd() -> None:
    host = Host()
    report = survey(host, cron_job(), whole=False, crontabs=Crontabs(f"{LINE}\n"))
    assert host.calls == []
    assert [each.on for each in report.triggers] == [True]


def test_every_finding_is_one_line_and_names_a_unit() -> None:
    report = survey(Host(system=ZOO, user=units(USER_COPY, USER)), TWO)
    assert report.findings
    for finding in report.findings:
        assert re.fullmatch(r"[a-z-]+", finding.code)
        assert "\n" not in finding.message
        assert finding.unit
