"""Whether a body has the shape that the API describes.

The client's models are generated from the server's OpenAPI description. They are
strict about unknown fields where the server is silent, never the other way round.
"""

from __future__ import annotations

import functools
from typing import Any

from pydantic import TypeAdapter, ValidationError

from integration.qdrant_server.errors import QdrantError


@functools.cache
def _adapter(model: str) -> TypeAdapter[Any]:
    # Imported at the first REST body: half a second that a server driven by gRPC never pays.
    from qdrant_client.http.models import models

    return TypeAdapter(getattr(models, model))


def check(raw: bytes, model: str) -> None:
    """Raise the server's 400 unless the body is a `model`."""
    try:
        _adapter(model).validate_json(raw, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if where.startswith("vectors"):
            raise QdrantError(
                "format", "data did not match any variant of untagged enum VectorsConfig"
            ) from exc
        field = str(first["loc"][-1]) if first["loc"] else ""
        text = f"missing field `{field}`" if first["type"] == "missing" else f"{first['msg']} ({where})"
        raise QdrantError("format", text) from exc
