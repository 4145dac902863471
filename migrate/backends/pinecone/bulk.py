"""Parquet files for Pinecone's bulk import, in place of requests: `pinecone:brain?bulk=./files`.

For more than a few million rows an import from object storage is quicker and cheaper than upserts.
Layout as documented ("Import records"): one folder a namespace, `__default__` for the default one,
in a folder for each index; columns `id`, `values` (float32), `sparse_values` (indices, values) and
`metadata` (JSON text). The sidecar is that of the index by the same name, so that after the import
`pinecone:brain` is a store like any other; our notes are imported along (`memlift_places`).

A folder stands in for the indexes of an address: it can be read, so a run goes on, mends and
verifies as on any store. A file is what one commit has written. When a run is broken off between a
file and its position, the rows come again: their ids are then taken out of that last file.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from migrate import vectors
from migrate.backends.pinecone.control import Index
from migrate.backends.pinecone.fresh import Freshness
from migrate.backends.pinecone.indexes import Indexes, Mark, mark_id, mark_record
from migrate.backends.pinecone.names import BOOKS, Form, Spot, asked, shown
from migrate.backends.pinecone.plane import Stats
from migrate.backends.pinecone.reading import Place, Read
from migrate.backends.pinecone.wire import Record, Sparse
from migrate.config import PineconeSettings

_ABOUT = "memlift.json"  # beside the namespaces; an import passes over all but *.parquet in them
_SPARSE = pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])


def _schema(form: Form) -> pa.Schema:
    dense = [] if form.sparse else [("values", pa.list_(pa.float32()))]
    return pa.schema([("id", pa.string()), *dense, ("sparse_values", _SPARSE), ("metadata", pa.string())])


class Files:
    """The files of one index: what a `Plane` is to an index that is served."""

    def __init__(self, folder: Path, form: Form) -> None:
        self.folder, self.form = folder, form

    def _of(self, namespace: str) -> Path:
        return self.folder / quote(shown(namespace), safe=" !#$&'()+,;=@[]^`{}~")

    def files(self, namespace: str) -> list[Path]:
        """Return a namespace's files in the order they were written."""
        return sorted(self._of(namespace).glob("*.parquet"))

    def close(self) -> None:
        """Let go of nothing: files are closed after each use."""

    def stats(self) -> Stats:
        """Return how many records each namespace has, as the files' own footers tell it."""
        counts = {}
        for folder in sorted(p for p in self.folder.iterdir() if p.is_dir()):
            n = sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
            if n:
                counts[asked(unquote(folder.name))] = n
        return Stats(self.form, counts)

    # --- reading --------------------------------------------------------------

    def read(self, namespace: str, size: int, at: Place) -> Iterator[Read]:
        """Yield records in the order they were written. A place names a file and a row in it."""
        name, _, row = at.after.partition(":")
        for path in self.files(namespace):
            if path.name < name:
                continue
            done = 0
            skip = int(row) if path.name == name else 0
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=size):
                    first = max(skip - done, 0)
                    done += batch.num_rows
                    if first < batch.num_rows:
                        found = list(_records(batch.slice(first), namespace))
                        yield Read(found, Place(f"{path.name}:{done}"))

    def ids(self, path: Path) -> list[str]:
        """Return the ids in a file."""
        found: list[str] = pq.read_table(path, columns=["id"]).column("id").to_pylist()
        return found

    def listed(
        self, namespace: str, limit: int, token: str | None, prefix: str = ""
    ) -> tuple[list[str], str | None]:
        """Return all ids that begin so; there is one page."""
        found = (one for path in self.files(namespace) for one in self.ids(path))
        return sorted(one for one in found if one.startswith(prefix)), None

    def seen(self, namespace: str, ids: Sequence[str]) -> tuple[dict[str, Record], int | None]:
        """Return the records of some ids; reads the namespace."""
        wanted = set(ids)
        parts = self.read(namespace, 1000, Place())
        return {r.id: r for part in parts for r in part.records if r.id in wanted}, None

    # --- writing --------------------------------------------------------------

    def write(self, namespace: str, records: Sequence[Record]) -> Path:
        """Write records as the namespace's next file; durable on return."""
        folder = self._of(namespace)
        folder.mkdir(parents=True, exist_ok=True)
        last = self.files(namespace)
        number = int(last[-1].stem) + 1 if last else 0
        path = folder / f"{number:010}.parquet"
        self._replace(path, _table(records, _schema(self.form)))
        return path

    def _replace(self, path: Path, table: pa.Table) -> None:
        part = path.with_suffix(".part")
        pq.write_table(table, part, compression="zstd")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def without(self, path: Path, ids: set[str]) -> None:
        """Take records out of a file; a file without any is removed."""
        table = pq.read_table(path, schema=_schema(self.form))
        keep = [one not in ids for one in table.column("id").to_pylist()]
        if all(keep):
            return
        if any(keep):
            self._replace(path, table.filter(pa.array(keep)))
        else:
            path.unlink()

    def delete(self, namespace: str, ids: Sequence[str]) -> int | None:
        """Take records out of all files of a namespace."""
        gone = set(ids)
        for path in self.files(namespace):
            if not gone.isdisjoint(self.ids(path)):
                self.without(path, gone)
        return None

    def clear(self, namespace: str) -> int | None:
        """Remove a namespace's files."""
        self.drop(namespace)
        return None

    def drop(self, namespace: str) -> None:
        """Remove a namespace's folder. Idempotent."""
        shutil.rmtree(self._of(namespace), ignore_errors=True)


