"""`memlift advise STORE`: what was measured, the tier that fits, the price of the move, and when the next is due."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from migrate import progress
from migrate.advising import Advice
from migrate.advising import advise as advice_for
from migrate.cli import out_json
from migrate.cli_signals import Interruption
from migrate.cli_text import Page, count_text, out, printable, size_text, time_text

_BAR = 40
_LABEL = 10


def advise(args: argparse.Namespace) -> int:
    """Say which tier fits a store."""
    with Interruption(at_once=True):
        found = advice_for(
            args.store,
            thresholds=dict(args.threshold),
            servers=not args.no_servers,
            writers=args.writers,
            observer=progress.observer(quiet=args.quiet),
        )
    if args.json:
        out_json(found.to_dict())
    else:
        out(advice_text(found, Page.of(sys.stdout)))
    return 0


def advice_text(found: Advice, page: Page) -> str:
    """Return advice as a page for people."""
    lines = [page.paint(printable(found.store), "bold"), *_measured(found.measured, page), ""]
    stays = found.tier == found.current
    verdict = f"stay in {found.tier}" if stays else f"move to {found.tier}"
    lines.append(page.paint(verdict, "green" if stays else "yellow"))
    for reason in found.reasons:
        lines += page.wrapped(reason, "    ", "  - ")
    if found.move:
        lines += ["", *_move(found, page)]
    lines += ["", *_next(found, page)]
    return "\n".join(lines)


def _row(page: Page, label: str, text: str) -> list[str]:
    return page.wrapped(text, " " * (_LABEL + 2), f"  {label:<{_LABEL}}")


def _measured(m: dict[str, Any], page: Page) -> list[str]:
    about = "" if m["exact"] else "about "
    lines = _row(
        page,
        "rows",
        f"{count_text(m['rows'], 'row')} in {count_text(m['tables'], 'table')}, {about}{size_text(m['bytes'])}",
    )
    dims = sorted({str(d["dim"]) for d in m["dims"] if d["vectors"] and d["dim"]})
    vectors = f"{about}{count_text(m['vectors'], 'vector')}"
    if dims:
        vectors += f" of {' and '.join(dims)} dimensions, {size_text(m['vector_bytes'])}"
    lines += _row(page, "vectors", vectors)
    lines += _row(page, "growth", _growth(m))
    lines += _row(page, "query", _latency(m))
    lines += _row(page, "writers", _writers(m["writers"]))
    if (tenants := m["tenants"]) is not None:
        least = "" if tenants["exact"] else "at least "
        text = f"{least}{count_text(tenants['count'], 'tenant')} ({tenants['columns']})"
        if tenants["count"] > 1:
            text += f", the largest has {count_text(tenants['largest_rows'], 'row')}"
        lines += _row(page, "tenants", text)
    return lines


def _growth(m: dict[str, Any]) -> str:
    growth = m["growth"]
    if growth is None:
        return str(m["growth_note"])
    what = "vectors" if m["vectors"] else "rows"
    text = (
        f"{growth['per_week']:,.0f} {what} a week (median of {growth['weeks']} weeks, by {growth['column']})"
    )
    return f"{text}; none since {growth['newest']}" if growth["stale"] else text


def _latency(m: dict[str, Any]) -> str:
    ms = m["latency_ms"]
    if ms is None:
        return str(m["latency_note"])
    return f"{_ms(ms['p50'])} at p50, {_ms(ms['p95'])} at p95 ({ms['how']}; {ms['queries']} queries to {ms['table']})"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.2g} ms"


def _writers(seen: dict[str, Any]) -> str:
    parts = [] if seen["count"] is None else [f"{seen['count']:,} {seen['how']}"]
    if seen["busy"]:
        parts.append(f"{seen['busy']} of them writing just now")
    return "; ".join([*parts, *([seen["note"]] if seen["note"] else [])])


def _move(found: Advice, page: Page) -> list[str]:
    move = found.move or {}
    parts = []
    if (seconds := move["seconds"]) is not None:
        parts.append(f"{time_text(seconds['low'])} to {time_text(seconds['high'])}, with all checks")
    if move["disk_bytes"] is not None:
        parts.append(f"{size_text(move['disk_bytes'])} on disk")
    lines = page.wrapped("the move takes " + ", ".join(parts) if parts else str(move["note"]))
    took = move["memory_bytes"]
    if "float32" in took:
        text = f"its vector index wants {size_text(took['float32'])} of memory"
        if "scalar" in took:
            text += f" ({size_text(took['scalar'])} quantized to bytes, {size_text(took['binary'])} to bits)"
        if "build" in took:
            text += f", and {size_text(took['build'])} while it is built"
        lines += page.wrapped(text)
    return [*lines, page.paint(f"  {printable(found.command or '')}", "bold")]


def _next(found: Advice, page: Page) -> list[str]:
    after = found.next
    if after["tier"] is None:
        return [f"next: {after['says']}"]
    lines = page.wrapped(
        f"next: {after['tier']}, from {after['at_vectors']:,} vectors on; {after['left']:,} to go; {after['says']}"
    )
    done = 1 - after["left"] / max(after["at_vectors"], 1)
    full, empty = ("#", ".") if page.plain else ("█", "░")
    filled = round(done * _BAR)
    return [*lines, f"  {page.paint(full * filled, 'green')}{empty * (_BAR - filled)} {done:.0%}"]
