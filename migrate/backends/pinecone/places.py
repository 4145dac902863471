"""Where tables are kept: which index, which namespace, what is ours in them, and taking it away again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from migrate.backends.pinecone.fresh import until_gone
from migrate.backends.pinecone.indexes import HOST, Indexes, Mark
from migrate.backends.pinecone.names import (
    BOOKS,
    Form,
    Spot,
    check_index_name,
    index_name,
    namespace_name,
)
from migrate.backends.pinecone.shape import Shape
from migrate.backends.sidecar import Place
from migrate.config import PineconeSettings
from migrate.errors import SchemaError


@dataclass(slots=True)
class Looked:
    """What stands where tables are to go."""

    strangers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Places:
    """The spots of one target's tables.

    Tables whose vectors are of one form (dimension and metric) share an index, each in its own
    namespace. Where an address by name needs a second form, its index is named after the first:
    `brain`, `brain-768-cosine`, `brain-sparse`. A table that came from a whole index of somebody
    else's (`native`) gets an index alone.
    """

    def __init__(self, indexes: Indexes, settings: PineconeSettings) -> None:
        self._indexes, self._settings = indexes, settings
        self._spots: dict[str, Spot] = {}
        self._forms: dict[str, Form] = {}
        self._alone: set[str] = set()
        self._usual: Form | None = None
        self._marked: set[tuple[str, str]] = set()
        self._dropped: set[tuple[str, str]] = set()

    def spot(self, shape: Shape, known: Mapping[str, Place] | None) -> Spot:
        """Return where a table is kept, or is to be. known: what the sidecar says; None where it was asked before."""
        name = shape.table.name
        if known is not None:
            self._learn(known)
        if name not in self._spots:
            index = self._index(shape)
            self._spots[name] = (
                Spot(index, None)
                if shape.native
                else Spot(index, namespace_name(self._settings.namespace, name))
            )
            self._take(index, shape)
        return self._spots[name]

    def _learn(self, known: Mapping[str, Place]) -> None:
        for name, place in known.items():
            spot, shape = Spot.parse(place.place), Shape(place.table)
            self._spots[name] = spot
            self._take(spot.index, shape)

    def _take(self, index: str, shape: Shape) -> None:
        self._forms[index] = shape.form
        if shape.native:
            self._alone.add(index)

    def _index(self, shape: Shape) -> str:
        """Return the index for a table that has none yet."""
        base = self._indexes.base
        if base == HOST:
            return HOST
        if self._free(base, shape) and (shape.native or self._usual in (None, shape.form)):
            return base
        name = index_name(base, shape.form)
        if self._free(name, shape):
            return name
        return index_name(f"{base}-{len(self._alone) + 1}", shape.form)

    def _free(self, name: str, shape: Shape) -> bool:
        """Whether a table can go to an index, or to one of that name that is yet to be made."""
        if name in self._alone or (shape.native and name in self._forms):
            return False
        form = self._forms.get(name)
        if form is None:
            there = self._indexes.find(name)
            form = there.form if there is not None else shape.form
        return form == shape.form

    def check_form(self, shape: Shape, spot: Spot) -> None:
        """Refuse an index whose vectors are of another form."""
        there = self._indexes.find(spot.index)
        if there is not None and there.form is not None and not there.form.takes(shape.form):
            what = f"the Pinecone index {spot.index!r}" if spot.index else "the index of this host"
            raise SchemaError(
                f"{what} holds {there.form}, and table {shape.table.name!r} has {shape.form}",
                hint="leave the table out (--exclude), or name an index instead of a host: pinecone:index-name"
                " makes one for each form",
            )

    # --- looking --------------------------------------------------------------

    def look(self, shapes: Sequence[Shape], known: Mapping[str, Place], identity: str | None) -> Looked:
        """See what stands where these tables go. Raises SchemaError for what cannot be written to."""
        found = Looked()
        self._learn(known)
        self._prefer(shapes)
        taken: dict[Spot, str] = {}
        marks: dict[str, dict[str, Mark]] = {}
        for shape in shapes:
            name = shape.table.name
            spot = self.spot(shape, None)
            if spot in taken or (spot.namespace is None and any(s.index == spot.index for s in taken)):
                raise SchemaError(
                    f"tables {taken.get(spot, '')!r} and {name!r} would be one namespace {spot}"
                )
            taken[spot] = name
            self.check_form(shape, spot)
            if name in known:
                continue
            if spot.index not in marks:
                marks[spot.index] = self._marks(spot)
            mark = marks[spot.index].get(spot.namespace or "")
            if mark is not None and mark.sidecar_id != identity:
                raise SchemaError(
                    f"the namespace {spot} was made by memlift with another sidecar: {mark.sidecar}",
                    hint="run from the machine that has it, name it with sidecar=..., or choose another namespace",
                )
            if self.holds_records(spot):
                found.strangers.append(name)
            if self._indexes.find(spot.index) is None:
                check_index_name(spot.index)
            note = f"the index {spot.index!r} is yet to be made, for {shape.form}"
            if self._indexes.find(spot.index) is None and note not in found.notes:
                found.notes.append(note)
        return found

    def _prefer(self, shapes: Sequence[Shape]) -> None:
        """Choose the form of the address's own index, where that is yet to be made: that of the most tables."""
        base = self._indexes.base
        if base == HOST or base in self._forms or self._indexes.find(base) is not None:
            return
        forms = Counter(shape.form for shape in shapes if not shape.native)
        if forms and not any(shape.native for shape in shapes):
            self._usual = forms.most_common(1)[0][0]

    def _marks(self, spot: Spot) -> dict[str, Mark]:
        return self._indexes.marks(spot.index) if self._indexes.find(spot.index) is not None else {}

    def holds_records(self, spot: Spot) -> bool:
        """Whether something is kept at a spot."""
        counts = self._indexes.stats(spot.index).counts
        if spot.namespace is None:
            return any(name != BOOKS for name in counts)
        return bool(counts.get(spot.namespace))

    def stands(self, place: Place) -> bool:
        """Whether the index of a place is still there."""
        return self._indexes.find(Spot.parse(place.place).index) is not None

    # --- making and taking away -----------------------------------------------

    def mark(self, index: str, form: Form, mark: Mark, *, again: bool) -> None:
        """Note in an index that a namespace is ours; once. again: see `Indexes.mark`."""
        if (index, mark.namespace) not in self._marked:
            self._indexes.mark(index, form, mark, again=again)
            self._marked.add((index, mark.namespace))

    def _namespaces(self, spot: Spot, identity: str) -> list[str]:
        """Return the namespaces of a spot that this sidecar's runs have made."""
        if spot.namespace is not None:
            return [spot.namespace]
        taken = {s.namespace for s in self._spots.values() if s.index == spot.index}
        return [n for n, m in self._marks(spot).items() if m.sidecar_id == identity and n not in taken]

    def clear(self, spot: Spot, identity: str) -> None:
        """Remove the records of a spot, as far as they are ours."""
        if self._indexes.find(spot.index) is None:
            return
        plane, fresh = self._indexes.plane(spot.index), self._indexes.fresh(spot.index)
        for name in self._namespaces(spot, identity):
            fresh.cleared(name, plane.clear(name))

    def drop(self, place: Place, identity: str) -> None:
        """Remove the namespaces of a place, and our notes of them."""
        spot = Spot.parse(place.place)
        if self._indexes.find(spot.index) is None:
            return
        plane = self._indexes.plane(spot.index)
        for name in self._namespaces(spot, identity):
            plane.drop(name)
            until_gone(plane, name)  # what is written there next must not meet a deletion that is under way
            self._indexes.unmark(spot.index, name)
            self._marked.discard((spot.index, name))
            self._dropped.add((spot.index, name))

    def drop_indexes(self, identity: str) -> None:
        """Remove the indexes that this sidecar's runs have made, where nobody else keeps anything in them."""
        for name in self._indexes.made_by(identity):
            counts = self._indexes.stats(name).counts.items()
            if not any(n != BOOKS and count and (name, n) not in self._dropped for n, count in counts):
                self._indexes.remove(name)
