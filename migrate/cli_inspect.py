"""`memlift inspect STORE`."""

from __future__ import annotations

import argparse
import sys

from migrate import progress
from migrate.cli import out_json
from migrate.cli_signals import Interruption
from migrate.cli_text import Field, Page, columns, count_text, out, printable, size_text
from migrate.inspect import Inspection
from migrate.inspect import inspect as look_into

_FIELDS = (
    Field("table", left=True),
    Field("kind", left=True, keep=1),
    Field("rows"),
    Field("size"),
    Field("key", left=True, keep=2),
    Field("vector", left=True, keep=3),
)


def inspect(args: argparse.Namespace) -> int:
    """Show what is in a store."""
    with Interruption(at_once=True):
        found = look_into(args.store, progress.observer(quiet=args.quiet))
    if args.json:
        out_json(found.to_dict())
    else:
        out(inspection_text(found, Page.of(sys.stdout)))
    return 0


def inspection_text(found: Inspection, page: Page) -> str:
    """Return a store's contents as a page for people."""
    rows = [
        [
            t.name,
            t.kind,
            f"{t.rows:,}",
            ("" if t.exact else "~") + size_text(t.bytes),
            ", ".join(t.key) or "none",
            ", ".join(str(x) for x in (t.vector["column"], t.vector["dim"], t.metric) if x)
            if t.vector
            else "",
        ]
        for t in found.tables
    ]
    about = "~" if any(not t.exact for t in found.tables) else ""
    total = [
        "all",
        "",
        f"{sum(t.rows for t in found.tables):,}",
        about + size_text(sum(t.bytes for t in found.tables)),
        "",
        "",
    ]
    lines = [page.paint(printable(found.store), "bold"), f"layout: {found.layout}", ""]
    lines += columns(page, _FIELDS, [*rows, total], ends=1)
    lines += ["", f"tier: {found.tier} ({found.why})"]
    rebuilt = [n["name"] for n in found.not_carried if n["derived"]]
    others = [n for n in found.not_carried if not n["derived"]]
    if rebuilt:
        lines += page.wrapped(f"derived, not copied by a migration: {', '.join(rebuilt)}")
    for n in others:
        lines += page.wrapped(f"not carried by a migration: {n['name']} ({n['reason']})")
    if not found.tables:
        lines.append(f"{count_text(0, 'table')}: there is nothing to migrate")
    return "\n".join(lines)
