"""`orchctl watchdog`: one look at this host, and what has to be told of it.

It works where all else does not: without the server, with an invalid catalog, with a full disk. Its time is bounded,
and it keeps nobody from anything: it takes no lock of a job or of this host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchctl.core import deliveries, watch
from orchctl.core.alerts import Alerts, Message
from orchctl.core.catalog import Catalog
from orchctl.core.deliveries import Answer, Delivery, Letter
from orchctl.core.watch import Decided, Looked, Problem, Trouble
from orchctl.core.watch_memory import Memory, Watched, Written
from orchctl.core.watch_unit import TimerState
from orchctl.errors import OrchctlError
from orchctl.services import watch_checks as checks
from orchctl.services import watch_slots
from orchctl.services.ports import Prefect
from orchctl.services.watch_ports import Post, Store, World

WHOLE_S = 45.0
"""How long a look may take in all: the next one begins a minute after it did."""
SENDING_S = 20.0
"""How long messages may take to be sent."""
LEAST_S = 8.0
"""However long the checks took, messages get this long."""
PING_S = 5.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one message."""

    channel: str
    subject: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Look:
    """One look. `unseen` says why an area, or the part of it that a key names, could not be looked at, each of which is
    a problem too; `notes` what else is to be said.

    `decided` is what there was to tell, `sent` what came of it. `waiting` counts the messages that are yet to be
    delivered, those of Prefect's automations too; `blocked`: not all of those could be counted, or sent. `pinged` is
    what the dead-man address answered, None where it was not asked: not all is well, or there is none. `dry`: nothing
    was sent, and nothing is remembered.
    """

    at: datetime
    problems: tuple[Problem, ...]
    unseen: Mapping[str, str]
    decided: Decided
    notes: tuple[str, ...] = ()
    sent: tuple[Sent, ...] = ()
    waiting: int = 0
    pinged: Answer | None = None
    dry: bool = False
    blocked: bool = False

    @property
    def undelivered(self) -> bool:
        """Whether a message was not delivered now."""
        return any(not each.answer.ok for each in self.sent)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the watchdog stands. `looked_at`: its last look (UTC), None: none that is remembered. `open` are the troubles
    by key, `waiting` how many messages are yet to be delivered, `deliveries` how each channel answered last.
    """

    timer: TimerState
    looked_at: datetime | None
    open: Mapping[str, Trouble]
    waiting: int
    deliveries: tuple[Delivery, ...]


@dataclass(slots=True)
class _Seen:
    """What the checks found so far."""

    problems: list[Problem] = field(default_factory=list)
    areas: set[str] = field(default_factory=set)
    unseen: dict[str, str] = field(default_factory=dict)
    slots: Mapping[str, Watched] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def check(self, area: str, find: Callable[[], Iterable[Problem]]) -> None:
        """Make a check; where it cannot be made, say why, and nothing of its area."""
        try:
            found = list(find())
        except Exception as error:  # noqa: BLE001 - one check that breaks must not silence the others
            self.unseen[area] = checks.why(error)
        else:
            self.problems += found
            self.areas.add(area)


def watchdog(world: World, *, dry: bool = False) -> Look:
    """Look at everything, tell what has to be told, try again what could not be delivered, and ping if all is well."""
    begun = world.clock.monotonic()
    memory, forgotten = world.store.memory()
    in_force = world.in_force(memory.digest)
    seen = _look(world, in_force.catalog, in_force.problem, memory)
    if forgotten is not None:
        seen.notes.append(f"what was remembered cannot be believed, and is begun anew: {forgotten}")
    now = world.clock.now()
    # Only trying it tells: before anything is decided, so that it is told as everything else is.
    written = Written() if dry else world.store.remember(memory, now)
    seen.check(checks.STATE, lambda: _unwritten(written, world.state_place))
    seen.check(watch.UNSEEN, lambda: _unseen(seen.unseen, in_force.catalog))
    # What cannot be remembered has no beginning: it could never have lasted long enough to be told.
    problems = seen.problems if written.kept else [replace(each, after_s=0.0) for each in seen.problems]
    looked = Looked(tuple(problems), frozenset(seen.areas), frozenset(seen.unseen))
    decided = watch.decide(
        looked, memory.troubles, memory.well_at, world.alerts, host=world.host, now=now, mask=world.mask
    )
    look = Look(now, looked.problems, seen.unseen, decided, tuple(seen.notes), dry=dry)
    if dry:
        return replace(look, waiting=len(memory.outbox))
    memory = Memory(
        troubles=decided.open,
        well_at=watch.well_now(looked, memory.well_at, now),
        slots=seen.slots,
        outbox=(*memory.outbox, *_letters(world, decided.letters, now)),
        digest=in_force.catalog.digest if in_force.catalog is not None else memory.digest,
    )
    look = _told(world, in_force.name, memory, look, begun)
    return _pinged(world, _rest(world, look, begun))


def _look(world: World, catalog: Catalog | None, problem: str | None, memory: Memory) -> _Seen:
    settings, clock = world.alerts.watchdog, world.clock
    seen = _Seen(slots=memory.slots)
    full = {key for key, trouble in memory.troubles.items() if trouble.over is None}
    seen.check(checks.CATALOG, lambda: checks.files(problem, world.alerts_problem))
    seen.check(checks.DISK, lambda: checks.disks(world, catalog, full))
    seen.check(checks.HANDOVER, lambda: checks.handovers(world.handovers, catalog, settings))
    seen.check(checks.BACKUPS, lambda: checks.backups(world.backup(), clock.now()))
    prefect = _connected(world, seen)
    if prefect is not None:
        seen.check(checks.SERVER, lambda: checks.server(world, prefect))
    answers = prefect is not None and not any(each.area == checks.SERVER for each in seen.problems)
    if catalog is None:
        return seen
    live, broken = checks.live_jobs(catalog, world.owners)
    seen.check(checks.OWNER, lambda: broken)
    if prefect is not None and answers:
        seen.check(checks.WORKER, lambda: checks.workers(prefect, catalog, settings, clock))
        seen.check(checks.AHEAD, lambda: checks.ahead(prefect, catalog, live, clock))

    def missed() -> Iterable[Problem]:
        found = watch_slots.look(world, catalog, live, memory.slots)
        seen.slots = found.watched
        seen.unseen |= {f"{checks.MISSED}:{job}": why for job, why in found.unseen.items()}
        return found.problems

    seen.check(checks.MISSED, missed)
    return seen


def _unseen(unseen: Mapping[str, str], catalog: Catalog | None) -> Iterator[Problem]:
    """Yield what could not be looked at: a watchdog that cannot see must not pass for one that sees nothing wrong."""
    for key, why in unseen.items():
        area = watch.area_of(key)
        job = catalog.jobs.get(key.partition(":")[2]) if catalog is not None else None
        name, tags = (job.name, job.tags) if job is not None else (None, ())
        yield watch.unseen(key, checks.EVENTS[area], why, job=name, tags=tags)


def _unwritten(written: Written, place: str) -> Iterator[Problem]:
    if written.problem is not None:
        said = f"the watchdog cannot write down what it tells{', and may tell it again' if not written.kept else ''}"
        about = f"{place} cannot be written"
        yield Problem(checks.STATE, "disk_full", f"{said}: {written.problem}", about=about, command=f"df -h {place}")


def _connected(world: World, seen: _Seen) -> Prefect | None:
    """Return a client of the server; where there can be none, that is why the server counts as gone."""
    try:
        return world.prefect(checks.PATIENCE_S)
    except OrchctlError as error:
        gone = Problem(checks.SERVER, "server_gone", error.message, about=world.api_url, command="orchctl doctor")
        seen.check(checks.SERVER, lambda: [gone])
        return None


def _letters(world: World, messages: Mapping[str, tuple[Message, ...]], now: datetime) -> Iterator[Letter]:
    for channel, some in messages.items():
        for message in some:
            yield Letter(world.new_id(), channel, message, now, now)


def _told(world: World, catalog: str, memory: Memory, look: Look, begun: float) -> Look:
    """Send what waits. What is to be told is remembered before it is sent: a kill in between sends it twice, not never.

    Where nothing can be remembered it is sent all the same.
    """
    now, alerts = look.at, world.alerts
    memory = replace(memory, outbox=deliveries.kept(memory.outbox, alerts, now))
    world.store.remember(memory, now)
    going = deliveries.to_send(memory.outbox, now)
    if not going:
        return replace(look, waiting=len(memory.outbox))
    within_s = min(SENDING_S, max(LEAST_S, _left(world, begun)))
    found = world.post.send_all(going, alerts.channels, within_s=within_s)
    sent, left = list[Sent](), {letter.id: letter for letter in memory.outbox}
    for name, letters in going.items():
        for letter, answer in zip(letters, found[name], strict=True):
            sent.append(Sent(name, letter.message.subject, answer))
            del left[letter.id]
            rest = deliveries.after(letter, answer, world.clock.now())
            left |= {rest.id: rest} if rest is not None else {}
    outbox = tuple(sorted(left.values(), key=lambda each: each.queued))
    world.store.remember(replace(memory, outbox=outbox), world.clock.now())
    notes = list(look.notes)
    for name in going:
        said = next((each for each in found[name] if not each.ok), found[name][-1])
        waiting = sum(letter.channel == name for letter in outbox)
        unnoted = world.store.note(catalog, name, said, world.clock.now(), waiting=waiting)
        notes += [f"what {name} answered cannot be written down: {unnoted}"] if unnoted is not None else []
    return replace(look, sent=tuple(sent), waiting=len(outbox), notes=tuple(notes))


def _rest(world: World, look: Look, begun: float) -> Look:
    """Use what is left of the time for what others could not deliver, and count what of that still waits."""
    found = world.others(lambda: _left(world, begun))
    notes = [*look.notes, *(f"what waits for Prefect's alerts was not sent: {each}" for each in found.problems)]
    if found.sent:
        were = "was" if found.sent == 1 else "were"
        notes.append(f"{found.sent} of Prefect's alerts that had to wait {were} delivered")
    return replace(look, waiting=look.waiting + found.waiting, notes=tuple(notes), blocked=bool(found.problems))


def _left(world: World, begun: float) -> float:
    """Return how many seconds of a look's time are left, but for those of the ping."""
    return WHOLE_S - PING_S - (world.clock.monotonic() - begun)


