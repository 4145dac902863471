"""A real S3-speaking server on 127.0.0.1, a proxy that breaks things, and databases to back up."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "backup"), str(Path(__file__).parent)]

from fault_proxy import FaultProxy  # noqa: E402 - found on the path above

NAMES = (f"p{number}" for number in itertools.count(1))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Address of ministack, with the bucket `backups`."""
    made = subprocess.run(
        [ROOT / "scripts" / "setup_backup_tests"], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(
            "these tests need an S3 server over HTTP, ministack, which scripts/setup_backup_tests installs from a"
            f" package index; here it could not: {made.stderr[-500:]}"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "DOCKER_HOST": "unix:///nonexistent"}
    server = subprocess.Popen(
        [made.stdout.strip()],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        import boto3

        client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="test", aws_secret_access_key="test",
            region_name="us-east-1",
        )  # fmt: skip
        until = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="backups")
                break
            except Exception:
                if time.monotonic() > until or server.poll() is not None:
                    raise
                time.sleep(0.2)
        client.close()
        yield "127.0.0.1", port
    finally:
        server.kill()
        server.wait()


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MEMLIFT_HOME", str(tmp_path / "home"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))


@pytest.fixture
def proxy(s3_server: tuple[str, int]) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server) as running:
        yield running


@pytest.fixture
def store_at(s3_server: tuple[str, int]) -> Callable[..., str]:
    """Return the address of an empty prefix: store_at() or, through the proxy, store_at(proxy.url)."""

    def address(endpoint: str | None = None) -> str:
        host, port = s3_server
        return f"s3://backups/{next(NAMES)}-{os.getpid()}?endpoint={endpoint or f'http://{host}:{port}'}"

    return address


@pytest.fixture
def points(request: pytest.FixtureRequest) -> int:
    """How many seeded points to kill at: 10, or 50 with --slow, or BACKUP_KILL_POINTS."""
    if given := os.environ.get("BACKUP_KILL_POINTS"):
        return int(given)
    return 50 if request.config.getoption("--slow", default=False) else 10
