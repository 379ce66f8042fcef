"""`orchctl host`: the Prefect server and the workers of this host, installed as units or in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.cli import host_unit, host_views, render, run_views
from orchctl.errors import ExitCode, GateRefused, Interrupted, UsageError
from orchctl.wiring import App

if TYPE_CHECKING:
    from orchctl.core.installation import Installation
    from orchctl.services.host_install_plan import Plan
    from orchctl.services.host_install_ports import Asked, Host
    from orchctl.services.stack import Status

group = typer.Typer(rich_markup_mode=None, help="Prefect's server and workers on this host.", no_args_is_help=True)
_PARTS = ("server", "worker")


def register(app: typer.Typer) -> None:
    """Add the command and its subcommands."""
    host_unit.register(group)
    app.add_typer(group, name="host")


@group.command()
def up(
    ctx: typer.Context,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Port of the server on 127.0.0.1; 0 takes a free one."),
    ] = 4200,
) -> None:
    """Start server and worker where they are not running, and wait until runs are really scheduled.

    What `host install` installed, where it did; else processes in the background. Where --api-url or PREFECT_API_URL
    names a server, only the worker is started, for that one.
    """
    from orchctl.wiring import backup

    app: App = ctx.obj
    try:
        with app.exclusive("host up"):
            backup.none_interrupted(app)
            status = _up_installed(app) if app.installation is not None else _up_in_background(app, port)
    except KeyboardInterrupt as interruption:
        hint = "`orchctl host up` goes on with it, `orchctl host status` shows it, `orchctl host down` stops it"
        raise Interrupted("interrupted; what was started is left running", hint=hint) from interruption
    run_views.stack(status, app.settings, command="host up")


def _up_installed(app: App) -> Status:
    from orchctl.services import host_install
    from orchctl.wiring import host as wiring

    its = wiring.installed(app)
    host = wiring.host(app, its.manager)
    return host_install.parts(host_install.up(host, its, wiring.clock(app), render.note), host.stack(its))


def _up_in_background(app: App, port: int) -> Status:
    from orchctl.services import stack
    from orchctl.wiring import host as wiring

    named = app.settings.api_url
    return stack.up(
        app.stack,
        app.connect,
        app.worker_places,
        port=port,
        external_url=named if named is not None and named != app.stack.api_url() else None,
        clock=wiring.clock(app),
        say=render.note,
        before_worker=lambda pool: wiring.put_back(app, pool, stopped=True),
    )


@group.command()
def down(ctx: typer.Context) -> None:
    """Stop worker and server. What they run is stopped with them. Installed ones start again at the next boot."""
    from orchctl.services import stack
    from orchctl.wiring import host as wiring

    app: App = ctx.obj
    with app.exclusive("host down"):
        its = app.installation
        host = app.stack if its is None else wiring.unit_stack(app, its)
        stopped = stack.down(host, wiring.clock(app), render.note)
    run_views.stack_down(stopped, app.settings)


@group.command()
def status(ctx: typer.Context) -> None:
    """Show whether server and worker run and answer. Exit code 1 where they do not."""
    from orchctl.services import host_install, stack
    from orchctl.wiring import host as wiring
    from orchctl.wiring import upgrade
    from orchctl.wiring.backup import unfinished_restore

    app: App = ctx.obj
    its = app.installation
    units = wiring.unit_stack(app, its) if its is not None else None
    pools = app.pools if its is None else tuple(its.pools)
    found = stack.status(units or app.stack, lambda url: app.connect(url, attempts=1), app.api_url, pools)
    found = found if units is None else host_install.parts(found, units)
    run_views.stack(found, app.settings, command="host status")
    if (archive := unfinished_restore(app)) is not None:
        render.note(f"a restore of {archive} was interrupted: `orchctl host restore {archive}` goes on with it")
    if (unfinished := upgrade.unfinished(app)) is not None:
        render.note(f"{unfinished}: `orchctl host upgrade` finishes it, or puts it back")
    if not found.ok:
        if archive is None and unfinished is None:
            render.note("hint: `orchctl host up` starts what does not run; `orchctl host logs` and doctor say why")
        raise typer.Exit(ExitCode.FAILED)


@group.command()
def restart(
    ctx: typer.Context,
    part: Annotated[str | None, typer.Argument(metavar="[server|worker]", help="Only this part.")] = None,
) -> None:
    """Stop what is installed and start it again, and wait until it works. Runs that are at work go on."""
    from orchctl.services import host_install
    from orchctl.wiring import backup
    from orchctl.wiring import host as wiring

    render.check_choice("restart", part, _PARTS)
    app: App = ctx.obj
    with app.exclusive("host restart"):
        its = app.installation
        if its is None:
            raise GateRefused(
                "nothing is installed here", hint="for a server in the background: orchctl host down, then up"
            )
        backup.none_interrupted(app)
        host = wiring.host(app, its.manager)
        found = host_install.restart(host, its, part, wiring.clock(app), render.note)
    run_views.stack(host_install.parts(found, host.stack(its)), app.settings, command="host restart")


@group.command()
def logs(
    ctx: typer.Context,
    part: Annotated[str | None, typer.Argument(metavar="[server|worker]", help="Only this part.")] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many lines to begin with.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what server and worker said: from the journal where they are installed, else from their files."""
    from orchctl.core.mask import Masker
    from orchctl.wiring import host as wiring

    render.check_choice("logs", part, _PARTS)
    app: App = ctx.obj
    if app.settings.as_json:
        raise UsageError("host logs is a stream of text", hint="leave --json out")
    its = app.installation
    host = app.stack if its is None else wiring.unit_stack(app, its)
    names = [name for name in host.names() if part is None or name.startswith(part)]
    if not names:
        render.note(f"no {part or 'server or worker'} was started on this host: `orchctl host up` does")
        return
    masker = Masker.of(wiring.secrets_of(app))
    render.raw(masker.mask_bytes(line) for line in host.logs(names, last=lines, follow=follow))


