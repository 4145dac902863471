"""Points drawn from a collection, spread over it, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from migrate.backends.qdrant.engine import Engine, Point, PointId

PAGE = 1000
_SMALL = 10_000  # points whose ids are all read
_PLACES = 40


def drawn(
    engine: Engine, name: str, rows: int, n: int, seed: int, vectors: bool | Sequence[str]
) -> list[Point]:
    """Return more than n points, for some may have no vector or no text.

    rows: how many there are, about. Of a large collection some are taken from each of
    forty places: ids that are no numbers lie at random.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret
    wanted = 2 * n + 50
    if rows <= _SMALL:
        ids = [point.id for page in pages(engine, name, payload=False) for point in page]
    else:
        ids = [
            i
            for _ in range(_PLACES)
            for i in _from_somewhere(engine, name, rows, draw, -(-wanted // _PLACES))
        ]
        ids = list(dict.fromkeys(ids))
    chosen = draw.sample(ids, min(len(ids), wanted))
    there = {p.id: p for p in engine.retrieve(name, chosen, payload=True, vectors=vectors)}
    return [there[i] for i in chosen if i in there]


def pages(engine: Engine, name: str, *, payload: bool) -> Iterator[list[Point]]:
    """Yield all points, without their vectors."""
    offset: PointId | None = None
    while True:
        points, offset = engine.scroll(name, PAGE, offset, payload=payload, vectors=False)
        yield points
        if offset is None:
            return


def _from_somewhere(engine: Engine, name: str, rows: int, draw: random.Random, n: int) -> list[PointId]:
    first, _ = engine.scroll(name, 1, None, payload=False, vectors=False)
    if first and isinstance(first[0].id, int):
        offset: PointId = draw.randrange(max(rows, 1))
    else:
        offset = f"{draw.getrandbits(32):08x}-0000-0000-0000-000000000000"
    page, _ = engine.scroll(name, n, offset, payload=False, vectors=False)
    return [point.id for point in page]
