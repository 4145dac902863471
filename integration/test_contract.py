"""The contract of every backend, on the stores that need a server: the same functions as in `tests/`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from integration.pinecone.backend_kit import EmulatorPlace
from integration.pinecone_emulator import PineconeEmulator
from integration.support.servers import Database, Postgres
from migrate import addresses
from migrate.backends import REGISTRY
from migrate.backends.memory import Memory
from migrate.config import PostgresSettings, Settings
from tests.contract import CHECKS, Check
from tests.places import LOCAL, Place

SERVED = [kind for kind in REGISTRY if kind not in LOCAL]


class PostgresPlace:
    """Schemas of one database; the first use makes each."""

    kind = "postgres"

    def __init__(self, database: Database) -> None:
        self._database, self._numbers = database, itertools.count(1)

    def fresh(self) -> Settings:
        return addresses.parse(self._database.at(f"target {next(self._numbers)}"))

    def _schema(self, at: Settings) -> str:
        assert isinstance(at, PostgresSettings)
        assert at.schema is not None
        return at.schema

    def names(self, at: Settings) -> set[str]:
        with self._database.connect() as connection:
            rows = connection.execute(
                "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = %s",
                (self._schema(at),),
            )
            return {name for (name,) in rows}

    def stranger(self, at: Settings, name: str) -> None:
        schema = self._schema(at)
        self._database.run(
            f'CREATE SCHEMA IF NOT EXISTS "{schema}"',
            f'CREATE TABLE "{schema}"."{name}" (id bigint PRIMARY KEY, v text)',
            f"""INSERT INTO "{schema}"."{name}" VALUES (1, 'theirs')""",
        )


@pytest.fixture(scope="module")
def places(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """The places of all stores that need a server; a new backend adds its own here."""
    folder = tmp_path_factory.mktemp("sidecars")
    with postgres.database() as database, PineconeEmulator() as emulator:
        yield {"postgres": PostgresPlace(database), "pinecone": EmulatorPlace(emulator, folder)}


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_target(kind: str, check: Check, places: dict[str, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind in places, f"{kind} is registered, and the contract has no place to run on it"
    Memory.shelves.clear()
    check(places[kind], monkeypatch)