def _table(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    columns = {
        "id": [r.id for r in records],
        "values": [None if r.values is None else np.frombuffer(r.values, vectors.F32) for r in records],
        "sparse_values": [_sparse(r.sparse) for r in records],
        "metadata": [orjson.dumps(r.metadata).decode() if r.metadata else None for r in records],
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _sparse(sparse: Sparse | None) -> dict[str, object] | None:
    if sparse is None:
        return None
    indices = np.frombuffer(sparse.indices, vectors.U32)
    return {"indices": indices, "values": np.frombuffer(sparse.values, vectors.F32)}


def _records(batch: pa.RecordBatch, namespace: str) -> Iterator[Record]:
    names = batch.schema.names
    dense = batch.column("values") if "values" in names else [None] * batch.num_rows
    for one, values, sparse, text in zip(
        batch.column("id").to_pylist(),
        dense,
        batch.column("sparse_values").to_pylist(),
        batch.column("metadata").to_pylist(),
        strict=True,
    ):
        packed = None
        if values is not None and values.is_valid:
            packed = values.values.to_numpy(zero_copy_only=False).astype(vectors.F32).tobytes()
        weights = None
        if sparse is not None:
            weights = Sparse(array("I", sparse["indices"]).tobytes(), array("f", sparse["values"]).tobytes())
        metadata = orjson.loads(text) if text else {}
        yield Record(one, packed, weights, metadata, namespace)


class Folder(Indexes):
    """A folder in place of the indexes of an address."""

    def __init__(self, settings: PineconeSettings, root: Path) -> None:
        super().__init__(settings)
        self._root = root
        self.base = str(settings.index)

    def find(self, name: str) -> Index | None:
        """See `Indexes.find`."""
        about = self._root / name / _ABOUT
        if not about.exists():
            return None
        told = json.loads(about.read_text(encoding="utf-8"))
        return Index(name, str(about.parent), Form(*told["form"]), True, {})

    def make(self, name: str, form: Form, identity: str, say: Callable[[str], None]) -> Index:
        """Make an index's folder."""
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / _ABOUT
        part = about.with_suffix(".part")
        part.write_text(json.dumps({"form": list(form), "sidecar_id": identity}), encoding="utf-8")
        part.replace(about)
        return Index(name, str(folder), form, True, {})

    def plane(self, name: str, host: str | None = None) -> Files:  # type: ignore[override]
        """Return an index's files."""
        found = self.find(name)
        if found is None or found.form is None:
            raise FileNotFoundError(self._root / name)
        return Files(self._root / name, found.form)

    def fresh(self, name: str) -> Freshness:
        """Return a freshness that waits for nothing: files can be read at once."""
        return Freshness()

    def mark(self, name: str, form: Form, mark: Mark, *, again: bool) -> None:
        """See `Indexes.mark`."""
        files, record = self.plane(name), mark_record(form, mark)
        files.delete(BOOKS, [record.id])
        files.write(BOOKS, [record])

    def unmark(self, name: str, namespace: str) -> None:
        """See `Indexes.unmark`."""
        files = self.plane(name)
        files.delete(BOOKS, [mark_id(namespace)])
        if not files.files(BOOKS):
            files.drop(BOOKS)

    def made_by(self, identity: str) -> list[str]:
        """See `Indexes.made_by`."""
        abouts = sorted(self._root.glob(f"*/{_ABOUT}"))
        return [p.parent.name for p in abouts if json.loads(p.read_text())["sidecar_id"] == identity]

    def remove(self, name: str) -> None:
        """See `Indexes.remove`."""
        shutil.rmtree(self._root / name)
        if not any(self._root.iterdir()):
            self._root.rmdir()


class FolderSender:
    """Gathers the records of a commit and writes them as one file a namespace."""

    def __init__(self, folder: Folder, mark: Callable[[Spot, str, str], None]) -> None:
        self._folder, self._mark = folder, mark
        self._waiting: dict[tuple[str, str], list[Record]] = {}
        self._suspect: dict[tuple[str, str], tuple[Path, set[str]]] = {}
        self._known: set[tuple[str, str]] = set()

    def send(self, table: str, spot: Spot, records: Sequence[Record]) -> None:
        """See `Sender.send`."""
        for record in records:
            name = record.namespace if spot.namespace is None else spot.namespace
            if spot.namespace is None and (spot.index, name) not in self._waiting:
                self._mark(spot, name, table)
            self._waiting.setdefault((spot.index, name), []).append(record)

    def settle(self) -> None:
        """Write what was sent; durable on return."""
        for (index, name), records in self._waiting.items():
            files = self._folder.plane(index)
            self._doubt(files, index, name)
            self._take_back(files, (index, name), {r.id for r in records})
            files.write(name, records)
        self._waiting.clear()

    def _doubt(self, files: Files, index: str, name: str) -> None:
        """Remember the last file of a namespace: its rows may come again, if its position was never kept."""
        if (index, name) not in self._known:
            self._known.add((index, name))
            last = files.files(name)[-1:]
            if last:
                self._suspect[index, name] = last[0], set(files.ids(last[0]))

    def _take_back(self, files: Files, place: tuple[str, str], ids: set[str]) -> None:
        path, suspects = self._suspect.get(place, (Path(), set()))
        again = suspects & ids
        if again:
            files.without(path, again)
            suspects -= again

    def abandon(self) -> None:
        """Forget what was not written, and doubt what was written last."""
        self._waiting.clear()
        self._known.clear()
        self._suspect.clear()

    def close(self) -> None:
        """Let go of what waits. Idempotent."""
        self.abandon()

    def overwrite(self, spot: Spot, ids: Iterable[tuple[str, str]]) -> None:
        """See `Sender.overwrite`: an id must not be in two files."""
        self.delete(spot, ids)

    def delete(self, spot: Spot, ids: Iterable[tuple[str, str]]) -> None:
        """See `Sender.delete`."""
        by_namespace: dict[str, list[str]] = {}
        for name, one in ids:
            by_namespace.setdefault(name, []).append(one)
        for name, ours in by_namespace.items():
            self._folder.plane(spot.index).delete(name, ours)
