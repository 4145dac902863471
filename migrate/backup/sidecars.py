"""Files beside a database that go along with it: the HNSW index and its map.

They are derived data. One that changes while it is copied is left out and said
so: the agent builds it anew. Where they differ from the database that is
restored they would find the wrong things, so a restore always moves the old
ones away.
"""

from __future__ import annotations

import re
from pathlib import Path

from migrate.backup.manifest import Sidecar, is_sidecar_suffix

# AgentOS: brain.hnsw, brain.hnsw.map.json; vectors.sqlite.<collection>.hnsw and .hnsw.map.json.
_PATTERN = re.compile(r"(?:\.[A-Za-z0-9_-]+)?\.hnsw(?:\.map\.json|\.meta\.json|\.json)?")


def find(database: Path) -> list[tuple[str, str, Path]]:
    """Return (base, suffix, path) of each, in the order of names."""
    found: list[tuple[str, str, Path]] = []
    for path in sorted(database.parent.iterdir()) if database.parent.is_dir() else ():
        for base, start in (("name", database.name), ("stem", database.stem)):
            suffix = path.name[len(start) :]
            if path.name.startswith(start) and _PATTERN.fullmatch(suffix) and is_sidecar_suffix(suffix):
                if path.is_file() and not path.is_symlink():
                    found.append((base, suffix, path))
                break
    return found


def place(database: Path, sidecar: Sidecar) -> Path:
    """Return where a sidecar belongs beside a restored database."""
    start = database.name if sidecar.base == "name" else database.stem
    return database.with_name(f"{start}{sidecar.suffix}")
