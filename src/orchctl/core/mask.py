"""Keep secrets out of logs, messages and everything else that leaves the process.

What counts as secret: the values of environment keys that look secret or are named, the passwords inside URLs in the
environment, and the password of any URL at all in the text being masked.
"""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

STARS = "***"
SHORTEST_SECRET = 4
"""Characters. Masking anything shorter would riddle ordinary text with stars."""
SHORTEST_LINE = 8
"""Characters of one line of a multi-line secret, and bytes of a secret that is also looked for in base64."""

_SECRET_WORD = re.compile(
    r"(?:\w*(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|APIKEY|CREDENTIAL|WEBHOOK|COOKIE|AUTH))S?"
    r"|AUTHORIZATION|BEARER|CREDS?|DSN|JWT|PASS|PAT|PWD|ACCESSKEY|PRIVATEKEY|CONNSTRING"
)
_URL_KINDS = frozenset({"ALERT", "ALERTS", "HOOK", "MAN", "PING", "SLACK"})
"""Addresses by which anybody may speak: `ORCHCTL_SLACK_URL`, `ORCHCTL_DEAD_MAN_URL`."""
_KEY_KINDS = frozenset({"ACCESS", "API", "ENCRYPTION", "MASTER", "PRIVATE", "SIGNING"})
_ABOUT_SECRETS_LAST = frozenset({"DIR", "ENABLED", "FILE", "LENGTH", "SOCK", "TIMEOUT", "TTL", "TYPE"})
_ABOUT_SECRETS_FIRST = frozenset({"MAX", "MIN", "NUM"})
_DIRECTORIES = frozenset({"PWD", "OLDPWD"})
_NO_SECRETS = frozenset({"true", "false", "none", "null"})

_WRAPPED = (64, 76)
"""Characters of a line of base64 as PEM, and as `base64` and MIME wrap it."""
_USER_MOST = 256
_PASSWORD_MOST = 2048
# The first branch stops at the first slash; the second is for passwords with a slash in them (SQLAlchemy
# takes them), and must not take `//host:80/@scope` for one. The bounds keep hostile lines from costing n².
_URL = (
    rf"""(://[^\s:/?#@"'<>]{{0,{_USER_MOST}}}:)"""
    rf"""(?:[^\s/?#"'<>]{{1,{_PASSWORD_MOST}}}(?=@)|(?!\d+[/?#])[^\s@"'<>]{{1,{_PASSWORD_MOST}}}(?=@))"""
)
_URL_TEXT = re.compile(_URL)
_URL_BYTES = re.compile(_URL.encode())
_URL_REACH = len("://::@") + _USER_MOST + _PASSWORD_MOST
_URL_PARTS = re.compile(r"""://[^\s:/?#@]*:(?P<password>[^\s@]+(?:@[^\s/@]+)*)@""")


def looks_secret(key: str) -> bool:
    """Whether an environment key looks as if its value were secret (`DB_PASSWORD`, `api-key`, `SENTRY_DSN`).

    Words are compared, not letters: `AUTHOR`, `MONKEY` and `TOKENIZERS_PARALLELISM` are not secret. Nor are
    settings *about* secrets: `DB_PASSWORD_FILE`, `SSH_AUTH_SOCK`, `TOKEN_TTL`, `MAX_TOKENS`.
    """
    words = [word for word in re.split(r"[^A-Z0-9]+", key.upper()) if word]
    if not words or key in _DIRECTORIES:
        return False
    if words[-1] in _ABOUT_SECRETS_LAST or words[0] in _ABOUT_SECRETS_FIRST:
        return False
    if words[-1] in {"KEY", "KEYS"} or any(_SECRET_WORD.fullmatch(word) for word in words):
        return True
    pairs = set(pairwise(words))
    return ("CONNECTION", "STRING") in pairs or any(
        (first in _KEY_KINDS and second.rstrip("S") == "KEY") or (first in _URL_KINDS and second.rstrip("S") == "URL")
        for first, second in pairs
    )


