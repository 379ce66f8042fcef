"""What the gates of a cutover look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchctl.services.gates import World
    from orchctl.wiring import App


def world(app: App) -> World:
    """Return the host and the server that the gates look at. Raises CatalogInvalid."""
    from orchctl.adapters.manifests import Manifests
    from orchctl.services.gates import World

    prefect = app.connect(app.api_url, attempts=2)
    return World(
        catalog=app.catalog,
        systemd=app.systemd,
        crontabs=app.crontabs,
        prefect=prefect,
        rule=app.prefect_rule,
        owners=app.owners,
        handovers=app.handovers,
        applied=app.applied,
        tree=lambda data_root: Manifests(data_root, trust=app.trusted),
        timers=app.timer_switch,
        cron=app.cron_switch,
        confirm=app.confirm_timer,
        prefect_offset=lambda: prefect.clock_offset_s,
        synchronised=app.systemd.synchronised,
        host_zone=app.host_zone,
        state_dir=str(app.settings.state_dir),
    )
