"""What kind of failure a step had, and whether trying again may help. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

ErrorClass = Literal["network", "timeout", "permission", "contract", "input", "publish", "other"]
"""`timeout` is ours: the step was stopped. That of a server is `network`."""
RETRIED: frozenset[ErrorClass] = frozenset({"network", "timeout", "other"})
"""Trying these again may help; a broken contract or a missing permission stays what it is."""

# sysexits.h: a program that says what went wrong is believed before its words are.
_BY_CODE: dict[int, ErrorClass] = {75: "network", 77: "permission", 65: "contract"}

_NETWORK = re.compile(
    r"""
      name\ resolution | name\ or\ service\ not\ known | nodename\ nor\ servname | could\ ?n[o']t\ resolve\ host
    | no\ address\ associated\ with | getaddrinfo | \bgaierror\b | \bNXDOMAIN\b | \bSERVFAIL\b
    | connection\ (?:was\ )?(?:reset|refused|aborted|closed|timed\ out|broken) | \bECONN(?:RESET|REFUSED|ABORTED)\b
    | remote\ end\ closed\ connection | server\ disconnected | broken\ pipe
    | network\ is\ (?:unreachable|down) | no\ route\ to\ host | host\ is\ unreachable | \bE(?:NET|HOST)UNREACH\b
    | \bETIMEDOUT\b | (?:read|connect|connection|request|handshake|operation|pool|gateway)\ ?_?time(?:d\ |-)?\ ?out
    | \b(?:Read|Connect|Pool|Write)(?:Timeout|Error)\b | \bConnectionError\b | \bMaxRetryError\b | temporary\ failure
    | \bSSLE(?:rror|OFError)\b | \bssl\.SSL | tls\ handshake | handshake\ failure | \bunexpected\ EOF\b.*\bprotocol\b
    | (?:http(?:/[0-9.]+|\ ?error)?|status(?:[\ _]code)?|response(?:\ code)?|server\ error)\W{1,4}(?:429|502|503|504)\b
    | \b(?:429\ too\ many\ requests|502\ bad\ gateway|503\ service\ unavailable|504\ gateway\ time-?out)
    | too\ many\ requests | service\ (?:temporarily\ )?unavailable | bad\ gateway
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PERMISSION = re.compile(
    r"permission denied|operation not permitted|\bEACCES\b|\bEPERM\b|\bPermissionError\b|read-only file system",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A class, and whether trying again may help."""

    kind: ErrorClass
    may_retry: bool


def of(kind: ErrorClass) -> Failure:
    """Return a failure whose class is known."""
    return Failure(kind, kind in RETRIED)


def judge(exit_code: int | None, tail: str, *, timed_out: bool = False, permanent: Iterable[str] = ()) -> Failure:
    """Return what the end of a command means.

    `exit_code` None: a signal ended it, or nobody knows. `tail`: the end of its output. `permanent`: the step's own
    regular expressions; where the tail matches one, it is never tried again.

    Of the tail only the last line that says anything of the kind counts: what a program reports on its way, and gets
    over, is not why it ended.
    """
    kind = "timeout" if timed_out else _BY_CODE.get(exit_code or 0) or _by_text(tail)
    if any(re.search(pattern, tail, re.MULTILINE) for pattern in permanent):
        return Failure("other" if kind in RETRIED else kind, may_retry=False)
    return of(kind)


def _by_text(tail: str) -> ErrorClass:
    for line in reversed(tail.splitlines()):
        if _PERMISSION.search(line):
            return "permission"
        if _NETWORK.search(line):
            return "network"
    return "other"
