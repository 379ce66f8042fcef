"""What `orchctl alerts` works with, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchctl.adapters import toml_files
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.adapters.deliveries import Deliveries
from orchctl.core import catalog_alerts
from orchctl.errors import CatalogInvalid, StateBroken, UsageError

if TYPE_CHECKING:
    from orchctl.core.alerts import Alerts
    from orchctl.core.catalog import Catalog
    from orchctl.core.deliveries import Delivery
    from orchctl.wiring import App


def alerts(app: App) -> Alerts:
    """Return what `alerts.toml` says. Raises CatalogInvalid, and UsageError where there is none."""
    found = toml_files.alerts(app.settings.config_dir, app.catalog, trust=app.trusted)
    if found is None:
        raise UsageError(
            f"there is no {toml_files.ALERTS} in {app.settings.config_dir}",
            hint="docs/alerts.md shows one; one with `version = 1` alone takes back what was applied",
        )
    return found


def checked(app: App) -> tuple[Catalog, Alerts | None]:
    """Return the catalog, and the alerts where there are any. Raises CatalogInvalid with every problem of both."""
    try:
        catalog = app.catalog
    except CatalogInvalid as error:
        try:
            toml_files.alerts(app.settings.config_dir, None, trust=app.trusted)
        except CatalogInvalid as more:
            if error.problems and more.problems:
                raise catalog_alerts.together(error, more) from error
        raise
    return catalog, toml_files.alerts(app.settings.config_dir, catalog, trust=app.trusted)


def boxes(app: App) -> AlertBoxes:
    """Return what is in force on this host."""
    return AlertBoxes(app.settings.state_dir)


def last(app: App) -> dict[str, Delivery]:
    """Return how each channel answered last; nothing where that cannot be believed, which `doctor` tells."""
    try:
        return Deliveries(app.settings.state_dir).last(app.catalog.name)
    except StateBroken:
        return {}
