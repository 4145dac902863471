"""Folders of embedded shards, their settings files, and the engine's errors as ours."""

from __future__ import annotations

from pathlib import Path

from migrate.backends.qdrant.engine import Json
from migrate.errors import BackendError, ConfigError, TransientError

ENGINE_SETTINGS = "edge_config.json"


def check_folder(folder: Path, *, writing: bool) -> None:
    """Raise ConfigError for a folder that is something else than shards of this engine."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder", hint="qdrant: takes a folder")
    if (folder / "meta.json").exists() and (folder / "collection").is_dir():
        raise ConfigError(
            f"{folder} was written by the Qdrant client's local mode, which this engine cannot read",
            hint="choose another folder; to bring its data home, copy it to a server with the client first",
        )
    if writing and (folder / ENGINE_SETTINGS).exists():
        raise ConfigError(
            f"{folder} is itself one shard of another program",
            hint="choose a folder of its own; as a source it can be read",
        )
    if (folder / "raft_state.json").exists() or (folder / "aliases").is_dir():
        raise ConfigError(
            f"{folder} is the storage of a Qdrant server", hint="start that server and use qdrant+http://..."
        )


def as_rest(found: Json) -> Json:
    """Return the engine's own settings file in REST form."""
    vectors = found.get("vectors") or {}
    settings: Json = {"vectors": vectors[""] if list(vectors) == [""] else vectors}
    sparse = {n: v for n, v in (found.get("sparse_vectors") or {}).items() if n != "memlift_none"}
    if sparse:
        settings["sparse_vectors"] = sparse
    for theirs, ours in (("hnsw_config", "hnsw_config"), ("optimizers", "optimizers_config")):
        given = {k: v for k, v in (found.get(theirs) or {}).items() if v is not None}
        if given:
            settings[ours] = given
    for name in ("quantization_config", "on_disk_payload"):
        if found.get(name) is not None:
            settings[name] = found[name]
    return settings


def disk_error(op: str, exc: OSError) -> BackendError:
    """Return the error of a file that could not be written."""
    return BackendError(
        f"cannot {op}: {exc.strerror}", hint="is there room on the disk, and may we write there?"
    )


def translated(op: str, kind: str, text: str, store: str) -> BackendError:
    """Turn an error of the engine (its class and text; nearly all are bare `Exception`) into ours."""
    if "WouldBlock" in text:
        return TransientError(
            "another process holds this Qdrant folder",
            hint="end that process; one process at a time can open an embedded store",
            store=store,
        )
    if "No space left" in text:
        return BackendError(
            f"Qdrant's engine could not {op}: the disk is full",
            hint="make room and run the same command again, it goes on from its checkpoint",
            store=store,
        )
    return BackendError(
        f"Qdrant's engine could not {op}: {text.splitlines()[0] if text else kind}", store=store
    )
