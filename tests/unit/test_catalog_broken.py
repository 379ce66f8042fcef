"""Broken catalogs: each differs from a valid one in one place, and exactly that is what is reported."""

from __future__ import annotations

import pytest

from catalogs import JOBS, SCHEDULES, changed, problems

RETRIES = "retries = 1\n"
COMMAND = 'command = ["scripts/score.sh", "--date={game_date}"]'
OUTPUTS = 'outputs = ["{data_root}/out"]'
LEGACY = 'legacy = [{ timer = "score.timer", scope = "system" }]'
SCORE = "[jobs.score]\n"
OTHER = "[jobs.other]\n"
CRON = 'cron = "0 8 * * *"'
EVERY = 'every = "90s"'
ANCHOR = "anchor = 2025-12-19T00:00:00Z"
LOOP = 'on_calendar = "*-*-* 08..23:05,35:00"'
LAST = 'rrule = "FREQ=MONTHLY;BYDAY=-1FR"'
NAMES = "^[a-z0-9][a-z0-9_-]{0,62}$"

# What stands in the valid file, what stands in the broken one; then line, table and key, a piece of the
# message and a piece of the hint.
Row = tuple[str, str, str, str, str | None]

UNKNOWN_KEYS: list[Row] = [
    ('name = "tests"', 'nam = "tests"', "2 nam", "unknown key", 'did you mean "name"?'),
    ('name = "tests"', "job = {}", "2 job", "unknown key", 'did you mean "jobs"?'),
    (
        'name = "tests"',
        'timezone = "UTC"',
        "2 timezone",
        "unknown key",
        "allowed: defaults, jobs, limits, logs, name, retention, version",
    ),
    ('timeout = "1h"', 'time_out = "1h"', "8 [defaults] time_out", "unknown key", 'did you mean "timeout"?'),
    (RETRIES, "retry = 1\n", "15 [jobs.score] retry", "unknown key", 'did you mean "retries"?'),
    (RETRIES, "zzz = 1\n", "15 [jobs.score] zzz", "unknown key", "allowed: accept_cadence, as_of, asset,"),
    (RETRIES, '"a b" = 1\n', '15 [jobs.score] "a b"', "unknown key", "allowed: "),
    ("within =", "withn =", "25 [jobs.score] gates.withn", "unknown key", 'did you mean "within"?'),
    ("scope =", "scop =", "18 [jobs.score] legacy[0].scop", "unknown key", 'did you mean "scope"?'),
    (
        LEGACY,
        'legacy = [{ cron = "x", usr = "a", user = "a" }]',
        "18 [jobs.score] legacy[0].usr",
        "unknown key",
        "user",
    ),
]

