"""Broken contracts: each catalog differs from a valid one in one place, and exactly that is reported."""

from __future__ import annotations

import pytest

from broken_steps import Row, check, name_of

SCHEMA = 'schema = "pipeline.schemas:Rates"'
MAX = "max = 48.5"
ALLOWED = "allowed = [1, 2, 3]"
LAST_DAY = 'max = "2030-01-01"'
HOME = "allowed = [true]"
TEAMS = 'allowed = ["BOS", "NYK"]'
VERSION = "version = 1\n"
OWN = "[contracts.own]"
STRING = 'dtype = "string"'
COLUMN = 'column = "seen"'

CONTRACTS: list[Row] = [
    (VERSION, "", "None version", "is missing", None),
    (VERSION, "version = 2\n", "1 version", "found 2, a number", "1"),
    (VERSION, VERSION + "contract = 1\n", "2 contract", "unknown key", "contracts"),
    (OWN, "[contracts.Own]", "24 [Own]", 'the name "Own" is not allowed', "^[a-z0-9][a-z0-9_.-]{0,62}"),
    (OWN, '[contracts."a..b"]', '24 ["a..b"]', 'the name "a..b" is not allowed', "^[a-z0-9][a-z0-9_.-]{0,62}"),
    (SCHEMA, 'schema = "pipeline.schemas"', "25 [own] schema", 'found "pipeline.schemas"', "match pattern"),
    (SCHEMA, 'schema = "p:R"\nstrict = true', "26 [own] strict", "means nothing beside schema: the class says", None),
    (
        SCHEMA,
        'schema = "p:R"\nunique = [["a"]]',
        "26 [own] unique",
        "means nothing beside schema: the class says",
        None,
    ),
    (SCHEMA, 'schema = "p:R"\ncolumns = {}', "26 [own] columns", "means nothing beside schema: the class says", None),
    (SCHEMA, 'schem = "p:R"', "25 [own] schem", "unknown key", "schema"),
    (SCHEMA, "", "24 [own]", "promises nothing", "columns, unique, rows,"),
    (SCHEMA, "rows = {}\nstrict = true", "26 [own] strict", "would allow no column at all", "columns beside it"),
    (SCHEMA, "rows = { min = -1 }", "25 [own] rows.min", "found -1", "greater than or equal to 0"),
    (SCHEMA, "freshness = {}", "25 [own] freshness.within", "is missing", None),
    (
        SCHEMA,
        'freshness = { within = "x" }',
        "25 [own] freshness.within",
        '\'x\' is not a duration like "90s", "5m",',
        None,
    ),
    (SCHEMA, 'unique = ["a"]', "25 [own] unique[0]", 'found "a", a string', "a list"),
    (SCHEMA, "unique = [[]]", "25 [own] unique[0]", "is empty", "at least one column"),
    (SCHEMA, 'unique = [["a", "a"]]', "25 [own] unique[0][1]", '"a" stands here twice', None),
    ("max = 1000", "max = 0", "11 [features] rows.max", "the most rows, 0, are fewer than the least,", None),
    ('["player", "day"]', '["player", "dy"]', "10 [features] unique[0][1]", 'there is no column "dy"', "day"),
    (COLUMN, 'column = "sen"', "12 [features] freshness.column", 'there is no column "sen"', "seen"),
    (COLUMN, 'column = "p50"', "12 [features] freshness.column", '"p50" is float', "a column of dates or"),
    (
        'pattern = "[a-z]+"',
        'pattern = "["',
        "15 [features] columns.player.pattern",
        '"[" is not a regular expression:',
        None,
    ),
    (
        'dtype = "string", pattern',
        'dtype = "int8", pattern',
        "15 [features] columns.player.pattern",
        "means something only for texts, and the",
        None,
    ),
    (STRING, 'dtype = "str"', "15 [features] columns.player.dtype", 'found "str"', "string"),
    (STRING, 'dtyp = "string"', "15 [features] columns.player.dtyp", "unknown key", "dtype"),
    (LAST_DAY, 'max = "2019-01-01"', "16 [features] columns.day.max", "max, 2019-01-01, is less than min,", None),
    (
        LAST_DAY,
        'max = "2030-1-1"',
        "16 [features] columns.day.max",
        'found "2030-1-1", a string',
        "a date as text, like",
    ),
    (LAST_DAY, "max = 2030", "16 [features] columns.day.max", "found 2030, a number", "a date as text, like"),
    (LAST_DAY, "max = 2030-01-01", "16 [features] columns.day.max", "found 2030-01-01, a date", "a number or a text"),
    (
        'min = "2020-01-01T00:00:00Z"',
        'min = "2020-01-01"',
        "17 [features] columns.seen.min",
        'found "2020-01-01", a string',
        "an instant as text, like",
    ),
    (
        'max = "3d"',
        'max = "3 days"',
        "18 [features] columns.rest.max",
        'found "3 days", a string',
        "a duration as text, like",
    ),
    (MAX, "max = -1", "19 [features] columns.p50.max", "max, -1, is less than min, 0", None),
    (MAX, 'max = "48"', "19 [features] columns.p50.max", 'found "48", a string', "a number"),
    (MAX, "max = nan", "19 [features] columns.p50.max", "found nan, a number", "a finite number"),
    (MAX, "max = true", "19 [features] columns.p50.max", "found true, true or false", "a number or a text"),
    (MAX, "max = [48]", "19 [features] columns.p50.max", "found a list", "a number or a text"),
    (ALLOWED, "allowed = [1, 2.5]", "20 [features] columns.games.allowed[1]", "found 2.5, a number", "a whole number"),
    (ALLOWED, 'allowed = [1, "2"]', "20 [features] columns.games.allowed[1]", 'found "2", a string', "a whole number"),
    (
        ALLOWED,
        "allowed = [1, true]",
        "20 [features] columns.games.allowed[1]",
        "found true, true or false",
        "a whole number",
    ),
    (ALLOWED, "allowed = [1, [2]]", "20 [features] columns.games.allowed[1]", "found a list", "a number or a text"),
    (ALLOWED, "allowed = 1", "20 [features] columns.games.allowed", "found 1, a number", "a list"),
    (HOME, "allowed = [1]", "21 [features] columns.home.allowed[0]", "found 1, a number", "true or false"),
    (HOME, "min = 0", "21 [features] columns.home.min", "found 0, a number", "nothing: true and false"),
    (TEAMS, 'min = 1, max = "x"', "22 [features] columns.team.max", "one of min and max is a number and the", None),
    (TEAMS, "allowed = [inf]", "22 [features] columns.team.allowed[0]", "found inf, a number", "a finite number"),
    (
        "nullable = true",
        'nullable = "yes"',
        "22 [features] columns.team.nullable",
        'found "yes", a string',
        "true or false",
    ),
    ("games = {", "games = 5\nother = {", "20 [features] columns.games", "found 5, a number", "a table"),
]


@pytest.mark.parametrize("row", [*CONTRACTS], ids=name_of)
def test_broken_contracts(row: Row) -> None:
    check(row, file="contracts.toml")
