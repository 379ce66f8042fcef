"""Run logs and events in Loki: what is pushed, and that no receiver, whatever it does, is any trouble to a run."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalogs import JOBS, catalog, problems
from conftest import ROOT
from dag import StepsDesk, chain
from desk import SLOT
from loki_receiver import Receiver, receiver
from orchctl.adapters import loki as adapter
from orchctl.adapters.loki import Loki
from orchctl.core import loki
from orchctl.core.catalog import Catalog, Job
from orchctl.core.catalog_logs import LogsTable, LokiTable
from orchctl.core.loki import Line
from orchctl.core.names import run_id
from orchctl.runner import shipping
from receivers import certificate

LABELS = {"app": "orchctl", "host": "here", "job": "job"}
RUN = {"run_id": run_id(SLOT, "one"), "game_date": "2025-12-19", "attempt": "1"}
PASSWORD = "sw0rdfish-Loki"


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def sender(url: str, **fields: Any) -> Loki:
    return Loki(LokiTable(url=url, **fields), LABELS, {})


def put(sent: Loki, *lines: str) -> None:
    sent.put([("log", line) for line in lines], RUN)


# --- the form


def test_a_push_is_streams_with_few_labels_and_times_as_texts() -> None:
    lines = [Line(1, "log", "one", RUN), Line(2, "event", "{}", RUN), Line(3, "log", "two\u00e9", RUN)]
    body = json.loads(loki.payload(lines, LABELS, structured=True))
    assert body == {
        "streams": [
            {"stream": {**LABELS, "kind": "log"}, "values": [["1", "one", RUN], ["3", "two\u00e9", RUN]]},
            {"stream": {**LABELS, "kind": "event"}, "values": [["2", "{}", RUN]]},
        ]
    }


def test_without_structured_metadata_a_line_begins_with_what_it_is_of() -> None:
    lines = [Line(1, "log", "one", RUN), Line(2, "event", "{}", RUN)]
    body = json.loads(loki.payload(lines, LABELS, structured=False))
    said = f"run_id={RUN['run_id']} game_date=2025-12-19 attempt=1 one"
    assert [stream["values"] for stream in body["streams"]] == [[["1", said]], [["2", "{}"]]]


@pytest.mark.parametrize(
    ("address", "url", "auth"),
    [
        ("http://h:3100", "http://h:3100/loki/api/v1/push", None),
        ("https://h/", "https://h/loki/api/v1/push", None),
        ("https://h/proxy", "https://h/proxy/loki/api/v1/push", None),
        ("https://h/loki/api/v1/push", "https://h/loki/api/v1/push", None),
        ("https://me:p%40ss@h/", "https://h/loki/api/v1/push", ("me", "p@ss")),
        ("http://[::1]:3100", "http://[::1]:3100/loki/api/v1/push", None),
    ],
)
def test_an_address_is_taken_apart(address: str, url: str, auth: tuple[str, str] | None) -> None:
    found = loki.address_of(address)
    assert (found.url, found.auth) == (url, auth)


@pytest.mark.parametrize("address", ["", "loki:3100", "ftp://h", "http://", f"http://u:{PASSWORD}@h:x/", "http://[::"])
def test_what_is_no_address_is_refused_and_not_quoted(address: str) -> None:
    with pytest.raises(ValueError) as caught:
        loki.address_of(address)
    assert PASSWORD not in str(caught.value)


# --- the catalog


def with_logs(text: str) -> str:
    return f"{JOBS}\n[logs.loki]\n{text}\n"


def test_it_is_off_unless_it_is_there_and_changes_every_job_where_it_is() -> None:
    plain, shipped = catalog(), catalog(with_logs('url = "http://h:3100"'))
    assert plain.logs == LogsTable()
    assert "logs" not in plain.to_json()
    assert Catalog.from_json(shipped.to_json()) == shipped
    assert plain.parts_of(plain.jobs["score"]).keys() ^ shipped.parts_of(shipped.jobs["score"]).keys() == {"logs.loki"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not say where Loki is"),
        ('url = "http://h"\nurl_env = "LOKI"', "has url and url_env"),
        ('url = "h:3100"', "found"),
        (f'url_env = "http://me:{PASSWORD}@h"', "is not the name of a variable"),
        ('url_file = "loki"', "is not an absolute path"),
        ('url = "http://h"\nlabels = { job = "x" }', "is a label that every stream has already"),
        ('url = "http://h"\nlabels = { "a-b" = "x" }', ""),
        ('url = "http://h"\nlabels = { a = 1 }', ""),
        ('url = "http://h"\ntenant = "a b"', ""),
        ('url = "http://h"\nfast = true', "unknown key"),
    ],
)
def test_what_is_wrong_with_it_is_told_with_its_place(text: str, said: str) -> None:
    found = problems(with_logs(text))
    assert len(found) == 1, found
    assert said in found[0].message
    assert found[0].table == "logs.loki"
    assert PASSWORD not in str(found)


def test_an_address_with_a_password_does_not_stand_in_the_catalog() -> None:
    (found,) = problems(with_logs(f'url = "http://me:{PASSWORD}@h"'))
    assert PASSWORD not in str(found)


# --- a receiver that takes everything


def test_all_lines_arrive_in_order_with_times_that_differ(there: Receiver) -> None:
    sent = Loki(LokiTable(url=there.url, tenant="team", labels={"site": "a"}), LABELS, {}, clock=lambda: 7)
    for number in range(300):
        put(sent, f"line {number}", "same")
    assert sent.close(10) is None
    assert there.texts() == [text for number in range(300) for text in (f"line {number}", "same")]
    times = [int(value[0]) for _, value in there.values]
    assert times == sorted(set(times))
    labels, value = there.values[0]
    assert labels == {**LABELS, "site": "a", "kind": "log"}
    assert value[2] == RUN
    path, headers, _ = there.requests[0]
    assert (path, headers["X-Scope-OrgID"]) == ("/loki/api/v1/push", "team")


def test_the_address_comes_from_a_variable_or_a_file_of_ones_own(there: Receiver, tmp_path: Path) -> None:
    address = there.url.replace("http://", f"http://me:{PASSWORD}@")
    by_env = Loki(LokiTable(url_env="LOKI"), LABELS, {"LOKI": address})
    put(by_env, "by env")
    assert by_env.close(10) is None
    assert there.user_and_password == f"me:{PASSWORD}"
    path = tmp_path / "loki"
    path.write_text(f"{address}\n")
    path.chmod(0o600)
    by_file = Loki(LokiTable(url_file=str(path)), LABELS, {})
    put(by_file, "by file")
    assert by_file.close(10) is None
    assert there.texts() == ["by env", "by file"]
    path.chmod(0o644)
    open_to_all = Loki(LokiTable(url_file=str(path)), LABELS, {})
    put(open_to_all, "lost")
    assert open_to_all.close(10) == f"1 of 1 lines and events did not reach Loki: {path} may be read by others"


def test_where_nothing_was_said_nothing_is_pushed(there: Receiver) -> None:
    assert sender(there.url).close(0) is None
    assert there.requests == []


# --- receivers that are trouble


def test_a_receiver_that_comes_back_gets_everything_once(there: Receiver) -> None:
    there.statuses = [503, 429, 500]
    sent = sender(there.url)
    put(sent, "one", "two")
    assert sent.close(20) is None
    assert there.texts() == ["one", "two"]


def test_what_is_refused_is_not_tried_again_and_told(there: Receiver) -> None:
    there.statuses = [400]
    sent = sender(there.url)
    put(sent, "one")
    assert sent.close(20) == "1 of 1 lines and events did not reach Loki: HTTP 400 (entry too far behind)"
    assert there.requests == []


def test_what_is_secret_in_an_address_is_masked_in_what_the_receiver_says(there: Receiver) -> None:
    # Its answer quotes a word that is the key in this address.
    there.statuses = [400]
    sent = Loki(LokiTable(url_env="LOKI"), LABELS, {"LOKI": f"{there.url}/loki/api/v1/push?key=behind"})
    put(sent, "one")
    assert sent.close(20) == "1 of 1 lines and events did not reach Loki: HTTP 400 (entry too far ***)"


def test_a_receiver_that_only_fails_is_given_up_at_the_end(there: Receiver) -> None:
    there.always = 500
    sent = sender(there.url)
    put(sent, "one", "two")
    assert sent.close(1) == "2 of 2 lines and events did not reach Loki: HTTP 500 (entry too far behind)"


def test_a_receiver_that_says_nothing_holds_nobody_and_memory_stays_bounded(there: Receiver) -> None:
    there.hold = threading.Event()
    sent = sender(there.url)
    for _ in range(30):
        put(sent, *["x" * 100] * 1000)
    assert len(sent._waiting) <= adapter.MOST_LINES
    big = "y" * (1024 * 1024)
    for _ in range(30):
        put(sent, big)
    assert sent._weight <= adapter.MOST_BYTES
    lost = sent.close(0.5)
    assert lost == "30030 of 30030 lines and events did not reach Loki: it gave no answer in time"


def test_nobody_listens(there: Receiver) -> None:
    sent = sender("http://127.0.0.1:9")
    put(sent, "one")
    lost = sent.close(1)
    assert lost is not None
    assert lost.startswith("1 of 1 lines and events did not reach Loki: ConnectError")


def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    with receiver(certificate=certificate(tmp_path)) as there:
        sent = Loki(LokiTable(url_env="LOKI"), LABELS, {"LOKI": there.url.replace("//", f"//me:{PASSWORD}@")})
        put(sent, "one")
        lost = sent.close(3)
    assert lost is not None
    assert "CERTIFICATE_VERIFY_FAILED" in lost
    assert PASSWORD not in lost
    assert there.requests == []


@pytest.mark.parametrize("environment", [{}, {"LOKI": "no url"}, {"LOKI": f"http://me:{PASSWORD}@h:x"}])
def test_an_address_that_is_none_is_told_and_not_shown(environment: dict[str, str]) -> None:
    sent = Loki(LokiTable(url_env="LOKI"), LABELS, environment)
    put(sent, "one")
    lost = sent.close(5)
    assert lost is not None
    assert lost.startswith("1 of 1 lines and events did not reach Loki: the ")
    assert PASSWORD not in lost


# --- runs


@pytest.fixture
def desk(tmp_path: Path) -> StepsDesk:
    return StepsDesk(tmp_path)


def shipped(desk: StepsDesk, job: Job, url: str, **environment: str) -> None:
    """Let the job's runs say everything to a receiver, too."""
    made = Catalog(
        name="tests",
        timezone="America/New_York",
        schedules={},
        jobs={job.name: job},
        logs=LogsTable(loki=LokiTable(url_env="LOKI_URL")),
    )
    given = {"PATH": "/usr/bin:/bin", "LOKI_URL": url, **environment}
    desk.changes |= {
        "ship": lambda table, labels: Loki(table, labels, given),
        "environment": given,
        "applied": type("Applied", (), {"read": lambda _self, _digest: made})(),
    }


