"""An index that memlift did not write, described as one table.

    namespace      TEXT, empty for the default namespace
    id             TEXT
    values         the dense vector (an index of sparse vectors has none)
    sparse_values  the sparse vector, NULL where a record has none
    metadata       JSON, the whole of it, NULL where there is none

Namespace and id are the key, so nothing of two tenants is ever mixed. Into Pinecone again, also by
way of other stores, go the records as they were.
"""

from __future__ import annotations

import re

from migrate.backends.pinecone.names import Form, Spot, metric_of
from migrate.backends.pinecone.shape import DIALECT
from migrate.batch import Row
from migrate.config import PineconeSettings
from migrate.schema import Column, Kind, Metric, Table


def table_name(settings: PineconeSettings, taken: set[str]) -> str:
    """Return the name of the table: the index's, by host its first label; free of the sidecar's names."""
    name = settings.index
    if not name:
        label = re.sub(r"^\w+://", "", str(settings.host)).split(".")[0]
        name = label if re.fullmatch(r"[a-z][a-z0-9-]*", label) else "records"
    while name in taken:
        name = f"{name}_records"
    return name


def describe(name: str, form: Form) -> Table:
    """Return the table of an index of this form."""
    columns = [
        Column("namespace", Kind.TEXT, nullable=False),
        Column("id", Kind.TEXT, nullable=False),
        Column("sparse_values", Kind.SPARSE, metric=Metric.DOT),
        Column("metadata", Kind.JSON),
    ]
    if not form.sparse:
        dense = Column("values", Kind.VECTOR, dim=form.dim, metric=metric_of(form.metric))
        columns.insert(2, dense)
    return Table(name, tuple(columns), ("namespace", "id"), dialect=DIALECT)


def namespace_of(table: Table, key: Row, spot: Spot) -> str:
    """Return the namespace of a key's record: its own where the table is a whole index."""
    return str(key[table.key.index("namespace")]) if spot.namespace is None else spot.namespace
