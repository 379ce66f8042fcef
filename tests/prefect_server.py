"""An HTTP server on a loopback port that answers like Prefect, as far as a handover asks: fast, and in memory.

For tests that do hundreds of handovers; those with the real server are in tests/live.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CATALOG = "tests"
"""The name of the catalog whose deployments it has."""
_NEVER_BEGUN = ("SCHEDULED", "PENDING")


@dataclass
class PrefectServer:
    """Deployments by name, and runs by id, as JSON of Prefect's API. `url` is that of the API."""

    url: str = ""
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, job: str) -> None:
        """Make the paused deployment of a job, with one schedule that is due each minute."""
        schedule = {"id": str(uuid.uuid4()), "slug": "often", "active": True}
        cron = {"cron": "* * * * *", "timezone": "UTC", "day_or": True}
        self.deployments[job] = {
            "id": str(uuid.uuid4()),
            "name": job,
            "flow_id": str(uuid.uuid4()),
            "paused": True,
            "status": "READY",
            "tags": ["orchctl"],
            "labels": {"orchctl.job": job, "orchctl.catalog": CATALOG},
            "parameters": {"job": job},
            "enforce_parameter_schema": True,
            "schedules": [schedule],
        }
        schedule["schedule"] = cron

    def waiting(self, job: str) -> list[dict[str, Any]]:
        """Return the runs of a job that a worker could take."""
        own = self.deployments[job]["id"]
        with self._lock:
            return [
                run for run in self.runs.values() if run["deployment_id"] == own and run["state_type"] in _NEVER_BEGUN
            ]

    def answer(self, method: str, path: str, body: Any) -> Any:  # noqa: PLR0911 - one line a route
        """Return the JSON of an answer, None for 404."""
        with self._lock:
            if found := re.fullmatch(r"/deployments/name/([^/]+)/\1", path):
                return self.deployments.get(found[1])
            if found := re.fullmatch(r"/deployments/([0-9a-f-]{36})/(\w+)", path):
                deployment = next((each for each in self.deployments.values() if each["id"] == found[1]), None)
                return None if deployment is None else self._deployment(found[2], deployment, body)
            if path.endswith("/queues/filter") or path == "/v2/concurrency_limits/filter":
                return []
            if found := re.fullmatch(r"/flow_runs/([0-9a-f-]{36})(/set_state)?", path):
                return self._run(method, found[1], body)
            if path in {"/flow_runs/paginate", "/flow_runs/filter"}:
                rows = self._filtered(body["flow_runs"])
                return rows if path.endswith("filter") else {"results": rows, "count": len(rows), "pages": 1, "page": 1}
            if path in {"/deployments/paginate", "/flows/paginate"}:
                rows = list(self.deployments.values()) if path.startswith("/deployments") else []
                return {"results": rows, "count": len(rows), "pages": 1, "page": 1}
            return None

    def _deployment(self, action: str, deployment: dict[str, Any], body: Any) -> Any:
        own = deployment["id"]
        if action == "pause_deployment":
            deployment["paused"] = True
            for key in [key for key, run in self.runs.items() if run["deployment_id"] == own and run["auto_scheduled"]]:
                if self.runs[key]["state_type"] == "SCHEDULED":
                    del self.runs[key]
        elif action == "resume_deployment":
            deployment["paused"] = False
        elif action == "schedule" and not deployment["paused"]:
            slot = datetime.now(UTC).replace(second=0, microsecond=0)
            for minutes in range(1, 4):
                self._make(deployment, slot + timedelta(minutes=minutes), schedule=deployment["schedules"][0]["id"])
        elif action == "create_flow_run":
            same = [run for run in self.runs.values() if run["key"] == body["idempotency_key"]]
            return same[0] if same else self._make(deployment, datetime.now(UTC), key=body["idempotency_key"])
        return {}

    def _make(self, deployment: dict[str, Any], slot: datetime, *, schedule: str = "", key: str = "") -> dict[str, Any]:
        name = key or f"{schedule} {slot.isoformat()}"
        run = {
            "id": str(uuid.uuid4()),
            "name": name,
            "key": name,
            "deployment_id": deployment["id"],
            "state_type": "SCHEDULED",
            "state_name": "Scheduled",
            "expected_start_time": slot.isoformat(),
            "auto_scheduled": bool(schedule),
            "run_count": 0,
            **({"created_by": {"type": "SCHEDULE", "id": schedule}} if schedule else {}),
        }
        if all(each["key"] != name for each in self.runs.values()):
            self.runs[str(run["id"])] = run
        return run

    def _run(self, method: str, key: str, body: Any) -> Any:
        if key not in self.runs:
            return None
        if method == "DELETE":
            del self.runs[key]
            return {}
        if method == "POST":
            self.runs[key]["state_type"] = body["state"]["type"]
            return {"status": "ACCEPT"}
        return self.runs[key]

    def _filtered(self, wanted: Any) -> list[dict[str, Any]]:
        types, owners = wanted["state"]["type"]["any_"], wanted["deployment_id"]["any_"]
        return [run for run in self.runs.values() if run["state_type"] in types and run["deployment_id"] in owners]


@contextlib.contextmanager
def serving() -> Iterator[PrefectServer]:
    """Serve until the end of the block."""
    told = PrefectServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            found = told.answer(self.command, self.path.removeprefix("/api"), body)
            content = json.dumps({"detail": "not found"} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = _handle  # noqa: N815 - names that http.server asks for

        def log_message(self, *_: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            return  # a client that was killed

    server = Server(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}/api"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
