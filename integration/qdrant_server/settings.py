"""A collection's settings: defaults, checks at creation, what PATCH changes, what is given back.

All in the REST form (public OpenAPI: `CreateCollection`, `UpdateCollection`,
`CollectionConfig`). Defaults are those of the server's shipped `config.yaml`.
"""

from __future__ import annotations

from typing import Any

from integration.qdrant_server.errors import QdrantError

Json = dict[str, Any]

HNSW = {
    "m": 16,
    "ef_construct": 100,
    "full_scan_threshold": 10000,
    "max_indexing_threads": 0,
    "on_disk": False,
}
INDEXING_THRESHOLD_KB = 10000  # of unindexed vectors
OPTIMIZERS: Json = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": INDEXING_THRESHOLD_KB,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
}
WAL = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}

# (section, field): smallest, largest; the server's `Validate` attributes.
_RANGES: dict[str, tuple[float, float | None]] = {
    "hnsw_config.ef_construct": (4, None),
    "hnsw_config.full_scan_threshold": (10, None),
    "optimizers_config.deleted_threshold": (0, 1),
    "optimizers_config.vacuum_min_vector_number": (100, None),
    "optimizers_config.max_segment_size": (1, None),
    "wal_config.wal_capacity_mb": (1, None),
    "shard_number": (1, None),
    "replication_factor": (1, None),
    "write_consistency_factor": (1, None),
}
MAX_VECTOR_SIZE = 65536
FORBIDDEN_IN_NAMES = '<>:"/\\|?*\0\x1f'
MAX_NAME = 255


def check_name(name: str) -> None:
    """A collection's name, as the server checks it at creation."""
    if not 1 <= len(name) <= MAX_NAME:
        raise QdrantError("path", f"[name: value {name!r} invalid, must be from 1 to 255 characters]")
    for char in FORBIDDEN_IN_NAMES:
        if char in name:
            shown = {"\0": "\\0", "\x1f": "\\u{1f}"}.get(char, char)
            raise QdrantError("path", f'[name: collection name cannot contain "{shown}" char]')


def _check_range(field: str, value: Any, low: float, high: float | None) -> None:
    if value is None or (value >= low and (high is None or value <= high)):
        return
    must = f"must be {low} or larger" if high is None else f"must be from {low} to {high}"
    raise QdrantError("validation", f"[{field}: value {value} invalid, {must}]")


def check_ranges(body: Json) -> None:
    for field, (low, high) in _RANGES.items():
        section, _, name = field.rpartition(".")
        value = (body.get(section) or {}).get(name) if section else body.get(name)
        if not isinstance(value, (int, float)):
            continue
        _check_range(field, value, low, high)


def _given(diff: Json | None) -> Json:
    return {key: value for key, value in (diff or {}).items() if value is not None}


def _clean_vector(one: Json) -> Json:
    return _given(one)


def created(body: Json) -> Json:
    """The whole settings of a new collection. Raises `QdrantError` for what the server refuses."""
    check_ranges(body)
    vectors = body.get("vectors") or {}
    dense = {"": vectors} if is_unnamed(vectors) else vectors
    sparse = body.get("sparse_vectors") or {}
    for name, one in dense.items():
        where = f"vectors.{name}.size" if name else "vectors.size"
        _check_range(where, one["size"], 1, MAX_VECTOR_SIZE)
        if name in sparse:
            raise QdrantError("bad_input", f"Dense and sparse vectors have the same name: {name}")
    cleaned: Any = {name: _clean_vector(one) for name, one in dense.items()}
    params: Json = {
        "vectors": cleaned[""] if is_unnamed(vectors) else cleaned,
        "shard_number": body.get("shard_number") or 1,
        "replication_factor": body.get("replication_factor") or 1,
        "write_consistency_factor": body.get("write_consistency_factor") or 1,
        "on_disk_payload": body["on_disk_payload"] if body.get("on_disk_payload") is not None else True,
    }
    if body.get("sharding_method") is not None:
        params["sharding_method"] = body["sharding_method"]
    if sparse:
        params["sparse_vectors"] = {name: _given(one) for name, one in sparse.items()}
    for name in ("payload", "id_tracker"):
        if body.get(name) is not None:
            params[name] = body[name]
    settings: Json = {
        "params": params,
        "hnsw_config": {**HNSW, **_given(body.get("hnsw_config"))},
        "optimizer_config": {**OPTIMIZERS, **_threads(_given(body.get("optimizers_config")))},
        "wal_config": {**WAL, **_given(body.get("wal_config"))},
        "quantization_config": body.get("quantization_config"),
        "strict_mode_config": {"enabled": False, **_given(body.get("strict_mode_config"))},
    }
    if body.get("metadata"):
        settings["metadata"] = body["metadata"]
    return settings