def test_a_runs_lines_and_events_arrive_masked_and_its_command_knows_of_no_loki(
    desk: StepsDesk, there: Receiver
) -> None:
    job = desk.job("sh", "-c", 'printenv LOKI_URL || echo none; echo "err $DB_PASSWORD" >&2; exit 3')
    shipped(desk, job, there.url, DB_PASSWORD=PASSWORD)
    outcome = desk.run(job)
    assert (outcome.status, desk.manifest()["status"]) == ("failed", "failed")
    assert sorted(there.texts()) == ["err ***", "none"]
    events = there.events()
    assert [(one["event"], one["status"]) for one in events] == [("run_started", "running"), ("run_finished", "failed")]
    assert {json.dumps(value[2]) for _, value in there.values} == {json.dumps(RUN)}
    assert PASSWORD not in json.dumps([body for _, _, body in there.requests])


def test_each_step_is_told_apart(desk: StepsDesk, there: Receiver) -> None:
    desk.lines = {"a": "echo from a", "b": "echo from b"}
    job = desk.steps_job(*chain(desk, ["a", "b"]))
    shipped(desk, job, there.url)
    assert desk.run(job).status == "success"
    lines = {value[1]: value[2].get("step") for labels, value in there.values if labels["kind"] == "log"}
    assert lines == {"from a": "a", "from b": "b"}
    named = [(one["event"], one.get("step")) for one in there.events()]
    assert named[0] == ("run_started", None)
    assert named[-1] == ("run_finished", None)
    assert ("step_finished", "b") in named