@group.command()
def install(  # noqa: PLR0917 (options, by name)
    ctx: typer.Context,
    scope: Annotated[
        str | None,
        typer.Option("--scope", metavar="user|system", help="Whose units: system (the default as root) or user."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Who runs server and jobs; under sudo, who called it.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port of the server on 127.0.0.1; 0 takes a free one. [4200]"),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option("--database", metavar="sqlite|URL", help="sqlite, or postgresql://USER@HOST/DB. [sqlite]"),
    ] = None,
    database_file: Annotated[
        Path | None,
        typer.Option(
            "--database-file",
            metavar="FILE",
            help="A file, mode 600, with the URL and its password [env: ORCHCTL_DATABASE_URL].",
        ),
    ] = None,
    server: Annotated[
        bool | None,
        typer.Option("--server/--no-server", help="Without: only workers, for the server that --api-url names."),
    ] = None,
    pools: Annotated[
        list[str] | None,
        typer.Option("--pool", metavar="POOL", help="A work pool that this host serves; repeatable. [all]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show; exit 3 if something would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Install server and workers as units of systemd, start them, and wait until runs are really scheduled.

    Shows each file before it is changed. Repeatable: a second time changes nothing, and a changed option restarts only
    what it concerns. Afterwards orchctl finds server and credentials by itself.
    """
    from orchctl.services import host_install_plan
    from orchctl.wiring import host as wiring
    from orchctl.wiring.acting import acting

    render.check_choice("--scope", scope, ("user", "system"))
    app = acting(ctx.obj, user)
    words = wiring.Words(scope, user, port, database, database_file, server, tuple(pools or ()))
    asked = wiring.asked(app, words)
    host = wiring.host(app, wiring.manager_of(asked))
    if dry_run:
        planned = host_install_plan.plan(host, asked)
        host_install_plan.reachable(host, planned)
        host_views.planned(planned, app.settings)
        raise typer.Exit(ExitCode.DONE if planned.is_empty else ExitCode.CHANGES)
    _install(app, host, asked, yes=yes)


def _install(app: App, host: Host, asked: Asked, *, yes: bool) -> None:
    from orchctl.services import host_install
    from orchctl.wiring import host as wiring

    def ask(planned: Plan) -> None:
        host_views.before(planned)
        render.confirm("Do this?", yes=yes)

    try:
        planned, found = host_install.install(
            host, asked, ask=ask, alone=lambda: _alone_and_whole(app), clock=wiring.clock(app), say=render.note
        )
    except KeyboardInterrupt as interruption:
        hint = "`orchctl host install` goes on with it, `orchctl host uninstall` takes it back"
        raise Interrupted("interrupted; what was done stays", hint=hint) from interruption
    if found is None:
        host_views.planned(planned, app.settings)
    else:
        host_views.installed(planned, host_install.parts(found, host.stack(planned.after)), app.settings)


@contextmanager
def _alone_and_whole(app: App) -> Iterator[None]:
    """Hold the lock of the host. Raises GateRefused where a restore or an upgrade is unfinished."""
    from orchctl.wiring import backup, upgrade

    with app.exclusive("host install"):
        backup.none_interrupted(app)
        upgrade.none_unfinished(app)
        yield


@group.command()
def uninstall(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop what `host install` installed, and take back all that it added. The database stays."""
    from orchctl.services import host_uninstall
    from orchctl.wiring import host as wiring
    from orchctl.wiring import upgrade

    app: App = ctx.obj
    upgrade.none_unfinished(app)
    its = app.installation
    if its is not None:
        _say_what_goes(its)
        render.confirm("Take it back?", yes=yes)
    with app.exclusive("host uninstall"):
        upgrade.none_unfinished(app)
        host = wiring.host(app, wiring.manager_or_own(its))
        done = host_uninstall.uninstall(host, wiring.clock(app), render.note)
    host_views.uninstalled(done, app.settings)


def _say_what_goes(its: Installation) -> None:
    for path in (*its.units, its.settings):
        render.note(f"- {path}")
    render.note("runs that are at work end with their worker")
