"""What an address stands for: indexes that are served, or a folder of files to be imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.backends.pinecone.indexes import Indexes
from migrate.backends.pinecone.names import Spot
from migrate.backends.pinecone.sending import Sender
from migrate.config import PineconeSettings
from migrate.errors import MissingExtraError

if TYPE_CHECKING:
    from migrate.backends.pinecone.bulk import FolderSender


def indexes_of(settings: PineconeSettings) -> Indexes:
    """Return the indexes of an address. Raises MissingExtraError where files need a package that is missing."""
    if settings.bulk is None:
        return Indexes(settings)
    try:
        from migrate.backends.pinecone.bulk import Folder
    except ModuleNotFoundError as exc:
        raise MissingExtraError(
            f"files for a bulk import need the package {exc.name}, which is not installed",
            hint="pip install 'memlift[pinecone,parquet]'",
        ) from exc
    return Folder(settings, Path(settings.bulk))


def sender_of(
    settings: PineconeSettings, indexes: Indexes, mark: Callable[[Spot, str, str], None]
) -> Sender | FolderSender:
    """Return what sends records there."""
    if settings.bulk is None:
        return Sender(indexes, mark)
    from migrate.backends.pinecone.bulk import Folder, FolderSender

    if not isinstance(indexes, Folder):
        raise TypeError("files go into a folder")
    return FolderSender(indexes, mark)
