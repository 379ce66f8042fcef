"""The Prefect adapter against scripted servers: retries, errors, secrets, pages and shapes."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import ssl
import traceback
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from orchctl.adapters.prefect_api import PrefectApi
from orchctl.errors import (
    OrchctlError,
    PrefectApiError,
    PrefectRejected,
    PrefectUnauthorized,
    PrefectUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

URL = "http://127.0.0.1:4200/api"
Step = httpx.Response | Exception
REFUSED = httpx.ConnectError("no")
REFUSED.__cause__ = ConnectionRefusedError(111, "Connection refused")
READ_TIMEOUT = httpx.ReadTimeout("slow")
CUT = httpx.RemoteProtocolError("server disconnected")
RESET = httpx.ReadError("reset")
HTML = httpx.Response(200, html="<html><title>other</title></html>")
VERSION = httpx.Response(200, json="3.8.8")

RUN = {
    "id": "r1",
    "name": "calm-owl",
    "deployment_id": "d1",
    "state_type": "SCHEDULED",
    "state_name": "Late",
    "state": {"message": "late"},
    "expected_start_time": "2026-11-24T02:20:00+02:00",
    "auto_scheduled": True,
    "created_by": {"id": "s1", "type": "SCHEDULE"},
    "run_count": 1,
}
DEPLOYMENT = {
    "id": "d1",
    "name": "job",
    "flow_id": "f1",
    "paused": False,
    "tags": ["orchctl"],
    "parameters": {"a": 1},
    "enforce_parameter_schema": True,
    "concurrency_limit": None,
    "global_concurrency_limit": {"limit": 3},
    "concurrency_options": {"collision_strategy": "CANCEL_NEW"},
    "pull_steps": None,
    "work_pool_name": "p",
    "schedules": [{"id": "s1", "slug": None, "active": True, "schedule": {"cron": "0 3 * * *"}}],
}


class Server:
    """Answers with the given steps in order, the last one for ever; records what was asked and slept."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []
        self.sleeps: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps[min(len(self.requests), len(self.steps)) - 1]
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)

    @property
    def body(self) -> Any:
        return json.loads(self.requests[-1].content)


def api(handler: Callable[[httpx.Request], httpx.Response], **more: Any) -> PrefectApi:
    sleep = handler.sleeps.append if isinstance(handler, Server) else (lambda _: None)
    defaults: dict[str, Any] = {"url": URL, "sleep": sleep, "jitter": lambda: 1.0}
    return PrefectApi(transport=httpx.MockTransport(handler), **(defaults | more))


def call(server: Server, method: str = "GET", path: str = "/admin/version", **more: Any) -> Any:
    with api(server) as prefect:
        return prefect.request(method, path, **more)


def failure(server: Server, *args: Any, **more: Any) -> OrchctlError:
    with pytest.raises(OrchctlError) as caught:
        call(server, *args, **more)
    return caught.value


# Retries


@pytest.mark.parametrize("first", [REFUSED, READ_TIMEOUT, CUT, RESET, httpx.ConnectTimeout("slow")])
def test_a_read_is_sent_again_after_a_lost_connection(first: Exception) -> None:
    server = Server(first, first, VERSION)
    assert call(server) == "3.8.8"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_answer_is_tried_again_after_growing_waits(status: int) -> None:
    server = Server(httpx.Response(status), httpx.Response(status), httpx.Response(status), VERSION)
    assert call(server) == "3.8.8"
    assert server.sleeps == [0.2, 0.4, 0.8]


def test_the_wait_is_jittered_and_capped_at_five_seconds() -> None:
    server = Server(httpx.Response(503))
    with api(server, jitter=lambda: 0.5, attempts=8) as prefect, pytest.raises(PrefectUnreachable):
        prefect.version()
    assert server.sleeps == [0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]


