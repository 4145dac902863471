"""What an index is: the schema of a create request, and how both API generations describe it.

"Pinecone Control Plane API" 2026-07: an index is declared by fields. A schema of only the reserved fields
`_values` / `_sparse_values` is an index of the vectors API; other names make it a document index, whose
vector writes are refused. Up to 2026-04 a request has dimension, metric, vector_type and spec instead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from integration.pinecone_emulator.errors import Code, Refusal, invalid
from integration.pinecone_emulator.limits import Limits

DENSE, SPARSE = "_values", "_sparse_values"
METRICS = ("cosine", "euclidean", "dotproduct")
# "Create an index", table of cloud regions.
REGIONS = {
    "aws": ("us-east-1", "us-west-2", "eu-west-1", "ap-southeast-1"),
    "gcp": ("us-central1", "europe-west4"),
    "azure": ("eastus2",),
}
# Dimensions of the hosted dense models ("Models"); a sparse model has none.
MODELS: dict[str, int | None] = {
    "multilingual-e5-large": 1024,
    "llama-text-embed-v2": 1024,
    "pinecone-sparse-english-v0": None,
}
_SEARCHED = ("full_text_search", "embed", "sparse_embed")
_SEMANTIC = ("metric", "description", "read_parameters", "write_parameters")
Kind = Literal["vectors", "documents", "integrated"]


@dataclass(slots=True)
class Definition:
    """An index as stored. uid: unique over the emulator's life, so a new index under an old name is empty."""

    name: str
    uid: str
    port: int
    kind: Kind
    fields: dict[str, dict[str, Any]]
    dimension: int | None
    metric: str
    vector_type: Literal["dense", "sparse"]
    deployment: dict[str, Any]
    deletion_protection: str = "disabled"
    tags: dict[str, str] = field(default_factory=dict)
    read_capacity: dict[str, Any] = field(default_factory=lambda: {"mode": "OnDemand"})
    ready_at: float = 0.0
    embed: dict[str, Any] | None = None

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def described(self, now: float, *, legacy: bool) -> dict[str, Any]:
        """The IndexModel; legacy: of the versions up to 2026-04."""
        ready = now >= self.ready_at
        out: dict[str, Any] = {
            "name": self.name,
            "host": self.host,
            "status": {"ready": ready, "state": "Ready" if ready else "Initializing"},
            "deletion_protection": self.deletion_protection,
        }
        if self.tags:
            out["tags"] = self.tags
        capacity = {**self.read_capacity, "status": {"state": "Ready"}}
        if not legacy:
            out |= {"schema": {"fields": self.fields}, "deployment": self.deployment}
            return out if self.deployment["deployment_type"] == "pod" else out | {"read_capacity": capacity}
        out |= {"metric": self.metric, "vector_type": self.vector_type, "spec": self._spec(capacity)}
        if self.dimension is not None:
            out["dimension"] = self.dimension
        if self.embed is not None:
            out["embed"] = self.embed
        return out

    def _spec(self, capacity: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in self.deployment.items() if key != "deployment_type"}
        kind = self.deployment["deployment_type"]
        if kind == "pod":
            return {"pod": {**rest, "pods": rest["replicas"] * rest["shards"]}}
        return {"serverless" if kind == "managed" else "byoc": {**rest, "read_capacity": capacity}}


def unprocessable(message: str) -> Refusal:
    """422: JSON of the wrong shape, in the words of the 2026-07 file's example."""
    return Refusal(Code.UNPROCESSABLE, f"Failed to deserialize the JSON body into the target type: {message}")


