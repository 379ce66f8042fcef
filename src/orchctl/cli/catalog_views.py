"""What `check` and `jobs` show: the catalog, and the steps of a job as a drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.cli.views import shown
from orchctl.core.durations import canonical
from orchctl.core.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchctl.core.alerts import Alerts
    from orchctl.core.catalog import Catalog, Job, Schedule
    from orchctl.core.catalog_steps import RetryDelay, StepTable
    from orchctl.wiring import Settings

# Said by the drawing, or beside it.
_DRAWN = ("steps",)
_WAITS_SHOWN = 4


def checked(catalog: Catalog, settings: Settings, alerts: Alerts | None = None) -> None:
    """Say that the catalog is valid; `alerts` None: there is no alerts.toml."""
    legacy = sum(job.has_legacy for job in catalog.jobs.values())
    steps = sum(len(job.steps) for job in catalog.jobs.values())
    data = {
        "name": catalog.name,
        "digest": catalog.digest,
        "jobs": len(catalog.jobs),
        "schedules": len(catalog.schedules),
        "with_legacy_triggers": legacy,
        "steps": steps,
        "contracts": len(catalog.contracts),
        "limits": len(catalog.limits),
        "channels": len(alerts.channels) if alerts is not None else 0,
        "routes": len(alerts.routes) if alerts is not None else 0,
    }
    parts = [f"{counted(len(catalog.jobs), 'job')} ({legacy} with legacy triggers)"]
    parts += [counted(steps, "step")] if steps else []
    parts += [counted(len(catalog.schedules), "schedule")]
    parts += [counted(len(catalog.contracts), "contract")] if catalog.contracts else []
    parts += [counted(len(alerts.channels), "alert channel")] if alerts is not None else []
    text = f"{settings.config_dir}: {', '.join(parts)}, no problems"
    render.emit("check", data, lambda: render.line(text), settings)


def jobs(catalog: Catalog, settings: Settings) -> None:
    """List the jobs."""
    rows = [
        (
            job.name,
            ", ".join(cadence(schedule) for schedule in catalog.schedules_of(job)) or "by hand",
            _execution(job),
            canonical(job.timeout),
            str(job.retries),
            job.overlap,
            str(len(job.legacy)),
            job.description,
        )
        for job in catalog.jobs.values()
    ]
    headings = ("JOB", "SCHEDULE", "EXECUTION", "TIMEOUT", "RETRIES", "OVERLAP", "LEGACY", "DESCRIPTION")
    data = {"jobs": [job_json(job) for job in catalog.jobs.values()]}

    def text() -> None:
        if rows:
            render.table(headings, rows, settings, right=("RETRIES", "LEGACY"), flexible="DESCRIPTION")
        else:
            render.note("the catalog has no jobs")

    render.emit("jobs", data, text, settings)


def _execution(job: Job) -> str:
    """Say how a job runs, and how many steps it has: `steps (9)`, or `command (9 steps)` where they are not used."""
    if not job.steps:
        return job.execution
    return f"steps ({len(job.steps)})" if job.execution == "steps" else f"command ({counted(len(job.steps), 'step')})"


def job(catalog: Catalog, one: Job, settings: Settings) -> None:
    """Show a job whole."""
    data = {
        "job": job_json(one),
        "schedules": [
            schedule.model_dump(mode="json", exclude_defaults=True) for schedule in catalog.schedules_of(one)
        ],
        "dag": list(_dag_json(one)),
    }

    def text() -> None:
        for key, value in job_json(one).items():
            if key not in _DRAWN:
                render.line(f"{key:<22}{_plain(value)}")
        for schedule in catalog.schedules_of(one):
            render.line(f"{'schedule':<22}{schedule.name}: {cadence(schedule)} ({schedule.timezone})")
        for line in _drawing(catalog, one) if one.steps else ():
            render.line(line)

    render.emit("jobs", data, text, settings)


def cadence(schedule: Schedule) -> str:
    """Say when a schedule fires, as the catalog says it."""
    if schedule.every is not None:
        return f"every {canonical(schedule.every)}"
    return schedule.cron or schedule.rrule or " | ".join(schedule.on_calendar)


def job_json(one: Job) -> dict[str, Any]:
    """Return a job as data, secrets masked."""
    data = one.model_dump(mode="json", by_alias=True)
    masked = {"name": data.pop("name"), **{key: shown(key, value) for key, value in data.items()}}
    for name, mode in one.as_of.items():
        masked["as_of"][name]["key"] = mode.key  # where in a file to look: no secret, whatever its name looks like
    return masked


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value or "-"
    return "-" if value in (None, [], {}) else render.to_json(_without_nulls(value))


def _without_nulls(value: Any) -> Any:
    """Return what a table says, without the keys that say nothing."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item not in (None, [], {})}
    return value


