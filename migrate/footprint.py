"""What a vector index takes: memory and disk by vectors, dimensions and m, for each kind of store.

All figures are bytes, for HNSW graphs with the m that memlift gives them (pgvector and Qdrant: 16,
their default). What a formula rests on stands with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from migrate.hnsw.settings import M as SIDECAR_M

M = 16
_PAGE = 8192 - 24 - 8  # a Postgres page without its header and the index's own footer
_HALF_FROM = 2000  # pgvector indexes up to 2,000 dimensions as float32, more as float16
Shapes = Iterable[tuple[int, int]]
"""(vectors, dimensions) of each table."""


def hnswlib(shapes: Shapes, m: int = SIDECAR_M) -> int:
    """Return the memory of indexes by hnswlib.

    Beside its vector an element has 2m links of 4 bytes, their count, a label, a pointer and its share of
    the upper levels: 148 bytes were measured at m = 16, 225 at 24. Some 65 more are its entry in the
    table of labels. The project's own rule of thumb is 8 to 10 bytes times m
    (https://github.com/nmslib/hnswlib/blob/v0.8.0/ALGO_PARAMS.md).
    """
    return sidecar_file(shapes := list(shapes), m) + sum(65 * n for n, _ in shapes)


def sidecar_file(shapes: Shapes, m: int = SIDECAR_M) -> int:
    """Return the size of their files, in which the table of labels is not."""
    return sum(n * (4 * dim + 8 * m + 33) for n, dim in shapes)


def pgvector(shapes: Shapes, m: int = M) -> int:
    """Return the size of pgvector's indexes: what should stay in the server's memory.

    An element is its vector (4 bytes a dimension and 8, half of it over 2,000 dimensions), ten places
    for row pointers of 6 and a header of 16, and a tuple of 3m neighbours of 6 bytes in the middle; both
    lie whole in one page of 8 kB, whose rest stays empty. 20,000 x 384 make 41 MB, as measured.
    """
    return sum(8192 * -(-n // _to_a_page(dim, m)) for n, dim in shapes if n)


def _to_a_page(dim: int, m: int) -> int:
    """Return how many elements fit into a page; at least one does (or pgvector refuses the index)."""
    width = 2 if dim > _HALF_FROM else 4
    element = 16 + 60 + 8 + width * dim + 4
    neighbours = 8 + 6 * (2 * m + m // (m - 1)) + 4
    return max(_PAGE // (element + neighbours), 1)


def pgvector_build(shapes: Shapes, m: int = M) -> int:
    """Return the memory that pgvector wants to build the largest index at once (maintenance_work_mem).

    In memory a neighbour takes 16 bytes and an element some 150 beside its vector; with less, the
    build goes on in the index's pages, and slowly.
    """
    return max((n * (4 * dim + 150 + 16 * 2 * m) for n, dim in shapes), default=0)


def qdrant(shapes: Shapes, quantization: str | None = None) -> int:
    """Return the memory that Qdrant wants for vectors and graph.

    The makers' formula: vectors x dimensions x 4 bytes x 1.5
    (https://qdrant.tech/documentation/capacity-planning/). Scalar quantization keeps one byte a
    dimension in memory, binary one bit, and the originals on disk; the graph stays as it is.
    """
    bytes_a_dim = {None: 4.0, "scalar": 1.0, "binary": 1 / 8}[quantization]
    graph = 8 * M + 20
    return round(sum(n * max(dim * bytes_a_dim * 1.5, dim * bytes_a_dim + graph) for n, dim in shapes))


def machine_memory() -> int | None:
    """Return this machine's memory, or what its container may use of it; None where nothing tells."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return min(whole, int(text)) if text.isdigit() else whole
    return whole