NAMES_AND_VALUES: list[Row] = [
    (OTHER, '[jobs."../x"]\n', '27 [jobs."../x"]', 'the name "../x" is not allowed', NAMES),
    (OTHER, '[jobs."a\\u0000"]\n', '27 [jobs."a\\u0000"]', "is not allowed", NAMES),
    (OTHER, '[jobs."a\\n"]\n', '27 [jobs."a\\n"]', 'the name "a\\n" is not allowed', NAMES),
    (OTHER, "[jobs.'a\"']\n", '27 [jobs."a\\""]', "is not allowed", NAMES),
    (OTHER, "[jobs.Other]\n", "27 [jobs.Other]", 'the name "Other" is not allowed', NAMES),
    (OTHER, f"[jobs.{'x' * 64}]\n", f"27 [jobs.{'x' * 64}]", "is not allowed", NAMES),
    (OTHER, '[jobs.""]\n', '27 [jobs.""]', 'the name "" is not allowed', NAMES),
    (OTHER, "[jobs.-rf]\n", "27 [jobs.-rf]", "is not allowed", NAMES),
    (OTHER, '[jobs."a.b"]\n', '27 [jobs."a.b"]', "is not allowed", NAMES),
    (OTHER, '[jobs."\u0663"]\n', '27 [jobs."\u0663"]', "is not allowed", NAMES),
    (OTHER, "[jobs.events]\n", "27 [jobs.events]", "a folder of orchctl itself", "asset = another name"),
    ('name = "tests"', 'name = "Te sts"', "2 name", "does not match", None),
    ('work_pool = "local"', 'work_pool = "my pool"', "7 [defaults] work_pool", "does not match", None),
    (RETRIES, 'asset = "a/../b"\n', "15 [jobs.score] asset", "does not match", None),
    (RETRIES, 'asset = "a..b"\n', "15 [jobs.score] asset", "may not hold '..'", None),
    (RETRIES, 'asset = "backfills"\n', "15 [jobs.score] asset", "a folder of orchctl itself", None),
    (RETRIES, "retries = -1\n", "15 [jobs.score] retries", "found -1", "greater than or equal to 0"),
    (RETRIES, "retries = 101\n", "15 [jobs.score] retries", "found 101", "less than or equal to 100"),
    (RETRIES, f"retries = {2**70}\n", "15 [jobs.score] retries", "is a number beyond 64 bits", None),
    (RETRIES, f"retries = 0x{'F' * 6000}\n", "15 [jobs.score] retries", "is a number beyond 64 bits", None),
    ('["daily"]', f"[0x{'F' * 6000}]", "13 [jobs.score] schedules[0]", "is a number beyond 64 bits", None),
    (RETRIES, f"retries = {'9' * 5000}\n", "None ", "too many digits", None),
    (RETRIES, "nice = 20\n", "15 [jobs.score] nice", "found 20", "less than or equal to 19"),
    (RETRIES, "nice = -21\n", "15 [jobs.score] nice", "found -21", "greater than or equal to -20"),
    (RETRIES, "game_date_offset_days = 400\n", "15 [jobs.score] game_date_offset_days", "found 400", "366"),
    ("min_successes = 3", "min_successes = -3", "24 [jobs.score] gates.min_successes", "found -3", "equal to 0"),
    ('overlap = "skip"', 'overlap = "skp"', "16 [jobs.score] overlap", 'found "skp"', 'did you mean "skip"?'),
    ('overlap = "skip"', 'overlap = "SKIP"', "16 [jobs.score] overlap", 'found "SKIP"', "allowed: skip or queue"),
    (RETRIES, 'catchup = "none"\n', "15 [jobs.score] catchup", 'found "none"', "allowed: latest or all or skip"),
    ('scope = "system"', 'scope = "root"', "18 [jobs.score] legacy[0].scope", 'found "root"', "system or user"),
    ("version = 1", "version = 2", "1 version", "found 2", "allowed: 1"),
    ("version = 1\n", "", "None version", "is missing", None),
]

