"""What the backend's tests on the emulator share: addresses of their own, and what stands there."""

from __future__ import annotations

import itertools
import sqlite3
from array import array
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pinecone import Pinecone, ServerlessSpec

from integration.pinecone_emulator import PineconeEmulator
from migrate.backends.pinecone import control, fresh
from migrate.config import PineconeSettings, Settings

_NUMBERS = itertools.count(1)
KEY = "key"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often for what an emulator has at once."""
    monkeypatch.setattr(control, "POLL_S", 0.05)
    monkeypatch.setattr(fresh, "_FIRST_S", 0.01)


def address(emulator: PineconeEmulator, folder: Path, **more: Any) -> PineconeSettings:
    """Return a fresh target: an index and a sidecar that no other store of a test has."""
    n = next(_NUMBERS)
    return PineconeSettings(
        index=f"b{n}",
        api_key=KEY,
        sidecar=str(folder / f"beside{n}.sqlite"),
        controller=emulator.url,
        **more,
    )


def endpoint(settings: PineconeSettings) -> dict[str, Any]:
    """Return the same as a dict, for a run in another process."""
    return {
        "type": "pinecone",
        "index": settings.index,
        "api_key": KEY,
        "sidecar": settings.sidecar,
        "controller": settings.controller,
    }


def client(emulator: PineconeEmulator) -> Pinecone:
    """Return the SDK, pointed at the emulator."""
    return Pinecone(api_key=KEY, host=emulator.url, ssl_verify=False)  # no certificates: plain HTTP


def family(emulator: PineconeEmulator, settings: PineconeSettings) -> list[str]:
    """Return the names of the indexes of an address."""
    with client(emulator) as pc:
        names = [one.name for one in pc.indexes.list().to_list()]
    return sorted(n for n in names if n == settings.index or n.startswith(f"{settings.index}-"))


def records(emulator: PineconeEmulator, settings: PineconeSettings) -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(index, namespace): {id: (values, sparse, metadata)}} as the SDK reads it, without our notes."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with client(emulator) as pc:
        for name in family(emulator, settings):
            with pc.index(name=name) as index:
                for namespace in index.describe_index_stats().namespaces:
                    if namespace == "memlift_places":
                        continue
                    ids = [str(i.id) for page in index.list(namespace=namespace) for i in page.vectors]
                    kept: dict[str, Any] = {}
                    for i in range(0, len(ids), 100):
                        answer = index.fetch(ids=ids[i : i + 100], namespace=namespace)
                        for one, v in answer.vectors.items():
                            sparse = v.sparse_values
                            kept[one] = (
                                array("f", v.values or []).tobytes(),
                                (sparse.indices, sparse.values) if sparse else None,
                                v.metadata or {},
                            )
                    if kept:
                        found[(name, namespace)] = kept
    return found


def an_index(emulator: PineconeEmulator, name: str, **shape: Any) -> None:
    """Make an index, not by memlift."""
    with client(emulator) as pc:
        spec = ServerlessSpec(cloud="aws", region="us-east-1")
        pc.create_index(name=name, spec=spec, **{"dimension": 3, "metric": "cosine", **shape})


class EmulatorPlace:
    """Where the contract is kept on the emulator: an index and a sidecar for each target."""

    kind = "pinecone"

    def __init__(self, emulator: PineconeEmulator, folder: Path) -> None:
        self._emulator, self._folder = emulator, folder

    def fresh(self) -> Settings:
        return address(self._emulator, self._folder)

    def names(self, at: Settings) -> set[str]:
        assert isinstance(at, PineconeSettings)
        found = {namespace for _, namespace in records(self._emulator, at)}
        if at.sidecar is not None and Path(at.sidecar).exists():
            with closing(sqlite3.connect(at.sidecar)) as db:
                found |= {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
        return found

    def stranger(self, at: Settings, name: str) -> None:
        """Tables without vectors belong into the sidecar, so that is where one may be in the way."""
        assert isinstance(at, PineconeSettings)
        with closing(sqlite3.connect(str(at.sidecar))) as db:
            db.execute(f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY, v TEXT)')
            db.execute(f"INSERT INTO \"{name}\" VALUES (1, 'theirs')")
            db.commit()
