"""Which cells a target's types can hold, judged a column at a time.

A backend names one rule for each column; everything else is here: finding the
cells that do not fit, and turning a batch into rows that do fit plus the exact
values that are kept beside them. A rule looks at a whole column with a few
calls into C and looks at single cells only where that look was not enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Protocol

from migrate import values, vectors
from migrate.batch import ExactCell, Row
from migrate.jsontext import jsonb_problem
from migrate.schema import Table

_NONE = type(None)
INT64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Found:
    """One cell (or, with column None, one row) that the target cannot hold as it is.

    instead:  what is written in its place.
    harmless: the value is there in the target's own form as well (a vector that
              was JSON text): kept exactly, but no reason to refuse the run.
    """

    row: int
    column: int | None
    reason: str
    instead: Any = None
    harmless: bool = False


class Rule(Protocol):
    """What one column of a target can hold."""

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """Yield what does not fit (`column` is filled in by the caller); NULL always fits here."""
        ...

    def nearest(self, cell: Any) -> Any:
        """Return a valid value to stand where NULL is not allowed."""
        ...


def _others(cells: Sequence[Any], kind: type, what: str) -> Iterator[Found]:
    """Yield the cells of another type than the column's, where there are any."""
    types = set(map(type, cells))
    types.discard(kind)
    types.discard(_NONE)
    if types:
        for i, cell in enumerate(cells):
            if cell is not None and type(cell) is not kind:
                yield Found(i, None, f"{_name(cell)} in a column of {what}")


def _name(cell: Any) -> str:
    return {int: "an integer", float: "a real", str: "a text", bytes: "a blob", bool: "a boolean"}[type(cell)]


@dataclass(frozen=True, slots=True)
class Typed:
    """Cells of one Python type and no other (`bytes`, `float`, `bool`)."""

    type: type
    what: str
    zero: Any

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        return _others(cells, self.type, self.what)

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return cell if type(cell) is self.type else self.zero


@dataclass(frozen=True, slots=True)
class Integers:
    """Integers from `low` to `high`."""

    low: int = INT64[0]
    high: int = INT64[1]
    what: str = "64-bit integers"

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        types = set(map(type, cells))
        numbers = cells
        if types != {int}:
            yield from _others(cells, int, "integers")
            numbers = [c for c in cells if type(c) is int]
        if numbers and (min(numbers) < self.low or max(numbers) > self.high):
            for i, cell in enumerate(cells):
                if type(cell) is int and not self.low <= cell <= self.high:
                    yield Found(i, None, f"an integer beyond {self.what}")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        if type(cell) is int:
            return min(max(cell, self.low), self.high)
        return 0


def whole(cell: float) -> bool:
    """Whether SQLite's INTEGER and NUMERIC affinities make an integer of this double."""
    return cell.is_integer() and INT64[0] < cell < INT64[1]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Doubles, and integers that a double holds exactly: a column of SQLite's NUMERIC affinity.

    SQLite itself keeps a whole number as an integer there, so reading makes
    whole doubles integers again; a whole double that is none cannot be told apart.
    """

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        for i, cell in enumerate(cells):
            if cell is None:
                continue
            if type(cell) is float:
                if whole(cell):
                    yield Found(i, None, "a whole real in a column of numbers")
            elif type(cell) is not int:
                yield Found(i, None, f"{_name(cell)} in a column of numbers")
            elif abs(cell) > 2**53:
                yield Found(i, None, "an integer that a double cannot hold exactly")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return float(cell) if type(cell) is int and abs(cell) < 2**1023 else 0.0


@dataclass(frozen=True, slots=True)
class Texts:
    """Text; `nul` and `invalid` say whether NUL and broken UTF-8 are allowed."""

    nul: bool = False
    invalid: bool = False
    what: str = "texts"

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        try:
            joined = "".join(cells)
        except TypeError:  # a NULL, or something that is no text
            yield from _others(cells, str, self.what)
            joined = "".join(c for c in cells if type(c) is str)
        suspect = not self.nul and "\0" in joined
        if not joined.isascii():
            try:
                joined.encode("utf-8", "surrogateescape" if self.invalid else "strict")
            except UnicodeEncodeError:
                suspect = True
        if suspect:
            for i, cell in enumerate(cells):
                if type(cell) is str and (reason := self._reason(cell)):
                    yield Found(i, None, reason)

    def _reason(self, cell: str) -> str | None:
        if not self.nul and "\0" in cell:
            return "a NUL character in text"
        if any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in cell):
            return "a lone surrogate in text"
        if not self.invalid and any("\udc80" <= c <= "\udcff" for c in cell):
            return "bytes that are no UTF-8 in text"
        return None

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        if type(cell) is not str:
            return ""
        text = cell.replace("\0", "") if not self.nul else cell
        if self.invalid:
            return "".join("?" if "\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" else c for c in text)
        return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Jsonb:
    """JSON texts that Postgres' `jsonb` takes and gives back as the same value."""

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        yield from _others(cells, str, "JSON")
        for i, cell in enumerate(cells):
            if type(cell) is str and (reason := jsonb_problem(cell)):
                yield Found(i, None, reason)

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return "null"


