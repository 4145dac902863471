"""What a collection is made with, and what is built once its rows are in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from migrate.backends.base import Phase, Step
from migrate.backends.qdrant.engine import Engine, Info, Json, dense_vectors
from migrate.backends.qdrant.hybrid import SETTINGS, Bm25
from migrate.backends.qdrant.names import field_path
from migrate.backends.qdrant.shape import DIALECT, Shape, native
from migrate.config import QdrantSettings
from migrate.errors import SchemaError
from migrate.schema import Kind
from migrate.tenants import COLUMNS as TENANTS

# No graph while rows pour in: building it once at the end costs a fraction of keeping it current.
DEFERRED: Json = {"hnsw_config": {"m": 0}, "optimizers_config": {"indexing_threshold": 0}}
_HNSW: Json = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}  # the server's own defaults
_THRESHOLD_KB = 10_000
_QUANTIZATION: dict[str, Json] = {
    "scalar": {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}},
    "binary": {"binary": {"always_ram": True}},
}
_SCHEMAS = {
    Kind.INTEGER: "integer",
    Kind.REAL: "float",
    Kind.BOOL: "bool",
    Kind.TEXT: "keyword",
    Kind.NATIVE: "keyword",
    Kind.TIMESTAMP: "keyword",  # ISO text; `datetime` is for RFC 3339 and would leave others out
}
# What a foreign collection's settings hold that another can be made with.
_CARRIED = (
    "on_disk_payload",
    "shard_number",
    "replication_factor",
    "write_consistency_factor",
    "sharding_method",
)


def foreign_settings(shape: Shape) -> Json:
    """Return what the collection, from which a foreign table came, said of itself: settings, schema, aliases."""
    if shape.table.dialect != DIALECT:
        return {}
    found = native(shape.table.column("id")).get("collection")
    return found if isinstance(found, dict) else {}


def collection_settings(shape: Shape, chosen: QdrantSettings, bm25: Bm25 | None) -> Json:
    """Return the settings of a new collection in REST form: a foreign one's own, then what the user chose."""
    settings = shape.settings()
    told = foreign_settings(shape).get("settings") or {}
    params = told.get("params") or {}
    custom = params.get("sharding_method") == "custom"
    left = () if shape.foreign or not custom else ("sharding_method", "shard_number")
    settings.update({k: params[k] for k in _CARRIED if params.get(k) is not None and k not in left})
    settings.update({k: told[k] for k in ("quantization_config", "wal_config") if told.get(k)})
    if chosen.quantization is not None:
        settings["quantization_config"] = _QUANTIZATION[chosen.quantization]
    if chosen.on_disk:
        settings["on_disk_payload"] = True
        dense = {name: {**one, "on_disk": True} for name, one in dense_vectors(settings["vectors"]).items()}
        settings["vectors"] = dense[""] if list(dense) == [""] else dense
    if chosen.shards is not None:
        settings["shard_number"] = chosen.shards
    if chosen.replication is not None:
        settings["replication_factor"] = chosen.replication
    if bm25 is not None and bm25.columns(shape.table):
        settings["sparse_vectors"] = {**(settings.get("sparse_vectors") or {}), **SETTINGS}
    return settings


def final_settings(shape: Shape) -> Json:
    """Return the settings that switch indexing on: the source collection's own, or the server's defaults."""
    told = foreign_settings(shape).get("settings") or {}
    hnsw = {k: v for k, v in (told.get("hnsw_config") or {}).items() if v is not None}
    optimizers = {k: v for k, v in (told.get("optimizer_config") or {}).items() if v is not None}
    return {
        "hnsw_config": {**_HNSW, **hnsw},
        "optimizers_config": {"indexing_threshold": _THRESHOLD_KB, **optimizers},
    }


def later_settings(shape: Shape) -> Json:
    """Return what is set when all else is done: a foreign collection's limits, which would hinder loading."""
    told = foreign_settings(shape).get("settings") or {}
    strict = {k: v for k, v in (told.get("strict_mode_config") or {}).items() if v is not None}
    params = told.get("params") or {}
    reading = {k: params[k] for k in ("read_fan_out_factor", "read_fan_out_delay_ms") if params.get(k)}
    found: Json = {"strict_mode_config": strict} if strict.get("enabled") else {}
    return {**found, "params": reading} if reading else found


def _has(info: Info, wanted: Json, section: str) -> bool:
    here = info.settings.get(section) or {}
    return all(here.get(k) == v for k, v in wanted.items())


def _change(engine: Engine, name: str, settings: Json, progress: Callable[[int, int], None]) -> None:
    engine.change(name, settings)
    progress(1, 1)