TYPES: list[Row] = [
    ("version = 1", 'version = "1"', "1 version", 'found "1", a string', "allowed: 1"),
    ("version = 1", "version = true", "1 version", "true is not a version", None),
    ('name = "tests"', "name = 5", "2 name", "found 5, a number", "allowed: a string"),
    ('"Score"', "5", "12 [jobs.score] description", "found 5, a number", "allowed: a string"),
    ('["daily"]', '"daily"', "13 [jobs.score] schedules", 'found "daily", a string', "allowed: a list"),
    ('["daily"]', "[5]", "13 [jobs.score] schedules[0]", "found 5, a number", "allowed: a string"),
    (COMMAND, 'command = "scripts/score.sh --fast"', "14 [jobs.score] command", "a string", "allowed: a list"),
    (COMMAND, 'command = ["x", 5]', "14 [jobs.score] command[1]", "found 5, a number", "allowed: a string"),
    (COMMAND, 'command = [\n  "x",\n  true,\n]', "16 [jobs.score] command[1]", "found true", "allowed: a string"),
    (COMMAND, "command = []", "14 [jobs.score] command", "is empty", "allowed: at least one"),
    (COMMAND, 'command = [" ", "x"]', "14 [jobs.score] command", "names no program", None),
    (COMMAND, 'command = ["x", "a\\u0000b"]', "14 [jobs.score] command[1]", "NUL byte", None),
    (RETRIES, "retries = 1.5\n", "15 [jobs.score] retries", "found 1.5", "allowed: "),
    (RETRIES, 'retries = "1"\n', "15 [jobs.score] retries", 'found "1", a string', "allowed: a whole number"),
    (RETRIES, "retries = true\n", "15 [jobs.score] retries", "found true", "allowed: a whole number"),
    (RETRIES, "retries = nan\n", "15 [jobs.score] retries", "found nan", "allowed: a whole number"),
    (RETRIES, "dry_run_command = {}\n", "15 [jobs.score] dry_run_command", "found a table", "allowed: a list"),
    (RETRIES, "data_root = 5\n", "15 [jobs.score] data_root", "found 5, a number", "allowed: a string"),
    (RETRIES, "working_directory = []\n", "15 [jobs.score] working_directory", "found a list", "a string"),
    (RETRIES, "work_pool = 2025-12-19\n", "15 [jobs.score] work_pool", "found 2025-12-19, a date", "a string"),
    (RETRIES, "asset = false\n", "15 [jobs.score] asset", "found false", "allowed: a string"),
    (RETRIES, "nice = []\n", "15 [jobs.score] nice", "found a list", "allowed: a whole number"),
    (RETRIES, 'tags = "x"\n', "15 [jobs.score] tags", 'found "x", a string', "allowed: a list"),
    (OUTPUTS, 'outputs = "x"', "17 [jobs.score] outputs", 'found "x", a string', "allowed: a list"),
    (OUTPUTS, "outputs = [[]]", "17 [jobs.score] outputs[0]", "found a list", "allowed: a string"),
    (LEGACY, 'legacy = "score.timer"', "18 [jobs.score] legacy", "a string", "allowed: a list"),
    (LEGACY, 'legacy = ["score.timer"]', "18 [jobs.score] legacy[0]", "a string", "allowed: a table"),
    (LEGACY, 'legacy = [{ timer = "x.service" }]', "18 [jobs.score] legacy[0].timer", "x.service", "match pattern"),
    (LEGACY, 'legacy = [{ timer = "-x.timer" }]', "18 [jobs.score] legacy[0].timer", "-x.timer", "match pattern"),
    (LEGACY, "legacy = [{}]", "18 [jobs.score] legacy[0].timer", "is missing", None),
    (LEGACY, 'legacy = [{ cron = "x" }]', "18 [jobs.score] legacy[0].user", "is missing", None),
    (LEGACY, 'legacy = [{ cron = "a\\nb", user = "x" }]', "18 [jobs.score] legacy[0].cron", "found", "match pattern"),
    ("min_successes = 3", "min_successes = []", "24 [jobs.score] gates.min_successes", "found a list", "whole"),
    ('LEVEL = "3"', "LEVEL = 3", "21 [jobs.score] env.LEVEL", "found 3, a number", "allowed: a string"),
    ('{ SEASON = "2025" }', '"SEASON=2025"', "9 [defaults] env", "a string", "allowed: a table"),
    (OTHER, "[[jobs.other]]\n", "27 [jobs.other]", "found a list", "a table [jobs.NAME]"),
]

DURATIONS_AND_PATHS: list[Row] = [
    ('timeout = "1h"', 'timeout = "90"', "8 [defaults] timeout", "'90' is not a duration", None),
    ('timeout = "1h"', "timeout = 90", "8 [defaults] timeout", "90 is not a duration", None),
    ('timeout = "1h"', 'timeout = "1.5h"', "8 [defaults] timeout", "is not a duration", None),
    ('timeout = "1h"', 'timeout = "-1h"', "8 [defaults] timeout", "is not a duration", None),
    ('timeout = "1h"', 'timeout = "1w"', "8 [defaults] timeout", "is not a duration", None),
    ('timeout = "1h"', 'timeout = "0s"', "8 [defaults] timeout", "must be longer than 0s", None),
    ('timeout = "1h"', 'timeout = "367d"', "8 [defaults] timeout", "is longer than 366 days", None),
    ('timeout = "1h"', 'timeout = "1h\\n"', "8 [defaults] timeout", "is not a duration", None),
    ('timeout = "1h"', 'timeout = "\u0663h"', "8 [defaults] timeout", "is not a duration", None),
    (RETRIES, "retry_delay = {}\n", "15 [jobs.score] retry_delay", "a table is not a duration", None),
    (RETRIES, 'kill_after = "10 s"\n', "15 [jobs.score] kill_after", "is not a duration", None),
    (RETRIES, 'catchup_window = ""\n', "15 [jobs.score] catchup_window", "is not a duration", None),
    ('within = "7d"', 'within = "week"', "25 [jobs.score] gates.within", "is not a duration", None),
    ('"/srv/data"', '"srv/data"', "5 [defaults] data_root", "is not an absolute path", None),
    ('"/srv/data"', '"/srv/../etc"', "5 [defaults] data_root", "without '..'", None),
    ('"/srv/data"', '"/srv\\u0000"', "5 [defaults] data_root", "is not an absolute path", None),
    ('"/srv/data"', '""', "5 [defaults] data_root", "is not an absolute path", None),
    ('"/srv/project"', '"~/project"', "6 [defaults] working_directory", "is not an absolute path", None),
]