@dataclass(frozen=True, slots=True)
class Vectors:
    """Packed float32 vectors of one dimension, finite where the store asks for it."""

    dim: int
    finite: bool = True
    nonzero: bool = False
    legacy_json: bool = False

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        size = 4 * self.dim
        types, given = set(map(type, cells)), cells
        if types != {bytes}:
            if types - {bytes, _NONE}:
                yield from self._strangers(cells)
            given = [c for c in cells if type(c) is bytes]
        good = given
        if set(map(len, given)) - {size}:
            good = [c for c in given if len(c) == size]
            for i, cell in enumerate(cells):
                if type(cell) is bytes and len(cell) != size:
                    yield self._legacy(i, cell) or Found(i, None, self._length(cell))
        bad = set(vectors.not_finite(good, self.dim)) if self.finite else set()
        zero = {j for j, c in enumerate(good) if not any(c)} if self.nonzero else set()
        if bad or zero:
            at = [i for i, c in enumerate(cells) if type(c) is bytes and len(c) == size]
            for j in sorted(bad | zero):
                yield Found(at[j], None, "NaN or infinity in a vector" if j in bad else "an all-zero vector")

    def _strangers(self, cells: Sequence[Any]) -> Iterator[Found]:
        for i, cell in enumerate(cells):
            if cell is None or type(cell) is bytes:
                continue
            legacy = self._legacy(i, cell) if type(cell) is str else None
            yield legacy or Found(i, None, f"{_name(cell)} in a column of vectors")

    def _legacy(self, row: int, cell: str | bytes) -> Found | None:
        packed = vectors.from_json(cell) if self.legacy_json else None
        if packed is None or len(packed) != 4 * self.dim:
            return None
        return Found(row, None, "a vector written as JSON text", packed, harmless=True)

    def _length(self, cell: bytes) -> str:
        if cell and len(cell) % 4 == 0:
            return f"a vector of {len(cell) // 4} dimensions in a column of {self.dim}"
        return f"{len(cell)} bytes, which is no float32 vector, in a column of vectors"

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return vectors.pack([1.0] + [0.0] * (self.dim - 1)) if self.nonzero else bytes(4 * self.dim)


@dataclass(frozen=True, slots=True)
class Anything:
    """Every cell."""

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        return iter(())

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return cell


@dataclass(frozen=True, slots=True)
class Never:
    """A column that the target has no place for: every value of it is kept beside."""

    reason: str

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        for i, cell in enumerate(cells):
            if cell is not None:
                yield Found(i, None, self.reason)

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return None


