"""Broken steps: each catalog differs from a valid one in one place, and exactly that is reported."""

from __future__ import annotations

import pytest

from broken_steps import Row, check, name_of

SCRAPE = 'name = "rates.scrape"\n'
SIM = 'name = "rates.sim"\n'
PLAIN = "[jobs.plain]\n"
RAW = 'path = "{data_root}/raw/{game_date}/run={run_id}" }'
TO = 'to = "{data_root}/rates/{group}/{game_date}/run={run_id}"'
OPTIONAL = "optional = true"
COMMAND = 'command = ["sim"]'
AFTER = 'after = ["rates.score"]'
STEP = 'step = "rates.features"'
FILE = 'file = "{season}/*.parquet"'
RUN = 'command = ["plain"]'
FROM = 'from = "{season}"'
OUTPUTS = 'outputs = ["{data_root}/raw/{game_date}/run={run_id}/*.json"]'
PARALLEL = "parallel_steps = 2"
EXECUTION = 'execution = "steps"\n'
PERMANENT = 'permanent = ["no such league"]'
RUN_LINE = 'command = ["plain"]\n'
BLACK_BOX = 'execution = "command"\ncommand'
AFTER_SCRAPE = 'after = ["rates.scrape"]'

NAMES: list[Row] = [
    (SIM, 'name = "Rates sim"\n', "60 steps[3].name", "'Rates sim' does not match", None),
    (SIM, 'name = "a..b"\n', "60 steps[3].name", "'a..b' does not match", None),
    (SIM, "name = 5\n", "60 steps[3].name", "found 5, a number", "a string"),
    (SIM, "", "59 steps[3].name", "is missing", None),
    (SIM, 'name = "rates.score"\n', "60 steps[3].name", "this job has a step of this name already", None),
    (SIM, 'name = "events"\n', "60 steps[3].name", '"events" is a folder of orchctl itself in', None),
    (SIM, 'name = "backfills"\n', "60 steps[3].name", '"backfills" is a folder of orchctl itself', None),
    (SIM, 'name = "rates"\n', "60 steps[3].name", '"rates" is the asset of this job: its', None),
    (PLAIN, PLAIN + 'asset = "rates.sim"\n', "60 steps[3].name", '"rates.sim" is the asset of the job plain', None),
    (
        RUN_LINE,
        RUN_LINE + '[[jobs.plain.steps]]\nname = "rates.sim"\ncommand = ["x"]\n',
        "69 [jobs.plain] steps[0].name",
        '"rates.sim" is a step of the job rates in',
        None,
    ),
    (SIM, SIM + 'cmd = ["x"]\n', "61 steps[3].cmd", "unknown key", "command"),
    (SIM, SIM + 'timer = "x"\n', "61 steps[3].timer", "unknown key", "timeout"),
    ('command = ["sim"]\n', "", "59 steps[3].command", "is missing", None),
    (COMMAND, "command = []", "62 steps[3].command", "is empty", "at least one"),
    (COMMAND, 'command = "sim"', "62 steps[3].command", 'found "sim", a string', "a list"),
    (OPTIONAL, 'optional = "yes"', "63 steps[3].optional", 'found "yes", a string', "true or false"),
    (OPTIONAL, 'env = { ORCHCTL_STEP = "x" }', "63 steps[3].env.ORCHCTL_STEP", "is set by the runner itself", None),
    (
        OPTIONAL,
        'env = { "A B" = "x" }',
        '63 steps[3].env."A B"',
        "is not the name of a variable",
        "^[A-Za-z_][A-Za-z0-9_]{0,1",
    ),
    (OPTIONAL, 'concurrency = ["apy"]', "63 steps[3].concurrency[0]", 'there is no limit "apy"', "api"),
    (
        OPTIONAL,
        'concurrency = ["api", "api"]',
        "63 steps[3].concurrency[1]",
        '"api" stands here twice: the step would',
        None,
    ),
    ("api = 3", "api = 0", "10 [limits] api", "found 0", "greater than or equal to 1"),
    ("api = 3", 'api = "3"', "10 [limits] api", 'found "3", a string', "a whole number"),
    ("api = 3", 'api = 3\n"A b" = 1', '11 [limits] "A b"', "'A b' does not match", None),
    (
        EXECUTION,
        EXECUTION + "steps = []\n",
        "8 [defaults] steps",
        "steps are those of one job: each is an",
        "[[jobs.NAME.steps]]",
    ),
    (EXECUTION, 'execution = "step"\n', "7 [defaults] execution", 'found "step"', "steps"),
    (
        BLACK_BOX,
        "command",
        "65 [jobs.plain]",
        'execution is "steps" (from [defaults]), and',
        'execution = "command", or',
    ),
    (
        BLACK_BOX,
        'execution = "steps"\ncommand',
        "66 [jobs.plain] execution",
        'execution is "steps", and the job has none',
        'execution = "command", or',
    ),
    (PARALLEL, 'execution = "command"', "12 [jobs.rates] command", "is missing", "command here or in"),
    (PARALLEL, "parallel_steps = 0", "15 [jobs.rates] parallel_steps", "found 0", "greater than or equal to 1"),
    (PARALLEL, "backfill = { paralel = 3 }", "15 [jobs.rates] backfill.paralel", "unknown key", "parallel"),
]

