"""Crontab lines become drafts of jobs that do the same, or are refused with the reason."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.adapters.cron import Crontabs
from orchctl.core import catalog_build, catalog_edit, cron_command, templates
from orchctl.core.catalog import Catalog
from orchctl.core.catalog_edit import Texts
from orchctl.core.crontab import Daemon
from orchctl.core.drafts import Imported, JobDraft
from orchctl.errors import UsageError
from orchctl.services import import_cron
from orchctl.services.import_cron import Wanted

EMPTY = catalog_build.build(("jobs.toml", "version = 1\n"), ("schedules.toml", "version = 1\n"))
SCRAPE = r"cd /srv/p && flock -n /tmp/s.lock uv run python scrapers/scrape_odds.py >> logs/odds_$(date +\%F).log 2>&1"
OWNERSHIP = r"flock -n /tmp/o.lock /srv/p/scripts/run_ownership.sh >> /var/log/o_$(date +\%F).log 2>&1"
PIPELINE = "".join(
    [
        *(f"{when} * * * {SCRAPE}\n" for when in ("0 15", "30 18", "0 21")),
        *(f"{when} * * * {OWNERSHIP}\n" for when in ("5 15", "35 18", "5 21")),
    ]
)


class Host:
    """The crontabs of a host as a test has them; `files` by path, `own` by user."""

    caller = "daniel"
    me = "daniel"

    def __init__(
        self, own: dict[str, str] | None = None, files: dict[str, str] | None = None, daemon: Daemon | None = "debian"
    ) -> None:
        self.own, self.files, self.daemon = own or {}, files or {}, daemon

    def home(self, user: str) -> str | None:
        return {"daniel": "/home/daniel", "root": "/root", "deploy": "/srv/deploy"}.get(user)

    def users(self) -> frozenset[str]:
        return frozenset({"daniel", "root", "deploy"})

    def text_of(self, user: str) -> str:
        return self.own.get(user, "")

    def read_file(self, path: str) -> str:
        return self.files[path]

    is_system = staticmethod(Crontabs.is_system)


def read(text: str, *, catalog: Catalog = EMPTY, zone: str = "America/New_York", **wanted: Any) -> Imported:
    daemon = wanted.pop("daemon", "debian")
    asked = Wanted(given=text, **wanted)
    return import_cron.cron(Host(daemon=daemon), catalog, asked, host_zone="America/New_York", default_zone=zone)


def job(text: str, **wanted: Any) -> JobDraft:
    found = read(text, **wanted)
    assert not found.refused
    (only,) = found.jobs
    return only


def words(draft: JobDraft) -> list[str]:
    return [templates.render(word, {}) for word in draft.keys["command"]]


def test_a_plain_line_becomes_its_words_with_crons_surroundings() -> None:
    draft = job("5 4 * * * /srv/p/run.sh --label 'two words' \"x=1\"\n")
    assert draft.name == "run"
    assert draft.schedule is not None
    assert draft.schedule.keys == {"cron": "5 4 * * *"}
    assert draft.keys == {
        "command": ["/srv/p/run.sh", "--label", "two words", "x=1"],
        "working_directory": "/home/daniel",
        "nice": 0,
        "catchup": "skip",
        "env": {"PATH": "/usr/bin:/bin"},
    }
    assert draft.triggers == ({"cron": "5 4 * * * /srv/p/run.sh --label 'two words' \"x=1\"", "user": "daniel"},)


@pytest.mark.parametrize(
    "command",
    [
        "a && b",
        "a | b",
        "a > log",
        "a; b",
        "echo x",
        "cd /x",
        "A=1 b",
        "a $X",
        'a "$X"',
        "a `b`",
        "a *",
        "a ?",
        "a [b]",
        "~/a",
        "a ~/b",
        "a #b",
        "a \\ b",
        "a {b,c}",
        "! a",
        "a 'b",
        "(a)",
        "a &",
    ],
)
def test_a_line_with_anything_of_the_shells_stays_the_shells(command: str) -> None:
    assert words(job(f"0 0 * * * {command}\n")) == ["/bin/sh", "-c", command]


def test_another_shell_is_respected() -> None:
    assert words(job("SHELL=/bin/bash\n0 0 * * * a && b\n")) == ["/bin/bash", "-c", "a && b"]
    assert words(job("SHELL=/bin/bash\n0 0 * * * a b\n")) == ["a", "b"]
    assert words(job("SHELL=/usr/bin/fish\n0 0 * * * a b\n")) == ["/usr/bin/fish", "-c", "a b"]
    assert words(job("SHELL=/bin/bash\nBASH_ENV=/etc/x\n0 0 * * * a b\n")) == ["/bin/bash", "-c", "a b"]
    assert "no absolute path" in read("SHELL=bash\n0 0 * * * a\n").refused[0].reason


def test_settings_are_carried_and_what_tells_cron_something_is_said() -> None:
    text = "MAILTO=ops@example.org\nSHELL=/bin/sh\nLOGNAME=other\nPATH=/opt/bin:/bin\nSEASON={2025}\n0 0 * * * x\n"
    draft = job(text)
    assert draft.keys["env"] == {"PATH": "/opt/bin:/bin", "SEASON": "{{2025}}"}
    assert any("ops@example.org (MAILTO)" in comment for comment in draft.comments)


def test_home_is_where_cron_starts_the_command() -> None:
    draft = job("HOME=/srv/p\n0 0 * * * x\n")
    assert (draft.keys["working_directory"], draft.keys["env"]["HOME"]) == ("/srv/p", "/srv/p")
    assert "no absolute path" in read("HOME=relative\n0 0 * * * x\n").refused[0].reason


def test_what_a_crontab_means_and_does_not_say_is_warned_of() -> None:
    warnings = job("PATH=$HOME/bin:/bin\nAPI_TOKEN=abcdef\nCRON_TZ=UTC\n0 0 * * * x &\n").warnings
    assert [any(part in text for text in warnings) for part in ("expands neither", "secret (API_TOKEN)")] == [True] * 2
    assert any("CRON_TZ=UTC means nothing to Debian's cron" in text for text in warnings)
    assert any("background" in text for text in warnings)


def test_an_environment_that_no_catalog_can_hold_is_refused() -> None:
    assert "no catalog can hold: A-B" in read("A-B=1\n0 0 * * * x\n").refused[0].reason
    assert "ORCHCTL_X" in read("ORCHCTL_X=1\n0 0 * * * x\n").refused[0].reason


def test_the_cron_lines_of_a_pipeline_become_one_job_for_each_script() -> None:
    scrape, ownership = read(PIPELINE).jobs
    assert (scrape.name, ownership.name) == ("scrape_odds", "run_ownership")
    assert [len(each.triggers) for each in (scrape, ownership)] == [3, 3]
    assert scrape.schedule is not None
    assert scrape.schedule.keys == {"on_calendar": ["*-*-* 15,21:00:00", "*-*-* 18:30:00"]}
    assert words(scrape)[2] == SCRAPE.replace(r"\%", "%")
    assert any("/var/log/o_$(date +%F).log" in comment for comment in ownership.comments)
    assert any("flock -n exits with 1" in comment for comment in scrape.comments)
    assert not any("starts it again while it still runs" in comment for comment in scrape.comments)


def test_lines_that_differ_in_anything_but_their_time_are_jobs_of_their_own() -> None:
    assert len(read("0 1 * * * x\nA=1\n0 2 * * * x\n0 3 * * * x y\n").jobs) == 3
    # cron starts both at 15:00.
    both = read("*/30 * * * * x\n0 15 * * * x\n")
    assert len(both.jobs) == 2
    merged = job("0 * * * * x\n0 15 * * * x\n")
    assert any("the same instants" in text for text in merged.warnings)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("@reboot x", "boots"),
        ("1~5 * * * * x", "at random"),
        ("0 0 30 2 * x", "never fires"),
        ("nonsense", "not five fields"),
    ],
)
def test_a_line_that_is_no_job_is_refused_by_its_place(line: str, reason: str) -> None:
    found = read(f"# one\n{line}\n0 0 * * * right\n")
    assert [draft.name for draft in found.jobs] == ["right"]
    (refused,) = found.refused
    assert reason in refused.reason
    assert refused.what == f"line 2 of the crontab of daniel ({line})"


def test_a_password_in_a_refused_line_is_not_shown() -> None:
    (refused,) = read("@reboot x https://me:hunter2@example.org\n").refused
    assert "hunter2" not in refused.what


def test_a_line_that_a_job_names_is_left_out() -> None:
    jobs = """version = 1