class Masker:
    """Replaces secrets by `***`: each in its plain, URL-quoted, JSON-escaped and base64 form.

    `longest` is the bytes of the longest form (0 without secrets); `reach` the most bytes that one masked
    stretch can span, URL passwords included. Immutable, and safe in several threads.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: dict[str, int] = {}
        for secret in secrets:
            forms.update(_forms(secret))
        ordered = sorted(forms, key=lambda form: (-forms[form], form))
        joined = "|".join(ordered)
        self._text = re.compile(joined) if joined else None
        self._bytes = re.compile(_bytes(joined)) if joined else None
        self.longest = max(forms.values(), default=0)
        self.reach = max(self.longest, _URL_REACH)

    @classmethod
    def of(cls, *environments: Mapping[str, str], hidden: Collection[str] = ()) -> Masker:
        """Return a masker of every secret in these environments. `hidden` are keys that are secret whatever they look
        like.
        """
        return cls(secret for env in environments for secret in _secrets(env, hidden))

    def mask(self, text: str) -> str:
        """Return the text without its secrets. Masking twice changes nothing more."""
        if self._text is not None:
            text = self._text.sub(STARS, text)
        return _URL_TEXT.sub(rf"\1{STARS}", text) if "://" in text else text

    def mask_bytes(self, line: bytes) -> bytes:
        """Return one line of bytes without its secrets; the bytes need not be valid UTF-8."""
        if self._bytes is not None:
            line = self._bytes.sub(b"***", line)
        return _URL_BYTES.sub(rb"\1***", line) if b"://" in line else line

    def cut(self, line: bytes, at: int) -> int:
        """Return where to cut `line` in two, at `at` or before, so that the cut splits no secret.

        Only where a secret begins at the very start of the line is the answer beyond `at`: at its end. `line`
        must go on for `reach` bytes after `at`, or be whole.
        """
        for pattern in (_URL_BYTES, self._bytes):
            for match in pattern.finditer(line) if pattern else ():
                if match.start() >= at:
                    break
                if match.end() > at:
                    at = match.start() or match.end()
        return at


def _secrets(env: Mapping[str, str], hidden: Collection[str]) -> Iterator[str]:
    for key, value in env.items():
        if key in hidden or looks_secret(key):
            yield value
        for match in _URL_PARTS.finditer(value):
            yield match["password"]
            yield unquote(match["password"])


def _forms(secret: str) -> Iterator[tuple[str, int]]:
    """Yield each form of a secret as a regular expression, with the most bytes it can match."""
    literals = {secret, secret.strip()}
    lines = secret.splitlines()
    if len(lines) > 1:
        literals |= {line.strip() for line in lines if len(line.strip()) >= SHORTEST_LINE}
    for literal in literals:
        if len(literal) < SHORTEST_SECRET or literal.lower() in _NO_SECRETS:
            continue
        raw = _bytes(literal)
        for form in {literal, quote(raw, safe=""), quote(raw), quote_plus(raw), json.dumps(literal)[1:-1]}:
            yield re.escape(form), len(_bytes(form))
        if len(raw) >= SHORTEST_LINE:
            yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[tuple[str, int]]:
    # Inside a longer text (`user:password` of Basic authentication) a secret can begin at any of three places
    # of a base64 group; the characters at its edges then also hold bits of its neighbours.
    for shift in range(3):
        bits = (shift + len(raw)) * 8
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            own = encode(bytes(shift) + raw).decode()[-(-shift * 8 // 6) : bits // 6]
            edge = "(?:[A-Za-z0-9+/_-]={0,2})?" if bits % 6 else ""
            yield re.escape(own) + edge, len(own) + 3
            if shift == 0:
                # Only a secret that was encoded by itself: of another nobody knows where its lines end.
                yield from ((re.escape(line), len(line)) for width in _WRAPPED for line in _lines(own, width))


def _lines(encoded: str, width: int) -> Iterator[str]:
    """Yield the lines of a base64 text that is wrapped, as far as they are long enough to tell a secret."""
    if len(encoded) > width:
        lines = (encoded[at : at + width] for at in range(0, len(encoded), width))
        yield from (line for line in lines if len(line) >= SHORTEST_LINE * 8 // 6)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
