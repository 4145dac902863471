"""`memlift search STORE` and `memlift graph STORE NODE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from migrate.cli import out_json
from migrate.cli_signals import Interruption
from migrate.cli_text import Page, count_text, err, flush, out, printable
from migrate.errors import ConfigError
from migrate.search import embedders
from migrate.search.base import Edge, Hit, Means
from migrate.search.embedders import Embedder
from migrate.search.service import Found, Search
from migrate.search.vector_file import read_asked

_TEXT_LINES = 2  # of a hit's text on the page
_SHOWN_FIELDS = 4


def search(args: argparse.Namespace) -> int:
    """Search a store."""
    with (
        Interruption(at_once=True),
        Search(args.store, embedder=_embedder(args), means=_means(args)) as opened,
    ):
        found = opened.search(
            args.text,
            vector=None if args.vector is None else read_asked(args.vector),
            like=args.like,
            k=args.k,
            where=args.where,
            mode=args.mode,
            table=args.table,
            tenant=args.tenant,
            exact=args.exact,
        )
        for note in found.notes:
            err(f"note: {printable(note)}")
        if args.json:
            out_json(found.to_dict())
        else:
            out(found_text(found, Page.of(sys.stdout)))
        flush()  # closing a store may wait for an index that is being built
    return 0


def graph(args: argparse.Namespace) -> int:
    """Walk over a store's knowledge graph."""
    with Interruption(at_once=True), Search(args.store, means=_means(args)) as opened:
        if args.to is not None:
            walked = opened.paths(
                args.node, args.to, depth=args.depth or 4, tenant=args.tenant, direction=args.direction
            )
            paths, more = _first(walked, args.limit)
            document: dict[str, Any] = {"paths": [[_edge(e) for e in path] for path in paths], "more": more}
            lines = [_path_text(args.node, path) for path in paths] or [
                f"no path from {args.node} to {args.to} of at most {count_text(args.depth or 4, 'edge')}"
            ]
        else:
            seen = opened.neighbours(
                args.node, depth=args.depth or 1, tenant=args.tenant, direction=args.direction
            )
            edges, more = _first(seen, args.limit)
            document = {"edges": [_edge(e) for e in edges], "more": more}
            lines = [f"{e.depth}  {_edge_text(e)}" for e in edges] or [f"no edge at {args.node}"]
    if args.json:
        out_json(document)
    else:
        out("\n".join(dict.fromkeys(map(printable, lines))))
        if more:
            err(f"note: there are more; --limit {args.limit * 10} shows more of them")
    return 0


def _first(walked: Iterator[Any], limit: int) -> tuple[list[Any], bool]:
    """Return the first of an iterator, and whether there was more."""
    found = list(islice(walked, min(limit + 1, sys.maxsize)))
    return found[:limit], len(found) > limit


def _means(args: argparse.Namespace) -> Means:
    return Means() if args.quiet else Means(say=err)


def _embedder(args: argparse.Namespace) -> Embedder | None:
    if args.embedder is not None and args.embedder_command is not None:
        raise ConfigError("two embedders were given", hint="--embedder or --embedder-command")
    if args.embedder_command is not None:
        return embedders.Command(args.embedder_command)
    return None if args.embedder is None else embedders.load(args.embedder)


# --- for people -------------------------------------------------------------------


def found_text(found: Found, page: Page) -> str:
    """Return hits as a page: score, table, key, the first words of the text, some of the metadata."""
    if not found.hits:
        return "nothing found"
    lines: list[str] = []
    for hit in found.hits:
        key = ", ".join(map(str, hit.key))
        head = f"{_score(hit.score)}  {printable(hit.table)}  {printable(key)}"
        lines.append(page.paint(page.cut(head, page.width), "bold"))
        if hit.text:
            words = " ".join(hit.text.split())
            wrapped = page.wrapped(page.cut(words, _TEXT_LINES * (page.width - 8)), indent="        ")
            lines += wrapped[:_TEXT_LINES]
        fields = _fields(hit)
        if fields:
            lines.append(page.paint(page.cut(f"        {printable(fields)}", page.width), "dim"))
    how = "; ".join(dict.fromkeys(found.how.values()))
    tables = count_text(len(found.how), "table")
    return "\n".join(
        [*lines, "", f"{count_text(len(found.hits), 'hit')} by {found.mode} in {tables} ({how})"]
    )


def _score(score: float) -> str:
    return f"{score:.4f}" if abs(score) < 100 else f"{score:.4g}"


def _fields(hit: Hit) -> str:
    plain = ((n, v) for n, v in hit.metadata.items() if isinstance(v, str | int | float) and v != "")
    return "  ".join(f"{n} {str(v)[:40]}" for n, v in islice(plain, _SHOWN_FIELDS))


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "source": edge.source,
        "target": edge.target,
        "kind": edge.kind,
        "depth": edge.depth,
        "weight": edge.weight,
    }


def _edge_text(edge: Edge) -> str:
    weight = "" if edge.weight is None else f"  ({edge.weight:g})"
    return f"{edge.source} -[{edge.kind}]-> {edge.target}{weight}"


def _path_text(start: str, path: tuple[Edge, ...]) -> str:
    """Return a path as a line; an edge that was crossed backwards points back."""
    text, at = start, start
    for edge in path:
        if edge.source == at:
            text, at = f"{text} -[{edge.kind}]-> {edge.target}", edge.target
        else:
            text, at = f"{text} <-[{edge.kind}]- {edge.source}", edge.source
    return text
