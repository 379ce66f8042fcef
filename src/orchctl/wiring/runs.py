"""What a run in a worker works with, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchctl import wiring
from orchctl.adapters import belief, host_facts, state_id
from orchctl.adapters.alert_boxes import AlertBoxes
from orchctl.adapters.applied import AppliedCatalogs
from orchctl.adapters.as_of import AsOf
from orchctl.adapters.claims import Claims, Locks
from orchctl.adapters.manifests import Manifests
from orchctl.adapters.owners import Owners
from orchctl.core.deployments import STATE_ID_VARIABLE
from orchctl.services import observe
from orchctl.wiring.eyes import eyes

if TYPE_CHECKING:
    from orchctl.adapters.loki import Loki
    from orchctl.core.catalog_logs import LokiTable

_T = TypeVar("_T")


def host(make: Callable[..., _T], *, later_due: Callable[[datetime], Any]) -> _T:
    """Return the outside of a run, as `make` (`runner.shapes.Host`) takes it.

    Raises StateBroken where the job was synced with another state directory than this host's.
    """
    environment = wiring.environment()
    state = wiring.state_dir_of(environment)
    if told := environment.get(STATE_ID_VARIABLE):
        state_id.check(state, told)
    looking = eyes(environment, state, None)
    hidden = AlertBoxes(state).variables()
    return make(
        applied=AppliedCatalogs(state),
        owners=Owners(state),
        claims=Claims(state),
        locks=Locks(state),
        manifests=partial(Manifests, trust=belief.trusted(state, None)),
        place=host_facts.here,
        git_sha=host_facts.git_sha,
        find_outputs=host_facts.find_outputs,
        environment=environment,
        hidden=hidden,
        later_due=later_due,
        eyes=looking,
        legacy_running=lambda job: observe.legacy_running(job, looking),
        as_of=AsOf({key: value for key, value in environment.items() if key not in hidden}).instant,
        ship=lambda table, labels: _loki(table, labels, environment, state),
    )


def _loki(table: LokiTable, labels: Mapping[str, str], environment: Mapping[str, str], state: Path) -> Loki:
    # Few catalogs name one: the other runs do without.
    from orchctl.adapters.loki import Loki

    return Loki(table, labels, environment, trust=belief.trusted(state, None))
