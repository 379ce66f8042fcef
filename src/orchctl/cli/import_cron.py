"""`orchctl import cron`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import importing
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.core.catalog import Catalog
    from orchctl.core.drafts import Imported


def register(group: typer.Typer) -> None:
    """Add the command to `import`."""
    group.command()(cron)


def cron(
    ctx: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]", help="A crontab, - for stdin; default: your own, from `crontab -l`.", show_default=False
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME", help="Whose crontab; default: yours.", show_default=False),
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Its lines name a user, as those of /etc/crontab and /etc/cron.d.")
    ] = False,
    write: importing.Write = False,
    data_root: importing.DataRoot = None,
    work_pool: importing.WorkPool = "default",
) -> None:
    """Turn the lines of a crontab into jobs. What cannot be carried over exactly is said, line by line.

    Lines that do the same at different times become one job. Prints TOML; with --write it is added to the catalog,
    where nothing else changes.
    """
    from orchctl.services import import_cron as service

    app: App = ctx.obj
    given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if file == "-" else None
    path = None if file in {None, "-"} else str(Path(file or "").absolute())
    wanted = service.Wanted(path=path, given=given, user=user, system=system)

    def find(catalog: Catalog, zone: str) -> Imported:
        return service.cron(app.crontabs, catalog, wanted, host_zone=app.host_zone, default_zone=zone)

    importing.run(app, find, write=write, data_root=data_root, work_pool=work_pool)
