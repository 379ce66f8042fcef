"""A transport that answers like Prefect, as far as alerts ask; it counts what changes something."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

from orchctl.adapters.prefect_api import PrefectApi

URL = "http://127.0.0.1:4200/api"


@dataclass
class AlertPrefect:
    """Blocks and automations by id. `fails_at`: which of the changing calls is answered with 500, from 1 on."""

    types: dict[str, dict[str, Any]] = field(default_factory=dict)
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    automations: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: int = 0
    reads: int = 0
    fails_at: int | None = None

    def api(self) -> PrefectApi:
        return PrefectApi(url=URL, transport=httpx.MockTransport(self._answer), attempts=1)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api")
        body = json.loads(request.content) if request.content else None
        if request.method == "GET" or path.endswith("/filter"):
            self.reads += 1
        else:
            self.changes += 1
            if self.changes == self.fails_at:
                return httpx.Response(500, json={"exception_message": "Internal Server Error"})
        status, answer = self._route(request.method, path, body)
        return httpx.Response(status, json=answer) if answer is not None else httpx.Response(status)

    def _route(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        own = re.fullmatch(r"/(block_documents|automations)/([^/]+)", path)
        if own is not None and own[2] != "filter":
            return self._change(self.blocks if own[1] == "block_documents" else self.automations, method, own[2], body)
        if found := re.fullmatch(r"/block_types/slug/([a-z-]+)(/block_documents)?", path):
            if found[1] not in self.types:
                return 404, {"detail": "Block type not found"}
            return 200, list(self.blocks.values()) if found[2] else self.types[found[1]]
        if path == "/automations/filter":
            rows = sorted(self.automations.values(), key=lambda each: each["name"])
            return 200, rows[body["offset"] : body["offset"] + body["limit"]]
        assert method == "POST"
        return 201, self._made(path, body)

    def _made(self, path: str, body: Any) -> Any:
        if path == "/block_types/":
            return self.types.setdefault(body["slug"], {"id": str(uuid.uuid4()), **body})
        if path == "/block_schemas/":
            same = [schema for schema in self.schemas.values() if schema["fields"] == body["fields"]]
            return same[0] if same else self._add(self.schemas, body)
        if path == "/block_documents/":
            return self._add(self.blocks, {**body, "block_schema": self.schemas[body["block_schema_id"]]})
        assert path == "/automations/"
        return self._add(self.automations, _kept(body))

    def _add(self, table: dict[str, dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
        row = {**body, "id": str(uuid.uuid4()), "created": f"2025-12-19T05:00:{len(table):02d}Z"}
        table[row["id"]] = row
        return row

    def _change(self, table: dict[str, dict[str, Any]], method: str, key: str, body: Any) -> tuple[int, Any]:
        if key not in table:
            return 404, {"detail": "not found here"}
        if method == "DELETE":
            del table[key]
        elif table is self.blocks:
            table[key] |= {"data": body["data"], "block_schema": self.schemas[body["block_schema_id"]]}
        else:
            table[key] |= _kept(body)
        return 204, None


def _kept(body: dict[str, Any]) -> dict[str, Any]:
    """Return an automation as Prefect keeps it: triggers get ids, sets lose their order, defaults are filled in."""
    trigger = {"id": str(uuid.uuid4()), **body["trigger"]}
    for key in ("after", "expect", "for_each"):
        trigger[key] = list(reversed(trigger.get(key, [])))
    kept = {"description": "", "enabled": True, "tags": [], "actions_on_trigger": [], "actions_on_resolve": []}
    return {**kept, **body, "trigger": trigger}
