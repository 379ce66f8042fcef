"""From an event of Prefect to people: what is told, with what this host knows of the run, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import receivers
from alert_cases import T0, alerts, message, read
from catalogs import catalog
from orchctl.adapters.alert_boxes import AlertBoxes, UnwrittenBoxes
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.core import alert_heard
from orchctl.core import manifest as form
from orchctl.core.alerts import Channel, Event, Message, Route
from orchctl.core.alerts_applied import AppliedAlerts
from orchctl.core.catalog import Catalog
from orchctl.core.deliveries import Answer, Letter
from orchctl.core.manifest import Away, Identity, RunError
from orchctl.core.names import run_id
from orchctl.core.slots import Owner
from orchctl.errors import OrchctlError, StateBroken
from orchctl.services.alert_delivery import UNWRITTEN, Ears, Round, deliver, deliver_all, tell
from support import eventually

FLOW_RUN = "7373acfa-295b-4044-a449-d621c5ac8e7d"
RUN = run_id(T0, FLOW_RUN)
EVENTS: tuple[Event, ...] = ("failed", "crashed", "timed_out", "late", "recovered", "worker_gone")
ALL = Route("all", EVENTS, ("hook", "mail"))


def body(state: str = "Failed", *, route: str = "all", related: tuple[str, ...] = ("orchctl",), **run: Any) -> str:
    """Return what an automation makes of the state of a run; `run` are fields of the flow run, None: it is gone.

    `related` are the tags of its deployment.
    """
    flow_run = {
        "id": FLOW_RUN,
        "name": "brave-otter",
        "expected_start_time": "2025-12-19T05:00:00Z",
        "auto_scheduled": True,
        "parameters": {"job": "other", "digest": "", **run.pop("parameters", {})},
        **run,
    }
    return json.dumps(
        {
            "orchctl": 1,
            "route": route,
            "event": f"prefect.flow-run.{state}",
            "at": "2025-12-19 05:01:02.123456+00:00",
            "resource": {
                "prefect.resource.id": f"prefect.flow-run.{FLOW_RUN}",
                "prefect.resource.name": "brave-otter",
                "prefect.state-message": "Flow run encountered an exception: RunFailed: x",
            },
            "related": [
                {"prefect.resource.role": "deployment", "prefect.resource.name": "other"},
                *({"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"} for tag in related),
            ],
            "flow_run": flow_run if run.get("id", "") is not None else None,
        }
    )


def pool(state: str) -> str:
    resource = {"prefect.resource.id": "prefect.work-pool.1", "prefect.resource.name": "local"}
    at = "2025-12-19 05:01:02+00:00"
    event: dict[str, Any] = {
        "event": f"prefect.work-pool.{state}",
        "at": at,
        "resource": resource,
        "related": [],
        "flow_run": None,
    }
    return json.dumps({"orchctl": 1, "route": "all", **event})


class Full(AlertBoxes):
    """Boxes on a disk that is full while `full` is set."""

    full = False

    def change(self, catalog: str, channel: str, change: Any) -> Any:
        if self.full:
            raise OrchctlError("cannot write the box: No space left on device")
        return super().change(catalog, channel, change)


class Host:
    """A host on which alerts are in force, and one run of the job `other`."""

    def __init__(self, state: Path, data_root: Path, *routes: Route, **settings: Any) -> None:
        self.state, self.data_root = state, data_root
        self.catalog: Catalog = catalog_of(data_root)
        self.digest = self.catalog.digest
        AppliedCatalogs(state).write(self.catalog)
        self.boxes = Full(state)
        self.unwritten = UnwrittenBoxes(self.boxes)
        self.now = T0 + timedelta(minutes=1)
        self.alerts = alerts(*(routes or (ALL,)), **settings)
        self.boxes.apply(AppliedAlerts("tests", "http://ui", self.alerts))

    def hear(self, text: str, *, channel: str = "hook", catalog: str = "tests") -> str:
        ears = Ears(
            boxes=self.boxes,
            spare=self.unwritten,
            applied=AppliedCatalogs(self.state),
            owners=Owners(self.state),
            tree=Manifests,
            mask=lambda text: text.replace("hunter2", "***"),
            host="box",
            now=lambda: self.now,
        )
        text = text.replace('"digest": ""', f'"digest": "{self.digest}"')
        return ears.hear(text, catalog=catalog, channel=channel)

    def ran(self, status: form.Status, error: RunError | None = None, *, job: str = "other", **fields: Any) -> None:
        mode = fields.pop("mode", "live")
        who = Identity(job, job, RUN, date(2025, 12, 19), T0, T0, "schedule", mode, 1)
        place = fields.pop("place", Away("box", "boot"))
        manifest = form.started(who, place, {}, at=T0)
        if status != "running":
            manifest = form.finished(manifest, status, at=T0, duration_s=1.0, error=error, **fields)
        Manifests(str(self.data_root)).write(manifest)

    def waiting(self, channel: str = "hook") -> list[Message]:
        return [each.message for each in self.boxes.box("tests", channel).waiting]


def catalog_of(data_root: Path) -> Catalog:
    from catalogs import JOBS

    return catalog(JOBS.replace("/srv/data", str(data_root)))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "state", tmp_path / "data")


def test_a_failure_is_told_with_all_that_is_known(host: Host) -> None:
    host.ran("failed", RunError("NonZeroExit", "exit code 3", "key hunter2\nbroken"), exit_code=3)
    assert host.hear(body()) == "queued"
    (said,) = host.waiting()
    assert (said.event, said.job, said.slot, said.run_id, said.exit_code) == ("failed", "other", T0, RUN, 3)
    assert (said.reason, said.last_lines) == ("exit code 3", ("key ***", "broken"))
    assert said.ui_url == f"http://ui/runs/flow-run/{FLOW_RUN}"
    assert said.command == f"orchctl runs show {RUN}"


@pytest.mark.parametrize(
    ("state", "status", "error", "event"),
    [
        ("Failed", "failed", RunError("TimedOut", "stopped after its time-out of 30m"), "timed_out"),
        ("Failed", "failed", RunError("Killed", "killed by SIGKILL"), "failed"),
        ("Failed", "crashed", RunError("Crashed", "the process is gone"), "crashed"),
        ("Crashed", "crashed", RunError("Crashed", "the process is gone"), "crashed"),
        ("Completed", "success", None, "recovered"),
    ],
)
def test_the_manifest_knows_how_a_run_ended(
    host: Host, state: str, status: form.Status, error: RunError | None, event: str
) -> None:
    host.ran(status, error)
    tell(host.boxes, "tests", "hook", message("late", job="other"), host.alerts, now=T0)
    assert host.hear(body(state)) == "queued"
    assert host.waiting()[-1].event == event


def test_without_a_manifest_prefects_word_is_told(host: Host) -> None:
    assert host.hear(body()) == "queued"
    (said,) = host.waiting()
    assert said.reason == "Flow run encountered an exception: RunFailed: x"
    assert (said.command, said.run_id) == ("orchctl status other", RUN)


def test_the_log_tells_where_the_manifest_does_not(host: Host) -> None:
    host.ran("running")
    folder = Manifests(str(host.data_root)).run_directory("other", date(2025, 12, 19), RUN)
    (folder / "attempt-1.log").write_text("".join(f"line {number}\n" for number in range(50)))
    host.hear(body("Crashed"))
    assert host.waiting()[0].last_lines[-1] == "line 49"


def test_late_is_told_without_what_is_not_there_yet(host: Host) -> None:
    assert host.hear(body("Late")) == "queued"
    (said,) = host.waiting()
    assert (said.event, said.run_id, said.slot) == ("late", None, T0)
    assert said.reason == "no worker has taken the run"


def test_a_late_run_that_was_taken_back_is_nobodys_trouble(host: Host) -> None:
    assert host.hear(body("Late", id=None)) == "the run was taken back"


def test_a_failed_run_that_is_gone_is_told_all_the_same(host: Host) -> None:
    assert host.hear(body("Failed", id=None)) == "queued"


def test_what_observes_is_not_told(host: Host) -> None:
    host.ran("failed", mode="observe")
    assert host.hear(body()) == "the run only observes: the job is not Prefect's"


@pytest.mark.parametrize("owned", [True, False])
def test_a_job_that_is_legacys_is_late_for_nobody(host: Host, owned: bool) -> None:
    if owned:
        Owners(host.state).create("score", Owner(since=T0, draining=False), still=lambda: True)
    said = host.hear(body("Late", parameters={"job": "score"}))
    assert (said == "queued") == owned


def test_a_backfill_tells_by_itself(host: Host) -> None:
    assert "backfill" in host.hear(body(parameters={"backfill": "b1"}))


def test_another_catalog_on_the_same_server_is_not_ours(host: Host) -> None:
    host.boxes.apply(AppliedAlerts("mine", "http://ui", host.alerts))
    assert host.hear(body(), catalog="mine") == "it is of another catalog"


@pytest.mark.parametrize("state", ["Failed", "Crashed", "Late", "Completed"])
def test_what_another_host_applied_is_told_only_where_its_tag_is_of_this_catalog(host: Host, state: str) -> None:
    host.digest = "sha256:" + "0" * 64
    tell(host.boxes, "tests", "hook", message("crashed", job="other", exit_code=1), host.alerts, now=T0)
    theirs, ours = ("orchctl", "orchctl:mine", "nightly"), ("orchctl", "orchctl:tests", "nightly")
    assert host.hear(body(state, related=theirs)) == "it is of another catalog"
    assert host.hear(body(state, related=(), tags=theirs)) == "it is of another catalog"
    assert host.hear(body(state, related=ours)) == "queued"


def test_a_catalog_that_cannot_be_read_silences_nothing(host: Host) -> None:
    host.digest = "sha256:" + "0" * 64
    assert host.hear(body()) == "queued"


def test_a_route_is_asked_again_here(tmp_path: Path) -> None:
    host = Host(tmp_path / "s", tmp_path / "d", Route("all", ("timed_out",), ("hook",), jobs=("score", "other")))
    assert host.hear(body()) == "the route does not take it"
    host.ran("failed", RunError("TimedOut", "stopped"))
    assert host.hear(body()) == "queued"
    assert host.hear(body(), channel="mail") == "no such way is in force"
    assert host.hear(body(route="gone")) == "no such way is in force"


def test_the_end_of_a_trouble_is_told_once(host: Host) -> None:
    assert host.hear(body("Completed")) == "not in trouble"
    assert [host.hear(body(state)) for state in ("Failed", "Failed", "Completed", "Completed")] == [
        "queued",
        "repeated",
        "queued",
        "not in trouble",
    ]


def test_a_worker_is_told_of_unless_the_watchdog_does(host: Host) -> None:
    assert host.hear(pool("not-ready")) == "queued"
    assert host.waiting()[0].subject == "[orchctl] no worker asks for runs (work pool local) on box"
    watch = host.state / "alerts" / "watch.json"
    watch.write_text(json.dumps({"at": "2025-12-19T05:00:30Z"}))
    watch.chmod(0o600)
    assert host.hear(pool("ready")) == "the watchdog tells of workers"
    host.now += timedelta(minutes=10)
    assert host.hear(pool("ready")) == "queued"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"orchctl": 2}', '{"orchctl": 1}', "hello", body().replace("Z", "?")]
)
def test_what_no_automation_of_ours_wrote_is_refused(host: Host, text: str) -> None:
    with pytest.raises(ValueError):
        host.hear(text)


def test_alerts_that_are_not_in_force_here_are_an_error(host: Host) -> None:
    with pytest.raises(OrchctlError, match="not in force on this host"):
        host.hear(body(), channel="pager")
    with pytest.raises(OrchctlError, match="not in force on this host"):
        host.hear(body(), catalog="unheard-of")


def test_a_channel_cannot_lead_out_of_the_folder(host: Host) -> None:
    with pytest.raises(StateBroken):
        host.boxes.change("tests", "../x", lambda box: (box, None))
    with pytest.raises(StateBroken):
        host.boxes.change("../x", "hook", lambda box: (box, None))
    with pytest.raises(StateBroken):
        host.hear(body(), catalog="../applied/tests")


def test_prefects_instants_are_read() -> None:
    heard = alert_heard.read(body())
    assert heard.at == datetime.fromisoformat("2025-12-19T05:01:02.123456+00:00")
    assert heard.run_ids == (RUN,)


class Post:
    """A receiver that answers what it is told to; it keeps what it took."""

    def __init__(self, *answers: bool | Answer) -> None:
        self.answers = list(answers)
        self.took: list[Message] = []
        self.notes: list[tuple[str, bool, int]] = []
        self.ids: list[str] = []

    def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer:
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, bool):
            answer = Answer(answer, "200 OK" if answer else "500 broken", 1, again=not answer)
        self.ids.append(letter.id)
        if answer.ok:
            self.took.append(letter.message)
        return answer

    def note(
        self, catalog: str, channel: str, answer: Answer, at: datetime, *, waiting: int, dropped: int
    ) -> str | None:
        assert catalog == "tests"
        assert dropped == 0
        self.notes.append((channel, answer.ok, waiting))
        return None


def sent(host: Host, post: Post, *, wait: bool = True) -> int:
    def sleep(seconds: float) -> None:
        host.now += timedelta(seconds=seconds)

    return deliver(host.boxes, "tests", "hook", post=post, now=lambda: host.now, sleep=sleep, wait=wait)


def test_what_was_heard_is_sent_and_written_down(host: Host) -> None:
    host.hear(body())
    post = Post()
    assert sent(host, post) == 1
    assert [each.job for each in post.took] == ["other"]
    assert post.notes == [("hook", True, 0)]
    assert (host.waiting(), sent(host, post)) == ([], 0)


def test_a_receiver_that_fails_is_tried_until_it_takes_it(host: Host) -> None:
    host.hear(body())
    post = Post(False, False)
    assert sent(host, post) == 1
    assert post.notes == [("hook", False, 1), ("hook", False, 1), ("hook", True, 0)]
    assert len(set(post.ids)) == 1, "a receiver can tell that it has it already"
    host.hear(body("Completed"))
    assert sent(host, post) == 1
    assert len(set(post.ids)) == 2


def test_who_does_not_wait_leaves_what_is_to_be_sent_later(host: Host) -> None:
    host.hear(body())
    post = Post(False)
    assert sent(host, post, wait=False) == 0
    assert sent(host, post, wait=False) == 0
    host.now += timedelta(seconds=31)
    assert sent(host, post, wait=False) == 1


def test_two_do_not_send_at_a_time(host: Host) -> None:
    host.hear(body())
    with host.boxes.sending("tests", "hook", wait=False) as mine:
        assert mine
        assert sent(host, Post(), wait=False) == 0


def test_two_catalogs_with_a_channel_of_one_name_share_nothing(host: Host) -> None:
    host.boxes.apply(AppliedAlerts("mine", "http://ui", host.alerts))
    tell(host.boxes, "mine", "hook", message(job="theirs"), host.alerts, now=T0)
    host.hear(body())
    assert [each.job for each in host.waiting()] == ["other"]
    with host.boxes.sending("mine", "hook", wait=False) as held:
        assert held
        post = Post()
        assert sent(host, post) == 1
    assert [each.job for each in post.took] == ["other"]
    assert [each.message.job for each in host.boxes.box("mine", "hook").waiting] == ["theirs"]


def test_who_waits_sleeps_until_something_is_due_and_no_longer_than_a_minute(host: Host) -> None:
    host.hear(body())
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        host.now += timedelta(seconds=seconds)

    options: dict[str, Any] = {"now": lambda: host.now, "sleep": sleep, "wait": True}
    assert deliver(host.boxes, "tests", "hook", post=Post(False, False, False), **options) == 1
    assert slept == [30, 60, 60, 60]


def test_each_channel_of_each_catalog_has_senders_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchctl.runner import alert_block
    from orchctl.wiring import alert_host

    begun, go = list[tuple[str, str]](), threading.Event()

    def deliver(catalog: str, channel: str, *, unwritten: bool) -> None:
        assert not unwritten
        begun.append((catalog, channel))
        go.wait(30)

    monkeypatch.setattr(alert_host, "deliver", deliver)
    for named in ("a", "a", "a", "b", "b", "b"):
        alert_block._send_soon(named, "hook")
    assert eventually(lambda: len(begun) == 4)
    go.set()
    for threads in alert_block._threads.values():
        for thread in threads:
            thread.join()
    assert sorted(begun) == [("a", "hook")] * 2 + [("b", "hook")] * 2


def test_fifty_failures_at_once_from_many_threads_are_few_messages(tmp_path: Path) -> None:
    host = Host(tmp_path / "s", tmp_path / "d", burst=5)
    threads = [
        threading.Thread(
            target=tell,
            args=(host.boxes, "tests", "hook", message(job=f"job-{n}"), host.alerts),
            kwargs={"now": host.now},
        )
        for n in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    post = Post()
    sent(host, post)
    assert len(post.took) == 6
    assert sum(each.count for each in post.took) == 50


def test_a_box_that_cannot_be_believed_is_begun_anew(host: Host) -> None:
    host.hear(body())
    (path,) = (host.state / "alerts" / "boxes" / "tests").glob("*.json")
    path.write_text("{")
    assert host.waiting() == []
    assert host.hear(body()) == "queued"


def test_nobody_else_can_read_what_was_said(host: Host) -> None:
    host.hear(body())
    for path in (host.state / "alerts").rglob("*"):
        assert os.stat(path).st_mode & 0o077 == 0, path


# ----------------------------------------------------------------------------------------------- what is refused


def test_one_that_is_refused_for_good_keeps_no_other_back(host: Host) -> None:
    host.hear(body("Crashed"))
    host.now += timedelta(seconds=1)
    host.hear(body("Late"))
    post = Post(Answer(False, "400 no", 1, fault="message"))
    assert sent(host, post, wait=False) == 0
    host.now += timedelta(seconds=31)
    assert sent(host, post, wait=False) == 1
    assert [each.event for each in post.took] == ["late"]
    assert [each.event for each in host.waiting()] == ["crashed"]


# -------------------------------------------------------------------------------------------------- a full disk


def from_memory(host: Host, post: Post) -> int:
    def sleep(seconds: float) -> None:
        host.now += timedelta(seconds=seconds)

    options: dict[str, Any] = {"now": lambda: host.now, "sleep": sleep, "wait": True}
    return deliver(host.unwritten, "tests", "hook", post=post, **options)


def test_a_failure_is_told_although_the_disk_is_full_and_says_so(host: Host) -> None:
    host.ran("failed", RunError("NonZeroExit", "exit code 3", ""), exit_code=3)
    host.boxes.full = True
    assert host.hear(body()) == UNWRITTEN
    post = Post()
    assert from_memory(host, post) == 1
    (said,) = post.took
    assert said.reason == (
        "exit code 3 (sent without being written down: cannot write the box: No space left on device)"
    )


def test_on_a_full_disk_nothing_is_told_twice_and_fifty_at_once_are_few(host: Host) -> None:
    host.boxes.full = True
    assert [host.hear(body()) for _ in range(3)] == [UNWRITTEN, "repeated", "repeated"]
    for number in range(49):
        tell(host.unwritten, "tests", "hook", message(job=f"job-{number}"), host.alerts, now=host.now)
    post = Post()
    from_memory(host, post)
    assert len(post.took) == 6
    assert sum(each.count for each in post.took) == 50


def test_what_was_told_on_a_full_disk_is_known_when_there_is_room_again(host: Host) -> None:
    host.boxes.full = True
    assert host.hear(body()) == UNWRITTEN
    host.boxes.full = False
    assert host.hear(body("Completed")) == "queued"
    assert host.hear(body("Completed")) == "not in trouble"


def test_a_trouble_that_ended_on_a_full_disk_is_news_when_it_comes_back(host: Host) -> None:
    assert host.hear(body()) == "queued"
    host.boxes.full = True
    assert host.hear(body("Completed")) == UNWRITTEN
    host.boxes.full = False
    assert host.hear(body()) == "queued"
    assert host.hear(body()) == "repeated"


def test_what_waits_is_not_sent_where_that_cannot_be_written_down(host: Host) -> None:
    host.hear(body())
    host.boxes.full = True
    post = Post()
    for _ in range(5):
        with pytest.raises(OrchctlError):
            sent(host, post, wait=False)
        host.now += timedelta(minutes=1)
    assert post.ids == []
    host.boxes.full = False
    assert sent(host, post, wait=False) == 1


def test_what_was_sent_when_the_disk_filled_up_is_not_sent_at_each_look(host: Host) -> None:
    class Fills(Post):
        def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer:
            host.boxes.full = True
            return super().send(channel, letter, within_s=within_s)

    host.hear(body())
    post = Fills()
    for _ in range(10):
        with contextlib.suppress(OrchctlError):
            sent(host, post, wait=False)
        host.now += timedelta(minutes=1)
    assert len(post.ids) == 1


def test_who_waits_writes_down_what_was_sent_as_soon_as_there_is_room(host: Host) -> None:
    class Fills(Post):
        def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer:
            host.boxes.full = True
            return super().send(channel, letter, within_s=within_s)

    def sleep(seconds: float) -> None:
        host.now += timedelta(seconds=seconds)
        host.boxes.full = host.now < T0 + timedelta(hours=1)

    host.hear(body())
    post = Fills()
    options: dict[str, Any] = {"now": lambda: host.now, "sleep": sleep, "wait": True}
    assert deliver(host.boxes, "tests", "hook", post=post, **options) == 1
    assert (len(post.ids), host.waiting()) == (1, [])


def test_the_block_sends_from_memory_what_could_not_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from orchctl.runner.alert_block import AlertChannel

    with receivers.http() as receiver:
        host = Host(tmp_path / "state", tmp_path / "data")
        boxes = tmp_path / "state" / "alerts" / "boxes"
        boxes.write_text("in the way")  # root, too, cannot write below a file
        monkeypatch.setenv("ORCHCTL_STATE_DIR", str(host.state))
        monkeypatch.setenv("HOOK_URL", receiver.url)
        text = body().replace('"digest": ""', f'"digest": "{host.digest}"')
        block = AlertChannel(catalog="tests", channel="hook")
        asyncio.run(block.notify(text))
        (said,) = eventually(lambda: receiver.got)
        asyncio.run(block.notify(text))
    assert (said["event"], said["job"]) == ("failed", "other")
    assert "sent without being written down" in said["reason"]
    assert len(receiver.got) == 1


# ------------------------------------------------------------------------------------------------- every catalog


def everything(host: Host, post: Any, *, left: float = 60) -> Round:
    options: dict[str, Any] = {"now": lambda: host.now, "sleep": lambda _: None, "left": lambda: left}
    return deliver_all(host.boxes, post=post, **options)


class Receivers(Post):
    """A receiver of every catalog."""

    def __init__(self, *answers: bool | Answer) -> None:
        super().__init__(*answers)
        self.of: list[tuple[str, str]] = []

    def note(self, catalog: str, channel: str, *_: Any, **__: Any) -> str | None:
        self.of.append((catalog, channel))
        return None


def test_every_catalog_is_gone_over_by_its_own_channels(host: Host) -> None:
    for named in ("tests", "mine", "yours"):
        host.boxes.apply(AppliedAlerts(named, "http://ui", host.alerts))
        tell(host.boxes, named, "hook", message(job=named), host.alerts, now=T0)
    tell(host.boxes, "yours", "mail", message(job="mailed"), host.alerts, now=T0)
    post = Receivers(True, False)
    assert everything(host, post) == Round(sent=3, waiting=1)
    assert post.of == [("mine", "hook"), ("tests", "hook"), ("yours", "hook"), ("yours", "mail")]
    assert {each.job for each in post.took} == {"mine", "yours", "mailed"}


def test_one_catalog_or_channel_that_breaks_keeps_no_other_from_going(host: Host) -> None:
    class Breaks(Receivers):
        def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer:
            if letter.message.job == "broken":
                raise RuntimeError("boom")
            return super().send(channel, letter, within_s=within_s)

    for named in ("broken", "bad", "tests"):
        host.boxes.apply(AppliedAlerts(named, "http://ui", host.alerts))
        tell(host.boxes, named, "hook", message(job=named), host.alerts, now=T0)
    (host.state / "alerts" / "applied" / "bad.json").write_text("{")
    post = Breaks()
    found = everything(host, post)
    assert (found.sent, found.waiting) == (1, 1)
    assert [each.job for each in post.took] == ["tests"]
    assert [each.partition(": ")[0] for each in found.problems] == ["catalog bad", "channel hook of catalog broken"]


def test_without_time_what_waits_is_only_counted(host: Host) -> None:
    host.hear(body())
    assert everything(host, Receivers(), left=0.5) == Round(waiting=1)
    assert everything(host, Receivers()) == Round(sent=1)


# ---------------------------------------------------------------------------------------------- names of secrets


def test_the_variables_of_channels_are_known_from_what_is_in_force_and_from_what_the_watchdog_read(host: Host) -> None:
    assert host.boxes.variables() == {"HOOK_URL"}
    applied = AppliedAlerts("mine", "http://ui", read())
    assert AppliedAlerts.from_json(json.loads(json.dumps(applied.to_json()))).alerts.variables == read().variables
    host.boxes.apply(applied)
    Deliveries(host.state).keep_config(b'[watchdog]\ndead_man_url_env = "DEAD"\n[channels.x]\npassword_env = "PASS_IT"')
    found = {"HOOK_URL", "SLACK_URL", "SMTP_PASSWORD", "DEAD_MAN_URL", "DEAD", "PASS_IT"}
    assert host.boxes.variables() == found
    (host.state / "alerts" / "applied" / "tests.json").write_text("{")
    assert host.boxes.variables() == found - {"HOOK_URL"}


def test_what_was_applied_before_the_dead_man_was_written_down_is_believed(host: Host) -> None:
    data = AppliedAlerts("mine", "http://ui", read()).to_json()
    del data["dead_man"]
    assert AppliedAlerts.from_json(data).alerts.variables == {"SLACK_URL", "SMTP_PASSWORD"}
