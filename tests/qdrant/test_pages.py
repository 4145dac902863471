"""Reading a collection in ranges of ids: all points once, a cursor anywhere goes on without gap or overlap."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.backends.qdrant import pages
from migrate.backends.qdrant.engine import Info, Point
from migrate.errors import TransientError

IDS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 50), st.uuids().map(str))


class Shelf:
    """Points by ascending id, numbers before UUIDs, as a server scrolls over them."""

    parallel = True

    def __init__(self, ids: list[Any]) -> None:
        self.ids = sorted(set(ids), key=lambda i: (isinstance(i, str), i))

    def scroll(self, name: str, limit: int, offset: Any, **asked: Any) -> tuple[list[Point], Any]:
        def reached(i: Any) -> bool:
            return offset is None or (isinstance(i, str), i) >= (isinstance(offset, str), offset)

        found = [
            i for i in self.ids if (not isinstance(i, str) or not isinstance(offset, int)) and reached(i)
        ]
        if isinstance(offset, int):
            found += [i for i in self.ids if isinstance(i, str)]
        after = found[limit] if len(found) > limit else None
        return [Point(i, {}, {}) for i in found[:limit]], after

    def shard_keys(self, name: str) -> list[Any]:
        return []


def read(shelf: Any, left: list[pages.Range], at_once: int = 3) -> list[tuple[list[Any], list[Any]]]:
    found = pages.Pages(shelf, "c", left, payload=True, vectors=[], at_once=at_once)
    return [([p.id for p in points], after) for points, after in found]


def ranges(shelf: Any) -> list[pages.Range]:
    info = Info({"params": {"vectors": {}}}, len(shelf.ids), 0, "green")
    return pages.ranges(shelf, "c", info)


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(IDS, max_size=40), cut=st.integers(0, 12))
def test_every_point_is_read_once_also_after_any_cursor(ids: list[Any], cut: int) -> None:
    shelf = Shelf(ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "SPLIT_POINTS", 4)
        left = ranges(shelf)
        found = read(shelf, left)
        assert sorted(map(str, (i for page, _ in found for i in page))) == sorted(map(str, shelf.ids))
        assert found == read(shelf, left)
        if found:
            first = found[: cut % len(found) + 1]
            rest = read(shelf, [pages.Range(*one) for one in first[-1][1]])
            read_twice = [i for page, _ in (*first, *rest) for i in page]
            assert sorted(map(str, read_twice)) == sorted(map(str, shelf.ids))


def test_large_collections_are_read_in_several_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SPLIT_POINTS", 100)
    numbers, words = Shelf(list(range(100, 500))), Shelf([str(uuid.uuid4()) for _ in range(200)])
    assert [r.to_json() for r in ranges(numbers)] == [
        [None, 200, None],
        [200, 300, None],
        [300, 400, None],
        [400, None, None],
    ]
    assert [r.end for r in ranges(words)] == [
        "40000000-0000-0000-0000-000000000000",
        "80000000-0000-0000-0000-000000000000",
        "c0000000-0000-0000-0000-000000000000",
        None,
    ]
    assert len(ranges(Shelf([1, 2]))) == 1


def test_pages_grow_and_shrink_with_the_size_of_rows() -> None:
    found = pages.Pages(Shelf([]), "c", [], payload=True, vectors=[], at_once=5000)  # type: ignore[arg-type]
    found.seen(16, 16 * 100)
    assert found._limit == 64
    found.seen(64, 64 * 100_000)
    assert found._limit == pages.AHEAD_BYTES // 100_000
    found.seen(10, 10 * 2**30)
    assert found._limit == 1


def test_an_error_while_reading_ahead_is_raised_by_the_one_who_reads() -> None:
    class Broken(Shelf):
        def scroll(self, name: str, limit: int, offset: Any, **asked: Any) -> Any:
            if offset is not None:
                raise TransientError("gone")
            return super().scroll(name, limit, offset, **asked)

    with pytest.raises(TransientError, match="gone"):
        read(Broken(list(range(10))), [pages.Range()])
