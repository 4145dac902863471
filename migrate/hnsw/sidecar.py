"""The sidecar of one column: found, loaded, made and brought up to date, while searches go on without it."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Lock, Thread, main_thread
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from migrate.backends.sqlite.names import translating
from migrate.backends.sqlite.opening import open_source
from migrate.errors import MigrateError
from migrate.failpoints import hit
from migrate.hnsw import build, container, places, settings
from migrate.hnsw.build import Changes, Index, Progress, Reading, UnfitError
from migrate.hnsw.container import BrokenError, Manifest
from migrate.hnsw.glance import Near, glance
from migrate.hnsw.graph import Arrays, DamagedError, Graph, Shape, deleted, installed
from migrate.hnsw.places import BusyError, Writing
from migrate.schema import Column, Metric, Table

_AGAIN_S = 1.0  # after which what could not be done is tried again
# An index below this is written after every change; of a larger one a thousandth has to change, or
# the process to end: writing 800 MB takes longer than adding some hundred vectors again.
_WRITTEN_AT_ONCE = 64 * 2**20
_LASTING_SHARE = 1000
_GLANCES = 4  # questions, after which it takes less time to have the index in memory
_SETTLING_TRIES = 5
_SETTLING_S = 0.03


T = TypeVar("T")
_running: WeakSet[Sidecar] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """End what is under way: hnswlib's threads abort a process that ends before they do."""
    for sidecar in list(_running):
        sidecar.close(wait=False)


class StoppedError(Exception):
    """Somebody asked for the work to end."""


class _Using:
    """Holds a sidecar's lock while its index is asked; a generator would take 5 us a query."""

    __slots__ = ("_held", "_sidecar", "_state")

    def __init__(self, sidecar: Sidecar, state: str | None) -> None:
        self._sidecar, self._state, self._held = sidecar, state, False

    def __enter__(self) -> Index | None:
        if self._state is None or not self._sidecar._using.acquire(blocking=False):
            return None
        self._held = True
        try:
            return self._sidecar._taken(self._state)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._held:
            self._held = False
            self._sidecar._using.release()


