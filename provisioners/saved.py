"""`vector-store.json` in our home: where our stores are and what opens them (0600, in a 0700 folder).

Format 1: `{"format": 1, "stores": {name: entry}, "memories": {name: entry}}`. An entry of `stores`
has `kind`, `how`, `url` (secrets included: this file is their one home), `saved` (UTC, ISO 8601) and
what its provisioner needs to find the store again. An entry of `memories` says where an agent's
memory is now: `tier`, `address` (a dict that `migrate()` takes), `previous` and `saved`; it is
written when a move to another tier has been proven, and never before.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from migrate.config import home
from provisioners import files
from provisioners.errors import ProvisionError

FORMAT = 1
Entry = dict[str, Any]


def path() -> Path:
    """Return the file's path; it may not exist yet."""
    return home() / "vector-store.json"


def make_home() -> None:
    """Create our home with mode 0700; close the default one where it was made with another mode.

    A home that the user chose with MEMLIFT_HOME keeps its mode: it may hold other things of his.
    """
    folder = home()
    files.private_dir(folder)
    if folder == Path.home() / ".memlift" and folder.stat().st_uid == os.geteuid():
        folder.chmod(0o700)


def load() -> dict[str, Entry]:
    """Return all stores by name. Raises ProvisionError where the file is damaged or newer than we are."""
    stores: dict[str, Entry] = _read().get("stores", {})
    return stores


def memories() -> dict[str, Entry]:
    """Return where agents' memories are now, by name. Raises as `load` does."""
    found: dict[str, Entry] = _read().get("memories", {})
    return found


def remember(name: str, entry: Entry) -> None:
    """Save where a memory is now, and leave all else; durable on return."""
    with _locked():
        _write({"memories": memories() | {name: entry | _now()}})


def _read() -> dict[str, Any]:
    file = path()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ProvisionError(
            f"cannot read the saved addresses: {exc.__class__.__name__}",
            hint="mend the file; it holds the passwords of your databases, so keep a copy before you remove it",
            path=file,
        ) from exc
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ProvisionError("the saved addresses have another format", hint="upgrade memlift", path=file)
    return found


def get(name: str) -> Entry | None:
    """Return one entry, or None."""
    return load().get(name)


def put(name: str, entry: Entry) -> None:
    """Save one entry, and leave the others; durable on return."""
    with _locked():
        _write({"stores": load() | {name: entry | _now()}})


def forget(name: str) -> None:
    """Remove one entry; one that is not there is no error."""
    with _locked():
        stores = load()
        if stores.pop(name, None) is not None:
            _write({"stores": stores})


def lock(name: str, *, timeout: float) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of one store among the processes of this home; timeout: seconds."""
    make_home()
    return files.exclusive(home() / f".{name}.lock", timeout=timeout, what=f"setting up {name}")


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    make_home()
    with files.exclusive(home() / ".vector-store.lock", timeout=30, what="the saved addresses"):
        yield


def _now() -> Entry:
    return {"saved": datetime.now(UTC).isoformat(timespec="seconds")}


def _write(changed: dict[str, Any]) -> None:
    """Replace some parts of the file; called under the lock."""
    whole = {"stores": {}, **_read(), **changed, "format": FORMAT}
    # ASCII: the name of a folder may be no UTF-8, and is kept in escapes.
    files.write_private(path(), json.dumps(whole, indent=1, sort_keys=True) + "\n")