def _threads(optimizers: Json) -> Json:
    """`max_optimization_threads: "auto"` is stored as none set."""
    if optimizers.get("max_optimization_threads") == "auto":
        optimizers["max_optimization_threads"] = None
    return optimizers


def patched(settings: Json, body: Json) -> Json:
    """The settings after PATCH: what is given replaces, what is absent stays."""
    check_ranges(body)
    new: Json = {**settings, "params": {**settings["params"]}}
    new["hnsw_config"] = {**settings["hnsw_config"], **_given(body.get("hnsw_config"))}
    new["optimizer_config"] = {
        **settings["optimizer_config"],
        **_threads(_given(body.get("optimizers_config") or body.get("optimizer_config"))),
    }
    new["params"].update(_given(body.get("params")))
    quantization = body.get("quantization_config")
    if quantization is not None:
        new["quantization_config"] = None if quantization == "Disabled" else quantization
    if body.get("strict_mode_config") is not None:
        new["strict_mode_config"] = {**settings["strict_mode_config"], **_given(body["strict_mode_config"])}
    if body.get("metadata") is not None:
        new["metadata"] = {**settings.get("metadata", {}), **body["metadata"]}
    if body.get("vectors"):
        new["params"]["vectors"] = _patched_vectors(settings["params"]["vectors"], body["vectors"])
    for name, diff in (body.get("sparse_vectors") or {}).items():
        sparse = new["params"].get("sparse_vectors") or {}
        if name not in sparse:
            raise QdrantError("bad_input", f"Not existing vector name error: {name}")
        new["params"]["sparse_vectors"] = {**sparse, name: {**sparse[name], **_given(diff)}}
    return new


def _patched_vectors(vectors: Json, diffs: Json) -> Json:
    unnamed = is_unnamed(vectors)
    named = {"": vectors} if unnamed else dict(vectors)
    for name, diff in diffs.items():
        if name not in named:
            raise QdrantError("bad_input", f"Not existing vector name error: {name}")
        one = dict(named[name])
        if diff.get("hnsw_config"):
            one["hnsw_config"] = {**one.get("hnsw_config", {}), **_given(diff["hnsw_config"])}
        quantization = diff.get("quantization_config")
        if quantization == "Disabled":
            one.pop("quantization_config", None)
        elif quantization is not None:
            one["quantization_config"] = quantization
        for key in ("on_disk", "memory"):
            if diff.get(key) is not None:
                one[key] = diff[key]
        named[name] = one
    return named[""] if unnamed else named


def is_unnamed(vectors: Json) -> bool:
    """Whether `vectors` are the parameters of one without a name; a vector may be called `size`, too."""
    return isinstance(vectors.get("size"), int)


def dense_vectors(settings: Json) -> dict[str, Json]:
    """Dense vectors by name; the unnamed one is `""`."""
    vectors = settings["params"]["vectors"]
    return {"": vectors} if is_unnamed(vectors) else vectors


def sparse_vectors(settings: Json) -> dict[str, Json]:
    sparse: dict[str, Json] = settings["params"].get("sparse_vectors") or {}
    return sparse


def is_custom_sharding(settings: Json) -> bool:
    return bool(settings["params"].get("sharding_method") == "custom")
