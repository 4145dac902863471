"""The check of search on the command line: its options, and its figures as a page for people."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from migrate.cli_text import Field, Page, columns, printable
from migrate.errors import ConfigError

if TYPE_CHECKING:
    from migrate.search.parity import Wanted

_THRESHOLDS = (
    ("--min-recall", "share of the true neighbours that must be found (default 0.95)"),
    ("--min-correlation", "how well the order must agree, -1 to 1 (default 0.9)"),
    ("--max-score-drift", "how far scores of one pair may differ (default 0.00001)"),
    ("--min-filter-parity", "share of filters that must find the same rows (default 1)"),
    ("--min-keyword-overlap", "share of keyword hits that both must have (default: only reported)"),
    ("--max-latency-ratio", "p95 of the target to that of the source (default: only reported)"),
)
_SPARKS, _PLAIN_SPARKS = " ▁▂▃▄▅▆▇█", " .:-=+*%#"


def add_options(command: argparse.ArgumentParser, *, vector: bool) -> None:
    """Add the options of a check of search. vector: `--vector FILE` too, where that name is free."""
    group = command.add_argument_group("how search is checked")
    group.add_argument(
        "--queries", type=int, metavar="N", help="nearest-neighbour queries a table (default 50)"
    )
    group.add_argument("-k", type=int, metavar="K", help="how many neighbours (default 10)")
    if vector:
        group.add_argument(
            "--vector",
            action="append",
            default=[],
            metavar="FILE",
            help="ask for this vector too: a JSON array or a .npy file (again for more)",
        )
    group.add_argument(
        "--filter", action="append", default=[], metavar="JSON", help="try this filter too (again for more)"
    )
    for name, text in _THRESHOLDS:
        group.add_argument(name, type=float, metavar="X", help=text)


def wanted_of(
    args: argparse.Namespace, *, asked: bool, indexed: bool, vectors: Sequence[str]
) -> Wanted | None:
    """Return the check that was asked for, None where none was. Raises ConfigError for what makes no sense."""
    names = [name.removeprefix("--").replace("-", "_") for name, _ in _THRESHOLDS]
    given = {n: value for n in (*names, "queries", "k") if (value := getattr(args, n)) is not None}
    if not asked:
        if given or args.filter or vectors:
            option = "--" + next(iter(given), "filter" if args.filter else "vector").replace("_", "-")
            raise ConfigError(
                f"{option} says how search is checked, and no check was asked for",
                hint="add --search to verify, --check-search to migrate",
            )
        return None
    from migrate.search.parity import Thresholds, Wanted
    from migrate.search.vector_file import read_vectors

    sizes = {n: given.pop(n) for n in ("queries", "k") if n in given}
    wanted = Wanted(
        **sizes,
        vectors=tuple(v for file in vectors for v in read_vectors(file)),
        filters=tuple(_filter(text) for text in args.filter),
        thresholds=Thresholds(**given),
        indexed=indexed,
    )
    wanted.check()
    return wanted


def _filter(text: str) -> dict[str, Any]:
    from migrate.search.filters import parse

    parse(text)
    found: dict[str, Any] = json.loads(text)
    return found


# --- the page -----------------------------------------------------------------

_FIELDS = (
    Field("", left=True),
    Field("search in", left=True),
    Field("queries", keep=3),
    Field("recall"),
    Field("0 to 1", left=True, keep=4),
    Field("order", keep=5),
    Field("filters"),
    Field("words", keep=2),
    Field("drift", keep=1),
    Field("p95 source", keep=6),
    Field("p95 target", keep=6),
)


def search_lines(search: dict[str, Any], page: Page) -> list[str]:
    """Return the `search` of a report as lines: a table, then what is wrong, then the verdict."""
    rows = [_row(t, page) for t in search["tables"]]
    lines = [_coloured(line, page) for line in columns(page, _FIELDS, rows)] if rows else []
    for table in search["tables"]:
        for different in table["filters"].get("different", [])[:5]:
            text = (
                f"{table['name']}: {different['filter']} finds other rows:"
                f" {different['missing']} missing, {different['extra']} extra"
            )
            lines += page.wrapped(text, "    ", "  ")
        for note in table["notes"]:
            named = note if note.startswith(f"{table['name']}:") else f"{table['name']}: {note}"
            lines += page.wrapped(f"note: {named}", "  ")
    for failure in search["failures"]:
        lines += [page.paint(line, "red") for line in page.wrapped(failure, "    ", "  ")]
    return [*lines, _verdict(search, page)]


def _row(t: dict[str, Any], page: Page) -> list[str]:
    latency = t["latency_ms"]
    drift = t["score_drift"]
    return [
        page.no if t["failures"] else page.yes,
        t["name"],
        str(t["queries"] or t["keyword_queries"]),
        _share(t["recall_at_k"]),
        _spark(t["recall_histogram"], page),
        _share(t["rank_correlation"]),
        f"{t['filters']['equal']}/{t['filters']['run']}" if t["filters"].get("run") else "-",
        _share(t["keyword_overlap"]),
        f"{drift['max']:.0e}" if drift else "-",
        _ms(latency.get("source")),
        _ms(latency.get("target")),
    ]


def _coloured(line: str, page: Page) -> str:
    for mark, look in ((page.yes, "green"), (page.no, "red")):
        if line.startswith(mark + " "):
            return page.paint(mark, look) + line[len(mark) :]
    return line


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ms(side: dict[str, float | None] | None) -> str:
    p95 = side.get("p95") if side else None
    return "-" if p95 is None else f"{p95:.3g} ms"


def _spark(counts: Sequence[int], page: Page) -> str:
    """Return a histogram in one line: queries by recall, from 0 on the left to 1 on the right."""
    if not any(counts):
        return ""
    sparks = _PLAIN_SPARKS if page.plain else _SPARKS
    most = max(counts)
    # What is there at all is seen: one bad query of a hundred is a low bar, not a gap.
    levels = (0 if not n else max(1, round(n / most * (len(sparks) - 1))) for n in counts)
    return "".join(sparks[level] for level in levels)


def _verdict(search: dict[str, Any], page: Page) -> str:
    k, n = search["k"], search["queries"]
    if search["failures"]:
        return page.paint("search does not find the same", "red")
    if not n:
        return page.paint("search: there was nothing to ask for", "yellow")
    recall = search["recall_at_k"]
    return page.paint(
        printable(f"search finds the same: recall@{k} {recall:.3f} over {n:,} queries"), "green"
    )
