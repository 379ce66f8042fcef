"""Broken places, contracts of steps and partitions: one place is wrong, and exactly that is reported."""

from __future__ import annotations

import pytest

from broken_steps import Row, check, name_of

TO = 'to = "{data_root}/rates/{group}/{game_date}/run={run_id}"'
WINDOW = 'policy = "window", until = "lock" }'
OPTIONAL = "optional = true"
USE = 'contract = "roster", input = "roster"'
FILE = 'file = "{season}/*.parquet"'
SEASON = 'season = { format = "%Y", shift_months = -9 }'
GROUP = 'group = { default = "all" }'
TIP = 'command = ["tip", "{game_date}", "{season}"]'
FROM = 'from = "{season}"'
PLACED = """[[jobs.plain.steps]]
name = "p"
command = ["x"]
publish = { to = "{data_root}/features/{group}/{game_date}/run={run_id}" }

[jobs.plain.partition]
group = { default = "all" }
"""
RUN_LINE = 'command = ["plain"]\n'

PUBLISH: list[Row] = [
    (
        TO,
        'to = "rates/{game_date}/run={run_id}"',
        "57 steps[2].publish.to",
        '"rates/{game_date}/run={run_id}" is no',
        "begins with / or",
    ),
    (
        TO,
        'to = "{data_root}/../{game_date}/run={run_id}"',
        "57 steps[2].publish.to",
        '"{data_root}/../{game_date}/run={run_id}"',
        "begins with / or",
    ),
    (
        TO,
        'to = "{data_root}/rates/{group}/{game_date}/{slot}/run={run_id}"',
        "57 steps[2].publish.to",
        "{slot} stands before the last part: the",
        None,
    ),
    (
        TO,
        'to = "{data_root}/rates/{group}/run={run_id}"',
        "57 steps[2].publish.to",
        "no part before the last names {game_date}:",
        "such as",
    ),
    (
        TO,
        'to = "{data_root}/manifests/{group}/{game_date}/run={run_id}"',
        "57 steps[2].publish.to",
        "is inside the manifest tree, which is",
        None,
    ),
    (
        TO,
        'to = "{data_root}/features/{group}/{game_date}/run={run_id}"',
        "57 steps[2].publish.to",
        "is where rates.features publishes: the",
        None,
    ),
    (
        TO,
        'to = "/srv/data//features/./{group}/{game_date}/score-{run_id}/"',
        "57 steps[2].publish.to",
        "is where rates.features publishes: the",
        None,
    ),
    (
        TO,
        'to = "{data_root}/features/{group}/{game_date}/run={run_id}/{game_date}/run={run_id}"',
        "57 steps[2].publish.to",
        "{run_id} stands before the last part: the",
        None,
    ),
    (
        RUN_LINE,
        RUN_LINE + PLACED,
        "71 [jobs.plain] steps[0].publish.to",
        "is where rates.features publishes: the",
        None,
    ),
    (
        TO,
        'to = "{data_root}/rates/{game_date}/run={run_id}"',
        "57 steps[2].publish.to",
        "no part before the last names {group}, which --param may set",
        "such as",
    ),
    (
        TO,
        'to = "{data_root}/rates/{game_date}/{group}-{run_id}"',
        "57 steps[2].publish.to",
        "no part before the last names {group}, which --param may set",
        "such as",
    ),
    (TO, TO + ', policy = "maybe"', "57 steps[2].publish.policy", 'found "maybe"', "always or manual or window"),
    (TO, TO + ', policy = "window"', "57 steps[2].publish.until", "is missing", "an instant, or an as_of"),
    (TO, TO + ', until = "lock"', "57 steps[2].publish.until", "means something only with policy =", None),
    (
        TO,
        TO + ', policy = "manual", until = "lock"',
        "57 steps[2].publish.until",
        "means something only with policy =",
        None,
    ),
    (WINDOW, 'policy = "window", until = "lok" }', "48 steps[1].publish.until", 'there is no as_of mode "lok"', "lock"),
    (
        WINDOW,
        'policy = "window", until = "{game_date}" }',
        "48 steps[1].publish.until",
        '"{game_date}" is no instant',
        "such as",
    ),
    (
        WINDOW,
        'policy = "window", until = "{game_date}T19:00:00" }',
        "48 steps[1].publish.until",
        '"{game_date}T19:00:00" is no instant',
        "such as",
    ),
    (WINDOW, 'policy = "window", until = "" }', "48 steps[1].publish.until", '"" is no instant', "such as"),
    (
        FROM,
        'from = "../{season}"',
        "48 steps[1].publish.from",
        '"../{season}" is not below the staging',
        "a relative path without ..",
    ),
    (
        FROM,
        'from = "{data_root}/x"',
        "48 steps[1].publish.from",
        '"{data_root}/x" is not below the staging',
        "a relative path without ..",
    ),
    (
        FROM,
        'from = "/x"',
        "48 steps[1].publish.from",
        '"/x" is not below the staging directory',
        "a relative path without ..",
    ),
]

