"""Search parity: proof that a migrated store still finds the same.

The exact nearest neighbours at the source are the truth; the target is asked as its
users ask it, through its indexes. See docs/parity.md.
"""

from __future__ import annotations

from migrate.search.parity.check import check
from migrate.search.parity.result import Parity, TableParity, Thresholds, Wanted

__all__ = ["Parity", "TableParity", "Thresholds", "Wanted", "check"]
