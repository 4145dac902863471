"""The control plane: indexes are created, listed, described, configured and deleted.

"Pinecone Control Plane API" 2026-07 and, for older versions in the header, its predecessor's bodies.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from integration.pinecone_emulator import schema
from integration.pinecone_emulator.errors import Code, Refusal, invalid, not_found
from integration.pinecone_emulator.limits import Limits
from integration.pinecone_emulator.schema import Definition, take, unprocessable

_COMMON = ("deletion_protection", "tags")
Answer = tuple[int, dict[str, Any] | None]


class ControlPlane:
    """Definitions by name. open_port, opened, changed, closed: what the emulator does around a change."""

    def __init__(
        self,
        limits: Limits,
        *,
        open_port: Callable[[], int],
        opened: Callable[[Definition], None],
        changed: Callable[[Definition], None],
        closed: Callable[[Definition], None],
        ready_after_s: float = 0.0,
    ) -> None:
        self.definitions: dict[str, Definition] = {}
        self._limits = limits
        self._open_port, self._opened, self._changed, self._closed = open_port, opened, changed, closed
        self._ready_after_s = ready_after_s

    def list_all(self, legacy: bool) -> Answer:
        names = sorted(self.definitions)
        return 200, {"indexes": [self._described(self.definitions[name], legacy) for name in names]}

    def describe(self, name: str, legacy: bool) -> Answer:
        return 200, self._described(self._existing(name), legacy)

    def create(self, body: Any, legacy: bool) -> Answer:
        """Create an index from a 2026-07 body, or from a legacy one when the version says so."""
        if legacy:
            given = take(body, ("name", "spec"), ("dimension", "metric", "vector_type", *_COMMON))
            fields, deployment, capacity = _legacy_shape(given, self._limits)
        else:
            given = take(body, ("schema",), ("name", "deployment", "read_capacity", "cmek_id", *_COMMON))
            fields = schema.schema_fields(given["schema"], self._limits)
            deployment = schema.deployment_of(given.get("deployment"))
            capacity = _capacity(given.get("read_capacity"))
        kind, dimension, metric, vector_type = schema.shape_of(fields)
        return self._add(
            given,
            legacy,
            kind=kind,
            fields=fields,
            dimension=dimension,
            metric=metric,
            vector_type=vector_type,
            deployment=deployment,
            read_capacity=capacity,
        )

    def create_for_model(self, body: Any, legacy: bool) -> Answer:
        """An index with integrated embedding: described truly; its text is embedded by `texts`."""
        given = take(body, ("name", "cloud", "region", "embed"), ("schema", "read_capacity", *_COMMON))
        embed = take(
            given["embed"],
            ("model", "field_map"),
            ("metric", "dimension", "read_parameters", "write_parameters"),
        )
        if embed["model"] not in schema.MODELS:
            raise not_found(f"Model '{embed['model']}' not found.")
        natural = schema.MODELS[embed["model"]]
        dimension = natural if natural is None else embed.get("dimension", natural)
        metric = embed.get("metric", "dotproduct" if natural is None else "cosine")
        text = next(iter(embed["field_map"].values()))
        described = {key: embed[key] for key in ("read_parameters", "write_parameters") if key in embed}
        return self._add(
            given,
            legacy,
            kind="integrated",
            fields={text: {"type": "semantic_text", "model": embed["model"], "metric": metric, **described}},
            dimension=dimension,
            metric=metric,
            vector_type="sparse" if natural is None else "dense",
            deployment=schema.deployment_of(
                {"deployment_type": "managed", **_only(given, "cloud", "region")}
            ),
            read_capacity=_capacity(given.get("read_capacity")),
            embed={**embed, "metric": metric, "dimension": dimension},
        )

    def _add(self, given: dict[str, Any], legacy: bool, **shape: Any) -> Answer:
        name = schema.check_name(given.get("name", f"index-{uuid.uuid4().hex[:12]}"), self._limits)
        tags = _tags(given.get("tags", {}))
        protection = _protection(given.get("deletion_protection", "disabled"))
        if name in self.definitions:
            raise Refusal(Code.ALREADY_EXISTS, "Resource already exists.")
        definition = Definition(
            name=name,
            uid=uuid.uuid4().hex,
            port=self._open_port(),
            deletion_protection=protection,
            tags={key: value for key, value in tags.items() if value},
            ready_at=time.time() + self._ready_after_s,
            **shape,
        )
        self.definitions[name] = definition
        self._opened(definition)
        return 201, self._described(definition, legacy)

    def configure(self, name: str, body: Any, legacy: bool) -> Answer:
        definition = self._existing(name)
        given = take(body, (), ("deployment", "schema", "read_capacity", "spec", "embed", *_COMMON))
        if "schema" in given or "embed" in given:
            raise invalid("The index schema cannot be modified after creation.")
        if not given:
            raise invalid(
                "At least one of deployment, read_capacity, deletion_protection or tags is required"
            )
        scaling = given.get("deployment") or given.get("spec", {}).get("pod")
        if scaling is not None:
            if definition.deployment["deployment_type"] != "pod":
                raise invalid("Only pod deployments can be scaled")
            definition.deployment |= take(scaling, (), ("replicas", "pod_type"))
        if "read_capacity" in given:
            definition.read_capacity = _capacity(given["read_capacity"])
        if "deletion_protection" in given:
            definition.deletion_protection = _protection(given["deletion_protection"])
        if "tags" in given:  # merged; an empty value removes the tag ("Configure an index")
            merged = definition.tags | _tags(given["tags"])
            definition.tags = {key: value for key, value in merged.items() if value}
        self._changed(definition)
        return 200, self._described(definition, legacy)

    def delete(self, name: str) -> Answer:
        definition = self._existing(name)
        if definition.deletion_protection == "enabled":
            raise Refusal(
                Code.PERMISSION_DENIED,
                "Deletion protection is enabled for this index. Disable deletion protection before retrying.",
            )
        del self.definitions[name]
        self._closed(definition)
        return 202, None

    def _existing(self, name: str) -> Definition:
        if name not in self.definitions:
            raise not_found(f"Resource {name} not found")
        return self.definitions[name]

    def _described(self, definition: Definition, legacy: bool) -> dict[str, Any]:
        return definition.described(time.time(), legacy=legacy)


def _legacy_shape(
    given: dict[str, Any], limits: Limits
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """(fields, deployment, read capacity) of a create body of the versions up to 2026-04."""
    sparse = given.get("vector_type", "dense") == "sparse"
    if sparse:
        if "dimension" in given:
            raise invalid("Dimension must not be specified for a sparse index")
        if given.get("metric", "dotproduct") != "dotproduct":
            raise invalid("Sparse indexes must use the dotproduct metric")
        fields = {schema.SPARSE: {"type": "sparse_vector"}}
    else:
        if "dimension" not in given:
            raise unprocessable("missing field `dimension`")
        fields = {schema.DENSE: schema.dense_field(given["dimension"], given.get("metric", "cosine"), limits)}
    spec = take(given["spec"], (), ("serverless", "pod", "byoc"))
    if len(spec) != 1:
        raise unprocessable("spec: expected one of `serverless`, `pod`, `byoc`")
    kind, rest = next(iter(spec.items()))
    rest = {key: value for key, value in rest.items() if key not in ("pods", "metadata_config", "schema")}
    capacity = _capacity(rest.pop("read_capacity", None))
    named = {"deployment_type": "managed" if kind == "serverless" else kind, **rest}
    deployed = schema.deployment_of(named, pods=True)
    return fields, deployed, capacity


def _only(given: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: given[key] for key in keys}


def _capacity(given: Any) -> dict[str, Any]:
    if given is None:
        return {"mode": "OnDemand"}
    if not isinstance(given, dict) or given.get("mode") not in ("OnDemand", "Dedicated"):
        raise unprocessable("read_capacity: unknown variant, expected `OnDemand` or `Dedicated`")
    return {key: value for key, value in given.items() if key != "status"}


def _protection(value: Any) -> str:
    if value not in ("enabled", "disabled"):
        raise unprocessable(f"deletion_protection: unknown variant `{value}`")
    return str(value)


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise unprocessable("tags: expected an object of strings")
    return value