[defaults]
data_root = "/d"
working_directory = "/w"
work_pool = "p"
[jobs.old]
command = ["x"]
legacy = [{ cron = "0 0 * * * x", user = "daniel" }]
"""
    catalog = catalog_build.build(("jobs.toml", jobs), ("schedules.toml", "version = 1\n"))
    found = read("0 0 * * * x\n0 1 * * * y\n", catalog=catalog)
    assert [draft.name for draft in found.jobs] == ["y"]
    assert "line 1 of the crontab of daniel is already a trigger of old: left out" in found.notes


def test_a_line_that_stands_twice_is_one_trigger() -> None:
    found = read("0 0 * * * x\n0 0 * * * x\n")
    assert [len(draft.triggers) for draft in found.jobs] == [1]
    assert "twice" in found.refused[0].reason


def test_the_zone_of_the_lines_is_written_where_the_catalogs_is_another() -> None:
    draft = job("0 0 * * * x\n", zone="UTC")
    assert draft.schedule is not None
    assert draft.schedule.keys["timezone"] == "America/New_York"
    assert "timezone" not in draft.triggers[0]


def test_cronies_zone_is_that_of_the_schedule_and_of_the_trigger() -> None:
    draft = job("CRON_TZ=Asia/Tokyo\nRANDOM_DELAY=45\n0 0 * * * x\n", daemon="cronie")
    assert draft.schedule is not None
    assert (draft.schedule.keys["timezone"], draft.triggers[0]["timezone"]) == ("Asia/Tokyo", "Asia/Tokyo")
    assert any("RANDOM_DELAY=45" in comment for comment in draft.comments)
    assert draft.keys["env"] == {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    assert "not a time zone" in read("CRON_TZ=Mars\n0 0 * * * x\n", daemon="cronie").refused[0].reason


def test_a_system_file_names_users_and_itself() -> None:
    text = "0 1 * * * deploy /srv/x\n0 2 * * * nobody-here /srv/y\n"
    host = Host(files={"/etc/cron.d/nba": text})
    found = import_cron.cron(host, EMPTY, Wanted(path="/etc/cron.d/nba"), host_zone="UTC", default_zone="UTC")
    (draft,) = found.jobs
    assert (draft.keys["user"], draft.keys["working_directory"]) == ("deploy", "/srv/deploy")
    assert draft.triggers == ({"cron": "0 1 * * * deploy /srv/x", "user": "deploy", "file": "/etc/cron.d/nba"},)
    assert "nobody-here does not exist" in found.refused[0].reason


def test_the_form_of_a_copy_is_told_by_its_lines_and_said() -> None:
    text = "0 1 * * * root /srv/x\n"
    assert job(text).triggers[0]["file"] == "/etc/crontab"
    assert any("read as /etc/crontab" in note for note in read(text).notes)
    assert words(job(text, user="daniel")) == ["root", "/srv/x"]
    assert "file" not in job("0 1 * * * /srv/x\n").triggers[0]
    assert job("0 1 * * * root /srv/x\n", system=True).keys["user"] == "root"


def test_own_and_other_users_crontabs() -> None:
    host = Host(own={"daniel": "0 1 * * * a\n", "deploy": "0 2 * * * b\n"})

    def names(**wanted: Any) -> list[tuple[str, Any]]:
        found = import_cron.cron(host, EMPTY, Wanted(**wanted), host_zone="UTC", default_zone="UTC")
        return [(draft.name, draft.keys.get("user")) for draft in found.jobs]

    assert names() == [("a", None)]
    assert names(user="deploy") == [("b", "deploy")]
    with pytest.raises(UsageError, match="no user nobody-here"):
        names(user="nobody-here")
    with pytest.raises(UsageError, match="exclude each other"):
        names(user="deploy", system=True)


def test_a_host_without_cron_is_said() -> None:
    assert "cron is not installed on this host: read as Debian's cron would" in read("", daemon=None).notes


def test_what_is_imported_is_a_right_catalog() -> None:
    texts = Texts(None, None)
    text = PIPELINE + "0 0 */2 * 1 odd {a}\n0 0 * * * cat%x\n*/5 * * * * a\n0 18 */5 * * five\n"
    found = read(text)
    addition = catalog_edit.add(
        texts, found, zone="America/New_York", new_defaults={"data_root": "/d", "work_pool": "p"}
    )
    assert addition.imported.refused == ()
    assert addition.after.jobs is not None
    assert addition.after.schedules is not None
    catalog = catalog_build.build(("jobs.toml", addition.after.jobs), ("schedules.toml", addition.after.schedules))
    assert sorted(catalog.jobs) == ["a", "cat", "five", "odd", "run_ownership", "scrape_odds"]
    assert len(catalog.schedules_of(catalog.jobs["scrape_odds"])) == 2
    lines = [
        trigger["cron"] for each in tomllib.loads(addition.after.jobs)["jobs"].values() for trigger in each["legacy"]
    ]
    assert sorted(lines) == sorted(text.splitlines())


def run(argv: tuple[str, ...], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("line", "output"),
    [
        (r"cat%one%two\%three%", "one\ntwo%three\n"),
        ("cat # comment%one", "one\n"),
        ("exec cat%a 'b' \"c\" $HOME", "a 'b' \"c\" $HOME\n"),
        (r"printf '\%s' done", "done"),
        (r"printf '[\%s]\n' a\\b", "[ab]\n"),
        ("sh -c 'echo \"$0\"'", "sh\n"),
    ],
)
def test_what_runs_prints_what_it_prints_under_cron(tmp_path: Path, line: str, output: str) -> None:
    """The outputs are those of Debian's cron itself."""
    assert run(tuple(words(job(f"0 0 * * * {line}\n"))), tmp_path) == output


