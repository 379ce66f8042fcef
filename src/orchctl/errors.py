"""Every error that orchctl raises on purpose, and every exit code.

Law of this layer: it imports nothing of the project.

    OrchctlError                 1   something failed; the message says what
    ├── UsageError               2   the command line was wrong
    ├── PartialFailure           4   some of many failed
    ├── GateRefused              5   a gate does not hold
    ├── CatalogInvalid          10   carries every problem found
    │   └── CatalogNotBelieved  12   somebody else could have written it
    ├── PublishError             1   files could not be promoted, or a pointer not moved; nothing half was left
    │   └── PublishNotAllowed   12   the operating system refuses it to this user
    ├── Locked                  11   another orchctl holds the lock
    ├── NotAllowed              12   files, systemd or the API refuse this user
    │   ├── PrefectUnauthorized
    │   └── NotBelieved         12   somebody else could have written what a decision depends on
    ├── PrefectApiError          1   the server answered with an error
    │   ├── PrefectUnreachable  13   it did not answer, or not with an answer of Prefect's
    │   └── PrefectRejected      1   it refused this request (a 4xx); `status` holds which
    ├── SystemdUnavailable       1   no systemd answers
    ├── ContractsUnavailable     1   polars or pandera, which check data contracts, is not installed
    ├── BackupBroken             1   an archive is torn, altered, foreign, or does not hold what it says
    ├── StateBroken             14   a file under the state directory cannot be believed
    ├── HandoverUnfinished      14   a handover stopped halfway; `orchctl recover` goes on
    └── Interrupted            130   Ctrl-C

A message is one sentence without a full stop; `hint` says what to do next. Neither ever holds a secret:
whoever builds a message from a URL passes it through `core.mask` first.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol


class ExitCode(IntEnum):
    """What the process exits with. An unknown code means failure."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CHANGES = 3
    PARTIAL = 4
    REFUSED = 5
    CATALOG = 10
    LOCKED = 11
    NOT_ALLOWED = 12
    PREFECT = 13
    BROKEN_STATE = 14
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed; the message says what",
    ExitCode.USAGE: "wrong usage: an unknown command, option, job or run, or a value that cannot be read",
    ExitCode.CHANGES: (
        "changes pending, drift or a difference (`plan`, `sync --dry-run`, `status --check`, `schedule compare`, "
        "`runs audit`; `--dry-run` of `host install`, `host upgrade`, `host prune` and `alerts apply`), or what "
        "`doctor` or `watchdog` finds"
    ),
    ExitCode.PARTIAL: (
        "some of many failed; the message says what was done (`import`: some were refused; `schedule compare`: a "
        "trigger could not be read; `alerts test`: a message did not arrive)"
    ),
    ExitCode.REFUSED: (
        "refused: a gate does not hold, a name is taken, or a question could not be asked, or was answered with no"
    ),
    ExitCode.CATALOG: "the catalog is invalid; every problem is listed",
    ExitCode.LOCKED: "another orchctl holds the lock (its pid, command and start are named)",
    ExitCode.NOT_ALLOWED: (
        "not allowed: files, systemd, or the API's authentication; or the catalog, or manifests that a decision "
        "depends on, could have been written by somebody else"
    ),
    ExitCode.PREFECT: "the Prefect API cannot be reached, or what answers is not one",
    ExitCode.BROKEN_STATE: "a file under the state directory cannot be believed, or a handover is unfinished",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}
"""What each exit code means; `docs/exit-codes.md` is made from this."""


class OrchctlError(Exception):
    """The root of the tree.

    `hint` is what to do next, or None. `code` is a stable word for scripts (the `code` of the JSON envelope).
    """

    exit_code: ExitCode = ExitCode.FAILED
    code: str = "failed"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def summary(self) -> str:
        """The message, for where one line is all there is."""
        return self.message


class UsageError(OrchctlError):
    """The command line was wrong in a way the parser cannot see."""

    exit_code = ExitCode.USAGE
    code = "usage"