TEMPLATES_AND_RULES: list[Row] = [
    ("{game_date}", "{x}", "14 [jobs.score] command[1]", "{x} means nothing", "{game_date} {run_id}"),
    ("{game_date}", "{game_dat}", "14 [jobs.score] command[1]", "{game_dat}", 'did you mean "game_date"?'),
    ("{game_date}", "{data_root.__class__}", "14 [jobs.score] command[1]", "{data_root.__class__} means", None),
    ("{game_date}", "{0}", "14 [jobs.score] command[1]", "{0} means nothing", None),
    ("{game_date}", "{}", "14 [jobs.score] command[1]", "{} means nothing", None),
    ("{game_date}", "{game_date!r}", "14 [jobs.score] command[1]", "{game_date!r} means nothing", None),
    ("{game_date}", "{game_date:>10}", "14 [jobs.score] command[1]", "{game_date:>10} means nothing", None),
    ("{game_date}", "{game_date", "14 [jobs.score] command[1]", "{ means nothing", "{{ and }} for braces"),
    ("{game_date}", "game_date}", "14 [jobs.score] command[1]", "} means nothing", None),
    ("{game_date}", "{job{step}}", "14 [jobs.score] command[1]", "{, } means nothing", None),
    ("{game_date}", "{ game_date }", "14 [jobs.score] command[1]", "{ game_date } means nothing", None),
    (OUTPUTS, 'outputs = ["ok",\n"{root}"]', "18 [jobs.score] outputs[1]", "{root} means nothing", None),
    (RETRIES, 'dry_run_command = ["{no}"]\n', "15 [jobs.score] dry_run_command[0]", "{no} means nothing", None),
    ('"2025"', '"{yr}"', "9 [defaults] env.SEASON", "{yr} means nothing", None),
    ('LEVEL = "3"', '"A=B" = "3"', '21 [jobs.score] env."A=B"', "not the name of a variable", "^[A-Za-z_]"),
    ('LEVEL = "3"', '"A B" = "3"', '21 [jobs.score] env."A B"', "not the name of a variable", None),
    ('LEVEL = "3"', '"A\\u0000" = "3"', '21 [jobs.score] env."A\\u0000"', "not the name of a variable", None),
    ('LEVEL = "3"', '"" = "3"', '21 [jobs.score] env.""', "not the name of a variable", None),
    ('LEVEL = "3"', 'ORCHCTL_JOB = "3"', "21 [jobs.score] env.ORCHCTL_JOB", "is set by the runner itself", None),
    ('LEVEL = "3"', 'LEVEL = "\\u0000"', "21 [jobs.score] env.LEVEL", "NUL byte", None),
    ('["daily"]', '["dayly"]', "13 [jobs.score] schedules[0]", 'no schedule "dayly"', 'did you mean "daily"?'),
    ('["daily"]', '["zzz"]', "13 [jobs.score] schedules[0]", 'no schedule "zzz"', "daily, last, loop, pulse"),
    ('["daily"]', '["daily", "daily"]', "13 [jobs.score] schedules", "stands for two cadences", None),
    ('timeout = "1h"', 'schedules = ["no"]', "8 [defaults] schedules[0]", 'no schedule "no"', None),
    (COMMAND + "\n", "", "11 [jobs.score] command", "is missing", "command here or in [defaults]"),
    (
        OTHER,
        OTHER + 'legacy = [{ timer = "score.timer" }]\n',
        "28 [jobs.other] legacy[0]",
        "score.timer (system) is already a trigger of score",
        None,
    ),
]

