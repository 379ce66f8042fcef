"""Which timers become jobs, which of them are one job, and when it runs."""

from __future__ import annotations

from typing import Any

import pytest

from made_units import calendars, monotonic, service, shown, timer, units
from orchctl.core import catalog_edit, import_jobs, import_units
from orchctl.core.import_cadence import Cadence, cadence
from orchctl.core.import_choice import Candidate, choose, groups, surprises
from orchctl.core.import_jobs import name_of
from orchctl.core.import_units import Carried
from orchctl.core.legacy import SYSTEM, Manager, Timer
from orchctl.core.unit_text import settings

USER = Manager("user")
NEW_YORK = "America/New_York"


def when(*timers: Timer, text: str = "", zone: str = "UTC", default: str = "UTC") -> Cadence:
    return cadence(
        timers,
        {each.name: settings(text) for each in timers},
        lambda keys: catalog_edit.schedule_problem(keys, default),
        host_zone=zone,
        default_zone=default,
    )


def on(*lines: str, **properties: str) -> Timer:
    text = shown("job.timer", TimersCalendar=calendars(*lines), **properties)
    return units(text).timers["job.timer"]


def test_a_calendar_is_taken_as_systemd_writes_it() -> None:
    one = when(on("*-*-* 04:00:00"))
    assert one.keys == {"on_calendar": "*-*-* 04:00:00"}
    assert one.job_keys == {"catchup": "skip"}
    assert (one.comments, one.warnings) == ((), ())
    assert when(on("*-*-* 04:00:00", "Mon *-*-* 05:00:00")).keys == {
        "on_calendar": ["*-*-* 04:00:00", "Mon *-*-* 05:00:00"]
    }


def test_the_zone_is_the_hosts_where_the_expression_names_none() -> None:
    assert when(on("*-*-* 04:00:00"), zone=NEW_YORK).keys == {"on_calendar": "*-*-* 04:00:00", "timezone": NEW_YORK}
    assert when(on("*-*-* 04:00:00 Europe/Berlin"), zone=NEW_YORK).keys == {
        "on_calendar": "*-*-* 04:00:00 Europe/Berlin"
    }
    assert when(on("*-*-* 04:00:00"), zone=NEW_YORK, default=NEW_YORK).keys == {"on_calendar": "*-*-* 04:00:00"}


@pytest.mark.parametrize(
    ("line", "window"),
    [
        ("*-*-* 08..23:05,35:00", "2d"),
        ("Mon..Fri *-*-* 10:00:00", "8d"),
        ("*-*-1..7 01:00:00", "63d"),
        ("*-*~01 01:00:00", "63d"),
        ("Sun *-*-1..7 01:00:00", "366d"),
        ("*-01,07-01 00:00:00 UTC", "366d"),
    ],
)
def test_a_persistent_timer_may_run_late_until_a_later_slot_takes_over(line: str, window: str) -> None:
    assert when(on(line, Persistent="yes")).job_keys == {"catchup": "latest", "catchup_window": window}


def test_what_the_catalog_cannot_say_has_no_schedule_and_the_reason() -> None:
    one = when(on("2012-11-23 11:12:13"))
    refused = when(on("*-*-* 10:00:00.5"))
    assert refused.keys is None
    assert refused.job_keys == {}
    assert refused.warnings[0].startswith('it has no schedule: OnCalendar="*-*-* 10:00:00.5": ')
    assert one.keys is None or one.keys == {"on_calendar": "2012-11-23 11:12:13"}


def test_seconds_that_may_have_meant_minutes_are_pointed_out() -> None:
    (said,) = when(on("*-*-* 08..23:*:00/5")).warnings
    assert "says every 5 seconds; with AccuracySec=1m systemd starts it less often than that" in said
    assert when(on("*-*-* 08..23:*:00/5", AccuracyUSec="100ms")).warnings == ()
    assert when(on("*-*-* 08..23:00/5:30")).warnings == ()