@pytest.mark.parametrize(
    ("header", "slept"), [("7", 7.0), ("0", 0.0), ("3600", 30.0), ("-1", 0.2), ("nan", 0.2), ("", 0.2)]
)
def test_retry_after_is_honoured_up_to_thirty_seconds(header: str, slept: float) -> None:
    server = Server(httpx.Response(429, headers={"Retry-After": header}), VERSION)
    assert call(server) == "3.8.8"
    assert server.sleeps == [slept]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500, 501])
def test_other_errors_are_not_tried_again(status: int) -> None:
    server = Server(httpx.Response(status, json={"detail": "no"}))
    failure(server)
    assert len(server.requests) == 1


def test_it_gives_up_after_the_given_number_of_attempts() -> None:
    server = Server(REFUSED)
    failure(server)
    assert len(server.requests) == 5


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    lost = httpx.ConnectError("tls")
    lost.__cause__ = ssl.SSLCertVerificationError("certificate verify failed")
    server = Server(lost)
    assert "TLS failed" in failure(server).message
    assert len(server.requests) == 1


@pytest.mark.parametrize("first", [READ_TIMEOUT, CUT, RESET, httpx.WriteError("half")])
def test_adding_schedules_is_not_repeated_once_it_may_have_arrived(first: Exception) -> None:
    server = Server(first, httpx.Response(201, json=[]))
    with api(server) as prefect, pytest.raises(PrefectUnreachable) as caught:
        prefect.add_schedules("d1", [{"slug": "s"}])
    assert len(server.requests) == 1
    assert "look before you repeat" in str(caught.value.hint)


@pytest.mark.parametrize("status", [502, 504])
def test_adding_schedules_is_not_repeated_after_a_proxy_gave_up(status: int) -> None:
    server = Server(httpx.Response(status), httpx.Response(201, json=[]))
    with api(server) as prefect, pytest.raises(PrefectUnreachable):
        prefect.add_schedules("d1", [{"slug": "s"}])
    assert len(server.requests) == 1


@pytest.mark.parametrize("first", [REFUSED, httpx.ConnectTimeout("slow"), httpx.Response(503), httpx.Response(429)])
def test_adding_schedules_is_repeated_when_it_was_not_carried_out(first: Step) -> None:
    server = Server(first, httpx.Response(201, json=[]))
    with api(server) as prefect:
        prefect.add_schedules("d1", [{"slug": "s"}])
    assert len(server.requests) == 2


def test_setting_a_state_is_not_repeated_once_it_may_have_arrived() -> None:
    server = Server(READ_TIMEOUT)
    with api(server) as prefect, pytest.raises(PrefectUnreachable):
        prefect.set_run_state("r1", type="CANCELLED")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (lambda api: api.create_flow("f"), {"id": "f1"}),
        (lambda api: api.create_deployment({"name": "x"}), {"id": "d1"}),
        (lambda api: api.create_run("d1", parameters={}, idempotency_key="k"), RUN),
        (lambda api: api.update_deployment("d1", {"paused": True}), None),
        (lambda api: api.update_schedule("d1", "s1", {"active": True}), None),
        (lambda api: api.delete_flow("f1"), None),
        (lambda api: api.flow_ids(["f"]), {"results": [], "count": 0}),
    ],
)
def test_what_can_be_repeated_is_repeated_after_a_lost_answer(act: Callable[[PrefectApi], object], answer: Any) -> None:
    server = Server(READ_TIMEOUT, httpx.Response(200, json=answer) if answer else httpx.Response(204))
    with api(server) as prefect:
        act(prefect)
    assert len(server.requests) == 2


def test_a_deletion_that_finds_nothing_after_a_repetition_is_done() -> None:
    server = Server(READ_TIMEOUT, httpx.Response(404, json={"detail": "Deployment not found"}))
    with api(server) as prefect:
        prefect.delete_deployment("d1")
    assert len(server.requests) == 2


