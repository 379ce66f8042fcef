"""What is added to the catalog's files: whole, valid, and without touching a byte of what was there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import catalogs
from conftest import ROOT
from orchctl.adapters import toml_files
from orchctl.core import catalog_edit, templates
from orchctl.core.catalog import Catalog
from orchctl.core.catalog_build import build
from orchctl.core.catalog_edit import Addition, Texts, add, free_name
from orchctl.core.drafts import Imported, JobDraft, ScheduleDraft
from orchctl.errors import CatalogInvalid
from orchctl.services import importing

NEW = {"data_root": "/srv/data", "work_pool": "default"}
THERE = Texts(catalogs.JOBS, catalogs.SCHEDULES)


def draft(
    name: str = "fresh", *, schedule: dict[str, Any] | None = None, timer: str | None = None, **keys: Any
) -> JobDraft:
    wanted: dict[str, Any] = {"command": ["/bin/true"], "working_directory": "/srv", "nice": 0, **keys}
    cadence = ScheduleDraft(name, schedule) if schedule else None
    return JobDraft(
        name, wanted, cadence, ({"timer": timer or f"{name}.timer", "scope": "system"},), ("said",), ("warned",)
    )


def added(texts: Texts, *jobs: JobDraft, zone: str = "UTC") -> Addition:
    return add(texts, Imported(jobs), zone=zone, new_defaults=NEW)


def catalog(texts: Texts) -> Catalog:
    return build(("jobs.toml", texts.jobs), ("schedules.toml", texts.schedules), ("contracts.toml", texts.contracts))


def test_what_is_there_stays_byte_for_byte_and_in_front() -> None:
    after = added(THERE, draft(schedule={"cron": "0 4 * * *"})).after
    assert after.jobs is not None
    assert after.jobs.startswith(catalogs.JOBS)
    assert after.schedules is not None
    assert after.schedules.startswith(catalogs.SCHEDULES)
    made = catalog(after)
    assert made.jobs["fresh"].schedules == ("fresh",)
    assert {**made.jobs, "fresh": None} == {**catalog(THERE).jobs, "fresh": None}
    assert "# warned\n# it also has SEASON from the env of [defaults]\n# said\n[jobs.fresh]\n" in after.jobs


def test_the_shipped_catalog_takes_a_job_and_only_grows() -> None:
    names = ("jobs.toml", "schedules.toml", "contracts.toml")
    texts = Texts(*((ROOT / "config" / name).read_text() for name in names))
    after = added(texts, draft(schedule={"every": "90s", "timezone": "UTC"})).after
    assert str(after.jobs).startswith(str(texts.jobs))
    assert str(after.schedules).startswith(str(texts.schedules))
    job = catalog(after).jobs["fresh"]
    # Its [defaults] say nice = 5 and an environment: the one can be denied, the other is said.
    assert job.nice == 0
    assert "# it also has PROJECTIONS_DATA_ROOT from the env of [defaults]" in str(after.jobs)


def test_a_new_catalog_is_whole() -> None:
    made = added(Texts(), draft(schedule={"on_calendar": "*-*-* 04:00:00"}), zone="America/New_York")
    whole = catalog(made.after)
    assert whole.timezone == "America/New_York"
    assert whole.jobs["fresh"].data_root == "/srv/data"
    # Both parts together are TOML too: that is what is printed.
    both = tomllib.loads(f"{made.schedules}\n{made.jobs}")
    assert sorted(both) == ["defaults", "jobs", "schedules"]


def test_nothing_to_add_changes_nothing() -> None:
    assert added(THERE).after == THERE


@pytest.mark.parametrize("ending", ["", "\n", "\n# the end", "\n\n\n"])
def test_any_end_of_a_file_is_taken(ending: str) -> None:
    texts = Texts(catalogs.JOBS.rstrip("\n") + ending, catalogs.SCHEDULES.rstrip("\n") + ending)
    after = added(texts, draft(schedule={"cron": "0 4 * * *"})).after
    assert str(after.jobs).startswith(str(texts.jobs))
    assert "fresh" in catalog(after).jobs


def test_line_endings_stay_those_of_the_file() -> None:
    texts = Texts(catalogs.JOBS.replace("\n", "\r\n"), catalogs.SCHEDULES)
    after = added(texts, draft()).after
    assert str(after.jobs).count("\n") == str(after.jobs).count("\r\n")
    assert "fresh" in catalog(after).jobs


def test_a_name_that_is_taken_gets_a_number_and_is_said() -> None:
    made = added(THERE, draft("score", timer="a.timer"), draft("score", timer="b.timer"), draft("events"))
    assert [job.name for job in made.imported.jobs] == ["score-2", "score-3", "events-2"]
    assert made.imported.notes[0] == "a.timer becomes score-2: the name score is taken"
    assert sorted(catalog(made.after).jobs) == ["events-2", "other", "score", "score-2", "score-3"]


def test_a_schedule_is_used_again_only_where_it_says_the_same() -> None:
    same = added(THERE, draft("daily", schedule={"cron": "0 8 * * *"}))
    assert same.schedules == ""
    assert catalog(same.after).jobs["daily"].schedules == ("daily",)
    other = added(THERE, draft("daily", schedule={"cron": "1 8 * * *"}))
    assert catalog(other.after).jobs["daily"].schedules == ("daily-2",)


def test_a_list_of_lines_leaves_room_for_the_numbers_of_its_schedules() -> None:
    lines = [f"*-*-* {hour:02}:00:00" for hour in range(12)]
    made = added(THERE, draft("a" * 63, schedule={"on_calendar": lines}))
    assert len(catalog(made.after).schedules["a" * 60]) == 12


def test_a_job_that_the_catalog_refuses_is_refused_alone() -> None:
    made = added(
        THERE,
        draft("good", schedule={"cron": "0 4 * * *"}),
        draft("bad-user", user="Some One", schedule={"cron": "0 5 * * *"}),
        draft("bad-time", schedule={"cron": "99 4 * * *"}),
    )
    assert [job.name for job in made.imported.jobs] == ["good"]
    refused = {each.what: each.reason for each in made.imported.refused}
    assert refused["bad-user.timer"].startswith("the catalog refuses it: user: ")
    assert refused["bad-time.timer"].startswith("the catalog refuses it: cron: ")
    assert sorted(catalog(made.after).jobs) == ["good", "other", "score"]
    assert "bad" not in str(made.after.schedules)


def test_a_file_that_cannot_be_added_to_is_an_error_with_its_place() -> None:
    inline = (
        'version = 1\njobs = { a = { command = ["x"], data_root = "/d", working_directory = "/", work_pool = "p" } }\n'
    )
    with pytest.raises(CatalogInvalid, match="cannot be added to") as caught:
        added(Texts(inline, catalogs.SCHEDULES), draft())
    assert caught.value.problems[0].file == "jobs.toml"


def test_defaults_that_would_change_the_job_are_denied_or_said() -> None:
    head = (
        'version = 1\n[defaults]\ndata_root = "/d"\nwork_pool = "p"\nnice = 7\nenv_files = ["/etc/x"]\n'
        'schedules = ["daily"]\nuser = "ann"\nenv = { A = "1", B = "2" }\n'
    )
    made = added(Texts(head, catalogs.SCHEDULES), draft(env={"A": "3"}))
    job = catalog(made.after).jobs["fresh"]
    assert (job.nice, job.env_files, job.schedules) == (0, (), ())
    assert job.env == {"A": "3", "B": "2"}
    (placed,) = made.imported.jobs
    assert placed.warnings == (
        "warned",
        "it also has B from the env of [defaults]",
        "it inherits user from [defaults]",
    )


ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(
    argv=st.lists(ANY, max_size=4),
    env=st.dictionaries(st.from_regex(r"Z[A-Z_0-9]{0,8}", fullmatch=True), ANY, max_size=3),
    said=ANY,
)
def test_any_text_comes_back_as_it_was(argv: list[str], env: dict[str, str], said: str) -> None:
    def doubled(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    job = draft(command=["/bin/x", *map(doubled, argv)], env={key: doubled(value) for key, value in env.items()})
    noisy = JobDraft(job.name, job.keys, None, job.triggers, (said,), (said,))
    made = catalog(added(Texts(), noisy).after).jobs["fresh"]
    values = dict.fromkeys(templates.WORDS, "")
    assert [templates.render(word, values) for word in made.command] == ["/bin/x", *argv]
    assert {key: templates.render(value, values) for key, value in made.env.items()} == env


@given(st.text("ab", min_size=1, max_size=70), st.sets(st.text("ab", min_size=1, max_size=63)))
def test_a_free_name_is_free_and_short_enough(name: str, taken: set[str]) -> None:
    for _ in range(3):
        found = free_name(name, taken)
        assert found not in taken
        assert 0 < len(found) <= 63
        taken.add(found)


def test_what_the_catalog_holds_against_a_schedule_is_its_own_sentence() -> None:
    assert catalog_edit.schedule_problem({"cron": "0 4 * * *"}, "UTC") is None
    assert "99" in str(catalog_edit.schedule_problem({"cron": "99 4 * * *"}, "UTC"))


def test_a_torn_write_leaves_what_can_be_imported_again(tmp_path: Path) -> None:
    made = added(THERE, draft(schedule={"cron": "0 4 * * *"}))
    catalogs.write(tmp_path)

    def torn(contents: Any) -> None:
        first = next(iter(contents))
        toml_files.write(tmp_path, {first: contents[first]})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importing.write(made, THERE, torn)
    assert sorted(toml_files.load(tmp_path).jobs) == ["other", "score"]
    found = toml_files.texts(tmp_path)
    now = Texts(found["jobs.toml"], found["schedules.toml"])
    again = added(now, draft(schedule={"cron": "0 4 * * *"}))
    assert importing.write(again, now, lambda contents: toml_files.write(tmp_path, contents)) == ("jobs.toml",)
    assert toml_files.load(tmp_path).jobs["fresh"].schedules == ("fresh",)


def test_a_torn_first_import_counts_as_no_catalog_yet(tmp_path: Path) -> None:
    made = added(Texts(), draft(schedule={"cron": "0 4 * * *"}))
    toml_files.write(tmp_path, {"schedules.toml": str(made.after.schedules)})
    found = toml_files.texts(tmp_path)
    now = Texts(found["jobs.toml"], found["schedules.toml"])
    assert importing.existing(now).jobs == {}
    again = added(now, draft(schedule={"cron": "0 4 * * *"}))
    importing.write(again, now, lambda contents: toml_files.write(tmp_path, contents))
    assert list(toml_files.load(tmp_path).jobs) == ["fresh"]


def test_a_broken_catalog_is_not_added_to() -> None:
    with pytest.raises(CatalogInvalid):
        importing.existing(Texts("version = 1\n[jobs.a]\n", catalogs.SCHEDULES))


def test_files_keep_their_mode_and_symlinks_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles"
    real.mkdir()
    catalogs.write(real)
    (real / "jobs.toml").chmod(0o660)
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "jobs.toml").symlink_to(real / "jobs.toml")
    toml_files.write(folder, {"jobs.toml": "version = 1\n", "schedules.toml": "version = 1\n"})
    assert (folder / "jobs.toml").is_symlink()
    assert (real / "jobs.toml").read_text() == "version = 1\n"
    assert (real / "jobs.toml").stat().st_mode & 0o777 == 0o660
    assert (folder / "schedules.toml").stat().st_mode & 0o777 & ~0o022 == 0o644