def test_an_interval_counts_from_starts_and_drifts() -> None:
    one = when(timer(TimersMonotonic=monotonic(("OnBootUSec", "15min"), ("OnUnitActiveUSec", "1d"))))
    assert one.keys == {"every": "1d"}
    assert one.comments[1] == "OnBootSec=15m: the start after a boot is not carried"
    assert "so that it drifts" in one.comments[0]
    assert when(timer(TimersMonotonic=monotonic(("OnUnitActiveUSec", "5min"))), default=NEW_YORK).keys == {
        "every": "5m",
        "timezone": "UTC",
    }


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ((("OnBootUSec", "1min"), ("OnUnitInactiveUSec", "15min")), 'from the end of each run, which Prefect cannot; the nearest is every = "15m"'),  # noqa: E501
        ((("OnBootUSec", "1min"),), "OnBootSec=1m is no cadence"),
        ((("OnStartupUSec", "30s"), ("OnActiveUSec", "1min")), "OnStartupSec=30s, OnActiveSec=1m is no cadence"),
        ((("OnUnitActiveUSec", "500ms"),), "OnUnitActiveSec=0.5s is no whole number of seconds"),
    ],
)  # fmt: skip
def test_what_is_no_cadence_has_no_schedule(pairs: tuple[tuple[str, str], ...], said: str) -> None:
    one = when(timer(TimersMonotonic=monotonic(*pairs)))
    assert one.keys is None
    assert said in one.warnings[0]


def test_what_stands_beside_a_calendar_is_said() -> None:
    one = when(on("*-*-* 04:00:00", TimersMonotonic=monotonic(("OnBootUSec", "1min"), ("OnUnitActiveUSec", "3h"))))
    assert one.comments == ("OnBootSec=1m is not carried",)
    assert one.warnings == ("OnUnitActiveSec=3h beside OnCalendar= is not carried",)
    events = when(timer(), text="[Timer]\nOnClockChange=yes\n")
    assert "it has no schedule: OnClockChange= is no cadence" in " ".join(events.warnings)


def test_delays_accuracy_and_waking_are_said() -> None:
    delays = {"RandomizedDelayUSec": "30s", "FixedRandomDelay": "yes", "AccuracyUSec": "1h", "WakeSystem": "yes"}
    one = when(on("*-*-* 04:00:00", **delays, RandomizedOffsetUSec="5min"))
    assert [text.partition(" is not")[0] for text in one.comments] == [
        "RandomizedDelaySec=30s, the same each time (FixedRandomDelay=)",
        "RandomizedOffsetSec=5m",
        "AccuracySec=1h",
        "WakeSystem=yes",
    ]


def test_lines_that_systemd_ignores_are_pointed_out() -> None:
    text = "[Timer]\nOnCalendar=04:00 # at night\nOnCalendar=05:00\nTimeZone=Asia/Kolkata\n"
    said = " ".join(when(on("*-*-* 05:00:00"), text=text).warnings)
    assert "has 2 OnCalendar= lines, and systemd took 1" in said
    assert "TimeZone=Asia/Kolkata is no setting of systemd" in said


def beside(text: str, own: Timer) -> tuple[list[str], list[str]]:
    return import_units.of_timer(own, settings(text))


def test_what_else_a_timers_file_sets_is_said() -> None:
    text = (
        "[Unit]\nDescription=x\nAfter=y.service\nConditionACPower=true\nAssertPathExists=/srv\nPartOf=cron.target\n"
        "Requires=job.service\nWants=network-online.target\n"
        "[Timer]\nOnCalendar=04:00\nAccuracySec=1h\nRemainAfterElapse=no\nOnCallendar=daily\nTimeZone=UTC\n"
        "[Install]\nWantedBy=timers.target\n"
    )
    comments, warnings = beside(text, on("*-*-* 04:00:00"))
    left = "PartOf=cron.target, Wants=network-online.target, RemainAfterElapse=no, OnCallendar=daily"
    assert comments == [f"job.timer: not carried: {left}"]
    assert warnings == ["job.timer: not carried: ConditionACPower=true, AssertPathExists=/srv"]
    assert beside("[Timer]\nOnCalendar=04:00\nRemainAfterElapse=yes\n", on("*-*-* 04:00:00")) == ([], [])


def chosen(*blocks: str, named: bool = False, taken: dict[tuple[str, str], str] | None = None) -> Any:
    return choose([units(*blocks)], taken or {}, named=named)


PAIR = (shown("a.timer", TimersCalendar=calendars("*-*-* 04:00:00")), shown("a.service"))


