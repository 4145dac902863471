"""All collections and aliases of a server, and where they lie on disk."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from integration.qdrant_server import settings
from integration.qdrant_server.collection import Collection, Optimizer
from integration.qdrant_server.engine import Engine
from integration.qdrant_server.errors import QdrantError, missing_collection

Json = dict[str, Any]


class Store:
    """Opens what an earlier server left under `path`."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self.engine = engine
        self.optimizer = Optimizer()
        self.lock = threading.RLock()
        self._collections: dict[str, Collection] = {}
        (path / "collections").mkdir(parents=True, exist_ok=True)
        self._aliases_file = path / "aliases.json"
        self.aliases: dict[str, str] = (
            json.loads(self._aliases_file.read_text()) if self._aliases_file.exists() else {}
        )
        for folder in sorted((path / "collections").iterdir()):
            # A folder without settings was being created or removed when the server died.
            if (folder / "config.json").exists():
                found = Collection.load(folder, engine, self.optimizer)
                self._collections[found.name] = found

    def names(self) -> list[str]:
        return sorted(self._collections)

    def all(self) -> list[Collection]:
        return list(self._collections.values())

    def get(self, name: str) -> Collection:
        """A collection by its name or by an alias."""
        found = self._collections.get(self.aliases.get(name, name))
        if found is None:
            raise missing_collection(name)
        return found

    def exists(self, name: str) -> bool:
        return self.aliases.get(name, name) in self._collections

    def create(self, name: str, body: Json) -> bool:
        settings.check_name(name)
        made = settings.created(body)
        with self.lock:
            if name in self._collections:
                raise QdrantError("already_exists", f"Collection `{name}` already exists!")
            if name in self.aliases:
                raise QdrantError(
                    "bad_input",
                    f"Can't create collection with name {name}. Alias with the same name already exists",
                )
            folder = self._free_folder(name)
            self._collections[name] = Collection.create(folder, self.engine, self.optimizer, name, made)
        return True

    def _free_folder(self, name: str) -> Path:
        """A hash, since names may be longer than a file's name and differ only in case."""
        stem = hashlib.sha256(name.encode()).hexdigest()[:24]
        number = 0
        while (folder := self.path / "collections" / f"{stem}-{number}").exists():
            number += 1
        return folder

    def delete(self, name: str) -> bool:
        """False when there is none, as the server answers. Its aliases go with it."""
        with self.lock:
            name = self.aliases.get(name, name)
            found = self._collections.pop(name, None)
            if found is None:
                return False
            self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}
            self._save_aliases()
            (found.folder / "config.json").unlink()
            found.drop()
        return True

    def patch(self, name: str, body: Json) -> bool:
        found = self.get(name)
        with self.lock:
            found.apply(settings.patched(found.settings, body))
        return True

    def change_aliases(self, actions: list[Json]) -> bool:
        """All actions or none."""
        with self.lock:
            aliases = dict(self.aliases)
            for action in actions:
                self._change(aliases, action)
            self.aliases = aliases
            self._save_aliases()
        return True

    def _change(self, aliases: dict[str, str], action: Json) -> None:
        if "create_alias" in action:
            asked = action["create_alias"]
            if asked["collection_name"] not in self._collections:
                raise missing_collection(asked["collection_name"])
            if asked["alias_name"] in self._collections:
                raise QdrantError("already_exists", f"Collection `{asked['alias_name']}` already exists!")
            aliases[asked["alias_name"]] = asked["collection_name"]
        elif "delete_alias" in action:
            aliases.pop(action["delete_alias"]["alias_name"], None)
        elif "rename_alias" in action:
            asked = action["rename_alias"]
            if asked["old_alias_name"] not in aliases:
                raise QdrantError("not_found", f"Alias {asked['old_alias_name']} does not exists!")
            if asked["new_alias_name"] in self._collections:
                raise QdrantError("already_exists", f"Collection `{asked['new_alias_name']}` already exists!")
            aliases[asked["new_alias_name"]] = aliases.pop(asked["old_alias_name"])

    def aliases_of(self, name: str | None) -> list[Json]:
        """`AliasDescription` of one collection or of all."""
        wanted = None if name is None else self.get(name).name
        return [
            {"alias_name": alias, "collection_name": target}
            for alias, target in sorted(self.aliases.items())
            if wanted in (None, target)
        ]

    def _save_aliases(self) -> None:
        aside = self._aliases_file.with_suffix(".new")
        with aside.open("w") as file:
            file.write(json.dumps(self.aliases))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._aliases_file)