def take(body: Any, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    """The body, if it is an object with these keys and no other."""
    if not isinstance(body, dict):
        raise unprocessable("expected an object")
    for key in body:
        if key not in required + optional:
            raise unprocessable(f"unknown field `{key}`")
    for key in required:
        if body.get(key) is None:
            raise unprocessable(f"missing field `{key}`")
    return {key: value for key, value in body.items() if value is not None}


def check_name(name: Any, limits: Limits) -> str:
    """ "Pinecone Database limits", identifier limits: at most 45 of a-z, 0-9 and -, none at the ends."""
    if not isinstance(name, str):
        raise unprocessable("name: expected a string")
    if not 1 <= len(name) <= limits.index_name_chars:
        raise invalid(f"Invalid index name: must be 1 to {limits.index_name_chars} characters long")
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    if not set(name) <= allowed or name[0] == "-" or name[-1] == "-":
        raise invalid(
            "Name must consist of lower case alphanumeric characters or '-', and must start and end with "
            "an alphanumeric character"
        )
    return name


def dense_field(dimension: Any, metric: Any, limits: Limits) -> dict[str, Any]:
    if isinstance(dimension, bool) or not isinstance(dimension, int):
        raise unprocessable("dimension: expected an integer")
    if not 1 <= dimension <= limits.dimension:
        raise invalid(f"Dimension must be between 1 and {limits.dimension}, got {dimension}")
    if metric not in METRICS:
        raise unprocessable(
            f"unknown variant `{metric}`, expected one of `cosine`, `euclidean`, `dotproduct`"
        )
    return {"type": "dense_vector", "dimension": dimension, "metric": metric}


def schema_fields(schema: Any, limits: Limits) -> dict[str, dict[str, Any]]:
    """The searched fields of a 2026-07 create request, checked."""
    given = take(schema, ("fields",), ())["fields"]
    if not isinstance(given, dict) or not given:
        raise invalid("schema must declare at least one searched field")
    out: dict[str, dict[str, Any]] = {}
    for name, declared in given.items():
        if not isinstance(declared, dict) or "type" not in declared:
            raise unprocessable(f"schema.fields.{name}: missing field `type`")
        kind = declared["type"]
        if kind == "dense_vector":
            checked = take(declared, ("type", "dimension", "metric"), ("description",))
            out[name] = {**checked, **dense_field(checked["dimension"], checked["metric"], limits)}
        elif kind == "sparse_vector":
            out[name] = take(declared, ("type",), ("description", "metric"))
        elif kind == "semantic_text":
            out[name] = take(declared, ("type", "model"), _SEMANTIC)
        elif kind == "string":
            out[name] = _string_field(name, declared)
        else:
            raise unprocessable(f"schema.fields.{name}: unknown variant `{kind}`")
    return out


def _string_field(name: str, declared: dict[str, Any]) -> dict[str, Any]:
    """A text field; as the SDK's integration tests record, the two refusals differ in status."""
    if any(declared.get(key) is not None for key in _SEARCHED):
        return dict(declared)
    if "filterable" not in declared:
        raise unprocessable(f"schema.fields.{name}: data did not match any variant of a string field")
    raise invalid(f"Invalid schema: field '{name}': index creation only accepts fields used for search")


def shape_of(fields: dict[str, dict[str, Any]]) -> tuple[Kind, int | None, str, Literal["dense", "sparse"]]:
    """(kind, dimension, metric, vector type) of an index with these fields."""
    dense = [one for one in fields.values() if one["type"] == "dense_vector"]
    sparse = [one for one in fields.values() if one["type"] == "sparse_vector"]
    kind: Kind = "vectors" if set(fields) <= {DENSE, SPARSE} and (dense or sparse) else "documents"
    if dense:
        return kind, dense[0]["dimension"], dense[0]["metric"], "dense"
    return kind, None, "dotproduct", "sparse" if sparse else "dense"


def deployment_of(given: Any, *, pods: bool = False) -> dict[str, Any]:
    """A checked deployment; without one the service chooses (2026-07 file, example "default-deployment").

    pods: may be asked for; from 2026-07 on they cannot be created any more (the SDK's migration guide).
    """
    if given is None:
        return {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
    if not isinstance(given, dict) or "deployment_type" not in given:
        raise unprocessable("deployment: missing field `deployment_type`")
    kind = given["deployment_type"]
    if kind == "managed":
        out = take(given, ("deployment_type", "cloud", "region"), ("environment",))
        if out["region"] not in REGIONS.get(out["cloud"], ()):
            message = f"Resource cloud: {out['cloud']} region: {out['region']} not found."
            raise Refusal(Code.NOT_FOUND, message)
        return out
    if kind == "pod":
        if not pods:
            raise invalid("Pod-based indexes cannot be created in this API version")
        out = take(given, ("deployment_type", "environment", "pod_type"), ("replicas", "shards"))
        return {"replicas": 1, "shards": 1, **out}
    if kind == "byoc":
        return take(given, ("deployment_type", "environment"), ())
    raise unprocessable(f"deployment: unknown variant `{kind}`, expected one of `managed`, `pod`, `byoc`")