ORDER: list[Row] = [
    (AFTER, 'after = ["rates.scor"]', "61 steps[3].after[0]", 'there is no step "rates.scor"', "rates.score"),
    (AFTER, 'after = ["zzz"]', "61 steps[3].after[0]", 'there is no step "zzz"', "rates.features,"),
    (AFTER, 'after = "rates.score"', "61 steps[3].after", 'found "rates.score", a string', "a list"),
    (AFTER, 'after = ["rates.sim"]', "61 steps[3].after", "these steps wait for each other: rates.sim", None),
    (SCRAPE, SCRAPE + 'after = ["rates.sim"]\n', "27 steps[0].after", "these steps wait for each other:", None),
    (
        AFTER_SCRAPE,
        'after = ["rates.scrape", "rates.score"]',
        "36 steps[1].after",
        "these steps wait for each other:",
        None,
    ),
    (
        STEP,
        'step = "rates.feature"',
        "55 steps[2].inputs[0].step",
        'there is no step "rates.feature"',
        "rates.features",
    ),
    (
        STEP,
        'step = "rates.scrape"',
        "55 steps[2].inputs[0].step",
        "rates.scrape publishes nothing",
        "a step that does:",
    ),
    (STEP, STEP + ', path = "/x"', "55 steps[2].inputs[0]", "found path and step", "exactly one of path, step"),
    (STEP, 'missing = "warn"', "55 steps[2].inputs[0]", "found neither", "exactly one of path, step"),
    (STEP, STEP + ', missing = "wrn"', "55 steps[2].inputs[0].missing", 'found "wrn"', "warn"),
    (STEP, STEP + ', mising = "warn"', "55 steps[2].inputs[0].mising", "unknown key", "missing"),
    ('{ name = "features", step', "{ step", "55 steps[2].inputs[0].name", "is missing", None),
    ('{ name = "features", step', '{ name = "a.b", step', "55 steps[2].inputs[0].name", "'a.b' does not match", None),
    (
        RAW,
        RAW + ',\n{ name = "raw", path = "/x" }',
        "43 steps[1].inputs[2].name",
        '"raw" is the name of another input',
        None,
    ),
    (
        RAW,
        RAW + ',\n{ name = "a-b", path = "/x" }, { name = "a_b", path = "/x" }',
        "43 steps[1].inputs[3].name",
        '"a_b" and a-b would share a variable',
        None,
    ),
    (
        RAW,
        'path = "raw/{game_date}" }',
        "42 steps[1].inputs[1].path",
        '"raw/{game_date}" is no absolute path',
        "begins with / or",
    ),
    (
        RAW,
        'path = "{data_root}/../raw" }',
        "42 steps[1].inputs[1].path",
        '"{data_root}/../raw" is no absolute path',
        "begins with / or",
    ),
    (
        RAW,
        'path = "{data_root}/{snapshot_ts}/{snapshot_ts}" }',
        "42 steps[1].inputs[1].path",
        "{snapshot_ts} stands here more than once",
        None,
    ),
    (
        RAW,
        'path = "{data_root}/rw/{game_date}/run={run_id}" }',
        "42 steps[1].inputs[1].path",
        "no step of this job publishes this or lists",
        "{data_root}/raw/{game_date}/run={run_id}/*.json",
    ),
    (
        AFTER_SCRAPE,
        "after = []",
        "42 steps[1].inputs[1].path",
        "rates.scrape makes this, and this step does",
        'after = ["rates.scrape"]',
    ),
    (OUTPUTS, 'outputs = ["raw"]', "32 steps[0].outputs[0]", '"raw" is no absolute path', "begins with / or"),
    (
        OPTIONAL,
        'outputs = ["{data_root}/rates/{group}/{game_date}/run={run_id}/sim"]',
        "63 steps[3].outputs[0]",
        "is in what rates.score publishes, which",
        None,
    ),
    (OPTIONAL, 'outputs = ["../x"]', "63 steps[3].outputs[0]", '"../x" is no absolute path', "begins with / or"),
]