@pytest.mark.parametrize("trouble", ["dead", "500", "silent"])
def test_a_run_ends_as_it_would_and_says_what_did_not_arrive(
    desk: StepsDesk, there: Receiver, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "PATIENCE_S", 0.5)
    there.always, there.hold = 500, threading.Event() if trouble == "silent" else None
    job = desk.job("sh", "-c", "echo one; echo two")
    shipped(desk, job, "http://127.0.0.1:9" if trouble == "dead" else there.url)
    assert desk.run(job).status == "success"
    assert desk.manifest()["status"] == "success"
    (log,) = desk.data.rglob("attempt-1.log")
    *lines, last = log.read_text().splitlines()
    assert lines == ["one", "two"]
    assert last.startswith("[orchctl] 4 of 4 lines and events did not reach Loki: ")
    assert desk.log[-1] == last.removeprefix("[orchctl] ")


def test_a_run_that_a_cancel_ends_waits_less(desk: StepsDesk, there: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    whole = Loki.close

    def close(self: Loki, patience_s: float) -> str | None:
        asked.append(patience_s)
        return whole(self, 5)

    monkeypatch.setattr(Loki, "close", close)

    class Terminated(BaseException):
        """What Prefect's SIGTERM handler raises, by shape."""

    def sleep(_seconds: float) -> None:
        raise Terminated

    desk.changes["sleep"] = sleep
    desk.clock.at = SLOT.replace(minute=0, second=0) - (desk.clock.at - SLOT)
    job = desk.job()
    shipped(desk, job, there.url)
    with pytest.raises(Terminated):
        desk.run(job)
    assert asked == [shipping.INTERRUPTED_S]
    assert [one["status"] for one in there.events()] == ["cancelled"]


# --- docs/logs.md


def test_the_catalogs_in_the_docs_are_catalogs() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "logs.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert problems(f"{JOBS}\n{block}".replace('"hourly"', '"daily"')) == ()
    loki_of = catalog(f"{JOBS}\n{blocks[0]}").logs.loki
    assert loki_of is not None
    assert loki_of.url_file == "/etc/orchctl/loki"


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("20,000 or 16 MiB at most", (adapter.MOST_LINES, adapter.MOST_BYTES) == (20_000, 16 << 20)),
        ("no answer in 5 seconds", adapter.ANSWER_S == 5),
        ("first after half a second, later every 15", (adapter._WAITS[0], adapter._WAITS[-1]) == (0.5, 15)),
        ("what is left gets 5 seconds (1 where", (shipping.PATIENCE_S, shipping.INTERRUPTED_S) == (5, 1)),
    ],
)
def test_the_numbers_in_the_docs_are_those_of_the_code(said: str, value: bool) -> None:
    assert said in " ".join((ROOT / "docs" / "logs.md").read_text().split())
    assert value
