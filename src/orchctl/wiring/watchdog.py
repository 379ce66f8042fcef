"""What the watchdog works with."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl.adapters import backups, doctor_facts, env_files, host_facts, host_lock, toml_files
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.installed import Installed
from orchctl.adapters.prefect_parse import bare_url, parse_address
from orchctl.adapters.prefect_rule import PrefectRule
from orchctl.adapters.senders import Senders
from orchctl.adapters.watch_timer import WatchTimer
from orchctl.core import catalog_alerts
from orchctl.core.alerts import Alerts, Channel
from orchctl.core.deliveries import Answer, Letter
from orchctl.core.mask import Masker
from orchctl.core.watch_unit import Watch
from orchctl.errors import CatalogInvalid, Locked, NotAllowed, OrchctlError, StateBroken, UsageError
from orchctl.services import alert_delivery
from orchctl.services.alert_delivery import Round
from orchctl.services.watch_ports import Clock, InForce, World
from orchctl.services.watchdog import Sending, Standing

if TYPE_CHECKING:
    from orchctl.core.catalog import Catalog
    from orchctl.wiring import App

RULE_S = 15.0
"""How long Prefect's rules may take to give their instants. Where that is too short, the next look asks again."""


@contextlib.contextmanager
def alone(app: App) -> Iterator[None]:
    """Hold the lock of this host's watchdogs. Raises Locked where another looks just now.

    Where nothing can be written (a full disk) it goes on without: of its own unit systemd runs one at a time.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(host_lock.held(app.settings.state_dir, "watchdog", lock="watchdog"))
        except Locked:
            raise
        except OrchctlError:
            pass
        yield


def sending(app: App, environment: Mapping[str, str]) -> Sending:
    """Return what a test of channels works with. Raises CatalogInvalid, NotAllowed."""
    directory = app.settings.config_dir
    return Sending(
        catalog=in_force(app, None).name,
        alerts=toml_files.alerts(directory, app.catalog_if_valid, trust=app.trusted) or Alerts(),
        post=Senders(by_hand(app, environment), trust=app.trusted),
        store=Deliveries(app.settings.state_dir),
        host=host_facts.here().hostname,
        new_id=lambda: uuid.uuid4().hex,
    )


def status(app: App) -> Standing:
    """Return how the watchdog stands. Raises StateBroken."""
    store = Deliveries(app.settings.state_dir)
    memory, broken = store.memory()
    if broken is not None:
        raise StateBroken(broken, hint="look at it, and remove it: the watchdog begins anew")
    return Standing(
        timer=timer(app).state(),
        looked_at=AlertBoxes(app.settings.state_dir).watchdog_looked(),
        open={key: each for key, each in memory.troubles.items() if each.over is None},
        waiting=len(memory.outbox),
        deliveries=tuple(store.last(in_force(app, memory.digest).name).values()),
    )


def world(app: App, environment: Mapping[str, str], *, dry: bool = False) -> World:
    """Return it. Nothing is built that needs the server, or a catalog that is valid. `dry`: nothing is written."""
    settings = app.settings
    store = Deliveries(settings.state_dir, _spare(environment))
    alerts, problem = alerts_of(app, store, keep=not dry)
    installed = app.installation_if_believed
    home = installed.home if installed is not None else str(settings.state_dir)
    known = by_hand(app, environment)
    senders = Senders(known, trust=app.trusted)
    return World(
        alerts=alerts,
        alerts_problem=problem,
        state_place=str(settings.state_dir),
        in_force=lambda digest: in_force(app, digest),
        prefect=lambda patience: app.connect(app.api_url, attempts=1, patience=patience),
        api_url=bare_url(app.api_url),
        owners=app.owners,
        handovers=app.handovers,
        claims=app.claims,
        tree=app.tree,
        rule=PrefectRule(environment, timeout_s=RULE_S),
        disk=doctor_facts.disk,
        places=lambda catalog: _places(str(settings.state_dir), home, catalog),
        backup=lambda: backups.last(settings.state_dir).known,
        post=senders,
        others=lambda left: _deliver(app, senders, store, left),
        store=store,
        clock=Clock(time.monotonic, time.sleep, app.now, lambda: time.clock_gettime(time.CLOCK_BOOTTIME)),
        host=host_facts.here().hostname,
        mask=Masker.of(known).mask,
        new_id=lambda: uuid.uuid4().hex,
    )


def by_hand(app: App, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, and below it what server and watchdog have besides, as far as it may be read.

    That is the settings of `host install`, and the files of `watchdog install --env-file`: a secret that is there is
    where it should be, also for who looks or tests a channel by hand.
    """
    if _spare(environment) is not None:
        return dict(environment)  # It is the unit, and has all of them.
    found: dict[str, str] = {}
    installed = app.installation_if_believed
    if installed is not None:
        with contextlib.suppress(NotAllowed, StateBroken):
            found |= Installed.settings(installed)
    for path in timer(app).env_files(str(app.settings.state_dir)):
        if installed is None or path != installed.settings:
            found |= env_files.variables_or_none(path)
    return {**found, **environment}


