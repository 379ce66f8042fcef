"""`orchctl host backup|verify|restore`: archives of this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import backup_views as views
from orchctl.cli import render
from orchctl.errors import GateRefused, UsageError
from orchctl.wiring import App

if TYPE_CHECKING:
    from collections.abc import Callable

database = typer.Typer(rich_markup_mode=None, help="Prefect's database of this host.", no_args_is_help=True)
ARCHIVE = typer.Argument(metavar="ARCHIVE", help="An archive of `orchctl host backup`.")


def register(group: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, verify, restore):
        group.command()(command)
    group.add_typer(database, name="database")


def backup(
    ctx: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Where to put it; default: backups in the state directory."),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, help="Then remove all but the newest N of this host's in there."),
    ] = None,
) -> None:
    """Make an archive of Prefect's database, the state directory, the catalog and the settings, while all runs.

    It holds the settings with their secrets: nobody else may read it (0600).
    """
    from orchctl import wiring
    from orchctl.services import backup as service
    from orchctl.wiring import backup as parts

    app: App = ctx.obj
    made = service.back_up(parts.world(app, wiring.environment(), _say(app)), to, keep)
    views.made(made, app.settings)


def verify(ctx: typer.Context, archive: Annotated[Path | None, ARCHIVE] = None) -> None:
    """Restore an archive on trial: every digest, its database in a server of its own, its counts.

    Without ARCHIVE the newest. Nothing of this host is touched, and the server on trial schedules nothing.
    """
    from orchctl import wiring
    from orchctl.core import backup as rules
    from orchctl.services import restore as service
    from orchctl.wiring import backup as parts

    app: App = ctx.obj
    environment = wiring.environment()
    world, desk = parts.world(app, environment, _say(app)), parts.desk(app, environment)
    found = service.verify(world, desk, _resolved(archive), foreign=rules.TRIAL in environment)
    views.verified(found, app.settings)


def restore(
    ctx: typer.Context,
    archive: Annotated[Path, ARCHIVE],
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="PARTS", help="Some of database,state,catalog; default: all three."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the archive; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put an archive in place of what is there, which stays beside as `…before-<time>`.

    Refused while the server, a worker or a run of this host is going. Killed halfway, run it again.
    """
    from orchctl import wiring
    from orchctl.core import backup as rules
    from orchctl.services import restore as service
    from orchctl.wiring import backup as parts

    app: App = ctx.obj
    try:
        chosen = rules.chosen_parts(only)
    except ValueError as error:
        raise UsageError(f"--only: {error}") from error
    environment, path = wiring.environment(), archive.resolve()
    world, desk = parts.world(app, environment, _say(app)), parts.desk(app, environment)
    target = parts.target(app, environment)
    if dry_run:
        views.would_restore(service.look(world, desk, target, path, chosen), chosen, app.settings)
        return
    if not yes:
        service.look(world, desk, target, path, chosen)  # no question where the answer could not be carried out
    names = ", ".join(chosen)
    render.confirm(
        f"replace {names} of this host by {'that' if len(chosen) == 1 else 'those'} of {path.name}?", yes=yes
    )
    views.restored(service.restore(world, desk, target, path, chosen), app.settings)


@database.command()
def move(ctx: typer.Context) -> None:
    """Refuse to move Prefect's database between SQLite and PostgreSQL, and say what can be done instead."""
    from orchctl import wiring
    from orchctl.wiring import backup as parts

    app: App = ctx.obj
    kind = parts.world(app, wiring.environment(), _say(app)).database().kind
    raise GateRefused(
        f"Prefect has no means to move its database, which is one of {kind} here, to another kind",
        hint="`orchctl host install --database URL`, then `sync` and `alerts apply`, make all but the history anew: "
        "docs/backup.md",
    )


def _resolved(archive: Path | None) -> Path | None:
    """Follow symbolic links that a user names; what an archive is opened as is never one."""
    return None if archive is None else archive.resolve()


def _say(app: App) -> Callable[[str], None]:
    return (lambda _text: None) if app.settings.as_json else (lambda text: render.note(f"  {text}"))
