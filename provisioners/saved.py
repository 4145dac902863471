"""`vector-store.json` in our home: where our stores are and what opens them (0600, in a 0700 folder).

Format 1: `{"format": 1, "stores": {name: entry}}`. An entry has `kind`, `how`, `url`
(secrets included: this file is their one home), `saved` (UTC, ISO 8601) and what its
provisioner needs to find the store again.
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
    """Return all entries by name. Raises ProvisionError where the file is damaged or newer than we are."""
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
    stores: dict[str, Entry] = found.get("stores", {})
    return stores


def get(name: str) -> Entry | None:
    """Return one entry, or None."""
    return load().get(name)


def put(name: str, entry: Entry) -> None:
    """Save one entry, and leave the others; durable on return."""
    with _locked():
        stores = load()
        stores[name] = entry | {"saved": datetime.now(UTC).isoformat(timespec="seconds")}
        _write(stores)


def forget(name: str) -> None:
    """Remove one entry; one that is not there is no error."""
    with _locked():
        stores = load()
        if stores.pop(name, None) is not None:
            _write(stores)


def lock(name: str, *, timeout: float) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of one store among the processes of this home; timeout: seconds."""
    make_home()
    return files.exclusive(home() / f".{name}.lock", timeout=timeout, what=f"setting up {name}")


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    make_home()
    with files.exclusive(home() / ".vector-store.lock", timeout=30, what="the saved addresses"):
        yield


def _write(stores: dict[str, Entry]) -> None:
    text = json.dumps({"format": FORMAT, "stores": stores}, indent=1, sort_keys=True, ensure_ascii=False)
    files.write_private(path(), text + "\n")
