"""`alerts apply`: what it wants in Prefect, that a second one changes nothing, and that it touches nothing foreign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alert_cases import alerts, read
from alert_prefect import AlertPrefect
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.core import alerts_plan
from orchctl.core.alerts import Alerts, Channel, Route
from orchctl.core.alerts_plan import Change, Gathered
from orchctl.errors import OrchctlError, PrefectApiError
from orchctl.services import alerts as service

POOLS = ("local",)
ALL = Route("all", ("failed", "crashed", "timed_out", "late", "recovered", "worker_gone"), ("hook", "mail"))
JOBS = Route("jobs", ("failed",), ("hook",), jobs=("b", "a"))
TAGS = Route("tags", ("crashed",), ("mail",), tags=("nightly",))


def wanted(*routes: Route) -> dict[str, alerts_plan.WantedAutomation]:
    return dict(alerts_plan.plan(alerts(*routes), "default", POOLS, Gathered()).automations)


def applied(prefect: AlertPrefect, found: Alerts, state: Path, catalog: str = "default") -> tuple[Change, ...]:
    host = AlertBoxes(state)
    with prefect.api() as api:
        proposed = service.propose(found, catalog, POOLS, api, host)
        return service.apply(proposed, POOLS, api, host)


def proposed(prefect: AlertPrefect, found: Alerts, state: Path) -> service.Proposed:
    with prefect.api() as api:
        return service.propose(found, "default", POOLS, api, AlertBoxes(state))


def names(changes: tuple[Change, ...]) -> list[tuple[str, str]]:
    return [(each.action, each.name) for each in changes]


def test_a_route_has_an_automation_for_each_way_in_which_prefect_notices() -> None:
    assert list(wanted(ALL)) == [
        "orchctl default: all, failed or timed out or crashed",
        "orchctl default: all, late",
        "orchctl default: all, recovered",
        "orchctl default: all, worker gone",
        "orchctl default: all, worker back",
    ]


def test_what_only_the_watchdog_can_tell_needs_no_automation() -> None:
    assert wanted(Route("host", ("server_gone", "disk_full"), ("hook",))) == {}


def test_runs_that_end_badly_are_told_at_once_and_each() -> None:
    trigger = wanted(ALL)["orchctl default: all, failed or timed out or crashed"].trigger
    assert trigger["expect"] == ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"]
    assert (trigger["posture"], trigger["within"], trigger["for_each"]) == ("Reactive", 0, ["prefect.resource.id"])


def test_what_only_observed_or_was_skipped_is_no_recovery() -> None:
    trigger = wanted(ALL)["orchctl default: all, recovered"].trigger
    assert trigger["expect"] == ["prefect.flow-run.Completed"]
    assert trigger["for_each"] == ["related:deployment:prefect.resource.id"]


def test_late_is_told_where_nothing_begins_in_time() -> None:
    trigger = wanted(ALL)["orchctl default: all, late"].trigger
    assert (trigger["posture"], trigger["within"], trigger["after"]) == ("Proactive", 120, ["prefect.flow-run.Late"])
    assert "prefect.flow-run.Pending" in trigger["expect"]


def test_a_worker_is_gone_where_prefect_says_so_for_a_while() -> None:
    trigger = wanted(ALL)["orchctl default: all, worker gone"].trigger
    assert trigger["match"]["prefect.resource.name"] == ["local"]
    assert trigger["within"] == 90  # with the 90 s that Prefect waits: worker_after


def test_routes_are_narrowed_in_prefect_where_it_can() -> None:
    found = wanted(JOBS, TAGS, Route("both", ("failed",), ("hook",), jobs=("a",), tags=("t",)))
    ours = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.orchctl"}
    related = [each.trigger["match_related"] for each in found.values()]
    assert related == [
        [ours, {"prefect.resource.role": "deployment", "prefect.resource.name": ["a", "b"]}],
        [ours, {"prefect.resource.role": "tag", "prefect.resource.id": ["prefect.tag.nightly"]}],
        [ours],
    ]


def test_blocks_hold_two_names_and_no_address(tmp_path: Path) -> None:
    prefect = AlertPrefect()
    applied(prefect, read(), tmp_path, "projections")
    assert sorted((each["name"][:-9], each["data"]["channel"]) for each in prefect.blocks.values()) == [
        ("orchctl-projections-ops", "ops"),
        ("orchctl-projections-pager", "pager"),
    ]
    said = str(prefect)
    for secret in ("SLACK_URL", "/etc/orchctl", "smtp.example.org", str(tmp_path)):
        assert secret not in said


def test_a_second_apply_changes_nothing(tmp_path: Path) -> None:
    prefect, found = AlertPrefect(), alerts(ALL, JOBS, TAGS)
    assert len(applied(prefect, found, tmp_path)) == 9
    changes = prefect.changes
    assert applied(prefect, found, tmp_path) == ()
    assert prefect.changes == changes
    assert proposed(prefect, found, tmp_path).empty


def test_a_plan_makes_two_reads_and_no_change(tmp_path: Path) -> None:
    prefect = AlertPrefect()
    assert not proposed(prefect, alerts(ALL), tmp_path).empty
    assert (prefect.reads, prefect.changes) == (2, 0)
    assert not list(tmp_path.iterdir())


def _of(prefect: AlertPrefect, name: str) -> dict[str, Any]:
    return next(each for each in prefect.automations.values() if each["name"] == f"orchctl default: {name}")


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"description": "mine now"}, "description"),
        ({"tags": ["orchctl:default"]}, "tags"),
        ({"tags": []}, "tags"),
        ({"actions": []}, "actions"),
        ({"trigger": {"type": "event", "posture": "Reactive", "expect": ["prefect.flow-run.Failed"]}}, "trigger"),
    ],
)
def test_what_people_change_is_put_right(tmp_path: Path, fields: dict[str, Any], what: str) -> None:
    prefect, found = AlertPrefect(), alerts(ALL)
    applied(prefect, found, tmp_path)
    _of(prefect, "all, late").update(fields)
    (change,) = applied(prefect, found, tmp_path)
    assert (change.action, change.fields) == ("update", (what,))
    assert proposed(prefect, found, tmp_path).empty


def test_what_people_switch_off_stays_off(tmp_path: Path) -> None:
    prefect = AlertPrefect()
    applied(prefect, alerts(ALL), tmp_path)
    _of(prefect, "all, late")["enabled"] = False
    applied(prefect, alerts(ALL, late_after=60), tmp_path)
    assert _of(prefect, "all, late")["enabled"] is False
    assert proposed(prefect, alerts(ALL, late_after=60), tmp_path).plan.switched_off == ("orchctl default: all, late",)


def test_a_block_that_is_gone_or_leads_elsewhere_is_put_right(tmp_path: Path) -> None:
    prefect, found = AlertPrefect(), alerts(ALL)
    applied(prefect, found, tmp_path)
    first, second = list(prefect.blocks)
    del prefect.blocks[first]
    prefect.blocks[second]["data"] = {"catalog": "mine", "channel": "other"}
    changes = applied(prefect, found, tmp_path)
    assert [(each.kind, each.action) for each in changes][:2] == [("block", "create"), ("block", "update")]
    assert all(each.fields == ("actions",) for each in changes[2:])
    assert proposed(prefect, found, tmp_path).empty


def test_what_is_gone_from_the_file_goes_and_what_is_foreign_stays(tmp_path: Path) -> None:
    prefect = AlertPrefect()
    applied(prefect, alerts(ALL, JOBS), tmp_path)
    applied(prefect, alerts(ALL), tmp_path / "other", "other")
    mine = {"name": "orchctl default: mine", "tags": [], "trigger": {"type": "event"}, "actions": []}
    copied = {**_of(prefect, "jobs, failed"), "id": "x", "name": "Copy of orchctl default: jobs, failed"}
    prefect.automations |= {"1": {**mine, "id": "1", "enabled": True}, "x": copied}
    changes = applied(prefect, alerts(JOBS), tmp_path)
    assert {each.action for each in changes} == {"delete"}
    assert names(changes)[-1] == ("delete", alerts_plan.block_name("default", "mail"))
    left = sorted(each["name"] for each in prefect.automations.values() if "other" not in each["name"])
    assert left == ["Copy of orchctl default: jobs, failed", "orchctl default: jobs, failed", "orchctl default: mine"]
    assert len([each for each in prefect.automations.values() if "other" in each["name"]]) == 5


def test_no_two_channels_of_any_catalogs_have_one_block(tmp_path: Path) -> None:
    def named(catalog: str, channel: str, state: Path) -> None:
        found = Alerts({channel: Channel(channel, "slack")}, (Route("jobs", ("failed",), (channel,)),))
        applied(prefect, found, state, catalog)

    prefect = AlertPrefect()
    for _ in range(2):
        named("ops", "live-mail", tmp_path / "a")
        named("ops-live", "mail", tmp_path / "b")
        named("ops_live", "mail", tmp_path / "c")
    held = sorted((each["data"]["catalog"], each["data"]["channel"]) for each in prefect.blocks.values())
    assert held == [("ops", "live-mail"), ("ops-live", "mail"), ("ops_live", "mail")]
    assert len({each["name"] for each in prefect.blocks.values()}) == 3


def test_a_block_under_the_name_that_it_had_before_is_replaced_and_that_of_another_stays(tmp_path: Path) -> None:
    prefect, found = AlertPrefect(), alerts(JOBS)
    applied(prefect, found, tmp_path)
    (mine,) = prefect.blocks.values()
    mine["name"] = "orchctl-default-hook"
    theirs = {**mine, "id": "t", "name": "orchctl-default-x-hook", "data": {"catalog": "default-x", "channel": "hook"}}
    prefect.blocks["t"] = theirs
    changes = applied(prefect, found, tmp_path)
    name = alerts_plan.block_name("default", "hook")
    assert names(changes) == [
        ("create", name),
        ("update", "orchctl default: jobs, failed"),
        ("delete", "orchctl-default-hook"),
    ]
    assert sorted(each["name"] for each in prefect.blocks.values()) == sorted([name, "orchctl-default-x-hook"])
    assert proposed(prefect, found, tmp_path).empty


def test_a_double_of_ours_goes(tmp_path: Path) -> None:
    prefect, found = AlertPrefect(), alerts(JOBS)
    applied(prefect, found, tmp_path)
    prefect.automations["z"] = {**_of(prefect, "jobs, failed"), "id": "z", "created": "2026-01-01T00:00:00Z"}
    assert names(applied(prefect, found, tmp_path)) == [("delete", "orchctl default: jobs, failed")]
    assert list(prefect.automations) != ["z"]


@pytest.mark.parametrize("at", range(1, 12))
def test_an_apply_that_breaks_off_is_gone_on_with(tmp_path: Path, at: int) -> None:
    prefect, found = AlertPrefect(fails_at=at), alerts(ALL, JOBS)
    with pytest.raises(OrchctlError) as raised:
        applied(prefect, found, tmp_path)
    prefect.fails_at = None
    applied(prefect, found, tmp_path)
    assert proposed(prefect, found, tmp_path).empty
    assert (len(prefect.automations), len(prefect.blocks)) == (6, 2)
    assert "orchctl alerts apply" in (raised.value.hint or "")


def test_what_prefect_keeps_otherwise_is_told(tmp_path: Path) -> None:
    class Forgets(AlertPrefect):
        def _add(self, table: dict[str, dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
            return super()._add(table, {**body, "tags": []} if table is self.automations else body)

    with pytest.raises(PrefectApiError, match="kept something else"):
        applied(Forgets(), alerts(JOBS), tmp_path)


def test_a_route_is_in_force_or_it_is_said_why_not(tmp_path: Path) -> None:
    prefect, found = AlertPrefect(), alerts(ALL, JOBS, Route("host", ("disk_full",), ("mail",)))

    def states() -> list[str]:
        return [each.state for each in service.routes(found, "default", proposed(prefect, found, tmp_path))]

    assert states() == ["not applied", "not applied", "watchdog only"]
    applied(prefect, found, tmp_path)
    assert states() == ["in force", "in force", "watchdog only"]
    _of(prefect, "all, late")["enabled"] = False
    _of(prefect, "jobs, failed")["enabled"] = False
    assert states() == ["partly switched off", "switched off", "watchdog only"]
    _of(prefect, "jobs, failed")["actions"] = []
    assert states()[1] == "differs"
    assert [each.state for each in service.routes(found, "default", None)] == [
        "not known",
        "not known",
        "watchdog only",
    ]