class Sidecar:
    """One column's index. May be asked by one thread while its own thread works on it.

    note: what a user must know of it, or None; of the last that was tried.
    """

    def __init__(self, store: Path, here: Table, column: Column, metric: Metric) -> None:
        """Take a column.

        store: the SQLite file. here: the table as the file declares it. column: as a layout knows it.
        """
        self._store = Path(os.path.realpath(store))
        self._here, self._column, self._metric = here, column, metric
        self.note: str | None = None
        self._index: Index | None = None
        self._state: str | None = None  # of the store, that the index is equal to
        self._root: str | None = None  # of the file that the index was read from or written to
        self._unsaved = False
        self._missed: str | None = None  # a state for which there is no sidecar to load
        self._glances = 0
        self._using, self._stop = Lock(), Event()
        self._thread: Thread | None = None
        self._tried: tuple[str | None, float] | None = None

    @property
    def name(self) -> str:
        """Return the name of the sidecar's file, as it is or is to be."""
        path = self._spot().path
        return path.name if path is not None else places.usual_path(self._store).name

    def is_of(self, here: Table, column: Column, metric: Metric) -> bool:
        """Whether this is what it was made for; a table may be dropped and made anew."""
        return (self._here, self._column, self._metric) == (here, column, metric)

    # --- asking ---------------------------------------------------------------

    def using(self, state: str | None) -> AbstractContextManager[Index | None]:
        """Give the index if it is equal to a state of the store; read from its file where that is needed.

        None where there is none yet, or while it is being changed.
        """
        return _Using(self, state)

    def _taken(self, state: str | None) -> Index | None:
        """Return the index at a state; `_using` is held."""
        if self._state != state and self._missed != state:
            self._missed = None if self._load(only=state) else state
        return self._index if self._state == state else None

    def glance(self, state: str | None, vector: npt.NDArray[np.float32], k: int) -> Near | None:
        """Return the k nearest by looking at the file's vectors, or None where the index is to be asked.

        That is where it is in memory, or was glanced at often enough that having it there pays.
        """
        if state is None or self._index is not None or self._missed == state or self._glances == _GLANCES:
            return None
        self._glances += 1

        def use(descriptor: int, found: Manifest, trusted: bool) -> Near | None:
            shape = self._shape(found)
            if found.told.get("width") is None or not {"elements", "rowids"} <= set(found.sections):
                return None
            return glance(descriptor, found, shape, vector, k, trusted=trusted)

        return self._from_file(state, use)

    def is_at(self, state: str | None) -> bool:
        """Whether the index, if there is one in memory, is equal to a state of the store."""
        return state is not None and self._state == state

    def refresh(self, state: str | None) -> None:
        """Have the sidecar brought up to date in the background, if nobody is at it already."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._tried is not None and self._tried[0] == state and time.monotonic() < self._tried[1]:
            return
        self._tried = (state, time.monotonic() + _AGAIN_S)
        self._thread = Thread(target=self._in_background, name=f"sidecar of {self._here.name}", daemon=True)
        _running.add(self)
        self._thread.start()

    def _in_background(self) -> None:
        try:
            self.bring_up_to_date(self._going_on)
        except (StoppedError, RuntimeError) as exc:
            if isinstance(exc, RuntimeError) and main_thread().is_alive():
                raise
            self.note = f"{self.name} was left unfinished"  # Python gives no threads to a program that ends

    def _going_on(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise StoppedError

    @property
    def working(self) -> bool:
        """Whether its thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def close(self, *, wait: bool = True) -> None:
        """Let what is under way come to its end (or stop it), and write what was not yet written."""
        if not wait:
            self._stop.set()
        if self._thread is not None:
            try:
                self._thread.join()
            except KeyboardInterrupt:
                self._stop.set()
                self._thread.join()
                raise
        if self._unsaved and wait:
            self._save_late()
        self._index, self._state = None, None

    # --- making ---------------------------------------------------------------

    def bring_up_to_date(self, progress: Progress = lambda done, total: None) -> bool:
        """Make the sidecar equal to the store as it is now; whether it is.

        Nothing fails where it cannot be: `note` says why. What `progress` raises ends the work,
        and leaves the file as it was.
        """
        spot = self._spot()
        if spot.path is None:
            self.note = f"no HNSW sidecar: {places.usual_path(self._store).name} is not memlift's"
            return False
        try:
            writing = Writing(spot.path, self._store)
        except BusyError:
            self.note = f"another program is bringing {spot.path.name} up to date"
            return False
        except OSError as exc:
            self.note = f"{spot.path.name} cannot be written here ({exc.strerror or exc}), so search is exact"
            return False
        try:
            with translating("make the HNSW sidecar", table=self._here.name):
                self._made(writing, progress)
            self._missed = None
        except (MigrateError, UnfitError, DamagedError) as exc:
            self.note = f"no HNSW sidecar: {exc}"
        except OSError as exc:
            self.note = f"{spot.path.name} could not be written ({exc.strerror or exc}), so search is exact"
        finally:
            writing.close()
        return self._index is not None

    def _made(self, writing: Writing, progress: Progress) -> None:
        """Bring the index up to date, and write it where enough has changed."""
        with self._using:
            if self._is_replaced(writing.path):
                self._forget()
            if self._index is None:
                self._load(only=None)
        index, changes = self._index, None
        if index is not None:
            changes = self._changed(index, progress)
            if changes.worn:
                index, changes = None, None
        state = changes.state if changes is not None else None
        if index is None and self._may_be_enough():
            index, state = build.build(self._reading, self._column, self._metric, progress)
            if index is not None and state is None:
                late = self._changed(index, progress)
                state = late.state if not late.worn else None
        if index is None or (changes is None and index.count < settings.BUILD_FROM):
            self._forget()
            self.note = None
            return
        self._keep(index, changes, state, writing)

    def _changed(self, index: Index, progress: Progress) -> Changes:
        """Make an index equal to the store, unless it is worn."""
        with self._reading() as reading:
            changes = build.compare(reading, index, progress)
        if changes.any and not changes.worn:
            with self._using:
                self._index, self._state = None, None  # of no use if this is broken off
                build.apply(index, changes, progress)
        return changes

    def _may_be_enough(self) -> bool:
        with self._reading() as reading:
            return build.count(reading) >= settings.BUILD_FROM

    def _keep(self, index: Index, changes: Changes | None, state: str | None, writing: Writing) -> None:
        """Put an index to use, and write it: a new one, or one that enough has changed of."""
        root = self._root if changes is not None else None
        later = root is not None and changes is not None and changes.count * _LASTING_SHARE < index.count
        unsaved = self._unsaved or changes is None or changes.any
        if unsaved and not (later and index.bytes > _WRITTEN_AT_ONCE):
            root, unsaved = self._write(writing, index, state), False
        with self._using:
            self._index, self._state, self._root, self._unsaved = index, state, root, unsaved
        self.note = None if index.width is not None else _no_width(index)
        if root is not None and not unsaved:
            places.remember(writing.path, root, state)

    def _write(self, writing: Writing, index: Index, state: str | None) -> str:
        """Write and publish the file; return its root. Takes the index's memory once more."""
        shape, arrays = index.graph.shape, index.graph.arrays()
        told = {
            "store": self._store.name,
            "table": self._here.name,
            "column": self._column.name,
            "metric": shape.metric.value,
            "dim": shape.dim,
            "m": shape.m,
            "ef_construction": shape.ef_construction,
            "hnswlib": installed(),
            "entry": arrays.entry,
            "top": arrays.top,
            "vectors": index.count,
            "state": state,
            "width": index.width,
            "recall": index.recall,
        }
        sections = {
            "elements": arrays.elements,
            "levels": arrays.levels,
            "upper": arrays.upper,
            "rowids": index.rowids.astype("<i8").view(np.uint8),
            "digests": index.digests.astype("<u8").view(np.uint8),
        }
        hit("sidecar.writing")
        root = container.write(writing.descriptor, told, sections)
        hit("sidecar.written")
        writing.publish()
        hit("sidecar.published")
        return root

    def _save_late(self) -> None:
        index, spot = self._index, self._spot()
        if index is None or spot.path is None:
            return
        try:
            writing = Writing(spot.path, self._store)
        except (BusyError, OSError):
            return  # the next program finds the difference by itself
        try:
            if not self._is_replaced(spot.path):
                places.remember(spot.path, self._write(writing, index, self._state), self._state)
        except OSError as exc:
            self.note = f"{spot.path.name} could not be written ({exc.strerror or exc})"
        finally:
            writing.close()

    # --- reading --------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Reading]:
        for left in reversed(range(_SETTLING_TRIES)):
            opened = open_source(self._store)
            try:
                if opened.state is None and left:
                    time.sleep(_SETTLING_S)
                    continue
                (encoding,) = opened.connection.execute("PRAGMA encoding").fetchone()
                utf8 = encoding == "UTF-8"
                yield Reading(opened.connection, self._here, self._column, utf8, opened.state)
                return
            finally:
                opened.close()

    def _spot(self) -> places.Spot:
        return places.spot(self._store, self._here.name, self._column.name)

    def _forget(self) -> None:
        self._index, self._state, self._root, self._unsaved = None, None, None, False

    def _is_replaced(self, path: Path) -> bool:
        """Whether another program has written the file since we did, or read it."""
        if self._root is None:
            return False
        try:
            with places.opened(path) as descriptor:
                return container.manifest(descriptor).root != self._root
        except (OSError, BrokenError, container.NotOursError):
            return True

    def _load(self, *, only: str | None) -> bool:
        """Read the index from its file if it is sound; with `only`, if it covers this state."""

        def use(descriptor: int, found: Manifest, trusted: bool) -> tuple[Manifest, Index]:
            return found, self._understood(found, container.read(descriptor, found, trusted=trusted), trusted)

        read = self._from_file(only, use)
        if read is None:
            return False
        found, index = read
        state = only if only is not None else found.told.get("state")
        self._index, self._root, self._unsaved = index, found.root, False
        self._state = state if isinstance(state, str) else None
        self.note = None if index.width is not None else _no_width(index)
        return True

    def _from_file(self, only: str | None, use: Callable[[int, Manifest, bool], T]) -> T | None:
        """Return what is made of the file; None where it is of no use, or does not cover the state `only`.

        use: told a descriptor, the manifest, and whether the file was proven sound before.
        """
        spot = self._spot()
        if spot.path is None or not spot.there or installed() is None:
            return None
        known = places.recall(spot.path)
        try:
            with places.opened(spot.path) as descriptor:
                found = container.manifest(descriptor)
                states = {found.told.get("state")}
                if known is not None and known.root == found.root:
                    states.add(known.state)
                if only is not None and only not in states:
                    return None
                before = places.identity(descriptor)
                trusted = known is not None and (known.identity, known.root) == (before, found.root)
                made = use(descriptor, found, trusted)
                if trusted and places.identity(descriptor) != before:
                    raise BrokenError("it was written while it was read")
        except (BrokenError, DamagedError, container.NotOursError, OSError) as exc:
            self.note = f"{spot.path.name} was of no use ({exc}) and is made anew"
            return None
        if not trusted:
            state = only if only is not None else found.told.get("state")
            places.remember(spot.path, found.root, state if isinstance(state, str) else None)
        return made

    def _shape(self, found: Manifest) -> Shape:
        told = found.told
        wanted = (self._metric.value, self._column.dim, installed())
        if (told.get("metric"), told.get("dim"), told.get("hnswlib")) != wanted:
            raise BrokenError("it was built for another metric or dimension, or by another hnswlib")
        try:
            shape = Shape(self._metric, self._column.dim or 0, int(told["m"]), int(told["ef_construction"]))
        except (KeyError, TypeError, ValueError):
            raise BrokenError("its manifest makes no sense") from None
        if not 2 <= shape.m <= 1000 or not 1 <= shape.ef_construction <= 100_000:
            raise BrokenError("its manifest makes no sense")
        return shape

    def _understood(self, found: Manifest, sections: dict[str, Any], trusted: bool) -> Index:
        told, shape = found.told, self._shape(found)
        try:
            entry, top, recall = int(told["entry"]), int(told["top"]), float(told["recall"])
            width = int(told["width"]) if told["width"] is not None else None
            arrays = Arrays(sections["elements"], sections["levels"], sections["upper"], entry, top)
            rowids, digests = sections["rowids"].view("<i8"), sections["digests"].view("<u8")
        except (KeyError, TypeError, ValueError):
            raise BrokenError("its manifest makes no sense") from None
        graph = Graph.of(shape, arrays, trusted=trusted)
        if not len(rowids) == len(digests) == graph.count or (width is not None and width < 1):
            raise BrokenError("its parts do not fit each other")
        alive = ~deleted(shape, arrays)
        return Index(graph, rowids.astype(np.int64), digests.astype(np.uint64), alive, width, recall)


def _no_width(index: Index) -> str:
    return (
        f"these vectors have no structure that an HNSW index could use (it found {index.recall:.0%} of the"
        " neighbours at its widest), so every vector is looked at"
    )