def _dag_json(one: Job) -> Iterator[dict[str, Any]]:
    """Yield the steps in the order in which they run, each with those that it waits for and those that wait for it."""
    from orchctl.core import steps

    for step in steps.order(one.steps):
        yield {
            "step": step.name,
            "needs": list(steps.needs(step)),
            "before": [other.name for other in one.steps if step.name in steps.needs(other)],
            "optional": step.optional,
            "retries": step.retries,
            "timeout": canonical(step.timeout or one.timeout),
            "publishes": step.publish.to if step.publish else None,
            "contracts": [use.contract for use in step.contracts],
        }


def _drawing(catalog: Catalog, one: Job) -> Iterator[str]:
    from orchctl.core import step_graph

    yield ""
    how = f"{counted(len(one.steps), 'step')}, at most {one.parallel_steps} at a time"
    if one.execution == "steps":
        yield f"{how}:"
    else:
        yield f"{how}; not in use: a run is the command"
        yield f'set execution = "steps" to change that, or for once: orchctl run {one.name} --execution steps'
    yield ""
    width = render.width()
    for row in step_graph.draw(one.steps):
        if row.step is None:
            yield row.lanes
            continue
        yield f"{row.lanes} {row.step.name}"
        for word, text in _details(catalog, one, row.step):
            yield f"{row.below:<{len(row.lanes)}}   {_fitted(word, text, width and width - len(row.lanes) - 3)}"


def _details(catalog: Catalog, one: Job, step: StepTable) -> Iterator[tuple[str, str]]:
    """Yield what there is to know of a step, a line each: a word, and what it says."""
    facts = [f"timeout {canonical(step.timeout or one.timeout)}"]
    if step.retries:
        facts += [f"{step.retries} {'retry' if step.retries == 1 else 'retries'} after {_waits(step)}"]
    facts += [f"limit {name} ({catalog.limits[name]})" for name in step.concurrency]
    yield (
        "optional" if step.optional else "",
        ", ".join([*(["its failure only warns"] if step.optional else []), *facts]),
    )
    for each in step.inputs:
        gap = "" if each.missing == "fail" else f" (missing: {each.missing})"
        yield "reads", f"{each.name}: {each.path or f'what {each.step} publishes'}{gap}"
    for use in step.contracts:
        yield "contract", f"{use.contract} on {f'input {use.input}' if use.input else 'what it makes'}"
    for text in step.outputs:
        yield "makes", text
    if step.publish is not None:
        until = f" until {step.publish.until}" if step.publish.until else ""
        yield "publishes", f"{step.publish.to} ({step.publish.policy}{until})"


def _waits(step: StepTable) -> str:
    """Say the waits before the retries: `30s, 1m, 2m and up to 30% more`."""
    delay: RetryDelay = step.retry_delay
    waits = [min(delay.most, round(delay.first * delay.factor**number)) for number in range(step.retries)]
    if len(set(waits)) == 1:
        said = canonical(waits[0])
    else:
        said = ", ".join(canonical(wait) for wait in waits[:_WAITS_SHOWN]) + (", …" if waits[_WAITS_SHOWN:] else "")
    return said + (f" and up to {delay.jitter:.0%} more" if delay.jitter else "")


def _fitted(word: str, text: str, width: int | None) -> str:
    """Write a detail; where it is too wide, a path loses its beginning, else the text its end. None: any width."""
    label = f"{word:<10}" if word else ""
    room = None if width is None else max(20, width - len(label))
    if room is None or len(text) <= room:
        return label + text
    if "/" not in text:
        return f"{label}{text[: room - 1]}…"
    name, found, rest = text.partition(": ")
    head = f"{name}{found}" if found else ""
    return f"{label}{head}…{(rest or text)[len(head) + 1 - room :]}"
