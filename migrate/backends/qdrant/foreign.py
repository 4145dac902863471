"""A collection that memlift did not make, described as a table.

    id         INTEGER where all ids are numbers below 2^63, else TEXT (numbers as digits)
    shard_key  JSON, only where the collection has custom shard keys; part of the key then
    payload    JSON, the whole payload
    one column for each vector, by its name; the unnamed one is `vector`

The columns' `declared` holds, as JSON, what the way back to Qdrant needs: a
vector's own parameters, and with `id` the collection's settings, payload
indexes and aliases.
"""

from __future__ import annotations

import json
from typing import Any

from migrate.backends.qdrant.engine import Engine, Info, Json, dense_vectors
from migrate.backends.qdrant.shape import DIALECT
from migrate.errors import BackendError
from migrate.schema import Column, Kind, Metric, Table

_FIRST_UUID = "00000000-0000-0000-0000-000000000000"
_METRICS = {
    "Cosine": Metric.COSINE,
    "Dot": Metric.DOT,
    "Euclid": Metric.EUCLID,
    "Manhattan": Metric.MANHATTAN,
}
_KINDS = {"float32": Kind.VECTOR, "float16": Kind.HALF, "uint8": Kind.U8}


def describe(engine: Engine, collection: str, name: str, info: Info, aliases: dict[str, str]) -> Table:
    """Return the table of a foreign collection."""
    params = info.settings["params"]
    told: Json = {
        "settings": info.settings,
        "schema": info.schema,
        "aliases": sorted(alias for alias, to in aliases.items() if to == collection),
    }
    whole = _all_numbers(engine, collection)
    declared = json.dumps({"collection": told}, sort_keys=True)
    columns = [Column("id", Kind.INTEGER if whole else Kind.TEXT, declared, nullable=False)]
    custom = params.get("sharding_method") == "custom"
    if custom:
        columns.append(Column("shard_key", Kind.JSON, nullable=False))
    columns.append(Column("payload", Kind.JSON, nullable=False))
    dense = dense_vectors(params.get("vectors"))
    taken = {c.name for c in columns}
    for vector, one in dense.items():
        columns.append(_column(_free(vector or "vector", taken), vector, one))
    for vector, one in (params.get("sparse_vectors") or {}).items():
        columns.append(_column(_free(vector, taken), vector, one or {}))
    key = ("id", "shard_key") if custom else ("id",)
    return Table(name, tuple(columns), key, dialect=DIALECT)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"vector_{name}"
    taken.add(name)
    return name


def _column(name: str, vector: str, params: Json) -> Column:
    declared = json.dumps({"vector": vector, "params": params}, sort_keys=True)
    if "size" not in params:
        return Column(name, Kind.SPARSE, declared, metric=Metric.DOT)
    metric = _METRICS[str(params["distance"]).capitalize()]
    datatype = str(params.get("datatype") or "float32").lower()
    if datatype not in _KINDS:
        raise BackendError(
            f"the vector {vector!r} is kept as {datatype}, which does not give vectors back exactly"
        )
    multi = bool(params.get("multivector_config"))
    # A stored unit vector in float16 is read as float32 numbers that float16 holds.
    kind = Kind.MULTI if multi else _KINDS[datatype]
    return Column(name, kind, declared, dim=int(params["size"]), metric=metric)


def _all_numbers(engine: Engine, collection: str) -> bool:
    """Whether all ids are numbers below 2^63: ids come in order, numbers before UUIDs."""

    def any_from(offset: Any) -> bool:
        points, _ = engine.scroll(collection, 1, offset, payload=False, vectors=False)
        return bool(points)

    return not any_from(2**63) and not any_from(_FIRST_UUID)
