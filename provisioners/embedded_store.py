"""Stores without Docker, with the same life as those in containers: Postgres, or Qdrant's engine, in a folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from migrate.config import home
from migrate.errors import MissingExtraError
from provisioners import files, pgprobe, ready, saved
from provisioners.base import Endpoint, Kind, Say, check_name, silent
from provisioners.docker_access import endpoint_of
from provisioners.embedded import KNOWN_NAMES, EmbeddedPostgres
from provisioners.errors import ProvisionError


def key_of(kind: str, name: str) -> str:
    """Return the name under which an embedded store is saved."""
    return f"{name}-{kind}-embedded"


class EmbeddedStore:
    """One store in a folder. folder: None takes the remembered one, else one in our home."""

    def __init__(
        self,
        kind: Kind,
        *,
        name: str = "memlift",
        folder: str | Path | None = None,
        version: str | None = None,
        say: Say = silent,
    ) -> None:
        self.kind = kind
        self.key = key_of(kind, check_name(name))
        self.say = say
        self._name = name
        self._version = version
        remembered = (saved.get(self.key) or {}).get("folder")
        chosen = folder or remembered or home() / f"{name}-{kind}"
        self.folder = Path(chosen).expanduser().absolute()

    @property
    def postgres(self) -> EmbeddedPostgres:
        """The server of the folder, where the kind is postgres."""
        if self._version is not None and not self._version.isdigit():
            raise ProvisionError(f"no embedded Postgres {self._version}", hint="choose 16 or 18")
        return EmbeddedPostgres(self.folder, version=int(self._version) if self._version else None)

    def up(self) -> Endpoint:
        """Start the store, or find it running; it stays up until `stop`. Idempotent.

        Raises ProvisionError and its kin, MissingExtraError.
        """
        self.say(f"[4/7] embedded {self.kind} in {self.folder}")
        saved.make_home()
        known = saved.get(self.key) or {}
        made = bool(known.get("made")) or not _has_content(self.folder)
        entry: dict[str, Any] = {
            "kind": self.kind, "how": "embedded", "name": self._name, "folder": str(self.folder), "made": made
        }  # fmt: skip
        if self.kind == "qdrant":
            files.private_dir(self.folder)
            entry |= {"url": f"qdrant:{self.folder}", "version": self._try_qdrant()}
        else:
            server = self.postgres
            self.say("[5/7] starting it, or making it on first use")
            server.start(keep=True)
            self.say("[6/7] asking it a real query, and for pgvector")
            facts = ready.ask_postgres(server.url)
            extension = ready.ensure_vector(server.url, own=True)
            self.say(f"postgres {facts.version} with pgvector {extension} is ready")
            entry |= {"url": server.url, "version": facts.version, "extension": extension}
        saved.put(self.key, entry)
        self.say(f"[7/7] saved {self.key} in {saved.path()}")
        return endpoint_of(entry, self.key)

    def _try_qdrant(self) -> str:
        """Store and find one point in a scratch folder beside the data; return the engine's version."""
        import importlib.metadata

        self.say("[6/7] storing and finding one point with Qdrant's engine")
        try:
            from qdrant_edge import (
                Distance,
                EdgeConfig,
                EdgeShard,
                EdgeVectorParams,
                Point,
                Query,
                QueryRequest,
                UpdateOperation,
            )
        except ImportError:
            raise MissingExtraError(
                "Qdrant's engine is in the package qdrant-edge-py", hint="pip install 'memlift[qdrant]'"
            ) from None
        scratch = Path(tempfile.mkdtemp(prefix=".try-", dir=self.folder))
        try:
            config = EdgeConfig(vectors=EdgeVectorParams(size=2, distance=Distance.Dot))
            shard = EdgeShard.create(str(scratch / "shard"), config)
            shard.update(UpdateOperation.upsert_points([Point(1, [1.0, 0.0], {})]))
            hits = shard.query(QueryRequest(limit=1, query=Query.Nearest([1.0, 0.0])))
            shard.close()
        except Exception as exc:  # the engine raises bare Exception for everything
            raise ProvisionError(
                f"Qdrant's engine does not work in this folder: {exc}",
                hint="choose a folder on a local disk with --folder",
                path=self.folder,
            ) from exc
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if [hit.id for hit in hits] != [1]:
            raise ProvisionError("Qdrant's engine did not find the point just stored", path=self.folder)
        return importlib.metadata.version("qdrant-edge-py")

    def running(self) -> bool:
        """Whether it can be used now: a server that lives, or a folder that is there."""
        if self.kind == "qdrant":
            return self.folder.is_dir()
        return self.folder.is_dir() and self.postgres.running()

    def logs(self, lines: int = 100) -> str:
        """Return the server's last messages, secrets masked; Qdrant's engine in a folder writes none."""
        return self.postgres.last_log(lines) if self.kind == "postgres" else "(Qdrant's engine keeps no log)"

    def stop(self) -> bool:
        """Stop the server for everybody; return whether one ran. A Qdrant folder has none to stop."""
        if self.kind == "qdrant" or not self.running():
            return False
        self.postgres.stop(force=True)
        return True

    def down(self, *, volumes: bool = False) -> list[str]:
        """Stop it; with `volumes`, also remove its folder's data and forget it. Returns what was removed.

        Only what memlift made is removed: other files in the folder stay, and a folder that
        held Qdrant data before memlift came stays whole.
        """
        self.stop()
        if not volumes:
            return []
        removed = []
        made = bool((saved.get(self.key) or {}).get("made"))
        if self.folder.is_dir() and self.kind == "postgres" and self.postgres.state() is not None:
            for path in self.folder.iterdir():
                if path.name in KNOWN_NAMES or path.name.startswith(".data-"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(str(self.folder))
        elif self.folder.is_dir() and self.kind == "qdrant" and made:
            shutil.rmtree(self.folder)
            removed.append(str(self.folder))
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
        saved.forget(self.key)
        return removed

    def disk(self) -> int | None:
        """Return the bytes that the folder occupies, or None where it is not there."""
        return files.size_of(self.folder) if self.folder.is_dir() else None

    def url(self) -> str | None:
        """Return the address as it is now (a server's port may have changed), or None."""
        return f"qdrant:{self.folder}" if self.kind == "qdrant" else self.postgres.saved_url()

    def ask(self) -> ready.Facts:
        """Ask it a real query. Raises ProvisionError and its kin."""
        if self.kind == "qdrant":
            if not self.folder.is_dir():
                raise ProvisionError("the folder is not there", hint="memlift up qdrant --embedded")
            return ready.Facts(version=str((saved.get(self.key) or {}).get("version", "")))
        url = self.postgres.saved_url()
        if url is None or not pgprobe.answers(url, self.postgres.data):
            raise ProvisionError("the server does not run", hint="memlift up postgres --embedded")
        return ready.ask_postgres(url)


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