@dataclass(frozen=True, slots=True)
class Fit:
    """What a target can hold of one table.

    rules:    one for each column.
    not_null: positions of the columns where NULL is not allowed.
    key:      positions of the cells that name a row (key and NOT NULL unique
              columns): where one does not fit, the whole row is kept beside.
    problems: what does not fit of the table itself (a name that is too long).
    types:    the target's type of each column, for a plan.
    whole_rows: finds rows that do not fit as a whole, each `Found` without a column.
    keyed:    whether rows have a key by which an exact cell finds its row.
    """

    table: Table
    rules: tuple[Rule, ...]
    not_null: frozenset[int] = frozenset()
    key: frozenset[int] = frozenset()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    keyed: bool = True
    types: tuple[tuple[str, str], ...] = ()
    whole_rows: Callable[[Sequence[Sequence[Any]]], Iterator[Found]] | None = None

    def check(self, columns: Sequence[Sequence[Any]]) -> list[Found]:
        """Return what does not fit of rows given as columns; an empty list is the usual answer."""
        found: list[Found] = []
        for at, (rule, cells) in enumerate(zip(self.rules, columns, strict=True)):
            found += (Found(f.row, at, f.reason, f.instead, f.harmless) for f in rule.check(cells))
            if at in self.not_null and None in cells:
                reason = "NULL in a key" if at in self.key else "NULL where the column allows none"
                found += (Found(i, at, reason) for i, cell in enumerate(cells) if cell is None)
        if self.whole_rows is not None:
            found += self.whole_rows(columns)
        return found

    def holds_key(self, key: Sequence[Any]) -> bool:
        """Whether a row with this key (cells in `table.key` order) can stand in the target's table."""
        cells = zip(self.table.key_positions, key, strict=True)
        return not any(cell is None or any(True for _ in self.rules[at].check([cell])) for at, cell in cells)

    def stands_for(self, at: int, exact: Any, present: Any) -> bool:
        """Whether a cell still is what `split` wrote in place of an exact value, and not written since by others."""
        instead = None
        for found in self.rules[at].check([exact]):
            instead = found.instead
        if instead is None and at in self.not_null:
            if present is None:  # a column that the target has no place for
                return True
            instead = self.rules[at].nearest(exact)
        # str: SQLite's TEXT affinity makes a text of a number. Equality of numbers is Python's: 0 stands as 0.0.
        return present == instead or (type(instead) is int and present == str(instead))

    def standing_in(self, table: Table) -> Callable[[int, Any, Any], bool]:
        """Return `stands_for` for rows of some of the table's columns, whatever kinds they are taken for."""
        places = [self.table.column_names.index(name) for name in table.column_names]
        return lambda at, exact, present: self.stands_for(places[at], exact, present)

    def split(self, rows: Sequence[Row], found: Sequence[Found]) -> tuple[list[Row], list[ExactCell]]:
        """Return rows that fit, and the exact values kept beside them."""
        kinds = [c.kind for c in self.table.columns]
        by_row: dict[int, list[Found]] = {}
        for f in found:
            by_row.setdefault(f.row, []).append(f)
        kept, exact = list(rows), []
        whole: set[int] = set()
        for i, ours in by_row.items():
            row = rows[i]
            if not self.keyed or any(f.column is None or f.column in self.key for f in ours):
                reason = "; ".join(dict.fromkeys(f.reason for f in ours))
                twin = values.match_key(self.table, row)
                found_by = None if twin.startswith(b"\0") else twin
                exact.append(ExactCell(self.table.name, found_by, None, reason, values.exact_row(kinds, row)))
                whole.add(i)
                continue
            key, cells = values.row_key(self.table, row), list(row)
            for f in ours:
                at = f.column
                if at is None:
                    continue
                name = self.table.columns[at].name
                exact.append(
                    ExactCell(self.table.name, key, name, f.reason, values.exact(kinds[at], row[at]))
                )
                cells[at] = f.instead
                if f.instead is None and at in self.not_null:
                    cells[at] = self.rules[at].nearest(row[at])
            kept[i] = tuple(cells)
        if whole:
            kept = list(compress(kept, (i not in whole for i in range(len(kept)))))
        return kept, exact


def size_of(columns: Sequence[Sequence[Any]]) -> int:
    """Return the bytes of cells given as columns: texts and blobs by length, all else as 8."""
    total = 0
    for cells in columns:
        try:
            total += sum(map(len, cells))
        except TypeError:  # numbers, or a NULL among texts
            if set(map(type, cells)) & {str, bytes}:
                total += sum(len(c) if isinstance(c, (str, bytes)) else 8 for c in cells if c is not None)
            else:
                total += 8 * len(cells)
    return total
