"""Settings of the embedded Postgres: safe for data, fast for bulk loads, within the machine's limits."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MIB = 1024 * 1024
GIB = 1024 * MIB

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",  # cgroup v2
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",  # cgroup v1
)


def memory_limit() -> int:
    """Return the bytes of memory this process may use: the machine's, or its container's if less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such cgroup, or "max"
            total = min(total, int(Path(path).read_text(encoding="ascii")))
    return total


def shared_memory() -> int:
    """Return the size of /dev/shm in bytes, or 0 where there is none (a container has 64 MB by default)."""
    try:
        info = os.statvfs("/dev/shm")  # noqa: S108 - measured, not written to
    except OSError:
        return 0
    return info.f_bavail * info.f_frsize


def between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def settings(*, port: int, memory: int, free_disk: int, shm: int, cpus: int) -> dict[str, str]:
    """Return the settings of a server; sizes in bytes.

    `fsync`, `full_page_writes` and `synchronous_commit` stay on: a commit survives a power cut.
    """
    maintenance = between(64 * MIB, memory // 8, 2 * GIB)
    max_wal = between(256 * MIB, free_disk // 8, 8 * GIB)
    return {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",  # 108 bytes of path are too few, and a password on TCP does the same
        "password_encryption": "scram-sha-256",
        "cluster_name": "memlift",
        "max_connections": "100",
        "timezone": "UTC",
        "shared_buffers": _mb(between(32 * MIB, memory // 8, 1 * GIB)),
        "effective_cache_size": _mb(between(64 * MIB, memory // 2, 64 * GIB)),
        "maintenance_work_mem": _mb(maintenance),  # an HNSW graph is built in it
        "autovacuum_work_mem": _mb(between(16 * MIB, memory // 64, 256 * MIB)),
        "work_mem": _mb(between(4 * MIB, memory // 512, 64 * MIB)),
        # A parallel index build shares maintenance_work_mem; in a container /dev/shm is smaller than that.
        "dynamic_shared_memory_type": "posix" if shm > maintenance + 128 * MIB else "mmap",
        "max_parallel_maintenance_workers": str(between(1, cpus, 8)),
        "max_worker_processes": str(between(8, cpus + 4, 32)),
        "max_wal_size": _mb(max_wal),
        "min_wal_size": _mb(between(80 * MIB, max_wal // 8, 1 * GIB)),
        "checkpoint_timeout": "15min",
        "wal_buffers": "16MB",
        # No replicas here, and a COPY into a table made in the same transaction skips the WAL.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "max_logical_replication_workers": "0",
        "random_page_cost": "1.1",
        "client_connection_check_interval": "5s",  # a killed client's CREATE INDEX ends instead of going on
        "log_min_error_statement": "panic",  # statements hold users' data; they do not belong in a log
        "log_checkpoints": "off",
    }


def bulk_settings(*, memory: int) -> dict[str, str]:
    """Return the settings of a server in a container that has `memory` bytes; all safe for data."""
    return {
        "shared_buffers": _mb(between(32 * MIB, memory // 8, 1 * GIB)),
        "effective_cache_size": _mb(between(64 * MIB, memory // 2, 64 * GIB)),
        "maintenance_work_mem": _mb(between(64 * MIB, memory // 8, 2 * GIB)),
        "autovacuum_work_mem": _mb(between(16 * MIB, memory // 64, 256 * MIB)),
        "max_wal_size": "4096MB",
        "checkpoint_timeout": "15min",
        "client_connection_check_interval": "5s",
        "log_min_error_statement": "panic",
    }


def as_conf(values: dict[str, str]) -> str:
    """Return settings as the text of a configuration file."""
    lines = ["# Written by memlift at every start. Your own settings: postgresql.auto.conf (ALTER SYSTEM)."]
    lines += [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _mb(size: int) -> str:
    return f"{size // MIB}MB"