def alerts_of(app: App, store: Deliveries, *, keep: bool = False) -> tuple[Alerts, str | None]:
    """Return what alerts.toml says, none of it where there is none; where it is not valid, the last that was, and why.

    `keep`: what is valid is kept for that.
    """
    directory = app.settings.config_dir
    try:
        content = toml_files.read(directory, (toml_files.ALERTS,), trust=app.trusted)[toml_files.ALERTS]
        if content is None:
            return Alerts(), None
        alerts = catalog_alerts.build((str(directory / toml_files.ALERTS), content), None)
    except (CatalogInvalid, NotAllowed) as error:
        return _kept(store), error.summary
    if keep:
        store.keep_config(content)
    return alerts, None


def _kept(store: Deliveries) -> Alerts:
    content = store.config()
    try:
        return Alerts() if content is None else catalog_alerts.build((toml_files.ALERTS, content), None)
    except CatalogInvalid:
        return Alerts()  # Another version of orchctl wrote it.


def in_force(app: App, digest: str | None) -> InForce:
    """Return the catalog that counts: that of the files where it was applied, else the one that was in force last."""
    problem, catalog, named = None, None, None
    try:
        catalog = app.catalog_or_none
        named = catalog.name if catalog is not None else None
    except (CatalogInvalid, NotAllowed) as error:
        problem = error.summary
    if catalog is not None and catalog.digest in app.applied.written():
        return InForce(catalog)
    found, unread = last_applied(app, digest)
    return InForce(found, problem or unread, named)


def last_applied(app: App, digest: str | None) -> tuple[Catalog | None, str | None]:
    """Return the applied catalog of a digest, else the one that was applied last, and why one could not be read."""
    written, problem = app.applied.written(), None
    newest = sorted(written, key=lambda each: written[each], reverse=True)
    for each in ([digest] if digest in written else []) + newest:
        try:
            found = app.applied.read(str(each))
        except OrchctlError as error:
            problem = problem or error.message
            continue
        if found is not None:
            return found, problem
    return None, problem


def timer(app: App) -> WatchTimer:
    """Return what installs the unit pair."""
    return WatchTimer(app.systemd)


def watch(app: App, scope: WatchTimer, given: Sequence[str]) -> Watch:
    """Return what the unit is to run: this same program, on the same folders, for who keeps Prefect on this host.

    `given` are files of variables, beside that of `host install`. Raises UsageError where one is not for the eyes of
    who runs the unit alone, or the API's address holds a key: everybody may read a unit, and the argv of what it runs.
    """
    settings, installed = app.settings, app.installation
    argv = [sys.executable, "-m", "orchctl", "--config", str(settings.config_dir)]
    argv += ["--state-dir", str(settings.state_dir)]
    if settings.api_url is not None:
        address = parse_address(settings.api_url)
        if address.userinfo is not None:
            raise UsageError(
                "the address of Prefect's API holds a user and a password, which the unit would show to everybody",
                hint=f"name it without ({address.shown}); PREFECT_API_AUTH_STRING=user:password goes into a file for "
                "--env-file, mode 0600",
            )
        argv += ["--api-url", address.shown]
    user = installed.user if installed is not None and installed.user != "root" else None
    for path in given:
        scope.check_env_file(path, user if scope.manager.scope == "system" else None)
    return Watch(
        argv=[*argv, "watchdog"],
        scope=scope.manager.scope,
        user=user,
        env_files=_variables(app, given),
        writes=(str(settings.state_dir),),
    )


def unset_secrets(app: App, given: Sequence[str]) -> tuple[str, ...]:
    """Say which variables channels name and no file gives: a timer has nothing of a login's environment."""
    alerts = alerts_of(app, Deliveries(app.settings.state_dir))[0]
    there = {key for path in _variables(app, given) for key in env_files.variables_or_none(path)}
    secrets = [secret for channel in alerts.channels.values() for secret in channel.secrets]
    secrets += [alerts.watchdog.dead_man] if alerts.watchdog.dead_man is not None else []
    missing = sorted({secret.env for secret in secrets if secret.env is not None} - there)
    return tuple(f"alerts.toml names the variable {name}, and no --env-file holds it" for name in missing)


def _variables(app: App, given: Sequence[str]) -> tuple[str, ...]:
    installed = app.installation
    return tuple(dict.fromkeys([*([installed.settings] if installed is not None else []), *given]))


class _Bounded:
    """Sends what waits in the boxes, in what is left of the time of a look."""

    def __init__(self, senders: Senders, store: Deliveries, left: Callable[[], float]) -> None:
        self._senders, self._left = senders, left
        self.note = store.note

    def send(self, channel: Channel, letter: Letter, *, within_s: float) -> Answer:
        return self._senders.send(channel, letter, within_s=max(0.5, min(within_s, self._left())))


def _deliver(app: App, senders: Senders, store: Deliveries, left: Callable[[], float]) -> Round:
    """Send what Prefect's automations told, of every catalog of this host, and could not be delivered."""
    return alert_delivery.deliver_all(
        AlertBoxes(app.settings.state_dir),
        post=_Bounded(senders, store, left),
        now=app.now,
        sleep=time.sleep,
        left=left,
    )


def _spare(environment: Mapping[str, str]) -> Path | None:
    """Return the folder in memory that systemd keeps for the watchdog's unit."""
    named = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(named) / "spare" if named.startswith("/") else None


def _places(state_dir: str, home: str, catalog: Catalog | None) -> dict[str, str]:
    roots = sorted({job.data_root for job in catalog.jobs.values()}) if catalog is not None else []
    return {"orchctl's state": state_dir, "Prefect's database": home, **{f"data ({root})": root for root in roots}}