CONTRACT_USES: list[Row] = [
    (
        USE,
        'contract = "rostr", input = "roster"',
        "45 steps[1].contracts[0].contract",
        'there is no contract "rostr"',
        "roster",
    ),
    (
        USE,
        'contract = "zzz", input = "roster"',
        "45 steps[1].contracts[0].contract",
        'there is no contract "zzz"',
        "features, own, roster",
    ),
    (
        USE,
        'contract = "roster", input = "rooster"',
        "45 steps[1].contracts[0].input",
        'there is no input "rooster"',
        "roster",
    ),
    (
        USE,
        'contract = "roster", input = "raw"',
        "45 steps[1].contracts[0].contract",
        "roster wants the age of a snapshot, and",
        "an input whose path has",
    ),
    (
        USE,
        'contract = "roster"',
        "45 steps[1].contracts[0].contract",
        "roster wants the age of a snapshot, and",
        "an input whose path has",
    ),
    (USE, 'input = "roster"', "45 steps[1].contracts[0].contract", "is missing", None),
    (FILE, 'fil = "x"', "46 steps[1].contracts[1].fil", "unknown key", "file"),
    (
        FILE,
        'file = "/x/*.parquet"',
        "46 steps[1].contracts[1].file",
        '"/x/*.parquet" names no files',
        "a relative glob without",
    ),
    (
        FILE,
        'file = "../*.parquet"',
        "46 steps[1].contracts[1].file",
        '"../*.parquet" names no files',
        "a relative glob without",
    ),
    (FILE, 'file = ""', "46 steps[1].contracts[1].file", '"" names no files', "a relative glob without"),
    (
        OPTIONAL,
        'contracts = [{ contract = "own", input = "x" }]',
        "63 steps[3].contracts[0].input",
        'there is no input "x"',
        "this step has no inputs",
    ),
]

PARTITION: list[Row] = [
    (
        SEASON,
        'season = { format = "%Y", shift_months = -900 }',
        "18 [jobs.rates] partition.season.shift_months",
        "found -900",
        "greater than or equal to",
    ),
    (
        SEASON,
        'season = { format = "%Y", default = "x" }',
        "18 [jobs.rates] partition.season.default",
        "means nothing beside format: the rule",
        None,
    ),
    (
        SEASON,
        'season = { default = "2025", shift_months = -9 }',
        "18 [jobs.rates] partition.season.shift_months",
        "means something only beside format",
        None,
    ),
    (
        SEASON,
        'season = { format = "%Q" }',
        "18 [jobs.rates] partition.season.format",
        '"%Q" gives no value that may be part of a',
        "a strftime of a date: %Y",
    ),
    (
        SEASON,
        'season = { format = "%Y/%m" }',
        "18 [jobs.rates] partition.season.format",
        '"%Y/%m" gives no value that may be part of',
        "a strftime of a date: %Y",
    ),
    (
        SEASON,
        'season = { format = "" }',
        "18 [jobs.rates] partition.season.format",
        '"" gives no value that may be part of a path',
        "a strftime of a date: %Y",
    ),
    (
        SEASON,
        'season = { format = "%H%Y" }',
        "18 [jobs.rates] partition.season.format",
        '"%H%Y" gives no value that may be part of a',
        "a strftime of a date: %Y",
    ),
    (SEASON, 'season = "2025"', "18 [jobs.rates] partition.season", 'found "2025", a string', "a table"),
    (SEASON, 'season = { fromat = "%Y" }', "18 [jobs.rates] partition.season.fromat", "unknown key", "format"),
    (
        GROUP,
        "group = {}",
        "19 [jobs.rates] partition.group",
        "nothing gives the partition key group a",
        "format or default in it,",
    ),
    (
        GROUP,
        'group = { default = "a/b" }',
        "19 [jobs.rates] partition.group.default",
        '"a/b" may not be part of a path',
        "^[A-Za-z0-9._][A-Za-z0-9._-]{0,63}$",
    ),
    (
        GROUP,
        'group = { default = ".." }',
        "19 [jobs.rates] partition.group.default",
        '".." may not be part of a path',
        "^[A-Za-z0-9._][A-Za-z0-9._-]{0,63}$",
    ),
    (
        GROUP,
        'group = { default = "all" }\nslot = { default = "x" }',
        "20 [jobs.rates] partition.slot",
        '"slot" is a word of templates or a variable',
        None,
    ),
    (
        GROUP,
        'group = { default = "all" }\nstaging = { default = "x" }',
        "20 [jobs.rates] partition.staging",
        '"staging" is a word of templates or a',
        None,
    ),
    (
        GROUP,
        'group = { default = "all" }\ninput_x = { default = "x" }',
        "20 [jobs.rates] partition.input_x",
        '"input_x" is a word of templates or a',
        None,
    ),
    (
        GROUP,
        'group = { default = "all" }\nstate_dir = { default = "x" }',
        "20 [jobs.rates] partition.state_dir",
        '"state_dir" is a word of templates or a',
        None,
    ),
    (
        GROUP,
        'group = { default = "all" }\nSeason = { default = "x" }',
        "20 [jobs.rates] partition.Season",
        'found "Season"',
        "match pattern",
    ),
    (TIP, "", "23 [jobs.rates] as_of.tip", "found neither", "exactly one of command,"),
    (
        TIP,
        'command = ["x"], file = "/x"',
        "23 [jobs.rates] as_of.tip",
        "found command and file",
        "exactly one of command,",
    ),
    (TIP, "command = []", "23 [jobs.rates] as_of.tip.command", "names no program", None),
    (TIP, 'command = ["x"], key = "x"', "23 [jobs.rates] as_of.tip.key", "means something only beside file", None),
    (TIP, 'file = "x.json"', "23 [jobs.rates] as_of.tip.file", '"x.json" is no absolute path', "begins with / or"),
    (
        'shift = "-15m"',
        'shift = "15 minutes"',
        "22 [jobs.rates] as_of.lock.shift",
        'found "15 minutes"',
        "match pattern",
    ),
    ('shift = "-15m"', 'shft = "15m"', "22 [jobs.rates] as_of.lock.shft", "unknown key", "shift"),
    ("tip = {", '"T p" = {', '23 [jobs.rates] as_of."T p"', "'T p' does not match", None),
]


@pytest.mark.parametrize("row", [*PUBLISH, *CONTRACT_USES, *PARTITION], ids=name_of)
def test_broken_places_contracts_and_partitions(row: Row) -> None:
    check(row)