def test_a_deletion_that_finds_nothing_at_first_is_refused() -> None:
    server = Server(httpx.Response(404, json={"detail": "Deployment not found"}))
    with api(server) as prefect, pytest.raises(PrefectRejected) as caught:
        prefect.delete_deployment("d1")
    assert caught.value.status == 404


METADATA = httpx.Response(200, json={"prefect": {"process": {"default_base_job_configuration": {"variables": {}}}}})
CONFLICT = httpx.Response(409, json={"detail": "A work pool with this name already exists."})


def test_a_pool_that_is_there_after_a_repetition_is_made() -> None:
    server = Server(METADATA, CUT, CONFLICT)
    with api(server) as prefect:
        prefect.create_pool("p", description="mine")
    assert server.body == {
        "name": "p",
        "type": "process",
        "description": "mine",
        "base_job_template": {"variables": {}},
    }


def test_a_pool_that_was_there_before_is_refused() -> None:
    with api(Server(METADATA, CONFLICT)) as prefect, pytest.raises(PrefectRejected) as caught:
        prefect.create_pool("p", description=None)
    assert caught.value.status == 409


# Errors


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (REFUSED, "connection refused"),
        (httpx.ConnectTimeout("x"), "no connection within 5 s"),
        (READ_TIMEOUT, "no answer within 30 s"),
        (CUT, "the connection was cut"),
        (RESET, "the connection was cut"),
        (httpx.ConnectError("x"), "no connection"),
        (httpx.LocalProtocolError("x"), "cannot be sent"),
    ],
)
def test_a_lost_connection_is_unreachable_and_says_why(lost: Exception, words: str) -> None:
    error = failure(Server(lost))
    assert isinstance(error, PrefectUnreachable)
    assert error.message.startswith(f"cannot reach the Prefect API at {URL}: ")
    assert words in error.message
    assert error.hint == "check PREFECT_API_URL; without it, `orchctl host up` starts a server on this host"
    assert error.__cause__ is lost


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "host name is not known"),
        (ssl.SSLError(1, "wrong version number"), "TLS failed"),
        (OSError(113, "No route to host"), "no connection (No route to host)"),
    ],
)
def test_the_cause_of_a_failed_connection_is_named(cause: Exception, words: str) -> None:
    lost = httpx.ConnectError("x")
    lost.__cause__ = cause
    assert words in failure(Server(lost)).message


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        with PrefectApi(url=url, attempts=1) as prefect, pytest.raises(PrefectUnreachable) as caught:
            prefect.version()
    assert caught.value.message == f"cannot reach the Prefect API at {url}: connection refused"


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_carries_status_and_detail(status: int) -> None:
    error = failure(Server(httpx.Response(status, json={"detail": "not\n so \x1b[31m"})))
    assert isinstance(error, PrefectRejected)
    assert error.status == status
    assert error.message.endswith(f"(HTTP {status}): not so [31m")


def test_a_validation_error_names_the_place_and_not_the_input() -> None:
    body = {
        "exception_message": "Invalid request received.",
        "exception_detail": [{"loc": ["body", "name"], "msg": "Field required", "input": {"pw": "hush"}}],
        "request_body": {"pw": "hush"},
    }
    error = failure(Server(httpx.Response(422, json=body)), "POST", "/flows/")
    assert error.message.endswith("name: Field required")


def test_a_long_detail_is_cut() -> None:
    error = failure(Server(httpx.Response(409, json={"detail": "x" * 5000})))
    assert error.message.endswith(": " + "x" * 299 + "…")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_password_is_unauthorized(status: int) -> None:
    error = failure(Server(httpx.Response(status, json={"exception_message": "Unauthorized"})))
    assert isinstance(error, PrefectUnauthorized)
    assert "PREFECT_API_AUTH_STRING" in str(error.hint)


