"""The part of the Prefect API that alerts go through: the blocks of our own type, and automations.

As in `prefect_api`: one method a call, and no error but our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchctl.adapters import prefect_parse as parsing
from orchctl.adapters.prefect_http import PAGE
from orchctl.adapters.prefect_limits import PrefectLimits
from orchctl.core.alerts_plan import (
    BLOCK_DESCRIPTION,
    BLOCK_FIELDS,
    BLOCK_TYPE,
    BLOCK_TYPE_NAME,
    RemoteAutomation,
    RemoteBlock,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class PrefectAutomations(PrefectLimits):
    """Blocks of the type `orchctl-alert-channel`, and automations."""

    def alert_blocks(self) -> tuple[RemoteBlock, ...]:
        """Return all blocks of our type, by name; none where the type is not there yet."""
        data = self.request("GET", f"/block_types/slug/{BLOCK_TYPE}/block_documents", ok404=True)
        rows = self.shaped(parsing.rows, data if data is not None else [])
        return tuple(sorted((self.shaped(_block, row) for row in rows), key=lambda each: each.name))

    def set_alert_block(self, name: str, data: Mapping[str, Any], *, id: str | None) -> str:  # noqa: A002
        """Make a block, or with `id` set that one, and return its id; makes the type where it is not there.

        Making one is repeatable within the call: later, PrefectRejected with status 409.
        """
        kind = self._block_type()
        form = {"fields": dict(BLOCK_FIELDS), "block_type_id": kind, "capabilities": ["notify"], "version": "1"}
        schema = self.shaped(parsing.new_id, self.request("POST", "/block_schemas/", form, repeatable=True))
        if id is not None:
            body = {"block_schema_id": schema, "data": dict(data), "merge_existing_data": False}
            self.request("PATCH", f"/block_documents/{quote(id, safe='')}", body)
            return id
        body = {"name": name, "data": dict(data), "block_schema_id": schema, "block_type_id": kind}
        made = self.request("POST", "/block_documents/", body, repeatable=True, done_if=409)
        if made is None:  # an earlier try had worked, and its answer was lost
            return next(each.id for each in self.alert_blocks() if each.name == name)
        return self.shaped(parsing.new_id, made)

    def delete_block(self, id: str) -> None:  # noqa: A002 - the word of the domain
        """Delete a block. Repeatable within the call: later, PrefectRejected with status 404."""
        self.request("DELETE", f"/block_documents/{quote(id, safe='')}", done_if=404)

    def automations(self) -> tuple[RemoteAutomation, ...]:
        """Return all automations, by name, those of one name the oldest first. One request for each 200 of them."""
        found: dict[str, tuple[str, RemoteAutomation]] = {}
        offset = 0
        while True:
            # One that is not seen, for others are made or deleted meanwhile, shows when `alerts apply` reads back.
            body = {"sort": "NAME_ASC", "limit": PAGE, "offset": offset}
            rows = self.shaped(parsing.rows, self.request("POST", "/automations/filter", body))
            for row in rows:
                each = self.shaped(_automation, row)
                found[each.id] = (self.shaped(lambda data: str(data.get("created") or ""), row), each)
            offset += len(rows)
            if len(rows) < PAGE:
                break
        ordered = sorted(found.values(), key=lambda each: (each[1].name, each[0], each[1].id))
        return tuple(each for _, each in ordered)

    def create_automation(self, body: Mapping[str, Any]) -> None:
        """Make an automation. Not repeatable: after a lost answer, look first."""
        self.request("POST", "/automations/", dict(body), repeatable=False)

    def update_automation(self, id: str, body: Mapping[str, Any]) -> None:  # noqa: A002 - the word of the domain
        """Replace an automation; what it waits for begins anew. Repeatable; PrefectRejected, 404, if there is none."""
        self.request("PUT", f"/automations/{quote(id, safe='')}", dict(body), repeatable=True)

    def delete_automation(self, id: str) -> None:  # noqa: A002 - the word of the domain
        """Delete an automation. Repeatable within the call: later, PrefectRejected with status 404."""
        self.request("DELETE", f"/automations/{quote(id, safe='')}", done_if=404)

    def _block_type(self) -> str:
        path = f"/block_types/slug/{BLOCK_TYPE}"
        data = self.request("GET", path, ok404=True)
        if data is None:
            body = {"name": BLOCK_TYPE_NAME, "slug": BLOCK_TYPE, "description": BLOCK_DESCRIPTION}
            data = self.request("POST", "/block_types/", body, repeatable=True, done_if=409)
        return self.shaped(parsing.new_id, data if data is not None else self.request("GET", path))


def _block(data: Any) -> RemoteBlock:
    held = data["data"]
    if not isinstance(held, dict):
        raise TypeError("a block without data")
    fields = data["block_schema"]["fields"]
    return RemoteBlock(str(data["id"]), str(data["name"]), held, current=fields == dict(BLOCK_FIELDS))


def _automation(data: Any) -> RemoteAutomation:
    trigger, actions = data["trigger"], data["actions"]
    if not isinstance(trigger, dict) or not all(isinstance(each, dict) for each in actions):
        raise TypeError("an automation without a trigger")
    return RemoteAutomation(
        id=str(data["id"]),
        name=str(data["name"]),
        description=str(data.get("description") or ""),
        enabled=data["enabled"] is True,
        tags=tuple(str(tag) for tag in data.get("tags") or ()),
        trigger=trigger,
        actions=tuple(actions),
    )
