"""What `systemctl show` printed on three versions of systemd, and what it might print one day."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchctl.core import systemd_show
from orchctl.core.legacy import SYSTEM, Manager, Monotonic, Service, Timer, Units
from orchctl.core.systemd_show import instant, span, units_of, words

DATA = Path(__file__).parents[1] / "data" / "systemd"
VERSIONS = ("252", "257", "262")
SHELL = "echo one\n\nId=evil.service\nNice=9\necho ; ignore_errors=no ; start_time=x }"


def recorded(version: str) -> str:
    return (DATA / f"show-{version}.txt").read_bytes().decode()


@pytest.fixture(params=VERSIONS)
def units(request: pytest.FixtureRequest) -> Units:
    return units_of(recorded(request.param), SYSTEM)


def service(units: Units, stem: str) -> Service:
    return units.services[f"zoo-{stem}.service"]


def timer(units: Units, stem: str) -> Timer:
    return units.timers[f"zoo-{stem}.timer"]


def test_a_timer_with_everything(units: Units) -> None:
    plain = timer(units, "plain")
    assert plain.calendars == (
        "Mon..Fri *-*-* 08..23:05,35:00 America/New_York",
        "*-*~01 03:00:00",
        "*-*-* 00:00:00",
    )
    assert (plain.persistent, plain.fixed_random_delay, plain.random_delay_s, plain.accuracy_s) == (
        True,
        True,
        90.0,
        1e-06,
    )
    assert (plain.load, plain.active, plain.sub, plain.enabled) == ("loaded", "active", "waiting", "enabled")
    assert plain.wanted_by == ("timers.target",)
    assert plain.next_fire is not None
    assert plain.next_fire.tzinfo is UTC
    assert plain.tolerance_s == pytest.approx(90.000001)


def test_a_service_with_everything(units: Units) -> None:
    plain = service(units, "plain")
    assert plain.exec_start == ("/bin/echo one", "/bin/echo two with blanks")
    assert (plain.user, plain.group, plain.nice, plain.working_directory) == ("nobody", "nogroup", 7, "!/nonexistent")
    assert plain.environment_files == ("/etc/zoo one.env", "-/etc/zoo-two.env")
    assert plain.environment == {"FROM": "dropin"}
    assert plain.drop_ins == (
        "/etc/systemd/system/zoo-plain.service.d/10 with blanks.conf",
        "/etc/systemd/system/zoo-plain.service.d/20-more.conf",
    )
    assert (plain.timeout_start_s, plain.timeout_stop_s, plain.runtime_max_s) == (1800.0, 90.0, 3600.0)
    assert plain.success_statuses == "3 75 USR1"
    assert plain.triggered_by == ("zoo-plain.timer",)
    assert plain.started_at is None


def test_the_environment_is_what_the_bus_says(units: Units) -> None:
    said = json.loads((DATA / "environment.json").read_bytes())["data"]
    assert dict(service(units, "quotes").environment) == dict(item.split("=", 1) for item in said)


def test_a_command_of_several_lines_does_not_pass_for_properties(units: Units) -> None:
    lines = service(units, "lines")
    assert lines.exec_start == (f"/bin/sh -c {SHELL} last",)
    assert (lines.nice, lines.main_status) == (0, 127)
    assert "evil.service" not in units.services


def test_monotonic_triggers_in_the_order_of_the_file(units: Units) -> None:
    assert timer(units, "monotonic").monotonic == (
        Monotonic("OnBootSec", 300.0),
        Monotonic("OnUnitActiveSec", 5400.0),
        Monotonic("OnUnitInactiveSec", 90.5),
        Monotonic("OnActiveSec", 86400.0),
        Monotonic("OnStartupSec", 604800.0),
    )
    assert timer(units, "monotonic").next_fire is None
    both = timer(units, "both")
    assert (both.monotonic, both.calendars) == ((Monotonic("OnBootSec", 900.0),), ("*-*-* *:00:00",))


@pytest.mark.parametrize(
    ("stem", "load", "enabled"),
    [
        ("masked", "masked", "masked"),
        ("bad", "bad-setting", "disabled"),
        ("nothing", "not-found", ""),
        ("off", "loaded", "disabled"),
        ("generated", "loaded", "generated"),
        ("run", "loaded", "transient"),
        ("at@one", "loaded", "enabled"),
        ("half-bad", "loaded", "enabled"),
    ],
)
def test_states_of_timers(units: Units, stem: str, load: str, enabled: str) -> None:
    assert (timer(units, stem).load, timer(units, stem).enabled) == (load, enabled)


def test_what_timers_are(units: Units) -> None:
    assert timer(units, "run").transient
    assert timer(units, "generated").generated
    assert service(units, "generated").source == "/etc/crontab"
    assert timer(units, "at@one").template_instance
    assert timer(units, "at@one").unit == "zoo-at@one.service"
    assert timer(units, "stale").needs_reload
    assert not timer(units, "plain").needs_reload
    assert timer(units, "pulls").pulls_by == "Requires"
    assert timer(units, "plain").pulls_by is None
    assert timer(units, "target").unit == "zoo.target"
    assert units.others["zoo.target"] == "loaded"
    assert timer(units, "half-bad").calendars == ("*-*-* 10:00:00",)
    assert timer(units, "never").sub == "elapsed"
    assert timer(units, "never").next_fire is None
    assert timer(units, "bad").load_error == "Unit zoo-bad.timer has a bad unit file setting."
    assert "zoo\\x2dodd:name_1.timer" in units.services["zoo\\x2dodd:name_1.service"].triggered_by


def test_what_services_are(units: Units) -> None:
    assert service(units, "shared").enabled_by_itself
    assert "zoo-shared-a.timer" in service(units, "shared").triggered_by
    assert service(units, "orphan").load == "not-found"
    assert units.missing_handlers(service(units, "handler")) == ("zoo-missing@zoo-handler.service.service",)
    assert service(units, "running").is_active
    assert service(units, "running").timeout_start_s is None
    assert service(units, "running").nice == -5


def test_how_runs_ended(units: Units) -> None:
    failed, killed = service(units, "failed"), service(units, "killed")
    assert (failed.result, failed.main_code, failed.main_status) == ("exit-code", 1, 3)
    assert (killed.result, killed.main_code, killed.main_status) == ("signal", 2, 9)
    assert failed.started_at is not None
    assert failed.ended_at is not None
    assert failed.ended_at >= failed.started_at
    assert failed.invocation_id is not None
    assert service(units, "running").ended_at is None


def test_the_versions_agree() -> None:
    first, *others = (units_of(recorded(version), SYSTEM) for version in VERSIONS)
    for other in others:
        assert other.timers.keys() == first.timers.keys()
        assert other.services.keys() == first.services.keys()
        assert all(other.timers[name].calendars == first.timers[name].calendars for name in first.timers)
        assert all(other.services[name].exec_start == first.services[name].exec_start for name in first.services)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("infinity", None),
        ("n/a", None),
        ("(null)", None),
        ("0", 0.0),
        ("1us", 1e-06),
        ("500ms", 0.5),
        ("1min 30.500000s", 90.5),
        ("1w 4h 51.670007s", 604800 + 14400 + 51.670007),
        ("1y 2month 3w 4d 5h 6min 7s 8ms 9us", 31557600 + 5259600 + 1814400 + 345600 + 18000 + 360 + 7.008009),
        ("60000000", 60.0),
        ("18446744073709551615", None),
        ("2µs", 2e-06),
    ],
)
def test_spans(text: str, seconds: float | None) -> None:
    assert span(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", ["soon", "5 lightyears", "1min and more", "-5s", "1.2.3s"])
def test_no_spans(text: str) -> None:
    with pytest.raises(ValueError, match="where a time span was expected"):
        span(text)


NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((nothing, None) for nothing in ("", "n/a", "[n/a]", "0", "@0", "(null)", "infinity", "18446744073709551615")),
        ("--- XXXX-XX-XX XX:XX:XX", None),
        ("Tue 2026-11-24 12:00:00 UTC", NOON),
        ("[Tue 2026-11-24 12:00:00 UTC]", NOON),
        ("2026-11-24 12:00:00 GMT", NOON),
        ("Tue 2026-11-24 12:00:00.25 UTC", NOON + timedelta(milliseconds=250)),
        ("@1795521600", NOON),
        ("@1795521600.000001", NOON + timedelta(microseconds=1)),
        ("1795521600000000", NOON),
    ],
)
def test_instants(text: str, expected: datetime | None) -> None:
    assert instant(text) == expected


@pytest.mark.parametrize(
    "text",
    ["Tue 2026-11-24 12:00:00 EST", "mar. 2026-11-24 12:00:00 UTC.", "Tue 2026-02-30 12:00:00 UTC", "@" + "9" * 30],
)
def test_no_instants(text: str) -> None:
    with pytest.raises(ValueError, match="where an instant in UTC was expected"):
        instant(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a b", ("a", "b")),
        (r'"A=say \"hi\"" B=1', ('A=say "hi"', "B=1")),
        (r'"A=a\\b\nc\td\033e\177"', ("A=a\\b\nc\td\x1be\x7f",)),
        (r"$'A=it\'s' B", ("A=it's", "B")),
        ("A=a\u2028b\u0085c B", ("A=a\u2028b\u0085c", "B")),
        (r'"A=\$HOME \`id\`"', ("A=$HOME `id`",)),
    ],
)
def test_words(text: str, expected: tuple[str, ...]) -> None:
    assert words(text) == expected


def _as_systemd_prints(word: str) -> str:
    """systemd's shell_maybe_quote(), which its own list properties go through."""
    needs = any(char in " \t\n\r\"\\`$*?['()<>|&;!" or ord(char) < 32 or ord(char) == 127 for char in word)
    if not needs:
        return word
    named = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}

    def escaped(char: str) -> str:
        if ord(char) < 32 or ord(char) == 127:
            return named.get(char, f"\\{ord(char):03o}")
        return f"\\{char}" if char in '"\\`$' else char

    return '"' + "".join(map(escaped, word)) + '"'


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1)))
def test_every_list_comes_back(values: list[str]) -> None:
    assert words(" ".join(map(_as_systemd_prints, values))) == tuple(values)


