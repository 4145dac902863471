"""The report of a run as a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from migrate.cli_parity import search_lines
from migrate.cli_text import Field, Page, columns, count_text, printable, size_text, time_text
from migrate.report import SHOWN, Report, TableReport


def report_text(report: Report, page: Page, *, error: str | None = None) -> str:
    """Return the whole report. `error`: what the run failed with; it is told elsewhere."""
    lines = [_head(report, page), ""]
    if report.tables:
        lines += _planned(report, page) if report.dry_run else _done(report, page)
        lines.append("")
    lines += _summary(report, page)
    if report.search is not None:
        lines += [*([""] if lines[-1] else []), *search_lines(report.search, page), ""]
    if report.promotion is not None:
        lines += [*_promotion(report.promotion, page), ""]
    lines += _misfits(report, page)
    lines += _differences(report, page)
    for text in report.errors:
        if text != error:
            lines += page.wrapped(f"error: {text}", "  ")
    lines += _left_behind(report, page)
    notes = [*report.notes, *(f"{t.name}: {note}" for t in report.tables for note in t.notes)]
    for text in notes:
        lines += page.wrapped(f"note: {text}", "  ")
    for text in report.warnings:
        lines += [page.paint(line, "yellow") for line in page.wrapped(f"warning: {text}", "  ")]
    used = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in report.usage.items() if n)
    if used:
        lines += page.wrapped(f"used: {used}", "  ")
    if report.quarantine:
        lines += page.wrapped(f"exact values of cells that did not fit are kept in {report.quarantine}", "  ")
    return "\n".join(lines).rstrip()


def _head(report: Report, page: Page) -> str:
    to = report.target if report.target else "any store"
    text = f"{report.source} {page.arrow} {to}"
    layout = f"  ({report.layout} layout)" if report.layout != "generic" else ""
    return page.paint(printable(text), "bold") + layout


# --- a run --------------------------------------------------------------------

_RUN = (
    Field("", left=True),
    Field("table", left=True),
    Field("rows"),
    Field("written"),
    Field("unchanged"),
    Field("extra"),
    Field("vector", keep=4),
    Field("size", keep=1),
    Field("copy", keep=3),
    Field("index", keep=2),
    Field("verify", keep=3),
)


def _done(report: Report, page: Page) -> list[str]:
    rows = [_run_row(t, report, page) for t in report.tables]
    t = report.tables
    total = [
        "",
        "all",
        f"{report.total_rows:,}",
        f"{sum(x.rows_written for x in t):,}",
        _some(sum(x.rows_unchanged for x in t)),
        _some(sum(x.rows_extra for x in t)),
        "",
        size_text(sum(x.bytes for x in t)) if any(x.bytes for x in t) else "",
        *(_took(sum(getattr(x, f) for x in t)) for f in ("copy_s", "index_s", "verify_s")),
    ]
    lines = columns(page, _RUN, [*rows, total], ends=1)
    return [_mark_colour(line, page) for line in lines]


def _run_row(t: TableReport, report: Report, page: Page) -> list[str]:
    mark = page.yes if t.verified else page.no if t.differs else ""
    return [
        mark,
        t.name,
        f"{t.rows_source:,}",
        f"{t.rows_written:,}",
        _some(t.rows_unchanged),
        _some(t.rows_extra),
        _vector(t),
        size_text(t.bytes) if t.bytes else "",
        *(_took(s) for s in (t.copy_s, t.index_s, t.verify_s)),
    ]


def _mark_colour(line: str, page: Page) -> str:
    for mark, look in ((page.yes, "green"), (page.no, "red")):
        if line.startswith(mark + " "):
            return page.paint(mark, look) + line[len(mark) :]
    return line


def _some(n: int) -> str:
    return f"{n:,}" if n else "-"


def _took(seconds: float) -> str:
    return time_text(seconds) if seconds else "-"


def _vector(t: TableReport) -> str:
    if t.vector is None:
        return ""
    dim = t.vector.get("dim")
    return f"{dim} dims" if dim else "many dims"


# --- a dry run ----------------------------------------------------------------

_PLAN = (
    Field("table", left=True),
    Field("kind", left=True, keep=1),
    Field("rows"),
    Field("size"),
    Field("key", left=True, keep=3),
    Field("vector", left=True, keep=4),
    Field("misfits", keep=5),
    Field("read in", keep=2),
)


def _planned(report: Report, page: Page) -> list[str]:
    rows = [
        [
            t.name,
            t.kind,
            f"{t.rows_source:,}",
            size_text(t.bytes),
            ", ".join(t.key) or "none",
            _vector_plan(t),
            _some(int(t.misfits["cells"])),
            time_text(t.audit_s),
        ]
        for t in report.tables
    ]
    total = [
        "all",
        "",
        f"{report.total_rows:,}",
        size_text(sum(t.bytes for t in report.tables)),
        "",
        "",
        _some(report.misfits),
        time_text(sum(t.audit_s for t in report.tables)),
    ]
    lines = columns(page, _PLAN, [*rows, total], ends=1)
    if any(t.types for t in report.tables):
        lines += ["", page.paint("types in the target, tables in the order of writing", "dim")]
        for n, t in enumerate(report.tables, 1):
            types = ", ".join(f"{name} {kind}" for name, kind in t.types.items())
            lines += page.wrapped(f"{t.name}: {types}", "     ", f"{n:3}  ")
    return lines


def _vector_plan(t: TableReport) -> str:
    if t.vector is None:
        return ""
    metric = t.vector.get("metric")
    return f"{t.vector['column']}, {_vector(t)}" + (f", {metric}" if metric else "")


# --- below the table ----------------------------------------------------------


def _summary(report: Report, page: Page) -> list[str]:
    spent = sum(t.audit_s + t.copy_s + t.index_s + t.verify_s for t in report.tables)
    took = time_text(report.duration_ms / 1000 or spent)
    tables = count_text(len(report.tables), "table")
    if report.dry_run:
        lines = [f"{count_text(report.total_rows, 'row')} in {tables} read in {took}; nothing was written"]
        return [part for line in lines + _estimate(report.estimate) for part in page.wrapped(line)]
    if not report.tables:
        return []
    written = sum(t.rows_written for t in report.tables)
    copy_s = sum(t.copy_s for t in report.tables)
    parts = [f"{count_text(report.total_rows, 'row')} in {tables}, {took} in all"]
    if written and copy_s:
        parts.append(f"{count_text(written, 'row')} copied at {written / copy_s:,.0f} rows/s")
    if report.resumed:
        parts.append("an earlier run was continued")
    return [*page.wrapped("; ".join(parts)), _verdict(report, page)]


def _promotion(told: dict[str, Any], page: Page) -> list[str]:
    """Return whether a memory is in another tier now, and why in that one."""
    if told["moved"]:
        text = f"moved from {told['before'] or 'another store'} to {told['tier']}; the new address is saved in {told['saved']}"
        lines = [page.paint(line, "green") for line in page.wrapped(text)]
    elif told["tier"] == told["before"]:
        lines = page.wrapped(f"it stays in {told['tier']}")
    else:
        lines = page.wrapped(f"it would move from {told['before'] or 'this store'} to {told['tier']}")
    for reason in told["reasons"]:
        lines += page.wrapped(reason, "    ", "  - ")
    return lines


_HOW = {"full": "every row compared", "counts": "rows counted"}


def _how(report: Report) -> str:
    if report.verify_mode != "sample":
        return _HOW.get(report.verify_mode, "")
    checked = sum(t.rows_checked for t in report.tables)
    return f"a sample of {checked:,} of {count_text(report.total_rows, 'row')} compared"


def _verdict(report: Report, page: Page) -> str:
    if report.verified:
        return page.paint(f"verified: {_how(report)}, no difference", "green")
    if report.differs:
        return page.paint(f"not verified: {count_text(report.differs, 'row differs', 'rows differ')}", "red")
    return page.paint("not verified", "yellow")


def _estimate(estimate: dict[str, Any]) -> list[str]:
    if not estimate:
        return []
    lines = []
    if "seconds" in estimate:
        lines.append(
            f"estimated time: about {time_text(estimate['seconds'])} (a guess by size, not a promise)"
        )
    if "target_bytes" in estimate:
        text = f"estimated size in the target: {size_text(estimate['target_bytes'])}"
        free = estimate.get("free_bytes")
        lines.append(text + (f"; free there: {size_text(free)}" if free is not None else ""))
    if "upserts" in estimate:
        lines.append(
            f"estimated: {estimate['upserts']:,} upserts, {size_text(estimate['bytes_sent'])} sent,"
            f" {estimate['write_units']:,} write units; {estimate['read_units']:,} read units to verify a sample"
        )
    return lines


def _misfits(report: Report, page: Page) -> list[str]:
    if not report.misfits:
        return []
    lines = [
        "",
        page.paint(f"{count_text(report.misfits, 'cell does', 'cells do')} not fit the target", "red"),
    ]
    shown = [(t.name, m) for t in report.tables for m in t.misfits["shown"]]
    for table, m in shown[:SHOWN]:
        place = f"{table}" + (f".{m['column']}" if m["column"] else "")
        key = f" where key is {_key(m['key'])}" if m["key"] is not None else ""
        lines += page.wrapped(f"{place}{key}: {m['reason']}", "    ", "  ")
    if report.misfits > min(len(shown), SHOWN):
        lines.append(
            f"  and {report.misfits - min(len(shown), SHOWN):,} more (--json lists more of each table)"
        )
    return [*lines, ""]


def _differences(report: Report, page: Page) -> list[str]:
    if not report.differs:
        return []
    lines = [""]
    for t in report.tables:
        if t.differs:
            d = t.differences
            text = f"{t.name}: {d['missing']:,} missing, {d['extra']:,} extra, {d['different']:,} different"
            lines.append(page.paint(printable(text), "red"))
            for shown in d["shown"][:SHOWN]:
                what = f"{shown['what']}: key {_key(shown['key'])}"
                if shown.get("columns"):
                    what += f", columns {', '.join(shown['columns'])}"
                lines += page.wrapped(what, "    ", "  ")
            if t.differs > len(d["shown"]) > 0:
                lines.append(f"  and {t.differs - len(d['shown']):,} more")
    return [*lines, ""]


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    return ", ".join(map(str, key)) if isinstance(key, Sequence) else str(key)


def _left_behind(report: Report, page: Page) -> list[str]:
    rebuilt = [n["name"] for n in report.not_carried if n.get("derived")]
    lost = [n for n in report.not_carried if not n.get("derived")]
    lines: list[str] = []
    if rebuilt:
        lines += page.wrapped(f"derived, not copied: {', '.join(rebuilt)}", "  ")
    for n in lost:
        lines += page.wrapped(f"not carried: {n['name']} ({n['reason']})", "  ")
    return lines