class PartialFailure(OrchctlError):
    """Some of many failed; the message says what was done and what was not."""

    exit_code = ExitCode.PARTIAL
    code = "partial"


class GateRefused(OrchctlError):
    """A gate does not hold, or a prompt could not be asked."""

    exit_code = ExitCode.REFUSED
    code = "refused"


class ProblemLike(Protocol):
    """`core.problems.Problem`, which this layer cannot import."""

    @property
    def file(self) -> str: ...  # noqa: D102
    @property
    def line(self) -> int | None: ...  # noqa: D102
    @property
    def table(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str | None: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102
    @property
    def where(self) -> str: ...  # noqa: D102
    @property
    def place(self) -> str: ...  # noqa: D102
    @property
    def hint(self) -> str | None: ...  # noqa: D102


class CatalogInvalid(OrchctlError):
    """The catalog has problems; `problems` holds all of them, in file order."""

    exit_code = ExitCode.CATALOG
    code = "catalog"

    def __init__(self, message: str, *, problems: tuple[ProblemLike, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems

    @property
    def summary(self) -> str:
        """The message with the first problem."""
        first = next(iter(self.problems), None)
        return self.message if first is None else f"{self.message}: {first.where}: {first.message}"


class CatalogNotBelieved(CatalogInvalid):
    """Somebody else could have written a file of the catalog; the message says which and who, `hint` what mends it."""

    exit_code = ExitCode.NOT_ALLOWED
    code = "catalog-not-believed"


class PublishError(OrchctlError):
    """Files could not be promoted, or a pointer could not be moved or read. What was there before is as it was."""

    code = "publish"


class PublishNotAllowed(PublishError):
    """The operating system refuses this user what publishing needs."""

    exit_code = ExitCode.NOT_ALLOWED
    code = "publish-not-allowed"


class Locked(OrchctlError):
    """Another process holds the lock; the message names its pid, command and start."""

    exit_code = ExitCode.LOCKED
    code = "locked"


class NotAllowed(OrchctlError):
    """The operating system or the API refuses this user."""

    exit_code = ExitCode.NOT_ALLOWED
    code = "not-allowed"


class PrefectUnauthorized(NotAllowed):
    """The Prefect API answered 401 or 403."""

    code = "prefect-unauthorized"


class NotBelieved(NotAllowed):
    """Somebody else could have written what a decision depends on; the message says who, `hint` what mends it."""

    code = "not-believed"


class PrefectApiError(OrchctlError):
    """The Prefect server answered with an error (a 5xx that stayed)."""

    code = "prefect-error"


class PrefectUnreachable(PrefectApiError):
    """No answer, or one that is not Prefect's: refused, timed out, torn, not JSON."""

    exit_code = ExitCode.PREFECT
    code = "prefect-unreachable"


class PrefectRejected(PrefectApiError):
    """The server refused this request. `status` is the HTTP status (400 to 499)."""

    code = "prefect-rejected"

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class SystemdUnavailable(OrchctlError):
    """No systemd answers. `absent`: certainly none runs (no service of it can be active), not merely no answer."""

    code = "systemd-unavailable"

    def __init__(self, message: str, *, hint: str | None = None, absent: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.absent = absent


class ContractsUnavailable(OrchctlError):
    """What checks data contracts is not installed; `hint` says how it is."""

    code = "contracts-unavailable"


class BackupBroken(OrchctlError):
    """An archive is torn, altered, foreign, or does not hold what its manifest says. Nothing of it was used."""

    code = "backup-broken"


class StateBroken(OrchctlError):
    """A file under the state directory is missing, torn, foreign or not ours to believe."""

    exit_code = ExitCode.BROKEN_STATE
    code = "broken-state"


class HandoverUnfinished(OrchctlError):
    """A handover stopped where it can be gone on with, and not by itself; the message says how far it came."""

    exit_code = ExitCode.BROKEN_STATE
    code = "handover-unfinished"


class Interrupted(OrchctlError):
    """The operator pressed Ctrl-C; the message says what goes on without us."""

    exit_code = ExitCode.INTERRUPTED
    code = "interrupted"