def test_an_internal_error_is_an_api_error() -> None:
    error = failure(Server(httpx.Response(500, json={"exception_message": "Internal Server Error"})))
    assert type(error) is PrefectApiError
    assert "HTTP 500" in error.message


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_stays_busy_is_unreachable(status: int) -> None:
    error = failure(Server(httpx.Response(status)))
    assert isinstance(error, PrefectUnreachable)
    assert "up but busy" in error.message


@pytest.mark.parametrize(
    "answer",
    [
        HTML,
        httpx.Response(200, text='{"id": "d1", "na'),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"[" * 200_000),
        httpx.Response(404, html="<h1>nginx</h1>"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(405, json={"detail": "Method Not Allowed"}),
        httpx.Response(301, headers={"Location": "https://example.org/login"}),
        httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip")),
    ],
)
def test_an_answer_that_is_not_prefects(answer: httpx.Response) -> None:
    with api(lambda _: answer) as prefect, pytest.raises(PrefectUnreachable) as caught:
        prefect.deployment_by_id("d1")
    assert caught.value.message.startswith(f"{URL} did not answer like a Prefect API: ")


def test_a_redirect_is_named_and_not_followed() -> None:
    server = Server(httpx.Response(302, headers={"Location": "https://me:pw@example.org/in?token=t#x"}))
    assert "redirects to https://example.org/in, which" in failure(server).message
    assert len(server.requests) == 1


WITHOUT_NAME = {key: value for key, value in DEPLOYMENT.items() if key != "name"}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        "text",
        7,
        {},
        WITHOUT_NAME,
        DEPLOYMENT | {"paused": "no"},
        DEPLOYMENT | {"tags": {"a": 1}},
        DEPLOYMENT | {"schedules": [{"id": "s1"}]},
        DEPLOYMENT | {"global_concurrency_limit": {"limit": True}},
    ],
)
def test_a_deployment_of_the_wrong_shape(answer: Any) -> None:
    with api(Server(httpx.Response(200, json=answer))) as prefect, pytest.raises(PrefectUnreachable):
        prefect.deployment_by_id("d1")


@pytest.mark.parametrize("text", ["2026-11-24T00:20:00", "yesterday", "0001-01-01T00:00:00+14:00"])
def test_an_instant_of_the_wrong_shape(text: str) -> None:
    answer = httpx.Response(200, json=RUN | {"expected_start_time": text})
    with api(Server(answer)) as prefect, pytest.raises(PrefectUnreachable):
        prefect.flow_run("r1")


@pytest.mark.parametrize(
    "answer", [[], {"results": []}, {"results": {}, "count": 0}, {"results": [{}], "count": 1}, {"count": 1}]
)
def test_a_listing_of_the_wrong_shape(answer: Any) -> None:
    with api(Server(httpx.Response(200, json=answer))) as prefect, pytest.raises(PrefectUnreachable):
        prefect.deployments(names=[], tag="t")


# Secrets and credentials

URL_SECRETS = {"url-pa ss", "url-pa%20ss", base64.b64encode(b"who:url-pa ss").decode()}
AUTH_SECRETS = {"auth-s3cret", base64.b64encode(b"me:auth-s3cret").decode()}
KEY_SECRETS = {"key-s3cret"}
ECHO = " ".join(sorted(URL_SECRETS | AUTH_SECRETS | KEY_SECRETS))
FAILURES: list[Step] = [
    REFUSED,
    READ_TIMEOUT,
    CUT,
    HTML,
    *(httpx.Response(status, json={"detail": ECHO}) for status in (400, 401, 403, 404, 409, 422)),
    *(httpx.Response(status, json={"exception_message": ECHO}) for status in (429, 500, 502, 503, 504)),
    httpx.Response(409, json={"detail": "x" * 295 + ECHO}),
    httpx.Response(422, json={"exception_detail": [{"loc": ["body", ECHO], "msg": ECHO}]}),
    httpx.Response(302, headers={"Location": "http://who:url-pa%20ss@h/key-s3cret?auth-s3cret"}),
    httpx.Response(500, text=ECHO),
    httpx.Response(200, text=ECHO),
    httpx.Response(200, json={"name": ECHO}),
    httpx.Response(200, json={"status": "REJECT", "details": {"reason": ECHO}}),
]
FAILING: list[Callable[[PrefectApi], object]] = [
    lambda prefect: prefect.version(),
    lambda prefect: prefect.set_run_state("r1", type="CANCELLED"),
]
WITH_USER = "http://who:url-pa%20ss@127.0.0.1:4200/api"
CREDENTIALS: list[tuple[dict[str, str], set[str]]] = [
    ({"url": WITH_USER}, URL_SECRETS),
    ({"auth_string": "me:auth-s3cret"}, AUTH_SECRETS),
    ({"api_key": "key-s3cret"}, KEY_SECRETS),
    (
        {"url": WITH_USER, "auth_string": "me:auth-s3cret", "api_key": "key-s3cret"},
        AUTH_SECRETS | KEY_SECRETS | {"url-pa ss", "url-pa%20ss"},
    ),
]


