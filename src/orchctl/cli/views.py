"""What `plan` and `sync` show, and how secrets are kept out of what is shown of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchctl.cli import render
from orchctl.core.limits import QUEUE
from orchctl.core.words import counted

if TYPE_CHECKING:
    from orchctl.core.limits import LimitChange, QueueChange
    from orchctl.core.plan import Change, FieldChange, Plan, ScheduleChange
    from orchctl.services.sync import Synced
    from orchctl.wiring import Settings

_SIGNS = {"create": "+", "update": "~", "recreate": "!", "delete": "-"}
_CUT = 60
_BY_HAND = "   [by hand]"


def shown(key: str, value: Any) -> Any:
    """Return a value with the secrets in it masked.

    Masked are the values of keys that look secret, what follows a flag that looks secret in a list of words
    (`--password x`, `--token=x`), what an Authorization header holds, and passwords in URLs.
    """
    from orchctl.core.mask import Masker, looks_secret

    if isinstance(value, dict):
        return {inner: shown(inner, item) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        before = ("", *value)
        return [shown(_flag(before[index]) or key, item) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return "***" if looks_secret(key) and value else value
    name, equals, rest = value.partition("=")
    if equals and rest and (_flag(name) or name.isupper()) and looks_secret(_flag(name) or name):
        return f"{name}=***"
    if value.lower().startswith(("authorization:", "cookie:", "x-api-key:")):
        return value.partition(":")[0] + ": ***"
    return "***" if looks_secret(key) and value else Masker({}).mask(value)


def _flag(word: object) -> str:
    """Return the name of a long option (`--api-token` gives `API_TOKEN`), "" for any other word."""
    return word[2:].replace("-", "_").upper() if isinstance(word, str) and word.startswith("--") else ""


def plan(proposed: Plan, settings: Settings, *, command: str) -> None:
    """Show what `sync` would do."""
    render.emit(command, _plan_json(proposed), lambda: _plan_text(proposed, settings), settings)


def _plan_json(proposed: Plan) -> dict[str, Any]:
    return {
        "digest": proposed.digest,
        "empty": proposed.empty,
        "writes_catalog": proposed.writes_catalog,
        "work_pools": list(proposed.pools),
        "queues": [_queue_json(item) for item in proposed.queues],
        "limits": [_limit_json(item) for item in proposed.limits],
        "changes": [_change_json(change) for change in proposed.changes],
        "notes": list(proposed.notes),
        "conflicts": [
            {"subject": item.subject, "message": item.message, "hint": item.hint} for item in proposed.conflicts
        ],
    }


def _queue_json(item: QueueChange) -> dict[str, Any]:
    return {
        "work_pool": item.pool,
        "queue": QUEUE,
        "action": "update" if item.before else "create",
        "before": item.before,
        "after": item.body,
        "because": item.because,
    }


def _limit_json(item: LimitChange) -> dict[str, Any]:
    return {
        "limit": item.name,
        "action": "update" if item.before else "create",
        "before": item.before,
        "after": item.body,
        "because": item.because,
    }


def _beside_text(proposed: Plan) -> None:
    """Print the lines of what is no deployment: pools, their queues for backfills, limits."""
    for pool in proposed.pools:
        render.line(f"+ work pool {pool}")
    for queue in proposed.queues:
        sign, by_hand = ("~", _BY_HAND) if queue.before else ("+", "")
        behind = ", behind the others" if queue.priority is not None else ""
        was = f" (was {_at_a_time(queue.before.concurrency_limit)})" if queue.before else ""
        text = f"{_at_a_time(queue.limit)}{behind}{was}{by_hand if queue.because == 'by hand' else ''}"
        render.line(f"{sign} queue {QUEUE} of work pool {queue.pool}: {text}")
    for limit in proposed.limits:
        if limit.before is None:
            render.line(f"+ limit {limit.name}: {counted(limit.limit, 'place')}")
            continue
        decay = ", and no place becomes free by itself any more" if limit.before.decay else ""
        by_hand = _BY_HAND if limit.because == "by hand" else ""
        render.line(f"~ limit {limit.name}: {limit.before.limit} -> {counted(limit.limit, 'place')}{decay}{by_hand}")


def _at_a_time(limit: int | None) -> str:
    return "no limit" if limit is None else f"{limit} at a time"


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "job": change.job,
        "action": change.action,
        "deployment_id": change.deployment_id,
        "drift": change.drift,
        "fields": [
            {
                "field": item.field,
                "before": shown(item.field, item.before),
                "after": shown(item.field, item.after),
                "because": item.because,
            }
            for item in change.fields
        ],
        "schedules": [
            {
                "slug": item.slug,
                "action": item.action,
                "before": shown("schedule", item.before),
                "after": item.after.schedule if item.after else None,
                "because": item.because,
            }
            for item in change.schedules
        ],
        "runs_deleted": [{"id": run.id, "expected_start": run.expected_start} for run in change.runs_deleted],
        "runs_kept": [
            {"id": run.id, "state": run.state_name, "expected_start": run.expected_start} for run in change.runs_kept
        ],
    }


def _plan_text(proposed: Plan, settings: Settings) -> None:
    for item in proposed.conflicts:
        render.line(f"! {item.subject} {item.message}")
        render.line(f"    {item.hint}")
    _beside_text(proposed)
    for change in proposed.changes:
        _change_text(change, verbose=settings.verbose)
    for text in proposed.notes:
        render.line(f"note: {text}")
    render.line(_summary(proposed))


def _change_text(change: Change, *, verbose: bool) -> None:
    drift = " (drift: changed by hand in Prefect)" if change.drift else ""
    extra = ": its labels can only be set anew, so its schedules get new ids" if change.action == "recreate" else ""
    render.line(f"{_SIGNS[change.action]} {change.job}  {change.action}{drift}{extra}")
    if change.action != "create" or verbose:
        for item in change.fields:
            render.line(f"    {item.field}: {_field_text(item)}")
    for schedule in change.schedules:
        render.line(f"    schedule {schedule.slug}: {_schedule_text(schedule)}")
    if change.runs_deleted:
        first = change.runs_deleted[0].expected_start
        render.line(
            f"    {counted(len(change.runs_deleted), 'scheduled run')} from {first:%Y-%m-%d %H:%M:%S}Z on "
            + ("will be deleted" if change.action == "delete" else "will be made anew")
        )
    for run in change.runs_kept:
        render.line(f"    run {run.name} ({run.state_name}, due {run.expected_start:%Y-%m-%d %H:%M:%S}Z) stays")


def _field_text(item: FieldChange) -> str:
    before, after = shown(item.field, item.before), shown(item.field, item.after)
    if isinstance(item.before, dict) and isinstance(item.after, dict):
        # Compared as they are, shown masked: a secret that changed has changed.
        keys = sorted({**item.before, **item.after})
        changed = [key for key in keys if item.before.get(key) != item.after.get(key)]
        text = "; ".join(f"{key} {_cut(before.get(key))} -> {_cut(after.get(key))}" for key in changed) or "changed"
    else:
        text = f"{_cut(before)} -> {_cut(after)}"
    return text + (_BY_HAND if item.because == "by hand" else "")


def _schedule_text(item: ScheduleChange) -> str:
    from orchctl.core.schedules import words

    by_hand = _BY_HAND if item.because == "by hand" else ""
    before = words(item.before) if item.before else None
    after = words(item.after.schedule) if item.after else None
    if item.before and item.before.get("parameters"):
        before = f"{before} with parameters {_cut(shown('parameters', item.before['parameters']))}"
    if before and after:
        return f"{before} -> {after}{by_hand}"
    return (f"{after}" if after else f"{before} goes") + by_hand


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else render.to_json(value)
    text = f'"{text}"' if isinstance(value, str) else text
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"


def _summary(proposed: Plan) -> str:
    if proposed.empty:
        return "no changes"
    counts = {action: sum(change.action == action for change in proposed.changes) for action in _SIGNS}
    parts = [f"{number} to {action}" for action, number in counts.items() if number]
    parts += [f"{counted(len(proposed.pools), 'work pool')} to make"] if proposed.pools else []
    parts += [f"{counted(len(proposed.queues), 'queue')} to set"] if proposed.queues else []
    parts += [f"{counted(len(proposed.limits), 'limit')} to set"] if proposed.limits else []
    parts += ["the applied catalog to write"] if proposed.writes_catalog and not parts else []
    parts += [f"{counted(len(proposed.conflicts), 'conflict')}: nothing will be changed"] if proposed.conflicts else []
    return ", ".join(parts)


def synced(done: Synced, settings: Settings) -> None:
    """Say what a sync did."""
    counts = {action: sum(change.action == action for change in done.applied) for action in _SIGNS}
    data = {
        "digest": done.plan.digest,
        "work_pools": list(done.plan.pools),
        "queues": [_queue_json(item) for item in done.plan.queues],
        "limits": [_limit_json(item) for item in done.plan.limits],
        "changes": [_change_json(change) for change in done.applied],
        "notes": list(done.plan.notes),
    }
    past = {"create": "created", "update": "updated", "recreate": "recreated", "delete": "deleted"}

    def text() -> None:
        _beside_text(done.plan)
        for change in done.applied:
            mode = ""
            if change.action == "create":
                mode = ", observing" if done.plan.desired[change.job].job.has_legacy else ", live"
            render.line(f"{_SIGNS[change.action]} {change.job}  {past[change.action]}{mode}")
        for item in done.plan.notes:
            render.line(f"note: {item}")
        said = [f"{number} {past[action]}" for action, number in counts.items() if number]
        beside = (("work pool", done.plan.pools), ("queue", done.plan.queues), ("limit", done.plan.limits))
        said += [f"{counted(len(those), word)} set" for word, those in beside if those]
        render.line(", ".join(said) if said else "no changes")

    render.emit("sync", data, text, settings)