TEMPLATES: list[Row] = [
    (
        COMMAND,
        'command = ["sim", "{snapshot_ts}"]',
        "62 steps[3].command[1]",
        "{snapshot_ts} means nothing in this",
        "run_as_of_ts",
    ),
    (
        COMMAND,
        'command = ["sim", "{inputs.raw}"]',
        "62 steps[3].command[1]",
        "{inputs.raw} means nothing in this",
        "{game_date} {run_id}",
    ),
    (
        COMMAND,
        'command = ["sim", "{seasn}"]',
        "62 steps[3].command[1]",
        "{seasn} means nothing in a template",
        "season",
    ),
    (
        "{inputs.roster}",
        "{inputs.rostr}",
        "37 steps[1].command[1]",
        "{inputs.rostr} means nothing in this",
        "inputs.roster",
    ),
    (
        'RAW = "{inputs.raw}"',
        'RAW = "{inputs.row}"',
        "38 steps[1].env.RAW",
        "{inputs.row} means nothing in this",
        "inputs.raw",
    ),
    (
        "run={run_id}/*.json",
        "run={staging}/*.json",
        "32 steps[0].outputs[0]",
        "{staging} means nothing in this template:",
        "{game_date} {run_id}",
    ),
    (
        "run={run_id}/*.json",
        "run={inputs.raw}/*.json",
        "32 steps[0].outputs[0]",
        "{inputs.raw} means nothing in this",
        "{game_date} {run_id}",
    ),
    (
        FROM,
        'from = "{staging}"',
        "48 steps[1].publish.from",
        "{staging} means nothing in this template:",
        "{game_date} {run_id}",
    ),
    (
        TO,
        'to = "{data_root}/rates/{grp}/{game_date}/run={run_id}"',
        "57 steps[2].publish.to",
        "{grp} means nothing in a template",
        "group",
    ),
    (
        FILE,
        'file = "{inputs.raw}/*.parquet"',
        "46 steps[1].contracts[1].file",
        "{inputs.raw} means nothing in this",
        "{game_date} {run_id}",
    ),
    (
        'key = "{game_date}.{group}"',
        'key = "{run_id}"',
        "22 [jobs.rates] as_of.lock.key",
        "{run_id} means nothing in a template",
        "{game_date} {data_root}",
    ),
    (
        '"{data_root}/locks.json"',
        '"{data_root}/{slot}.json"',
        "22 [jobs.rates] as_of.lock.file",
        "{slot} means nothing in a template",
        "{game_date} {data_root}",
    ),
    (
        '"tip", "{game_date}"',
        '"tip", "{game_dat}"',
        "23 [jobs.rates] as_of.tip.command[1]",
        "{game_dat} means nothing in a template",
        "game_date",
    ),
    (
        RUN,
        'command = ["plain", "{season}"]',
        "67 [jobs.plain] command[1]",
        "{season} means nothing in a template",
        "{game_date} {run_id}",
    ),
    (
        RUN,
        'command = ["plain", "{staging}"]',
        "67 [jobs.plain] command[1]",
        "{staging} means nothing in this template:",
        "{game_date} {run_id}",
    ),
    (
        'until = "lock"',
        'until = "{lock}"',
        "48 steps[1].publish.until",
        "{lock} means nothing in a template",
        "{game_date} {run_id}",
    ),
]

RETRIES: list[Row] = [
    ('most = "5m"', 'most = "10s"', "29 steps[0].retry_delay.most", "the longest wait, 10s, is shorter than the", None),
    (
        'first = "30s", factor = 2, most = "5m", jitter',
        'first = "20m", jitter',
        "29 steps[0].retry_delay.first",
        "the longest wait, 10m, is shorter than the",
        None,
    ),
    ("factor = 2", "factor = 0.5", "29 steps[0].retry_delay.factor", "found 0.5", "greater than or equal to 1"),
    ("factor = 2", 'factor = "2"', "29 steps[0].retry_delay.factor", 'found "2", a string', "a number"),
    ("factor = 2", "factor = nan", "29 steps[0].retry_delay.factor", "found nan", "less than or equal to 10"),
    ("jitter = 0.5", "jitter = 2", "29 steps[0].retry_delay.jitter", "found 2", "less than or equal to 1"),
    ('first = "30s"', 'first = "0s"', "29 steps[0].retry_delay.first", "must be longer than 0s", None),
    ('first = "30s", ', "", "29 steps[0].retry_delay.first", "is missing", None),
    ("factor = 2", "fctor = 2", "29 steps[0].retry_delay.fctor", "unknown key", "factor"),
    (
        'retry_delay = "1m"',
        "retry_delay = 60",
        "54 steps[2].retry_delay",
        '60 is neither a duration like "30s" nor a',
        None,
    ),
    (
        'retry_delay = "1m"',
        'retry_delay = "1 minute"',
        "54 steps[2].retry_delay",
        "'1 minute' is not a duration like \"90s\",",
        None,
    ),
    (PERMANENT, 'permanent = ["("]', "30 steps[0].permanent[0]", '"(" is not a regular expression: missing ),', None),
    (
        PERMANENT,
        'permanent = ["ok", "a{2,1}"]',
        "30 steps[0].permanent[1]",
        '"a{2,1}" is not a regular expression: min',
        None,
    ),
    ('timeout = "5m"', 'timeout = "0s"', "39 steps[1].timeout", "must be longer than 0s", None),
    ("retries = 2", "retries = 101", "28 steps[0].retries", "found 101", "less than or equal to 100"),
]


@pytest.mark.parametrize("row", [*NAMES, *ORDER, *TEMPLATES, *RETRIES], ids=name_of)
def test_broken_steps(row: Row) -> None:
    check(row)