@pytest.mark.parametrize("step", FAILURES, ids=str)
@pytest.mark.parametrize(("given", "secrets"), CREDENTIALS, ids=["url", "auth", "key", "all"])
def test_no_message_holds_a_secret(step: Step, given: dict[str, str], secrets: set[str]) -> None:
    for act in FAILING:
        with api(Server(step), **given) as prefect:
            try:
                act(prefect)
            except OrchctlError as error:
                said = f"{error} {error.message} {error.hint} {error!r}"
                said += "".join(traceback.format_exception(error))
                assert not [word for word in secrets if word in said]
            else:
                assert isinstance(step, httpx.Response)
                assert step.is_success
            assert not [word for word in secrets if word in repr(prefect)]


@pytest.mark.parametrize(
    "url",
    [
        "http://who:12/3-s3cret@127.0.0.1:4200/api",
        "http://who:12?s3cret@h/api",
        "http://who:s3cret/x@h/api",
        "http://[s3cret/api",
        "ftp://who:s3cret@h/api",
        "who:s3cret@h/api",
        "http://who:s3cret@/api",
        "http://who:s3cret@h h/api",
        "http://who:s3cret@h:99999/api",
        "",
    ],
)
def test_an_unusable_address_is_refused_without_quoting_its_secrets(url: str) -> None:
    with pytest.raises(PrefectUnreachable) as caught:
        PrefectApi(url=url)
    said = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in said.replace("PrefectApi(url=url)", "")
    assert caught.value.hint is not None


def sent(server: Server, **given: Any) -> str | None:
    with api(server, **given) as prefect:
        prefect.version()
    assert "@" not in str(server.requests[0].url)
    header: str | None = server.requests[0].headers.get("authorization")
    return header


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


def test_an_auth_string_is_sent_as_basic_auth() -> None:
    assert sent(Server(VERSION), auth_string="me:p:w") == basic("me:p:w")


def test_user_information_in_the_url_is_sent_as_basic_auth() -> None:
    assert sent(Server(VERSION), url="http://me:p%40w@127.0.0.1:4200/api/") == basic("me:p@w")


def test_an_api_key_is_sent_as_a_bearer_token() -> None:
    assert sent(Server(VERSION), api_key="abc\n") == "Bearer abc"


def test_the_auth_string_goes_before_the_url_and_the_key() -> None:
    url = "http://u:v@127.0.0.1:4200/api"
    assert sent(Server(VERSION), url=url, auth_string="me:pw", api_key="k") == basic("me:pw")


def test_without_credentials_nothing_is_sent() -> None:
    assert sent(Server(VERSION), auth_string="", api_key="") is None


