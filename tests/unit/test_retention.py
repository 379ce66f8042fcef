"""The policy: what `[retention]` may say, and what old enough means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from catalogs import JOBS, catalog, problems
from orchctl.core import durations, retention
from orchctl.core.catalog import Catalog
from orchctl.core.catalog_retention import LEAST_S, MOST_S, RetentionTable, age
from orchctl.core.names import parse_slot_name, slot_name

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = 86_400


def with_policy(text: str) -> str:
    return f"{JOBS}\n[retention]\n{text}\n"


def test_without_a_policy_nothing_is_too_old() -> None:
    assert catalog(JOBS).retention == RetentionTable()
    assert retention.ages(catalog(JOBS).retention, None, None) == {}


def test_a_policy_is_ages_and_never_is_none() -> None:
    found = catalog(
        with_policy('history = "90d"\ncompress_logs = "7d"\nlogs = "180d"\nmanifests = "800d"\nstate="never"')
    )
    assert retention.ages(found.retention, None, None) == {
        "history": 90 * DAY,
        "compress_logs": 7 * DAY,
        "logs": 180 * DAY,
        "manifests": 800 * DAY,
    }
    assert retention.ages(found.retention, "logs, state", None) == {"logs": 180 * DAY}


def test_a_change_of_the_policy_is_a_change_of_no_job() -> None:
    without, held = catalog(JOBS), catalog(with_policy('history = "90d"'))
    assert (held.digest, held.to_json()) == (without.digest, without.to_json())
    assert Catalog.from_json(held.to_json()).retention == RetentionTable()


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ('history = "23h"', "history", "less than a day"),
        ('history = "3661d"', "history", "longer than 3660 days"),
        ("history = 90", "history", "neither an age"),
        ('history = "90 days"', "history", "not a duration"),
        ('histroy = "90d"', "histroy", "unknown key"),
        ('compress_logs = "7d"\nlogs = "7d"', "compress_logs", 'found "7d", and logs removes'),
        ('logs = "900d"\nmanifests = "800d"', "logs", 'found "900d", and manifests removes'),
    ],
)
def test_what_a_policy_may_not_say(line: str, key: str, said: str) -> None:
    (problem,) = problems(with_policy(line))
    assert (problem.table, problem.key) == ("retention", key)
    assert said in problem.message


def test_all_that_is_wrong_with_a_policy_is_said_at_once() -> None:
    found = problems(with_policy('history = "1h"\nlogs = "9d"\nmanifests = "8d"\nstate = true'))
    assert [problem.key for problem in found] == ["history", "logs", "state"]


def test_older_than_means_the_history_or_what_only_names() -> None:
    policy = RetentionTable.model_validate({"history": "90d", "logs": "180d"})
    assert retention.ages(policy, None, "30d") == {"history": 30 * DAY}
    assert retention.ages(policy, "state,manifests", "30d") == {"manifests": 30 * DAY, "state": 30 * DAY}


@pytest.mark.parametrize("only", ["", " , ", "log", "history;logs"])
def test_what_only_may_not_say(only: str) -> None:
    with pytest.raises(ValueError, match="allowed: history, compress_logs, logs, manifests, state"):
        retention.ages(RetentionTable(), only, None)


@pytest.mark.parametrize("text", ["0d", "86399s", "10y", "-1d", "366001d"])
def test_what_no_age_is(text: str) -> None:
    with pytest.raises(ValueError):
        age(text)


def test_the_bounds_of_an_age() -> None:
    assert (age("1d"), age("3660d")) == (LEAST_S, MOST_S)
    with pytest.raises(ValueError, match="longer than 366 days"):
        durations.parse("367d")


def test_a_claim_is_older_than_any_slot_of_its_job_that_may_still_run() -> None:
    cutoff = NOW - timedelta(days=30)
    assert retention.claims_cutoff(cutoff, NOW, 600) == cutoff
    assert retention.claims_cutoff(cutoff, NOW, 40 * DAY) == NOW - timedelta(days=41)


def test_a_run_ended_when_its_manifest_says_or_began() -> None:
    timing = {"started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-02T00:00:00Z"}
    assert retention.ended_at({"timing": timing}) == datetime(2026, 1, 2, tzinfo=UTC)
    assert retention.ended_at({"timing": {**timing, "finished_at": None}}) == datetime(2026, 1, 1, tzinfo=UTC)
    assert retention.ended_at({"timing": {"started_at": "soon"}}) is None
    assert retention.ended_at({"timing": []}) is None


RUN = {"trigger": "backfill", "backfill": "b", "partition": {"run_id": "r"}}


def test_a_run_of_a_backfill_is_kept_while_it_goes_on_and_while_its_summary_names_it() -> None:
    assert retention.of_a_backfill({**RUN, "trigger": "schedule"}, None) is None
    assert retention.of_a_backfill(RUN, None) == "its backfill is not over"
    assert retention.of_a_backfill(RUN, {"runs": [{"run_id": "r"}]}) == "the summary of its backfill names it"
    assert retention.of_a_backfill(RUN, {"runs": [{"run_id": "other"}, None]}) is None


def test_a_backfill_is_over_when_it_was_summed_up() -> None:
    assert retention.is_over({"finished_at": "2026-02-28T00:00:00Z"}, NOW)
    assert not retention.is_over({"finished_at": "2026-03-02T00:00:00Z"}, NOW)
    assert not retention.is_over({"finished_at": None}, NOW)
    assert not retention.is_over({}, NOW)
    assert not retention.is_over(None, NOW)


def test_a_later_look_begins_at_what_was_left() -> None:
    left = NOW - timedelta(days=9)
    assert retention.mark(NOW, []) == NOW
    assert retention.mark(NOW, [left + timedelta(days=1), left]) == left


@pytest.mark.parametrize("slot", [NOW, NOW.replace(microsecond=42)])
def test_the_name_of_a_slot_says_which(slot: datetime) -> None:
    assert parse_slot_name(slot_name(slot)) == slot


@pytest.mark.parametrize("name", ["", "20260301T120000", "20260301T120000Z.json", "20261301T120000Z", "../x"])
def test_what_is_no_name_of_a_slot(name: str) -> None:
    with pytest.raises(ValueError):
        parse_slot_name(name)
