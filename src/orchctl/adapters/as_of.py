"""The instant of an `as_of` mode for a date: what a command prints, or what a file holds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from orchctl.adapters import accounts
from orchctl.adapters.accounts import Account
from orchctl.core import durations, partition, templates
from orchctl.core.catalog import Job
from orchctl.core.catalog_steps import AsOfMode
from orchctl.core.names import format_instant, nearest, parse_instant
from orchctl.errors import OrchctlError, UsageError

TIMEOUT_S = 30.0
"""Seconds after which a mode's command is killed."""
_SHOWN, _INSTANT = 200, 60


@dataclass(frozen=True)
class AsOf:
    """Answers for one host. `environment` is what a mode's command gets, under the job's own variables."""

    environment: Mapping[str, str]
    timeout_s: float = TIMEOUT_S

    def instant(self, job: Job, mode: str, game_date: date, given: Mapping[str, str]) -> datetime:
        """Return the instant (UTC) that `mode` of the job gives for a date. `given` are partition keys.

        Raises UsageError where the job has no such mode or lacks a partition key, OrchctlError where the command or the
        file gives no instant; the message says which.
        """
        if mode not in job.as_of:
            near = nearest(mode, job.as_of)
            known = f"it has {', '.join(sorted(job.as_of))}" if job.as_of else "see `as_of` in jobs.toml"
            raise UsageError(
                f"{job.name} has no as-of mode {mode!r:.60}", hint=f'did you mean "{near}"?' if near else known
            )
        try:
            keys = partition.keys(job, game_date, given)
        except ValueError as error:
            raise UsageError(str(error), hint="give it with --param KEY=VALUE") from error
        values = {"game_date": game_date.isoformat(), "data_root": job.data_root, **keys}
        asked = _Asked(job, mode, job.as_of[mode], values)
        text = self._printed(asked) if asked.rule.command else self._held(asked)
        try:
            return parse_instant(text) + _shift(asked.rule.shift)
        except (ValueError, OverflowError):
            raise asked.problem(f"it gave {text[:_INSTANT]!r}, not an instant like 2025-12-19T05:00:00Z") from None

    def _printed(self, asked: _Asked) -> str:
        argv = [templates.render(word, asked.values) for word in asked.rule.command]
        return self._answer(asked, argv)

    def _held(self, asked: _Asked) -> str:
        """Return the text of the instant in a file: all of it, or what is under the key."""
        path = templates.render(asked.rule.file or "", asked.values)
        if asked.account is not None:
            # Read as the job's user: what it may not read must not be told through us.
            content = self._answer(asked, ["cat", "--", path])
        else:
            content = _content(asked, path)
        return _found(asked, path, content)

    def _answer(self, asked: _Asked, argv: list[str]) -> str:
        job = asked.job
        own = {key: templates.render(text, asked.values) for key, text in job.env.items()}
        ours = {f"ORCHCTL_{key.upper()}": value for key, value in asked.values.items()}
        inherited = accounts.inherited(self.environment, asked.account)
        try:
            done = self._run(argv, job.working_directory, {**inherited, **own, **ours}, asked.account)
        except subprocess.TimeoutExpired:
            raise asked.problem(f"`{argv[0]}` gave no answer in {durations.human(self.timeout_s)}") from None
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise asked.problem(f"`{argv[0]}` cannot be started in {job.working_directory}: {reason}") from error
        if done.returncode != 0:
            said = _last_line(done.stderr) or _last_line(done.stdout)
            raise asked.problem(f"`{argv[0]}` ended with exit code {done.returncode}" + (f": {said}" if said else ""))
        if not done.stdout.strip():
            raise asked.problem(f"`{argv[0]}` printed nothing")
        return done.stdout.strip()

    def _run(
        self, argv: list[str], cwd: str, env: Mapping[str, str], account: Account | None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises TimeoutExpired when nothing of its session is left."""
        with subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
            **(account.identity if account is not None else {}),
        ) as process:
            try:
                out, said = process.communicate(timeout=self.timeout_s)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(argv, process.returncode, out, said)


@dataclass(frozen=True)
class _Asked:
    job: Job
    mode: str
    rule: AsOfMode
    values: Mapping[str, str]

    @property
    def account(self) -> Account | None:
        """The job's user, None where that is us. Raises OrchctlError."""
        try:
            return accounts.account_of(self.job.user)
        except OrchctlError as error:
            raise self.problem(error.message) from error

    def problem(self, what: str) -> OrchctlError:
        day = self.values["game_date"]
        return OrchctlError(
            f"as-of mode {self.mode} of {self.job.name} has no instant for {day}: {what}",
            hint="give the instant itself with --as-of, or put right `as_of` in jobs.toml",
        )


def _content(asked: _Asked, path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode()
    except FileNotFoundError:
        raise asked.problem(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8"
        raise asked.problem(f"{path} cannot be read: {reason}") from error


def _found(asked: _Asked, path: str, content: str) -> str:
    if asked.rule.key is None:
        return content.strip()
    key = templates.render(asked.rule.key, asked.values)
    found: Any = _parsed(asked, path, content)
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, datetime):
        # TOML has instants of its own; one without a zone would be a guess.
        if found.tzinfo is None:
            raise asked.problem(f"{key} in {path} is {found.isoformat()}, an instant without a zone")
        return format_instant(found.astimezone(UTC))
    if not isinstance(found, str):
        raise asked.problem(
            f"{path} has no {key}" if found is None else f"{key} in {path} is {found!r:.60}, not a text"
        )
    return found.strip()


def _parsed(asked: _Asked, path: str, content: str) -> Any:
    try:
        return tomllib.loads(content) if path.endswith(".toml") else json.loads(content)
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.endswith(".toml") else "JSON"
        raise asked.problem(f"{path} is not {kind}: {str(error).splitlines()[0][:_SHOWN]}") from error


def _shift(text: str | None) -> timedelta:
    if text is None:
        return timedelta()
    seconds = durations.parse(text.removeprefix("-"))
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:_SHOWN] if lines else ""
