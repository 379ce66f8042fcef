"""From the timers and services of one job to its draft. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchctl.core import import_cadence, import_units
from orchctl.core.drafts import JobDraft, ScheduleDraft
from orchctl.core.import_cadence import Judge
from orchctl.core.import_choice import Candidate, surprises
from orchctl.core.import_units import Carried, masked
from orchctl.core.legacy import Timer
from orchctl.core.mask import STARS, Masker, looks_secret
from orchctl.core.unit_text import Setting

_LONGEST = 63


def draft(
    group: Sequence[Candidate],
    carried: Sequence[Carried],
    settings: Sequence[Mapping[str, Sequence[Setting]]],
    judge: Judge,
    *,
    owners: Sequence[str | None],
    host_zone: str,
    default_zone: str,
) -> JobDraft:
    """Return the job of `group`, with the values of its first unit.

    `carried`, `settings` (of the timer's files, by name) and `owners` (the user to name in the trigger, None for
    none) belong to the candidates, one to one.
    """
    first = group[0]
    own = [each for each in group if each.timer.manager == first.timer.manager]
    files = {name: values for each in settings[: len(own)] for name, values in each.items()}
    whole = import_cadence.cadence(
        [each.timer for each in own], files, judge, host_zone=host_zone, default_zone=default_zone
    )
    name = name_of(first.service.name)
    beside = [import_units.of_timer(each.timer, files.get(each.timer.name, ())) for each in own]
    warnings = [*carried[0].warnings, *whole.warnings, *(text for _, said in beside for text in said)]
    warnings += surprises(group)
    copies = [
        _Copy(each, values, (each.timer,), texts) for each, values, texts in zip(group, carried, settings, strict=True)
    ]
    kept = replace(copies[0], timers=tuple(each.timer for each in own), settings=files)
    warnings += [text for other in copies[len(own) :] for text in _differences(kept, other)]
    return JobDraft(
        name=name,
        keys={**carried[0].keys, **whole.job_keys},
        schedule=ScheduleDraft(name, whole.keys) if whole.keys is not None else None,
        triggers=tuple(_trigger(each, owner) for each, owner in zip(group, owners, strict=True)),
        comments=(*carried[0].comments, *whole.comments, *(text for said, _ in beside for text in said)),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def name_of(unit: str) -> str:
    """Return a job's name for a unit's: `Foo@bar\\x2dbaz.service` gives `foo-bar-baz`."""
    stem = re.sub(r"\\x[0-9a-f]{2}", "-", unit.rpartition(".")[0]).lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_")[:_LONGEST].rstrip("-_") or "job"


def _trigger(each: Candidate, owner: str | None) -> dict[str, str]:
    trigger = {"timer": each.timer.name, "scope": each.timer.manager.scope}
    return {**trigger, "user": owner} if owner is not None else trigger


@dataclass(frozen=True, slots=True)
class _Copy:
    """One of the copies of a job: its first units, what is carried of its service, and its timers.

    `settings` are those of the timers' files, by name.
    """

    first: Candidate
    carried: Carried
    timers: tuple[Timer, ...]
    settings: Mapping[str, Sequence[Setting]]

    @property
    def left(self) -> dict[tuple[str, Setting], str]:
        """What is not carried of its service and its timers."""
        found = {("service", each): shown for each, shown in self.carried.left.items()}
        for timer in self.timers:
            left = import_units.left_of_timer(timer, self.settings.get(timer.name, ()))
            found |= {("timer", each): shown for each, shown in left.items()}
        return found


def _differences(ours: _Copy, theirs: _Copy) -> Iterator[str]:
    """Yield what another copy of the job does otherwise; the job has the values of the first."""
    first, other, kept, values = ours.first, theirs.first, ours.carried, theirs.carried
    found = []
    masker = Masker.of({**first.service.environment, **other.service.environment})
    if kept.runs_as != values.runs_as:
        found.append(f"user {_said(values.runs_as)} (kept: {_said(kept.runs_as)})")
    for key in ("command", "working_directory", "nice", "env_files", "timeout", "kill_after"):
        before, after = kept.keys.get(key), values.keys.get(key)
        if before != after:
            found.append(f"{key} {masked(_said(after), masker)} (kept: {masked(_said(before), masker)})")
    one, two = kept.keys.get("env", {}), values.keys.get("env", {})
    found += [
        f"{key} {_value(key, two, masker)} (kept: {_value(key, one, masker)})"
        for key in sorted({*one, *two})
        if one.get(key) != two.get(key)
    ]
    before, after = _cadence(ours.timers), _cadence(theirs.timers)
    if before != after:
        found.append(f"cadence {', '.join(after)} (kept: {', '.join(before)})")
    if ours.left.keys() != theirs.left.keys():
        alone, missing = _apart(theirs.left, ours.left), _apart(ours.left, theirs.left)
        found.append(f"not carried of it: {alone}; of the other: {missing}")
    if found:
        yield f"{other.label} differs from {first.label}: {'; '.join(found)}"


def _apart(left: Mapping[tuple[str, Setting], str], other: Mapping[tuple[str, Setting], str]) -> str:
    return ", ".join(shown for key, shown in left.items() if key not in other) or "nothing"


def _cadence(timers: Sequence[Timer]) -> list[str]:
    """Return what says when the timers fire, in words that can be compared."""
    said = {line for timer in timers for line in timer.calendars}
    said |= {f"{each.base}={import_cadence.span(each.seconds)}" for timer in timers for each in timer.monotonic}
    said |= {"Persistent=" for timer in timers if timer.persistent}
    return sorted(said | {text for timer in timers for text in import_cadence.looseness(timer)})


def _said(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _value(key: str, environment: Mapping[str, str], masker: Masker) -> str:
    if key not in environment:
        return "not set"
    return STARS if looks_secret(key) else f'"{masker.mask(environment[key])}"'