SAID = "systemd printed"


def problem(text: str) -> str:
    """Return what the parser says against a text; nothing is as good as the right words."""
    try:
        units_of(text, SYSTEM)
    except ValueError as error:
        return str(error)
    return SAID


NAMES = st.sampled_from([*systemd_show.PROPERTIES.split(","), "New", "Some2Thing"])
VALUES = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "",
            "n/a",
            "[n/a]",
            "(null)",
            "infinity",
            "yes",
            "{ ",
            " }",
            "{ x=1 ; y }",
            "a.timer",
            "a.service",
            "=",
            "\n\n",
        ]
    ),
)


@given(st.lists(st.tuples(NAMES, VALUES)))
@example([("Id", "a.timer"), ("NextElapseUSecRealtime", "morgen")])
@example([("Id", "a.service"), ("ExecStart", "{ never closed")])
def test_nothing_that_it_prints_is_more_than_a_value_error(lines: list[tuple[str, str]]) -> None:
    assert SAID in problem("".join(f"{name}={value}\n" for name, value in lines))


@given(st.text())
def test_nor_is_any_text(text: str) -> None:
    assert SAID in problem(text)


def test_what_a_newer_version_knows_is_passed_over() -> None:
    text = "Id=a.timer\nDeferReactivation=no\nUnit=b.service\nNewList=x\nNewList=y\n\nId=b.service\nNice=3\n"
    units = units_of(text, Manager("user"))
    assert units.timers["a.timer"].unit == "b.service"
    assert units.services["b.service"].nice == 3
    assert units.services["b.service"].manager == Manager("user")


