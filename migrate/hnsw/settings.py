"""What an HNSW sidecar is built with, as data. The figures are those of docs/hnsw.md."""

from __future__ import annotations

from migrate.schema import Metric
from migrate.tiers import LIMITS

BUILD_FROM = int(LIMITS["sqlite"])
"""Vectors from which on a table gets a sidecar: below, looking at every vector is quick enough."""

M = 24
"""Links of an element a layer."""

EF_CONSTRUCTION = 100
"""How many candidates an insertion weighs. Of 100,000 x 384 with clusters, M 24 and 100 are built in half
the time of M 16 and 200, and find the same with the same width (0.993 and 0.998 with 32)."""

RECALL_K = 10
WANTED_RECALL = 0.975
"""Measured by vectors held out of the index while it is built: 80 of them tell a recall to about
0.01, so what is over this is over 0.95 for others, too."""

WANTED_DISTURBED = 0.95
"""By the same vectors with as much noise as they are long."""

EF_LADDER = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
"""Search widths that are tried; the smallest that finds enough is kept with the index. No width fits
all: for 100,000 x 384 in clusters 64 would do, of numbers without any structure 3,200 find 0.96, and
looking at every vector is as quick."""

QUERIES = 80
"""Held out to measure recall."""

MOST_DELETED = 0.2
"""Of an index: above this share it is built anew, for deleted elements are still walked over."""

MOST_CHANGED = 0.3
"""Of the rows: above this share building anew is quicker than changing."""

SPACES = {Metric.COSINE: "cosine", Metric.DOT: "ip", Metric.EUCLID: "l2"}
"""hnswlib's names. It has no Manhattan distance: such columns are compared exactly."""
