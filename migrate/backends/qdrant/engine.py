"""The small protocol behind which the embedded engine and a server look the same.

Settings of a collection travel in the form of the REST API (`CreateCollection`
in the public OpenAPI), whichever engine keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Json = dict[str, Any]
PointId = int | str  # an unsigned 64-bit number, or a UUID as lower-case hyphenated text
ShardKey = int | str


class Sparse(NamedTuple):
    """A sparse vector: ascending packed u32 indices, packed float32 values."""

    indices: bytes
    values: bytes


class Multi(NamedTuple):
    """A multivector: packed float32 rows of `dim` one after another."""

    dim: int
    data: bytes


Packed = bytes | Sparse | Multi  # bytes: a dense vector as packed float32


class Point(NamedTuple):
    """One point. `vectors` by name, the unnamed one is `""`; `shard` is its shard key, where there is one."""

    id: PointId
    vectors: dict[str, Packed]
    payload: Json
    shard: ShardKey | None = None


class Scored(NamedTuple):
    """A point that a query found: higher is better but for Euclid and Manhattan, which give distances."""

    point: Point
    score: float


def dense_vectors(given: Json | None) -> dict[str, Json]:
    """Return the parameters of dense vectors by name, of what REST calls `vectors`: the unnamed one is `""`.

    One by itself has a number as its size; `size` may be a vector's name, too.
    """
    found = given or {}
    return {"": found} if isinstance(found.get("size"), int) else dict(found)


@dataclass(frozen=True, slots=True)
class Info:
    """A collection as it stands.

    settings: `params`, `hnsw_config`, `optimizer_config`, `quantization_config` as REST tells them.
    schema:   payload indexes, {field as `names.own_path`: {"type": ..., parameters}}.
    metadata: the collection's own, ours under `memlift`.
    status:   "green": nothing waits to be optimized; "yellow": being optimized; "grey": waits for an
              update to be optimized; "red": an error.
    hidden:   points that no read tells until they are optimized (`prevent_unoptimized`, since 1.17.1).
    """

    settings: Json
    points: int
    indexed: int
    status: str
    schema: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    trouble: str | None = None
    hidden: int = 0

    @property
    def dense(self) -> int:
        """Return how many dense vectors a point may have."""
        return len(dense_vectors(self.settings["params"].get("vectors")))

    @property
    def strict(self) -> Json:
        """Return the limits of strict mode; none where it is off."""
        found: Json = self.settings.get("strict_mode_config") or {}
        return found if found.get("enabled") else {}

    @property
    def custom_shards(self) -> bool:
        """Whether points are in shards by keys of their own, so that one id may be in several."""
        return bool(self.settings["params"].get("sharding_method") == "custom")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a payload may be on an engine's path.

    depth:  nested levels of objects and lists that are taken and read again.
    weight: the same counted in protobuf messages, or None where no protobuf is on the way.
    cell:   bytes of the largest cell.
    """

    depth: int = 100  # at 123 an embedded shard can never be opened again
    weight: int | None = None
    cell: int = 32 * 2**20


# A request has to stay below 32 MiB with all its cells. Protobuf readers stop at 100 nested messages.
SERVER_LIMITS = Limits(depth=100, weight=84, cell=4 * 2**20)


class Engine(Protocol):
    """Collections of points. Its errors are ours: TransientError where another try may help."""

    limits: Limits
    parallel: bool  # whether several reads at once are quicker than one after another

    @property
    def distributed(self) -> bool:
        """Whether new collections can have custom shard keys."""
        ...

    @property
    def inserts_only(self) -> bool:
        """Whether `insert_only` is kept; where it is not, see who is `present` before."""
        ...

    @property
    def fuses(self) -> bool:
        """Whether `rrf` queries are answered."""
        ...

    def describe(self) -> str:
        """Return its address without secrets."""
        ...

    def names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        ...

    def aliases(self) -> dict[str, str]:
        """Return {alias: collection}."""
        ...

    def alias(self, name: str, alias: str) -> None:
        """Give a collection another name. Idempotent."""
        ...

    def info(self, name: str) -> Info | None:
        """Return a collection as it stands, or None where there is none."""
        ...

    def metadata(self, name: str) -> Json:
        """Return a collection's metadata, without opening it."""
        ...

    def create(self, name: str, settings: Json, metadata: Json) -> None:
        """Make a collection. Raises SchemaError where there already is one."""
        ...

    def shard_keys(self, name: str) -> list[ShardKey]:
        """Return the custom shard keys of a collection, sorted; none where it has no such shards."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection. Idempotent."""
        ...

    def pack(self, name: str, points: Sequence[Point], *, insert_only: bool = False) -> bytes:
        """Return points as they are sent. Touches no connection; any thread may call it.

        insert_only: a point of the same id stays as it is.
        """
        ...

    def send(self, name: str, packed: bytes) -> None:
        """Upsert packed points; they may be under way until `settle`. Raises what an earlier one met."""
        ...

    def settle(self) -> None:
        """Return when everything sent is durable; raise where something was not taken."""
        ...

    def post(self, name: str, point: Point) -> None:
        """Upsert one point, apart from those that are sent; durable on return. Any thread may call it."""
        ...

    def abandon(self) -> None:
        """Forget what is still under way. Idempotent."""
        ...

    def delete(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> None:
        """Remove points; durable on return. Ids that are not there are no error.

        shard: must be given in a collection with custom shard keys.
        """
        ...

    def scroll(
        self,
        name: str,
        limit: int,
        offset: PointId | None,
        *,
        payload: bool = True,
        vectors: bool | Sequence[str] = True,
        shard: ShardKey | None = None,
    ) -> tuple[list[Point], PointId | None]:
        """Return points by ascending id (numbers, then UUIDs) from `offset` on, and where to go on.

        shard: only the points of this shard key. Without it an id that several shards have is told once.
        """
        ...

    def query(self, name: str, asked: Sequence[Json]) -> list[list[Scored]]:
        """Answer queries in the form of the REST API, best points first, without vectors.

        `nearest` and `rrf` queries, with prefetches, search parameters, and filters of `match`, `range`,
        `is_empty`, `is_null`, `has_id` and `has_vector`.
        """
        ...

    def retrieve(
        self,
        name: str,
        ids: Sequence[PointId],
        *,
        payload: bool = True,
        vectors: bool | Sequence[str] = False,
    ) -> list[Point]:
        """Return the points of some ids, in any order; those that are not there are left out."""
        ...

    def present(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> set[PointId]:
        """Return those of some ids that there are points of."""
        ...

    def count(self, name: str) -> int:
        """Return the exact number of points."""
        ...

    def index_payload(self, name: str, field: str, schema: Json) -> None:
        """Build a payload index. Idempotent; durable after `settle`."""
        ...

    def change(self, name: str, settings: Json) -> None:
        """Change settings of a collection that need nothing to be built."""
        ...

    def index(self, name: str, settings: Json, progress: Callable[[int, int], None]) -> None:
        """Switch indexing on with these settings and wait until the collection is green."""
        ...

    def reconnect(self) -> None:
        """Open again after a TransientError."""
        ...

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...