@pytest.mark.parametrize("key", ["kéy", "a b\nc", "a\x00b"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(PrefectUnauthorized) as caught:
        PrefectApi(url=URL, api_key=key)
    assert key not in caught.value.message


def test_an_auth_string_of_bytes_that_are_not_utf8_is_sent_as_it_is() -> None:
    expected = "Basic " + base64.b64encode(b"me:\xff").decode()
    assert sent(Server(VERSION), auth_string=b"me:\xff".decode("utf-8", "surrogateescape")) == expected


def test_a_tls_bundle_that_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(PrefectUnreachable, match="No such file"):
        PrefectApi(url="https://h/api", verify=str(tmp_path / "missing.pem"))


def test_a_tls_bundle_that_holds_no_certificate(tmp_path: Any) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(PrefectUnreachable, match="holds no certificate"):
        PrefectApi(url="https://h/api", verify=str(tmp_path / "empty.pem"))


# Pages


class Rows:
    """Pages over rows; `change(number of the request)` may alter them before each answer."""

    def __init__(self, rows: list[Any], change: Callable[[int, list[Any]], None] = lambda *_: None) -> None:
        self.rows = rows
        self.change = change
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(body := json.loads(request.content))
        self.change(len(self.asked), self.rows)
        start = (body["page"] - 1) * body["limit"]
        page = self.rows[start : start + body["limit"]]
        return httpx.Response(200, json={"results": page, "count": len(self.rows)})


def deployments(start: int, stop: int) -> list[Any]:
    return [DEPLOYMENT | {"id": f"d{number}", "name": f"n{number:05}"} for number in range(start, stop)]


@pytest.mark.parametrize(("rows", "requests"), [(0, 1), (1, 1), (199, 1), (200, 1), (201, 2), (400, 2), (450, 3)])
def test_a_listing_takes_as_many_requests_as_pages(rows: int, requests: int) -> None:
    server = Rows(deployments(0, rows))
    with api(server) as prefect:
        found = prefect.deployments(names=["n1"], tag="t")
    assert [each.name for each in found] == [f"n{number:05}" for number in range(rows)]
    assert [each["page"] for each in server.asked] == list(range(1, requests + 1))


def drop_first(asked: int, rows: list[Any]) -> None:
    if asked == 2:
        del rows[0]


def insert_first(asked: int, rows: list[Any]) -> None:
    if asked == 2:
        rows.insert(0, deployments(900, 901)[0])


def insert_first_and_drop_last(asked: int, rows: list[Any]) -> None:
    insert_first(asked, rows)
    if asked == 2:
        del rows[-1]


@pytest.mark.parametrize("change", [drop_first, insert_first, insert_first_and_drop_last])
def test_rows_that_shift_between_pages_are_neither_lost_nor_repeated(
    change: Callable[[int, list[Any]], None],
) -> None:
    server = Rows(deployments(0, 450), change)
    with api(server) as prefect:
        found = prefect.deployments(names=[], tag="t")
    assert [each.id for each in found] == [row["id"] for row in sorted(server.rows, key=lambda r: r["name"])]
    assert {each["sort"] for each in server.asked} == {"CREATED_DESC", "NAME_ASC"}


def test_a_listing_that_keeps_changing_is_an_error() -> None:
    server = Rows(deployments(0, 300), lambda asked, rows: rows.insert(0, deployments(asked + 900, asked + 901)[0]))
    with api(server) as prefect, pytest.raises(PrefectApiError, match="kept changing"):
        prefect.deployments(names=[], tag="t")
    assert len(server.asked) == 12


def test_a_count_without_rows_ends() -> None:
    server = Server(httpx.Response(200, json={"results": [], "count": 10**12}))
    with api(server) as prefect, pytest.raises(PrefectApiError, match="kept changing"):
        prefect.flow_ids(["f"])
    assert len(server.requests) == 6


def test_ids_are_asked_for_200_at_a_time_and_once_each() -> None:
    server = Server(httpx.Response(200, json={"results": [], "count": 0}))
    with api(server) as prefect:
        assert prefect.scheduled_runs([f"d{number % 450}" for number in range(900)]) == ()
    asked = [json.loads(each.content)["flow_runs"]["deployment_id"]["any_"] for each in server.requests]
    assert [len(each) for each in asked] == [200, 200, 50]


def test_nothing_is_asked_for_nothing() -> None:
    server = Server(READ_TIMEOUT)
    with api(server) as prefect:
        prefect.add_schedules("d1", [])
        assert (prefect.flow_runs([]), prefect.scheduled_runs(()), prefect.flow_ids(set())) == ((), (), {})
    assert server.requests == []


# Shapes


def test_a_deployment_is_read() -> None:
    with api(Server(httpx.Response(200, json=DEPLOYMENT))) as prefect:
        found = prefect.deployment("f", "job")
    assert found is not None
    assert (found.concurrency_limit, found.collision_strategy) == (3, "CANCEL_NEW")
    assert (found.work_pool, found.pull_steps, found.parameter_schema) == ("p", (), {})
    assert found.schedules[0].slug is None


def test_a_run_is_read_with_instants_in_utc() -> None:
    with api(Server(httpx.Response(200, json=RUN))) as prefect:
        found = prefect.flow_run("r1")
    assert found is not None
    assert found.expected_start == datetime(2026, 11, 24, 0, 20, tzinfo=UTC)
    assert found.expected_start.tzinfo is UTC
    assert (found.created_by_schedule, found.state_message, found.state_name) == ("s1", "late", "Late")


def test_a_run_that_a_person_made_has_no_schedule() -> None:
    answer = RUN | {"created_by": {"id": "u1", "type": "USER"}, "state": None, "expected_start_time": None}
    with api(Server(httpx.Response(200, json=answer))) as prefect:
        found = prefect.flow_run("r1")
    assert found is not None
    assert (found.created_by_schedule, found.state_message, found.expected_start) == (None, None, None)


def test_runs_come_by_expected_start_those_without_last() -> None:
    starts = ["2026-11-24T03:00:00Z", None, "2026-11-24T03:00:00+02:00"]
    rows = [RUN | {"id": f"r{number}", "expected_start_time": start} for number, start in enumerate(starts)]
    with api(Rows(rows)) as prefect:
        assert [run.id for run in prefect.scheduled_runs(["d1"])] == ["r2", "r0", "r1"]


def test_runs_are_returned_in_the_order_of_the_ids() -> None:
    with api(Rows([RUN | {"id": "a"}, RUN | {"id": "b"}])) as prefect:
        assert [run.id for run in prefect.flow_runs(["b", "gone", "a", "b"])] == ["b", "a"]


def test_a_worker_and_a_pool_are_read() -> None:
    worker = {"name": "w", "status": "ONLINE", "last_heartbeat_time": "2026-11-24T00:20:00Z"}
    with api(Server(httpx.Response(200, json=[worker]))) as prefect:
        (found,) = prefect.workers("p")
    assert (found.online, found.last_heartbeat) == (True, datetime(2026, 11, 24, 0, 20, tzinfo=UTC))
    pool = {"name": "p", "type": "process", "is_paused": False, "status": "READY"}
    with api(Server(httpx.Response(200, json=pool))) as prefect:
        assert (got := prefect.pool("p")) is not None
        assert (got.name, got.type, got.is_paused, got.status) == ("p", "process", False, "READY")


def test_what_does_not_exist_is_none() -> None:
    with api(Server(httpx.Response(404, json={"detail": "Deployment not found"}))) as prefect:
        found: Sequence[object] = (
            prefect.pool("p"),
            prefect.deployment("f", "n"),
            prefect.deployment_by_id("d"),
            prefect.flow_run("r"),
        )
    assert found == (None, None, None, None)


def test_a_name_that_cannot_exist_is_none_without_a_question() -> None:
    server = Server(READ_TIMEOUT)
    with api(server) as prefect:
        assert (prefect.pool("a/b"), prefect.deployment("f", ""), prefect.deployment("a/b", "c")) == (None,) * 3
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "segment"), [("a b", b"a%20b"), ("é?#", b"%C3%A9%3F%23"), ("..", b"%2E%2E"), ("a.b", b"a.b")]
)
def test_names_are_quoted_in_paths(name: str, segment: bytes) -> None:
    server = Server(httpx.Response(404, json={"detail": "no"}))
    with api(server) as prefect:
        prefect.deployment(name, name)
    assert server.requests[0].url.raw_path == b"/api/deployments/name/" + segment + b"/" + segment


