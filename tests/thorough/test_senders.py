"""Every kind of channel against real receivers on loopback, and every way in which a receiver can fail."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import receivers
from orchctl.adapters.authorities import Authorities, NoAuthority
from orchctl.adapters.deadline import Deadline
from orchctl.adapters.local_stack import free_port
from orchctl.adapters.senders import Senders
from orchctl.core.alerts import EVENTS, Channel, Event, Message, Secret
from orchctl.core.deliveries import Answer, Letter
from receivers import PASSWORD, USER, Http, Mail, text_of

NOW = datetime(2025, 12, 19, 12, 0, tzinfo=UTC)
TOKEN = "T0KEN-aBcDeF/XyZ123456789"
WITHIN_S = 8.0


def letter(event: Event = "failed", *, channel: str = "c", id: str = "abc123") -> Letter:  # noqa: A002
    message = Message(
        event, NOW, "box", job="score", run_id="20251219T115500Z-3f9a1c", exit_code=3, last_lines=("<a> & b", "é")
    )
    return Letter(id, channel, message, NOW, NOW)


def senders(**environment: str) -> Senders:
    return Senders(environment, sleep=lambda _seconds: None, jitter=lambda: 0.0)


def hook(receiver: Http, kind: str = "webhook") -> tuple[Channel, Senders]:
    channel = Channel("c", "slack" if kind == "slack" else "webhook", Secret(env="URL"))
    return channel, senders(URL=f"{receiver.url}/services/{TOKEN}?k=v")


@pytest.fixture
def http() -> Iterator[Http]:
    with receivers.http() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return receivers.certificate(tmp_path_factory.mktemp("tls"))


def email(mail: Mail, certificate: Path | None, **fields: object) -> Channel:
    plain = {"host": "127.0.0.1", "port": mail.port, "sender": "box@example.org", "to": ("ops@example.org",)}
    login = {"username": USER, "password": Secret(env="PASSWORD"), "security": "starttls"}
    ca_file = {"ca_file": str(certificate)} if certificate is not None else {}
    return Channel("c", "email", **{**plain, **login, **ca_file, **fields})  # type: ignore[arg-type]


def send(channel: Channel, by: Senders, *, within_s: float = WITHIN_S) -> Answer:
    answer = by.send(channel, letter(), within_s=within_s)
    for secret in (TOKEN, TOKEN.partition("/")[0], PASSWORD):
        assert secret not in answer.said
    return answer


def test_each_event_arrives_once_by_each_kind_of_channel_with_its_text(http: Http) -> None:
    with receivers.smtp() as mail:
        mailing = email(mail, None, security="none", username=None, password=None)
        for event in EVENTS:
            for kind in ("webhook", "slack"):
                channel, by = hook(http, kind)
                assert by.send(channel, letter(event), within_s=WITHIN_S) == Answer(True, "200 OK ok", 1)
            assert senders().send(mailing, letter(event), within_s=WITHIN_S) == Answer(True, "250 taken", 1)
    messages = [letter(event).message for event in EVENTS]
    plain, slack = http.got[::2], http.got[1::2]
    assert [(each["id"], each["event"], each["subject"], each["text"]) for each in plain] == [
        ("abc123", message.event, message.subject, message.text) for message in messages
    ]
    assert {(each["job"], each["exit_code"], *each["last_lines"]) for each in plain} == {("score", 3, "<a> & b", "é")}
    assert slack == [{"text": each.text.replace("<a> & b", "&lt;a&gt; &amp; b")} for each in messages]
    assert [(each["Subject"], text_of(each)) for each in mail.mails] == [(each.subject, each.text) for each in messages]
    assert {path for _, path, _ in http.asked} == {f"/services/{TOKEN}?k=v"}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 408])
def test_a_receiver_that_is_busy_is_asked_again(http: Http, status: int) -> None:
    http.answers = [status, status]
    assert send(*hook(http)) == Answer(True, "200 OK ok", 3)
    assert len(http.got) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 302])
def test_a_receiver_that_refuses_is_not_asked_again(http: Http, status: int) -> None:
    http.answers = [status] * 9
    answer = send(*hook(http))
    assert (answer.ok, answer.attempts, answer.again) == (False, 1, False)
    assert answer.said.startswith(str(status))


def test_one_that_stays_broken_is_given_up_for_now(http: Http) -> None:
    http.answers, http.body = [500] * 9, f"boom at /services/{TOKEN}?k=v"
    answer = send(*hook(http))
    assert (answer.ok, answer.attempts, answer.again) == (False, 4, True)
    assert answer.said.startswith("500 Internal Server Error boom at ***")


def test_one_that_is_down_is_asked_again(http: Http) -> None:
    channel = Channel("c", "webhook", Secret(env="URL"))
    answer = send(channel, senders(URL=f"http://127.0.0.1:{free_port()}/services/{TOKEN}"))
    assert answer == Answer(False, "no connection: Connection refused", 4, again=True)


def test_one_that_does_not_answer_takes_a_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/{TOKEN}"
        started = time.monotonic()
        answer = send(Channel("c", "slack", Secret(env="URL"), timeout=1), senders(URL=url), within_s=2.5)
        assert time.monotonic() - started < 10
    assert (answer.ok, answer.again) == (False, True)
    assert answer.said.startswith("no answer within")


def test_one_whose_answer_trickles_in_takes_a_bounded_time_and_holds_up_no_other(http: Http) -> None:
    http.trickle, http.body = True, "x" * 1000
    slow, _ = hook(http)
    with receivers.http() as quick:
        channels = {"c": slow, "q": Channel("q", "webhook", Secret(env="Q"))}
        by = senders(URL=f"{http.url}/{TOKEN}", Q=quick.url)
        letters = {"c": [letter(), letter(id="2")], "q": [letter(channel="q"), letter(channel="q", id="2")]}
        found = by.send_all(letters, channels, within_s=2.0)
        assert [each.ok for each in found["q"]] == [True, True]
        assert [body["id"] for body in quick.got] == ["abc123", "2"]
    # What the receiver did its status says, which was there at once.
    assert [(each.ok, each.said[:10], each.attempts) for each in found["c"]] == [
        (True, "200 OK xxx", 1),
        (False, "no answer ", 0),
    ]
    assert [body["id"] for body in http.got] == ["abc123"]


@pytest.mark.parametrize("delay", [1.5, 60])
def test_one_that_takes_a_message_and_is_slow_to_say_so_gets_it_once(http: Http, delay: float) -> None:
    http.delay = delay
    channel, by = hook(http)
    answer = send(replace(channel, timeout=1), by)
    assert answer == Answer(False, "no answer within 1 s", 1, again=True, fault="silence")
    assert len(http.got) == 1


@pytest.mark.parametrize("times", [1, 2])
def test_one_that_breaks_off_after_it_was_sent_all_gets_it_once(times: int) -> None:
    took = list[bytes]()

    class Rude(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            took.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.close_connection = True

    with receivers.serving(Rude) as url:
        by = senders(URL=url)
        for _ in range(times):
            answer = send(Channel("c", "webhook", Secret(env="URL")), by)
            assert (answer.ok, answer.attempts, answer.again, answer.fault) == (False, 1, True, "silence")
    assert len(took) == times


def test_a_connection_that_comes_too_late_is_not_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Deadline(0) as deadline:
        connection = socket.create_connection(server.getsockname())
        with pytest.raises(TimeoutError):
            deadline.watch(connection)
        assert connection.fileno() == -1


def test_after_one_that_was_not_taken_the_others_are_not_sent(http: Http) -> None:
    channel, by = hook(http)
    http.answers = [403]
    found = by.send_all({"c": [letter(), letter(id="2")]}, {"c": channel}, within_s=WITHIN_S)["c"]
    assert [(each.ok, each.attempts) for each in found] == [(False, 1), (False, 0)]
    assert http.got == []


@pytest.mark.parametrize("kind", ["webhook", "email"])
def test_one_that_is_refused_for_what_it_is_keeps_no_other_back(http: Http, kind: str) -> None:
    with receivers.smtp() as mail:
        if kind == "email":
            mail.refuse, said = ["554 5.7.1 no spam here"], "554 5.7.1 no spam here"
            channel, by = email(mail, None, security="none", username=None, password=None), senders()
        else:
            http.answers, said = [400], "400 Bad Request ok"
            channel, by = hook(http)
        letters = [letter(), letter("late", id="2"), letter("crashed", id="3")]
        found = by.send_all({"c": letters}, {"c": channel}, within_s=WITHIN_S)["c"]
        assert found[0] == Answer(False, said, 1, fault="message")
        assert [each.ok for each in found[1:]] == [True, True]
        taken = [body["id"] for body in http.got] or [each["Message-ID"].partition("@")[0] for each in mail.mails]
    assert taken in (["2", "3"], ["<2", "<3"])


def test_tls_is_verified_and_a_refusal_is_final(certificate: Path) -> None:
    with receivers.http(certificate) as receiver:
        channel, by = hook(receiver)
        answer = send(channel, by)
        assert (answer.ok, answer.attempts, answer.again) == (False, 1, False)
        assert answer.said == "TLS was refused: self-signed certificate"
        assert send(replace(channel, ca_file=str(certificate)), by) == Answer(True, "200 OK ok", 1)
        assert send(replace(channel, ca_file="/nowhere.pem"), by).said == (
            "the certificates in /nowhere.pem cannot be read: No such file or directory"
        )


def test_authorities_are_read_once_and_anew_where_their_file_has_changed(certificate: Path, tmp_path: Path) -> None:
    authorities, own = Authorities(), tmp_path / "ca.pem"
    own.write_bytes(certificate.read_bytes())
    first = authorities.of(str(own))
    assert authorities.of(str(own)) is first
    assert authorities.of(None) is not first
    assert authorities.of(None) is authorities.of(None)
    assert authorities.of(str(own)) is first
    own.write_text("# no longer any")
    with pytest.raises(NoAuthority):
        authorities.of(str(own))
    receivers.certificate(tmp_path).rename(own)
    assert authorities.of(str(own)) is not first


def test_plain_http_where_tls_is_asked_for_is_final(http: Http) -> None:
    channel, _ = hook(http)
    answer = send(channel, senders(URL=http.url.replace("http:", "https:") + f"/{TOKEN}"))
    assert (answer.ok, answer.attempts) == (False, 1)
    assert answer.said.startswith("TLS was refused")


@pytest.mark.parametrize("address", ["not an address", "ftp://example.org/x", "http://", "https://[::1"])
def test_an_address_that_is_none(address: str) -> None:
    answer = send(Channel("c", "webhook", Secret(env="URL")), senders(URL=address))
    assert (answer.ok, answer.again, answer.attempts) == (False, False, 1)


def test_the_dead_man_address_is_asked_for(http: Http) -> None:
    by = senders(DEAD=f"{http.url}/ping/{TOKEN}")
    assert by.ping(Secret(env="DEAD"), within_s=WITHIN_S) == Answer(True, "200 OK ok", 1)
    assert http.asked == [("GET", f"/ping/{TOKEN}", None)]
    assert not by.ping(Secret(env="NONE"), within_s=WITHIN_S).ok


# --- mail


def test_a_mail_arrives_by_starttls_with_a_login(certificate: Path) -> None:
    with receivers.smtp(certificate, login=True) as mail:
        assert send(email(mail, certificate), senders(PASSWORD=PASSWORD)) == Answer(True, "250 taken", 1)
        (taken,) = mail.mails
        assert (mail.secured, mail.logins) == ([True], [USER])
    assert taken["Subject"] == letter().message.subject
    assert (taken["From"], taken["To"]) == ("box@example.org", "ops@example.org")
    assert taken["Message-ID"].startswith("<abc123@orchctl.")
    assert taken["Auto-Submitted"] == "auto-generated"
    assert text_of(taken) == letter().message.text


def test_a_mail_arrives_by_tls_from_the_start(certificate: Path) -> None:
    with receivers.smtp(certificate, tls=True) as mail:
        channel = email(mail, certificate, security="tls", username=None, password=None)
        assert send(channel, senders()) == Answer(True, "250 taken", 1)
        assert len(mail.mails) == 1


@pytest.mark.parametrize(
    ("fields", "password", "said", "again", "attempts"),
    [
        ({}, "wrong", "the login is refused: 535", False, 1),
        ({"ca_file": None}, PASSWORD, "TLS was refused: self-signed certificate", False, 1),
        ({"ca_file": "/nowhere"}, PASSWORD, "the certificates in /nowhere cannot be read", False, 1),
        ({"security": "tls"}, PASSWORD, "TLS was refused", False, 1),
        ({"security": "none", "username": None}, PASSWORD, "530", False, 1),
        ({"port": 1}, PASSWORD, "no connection: Connection refused", True, 4),
        ({}, None, "the variable PASSWORD", False, 0),
    ],
)
def test_a_mail_that_cannot_be_sent(
    certificate: Path, fields: dict[str, object], password: str | None, said: str, again: bool, attempts: int
) -> None:
    with receivers.smtp(certificate, login=True) as mail:
        environment = {"PASSWORD": password} if password is not None else {}
        answer = send(email(mail, certificate, **fields), senders(**environment))
        assert mail.mails == []
    assert (answer.ok, answer.again, answer.attempts) == (False, again, attempts)
    assert answer.fault == ("login" if password == "wrong" else None)
    assert answer.said.startswith(said)
    assert "wrong" not in answer.said


def test_a_server_that_offers_no_tls_gets_neither_mail_nor_password() -> None:
    with receivers.smtp() as mail:
        answer = send(email(mail, None), senders(PASSWORD=PASSWORD))
        assert (mail.mails, mail.logins) == ([], [])
    assert (answer.ok, answer.again, answer.attempts) == (False, False, 1)
    assert "STARTTLS" in answer.said


@pytest.mark.parametrize(
    ("refuse", "ok", "attempts", "again"),
    [
        (["451 try later"], True, 2, True),
        (["451 try later"] * 9, False, 4, True),
        (["554 no spam here"], False, 1, False),
    ],
)
def test_what_a_server_says_decides_whether_it_is_tried_again(
    certificate: Path, refuse: list[str], ok: bool, attempts: int, again: bool
) -> None:
    with receivers.smtp(certificate, login=True) as mail:
        mail.refuse = list(refuse)
        answer = send(email(mail, certificate), senders(PASSWORD=PASSWORD))
        assert len(mail.mails) == int(ok)
    assert (answer.ok, answer.attempts) == (ok, attempts)
    if not ok:
        assert answer.said == refuse[0]
        assert answer.again == again


def test_a_mail_server_that_does_not_answer_takes_a_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        mail = Mail(port=deaf.getsockname()[1])
        started = time.monotonic()
        answer = send(email(mail, None, timeout=1), senders(PASSWORD=PASSWORD), within_s=2.5)
        assert time.monotonic() - started < 10
    assert (answer.ok, answer.again) == (False, True)


def send_to_the_end(channel: Channel, by: Senders, *, within_s: float) -> Answer:
    """Send, and wait until nothing of it is going on any more."""
    before = set(threading.enumerate())
    answer = send(channel, by, within_s=within_s)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    return answer


def test_a_mail_server_that_is_slow_with_each_answer_gets_nothing_that_counts_as_not_sent() -> None:
    with receivers.smtp() as mail:
        mail.pause = 1.2
        channel = email(mail, None, security="none", username=None, password=None, timeout=2)
        answer = send_to_the_end(channel, senders(), within_s=2.5)
        assert mail.mails == []
        assert (answer.ok, answer.again, answer.fault) == (False, True, None)
        assert answer.said == "no answer within 2 s"
        mail.pause = 0.3
        assert send(channel, senders(), within_s=WITHIN_S).ok
        assert len(mail.mails) == 1


@pytest.mark.parametrize("within_s", [1.5, WITHIN_S])
def test_a_mail_server_that_is_slow_to_say_that_it_took_a_mail_gets_it_once(within_s: float) -> None:
    with receivers.smtp() as mail:
        mail.delay = 4
        channel = email(mail, None, security="none", username=None, password=None, timeout=2)
        answer = send_to_the_end(channel, senders(), within_s=within_s)
        assert len(mail.mails) == 1
        assert (answer.ok, answer.again, answer.attempts, answer.fault) == (False, True, 1, "silence")
        assert answer.said.startswith("no answer within ")


# --- secrets


def test_a_secret_from_a_file(http: Http, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{http.url}/{TOKEN}\n")
    channel = Channel("c", "webhook", Secret(file=str(file)))
    file.chmod(0o640)
    answer = send(channel, senders())
    assert (answer.ok, answer.said) == (False, f"{file} may be read by others")
    file.chmod(0o600)
    assert send(channel, senders()).ok
    file.write_text("two\nlines\n")
    assert "more than one line" in send(channel, senders()).said
    file.unlink()
    assert "empty or not there" in send(channel, senders()).said
    file.mkdir()
    assert not send(channel, senders()).ok
