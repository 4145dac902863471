"""Names here: a table's namespace, the indexes of one address, and where a table is kept."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from migrate.backends.pinecone.limits import INDEX_NAME_CHARS, NAMESPACE_CHARS
from migrate.errors import ConfigError
from migrate.schema import Metric

DEFAULT_SHOWN = "__default__"  # the default namespace in lists and statistics
BOOKS = "memlift_places"  # our own namespace in an index: one record for each namespace that we made
TAG = "memlift"  # the tag of indexes that we made; its value is the sidecar's identity
_INDEX_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_FORBIDDEN = re.compile(r"[^ -~]")
_METRICS = {Metric.COSINE: "cosine", Metric.DOT: "dotproduct", Metric.EUCLID: "euclidean"}
_KNOWN = {name: metric for metric, name in _METRICS.items()}


class Form(NamedTuple):
    """What one index holds: dense vectors of one dimension and metric, or (dim 0) sparse ones.

    metric: empty where only an index's host is known, and it does not tell.
    """

    dim: int
    metric: str

    @property
    def sparse(self) -> bool:
        """Whether records have sparse vectors alone."""
        return self.dim == 0

    def __str__(self) -> str:
        if self.sparse:
            return "sparse vectors"
        return f"vectors of {self.dim} dimensions" + (f" ({self.metric})" if self.metric else "")

    def takes(self, other: Form) -> bool:
        """Whether vectors of another form can be kept here; a metric that is not told is no hindrance."""
        return self.dim == other.dim and self.metric in ("", other.metric)


SPARSE = Form(0, "dotproduct")


def metric_name(metric: Metric | None) -> str | None:
    """Return Pinecone's name of a metric, cosine where none is known, None for one it has not."""
    return _METRICS.get(metric or Metric.COSINE)


def metric_of(name: str) -> Metric | None:
    """Return the metric of Pinecone's name; None for the empty one."""
    return _KNOWN.get(name)


def _hash(text: str, n: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:n]


def namespace_name(prefix: str | None, table: str) -> str:
    """Return a table's namespace: its name, behind `prefix:` where there is one."""
    name = f"{prefix}:{table}" if prefix else table
    fit = _FORBIDDEN.sub("_", name)[: NAMESPACE_CHARS - 12]
    if fit == name and name and name not in (DEFAULT_SHOWN, BOOKS):
        return name
    return f"{fit}_{_hash(name, 10)}"


def is_namespace(cell: object) -> bool:
    """Whether a cell names a namespace of somebody else's; the empty text is the default one."""
    if type(cell) is not str or cell in (DEFAULT_SHOWN, BOOKS):
        return False
    return cell.isascii() and "\0" not in cell and len(cell) <= NAMESPACE_CHARS


def index_name(base: str, form: Form) -> str:
    """Return the name of a second index beside `base`, for vectors of another form."""
    tail = "-sparse" if form.sparse else f"-{form.dim}-{form.metric}"
    if len(base) + len(tail) <= INDEX_NAME_CHARS:
        return base + tail
    return f"{base[: INDEX_NAME_CHARS - len(tail) - 7].rstrip('-')}-{_hash(base, 6)}{tail}"


def check_index_name(name: str) -> None:
    """Raise ConfigError for a name that no index can be made under."""
    if len(name) > INDEX_NAME_CHARS or not _INDEX_NAME.fullmatch(name):
        raise ConfigError(
            f"a Pinecone index cannot be called {name!r}",
            hint=f"a-z, 0-9 and hyphens between them, {INDEX_NAME_CHARS} at most",
        )


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a table is: an index by name (empty: the one whose host was given) and a namespace.

    A namespace of None stands for all namespaces of the index: a table that came from a whole index.
    """

    index: str
    namespace: str | None

    def __str__(self) -> str:
        return self.index + ("" if self.namespace is None else f"/{self.namespace}")

    @classmethod
    def parse(cls, text: str) -> Spot:
        """Return the spot that `str` has written; no index's name has a slash."""
        index, slash, namespace = text.partition("/")
        return cls(index, namespace if slash else None)


def asked(shown: str) -> str:
    """Return the name by which requests call a namespace that a list or statistics show."""
    return "" if shown == DEFAULT_SHOWN else shown


def shown(name: str) -> str:
    """Return the name under which lists and statistics show a namespace."""
    return name or DEFAULT_SHOWN
