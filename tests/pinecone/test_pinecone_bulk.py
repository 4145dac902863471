"""Parquet files for a bulk import: laid out as documented, resumable, and read again as a store."""

from __future__ import annotations

import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from migrate import addresses, api, engine
from migrate.config import PineconeSettings
from migrate.errors import ConfigError, MissingExtraError
from migrate.reach import Reach
from tests.contract_kit import BoomError, Failing

DDL = """
    CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, body TEXT, data BLOB, embedding BLOB);
    CREATE TABLE loose (what TEXT, embedding BLOB);
    CREATE TABLE image (a INTEGER NOT NULL, b TEXT NOT NULL, embedding BLOB, PRIMARY KEY (a, b));
    CREATE TABLE tag (note TEXT REFERENCES note (id), tag TEXT);
"""


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(DDL)
        for i in range(60):
            v = vector(i + 1, i / 7, -0.0)
            db.execute(
                "INSERT INTO note VALUES (?, ?, ?, ?)",
                (f"n{i}", f"é{i}", b"x" if i % 9 == 0 else None, v if i % 5 else None),
            )
            db.execute(
                "INSERT INTO loose VALUES (?, ?)",
                (f"again {i % 4}", vector(1, i % 4, 2) if i % 7 else bytes(12)),
            )
            db.execute("INSERT INTO image VALUES (?, ?, ?)", (i, "é", vector(i, 1, 2, 3, 4)))
            db.execute("INSERT INTO tag VALUES (?, ?)", (f"n{i}", "t"))
        db.commit()
    return path


def at(folder: Path, **more: Any) -> PineconeSettings:
    return PineconeSettings(
        index="brain", sidecar=str(folder / "side.sqlite"), bulk=str(folder / "files"), **more
    )


def rows(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as db:
        return {
            name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for name in ("note", "loose", "image", "tag")
        }


def ids(folder: Path) -> list[str]:
    """Return the ids in the files of a namespace, each as often as it is there."""
    return sorted(
        one for path in folder.glob("*.parquet") for one in pq.read_table(path).column("id").to_pylist()
    )


def test_files_are_laid_out_as_an_import_wants_them(source: Path, tmp_path: Path) -> None:
    report = api.migrate(source, at(tmp_path))
    assert (report.verified, report.usage.get("requests", 0)) == (True, 0)
    files = tmp_path / "files"
    assert sorted(p.name for p in files.iterdir()) == ["brain", "brain-5-cosine"]
    assert sorted(p.name for p in (files / "brain").iterdir()) == [
        "loose",
        "memlift.json",
        "memlift_places",
        "note",
    ]
    (one,) = (files / "brain" / "note").iterdir()
    table = pq.read_table(one)
    assert [(f.name, str(f.type)) for f in table.schema] == [
        ("id", "string"),
        ("values", "list<element: float>"),
        ("sparse_values", "struct<indices: list<element: uint32>, values: list<element: float>>"),
        ("metadata", "string"),
    ]
    first = table.slice(0, 1).to_pylist()[0]
    assert first == {
        "id": "n1",
        "values": [2.0, struct.unpack("<f", struct.pack("<f", 1 / 7))[0], -0.0],
        "sparse_values": None,
        "metadata": '{"body":"é1"}',
    }
    assert len(table) == 48  # rows without a vector are in the sidecar
    back = tmp_path / "b.sqlite"
    assert api.migrate(at(tmp_path), back).verified
    assert rows(back) == rows(source)
    again = api.migrate(source, at(tmp_path))
    assert (again.verified, sum(t.rows_written for t in again.tables)) == (True, 0)
    assert api.undo(at(tmp_path)) == ["image", "loose", "note", "tag"]
    assert not files.exists()


@pytest.mark.parametrize("after", [False, True])
def test_a_run_broken_off_at_any_commit_leaves_no_record_twice(
    after: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 1)
    reach = Reach.target
    for crash in (1, 2, 6, 9, 13):
        place = tmp_path / str(crash)
        place.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(
                Reach,
                "target",
                lambda self, *args, crash=crash: Failing(reach(self, *args), crash, after=after),
            )
            with pytest.raises(BoomError):
                api.migrate(source, at(place), batch_size=20)
        report = api.migrate(source, at(place), batch_size=17)
        assert (report.verified, report.resumed) == (True, True)
        found = {name: ids(place / "files" / "brain" / name) for name in ("note", "loose")}
        assert found["note"] == sorted(f"n{i}" for i in range(60) if i % 5)
        assert found["loose"] == [f"row-{n:012}" for n in range(51)]


def test_a_folder_is_brought_up_to_date(source: Path, tmp_path: Path) -> None:
    api.migrate(source, at(tmp_path))
    with closing(sqlite3.connect(source)) as db:
        db.executescript(
            """
            UPDATE note SET body = 'changed' WHERE id IN ('n1', 'n2');
            UPDATE note SET embedding = NULL WHERE id = 'n3';
            DELETE FROM note WHERE id = 'n4';
            DELETE FROM loose WHERE rowid IN (2, 3);
            INSERT INTO loose SELECT * FROM loose WHERE rowid = 5;
            """
        )
        db.commit()
    assert api.migrate(source, at(tmp_path), mirror=True).verified
    found = ids(tmp_path / "files" / "brain" / "note")
    assert found == sorted(set(found)) == sorted(f"n{i}" for i in range(60) if i % 5 and i not in (3, 4))
    back = tmp_path / "b.sqlite"
    assert api.migrate(at(tmp_path), back).verified
    assert rows(back) == rows(source)


def test_files_need_the_name_of_an_index_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:

    with pytest.raises(ConfigError, match="need an index's name"):
        addresses.parse("pinecone+https://host?bulk=./files&api_key=k")
    found = addresses.parse("pinecone:brain?bulk=./files")
    assert isinstance(found, PineconeSettings)
    assert (found.bulk, found.api_key, str(found)) == ("./files", None, "pinecone:brain?bulk=./files")


def test_a_missing_package_is_told_with_what_mends_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "migrate.backends.pinecone.bulk", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow") as raised:
        api.migrate(source, at(tmp_path))
    assert raised.value.hint == "pip install 'memlift[pinecone,parquet]'"
