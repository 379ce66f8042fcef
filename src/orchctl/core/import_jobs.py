"""From the timers and services of one job to its draft. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchctl.core import import_cadence
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
    warnings = [*carried[0].warnings, *whole.warnings, *surprises(group)]
    warnings += [
        text
        for each, values in list(zip(group, carried, strict=True))[len(own) :]
        for text in _differences(own, carried[0], each, values)
    ]
    return JobDraft(
        name=name,
        keys={**carried[0].keys, **whole.job_keys},
        schedule=ScheduleDraft(name, whole.keys) if whole.keys is not None else None,
        triggers=tuple(_trigger(each, owner) for each, owner in zip(group, owners, strict=True)),
        comments=(*carried[0].comments, *whole.comments),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def name_of(unit: str) -> str:
    """Return a job's name for a unit's: `Foo@bar\\x2dbaz.service` gives `foo-bar-baz`."""
    stem = re.sub(r"\\x[0-9a-f]{2}", "-", unit.rpartition(".")[0]).lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_")[:_LONGEST].rstrip("-_") or "job"


def _trigger(each: Candidate, owner: str | None) -> dict[str, str]:
    trigger = {"timer": each.timer.name, "scope": each.timer.manager.scope}
    return {**trigger, "user": owner} if owner is not None else trigger


def _differences(own: Sequence[Candidate], kept: Carried, other: Candidate, values: Carried) -> Iterator[str]:
    """Yield what another copy of the job does otherwise; the job has the values of the first."""
    first = own[0]
    found = []
    masker = Masker.of({**first.service.environment, **other.service.environment})
    for key in ("command", "working_directory", "nice", "env_files", "timeout", "kill_after"):
        before, after = kept.keys.get(key), values.keys.get(key)
        if before != after:
            found.append(f"{key} {masked(_said(after), masker)} (kept: {masked(_said(before), masker)})")
    ours, theirs = kept.keys.get("env", {}), values.keys.get("env", {})
    found += [
        f"{key} {_value(key, theirs, masker)} (kept: {_value(key, ours, masker)})"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    before, after = _cadence([each.timer for each in own]), _cadence([other.timer])
    if before != after:
        found.append(f"cadence {', '.join(after)} (kept: {', '.join(before)})")
    if found:
        yield f"{other.label} differs from {first.label}: {'; '.join(found)}"


def _cadence(timers: Sequence[Timer]) -> list[str]:
    """Return what says when the timers fire, in words that can be compared."""
    said = {line for timer in timers for line in timer.calendars}
    said |= {f"{each.base}={import_cadence.span(each.seconds)}" for timer in timers for each in timer.monotonic}
    said |= {"Persistent=" for timer in timers if timer.persistent}
    delays = {timer.random_delay_s for timer in timers if timer.random_delay_s}
    return sorted(said | {f"RandomizedDelaySec={import_cadence.span(delay)}" for delay in delays})


def _said(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _value(key: str, environment: Mapping[str, str], masker: Masker) -> str:
    if key not in environment:
        return "not set"
    return STARS if looks_secret(key) else f'"{masker.mask(environment[key])}"'
