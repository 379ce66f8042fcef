"""The command line's root: global options, one place for errors, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import orchctl
from orchctl import wiring
from orchctl.cli import (
    alerts,
    alerts_test,
    audit,
    backfill,
    catalog,
    completions,
    contract,
    demo,
    doctor,
    handover,
    host,
    host_backup,
    host_prune,
    host_upgrade,
    import_cron,
    importing,
    legacy,
    publish,
    render,
    run,
    runs,
    schedule,
    status,
    sync,
    watchdog,
)
from orchctl.errors import ExitCode, Interrupted, OrchctlError
from orchctl.wiring.acting import acting

# Options that mean the same everywhere; `main` moves them to the front, so that they may stand anywhere.
_GLOBAL_FLAGS = frozenset({"--json", "--no-color", "--verbose"})
_GLOBAL_VALUES = frozenset({"--config", "--state-dir", "--api-url"})
_HELP = "orchctl.help"


class Root(TyperGroup):
    """Runs a command and turns every error into one message and one exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember whether only help is asked for."""
        ctx.meta[_HELP] = not {"-h", "--help"}.isdisjoint(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an OrchctlError or Ctrl-C ends the process with its exit code."""
        try:
            return super().invoke(ctx)
        except OrchctlError as error:
            raise self._said(ctx, error) from error
        except KeyboardInterrupt as interruption:
            raise self._said(ctx, Interrupted("interrupted")) from interruption
        except BrokenPipeError as gone:
            # Whoever read our output has left (`| head`): nothing to say, and nobody to say it to.
            render.close_stdout()
            raise typer.Exit(ExitCode.FAILED) from gone

    @staticmethod
    def _said(ctx: Any, error: OrchctlError) -> typer.Exit:
        app = ctx.obj
        render.error(error, command=ctx.invoked_subcommand or "orchctl", settings=app.settings if app else None)
        return typer.Exit(error.exit_code)


app = typer.Typer(
    cls=Root,
    name="orchctl",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Global options may stand anywhere on the line. Exit codes: docs/exit-codes.md.",
)
catalog.register(app)
sync.register(app)
status.register(app)
handover.register(app)
run.register(app)
backfill.register(app)
runs.register(app)
audit.register(runs.group)
publish.register(app)
contract.register(app)
alerts.register(app)
alerts_test.register(alerts.group)
host.register(app)
host_backup.register(host.group)
host_prune.register(host.group)
host_upgrade.register(host.group)
importing.register(app)
legacy.register(app)
import_cron.register(importing.group)
schedule.register(app)
completions.register(app)
watchdog.register(app)
demo.register(app)
doctor.register(app)


def _version(value: bool) -> None:
    if value:
        render.line(f"orchctl {orchctl.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="DIR", help="Folder of jobs.toml and schedules.toml [env: ORCHCTL_CONFIG]."),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir", metavar="DIR", help="What orchctl remembers of this host [env: ORCHCTL_STATE_DIR]."
        ),
    ] = None,
    api_url: Annotated[
        str | None, typer.Option("--api-url", metavar="URL", help="The Prefect API [env: PREFECT_API_URL].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour [env: NO_COLOR].")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more; tracebacks of unexpected errors.")] = False,
    version: Annotated[  # noqa: ARG001 (eager: handled by its callback)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Move scheduled jobs from systemd timers and cron to a self-hosted Prefect server."""
    environment = wiring.environment()
    settings = wiring.Settings.of(
        environment,
        config=config,
        state_dir=state_dir,
        api_url=api_url,
        as_json=as_json,
        no_color=no_color,
        verbose=verbose,
    )
    ctx.obj = acting(wiring.App(settings, environment))
    if not ctx.meta[_HELP]:
        handover.unfinished_note(ctx.obj, ctx.invoked_subcommand or "")


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move global options before the command, so that `orchctl runs --json` and `orchctl --json runs` are one."""
    front: list[str] = []
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        name, equals, _ = word.partition("=")
        if word == "--":
            return [*front, *rest, word, *queue]
        if word in _GLOBAL_FLAGS or (equals and name in _GLOBAL_VALUES):
            front.append(word)
        elif word in _GLOBAL_VALUES:
            front.append(word)
            front.extend(queue[:1])
            del queue[:1]
        else:
            rest.append(word)
    return [*front, *rest]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    words = hoist(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=words, prog_name="orchctl")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told without secrets
        import traceback

        from orchctl.core.mask import Masker

        mask = Masker.of(wiring.environment()).mask
        if "--verbose" in words:
            for line in mask(traceback.format_exc()).splitlines():
                render.note(line)
        unexpected = OrchctlError(
            mask(f"unexpected {type(error).__name__}: {error}"),
            hint="this is a bug in orchctl; --verbose shows where",
        )
        render.error(unexpected, command="orchctl", settings=None, as_json="--json" in words)
        sys.exit(ExitCode.FAILED)