def test_an_offset_that_systemd_258_adds_counts_for_the_tolerance() -> None:
    text = "Id=a.timer\nRandomizedDelayUSec=30s\nRandomizedOffsetUSec=1h\nAccuracyUSec=1min\n"
    one = units_of(text, SYSTEM).timers["a.timer"]
    assert (one.random_offset_s, one.tolerance_s) == (3600.0, 3690.0)


def test_what_an_older_version_does_not_know_is_its_default() -> None:
    units = units_of("Id=a.timer\n\n\nId=b.service\n", SYSTEM)
    assert units.timers["a.timer"].unit == "a.service"
    assert not units.timers["a.timer"].fixed_random_delay
    assert units.services["b.service"].exec_start == ()


def test_a_monotonic_elapse_is_put_on_our_clock() -> None:
    one = units_of("Id=a.timer\nNextElapseUSecMonotonic=1h\n", SYSTEM).timers["a.timer"]
    placed = systemd_show.on_the_clock(one, started=NOON - timedelta(hours=1), started_awake=NOON)
    assert placed.next_fire == NOON + timedelta(hours=1)
    woken = units_of("Id=a.timer\nNextElapseUSecMonotonic=1h\nWakeSystem=yes\n", SYSTEM).timers["a.timer"]
    assert systemd_show.on_the_clock(woken, started=NOON, started_awake=NOON - timedelta(hours=1)).next_fire == (
        NOON + timedelta(hours=1)
    )


def test_the_earlier_of_two_elapses_is_the_next() -> None:
    text = "Id=a.timer\nNextElapseUSecMonotonic=1h\nNextElapseUSecRealtime=Tue 2026-11-24 12:30:00 UTC\n"
    one = units_of(text, SYSTEM).timers["a.timer"]
    assert systemd_show.on_the_clock(one, started=NOON, started_awake=NOON).next_fire == NOON + timedelta(minutes=30)


def test_no_monotonic_elapse_changes_nothing() -> None:
    one = units_of("Id=a.timer\nNextElapseUSecMonotonic=infinity\n", SYSTEM).timers["a.timer"]
    assert systemd_show.on_the_clock(one, started=NOON, started_awake=NOON) == one
    endless = units_of("Id=a.timer\nNextElapseUSecMonotonic=9000000000000000\n", SYSTEM).timers["a.timer"]
    assert systemd_show.on_the_clock(endless, started=NOON, started_awake=NOON).next_fire != NOON
