"""Cloud backups of SQLite files: consistent, proven, restorable with `gunzip` and `sqlite3` alone."""

from __future__ import annotations

from migrate.backup.manager import BackupManager, Settings, backup_before
from migrate.backup.results import Backup, Created, Drill, Pruned, RestoreResult
from migrate.backup.retention import Retention

__all__ = [
    "Backup",
    "BackupManager",
    "Created",
    "Drill",
    "Pruned",
    "RestoreResult",
    "Retention",
    "Settings",
    "backup_before",
]
