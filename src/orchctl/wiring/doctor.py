"""What `doctor` looks at, put together. Nothing is built that writes: not even what completion answers from."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING

from orchctl.adapters import backups, belief, doctor_facts, doctor_sockets, doctor_versions, env_files, toml_files
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.adapters.deliveries import Deliveries
from orchctl.adapters.installed import Installed
from orchctl.adapters.local_stack import LocalStack
from orchctl.adapters.prefect_parse import bare_url
from orchctl.core import host_units, watch
from orchctl.core.doctor_alerts import InPrefect, Watched
from orchctl.core.installation import AUTH_CLIENT
from orchctl.services import alerts
from orchctl.services.doctor_world import Facts, World
from orchctl.services.watch_ports import InForce
from orchctl.wiring import App, backup, host, upgrade
from orchctl.wiring.watchdog import last_applied, timer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchctl.adapters.prefect_api import PrefectApi
    from orchctl.core.alerts import Alerts
    from orchctl.core.catalog import Catalog
    from orchctl.core.deliveries import Delivery
    from orchctl.core.installation import Installation
    from orchctl.services.doctor_world import Server

PATIENCE_S = 6.0
"""So long is waited for Prefect in all, beyond what a server that is well takes."""


class _Looking(App):
    """An app that only looks: root believes what the state directory's owner wrote there, where it would not act on it.

    What `host down` kills, and what a worker runs, stays with files that root alone could have written.
    """

    @cached_property
    def stack(self) -> LocalStack:
        """Server and worker that `host up` started."""
        trust = belief.owner(self.settings.state_dir)
        return LocalStack(self.settings.state_dir, self._environment, trust=trust)


def world(app: App, environment: Mapping[str, str]) -> World:
    """Return this host, its catalog and its server, none of them looked at yet."""
    app = _Looking(app.settings, environment)
    settings = app.settings
    return World(
        config_dir=str(settings.config_dir),
        state_dir=str(settings.state_dir),
        python=sys.executable,
        catalog=lambda: toml_files.load(settings.config_dir, trust=app.trusted),
        installation=lambda: app.installation,
        settings=Installed.settings,
        api_url=lambda: app.api_url,
        connect=lambda: app.connect(app.api_url, attempts=1, patience=PATIENCE_S),
        bare=lambda: _bare(app, environment),
        ours=lambda: _has_credentials(app, environment),
        background=app.stack,
        stack=lambda its: host.unit_stack(app, its),
        changed_units=lambda its: _changed_units(app, its),
        unfinished_restore=lambda: backup.unfinished_restore(app),
        unfinished_upgrade=lambda: upgrade.unfinished(app),
        systemd=app.systemd,
        crontabs=app.crontabs,
        owners=app.owners,
        handovers=app.handovers,
        applied=app.applied,
        tree=app.tree,
        alerts=lambda catalog: toml_files.alerts(settings.config_dir, catalog, trust=app.trusted),
        alerts_in_prefect=lambda found, catalog, prefect: _in_prefect(app, prefect, found, catalog),
        deliveries=lambda catalog: _deliveries(app, catalog),
        watched=lambda: _watched(app),
        watchdog_files=lambda: timer(app).env_files(str(settings.state_dir)),
        last_backup=lambda: backups.last(settings.state_dir).known,
        facts=_facts(app),
        now=app.now,
    )


def _facts(app: App) -> Facts:
    return Facts(
        file=doctor_facts.file,
        sample=doctor_facts.sample,
        disk=doctor_facts.disk,
        who=doctor_facts.who,
        is_zone=doctor_facts.is_zone,
        zone=lambda: app.host_zone,
        listeners=doctor_sockets.listeners,
        requirements=doctor_versions.requirements,
        within=doctor_versions.within,
        variables=env_files.variables_or_none,
        mount=doctor_facts.mount,
    )


def _bare(app: App, environment: Mapping[str, str]) -> PrefectApi:
    """Return a client that shows nobody's credentials, as a stranger would ask."""
    from orchctl.wiring import connect

    kept = {key: value for key, value in environment.items() if key not in {AUTH_CLIENT, "PREFECT_API_KEY"}}
    return connect.client(kept, None, bare_url(app.api_url), attempts=1, patience=PATIENCE_S)


def _has_credentials(app: App, environment: Mapping[str, str]) -> bool:
    if environment.get(AUTH_CLIENT) or environment.get("PREFECT_API_KEY") or "@" in app.api_url:
        return True
    installed = app.installation_if_believed
    return installed is not None and installed.api_url == app.api_url and AUTH_CLIENT in Installed.settings(installed)


def _deliveries(app: App, catalog: Catalog | None) -> tuple[Delivery, ...]:
    name = InForce(catalog or last_applied(app, None)[0]).name
    return tuple(Deliveries(app.settings.state_dir).last(name).values())


def _in_prefect(app: App, prefect: Server, found: Alerts, catalog: Catalog) -> InPrefect:
    pools = sorted({job.work_pool for job in catalog.jobs.values()})
    proposed = alerts.propose(found, catalog.name, pools, prefect, AlertBoxes(app.settings.state_dir))
    return InPrefect(proposed.empty, proposed.plan.switched_off)


def _watched(app: App) -> Watched:
    """Return what the watchdog saw last; what it cannot believe of its own memory, it tells itself."""
    memory, _ = Deliveries(app.settings.state_dir).memory()
    return Watched(AlertBoxes(app.settings.state_dir).watchdog_looked(), watch.blind(memory.troubles, app.now()))


def _changed_units(app: App, its: Installation) -> list[str]:
    """Return the units whose files are there, and are not what this orchctl would write."""
    units = host.units_of(app, its.manager)
    texts = host_units.texts(its, systemd=units.version())
    found = {name: units.read(units.path(name)) for name in texts}
    return [name for name, text in texts.items() if found[name] not in {None, text}]
