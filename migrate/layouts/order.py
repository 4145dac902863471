"""Tables put in an order in which parents come before their children."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.schema import Table


def parents_first(tables: Sequence[Table]) -> list[Table]:
    """Return the tables so that a row's parents are loaded before it.

    The given order is kept wherever keys allow; a table that refers to itself
    is no obstacle, and of tables in a circle the first given comes first.
    """
    by_name = {table.name: table for table in tables}
    ordered: dict[str, Table] = {}
    entered: set[str] = set()
    # An explicit stack: a chain of a thousand tables must not meet Python's recursion limit.
    for start in tables:
        stack = [(start, False)]
        while stack:
            table, parents_done = stack.pop()
            if parents_done:
                ordered.setdefault(table.name, table)
            elif table.name not in entered:
                entered.add(table.name)
                stack.append((table, True))
                parents = [by_name[k.parent] for k in table.foreign_keys if k.parent in by_name]
                stack += [(p, False) for p in reversed(parents) if p.name not in entered]
    return list(ordered.values())
