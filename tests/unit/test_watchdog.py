"""One look after another at a host in memory: what is found, what is told, and that nothing stops it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchctl.core import watch
from orchctl.core.deliveries import Answer
from orchctl.core.doctor_facts import Backup
from orchctl.core.handover_journal import Opened
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.core.snapshot import Snapshot
from orchctl.core.watch_memory import Known
from orchctl.errors import NotAllowed
from orchctl.services import watch_checks, watchdog
from orchctl.services.alert_delivery import Round
from watching import ALERTS, NOW, Host

MINUTE = timedelta(minutes=1)
SLOT = datetime(2025, 12, 19, 12, 5, tzinfo=UTC)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def settle(host: Host, slots: int = 40) -> None:
    """Let every slot of the job have a run."""
    for number in range(slots):
        host.ran("own", SLOT + number * 5 * MINUTE)


def test_where_all_is_well_nothing_is_told_and_the_dead_man_is_pinged(host: Host) -> None:
    settle(host)
    for _ in range(30):
        look = host.look()
        assert (look.problems, look.unseen, look.sent) == ((), {}, ())
    assert host.post.pings == 30
    assert host.rule.asked_for == 1, "Prefect is asked for its instants some hours at a time"


def test_a_server_that_is_gone_is_told_once_and_its_end_once(host: Host) -> None:
    host.look()
    host.server.silent = "connection refused"
    assert host.told() == ["server_gone"]
    assert host.post.sent[0].message.about == "http://here/api"
    assert [host.told() for _ in range(5)] == [[]] * 5
    assert host.post.pings == 1
    host.server.silent = None
    assert host.told() == ["recovered"]
    assert host.told() == []


def test_it_waits_a_while_for_an_answer_and_no_longer(host: Host) -> None:
    host.server.silent = "busy"
    host.look()
    assert host.server.asked > 3
    assert host.slept <= watch_checks.PATIENCE_S


def test_after_a_boot_server_and_worker_get_time_to_come_up(host: Host) -> None:
    host.look()
    host.server.silent, host.uptime = "refused", 60.0
    assert host.told() == []
    host.uptime = 240.0
    assert host.told() == ["server_gone"]


def test_a_worker_that_is_gone(host: Host) -> None:
    host.look()
    host.beats = False
    told = {number: host.told() for number in range(1, 8)}
    assert [number for number, events in told.items() if events] == [3]
    assert told[3] == ["worker_gone"]
    message = host.post.sent[0].message
    assert message.about == "work pool nobody"
    assert "none was heard of since 2025-12-19 12:01:30Z" in str(message.reason)
    host.beats = True
    assert host.told() == ["recovered"]


def test_while_the_server_is_gone_its_workers_are_not_judged(host: Host) -> None:
    host.look()
    host.server.silent, host.beats = "refused", False
    assert [host.told() for _ in range(6)] == [["server_gone"], [], [], [], [], []]


def test_a_live_job_with_nothing_ahead_and_why(host: Host) -> None:
    host.look()
    host.server.idle = frozenset({"own"})
    assert [host.told() for _ in range(4)] == [[], [], ["nothing_scheduled"], []]
    message = host.post.sent[0].message
    assert (message.job, message.reason) == (
        "own",
        "Prefect's scheduler makes no runs for it; since 2025-12-19T12:01:30Z",
    )
    host.server.set_by_hand(host.deployment("own").id, paused=True)
    assert "is paused in Prefect" in host.look().problems[0].reason
    del host.server.by_id[host.deployment("own").id]
    assert "orchctl sync" in host.look().problems[0].reason


def test_of_a_job_that_legacy_owns_nothing_is_asked(host: Host) -> None:
    host.server.idle = frozenset({"moved"})
    settle(host)
    assert host.look(after=20 * MINUTE).problems == ()
    host.owns("moved")
    assert [each.key for each in host.look().problems] == ["ahead:moved"]


def test_missed_slots_are_told_when_it_is_too_late_for_them(host: Host) -> None:
    host.look()
    # catchup_window 10 m, missed_after 5 m: the slot of 12:05 is missed at 12:20.
    told = {number: host.told() for number in range(2, 21)}
    assert {number: events for number, events in told.items() if events} == {20: ["missed_slots"]}
    message = host.post.sent[0].message
    assert message.job == "own"
    assert "the slot 2025-12-19 12:05:00Z was not run" in str(message.reason)
    assert message.command == "orchctl runs audit --job own --since 2025-12-19T12:05:00Z"
    look = host.look(after=20 * MINUTE)
    assert "5 slots, from 2025-12-19 12:05:00Z to 2025-12-19 12:25:00Z," in look.problems[0].reason
    host.ran("own", datetime(2025, 12, 19, 12, 45, tzinfo=UTC), claim=False)
    assert host.told() == ["recovered"]
    assert host.look().problems == ()


@pytest.mark.parametrize("status", ["skipped", "observed", "success"])
def test_a_slot_that_left_any_record_is_not_missed(host: Host, status: str) -> None:
    host.look()
    for number in range(10):
        host.ran("own", SLOT + number * 5 * MINUTE, status=status, claim=False)
    assert host.look(after=30 * MINUTE).problems == ()


def test_slots_from_before_the_watch_or_of_other_schedules_or_of_legacy_are_not_missed(host: Host) -> None:
    assert host.look(after=timedelta(days=2)).problems == ()
    assert host.catalog is not None
    daily = host.catalog.jobs["own"].model_copy(update={"schedules": ("daily",)})
    host.catalog = host.catalog.model_copy(update={"jobs": {**host.catalog.jobs, "own": daily}})
    host.sync()
    assert [host.look(after=5 * MINUTE).problems for _ in range(6)] == [()] * 6


def test_an_owner_that_took_over_is_asked_for_its_own_slots_only(host: Host) -> None:
    settle(host)
    host.owners.create("moved", Owner(NOW + 12 * MINUTE, False), still=lambda: True)
    host.look()
    problems = host.look(after=40 * MINUTE).problems
    assert [each.key for each in problems] == ["missed:moved"]
    assert "from 2025-12-19 12:15:00Z" in problems[0].reason


def test_where_the_rule_gives_no_answer_the_slots_are_looked_at_later(host: Host) -> None:
    host.look()
    host.rule.broken = "Prefect's rules failed"
    look = host.look(after=30 * MINUTE)
    assert look.unseen == {"missed": "Prefect's rules failed"}
    assert [each.key for each in look.problems] == ["unseen:missed"]
    assert host.post.pings == 1
    host.rule.broken = None
    assert [each.key for each in host.look().problems] == ["missed:own"]


def test_what_cannot_be_looked_at_is_told_after_a_while_and_so_is_its_end(host: Host) -> None:
    settle(host)
    host.look()
    host.rule.broken = "Prefect's rules failed"
    host.look(after=7 * timedelta(hours=1))
    told = {number: host.told() for number in range(1, 14)}
    assert {number: events for number, events in told.items() if events} == {10: ["missed_slots"]}
    message = host.post.sent[-1].message
    assert message.about == "the look at missed"
    assert "it could not be looked at, so nobody knows: Prefect's rules failed" in str(message.reason)
    assert host.look().problems[0].key == "unseen:missed"
    assert watch.blind(host.store.memory()[0].troubles, host.now).keys() == {"missed"}
    host.rule.broken = None
    settle_until(host)
    assert "recovered" in host.told()
    assert watch.blind(host.store.memory()[0].troubles, host.now) == {}


def settle_until(host: Host) -> None:
    """Let every slot up to now have a run."""
    settle(host, int((host.now - SLOT) / (5 * MINUTE)) + 2)


def test_what_was_blind_for_a_moment_is_not_told(host: Host) -> None:
    settle(host)
    host.look()
    for turn in range(30):
        host.rule.broken = "busy" if turn % 4 else None
        host.store.keep_slots(Known(host.now, host.now))
        assert host.told() == []
    assert host.post.sent == []


def test_a_job_whose_slots_cannot_be_looked_at_hides_no_other_s(host: Host) -> None:
    host.owns("moved")
    host.look()
    # What is missed before: it is neither over nor told again while nobody can look.
    look = host.look(after=20 * MINUTE)
    assert {each.key for each in look.problems} == {"missed:own", "missed:moved"}
    read = host.claims.read

    def broken(job: str, slot: datetime) -> object:
        if job == "moved":
            raise NotAllowed("its claims may not be read")
        return read(job, slot)

    host.claims.read = broken  # type: ignore[method-assign,assignment]
    host.ran("own", host.now.replace(second=0, microsecond=0) - 5 * MINUTE, claim=False)
    look = host.look(after=5 * MINUTE)
    assert look.unseen == {"missed:moved": "its claims may not be read"}
    assert {each.key for each in look.problems} == {"unseen:missed:moved"}
    assert [(each.job, each.event, each.after_s) for each in look.problems] == [("moved", "missed_slots", 600)]
    assert look.decided.over == ("missed:own",)
    seen = host.store.memory()[0].slots["moved"]
    host.claims.read = read  # type: ignore[method-assign]
    look = host.look()
    assert {each.key for each in look.problems} == {"missed:moved"}
    assert host.store.memory()[0].slots["moved"].until > seen.until, "it goes on where it could not look"


def test_an_owner_or_a_journal_that_may_not_be_read_is_told_and_stops_nothing(host: Host) -> None:
    def refused(_job: str) -> None:
        raise NotAllowed("it may not be read")

    host.handovers.begin(Opened(run_id(NOW, "x"), "cutover", "moved", NOW, "cutover moved", Snapshot(), None, {}))
    host.owners.read = refused  # type: ignore[method-assign,assignment]
    host.handovers.open_of = refused  # type: ignore[method-assign,assignment]
    look = host.look()
    assert {each.key for each in look.problems} == {"owner:moved", "handover:moved"}
    assert look.unseen == {}


def test_an_unfinished_handover_counts_from_its_beginning(host: Host) -> None:
    settle(host)
    opened = Opened(run_id(NOW, "x"), "cutover", "moved", NOW, "cutover moved", Snapshot(), None, {})
    host.handovers.begin(opened)
    assert [host.told(after=7 * MINUTE) for _ in range(4)] == [[], [], ["handover_unfinished"], []]
    assert host.post.sent[0].message.command == "orchctl recover"
    host.handovers.end(opened, "done", host.now)
    assert host.told() == ["recovered"]


def test_a_disk_that_is_nearly_full_until_a_little_more_is_free(host: Host) -> None:
    host.free = 0.09
    assert host.told() == ["disk_full"]
    assert "9 % of its bytes are free" in str(host.post.sent[0].message.reason)
    assert "it holds state, data" in str(host.post.sent[0].message.reason)
    host.free = 0.11
    assert host.told() == []
    host.free = 0.13
    assert host.told() == ["recovered"]


def test_a_backup_that_is_too_old(host: Host) -> None:
    host.backup = Backup(NOW - timedelta(days=3), "/backups/x", None)
    assert host.told() == ["backups_old"]
    host.backup = Backup(NOW, "/backups/y", None)
    assert host.told() == ["recovered"]


def test_an_invalid_catalog_is_told_and_the_last_one_goes_on(host: Host) -> None:
    settle(host)
    host.problem = "jobs.toml:3: there is no schedule"
    assert [host.told() for _ in range(7)].count(["catalog_invalid"]) == 1
    host.server.idle = frozenset({"own"})
    assert "ahead:own" in {each.key for each in host.look().problems}


def test_without_any_catalog_the_rest_is_looked_at(host: Host) -> None:
    host.look()
    host.catalog = None
    host.server.silent = "refused"
    assert host.told() == ["server_gone"]


def test_one_check_that_breaks_does_not_silence_the_others(host: Host) -> None:
    def broken() -> None:
        raise RuntimeError("bug")

    host.look()
    host.server.silent = "refused"
    world = replace(host.world(), backup=broken)
    host.now += MINUTE
    look = watchdog.watchdog(world)
    assert look.unseen == {"backups": "unexpected RuntimeError: bug"}
    assert [each.message.event for each in host.post.sent] == ["server_gone"]


def test_what_was_not_delivered_is_sent_again_with_the_same_id(host: Host) -> None:
    host.free = 0.01
    host.post.answers["ops"] = Answer(False, "500", 4, again=True)
    look = host.look()
    assert look.undelivered
    assert look.waiting == 1
    assert not host.store.last("tests")["ops"].ok
    assert host.store.last("tests")["ops"].waiting == 1
    host.look(after=timedelta(seconds=50))
    assert len(host.post.sent) == 1, "not before it is due"
    host.post.answers.clear()
    look = host.look()
    assert not look.undelivered
    assert look.waiting == 0
    assert {letter.id for letter in host.post.sent} == {"id-0"}
    assert host.store.last("tests")["ops"].ok
    assert host.look().sent == ()


def test_while_a_message_waits_the_dead_man_is_not_pinged(host: Host) -> None:
    settle(host)
    host.post.answers["ops"] = Answer(False, "500", 4, again=True)
    host.free = 0.01
    host.look()
    host.free = 0.9
    host.look()
    assert host.post.pings == 0
    host.post.answers.clear()
    host.look(after=10 * MINUTE)
    assert host.post.pings == 1


def test_while_an_alert_of_prefects_waits_or_cannot_be_sent_the_dead_man_is_not_pinged(host: Host) -> None:
    settle(host)
    host.others = Round(sent=1, waiting=2)
    look = host.look()
    assert (look.waiting, host.post.pings) == (2, 0)
    assert look.notes == ("1 of Prefect's alerts that had to wait was delivered",)
    host.others = Round(problems=("channel ops of catalog yours: it cannot be believed",))
    look = host.look()
    assert (look.waiting, host.post.pings) == (0, 0)
    assert look.notes == (
        "what waits for Prefect's alerts was not sent: channel ops of catalog yours: it cannot be believed",
    )
    host.others = Round()
    host.look()
    assert host.post.pings == 1


def test_without_a_catalog_what_others_could_not_deliver_is_sent_too(host: Host) -> None:
    host.catalog, host.others = None, Round(sent=3)
    assert "3 of Prefect's alerts that had to wait were delivered" in host.look().notes


def test_where_nothing_can_be_written_it_is_sent_all_the_same_and_says_so(host: Host) -> None:
    (host.root / "state").mkdir()
    (host.root / "state" / "alerts").write_text("in the way")
    host.look()
    host.server.silent = "refused"
    events = host.told()
    assert "server_gone" in events
    assert "disk_full" in events
    assert any("cannot write down what it tells" in str(letter.message.reason) for letter in host.post.sent)


def test_a_dry_look_sends_and_remembers_nothing(host: Host) -> None:
    host.free = 0.01
    look = host.look(dry=True)
    assert [message.event for message in look.decided.letters["ops"]] == ["disk_full"]
    assert host.post.sent == []
    assert not (host.root / "state").exists()
    assert host.told() == ["disk_full"]


def test_a_test_is_sent_and_what_came_of_it_is_kept(host: Host) -> None:
    sending = watchdog.Sending("tests", ALERTS, host.post, host.store, "box", lambda: "id")
    (sent,) = watchdog.send_test(sending, ["ops"], at=NOW)
    assert sent.answer.ok
    assert sent.subject == "[orchctl] this is a test, and it arrived on box"
    assert host.store.last("tests")["ops"].ok
