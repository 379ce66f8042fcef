"""The client of a Prefect server, with the credentials that open it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchctl.core.installation import AUTH_CLIENT

if TYPE_CHECKING:
    from orchctl.adapters.prefect_api import PrefectApi
    from orchctl.core.installation import Installation


def client(
    environment: Mapping[str, str],
    installation: Installation | None,
    url: str,
    *,
    attempts: int,
    patience: float | None,
) -> PrefectApi:
    """Return a client for `url`; see `App.connect`."""
    from orchctl.adapters.prefect_api import PrefectApi

    insecure = environment.get("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "").lower() in {"1", "true", "yes"}
    return PrefectApi(
        url=url,
        auth_string=environment.get(AUTH_CLIENT) or _installed(installation, url),
        api_key=environment.get("PREFECT_API_KEY") or None,
        verify=False if insecure else environment.get("PREFECT_API_SSL_CERT_FILE") or True,
        attempts=attempts,
        patience=patience,
    )


def _installed(installation: Installation | None, url: str) -> str | None:
    """Return what opens the server that `host install` put here; of no other server."""
    from orchctl.adapters.installed import Installed

    if installation is None or installation.api_url != url:
        return None
    return Installed.settings(installation).get(AUTH_CLIENT) or None