def _pinged(world: World, look: Look) -> Look:
    """Ping the dead-man address where nothing is wrong, all could be looked at, and no message waits."""
    url = world.alerts.watchdog.dead_man
    if url is None or look.problems or look.waiting or look.blocked or look.undelivered:
        return look
    return replace(look, pinged=world.post.ping(url, within_s=PING_S))


@dataclass(frozen=True, slots=True)
class Sending:
    """What a test of channels works with; as in `World`. `catalog` is its name."""

    catalog: str
    alerts: Alerts
    post: Post
    store: Store
    host: str
    new_id: Callable[[], str]


def send_test(world: Sending, names: Iterable[str], *, at: datetime) -> tuple[Sent, ...]:
    """Send a message through each of these channels, and return what they answered; nothing of it waits for later."""
    message = Message("test", at, world.host, command="orchctl alerts list")
    letters = {name: (Letter(world.new_id(), name, message, at, at),) for name in names}
    found = world.post.send_all(letters, world.alerts.channels, within_s=SENDING_S)
    waiting = Counter(letter.channel for letter in world.store.memory()[0].outbox)
    for name, answers in found.items():
        # What never came to be sent says nothing of the channel: the server and the watchdog may well have its secret.
        if answers[0].attempts:
            world.store.note(world.catalog, name, answers[0], at, waiting=waiting[name])
    return tuple(Sent(name, message.subject, found[name][0]) for name in letters)
