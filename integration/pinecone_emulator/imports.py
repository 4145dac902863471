"""Bulk imports: accepted, listed, described and cancelled.

"Import data" and the 2026-07 OpenAPI file. There is no object storage here, so no record ever arrives: an
import stays Pending until it is cancelled or a test says how it ended (`Imports.finish`).
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from integration.pinecone_emulator.errors import invalid, malformed, not_found
from integration.pinecone_emulator.index import Index, token, token_value

_SCHEMES = ("s3://", "gs://", "https://")


class Imports:
    """The imports of one index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._known = {one["id"]: one for one in index.state.imports(index.definition.uid)}

    def start(self, body: Any) -> dict[str, Any]:
        given = _fields(body, ("uri", "integrationId", "errorMode"))
        uri = given.get("uri")
        if not isinstance(uri, str) or not 1 <= len(uri) <= self._index.limits.import_uri_chars:
            raise invalid(
                f"Invalid import uri: 1 to {self._index.limits.import_uri_chars} characters are required"
            )
        if not uri.startswith(_SCHEMES):
            raise invalid(f"Invalid import uri '{uri}': expected one of {', '.join(_SCHEMES)}")
        if self._index.definition.deployment["deployment_type"] == "pod":
            raise invalid("Imports are supported only for serverless indexes")
        if self._index.definition.kind == "integrated":
            raise invalid("Imports are not supported for indexes with integrated embedding")
        mode = _fields(given.get("errorMode") or {}, ("onError",)).get("onError", "continue")
        if mode not in ("abort", "continue"):
            raise invalid(f"Invalid error mode '{mode}': expected abort or continue")
        with self._lock:
            one = str(max((int(known) for known in self._known), default=100) + 1)
            self._save({
                "id": one, "uri": uri, "status": "Pending", "createdAt": _now(),
                "percentComplete": 0.0, "recordsImported": 0,
            })  # fmt: skip
        return {"id": one}

    def describe(self, one: str) -> dict[str, Any]:
        with self._lock:
            if one not in self._known:
                raise not_found(f"Import operation {one} not found")
            return dict(self._known[one])

    def list_page(self, limit: int, after: str) -> dict[str, Any]:
        most = self._index.limits.import_page
        if not 1 <= limit <= most:
            raise invalid(f"Limit must be between 1 and {most}, got {limit}")
        last = token_value(after)
        with self._lock:
            ids = sorted((one for one in self._known if not last or int(one) > int(last)), key=int)
            out: dict[str, Any] = {"data": [dict(self._known[one]) for one in ids[:limit]]}
        if len(ids) > limit:
            out["pagination"] = {"next": token(ids[limit - 1])}
        return out

    def cancel(self, one: str) -> dict[str, Any]:
        """Cancel an import; no effect on a finished one."""
        if self.describe(one)["status"] in ("Pending", "InProgress"):
            self.finish(one, "Cancelled")
        return {}

    def finish(self, one: str, status: str, *, records: int = 0, error: str = "") -> None:
        """Set how an import ended: Completed, Failed or Cancelled."""
        with self._lock:
            known = {**self._known[one], "status": status, "finishedAt": _now(), "recordsImported": records}
            if status == "Completed":
                known["percentComplete"] = 100.0
            if error:
                known["error"] = error
            self._save(known)

    def _save(self, known: dict[str, Any]) -> None:
        self._index.state.save_import(self._index.definition.uid, known)
        self._known[known["id"]] = known


def _fields(body: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise malformed("expected an object")
    for key in body:
        if key not in known:
            raise malformed(f"{key}: Cannot find field.")
    return {key: value for key, value in body.items() if value is not None}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
