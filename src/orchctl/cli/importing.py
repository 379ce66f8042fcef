"""`orchctl import`: what starts jobs on this host becomes entries of the catalog."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import import_views, render
from orchctl.errors import ExitCode
from orchctl.wiring import App

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchctl.core.catalog import Catalog
    from orchctl.core.drafts import Imported

group = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Turn what starts jobs today into entries of the catalog.",
)
SCOPES = ("system", "user", "all")
Write = Annotated[bool, typer.Option("--write", help="Add to the catalog's files, instead of printing what to add.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="For a new catalog: root of its data; default: orchctl in $XDG_DATA_HOME.",
        show_default=False,
    ),
]
WorkPool = Annotated[str, typer.Option("--work-pool", metavar="NAME", help="For a new catalog: Prefect's work pool.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="import")


@group.command()
def systemd(
    ctx: typer.Context,
    units: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[UNIT]...", help="Timers, or services; default: all timers that are on.", show_default=False
        ),
    ] = None,
    scope: Annotated[str, typer.Option("--scope", metavar="system|user|all", help="Whose timers.")] = "all",
    write: Write = False,
    data_root: DataRoot = None,
    work_pool: WorkPool = "default",
) -> None:
    """Turn systemd timers and their services into jobs. What cannot be carried over exactly is said, unit by unit.

    Prints TOML; with --write it is added to the catalog, where nothing else changes.
    """
    from orchctl.services import importing as service

    render.check_choice("--scope", scope, SCOPES)
    app: App = ctx.obj

    def find(catalog: Catalog, zone: str) -> Imported:
        return service.systemd(
            app.systemd,
            app.unit_details,
            catalog,
            scope=scope,
            names=units or (),
            host_zone=app.host_zone,
            default_zone=zone,
        )

    run(app, find, write=write, data_root=data_root, work_pool=work_pool)


def run(
    app: App,
    find: Callable[[Catalog, str], Imported],
    *,
    write: bool,
    data_root: Path | None,
    work_pool: str,
) -> None:
    """Import what `find` finds, given the catalog that is there and the zone of its schedules; print or write it."""
    from orchctl.services import importing as service

    with app.exclusive("import") if write else contextlib.nullcontext():
        before = app.catalog_texts
        names = (service.JOBS, service.SCHEDULES, service.CONTRACTS)
        jobs_file, schedules_file, contracts_file = (str(app.settings.config_dir / name) for name in names)
        catalog = service.existing(before, files=(jobs_file, schedules_file, contracts_file))
        zone = before.timezone or app.host_zone
        root = str((data_root or app.default_data_root).absolute())
        addition = service.add(before, find(catalog, zone), zone=zone, data_root=root, work_pool=work_pool)
        adds = write and addition.imported.jobs
        written = service.write(addition, before, app.write_catalog) if adds else ()
    import_views.imported(addition, before, app.settings, written=written)
    refused, jobs = addition.imported.refused, addition.imported.jobs
    if refused:
        raise typer.Exit(ExitCode.PARTIAL if jobs else ExitCode.FAILED)
