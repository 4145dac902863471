"""What the tables of agent frameworks mean."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.errors import ConfigError
from migrate.layouts.agentos import AGENTOS
from migrate.layouts.base import Layout, Reading, Sample, Wishes
from migrate.layouts.generic import GENERIC
from migrate.schema import Table

__all__ = ["LAYOUTS", "Layout", "Reading", "Sample", "Wishes", "by_name", "recognise"]

# The first that recognises a store reads it; `generic` recognises all, so it is last.
LAYOUTS: tuple[Layout, ...] = (AGENTOS, GENERIC)


def recognise(tables: Sequence[Table]) -> Layout:
    """Return the layout of a store, told by its tables and their columns."""
    return next(layout for layout in LAYOUTS if layout.recognises(tables))


def by_name(name: str) -> Layout:
    """Return a layout by its name. Raises ConfigError on one that there is not."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise ConfigError(f"no layout is called {name}", hint=f"known layouts: {known}")