PIECES = (
    "a",
    "-b=/c",
    "%F",
    "'x y'",
    '"q r"',
    "''",
    " ",
    "  ",
    "\t",
    "'$X'",
    '"$X"',
    "~",
    "#",
    "\\",
    "{a,b}",
    "=",
    "!",
    "é",
)


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_words_without_a_shell_are_those_that_a_shell_makes(rest: str) -> None:
    line = f"printf-args {rest}"
    found = cron_command.plain_words(line)
    if found is None:
        return
    script = 'printf-args() { for word in printf-args "$@"; do printf "%s\\0" "$word"; done; }\n' + line
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == found


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/opt/run_Live.sh --x", "run_live"),
        ("cd /p && python3 -u -m a.b.build_all", "build_all"),
        ("flock -n /tmp/a.lock -c 'cd /x && ./y.sh'", "y"),
        ("/usr/bin/flock -n -E 0 /tmp/a /usr/bin/timeout -k 5 10m nice -n 10 ionice -c3 /z.py", "z"),
        ("bash -lc 'source venv/bin/activate; python train.py'", "train"),
        ("poetry run python -m pkg.mod", "mod"),
        ("test -x /usr/sbin/anacron || ( cd / && run-parts --report /etc/cron.daily )", "run-parts"),
        ("A=1 B=2 env -u X C=3 tool", "tool"),
        ("sleep 10; node app/job.js", "job"),
        ("echo hello", "job"),
        ("'/opt/my tool/Do It.sh' x", "do-it"),
        ("x" * 100, "x" * 63),
    ],
)
def test_the_name_is_that_of_what_is_started_in_the_end(command: str, name: str) -> None:
    assert cron_command.name_of(command) == name


@given(st.text(max_size=60))
def test_any_command_has_a_name(command: str) -> None:
    assert 1 <= len(cron_command.name_of(command)) <= 63