def test_what_is_on_is_taken_what_is_off_or_packaged_is_named() -> None:
    off = shown("off.timer", ActiveState="inactive", UnitFileState="disabled")
    packaged = shown("os.timer", FragmentPath="/usr/lib/systemd/system/os.timer")
    rest = (shown("off.service"), shown("os.service"))
    some = chosen(*PAIR, off, packaged, *rest)
    assert [each.timer.name for each in some.candidates] == ["a.timer"]
    assert [note.partition(":")[2].strip() for note in some.notes] == ["off.timer (system)", "os.timer (system)"]
    everything = chosen(*PAIR, off, packaged, *rest, named=True)
    assert len(everything.candidates) == 3
    assert everything.notes == []


def test_a_timer_that_a_job_names_is_left_out() -> None:
    some = chosen(*PAIR, taken={("system", "a.timer"): "alpha"})
    assert some.candidates == []
    assert some.notes == ["a.timer (system) is already a trigger of alpha: left out"]
    assert len(chosen(*PAIR, taken={("user", "a.timer"): "alpha"}).candidates) == 1


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"LoadState": "masked"}, "it is masked"),
        ({"LoadState": "bad-setting", "LoadError": 'x "Unit a.timer has a bad setting."'}, "(bad-setting: Unit a.timer has a bad setting)"),  # noqa: E501
        ({"Transient": "yes"}, "it is transient"),
        ({"UnitFileState": "generated", "SourcePath": "/etc/crontab"}, "a generator makes it from /etc/crontab"),
        ({"Unit": "mail.target"}, "it starts mail.target, which is no service"),
        ({"Unit": "gone.service"}, "it starts gone.service, which does not exist"),
    ],
)  # fmt: skip
def test_a_timer_that_cannot_be_a_job_is_refused(properties: dict[str, str], reason: str) -> None:
    some = chosen(shown("a.timer", **properties), PAIR[1], shown("gone.service", LoadState="not-found"), named=True)
    (refusal,) = some.refused
    assert refusal.what == "a.timer (system)"
    assert reason in refusal.reason


def candidate(name: str, unit: str = "", *, manager: Manager = SYSTEM, **properties: str) -> Candidate:
    wanted = unit or name.replace(".timer", ".service")
    found = timer(name, manager=manager, Unit=wanted, **properties)
    return Candidate(found, service(wanted, manager=manager), units(manager=manager))


def test_copies_in_two_scopes_and_timers_of_one_service_are_one_job() -> None:
    ours = [candidate("a.timer", manager=USER), candidate("b.timer", "a.service"), candidate("c.timer")]
    found = groups([*ours, candidate("a.timer")])
    labels = [[each.label for each in group] for group in found]
    assert labels == [["a.timer (system)", "b.timer (system)", "a.timer (user)"], ["c.timer (system)"]]


def test_two_timers_of_one_service_give_one_job_with_both_cadences() -> None:
    group = [
        candidate("a.timer", TimersCalendar=calendars("*-*-* 04:00:00")),
        candidate("b.timer", "a.service", TimersCalendar=calendars("*-*-* 05:00:00")),
        candidate("a.timer", manager=USER, TimersCalendar=calendars("*-*-* 06:00:00")),
    ]
    kept = Carried({"command": ["/bin/a"], "env": {"LEVEL": "1", "DB_PASSWORD": "secret-1"}, "nice": 0}, (), ())
    copy = Carried({"command": ["/bin/b"], "env": {"DB_PASSWORD": "secret-2", "MORE": "2"}, "nice": 5}, (), ())
    made = import_jobs.draft(
        group,
        [kept, kept, copy],
        [{}, {}, {}],
        lambda _: None,
        owners=[None, None, "ann"],
        host_zone="UTC",
        default_zone="UTC",
    )
    assert made.name == "a"
    assert made.schedule is not None
    assert made.schedule.keys == {"on_calendar": ["*-*-* 04:00:00", "*-*-* 05:00:00"]}
    assert made.triggers == (
        {"timer": "a.timer", "scope": "system"},
        {"timer": "b.timer", "scope": "system"},
        {"timer": "a.timer", "scope": "user", "user": "ann"},
    )
    (said,) = made.warnings
    assert said == (
        "a.timer (user) differs from a.timer (system): command /bin/b (kept: /bin/a); nice 5 (kept: 0); "
        'DB_PASSWORD *** (kept: ***); LEVEL not set (kept: "1"); MORE "2" (kept: not set); '
        "cadence *-*-* 06:00:00 (kept: *-*-* 04:00:00, *-*-* 05:00:00)"
    )


