"""Collection settings (as REST JSON) -> the engine's configuration and index parameters."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from integration.qdrant_server.settings import is_unnamed

Json = dict[str, Any]

# Never filled and never shown: it stands in where a collection has no vector at all.
NO_VECTOR = "__no_vector__"

DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Euclid": edge.Distance.Euclid,
    "Dot": edge.Distance.Dot,
    "Manhattan": edge.Distance.Manhattan,
}
DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
COMPRESSION = {
    "x4": edge.CompressionRatio.X4,
    "x8": edge.CompressionRatio.X8,
    "x16": edge.CompressionRatio.X16,
    "x32": edge.CompressionRatio.X32,
    "x64": edge.CompressionRatio.X64,
}
_ENCODINGS = {
    "one_bit": edge.BinaryQuantizationEncoding.OneBit,
    "two_bits": edge.BinaryQuantizationEncoding.TwoBits,
    "one_and_half_bits": edge.BinaryQuantizationEncoding.OneAndHalfBits,
}
_QUERY_ENCODINGS = {
    "default": edge.BinaryQuantizationQueryEncoding.Default,
    "binary": edge.BinaryQuantizationQueryEncoding.Binary,
    "scalar4bits": edge.BinaryQuantizationQueryEncoding.Scalar4Bits,
    "scalar8bits": edge.BinaryQuantizationQueryEncoding.Scalar8Bits,
}
_SCHEMAS = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "geo": edge.GeoIndexParams,
    "text": edge.TextIndexParams,
    "bool": edge.BoolIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
}
_TOKENIZERS = {
    "prefix": edge.TokenizerType.Prefix,
    "whitespace": edge.TokenizerType.Whitespace,
    "word": edge.TokenizerType.Word,
    "multilingual": edge.TokenizerType.Multilingual,
}


def vectors_of(params: Json) -> dict[str, Json]:
    """The dense vectors of a collection by name; the unnamed one is `""`."""
    vectors = params.get("vectors") or {}
    return {"": vectors} if is_unnamed(vectors) else vectors


def hnsw(settings: Json | None) -> Any:
    """All engine arguments are positional and required, so defaults come from the collection."""
    if settings is None:
        return None
    extra = {k: settings[k] for k in ("on_disk", "payload_m") if settings.get(k) is not None}
    # One indexing thread: the machine's cores are shared with the tests.
    return edge.HnswIndexConfig(
        settings["m"], settings["ef_construct"], settings["full_scan_threshold"], 1, **extra
    )


def quantization(settings: Json | None) -> Any:
    if not settings:
        return None
    if "scalar" in settings:
        scalar = settings["scalar"]
        return edge.ScalarQuantizationConfig(
            edge.ScalarType.Int8, quantile=scalar.get("quantile"), always_ram=scalar.get("always_ram")
        )
    if "product" in settings:
        product = settings["product"]
        return edge.ProductQuantizationConfig(
            COMPRESSION[product["compression"]], always_ram=product.get("always_ram")
        )
    if "binary" in settings:
        binary = settings["binary"]
        return edge.BinaryQuantizationConfig(
            always_ram=binary.get("always_ram"),
            encoding=_ENCODINGS.get(binary.get("encoding")),
            query_encoding=_QUERY_ENCODINGS.get(binary.get("query_encoding")),
        )
    return None  # turbo quantization is kept in the settings and not built


def _dense(one: Json, collection: Json) -> Any:
    own = one.get("hnsw_config")
    merged = {**collection["hnsw_config"], **{k: v for k, v in (own or {}).items() if v is not None}}
    multi = one.get("multivector_config")
    return edge.EdgeVectorParams(
        one["size"],
        DISTANCES[one["distance"]],
        on_disk=one.get("on_disk"),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if multi else None,
        datatype=DATATYPES.get(one.get("datatype") or ""),
        quantization_config=quantization(one.get("quantization_config")),
        hnsw_config=hnsw(merged) if own else None,
    )


def _sparse(one: Json) -> Any:
    index = one.get("index") or {}
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        on_disk=index.get("on_disk"),
        modifier=edge.Modifier.Idf if one.get("modifier") == "idf" else None,
        datatype=DATATYPES.get(index.get("datatype") or ""),
    )


def edge_config(collection: Json) -> Any:
    """The engine's configuration; its write-ahead log stays on."""
    params = collection["params"]
    optimizer = collection["optimizer_config"]
    dense = {name: _dense(one, collection) for name, one in vectors_of(params).items()}
    sparse = {name: _sparse(one or {}) for name, one in (params.get("sparse_vectors") or {}).items()}
    if not dense and not sparse:
        # The server has collections without any vector, the engine has not.
        sparse[NO_VECTOR] = edge.EdgeSparseVectorParams()
    return edge.EdgeConfig(
        vectors=dense,
        sparse_vectors=sparse,
        on_disk_payload=params.get("on_disk_payload"),
        hnsw_config=hnsw(collection["hnsw_config"]) if dense else None,
        quantization_config=quantization(collection.get("quantization_config")) if dense else None,
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizer.get("deleted_threshold"),
            vacuum_min_vector_number=optimizer.get("vacuum_min_vector_number"),
            default_segment_number=optimizer.get("default_segment_number") or 1,
            max_segment_size=optimizer.get("max_segment_size"),
            indexing_threshold=optimizer.get("indexing_threshold"),
        ),
        max_search_threads=1,
    )


def index_params(schema: Json | str) -> Any:
    """A payload index: its type alone, or `{"type": ..., parameters}`."""
    if isinstance(schema, str):
        schema = {"type": schema}
    given = {k: v for k, v in schema.items() if k != "type" and v is not None}
    # Memory placement, stemmers and stopwords are kept in the schema we give back; the
    # engine's index is built without them.
    for name in ("memory", "stopwords", "stemmer", "scoring", "prefix"):
        given.pop(name, None)
    if "tokenizer" in given:
        given["tokenizer"] = _TOKENIZERS[given["tokenizer"]]
    return _SCHEMAS[schema["type"]](**given)
