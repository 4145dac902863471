"""The indexes behind one address, and memlift's notes in them.

An address by name has a control plane: indexes are described, made and deleted there. An address
by host has its one index, under the empty name.

In each index that memlift writes to, the namespace `memlift_places` has one record for each
namespace that memlift made: its id is that namespace, its metadata names the table, the sidecar
and the run. So another machine knows that half of the rows' truth is in a sidecar, and an undo
knows what is ours.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migrate.backends import sidecar
from migrate.backends.pinecone import wire
from migrate.backends.pinecone.control import Control, Index
from migrate.backends.pinecone.fresh import Freshness
from migrate.backends.pinecone.ids import numbered
from migrate.backends.pinecone.metadata import Metadata
from migrate.backends.pinecone.names import BOOKS, TAG, Form, Spot
from migrate.backends.pinecone.plane import Plane, Request, Stats
from migrate.backends.pinecone.reading import Place, read
from migrate.backends.pinecone.usage import Usage
from migrate.backends.pinecone.wire import Record, Sparse
from migrate.backends.sidecar import SidecarSettings
from migrate.config import PineconeSettings
from migrate.errors import ConfigError

HOST = ""  # the name under which an address by host has its index
_PAGE = 1000


def sidecar_of(settings: PineconeSettings) -> SidecarSettings:
    """Return where the sidecar is: where `sidecar=` says, else a file of our own for each address and namespace."""
    address = settings.host or f"pinecone:{settings.index}"
    default: Path = sidecar.default_for_server(address, settings.namespace or "")
    return sidecar.settings_of(settings.sidecar, default)


@dataclass(frozen=True, slots=True)
class Mark:
    """What our own record says of a namespace."""

    namespace: str
    table: str
    sidecar: str
    sidecar_id: str
    run: str


class Indexes:
    """Indexes by name, each with its plane; one count of what they cost."""

    def __init__(self, settings: PineconeSettings) -> None:
        self._settings = settings
        self.usage = Usage()
        self.base = HOST if settings.host else str(settings.index)
        self.control = Control(settings)
        self._planes: dict[str, Plane] = {}
        self._known: dict[str, Index] = {}
        self._fresh: dict[str, Freshness] = {}

    def close(self) -> None:
        """Let go of all connections. Idempotent."""
        for plane in self._planes.values():
            plane.close()
        self.control.close()

    def find(self, name: str) -> Index | None:
        """Return an index as it is, None where there is none. Raises ConfigError for one that is no index of vectors."""
        found = self._known.get(name)
        if found is None:
            found = self._hosted() if name == HOST else self.control.index(name)
            if found is not None:
                self._known[name] = found.usable()
        return found

    def _hosted(self) -> Index:
        host = str(self._settings.host)
        known = self.control.by_host(host)
        if known is not None:
            return Index(HOST, host, known.form, known.ready, known.tags, known.trouble, known.hint)
        form = self.plane(HOST, host).stats().form
        if form is None:
            raise ConfigError(f"{host} does not say of what dimension it is", hint="is it an index's host?")
        return Index(HOST, host, form, True, {})

    def make(self, name: str, form: Form, identity: str, say: Callable[[str], None]) -> Index:
        """Make an index and return it when it is ready."""
        self._known[name] = self.control.create(name, form, {TAG: identity}, say)
        return self._known[name]

    def plane(self, name: str, host: str | None = None) -> Plane:
        """Return the plane of an index that there is."""
        plane = self._planes.get(name)
        if plane is None:
            if host is None:
                found = self.find(name)
                if found is None:
                    raise ConfigError(
                        f"there is no Pinecone index {name!r}",
                        hint="check the name and the API key's project",
                    )
                host = found.host or self.control.ready(name, lambda _: None).host
            plane = self._planes[name] = Plane(str(host), str(self._settings.api_key), self.usage)
        return plane

    def fresh(self, name: str) -> Freshness:
        """Return what was written to an index and may not be seen yet."""
        return self._fresh.setdefault(name, Freshness())

    def stats(self, name: str) -> Stats:
        """Return what an index says of itself; nothing where there is none."""
        return Stats(None, {}) if self.find(name) is None else self.plane(name).stats()

    # --- our notes ------------------------------------------------------------

    def marks(self, name: str, stats: Stats | None = None) -> dict[str, Mark]:
        """Return our notes in an index, by namespace."""
        told = self.stats(name) if stats is None else stats
        if BOOKS not in told.counts:
            return {}
        found: dict[str, Mark] = {}
        for part in read(self.plane(name), BOOKS, _PAGE, Place()):
            for record in part.records:
                m = {k: str(v) for k, v in record.metadata.items()}
                if {"namespace", "table", "sidecar", "sidecar_id", "run"} <= set(m):
                    found[m["namespace"]] = Mark(
                        m["namespace"], m["table"], m["sidecar"], m["sidecar_id"], m["run"]
                    )
        return found

    def mark(self, name: str, form: Form, mark: Mark, *, again: bool) -> None:
        """Note that a namespace is ours, before anything is written to it. Idempotent.

        again: an earlier run has noted it; looked for first, so that a run without news writes nothing.
        """
        record = mark_record(form, mark)
        if again and any(_same(r, record) for r in self.plane(name).fetched(BOOKS, [record.id])):
            return
        request = Request(BOOKS, wire.upsert_body([wire.packed(record)], BOOKS), 1, record.billed, record)
        lsn = self.plane(name).upsert_patiently(request)
        self.fresh(name).upserted(BOOKS, lsn, record)

    def unmark(self, name: str, namespace: str) -> None:
        """Take a note back; the last one takes its namespace with it."""
        plane = self.plane(name)
        record_id = mark_id(namespace)
        lsn = plane.delete(BOOKS, [record_id])
        self.fresh(name).deleted(BOOKS, lsn, [record_id])
        self.fresh(name).wait(plane, BOOKS)
        if not plane.listed(BOOKS, 1, None)[0]:
            plane.drop(BOOKS)

    # --- taking away ----------------------------------------------------------

    def marked_by(self, spot: Spot, identity: str) -> bool:
        """Whether the runs of a sidecar have made a spot's namespace, or, of one alone in its index, any there."""
        if self.find(spot.index) is None:
            return False
        marks = self.marks(spot.index).values()
        return any(m.sidecar_id == identity and spot.namespace in (None, m.namespace) for m in marks)

    def made_by(self, identity: str) -> list[str]:
        """Return the indexes that the runs of a sidecar have made."""
        return [] if self.base == HOST else self.control.tagged(TAG, identity)

    def remove(self, name: str) -> None:
        """Delete an index."""
        self.control.delete(name)
        self._known.pop(name, None)
        self._fresh.pop(name, None)
        plane = self._planes.pop(name, None)
        if plane is not None:
            plane.close()


def _same(one: Record, other: Record) -> bool:
    """Return whether two notes say the same, whichever run wrote them."""
    return {**one.metadata, "run": ""} == {**other.metadata, "run": ""}


def mark_id(namespace: str) -> str:
    """Return the id of our note of a namespace."""
    return namespace or numbered(0)


def mark_record(form: Form, mark: Mark) -> Record:
    """Return our note of a namespace as a record of an index of this form."""
    told: Metadata = {
        "namespace": mark.namespace,
        "table": mark.table.encode("utf-8", "backslashreplace").decode(),
        "sidecar": mark.sidecar.encode("utf-8", "backslashreplace").decode(),
        "sidecar_id": mark.sidecar_id,
        "run": mark.run,
    }
    one = array("f", [1.0]).tobytes()
    sparse = Sparse(array("I", [0]).tobytes(), one) if form.sparse else None
    values = None if form.sparse else one + bytes(4 * (form.dim - 1))
    return Record(mark_id(mark.namespace), values, sparse, told, BOOKS)