def copies(*made: tuple[Carried, str, dict[str, str]]) -> tuple[str, ...]:
    """Return what is said of the copies of one job: its service, the text of its timer, and properties of that."""
    managers = (SYSTEM, USER)
    return import_jobs.draft(
        [candidate("a.timer", manager=where, **shows) for where, (_, _, shows) in zip(managers, made, strict=True)],
        [carried for carried, _, _ in made],
        [{"a.timer": settings(text)} for _, text, _ in made],
        lambda _: None,
        owners=[None, None],
        host_zone="UTC",
        default_zone="UTC",
    ).warnings


def test_copies_that_differ_in_what_is_not_carried_are_told_apart() -> None:
    def of(runs_as: str, text: str) -> Carried:
        left = {each: f"{each.key}={each.value}" for each in settings(text)}
        return Carried({"command": ["/bin/a"]}, (), (), runs_as, left)

    due = {"TimersCalendar": calendars("*-*-* 04:00:00")}
    one = (of("root", "[Service]\nMemoryMax=1G\nUMask=0077\n"), "", due)
    assert copies(one, one) == ()
    other = of("ann", "[Service]\nMemoryMax=2G\nUMask=0077\n[Unit]\nConditionPathExists=/x\n")
    said = copies(one, (other, "[Timer]\nRemainAfterElapse=no\n", {**due, "AccuracyUSec": "1s", "WakeSystem": "yes"}))
    assert said == (
        (
            "a.timer (user) differs from a.timer (system): user ann (kept: root); "
            "cadence *-*-* 04:00:00, AccuracySec=1s, WakeSystem=yes (kept: *-*-* 04:00:00); "
            "not carried of it: MemoryMax=2G, ConditionPathExists=/x, RemainAfterElapse=no; of the other: MemoryMax=1G"
        ),
    )
    secrets = settings("[Service]\nSetCredential=a:1\nSetCredential=a:2\n")
    hidden = [Carried({"command": ["/bin/a"]}, (), (), "root", {each: "SetCredential=***"}) for each in secrets]
    (said_of_secrets,) = copies((hidden[0], "", due), (hidden[1], "", due))
    assert said_of_secrets.endswith("not carried of it: SetCredential=***; of the other: SetCredential=***")


@pytest.mark.parametrize("setting", ["Requires", "BindsTo", "Wants", "Upholds"])
def test_whatever_starts_the_service_with_its_timer_is_said(setting: str) -> None:
    answer = units(shown("a.timer", **{setting: "b.service a.service"}), shown("a.service"))
    said = list(surprises([Candidate(answer.timers["a.timer"], answer.services["a.service"], answer)]))
    assert said == [f"a.timer (system) {setting}= its service: starting the timer starts the job at once"]


def test_what_an_operator_should_know_of_the_units_is_said() -> None:
    answer = units(
        shown("a.timer", Requires="a.service", NeedDaemonReload="yes"),
        shown("a.service", OnFailure="x@a.service", UnitFileState="enabled", TriggeredBy="a.timer a.path"),
        shown("x@a.service", LoadState="not-found"),
    )
    said = list(surprises([Candidate(answer.timers["a.timer"], answer.services["a.service"], answer)]))
    assert said == [
        "a.timer (system) Requires= its service: starting the timer starts the job at once",
        "a.timer (system) has changed on disk since systemd read it: `systemctl daemon-reload`, then import again",
        "a.service (system) is enabled by itself: it starts at boot too, whatever its timer does",
        "a.service (system) is also started by a.path, which this job does not replace",
        "the failure handler of a.service (system) does not exist: x@a.service",
    ]


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("live-score.service", "live-score"),
        ("Foo@bar.service", "foo-bar"),
        (r"a\x2db.c.service", "a-b-c"),
        ("_x_.service", "x"),
        ("é.service", "job"),
        (f"{'a' * 80}.service", "a" * 63),
    ],
)
def test_a_units_name_becomes_one_that_a_job_may_have(unit: str, name: str) -> None:
    assert name_of(unit) == name
