"""A collection's settings in REST form as the embedded engine's own configuration.

Imported by the engine's process alone, which knows nothing of the rest of memlift.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

Json = dict[str, Any]

_DISTANCES = {name.lower(): getattr(edge.Distance, name) for name in ("Cosine", "Dot", "Euclid", "Manhattan")}
_DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
_RATIOS = {f"x{n}": getattr(edge.CompressionRatio, f"X{n}") for n in (4, 8, 16, 32, 64)}
_BITS = {
    "one_bit": edge.BinaryQuantizationEncoding.OneBit,
    "two_bits": edge.BinaryQuantizationEncoding.TwoBits,
    "one_and_half_bits": edge.BinaryQuantizationEncoding.OneAndHalfBits,
}
_TURBO_BITS = {f"bits{n}": getattr(edge.TurboQuantBitSize, f"Bits{n}") for n in ("1", "1_5", "2", "4", "8")}
_INDEXES = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "bool": edge.BoolIndexParams,
    "geo": edge.GeoIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
    "text": edge.TextIndexParams,
}
# Of payload indexes, what the engine's constructors take by these names.
_INDEX_OPTIONS = {
    "keyword": {"is_tenant", "on_disk"},
    "integer": {"lookup", "range", "is_principal", "on_disk"},
    "float": {"is_principal", "on_disk"},
    "uuid": {"is_tenant", "on_disk"},
    "datetime": {"is_principal", "on_disk"},
    "bool": {"on_disk"},
    "geo": {"on_disk"},
    "text": {"lowercase", "min_token_len", "max_token_len", "on_disk"},
}
_HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0}


def hnsw(given: Json | None) -> Any:
    """Return the engine's HNSW settings; what is not given is the server's default."""
    if given is None:
        return None
    said = {**_HNSW, **{k: v for k, v in given.items() if v is not None}}
    more = {k: said[k] for k in ("on_disk", "payload_m") if k in said}
    return edge.HnswIndexConfig(
        said["m"], said["ef_construct"], said["full_scan_threshold"], said["max_indexing_threads"], **more
    )


def quantization(given: Json | None) -> Any:
    """Return the engine's quantization settings, None for none (or a kind it does not build)."""
    if not given:
        return None
    if "scalar" in given:
        one = given["scalar"]
        return edge.ScalarQuantizationConfig(
            edge.ScalarType.Int8, quantile=one.get("quantile"), always_ram=one.get("always_ram")
        )
    if "binary" in given:
        one = given["binary"]
        return edge.BinaryQuantizationConfig(
            always_ram=one.get("always_ram"), encoding=_BITS.get(one.get("encoding"))
        )
    if "product" in given:
        one = given["product"]
        return edge.ProductQuantizationConfig(_RATIOS[one["compression"]], always_ram=one.get("always_ram"))
    if "turbo" in given:
        one = given["turbo"]
        return edge.TurboQuantQuantizationConfig(
            always_ram=one.get("always_ram"), bits=_TURBO_BITS.get(one.get("bits"))
        )
    return None


def _dense(given: Json) -> Any:
    multi = given.get("multivector_config")
    return edge.EdgeVectorParams(
        given["size"],
        _DISTANCES[given["distance"].lower()],
        on_disk=given.get("on_disk"),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if multi else None,
        datatype=_DATATYPES.get(given.get("datatype") or ""),
        quantization_config=quantization(given.get("quantization_config")),
        hnsw_config=hnsw(given.get("hnsw_config")),
    )


def _sparse(given: Json) -> Any:
    index = given.get("index") or {}
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        on_disk=index.get("on_disk"),
        modifier=edge.Modifier.Idf if given.get("modifier") == "idf" else None,
        datatype=_DATATYPES.get(index.get("datatype") or given.get("datatype") or ""),
    )


def config(settings: Json) -> Any:
    """Return an `EdgeConfig`. The write-ahead log stays on: without it `kill -9` loses every row."""
    given = settings.get("vectors") or {}
    dense = {"": given} if isinstance(given.get("size"), int) else given  # `size` may be a vector's name
    vectors = {name: _dense(one) for name, one in dense.items()}
    sparse = {name: _sparse(one or {}) for name, one in (settings.get("sparse_vectors") or {}).items()}
    if not vectors and not sparse:
        sparse["memlift_none"] = edge.EdgeSparseVectorParams()  # the engine has no shard without vectors
    optimizers = settings.get("optimizers_config") or {}
    return edge.EdgeConfig(
        vectors=vectors,
        sparse_vectors=sparse,
        on_disk_payload=settings.get("on_disk_payload"),
        hnsw_config=hnsw(settings.get("hnsw_config")) if vectors else None,
        quantization_config=quantization(settings.get("quantization_config")) if vectors else None,
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers.get("deleted_threshold"),
            vacuum_min_vector_number=optimizers.get("vacuum_min_vector_number"),
            default_segment_number=optimizers.get("default_segment_number") or None,
            max_segment_size=optimizers.get("max_segment_size"),
            indexing_threshold=optimizers.get("indexing_threshold"),
        ),
    )


def index_params(schema: Json) -> Any:
    """Return the engine's parameters of a payload index `{"type": ..., options}`."""
    kind = schema["type"]
    options = {k: v for k, v in schema.items() if k in _INDEX_OPTIONS[kind] and v is not None}
    if kind == "integer":
        options = {"lookup": True, "range": True, **options}
    return _INDEXES[kind](**options)


def schema_of(info: Any) -> Json:
    """Return a payload index of the engine as `{"type": ..., options}`."""
    kind = str(info.data_type).rpartition(".")[2].lower()
    found: Json = {"type": kind}
    for name in sorted(_INDEX_OPTIONS.get(kind, ())):
        value = getattr(info.params, name, None)
        if isinstance(value, (bool, int)):
            found[name] = value
    return found
