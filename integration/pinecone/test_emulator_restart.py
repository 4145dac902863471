"""The emulator in a process of its own: killed, started again, and everything still there."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pinecone import Index, Pinecone, ServerlessSpec
from pinecone.errors import NotFoundError, UnauthorizedError

from integration.pinecone_emulator import PineconeEmulator

AWS = ServerlessSpec(cloud="aws", region="us-east-1")

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def _process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running emulator and its controller's URL; killed at the end, if it still lives."""
    command = [sys.executable, "-m", "integration.pinecone_emulator", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_killed_emulator_comes_back_with_indexes_records_and_ports(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    sparse = {"indices": [7, 3], "values": [0.5, 0.25]}
    with _process("--port", "0", "--state", state) as (process, url), Pinecone(api_key="k", host=url) as pc:
        host = pc.create_index(name="kept", dimension=2, metric="dotproduct", spec=AWS, tags={"a": "b"}).host
        pc.create_index(name="dropped", dimension=2, spec=AWS)
        pc.delete_index("dropped")
        with pc.index(name="kept") as index:
            index.upsert(
                vectors=[
                    {
                        "id": "a",
                        "values": [0.1, 0.2],
                        "sparse_values": sparse,
                        "metadata": {"n": 1, "t": ["x"]},
                    },
                    {"id": "gone", "values": [1, 2]},
                ],
                namespace="ns",
            )
            index.upsert(vectors=[("b", [1, 2])])
            index.delete(ids=["gone"], namespace="ns")
            index.create_namespace(name="empty", schema={"fields": {"f": {"filterable": True}}})
            index.start_import("s3://bucket/folder")
            before = index.fetch(ids=["a"], namespace="ns").vectors
        process.send_signal(signal.SIGKILL)
        process.wait()
    port = url.rpartition(":")[2]
    with _process("--port", port, "--state", state) as (_, again), Pinecone(api_key="k", host=again) as pc:
        assert again == url
        assert [one.name for one in pc.list_indexes()] == ["kept"]
        described = pc.describe_index("kept")
        assert (described.host, described.metric, described.tags) == (host, "dotproduct", {"a": "b"})
        with pc.index(name="kept") as index:
            assert index.fetch(ids=["a", "gone"], namespace="ns").vectors == before
            stats = index.describe_index_stats().namespaces
            counts = {name: one.vector_count for name, one in stats.items()}
            assert counts == {"__default__": 1, "empty": 0, "ns": 1}
            schema = index.describe_namespace(name="empty").schema
            assert schema is not None
            assert list(schema.fields) == ["f"]
            assert [one.status for one in index.list_imports()] == ["Pending"]
        with pytest.raises(NotFoundError):
            pc.describe_index("dropped")


def test_the_launcher_takes_keys_and_stops_when_told() -> None:
    launcher = [
        sys.executable,
        str(ROOT / "scripts" / "pinecone_emulator"),
        "--port",
        "0",
        "--api-key",
        "good",
    ]
    with subprocess.Popen(launcher, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with Pinecone(api_key="good", host=url) as pc:
            assert list(pc.list_indexes()) == []
        with Pinecone(api_key="bad", host=url) as pc, pytest.raises(UnauthorizedError):
            pc.list_indexes().names()
        process.terminate()
        assert process.wait(10) == 0


def test_a_state_file_serves_one_emulator_after_another(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with PineconeEmulator(persist=state) as emulator, Pinecone(api_key="k", host=emulator.url) as pc:
        pc.create_index(name="kept", dimension=2, spec=AWS)
        with pc.index(name="kept") as index:
            index.upsert(vectors=[(str(n), [1, n + 1]) for n in range(100)], namespace="ns")
            index.update(id="7", set_metadata={"new": True}, namespace="ns")
            index.delete_namespace(name="ns")
            index.upsert(vectors=[("8", [1, 2])], namespace="ns")
    with (
        PineconeEmulator(persist=state) as emulator,
        Index(host=emulator.index_host("kept"), api_key="k") as index,
    ):
        assert [item.id for item in index.list_paginated(namespace="ns").vectors] == ["8"]


def test_an_index_moves_when_its_port_was_taken_meanwhile(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with PineconeEmulator(persist=state) as emulator, Pinecone(api_key="k", host=emulator.url) as pc:
        pc.create_index(name="kept", dimension=2, spec=AWS)
        before = emulator.index_host("kept")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(before.rpartition(":")[2])))
        other.listen()
        with PineconeEmulator(persist=state) as emulator, Pinecone(api_key="k", host=emulator.url) as pc:
            assert pc.describe_index("kept").host == emulator.index_host("kept") != before
