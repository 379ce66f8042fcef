"""The outbox: what waits, when it is sent again, and how much of it there may be; and what of it is on the disk."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchctl.adapters.deliveries import Deliveries
from orchctl.core import deliveries
from orchctl.core.alerts import Alerts, Channel, Message
from orchctl.core.deliveries import Answer, Delivery, Letter
from orchctl.core.watch import Trouble
from orchctl.core.watch_memory import Known, Memory, Missed, Watched, Written
from orchctl.errors import StateBroken

NOW = datetime(2025, 12, 19, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ALERTS = Alerts({name: Channel(name, "slack") for name in ("a", "b")})
LATER = Answer(False, "500", 4, again=True)
NEVER = Answer(False, "401", 1, again=False)


def letter(id: str = "1", channel: str = "a", *, age: timedelta = timedelta(0)) -> Letter:  # noqa: A002
    message = Message("disk_full", NOW, "box", about="/srv", reason="3 % are free")
    return Letter(id, channel, message, NOW - age, NOW - age)


def test_what_was_delivered_is_gone_and_what_was_not_waits_longer_each_time() -> None:
    assert deliveries.after(letter(), Answer(True, "ok", 1), NOW) is None
    waits, left = [], letter()
    for _ in range(8):
        found = deliveries.after(left, LATER, NOW)
        assert found is not None
        waits.append((found.due - NOW) // MINUTE)
        left = found
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_channel_with_nothing_due_is_left_alone() -> None:
    waiting = replace(letter(), due=NOW + MINUTE)
    assert deliveries.to_send([waiting], NOW) == {}
    assert deliveries.to_send([waiting], NOW + MINUTE) == {"a": (waiting,)}


def test_what_was_refused_for_good_goes_with_the_next_message_after_it() -> None:
    refused = deliveries.after(letter("old", age=MINUTE), NEVER, NOW)
    assert refused is not None
    assert deliveries.to_send([refused], NOW + timedelta(hours=9)) == {}
    found = deliveries.to_send([refused, letter("new"), letter("x", "b")], NOW)
    assert {name: [each.id for each in letters] for name, letters in found.items()} == {"a": ["new", "old"], "b": ["x"]}


def test_it_is_bounded_in_number_and_in_time_and_says_what_was_lost() -> None:
    many = [letter(f"{number:03}", age=timedelta(seconds=100 - number)) for number in range(25)]
    kept = deliveries.kept(
        [*many, letter("ancient", "b", age=timedelta(days=4)), letter("foreign", "gone")], ALERTS, NOW
    )
    assert [each.id for each in kept] == [f"{number:03}" for number in range(5, 25)]
    assert "and 5 earlier messages that could not be delivered" in kept[0].told.text
    assert (kept[0].told.count, kept[0].message.count, kept[1].lost) == (6, 1, 0)


def test_the_number_of_lost_messages_stays_true_when_the_one_that_carries_it_is_lost() -> None:
    left, told = tuple[Letter, ...](), list[str]()
    for number in range(25):
        left = deliveries.kept([*left, letter(f"{number:03}", age=timedelta(seconds=100 - number))], ALERTS, NOW)
        told.append(left[0].told.text)
    assert "(and 1 earlier message that could not be delivered)" in told[20]
    assert "and 5 earlier messages that could not be delivered" in told[24]
    assert [each.id for each in left] == [f"{number:03}" for number in range(5, 25)]
    assert Letter.from_json(left[0].to_json()) == left[0]
    days_later = deliveries.kept([*left, letter("new", age=timedelta(days=-3))], ALERTS, NOW + timedelta(days=3))
    assert [(each.id, each.lost) for each in days_later] == [("new", 25)]


def test_what_may_have_arrived_is_repeated_ever_more_rarely() -> None:
    silent, left, waits = replace(LATER, fault="silence"), letter(), list[int]()
    for _ in range(11):
        found = deliveries.after(left, silent, NOW)
        assert found is not None
        waits.append((found.due - NOW) // MINUTE)
        left = found
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 480, 480]


def memory() -> Memory:
    return Memory(
        troubles={"disk:/srv": Trouble("disk_full", NOW, about="/srv", told=NOW, channels=("a",))},
        well_at={"server": NOW},
        slots={"j": Watched("ab-1", NOW, Missed(2, NOW - MINUTE, NOW)), "k": Watched("cd-2", NOW)},
        outbox=(letter(), replace(letter("2", "b"), held=True, tries=3)),
        digest="sha256:00",
    )


def test_it_is_read_as_it_was_written_and_is_the_owners_alone(tmp_path: Path) -> None:
    store = Deliveries(tmp_path / "state")
    assert store.memory() == (Memory(), None)
    assert store.remember(memory(), NOW) == Written()
    assert store.memory() == (memory(), None)
    known = Known(NOW, NOW + MINUTE, {"ab-1": [1, 2]})
    assert store.slots() is None
    assert store.keep_slots(known) is None
    assert store.slots() == known
    assert store.note("mine", "a", LATER, NOW, waiting=2) is None
    store.keep_config(b"version = 1\n")
    assert store.config() == b"version = 1\n"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


def test_how_a_channel_answered_last_is_kept_and_when_it_last_took_something(tmp_path: Path) -> None:
    store = Deliveries(tmp_path)
    store.note("mine", "a", Answer(True, "200 ok", 1), NOW, waiting=0)
    store.note("mine", "a", LATER, NOW + MINUTE, waiting=3)
    store.note("mine", "b", NEVER, NOW, waiting=0)
    assert store.last("mine") == {
        "a": Delivery("a", NOW + MINUTE, False, "500", ok_at=NOW, waiting=3),
        "b": Delivery("b", NOW, False, "401"),
    }


def test_what_waits_is_counted_whoever_wrote_last(tmp_path: Path) -> None:
    store = Deliveries(tmp_path)
    store.note("mine", "a", LATER, NOW, waiting=3, dropped=2)  # its box
    store.note("mine", "a", LATER, NOW, waiting=4)  # the watchdog
    assert store.last("mine")["a"] == Delivery("a", NOW, False, "500", waiting=7, boxed=3, dropped=2)
    store.note("mine", "a", Answer(True, "200", 1), NOW, waiting=0)
    assert (store.last("mine")["a"].waiting, store.last("mine")["a"].boxed) == (3, 3)
    store.note("mine", "a", Answer(True, "200", 1), NOW, waiting=0, dropped=2)
    assert store.last("mine")["a"] == Delivery("a", NOW, True, "200", NOW, dropped=2)


def test_two_catalogs_with_a_channel_of_one_name_share_no_answer(tmp_path: Path) -> None:
    store = Deliveries(tmp_path)
    ok = Answer(True, "200 ok", 1)
    store.note("mine", "a", ok, NOW, waiting=0)
    assert store.last("yours") == {}
    store.note("mine", "a", NEVER, NOW + MINUTE, waiting=0)
    store.note("yours", "a", ok, NOW + MINUTE, waiting=0)
    assert store.last("mine") == {"a": Delivery("a", NOW + MINUTE, False, "401", NOW)}
    assert store.last("yours") == {"a": Delivery("a", NOW + MINUTE, True, "200 ok", NOW + MINUTE)}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"version": 1}', '{"version": 2, "at": "2025-12-19T12:00:00Z"}']
)
def test_what_cannot_be_believed_is_told_and_forgotten(tmp_path: Path, content: str) -> None:
    store = Deliveries(tmp_path)
    store.remember(memory(), NOW)
    path = tmp_path / "alerts" / "watch.json"
    path.write_text(content)
    found, said = store.memory()
    assert found == Memory()
    assert str(path) in str(said) if content != "null" else said is None
    assert store.remember(memory(), NOW) == Written()
    assert store.memory() == (memory(), None)


def test_a_foreign_file_is_not_believed(tmp_path: Path) -> None:
    store = Deliveries(tmp_path)
    store.remember(memory(), NOW)
    store.note("mine", "a", LATER, NOW, waiting=0)
    for path in (tmp_path / "alerts" / "watch.json", tmp_path / "alerts" / "last" / "mine" / "a.json"):
        path.chmod(0o666)
    found, said = store.memory()
    assert found == Memory()
    assert "may be written by others" in str(said)
    with pytest.raises(StateBroken):
        store.last("mine")


def test_where_it_cannot_be_written_the_spare_in_memory_is(tmp_path: Path) -> None:
    state, spare = tmp_path / "state", tmp_path / "run" / "spare"
    spare.parent.mkdir()
    store = Deliveries(state, spare)
    assert store.remember(Memory(digest="old"), NOW) == Written()
    (state / "alerts").rename(state / "moved")
    (state / "alerts").write_text("in the way")  # root, too, cannot write below a file
    written = store.remember(Memory(digest="new"), NOW + MINUTE)
    assert str(state / "alerts") in str(written.problem)
    assert written.kept
    assert not Deliveries(state).remember(Memory(), NOW).kept
    assert store.memory()[0].digest == "new"
    (state / "alerts").unlink()
    (state / "moved").rename(state / "alerts")
    assert store.memory()[0].digest == "new", "the older one on the disk counts again"
    assert store.remember(Memory(digest="newest"), NOW + 2 * MINUTE) == Written()
    assert os.listdir(spare) == []
    assert store.memory()[0].digest == "newest"
