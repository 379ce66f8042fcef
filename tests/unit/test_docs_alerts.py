"""The example of docs/alerts.md is valid, and the page names every key and every event there is."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from alert_cases import read
from conftest import ROOT
from orchctl.core.alerts import BY_PREFECT, BY_WATCHDOG, EVENTS
from orchctl.core.catalog_alerts import AlertsFile, AlertsTable, ChannelTable, RouteTable, WatchdogTable

TEXT = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")


def test_the_example_is_valid() -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    found = read(example, {"live-score": ()})
    assert {channel.kind for channel in found.channels.values()} == {"slack", "webhook", "email"}


@pytest.mark.parametrize("table", [AlertsFile, AlertsTable, ChannelTable, RouteTable, WatchdogTable])
def test_every_key_is_named(table: type[BaseModel]) -> None:
    keys = {field.alias or name for name, field in table.model_fields.items()}
    # The secret of the watchdog has two forms, like those of channels, and one of them is shown.
    missing = {key for key in keys if not re.search(rf"\b{key}\b", TEXT)} - {"dead_man_url_file"}
    assert missing == set()


def test_every_event_is_explained_and_told_by_somebody() -> None:
    assert {event for event in EVENTS if f"| `{event}` |" not in TEXT} == set()
    assert set(BY_PREFECT) | set(BY_WATCHDOG) == set(EVENTS)
