"""What the steps of a job must satisfy: names, order, inputs, contracts, limits, and where their run's words come from.

The rules look at the tables as they were written, so that one broken key does not hide what else is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchctl.core import catalog_partition_rules, catalog_publish_rules, catalog_template_rules, steps, templates
from orchctl.core.catalog_rules import RESERVED_ASSETS, check_env, regex_problem, reserved, unknown
from orchctl.core.catalog_source import Source
from orchctl.core.catalog_steps import ContractUse, InputTable, StepTable
from orchctl.core.catalog_written import WrittenJob, WrittenStep
from orchctl.core.contracts import ContractTable
from orchctl.core.durations import canonical
from orchctl.core.toml_lines import Path


def check(source: Source, jobs: Sequence[WrittenJob], contracts: Mapping[str, ContractTable] | None) -> None:
    """Check all that has to do with steps. `contracts` are those of contracts.toml, None where it could not be read."""
    catalog_template_rules.check(source, jobs)
    catalog_partition_rules.check(source, jobs)
    limits = source.data.get("limits", {})
    for job in jobs:
        _check_execution(source, job)
        _check_graph(source, job)
        for step in job.steps:
            check_env(source, (*step.path, "env"), step.raw.get("env"))
            _check_retries(source, step)
            _check_limits(source, step, limits if isinstance(limits, dict) else None)
            _check_inputs(source, job, step)
            _check_contracts(source, step, contracts)
    _check_assets(source, jobs)
    catalog_publish_rules.check(source, jobs)


def _check_execution(source: Source, job: WrittenJob) -> None:
    if job.table.get("execution") == "steps" and not job.raw.get("steps"):
        inherited = "" if "execution" in job.raw else " (from [defaults])"
        source.wrong(
            job.place("execution"),
            f'execution is "steps"{inherited}, and the job has none',
            allowed=f'execution = "command", or [[jobs.{job.name}.steps]]',
        )


def _check_graph(source: Source, job: WrittenJob) -> None:
    known = _names(job)
    first: dict[str, WrittenStep] = {}
    for step in job.steps:
        if step.name in first:
            source.wrong((*step.path, "name"), "this job has a step of this name already")
        first.setdefault(step.name, step)
        for index, name in enumerate(step.table.after):
            if name not in known:
                unknown(source, (*step.path, "after", index), "step", name, known=known - {step.name}, none="no step")
    for ring in _cycles([step.table for step in first.values()]):
        source.wrong((*first[ring[0]].path, "after"), f"these steps wait for each other: {' -> '.join(ring)}")


def _names(job: WrittenJob) -> set[str]:
    """Return the names of all of the job's steps, also of those of which nothing else can be read."""
    listed = job.raw.get("steps")
    tables = listed if isinstance(listed, list) else []
    return {each["name"] for each in tables if isinstance(each, dict) and isinstance(each.get("name"), str)}


def _cycles(tables: Sequence[StepTable]) -> list[tuple[str, ...]]:
    """Return cycles that have no step in common, until none is left."""
    found, left = [], list(tables)
    while ring := steps.cycle(left):
        found.append(ring)
        left = [table for table in left if table.name not in ring]
    return found


def _check_retries(source: Source, step: WrittenStep) -> None:
    delay = step.table.retry_delay
    if delay.most < delay.first:
        raw = step.raw["retry_delay"]
        key = "most" if "most" in raw else "first"
        source.wrong(
            (*step.path, "retry_delay", key),
            f"the longest wait, {canonical(delay.most)}, is shorter than the first, {canonical(delay.first)}",
        )
    for index, pattern in enumerate(step.table.permanent):
        if reason := regex_problem(pattern):
            source.wrong((*step.path, "permanent", index), f'"{pattern}" is not a regular expression: {reason}')


def _check_limits(source: Source, step: WrittenStep, limits: Mapping[str, Any] | None) -> None:
    named = step.table.concurrency
    for index, name in enumerate(named):
        path = (*step.path, "concurrency", index)
        if limits is not None and name not in limits:
            unknown(source, path, "limit", name, known=limits, none="no limit is defined in [limits]")
        if name in named[:index]:
            source.wrong(path, f'"{name}" stands here twice: the step would wait for itself')


