"""Stores from their addresses: opened for reading or writing, and what their tables mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from migrate import addresses, backends, layouts
from migrate.backends.base import Options, Source, Target
from migrate.config import Endpoint, PostgresSettings, Settings
from migrate.errors import BackendError, ConfigError
from migrate.layouts.base import Layout, Reading, Wishes
from migrate.report import Observer, Silent
from migrate.schema import Table


@contextmanager
def nothing_begun() -> Iterator[None]:
    """Give an error inside the exit code of a store that cannot be reached or read."""
    try:
        yield
    except BackendError as exc:
        exc.exit_code = ConfigError.exit_code
        raise


@dataclass(slots=True)
class Reach:
    """Opens stores, starting the embedded servers that their addresses name; closes all at the end."""

    observer: Observer = field(default_factory=Silent)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Reach:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.close()

    def settings(self, endpoint: Endpoint, *, create: bool) -> Settings:
        """Return settings that can be connected to. `create`: an embedded server may be made."""
        settings = addresses.parse(endpoint)
        if isinstance(settings, PostgresSettings) and settings.embedded is not None:
            return replace(settings, conninfo=self._embedded(settings, create=create))
        return settings

    def _embedded(self, settings: PostgresSettings, *, create: bool) -> str:
        # The address is part of the contract, so this is the one place where the
        # engine asks the provisioners for something.
        from provisioners.embedded import EmbeddedPostgres

        folder = settings.embedded
        if folder is None:
            raise ConfigError("an embedded Postgres needs a folder")
        server = EmbeddedPostgres(folder)
        if not create and not server.made():
            raise ConfigError(f"there is no embedded Postgres in {folder}", hint="check the path")
        self._stack.enter_context(server)
        return server.url

    def source(self, settings: Settings) -> Source:
        """Open a store for reading."""
        with nothing_begun():
            opened: Source = backends.load(settings.type).source(settings)
        self._stack.callback(opened.close)
        return opened

    def target(self, settings: Settings, options: Options) -> Target:
        """Open a store for writing."""
        opened: Target = backends.load(settings.type).target(settings, options)
        self._stack.callback(opened.close)
        return opened


@contextmanager
def opened_source(endpoint: Endpoint, observer: Observer | None = None) -> Iterator[Source]:
    """Open a store for reading, for as long as the block lasts."""
    with Reach(observer or Silent()) as reach:
        yield reach.source(reach.settings(endpoint, create=False))


def understand(source: Source, wishes: Wishes) -> tuple[Layout, Reading]:
    """Return a source's layout and its tables as that layout understands them."""
    with nothing_begun():
        declared = source.tables()

    def sample(table: Table, n: int) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for batch in source.batches(table, size=n):
            rows += batch.rows
            break
        return rows

    layout = layouts.recognise(declared)
    reading = layout.read(declared, sample, wishes)
    return layout, replace(reading, not_carried=[*source.not_carried(), *reading.not_carried])
