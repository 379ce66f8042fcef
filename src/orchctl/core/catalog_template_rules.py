"""Which words each template of `jobs.toml` may hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from orchctl.core import templates
from orchctl.core.catalog_source import Source
from orchctl.core.catalog_words import is_secret, printable
from orchctl.core.catalog_written import WrittenJob
from orchctl.core.names import is_name, nearest
from orchctl.core.toml_lines import Path

_OF_AN_INSTANT = ("game_date", "data_root")
_ELSEWHERE = {
    templates.STAGING: "a word of the command and the env of a step",
    templates.SNAPSHOT: "a word of the path of an input",
}

# Where in a table a template stands, what it says, and which words it may hold.
_Found = Iterator[tuple[Path, str, Collection[str]]]


def check(source: Source, jobs: Sequence[WrittenJob]) -> None:
    """Check every template of the file, also those of broken jobs."""
    defaults = source.data.get("defaults")
    if isinstance(defaults, dict):
        own = defaults.get("partition")
        _check_table(source, ("defaults",), defaults, tuple(own) if isinstance(own, dict) else ())
    for job in jobs:
        keys = job.names("partition")
        _check_table(source, job.path, job.raw, keys)
        for index, step in enumerate(_tables(job.raw, "steps")):
            for where, text, words in _of_step(step, (*templates.WORDS, *keys)):
                _check(source, (*job.path, "steps", index), where, text, words)


def _check_table(source: Source, path: Path, raw: Mapping[str, Any], keys: Sequence[str]) -> None:
    for where, text, words in (*_of_job(raw, (*templates.WORDS, *keys)), *_of_modes(raw, (*_OF_AN_INSTANT, *keys))):
        _check(source, path, where, text, words)


def _check(source: Source, path: Path, where: Path, text: str, words: Collection[str]) -> None:
    bad = templates.problems(text, words)
    if not bad:
        return
    # A token may be a piece of a password: it is shown only where it can be seen in the masked text.
    secret = is_secret(where) or any(token not in printable(text) for token in bad)
    word = bad[0].strip("{}")
    source.wrong(
        (*path, *where),
        f"{'a brace' if secret else ', '.join(bad)} means nothing in {_this_template(word)}",
        allowed=" ".join(f"{{{word}}}" for word in words) + ", {{ and }} for braces",
        nearest=None if secret else nearest(word, words),
    )


def _this_template(word: str) -> str:
    """Say for a word of other places where it belongs; any other one belongs nowhere."""
    if word.startswith(templates.INPUTS):
        return f"this template: it is {_ELSEWHERE[templates.STAGING]} that has such an input"
    return f"this template: it is {_ELSEWHERE[word]}" if word in _ELSEWHERE else "a template"


def _of_job(raw: Mapping[str, Any], words: Collection[str]) -> _Found:
    for key in ("command", "dry_run_command", "outputs"):
        yield from _listed(raw, key, words)
    yield from _in_table(raw, "env", words)


def _of_modes(raw: Mapping[str, Any], words: Collection[str]) -> _Found:
    modes = raw.get("as_of")
    for name, mode in modes.items() if isinstance(modes, dict) else ():
        if isinstance(mode, dict):
            for where, text, _ in (*_listed(mode, "command", words), *_texts(mode, ("file", "key"), words)):
                yield ("as_of", name, *where), text, words


def _of_step(raw: Mapping[str, Any], words: Collection[str]) -> _Found:
    own = (*words, templates.STAGING, *_inputs(raw))
    yield from _listed(raw, "command", own)
    yield from _in_table(raw, "env", own)
    yield from _listed(raw, "outputs", words)
    publish = raw.get("publish")
    if isinstance(publish, dict):
        until = publish.get("until")
        mode = isinstance(until, str) and is_name(until)
        keys = ("to", "from") if mode else ("to", "from", "until")
        yield from ((("publish", *where), text, of) for where, text, of in _texts(publish, keys, words))
    for index, each in enumerate(_tables(raw, "inputs")):
        found = _texts(each, ("path",), (*words, templates.SNAPSHOT))
        yield from ((("inputs", index, *where), text, of) for where, text, of in found)
    for index, each in enumerate(_tables(raw, "contracts")):
        yield from ((("contracts", index, *where), text, of) for where, text, of in _texts(each, ("file",), words))


def _inputs(raw: Mapping[str, Any]) -> list[str]:
    """Return the words for a step's inputs; where one has no right name, for all that it could be."""
    names = [each.get("name") for each in _tables(raw, "inputs")]
    if all(isinstance(name, str) and is_name(name) for name in names):
        return [f"{templates.INPUTS}{name}" for name in names]
    texts = [text for _, text, _ in (*_listed(raw, "command", ()), *_in_table(raw, "env", ()))]
    return [word for text in texts for word in templates.words_in(text) if word.startswith(templates.INPUTS)]


def _tables(raw: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the tables of a list; what stands there instead of one is noted elsewhere, and has no keys here."""
    values = raw.get(key)
    return [each if isinstance(each, dict) else {} for each in (values if isinstance(values, list) else ())]


def _texts(raw: Mapping[str, Any], keys: Sequence[str], words: Collection[str]) -> _Found:
    for key in keys:
        if isinstance(text := raw.get(key), str):
            yield (key,), text, words


def _listed(raw: Mapping[str, Any], key: str, words: Collection[str]) -> _Found:
    values = raw.get(key)
    for index, text in enumerate(values if isinstance(values, list) else ()):
        if isinstance(text, str):
            yield (key, index), text, words


def _in_table(raw: Mapping[str, Any], key: str, words: Collection[str]) -> _Found:
    table = raw.get(key)
    for name, text in table.items() if isinstance(table, dict) else ():
        if isinstance(text, str):
            yield (key, name), text, words