def payload_indexes(shape: Shape) -> dict[str, Json]:
    """Return the payload indexes worth having: {field: schema}.

    The columns that name a row, those that the source has indexed, and the
    tenant's, which Qdrant then keeps together on disk (`is_tenant`).
    """
    table = shape.table
    if table.dialect == DIALECT:
        schema = foreign_settings(shape).get("schema") or {}
        return {field: dict(one) for field, one in schema.items()}
    wanted = [*table.key, *(c for index in table.indexes for c in index.columns)]
    wanted += [c for c in table.column_names if c in TENANTS]
    vectors = {v.column.name for v in shape.vectors}
    found: dict[str, Json] = {}
    for name in dict.fromkeys(wanted):
        if name in vectors or name not in table.column_names:
            continue
        kind, field = _SCHEMAS.get(table.column(name).kind), field_path(name)
        if kind is not None and field is not None:
            tenant = name in TENANTS and kind == "keyword"
            found[field] = {"type": kind, **({"is_tenant": True} if tenant else {})}
    return found


def _room(shape: Shape, info: Info) -> tuple[dict[str, Json], list[str]]:
    """Return the payload indexes that are missing and that strict mode takes, and the fields left out."""
    wanted = {field: one for field, one in payload_indexes(shape).items() if field not in info.schema}
    most = info.strict.get("max_payload_index_count")
    room = len(wanted) if most is None else max(most - len(info.schema), 0)
    first = sorted(wanted, key=lambda field: not wanted[field].get("is_tenant"))[:room]
    return {f: one for f, one in wanted.items() if f in first}, [f for f in wanted if f not in first]


def left_out(engine: Engine, name: str, shape: Shape) -> list[str]:
    """Return notes on payload indexes that a collection has no room for."""
    info = engine.info(name)
    left = _room(shape, info)[1] if info is not None else []
    if not left or info is None:
        return []
    most = info.strict["max_payload_index_count"]
    return [
        f"{shape.table.name}: the collection is in strict mode and takes {most} payload indexes; there is none of"
        f" {', '.join(left)}, so filters over them are slow"
    ]


def steps(engine: Engine, name: str, shape: Shape, *, index: str) -> list[Step]:
    """Return what is to be built in a collection: payload indexes first, as the graph makes use of them."""
    info = engine.info(name)
    if info is None:
        return []
    table = shape.table.name
    found = [
        Step(
            table, f"payload index {field}", Phase.INDEX, partial(_payload_index, engine, name, field, schema)
        )
        for field, schema in _room(shape, info)[0].items()
    ]
    deferred = (info.settings.get("hnsw_config") or {}).get("m") == 0
    if index != "none" and (deferred or info.status != "green") and shape.vectors:
        settings = final_settings(shape)
        found.append(Step(table, "vector index", Phase.INDEX, partial(_index, engine, name, settings)))
    later = {k: v for k, v in later_settings(shape).items() if not _has(info, v, k)}
    if later:
        found.append(Step(table, "limits", Phase.INDEX, partial(_change, engine, name, later)))
    taken = {*engine.names(), *engine.aliases()}
    return found + [
        Step(table, f"alias {alias}", Phase.INDEX, partial(_alias, engine, name, alias))
        for alias in foreign_settings(shape).get("aliases") or ()
        if alias not in taken
    ]


def _alias(engine: Engine, name: str, alias: str, progress: Callable[[int, int], None]) -> None:
    engine.alias(name, alias)
    progress(1, 1)


def _payload_index(
    engine: Engine, name: str, field: str, schema: Json, progress: Callable[[int, int], None]
) -> None:
    engine.index_payload(name, field, schema)
    progress(1, 1)


def _index(engine: Engine, name: str, settings: Json, progress: Callable[[int, int], None]) -> None:
    engine.index(name, settings, progress)


def check_takes(shape: Shape, name: str, info: Info) -> None:
    """Refuse an existing collection whose vectors cannot take ours (--into-existing)."""
    here: Json = dense_vectors(info.settings["params"].get("vectors"))
    here.update(info.settings["params"].get("sparse_vectors") or {})
    if not shape.table.key:
        raise SchemaError(
            f"{shape.table.name!r} has no key to match points of {name!r} by", hint="?prefix=..."
        )
    for v in shape.vectors:
        found = here.get(v.name)
        if found is None:
            raise SchemaError(
                f"the existing collection {name!r} has no vector {v.name!r}", hint="?prefix=..."
            )
        for field in ("size", "distance", "datatype"):
            wanted = v.params.get(field)
            if (wanted or "float32") != (found.get(field) or "float32"):
                raise SchemaError(
                    f"the vector {v.name!r} of the existing collection {name!r} has {field} {found.get(field)},"
                    f" not {wanted}",
                    hint="migrate under another prefix (?prefix=...)",
                )
