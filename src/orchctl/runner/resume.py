"""Which steps of a run need not be run again: those that succeeded, and whose files are still there unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchctl.core import steps
from orchctl.core.catalog_steps import StepTable
from orchctl.runner import inputs, publish
from orchctl.runner.facts import Facts, Log


def forced(facts: Facts) -> frozenset[str]:
    """Return the steps that run again whatever they have left: the one asked for, and all that need it."""
    begin = facts.request.from_step
    return frozenset() if begin is None else steps.descendants(facts.job.steps, begin) | {begin}


def standing(facts: Facts, step: StepTable, log: Log) -> Mapping[str, Any] | None:
    """Return the manifest of a step's success in an earlier attempt of this run that still stands; None: run it.

    What it found of other steps must be what they have published by now: a step that was optional, failed and was tried
    again may have changed it. Raises OSError or OrchctlError where what is there may not be looked at: then it must not
    be made again.
    """
    made = facts.manifests.existing(step.name, facts.game_date, facts.run_id)
    if made is None or made.get("status") != "success":
        return None
    if not _same_outputs(facts, step, made):
        log(f"{step.name} has succeeded, and its outputs have changed since: it runs again")
        return None
    if step.publish is not None and not (made.get("publish") and publish.still_there(made["publish"])):
        log(f"{step.name} has succeeded, and what it published has changed since: it runs again")
        return None
    if not _same_inputs(facts, step, made):
        log(f"{step.name} has succeeded, and a step that it reads has published other files since: it runs again")
        return None
    return made


def worth_keeping(facts: Facts, step: StepTable) -> Mapping[str, Any] | None:
    """Return the manifest of a step that has succeeded in this run, or promoted its files; None: there is none."""
    made = facts.manifests.existing(step.name, facts.game_date, facts.run_id)
    if made is None or (made.get("status") != "success" and not made.get("promoting")):
        return None
    return made


def promise(facts: Facts, step: StepTable) -> Mapping[str, Any]:
    """Return the fields that a try which replaces a success must carry on: what stands in the step's place.

    Only where it was asked for to run again. Then, should it make other files, which are refused, a retry of the run
    can go back to those that are there.
    """
    made = worth_keeping(facts, step) if step.name in forced(facts) else None
    if made is None or not made.get("publish"):
        return {}
    return {"promoting": {key: made["publish"][key] for key in ("to", "digest")}}


def announced(facts: Facts, step: StepTable) -> Mapping[str, Any] | None:
    """Return the manifest of an attempt of this run that promoted the step's files and did not come to its end.

    None: there is none, what is at the place is not what it announced, or the step is to run again whatever it left.
    Raises OrchctlError where that cannot be known.
    """
    if step.publish is None or step.name in forced(facts):
        return None
    made = facts.manifests.existing(step.name, facts.game_date, facts.run_id)
    if made is None or not publish.is_announced(step.publish, facts.values(step.name), made.get("promoting")):
        return None
    return made


def announcement(facts: Facts, step: StepTable) -> Mapping[str, Any]:
    """Return what an attempt announced, as fields of a manifest; none where nothing was."""
    made = facts.manifests.existing(step.name, facts.game_date, facts.run_id)
    return {"promoting": made["promoting"]} if made is not None and made.get("promoting") else {}


def _same_outputs(facts: Facts, step: StepTable, made: Mapping[str, Any]) -> bool:
    if not step.outputs or made.get("outputs") is None:  # killed before they were looked at
        return True
    now = facts.host.find_outputs(step.outputs, facts.values(step.name), facts.job.data_root, unreadable=_raised)
    return [_facts_of(each) for each in made.get("outputs") or []] == [_facts_of(each) for each in now]


def _raised(error: OSError) -> None:
    raise error


def _facts_of(output: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(output.get(key) for key in ("path", "file_count", "size_bytes", "newest_mtime"))


def _same_inputs(facts: Facts, step: StepTable, made: Mapping[str, Any]) -> bool:
    recorded = {
        (each.get("name"), each.get("path"), each.get("digest"))
        for each in made.get("inputs") or []
        if each.get("step") is not None
    }
    return recorded == {each.identity for each in inputs.resolve(facts, step) if each.table.step is not None}