def test_deployments_are_asked_for_by_name_or_tag() -> None:
    server = Rows([])
    with api(server) as prefect:
        prefect.deployments(names=["a", "b", "a"], tag="t")
        prefect.deployments(names=[], tag="t")
    assert [each["deployments"] for each in server.asked] == [
        {"operator": "or_", "name": {"any_": ["a", "b"]}, "tags": {"all_": ["t"]}},
        {"tags": {"all_": ["t"]}},
    ]


def test_a_run_is_made_for_an_instant() -> None:
    server = Server(httpx.Response(201, json=RUN))
    when = datetime(2026, 11, 24, 3, tzinfo=timezone(timedelta(hours=2)))
    with api(server) as prefect:
        prefect.create_run("d1", parameters={"a": 1}, idempotency_key="k", name="n", scheduled_for=when)
    assert server.body == {
        "parameters": {"a": 1},
        "idempotency_key": "k",
        "tags": [],
        "name": "n",
        "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": "2026-11-24T01:00:00+00:00"}},
    }


def test_a_state_that_is_not_accepted_is_refused() -> None:
    answer = {"status": "ABORT", "details": {"type": "abort_details", "reason": "already COMPLETED"}}
    with api(Server(httpx.Response(200, json=answer))) as prefect, pytest.raises(PrefectRejected) as caught:
        prefect.set_run_state("r1", type="CANCELLING")
    assert caught.value.status == 409
    assert "ABORT: already COMPLETED" in caught.value.message