TOML: list[Row] = [
    (RETRIES, "retries = 1\nretries = 2\n", "16 ", "not TOML: Cannot overwrite a value", None),
    (OTHER, SCORE, "27 ", "not TOML: Cannot declare", None),
    (LEGACY, 'legacy = [{ timer = "score.timer"', "18 ", "not TOML", None),
    (LEGACY, 'legacy = """', "28 ", "not TOML", None),
    (LEGACY, "legacy", "18 ", "not TOML", None),
    (OTHER, "[jobs.other\n", "27 ", "not TOML", None),
    (RETRIES, "retries = 01\n", "15 ", "not TOML", None),
    (RETRIES, "x = 2025-13-45\n", "15 ", "not TOML", None),
    (RETRIES, 'x = "\x07"\n', "15 ", "not TOML", None),
    (RETRIES, f"x = {'[' * 2000}{']' * 2000}\n", "None ", "nested too deeply", None),
    (RETRIES, f"x = {'[' * 100}{']' * 100}\n", "None ", "nested too deeply", None),
    (RETRIES, f"x.{'.'.join('a' * 100)} = 1\n", "None ", "nested too deeply", None),
]

IN_SCHEDULES: list[Row] = [
    ("timezone =", "timezon =", "2 timezon", "unknown key", 'did you mean "timezone"?'),
    ('"America/New_York"', '"America/NewYork"', "2 timezone", "is not a time zone", 'mean "America/New_York"?'),
    ('"America/New_York"', '"../../etc/passwd"', "2 timezone", "is not a time zone", "IANA name"),
    ('"America/New_York"', '"EST\\u0000"', "2 timezone", "NUL byte", None),
    ('"America/New_York"', '"America"', "2 timezone", "is not a time zone", None),
    ('"America/New_York"', "5", "2 timezone", "found 5, a number", "allowed: a string"),
    ("version = 1", "version = 3", "1 version", "found 3", "allowed: 1"),
    (CRON, CRON + '\ntimezone = "Mars"', "6 [schedules.daily] timezone", '"Mars" is not a time zone', None),
    (CRON, CRON + '\ntimezone = ""', "6 [schedules.daily] timezone", '"" is not a time zone', None),
    (CRON, 'crn = "0 8 * * *"\n' + CRON, "5 [schedules.daily] crn", "unknown key", 'did you mean "cron"?'),
    ("[schedules.pulse]", "[schedules.Pulse]", "7 [schedules.Pulse]", "is not allowed", NAMES),
    (CRON, 'cron = "0 8 * * * *"', "5 [schedules.daily] cron", "not five fields", None),
    (CRON, 'cron = "@daily"', "5 [schedules.daily] cron", "not five fields", None),
    (CRON, 'cron = "0 25 * * *"', "5 [schedules.daily] cron", "bad hour", None),
    (CRON, 'cron = "at eight in the morning"', "5 [schedules.daily] cron", "bad minute", None),
    (CRON, 'cron = "0 0 30 2 *"', "5 [schedules.daily] cron", "bad day-of-month", None),
    (CRON, 'cron = "0 0 LW * *"', "5 [schedules.daily] cron", "Prefect knows neither", None),
    (CRON, 'cron = "0 0 * * 1,5#2"', "5 [schedules.daily] cron", "only among others with #", None),
    (CRON, 'cron = "0 0 * * 5L"', "5 [schedules.daily] cron", "Prefect knows neither", None),
    (CRON, 'cron = "\u0663 8 * * *"', "5 [schedules.daily] cron", "bad minute", None),
    (CRON, "cron = 5", "5 [schedules.daily] cron", "found 5, a number", "allowed: a string"),
    (CRON, 'cron = "0 8\\n* * x"', "5 [schedules.daily] cron", "0 8\\n* * x", None),
    (CRON, CRON + '\nevery = "1h"', "4 [schedules.daily]", "found cron and every", "exactly one of cron"),
    (CRON, 'timezone = "UTC"', "4 [schedules.daily]", "found none of them", "exactly one of cron"),
    (CRON, CRON + "\nanchor = 2025-12-19T00:00:00Z", "6 [schedules.daily] anchor", "only beside every", None),
    (EVERY, 'every = "0s"', "8 [schedules.pulse] every", "must be longer than 0s", None),
    (EVERY, 'every = "often"', "8 [schedules.pulse] every", "is not a duration", None),
    (ANCHOR, "anchor = 2025-12-19T00:00:00", "9 [schedules.pulse] anchor", "not an instant with a zone", None),
    (ANCHOR, "anchor = 2025-12-19", "9 [schedules.pulse] anchor", "not an instant with a zone", None),
    (ANCHOR, 'anchor = "yesterday"', "9 [schedules.pulse] anchor", "not an instant with a zone", None),
    (ANCHOR, "anchor = 0001-01-01T00:00:00+01:00", "9 [schedules.pulse] anchor", "not an instant", None),
    (LOOP, 'on_calendar = "*:*:0/0.5"', "12 [schedules.loop] on_calendar", "within a second", None),
    (LOOP, 'on_calendar = "*/5 * * * *"', "12 [schedules.loop] on_calendar", "not a calendar expression", None),
    (LOOP, 'on_calendar = ["daily", "25:00"]', "12 [schedules.loop] on_calendar", '"25:00"', None),
    (LOOP, 'on_calendar = "Sat..Mon 10:00"', "12 [schedules.loop] on_calendar", "does not wrap", None),
    (LOOP, 'on_calendar = "@daily"', "12 [schedules.loop] on_calendar", "write daily", None),
    (LOOP, 'on_calendar = "*:*/5"', "12 [schedules.loop] on_calendar", "systemd writes 00/5", None),
    (LOOP, 'on_calendar = "10:00 EST"', "12 [schedules.loop] on_calendar", "is an abbreviation", None),
    (LOOP, 'on_calendar = "*-*~03,04 *:*"', "12 [schedules.loop] on_calendar", "are too many", None),
    (LOOP, 'on_calendar = ["10:00", "15:00 UTC"]', "12 [schedules.loop] on_calendar", "both elapse at", None),
    (LOOP, 'on_calendar = ["*-*~1 *:00", "10:00"]', "12 [schedules.loop] on_calendar", "both elapse on", None),
    (LOOP, 'on_calendar = "*-02-30"', "12 [schedules.loop] on_calendar", "never fires", None),
    (LOOP, 'on_calendar = "10:00 Mars/Base"', "12 [schedules.loop] on_calendar", "not a time zone", None),
    (LOOP, "on_calendar = []", "12 [schedules.loop] on_calendar", "is empty", "at least one"),
    (LOOP, "on_calendar = 5", "12 [schedules.loop] on_calendar", "found 5, a number", "allowed: a list"),
    (LAST, 'rrule = "FREQ=SOMETIMES"', "15 [schedules.last] rrule", "invalid 'FREQ'", None),
    (LAST, 'rrule = "every friday"', "15 [schedules.last] rrule", "begins with FREQ=", None),
    (LAST, 'rrule = "FREQ=DAILY;INTERVAL=0"', "15 [schedules.last] rrule", "INTERVAL is not", None),
    (LAST, 'rrule = "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30"', "15 [schedules.last] rrule", "never fires", None),
    (LAST, 'rrule = "FREQ=SECONDLY"', "15 [schedules.last] rrule", "is said with every", None),
    (LAST, 'rrule = "FREQ=MONTHLY;BYDAY=+99MO"', "15 [schedules.last] rrule", "not a recurrence rule", None),
    (LAST, 'rrule = "FREQ=DAILY;COUNT=1;UNTIL=20300101"', "15 [schedules.last] rrule", "exclude each other", None),
]

IN_JOBS = [*UNKNOWN_KEYS, *NAMES_AND_VALUES, *TYPES, *DURATIONS_AND_PATHS, *TEMPLATES_AND_RULES, *TOML]


def check(file: str, row: Row) -> None:
    old, new, where, message, hint = row
    if file == "jobs.toml":
        found = problems(jobs=changed(JOBS, old, new))
    else:
        found = problems(schedules=changed(SCHEDULES, old, new))
    assert len(found) == 1, found
    (problem,) = found
    assert problem.file == file
    assert f"{problem.line} {problem.place}" == where
    assert message in problem.message
    assert problem.message.isprintable()
    if hint is not None:
        assert hint in (problem.hint or "")


@pytest.mark.parametrize("row", IN_JOBS, ids=lambda row: ascii(row[1])[:40])
def test_a_broken_jobs_file(row: Row) -> None:
    check("jobs.toml", row)


@pytest.mark.parametrize("row", IN_SCHEDULES, ids=lambda row: ascii(row[1])[:40])
def test_a_broken_schedules_file(row: Row) -> None:
    check("schedules.toml", row)
