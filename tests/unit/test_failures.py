"""What the end of a command's output says about why it failed."""

from __future__ import annotations

import pytest

from orchctl.core.failures import Failure, judge

TAILS = [
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "network"),
    ("curl: (6) Could not resolve host: stats.nba.com", "network"),
    ("ConnectionResetError: [Errno 104] Connection reset by peer", "network"),
    ("requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='x'): Read timed out. (read timeout=30)", "network"),
    ("httpx.ConnectTimeout", "network"),
    ("ssl.SSLError: [SSL: WRONG_VERSION_NUMBER]", "network"),
    ("httpx.HTTPStatusError: Server error '503 Service Unavailable' for url", "network"),
    ("requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: https://x", "network"),
    ("status code: 502", "network"),
    ("curl: (28) Operation timed out after 30001 milliseconds", "network"),
    ("mkdir: cannot create directory '/srv/x': Permission denied", "permission"),
    ("PermissionError: [Errno 13] Permission denied: '/srv/x'", "permission"),
    ("OSError: [Errno 30] Read-only file system: 'x'", "permission"),
    ("KeyError: 'season_fg2_pct'", "other"),
    ("ValueError: 503 rows, expected 504", "other"),
    ("player 429 has no minutes", "other"),
    ("connection reset by peer\nretrying\nKeyError: 'x'", "network"),
    ("Permission denied\nRead timed out", "network"),
    ("", "other"),
]


@pytest.mark.parametrize(("tail", "kind"), TAILS)
def test_classes_by_text(tail: str, kind: str) -> None:
    assert judge(1, tail).kind == kind


CODES = [
    (75, "network", True),
    (77, "permission", False),
    (65, "contract", False),
    (1, "other", True),
    (None, "other", True),
]


@pytest.mark.parametrize(("code", "kind", "may_retry"), CODES)
def test_classes_by_exit_code(code: int | None, kind: str, may_retry: bool) -> None:
    assert judge(code, "") == Failure(kind, may_retry)  # type: ignore[arg-type]


def test_an_exit_code_goes_before_words() -> None:
    assert judge(65, "connection reset by peer").kind == "contract"


def test_our_own_time_out() -> None:
    assert judge(None, "Permission denied", timed_out=True) == Failure("timeout", may_retry=True)


def test_permanent_patterns_end_retries() -> None:
    assert judge(1, "a\nlineup is locked\nb", permanent=("^lineup is locked$",)) == Failure("other", may_retry=False)
    assert judge(1, "connection refused", permanent=("refused",)) == Failure("other", may_retry=False)
    assert judge(77, "x", permanent=("x",)).kind == "permission"
    assert judge(1, "y", permanent=("x",)).may_retry