def test_a_state_that_is_accepted() -> None:
    server = Server(httpx.Response(201, json={"status": "ACCEPT", "details": {"type": "accept_details"}}))
    with api(server) as prefect:
        prefect.set_run_state("r1", type="CANCELLED", message="why", force=True)
    assert server.body == {"state": {"type": "CANCELLED", "name": None, "message": "why"}, "force": True}


def test_logs_are_messages_in_order() -> None:
    server = Server(httpx.Response(200, json=[{"message": "a"}, {"message": "b"}]))
    with api(server) as prefect:
        assert prefect.logs("r1", offset=5, limit=2) == ("a", "b")
    assert (server.body["offset"], server.body["limit"], server.body["sort"]) == (5, 2, "TIMESTAMP_ASC")


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("http://u:p@h:4200/api/", "http://h:4200/runs/flow-run/r1"),
        ("https://h/prefect/api", "https://h/prefect/runs/flow-run/r1"),
        ("http://[::1]:4200/api", "http://[::1]:4200/runs/flow-run/r1"),
    ],
)
def test_the_address_of_a_run_in_the_ui(url: str, page: str) -> None:
    with api(Server(VERSION), url=url) as prefect:
        assert prefect.run_url("r1") == page


@pytest.fixture(name="proxied")
def _proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in itertools.chain.from_iterable((each, each.lower()) for each in ("HTTP_PROXY", "ALL_PROXY")):
        monkeypatch.setenv(name, "socks9://who:s3cret@nowhere.invalid:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("proxied")
def test_proxies_of_the_environment_do_not_matter_for_loopback() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "localhost", "[::1]"):
        PrefectApi(url=f"http://{host}:4200/api").close()


@pytest.mark.usefixtures("proxied")
def test_an_unusable_proxy_is_reported_without_its_password() -> None:
    with pytest.raises(PrefectUnreachable) as caught:
        PrefectApi(url="http://prefect.example.org/api")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
