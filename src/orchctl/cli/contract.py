"""`orchctl contract`: what data must look like, and whether a file does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchctl.cli import contract_views
from orchctl.errors import ExitCode
from orchctl.wiring import App

group = typer.Typer(rich_markup_mode=None, help="List data contracts; try one on a file.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="contract")


@group.command("list")
def list_(ctx: typer.Context) -> None:
    """List the contracts of contracts.toml, and the steps that name each. Offline."""
    from orchctl.services import contracts

    app: App = ctx.obj
    contract_views.listed(contracts.listed(app.catalog), app.settings)


@group.command()
def check(
    ctx: typer.Context,
    contract: Annotated[str, typer.Argument(metavar="CONTRACT", help="Its name.", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .parquet, .csv or .jsonl file, or a folder of .parquet files.",
            exists=True,
            show_default=False,
        ),
    ],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="INSTANT", help="The run_as_of_ts that ages count from; default: now."),
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(
            "--snapshot",
            metavar="INSTANT",
            help="When the file's snapshot was taken, for a contract that says how old that may be.",
        ),
    ] = None,
) -> None:
    """Check a file against a contract: every finding at once. Exit code 1 where the contract is broken."""
    from orchctl.services import contracts
    from orchctl.wiring.contracts import check as checker

    app: App = ctx.obj
    checked = contracts.check(
        app.catalog,
        contract,
        file.absolute(),
        as_of=as_of,
        snapshot=snapshot,
        now=app.now(),
        checker=checker,
    )
    contract_views.checked(checked, app.settings)
    if not all(each.holds for each in checked):
        raise typer.Exit(ExitCode.FAILED)
