from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest

from orchctl.core.mask import Masker, looks_secret

SECRET = "s3cr3t/päss+wörd"


@pytest.mark.parametrize(
    "key",
    [
        "PASSWORD", "DB_PASSWORD", "PGPASSWORD", "db_passwd", "SSH_PASSPHRASE", "CLIENT_SECRET",
        "GITHUB_TOKEN", "ACCESS_TOKENS", "API_KEY", "APIKEY", "OPENAI_APIKEY", "AWS_ACCESS_KEY_ID",
        "PRIVATE_KEY_PEM", "FERNET_KEY",
        "GOOGLE_CREDENTIALS", "BASIC_AUTH", "PREFECT_API_AUTH_STRING", "SENTRY_DSN", "SLACK_WEBHOOK_URL",
        "ORCHCTL_SLACK_URL", "ORCHCTL_DEAD_MAN_URL", "HOOK_URL", "ALERTS_URL",
        "SESSION_COOKIE", "DB_PWD", "DB_PASS", "GITHUB_PAT", "AZURE_STORAGE_CONNECTION_STRING", "api-key",
    ],
)  # fmt: skip
def test_secret_keys(key: str) -> None:
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "", "_", "AUTHOR", "GIT_AUTHOR_NAME", "MONKEY", "TOKENIZERS_PARALLELISM", "PATH", "HOME", "PWD",
        "OLDPWD", "KEYBOARD_LAYOUT", "SECRETARY", "COMPASS_URL", "KEY_COUNT", "XAUTHORITY",
        "DB_PASSWORD_FILE", "SSH_AUTH_SOCK",
        "HUMAN_URL", "SLACK", "MAN_PATH", "URL", "CURLS", "PING",
        "TOKEN_TTL", "MAX_TOKENS", "DATABASE_URL", "PATTERN", "BYPASS", "TURKEY",
    ],
)  # fmt: skip
def test_other_keys(key: str) -> None:
    assert not looks_secret(key)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_every_form_of_a_secret_is_masked_whole(form: str) -> None:
    masker = Masker.of({"TOKEN": SECRET})
    assert masker.mask(f"<{form}>") == "<***>"
    assert masker.mask_bytes(f"<{form}>".encode()) == b"<***>"


def test_what_is_named_is_secret_whatever_it_is_called() -> None:
    environment = {"PAGER": "https://pager.example/T0KEN", "HARMLESS": "harmless"}
    assert Masker.of(environment).mask("https://pager.example/T0KEN") == "https://pager.example/T0KEN"
    assert Masker.of(environment, hidden={"PAGER", "GONE"}).mask("<https://pager.example/T0KEN> harmless") == (
        "<***> harmless"
    )


@pytest.mark.parametrize("user", ["u", "us", "usr", "user"])
def test_a_secret_inside_a_longer_base64_text_is_masked(user: str) -> None:
    header = base64.b64encode(f"{user}:{SECRET}".encode()).decode()
    masked = Masker.of({"TOKEN": SECRET}).mask(header)
    assert masked.endswith("***")
    assert len(masked) <= len(user) * 8 // 6 + 7


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://u:pw@h/db", "postgresql://u:***@h/db"),
        ("redis://:pw@h:6379/0", "redis://:***@h:6379/0"),
        ("x://u:p@ss@h", "x://u:***@h"),
        ("x://u:pa/ss@h/db", "x://u:***@h/db"),
        ("a x://u:one@h b y://v:two@h", "a x://u:***@h b y://v:***@h"),
        ("http://localhost:4873/@types/node", "http://localhost:4873/@types/node"),
        ("http://host:80/ mail me@x", "http://host:80/ mail me@x"),
        ("ssh://git@github.com/x", "ssh://git@github.com/x"),
        ('{"a":"http://x:80","b":"z@w"}', '{"a":"http://x:80","b":"z@w"}'),
    ],
)
def test_a_password_in_any_url_is_masked_whatever_the_environment(text: str, masked: str) -> None:
    assert Masker.of({}).mask(text) == masked
    assert Masker.of({}).mask_bytes(text.encode()) == masked.encode()
    assert Masker.of({}).mask(masked) == masked


def test_the_password_of_a_url_in_the_environment_is_a_secret_of_its_own() -> None:
    masker = Masker.of({"DATABASE_URL": "postgresql://u:geh%2Feim@h/db"})
    assert masker.mask("geh%2Feim geh/eim") == "*** ***"


def test_the_user_of_a_url_may_be_a_secret_too() -> None:
    assert Masker.of({"TOKEN": "ghp_123"}).mask("https://ghp_123:pw@h") == "https://***:***@h"


def test_longest_first() -> None:
    masker = Masker.of({"A_TOKEN": "abcd", "B_TOKEN": "abcdefgh"})
    assert masker.mask("abcdefgh abcd") == "*** ***"


def test_short_and_ordinary_values_are_no_secrets() -> None:
    masker = Masker.of({"A_TOKEN": "abc", "USE_AUTH": "true", "EMPTY_TOKEN": "", "NAME": "abcdefgh"})
    assert masker.mask("abc true abcdefgh") == "abc true abcdefgh"
    assert masker.longest == 0


def test_each_long_line_of_a_secret_of_many_lines_is_masked() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----\n"
    masker = Masker.of({"PRIVATE_KEY": key})
    assert masker.mask_bytes(b"x MIIEvQIBADANBg y") == b"x *** y"
    assert masker.mask("short") == "short"
    assert "MIIE" not in masker.mask(json.dumps({"key": key}))
    assert masker.mask(f"[{key.strip()}]") == "[***]"


def test_bytes_that_are_not_utf8() -> None:
    masker = Masker.of({"TOKEN": b"ge\xffheim".decode("utf-8", "surrogateescape")})
    assert masker.mask_bytes(b"\xfe ge\xffheim \xfe") == b"\xfe *** \xfe"


def test_characters_special_to_regular_expressions() -> None:
    assert Masker.of({"TOKEN": r"a.*(b|[c\1"}).mask(r"axxb a.*(b|[c\1") == "axxb ***"


@pytest.mark.parametrize("at", range(8, 20))
def test_a_cut_never_splits_a_secret(at: int) -> None:
    masker = Masker.of({"TOKEN": "geheimnis"})
    line = b"12345678geheimnis12345678"
    cut = masker.cut(line, at)
    assert cut == (8 if 8 < at < 17 else at)
    assert masker.mask_bytes(line[:cut]) + masker.mask_bytes(line[cut:]) == b"12345678***12345678"


def test_a_cut_goes_behind_a_secret_at_the_start() -> None:
    assert Masker.of({"TOKEN": "geheimnis"}).cut(b"geheimnis123", 3) == 9


def test_a_cut_never_splits_the_password_of_a_url() -> None:
    assert Masker.of({}).cut(b"see http://user:password@host", 18) == 8


def test_hostile_lines_cost_little() -> None:
    masker = Masker.of({f"K{i}_TOKEN": f"{i:x}secret{i}value" for i in range(20)})
    began = time.process_time()
    for line in (b"a" * 16384, b"://x:" * 3276, b"://" * 5461, b"secret" * 2730):
        masker.mask_bytes(line)
    assert time.process_time() - began < 2