def _check_inputs(source: Source, job: WrittenJob, step: WrittenStep) -> None:
    variables: dict[str, str] = {}
    for index, each in enumerate(step.table.inputs):
        path: Path = (*step.path, "inputs", index)
        variable = each.name.replace("-", "_")
        if variable in variables:
            also = variables[variable]
            taken = "is the name of another input" if also == each.name else f"and {also} would share a variable"
            source.wrong((*path, "name"), f'"{each.name}" {taken}')
        variables.setdefault(variable, each.name)
        given = [key for key in ("path", "step") if getattr(each, key) is not None]
        if len(given) != 1:
            source.wrong(path, f"found {' and '.join(given) or 'neither'}", allowed="exactly one of path, step")
        if each.path is not None:
            _check_path(source, (*path, "path"), each.path)
        if each.step is not None:
            _check_source_step(source, (*path, "step"), job, step, each.step)


def _check_path(source: Source, path: Path, text: str) -> None:
    if not catalog_publish_rules.is_absolute(text):
        catalog_publish_rules.not_absolute(source, path, text)
    mark = f"{{{templates.SNAPSHOT}}}"
    if text.replace("{{", "").count(mark) > 1:
        source.wrong(path, f"{mark} stands here more than once")


def _check_source_step(source: Source, path: Path, job: WrittenJob, step: WrittenStep, name: str) -> None:
    others = {each.name: each for each in job.steps if each.name != step.name}
    if name == step.name or (name not in others and name in _names(job)):
        return  # a cycle, or a step that is wrong itself
    publishing = [each.name for each in others.values() if "publish" in each.raw]
    if name not in others:
        unknown(source, path, "step", name, known=publishing, none="no other step of this job publishes")
    elif name not in publishing:
        allowed = ", ".join(sorted(publishing)) or "no other step of this job publishes"
        source.wrong(path, f"{name} publishes nothing", allowed=f"a step that does: {allowed}")


def _check_contracts(source: Source, step: WrittenStep, contracts: Mapping[str, ContractTable] | None) -> None:
    named = {each.name: each for each in step.table.inputs}
    for index, use in enumerate(step.table.contracts):
        path: Path = (*step.path, "contracts", index)
        if contracts is not None and use.contract not in contracts:
            none = "no contract is defined in contracts.toml"
            unknown(source, (*path, "contract"), "contract", use.contract, known=contracts, none=none)
        if use.input is not None and use.input not in named and "inputs" not in _wrong_keys(step):
            none = "this step has no inputs"
            unknown(source, (*path, "input"), "input", use.input, known=named, none=none)
        elif contracts is not None and use.contract in contracts:
            _check_freshness(source, path, use, named.get(use.input or ""), contracts[use.contract])
        if not catalog_publish_rules.is_below(use.file) or not use.file.strip("/. "):
            allowed = "a relative glob without .., below the input or the staging directory"
            source.wrong((*path, "file"), f'"{use.file}" names no files', allowed=allowed)


def _wrong_keys(step: WrittenStep) -> set[str]:
    """Return the keys that were left out of the table because they are wrong."""
    return set() if step.whole else {key for key in step.raw if key not in step.table.model_fields_set}


def _check_freshness(
    source: Source, path: Path, use: ContractUse, read: InputTable | None, contract: ContractTable
) -> None:
    """Without a column, the age is that of what was selected, a snapshot or a step's run: there must be one."""
    if contract.freshness is None or contract.freshness.column is not None:
        return
    if read is None or (read.step is None and f"{{{templates.SNAPSHOT}}}" not in (read.path or "")):
        source.wrong(
            (*path, "contract"),
            f"{use.contract} wants the age of a snapshot, and this is none",
            allowed="an input whose path has {snapshot_ts}, or freshness.column in the contract",
        )


def _check_assets(source: Source, jobs: Sequence[WrittenJob]) -> None:
    """An asset is made in one place: a run's manifest would stand in for that of another one."""
    assets: dict[tuple[str | None, str], str] = {}
    for job in jobs:
        assets.setdefault((_root(job), job.text("asset") or job.name), job.name)
    makers: dict[tuple[str | None, str], str] = {}
    for job in jobs:
        own = job.text("asset") or job.name
        for name in dict.fromkeys(step.name for step in job.steps):
            path = next((*step.path, "name") for step in job.steps if step.name == name)
            key = (_root(job), name)
            if name in RESERVED_ASSETS:
                source.wrong(path, reserved(name))
            elif name == own:
                source.wrong(path, f'"{name}" is the asset of this job: its manifest would be written twice')
            elif key[0] is not None and key in assets:
                source.wrong(path, f'"{name}" is the asset of the job {assets[key]} in the same data_root')
            elif key[0] is not None and key in makers:
                source.wrong(path, f'"{name}" is a step of the job {makers[key]} in the same data_root')
            makers.setdefault(key, job.name)


def _root(job: WrittenJob) -> str | None:
    root = job.text("data_root")
    return None if root is None else root.rstrip("/") or "/"
