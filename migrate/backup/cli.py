"""`memlift backup ...`: arguments in, text or one JSON document and an exit code out."""

from __future__ import annotations

import _thread
import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrate.addresses import parse
from migrate.backup.text import Progress, duration, print_json, say, show_age, show_size, tell
from migrate.config import SqliteSettings
from migrate.errors import ConfigError, InterruptedRunError, MigrateError, TransientError, VerifyError

if TYPE_CHECKING:
    from migrate.backup.catalog import Listing
    from migrate.backup.drill import Vault
    from migrate.backup.manager import BackupManager, Settings
    from migrate.backup.objectstore import ObjectStore
    from migrate.backup.retention import Retention
    from migrate.backup.sealing import Secret

_STORE_HELP = "s3://bucket/prefix?endpoint=http://host:9000&region=auto, or file:///folder"
# A service manager waits 90 s by default before it kills; a part on its way is given up long before.
_STOP_S = 5.0
_LOOK_S = 0.2  # how often the service looks whether it was told to stop
# With a store that cannot be reached at all, a person should not wait for minutes.
_REACH_S = 20.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `backup` command."""
    backup = subparsers.add_parser(
        "backup", help="back a SQLite file up to S3, any S3-compatible store or a folder"
    )
    commands = backup.add_subparsers(dest="backup_command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    common.add_argument("--quiet", action="store_true", help="no progress")
    common.add_argument("--db", metavar="ID", help="the database's id in the store (default: from its path)")
    common.add_argument("--workdir", type=Path, help="where the one temporary copy goes")
    common.add_argument(
        "--patience",
        type=duration,
        default=300.0,
        metavar="TIME",
        help="how long to go on while the store is away",
    )
    keys = argparse.ArgumentParser(add_help=False)
    key = keys.add_mutually_exclusive_group()
    key.add_argument("--passphrase-file", type=Path, metavar="F", help="seal or open backups; its first line")
    key.add_argument("--key-file", type=Path, metavar="F", help="the same with 32 random bytes or more")
    making = argparse.ArgumentParser(add_help=False)
    making.add_argument("database", metavar="DB", help="the SQLite file; it may be in use")
    making.add_argument("store", metavar="STORE", help=_STORE_HELP)
    making.add_argument("--compression", choices=("gzip", "zstd", "none"), default="gzip")
    making.add_argument("--incremental", action="store_true", help="only changed pages, after a full backup")
    keeping = argparse.ArgumentParser(add_help=False)
    for name in ("daily", "weekly", "monthly"):
        keeping.add_argument(f"--keep-{name}", type=int, default=0, metavar="N")
    keeping.add_argument("--max-age", type=duration, metavar="TIME", help="remove what is older, as 30d")
    keeping.add_argument(
        "--orphan-age", type=duration, default=86400.0, metavar="TIME", help=argparse.SUPPRESS
    )

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, *parents: Any) -> Any:
        parser = commands.add_parser(name, help=text, description=text, parents=[common, *parents])
        parser.set_defaults(run=run)
        return parser

    command("create", create, "make a backup now", keys, making)
    command("list", list_, "show backups: id, time, size, kind, rows, last proven").add_argument("store", metavar="STORE", help=_STORE_HELP)  # fmt: skip
    restore_parser = command(
        "restore", restore, "restore a backup to a path; proven before it takes its place", keys
    )
    restore_parser.add_argument("store", metavar="STORE", help=_STORE_HELP)
    restore_parser.add_argument("to", metavar="TO", help="the SQLite file to write")
    restore_parser.add_argument("--at", default="latest", help="latest, an id, or a time (default: latest)")
    restore_parser.add_argument(
        "--force", action="store_true", help="replace an existing file; it is kept beside"
    )
    restore_parser.add_argument(
        "--discard-replaced", action="store_true", help="do not keep the replaced file"
    )
    verify_parser = command("verify", verify, "a restore drill in a scratch place, noted in the store", keys)
    verify_parser.add_argument("store", metavar="STORE", help=_STORE_HELP)
    verify_parser.add_argument("--at", default="latest", help="latest, an id, or a time (default: latest)")
    prune_parser = command("prune", prune, "remove what need not be kept; never the newest good one", keeping)
    prune_parser.add_argument("store", metavar="STORE", help=_STORE_HELP)
    prune_parser.add_argument("--keep", type=int, metavar="N", help="the newest so many of each database")
    prune_parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    run_parser = command("run", run, "keep to a schedule until told to stop", keys, making, keeping)
    run_parser.add_argument(
        "--interval", type=duration, default=3600.0, metavar="TIME", help="as 15m, 1h (default)"
    )
    run_parser.add_argument(
        "--keep", type=int, default=168, metavar="N", help="the newest so many (default: 168)"
    )
    run_parser.add_argument("--verify-every", type=duration, metavar="TIME", help="a restore drill, as 24h")
    run_parser.add_argument("--heartbeat", metavar="URL", help="called after each success")
    run_parser.add_argument("--metrics", metavar="HOST:PORT", help="answer /metrics for Prometheus")


def create(args: argparse.Namespace) -> int:
    """`backup create DB STORE`."""
    with _interruptible() as cancel:
        manager = _manager(args, cancel)
        _reach(manager.store, write=True)
        made = manager.create()
    if args.json:
        return print_json({"store": manager.store.url} | made.to_dict())
    if made.unchanged:
        say(f"unchanged since {made.id}; nothing uploaded")
        return 0
    for note in made.manifest.notes:
        tell(f"note: {note}")
    say(
        f"{made.id}  {made.manifest.kind}  {show_size(made.uploaded)} of {show_size(made.manifest.size)}, "
        f"{made.manifest.rows:,} rows, {made.seconds:.1f} s"
    )
    return 0


def list_(args: argparse.Namespace) -> int:
    """`backup list STORE`."""
    from migrate.backup.results import Backup, list_document

    with _interruptible() as cancel:
        store, _, listings = _open(args, cancel)
    if args.db:
        listings = [listing for listing in listings if listing.database == args.db]
    now = datetime.fromtimestamp(time.time(), UTC)
    document = list_document(store.url, listings, now)
    if args.json:
        return print_json(document)
    if not listings:
        say("no backups")
    for listing, about in zip(listings, document["databases"], strict=True):
        say(listing.database)
        say(f"  {'id':<36}  {'time':<20}  {'kind':<11}  {'size':>10}  {'rows':>12}  last proven")
        for entry in listing.entries:
            backup = Backup.of(entry)
            when = backup.time.strftime("%Y-%m-%dT%H:%M:%SZ") if backup.time else "-"
            proven = backup.last_proven.strftime("%Y-%m-%dT%H:%M:%SZ") if backup.last_proven else "never"
            say(
                f"  {backup.id:<36}  {when:<20}  {backup.kind:<11}  {show_size(backup.size):>10}  {backup.rows:>12,}  "
                + (f"NOT RESTORABLE: {backup.problem}" if backup.problem else proven)
            )
        age = about["last_proven_age_s"]
        say(f"  last proven backup: {about['last_proven']}, {show_age(age)} old" if age is not None else "  none is proven: memlift backup verify")  # fmt: skip
    return 0


def restore(args: argparse.Namespace) -> int:
    """`backup restore STORE TO`."""
    from migrate.backup.catalog import only

    to = _database(args.to)
    if to.exists() and not args.force:
        raise ConfigError(
            f"{to} exists",
            hint="--force replaces it and keeps the old file beside it; or choose another path",
        )
    with _interruptible() as cancel:
        _, vault, listings = _open(args, cancel)
        named = [listing for listing in listings if any(str(e.id) == args.at for e in listing.entries)]
        listing = only(named or listings, args.db)
        done = vault.restore(
            listing, args.at, to, replace=args.force, keep_replaced=not args.discard_replaced,
            progress=_progress(args, "restoring"),
        )  # fmt: skip
    newest = listing.entries[-1]
    if args.at == "latest" and not newest.good:
        tell(f"warning: a newer backup, {newest.id}, cannot be restored: {newest.problem}")
    if args.json:
        return print_json(done.to_dict())
    say(f"{done.path}: {done.manifest.id}, {done.manifest.rows:,} rows, proven, {done.seconds:.1f} s")
    if done.replaced:
        say(f"the replaced file is kept as {done.replaced}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """`backup verify STORE`: the latest backup of each database, or the one that is named."""
    with _interruptible() as cancel:
        _, vault, listings = _open(args, cancel)
        named = [listing for listing in listings if any(str(e.id) == args.at for e in listing.entries)]
        chosen = [listing for listing in named or listings if args.db in (None, listing.database)]
        if not chosen:
            raise ConfigError("no backups here" + (f" of {args.db}" if args.db else ""))
        drills = [vault.verify(listing, args.at, progress=_progress(args, "verifying")) for listing in chosen]
    # The newest one is what a restore is asked for: were it damaged, "latest" would prove the one before.
    for listing in chosen:
        if args.at == "latest" and not listing.entries[-1].good:
            raise VerifyError(
                f"the newest backup cannot be restored: {listing.entries[-1].problem}",
                hint="make a new one: memlift backup create",
                backup=str(listing.entries[-1].id),
            )
    if args.json:
        found = [drill.to_dict() for drill in drills]
        return print_json((found[0] if len(found) == 1 else {"verified": True}) | {"drills": found})
    for drill in drills:
        say(
            f"{drill.manifest.id}: proven ({', '.join(drill.checks)}), {drill.manifest.rows:,} rows, {drill.seconds:.1f} s"
        )
    return 0


def prune(args: argparse.Namespace) -> int:
    """`backup prune STORE`: each database under the prefix keeps so many of its own."""
    from migrate.backup.manager import prune as prune_listing

    keep = _retention(args)
    with _interruptible() as cancel:
        store, _, listings = _open(args, cancel)
        chosen = [listing for listing in listings if args.db in (None, listing.database)]
        age = timedelta(seconds=args.orphan_age)
        done = [
            prune_listing(listing, store, keep, dry_run=args.dry_run, orphan_age=age) for listing in chosen
        ]
    if args.json:
        whole: dict[str, Any] = {"dry_run": args.dry_run}
        for name in ("removed", "kept", "orphans", "uploads", "left"):
            whole[name] = [item for pruned in done for item in getattr(pruned, name)]
        whole["freed_bytes"] = sum(pruned.freed for pruned in done)
        return print_json(whole | {"databases": [pruned.to_dict() for pruned in done]})
    verb = "would remove" if args.dry_run else "removed"
    for pruned in done:
        for name in (*pruned.removed, *pruned.orphans, *pruned.uploads):
            say(f"{verb} {name}")
        for why in pruned.left:
            tell(f"left: {why}")
        say(
            f"{pruned.database}: {verb} {len(pruned.removed)}, kept {len(pruned.kept)}, freed {show_size(pruned.freed)}"
        )
    return 0


def run(args: argparse.Namespace) -> int:
    """`backup run DB STORE`: until SIGTERM or SIGINT. 0 where nothing was cut off, else 143 or 130."""
    from migrate.backup.metrics import serve
    from migrate.backup.service import Service, ServiceSettings

    logger = logging.getLogger("memlift.backup")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if args.quiet else logging.INFO)
    manager = _manager(args, threading.Event(), keep=_retention(args))
    with contextlib.suppress(TransientError):  # away for now: the service goes on trying
        manager.store.reach(write=True, patience_s=_REACH_S)
    service = Service(
        manager,
        ServiceSettings(interval_s=args.interval, verify_every_s=args.verify_every, heartbeat=args.heartbeat),
    )
    server = serve(service.metrics, args.metrics) if args.metrics else None
    told: int | None = None  # no Event: its lock may be held by the very thread that a signal interrupts

    def stop(number: int, _frame: object) -> None:
        nonlocal told
        told = number

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        service.start()
        logger.info(
            "every %.0f s: %s -> %s (%s)", args.interval, manager.path, manager.store.url, manager.database
        )
        while told is None and service.running:
            time.sleep(_LOOK_S)
        clean = service.stop(_STOP_S) and not service.interrupted
        if told is None:
            raise InterruptedRunError("the service ended by itself", exit_code=1)
        logger.info("stopped%s", "" if clean else "; a backup under way was given up")
        if args.json:
            print_json({"store": manager.store.url, "database": manager.database, "clean": clean})
        return 0 if clean else 128 + told
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
        if server is not None:
            server.shutdown()
            server.server_close()
        logger.removeHandler(handler)


def _open(args: argparse.Namespace, cancel: threading.Event) -> tuple[ObjectStore, Vault, list[Listing]]:
    """Open a store that must be there, and read what is in it."""
    from migrate.backup.catalog import Catalog
    from migrate.backup.drill import Vault
    from migrate.backup.objectstore import open_store
    from migrate.backup.patience import Patience

    patience = Patience(total_s=args.patience, cancel=cancel)
    store = open_store(args.store, patience=patience)
    _reach(store, write=False)
    catalog = Catalog(store)
    vault = Vault(store, catalog, patience, secret=_secret(args), workdir=args.workdir)
    return store, vault, catalog.databases()


def _manager(
    args: argparse.Namespace, cancel: threading.Event, keep: Retention | None = None
) -> BackupManager:
    from migrate.backup.manager import BackupManager

    path = _database(args.database)
    if not path.is_file():
        raise ConfigError(f"no such database: {args.database}", hint="check the path")
    return BackupManager(
        path,
        store=args.store,
        compression=args.compression,
        mode="incremental" if args.incremental else "full",
        database_id=args.db,
        interval=getattr(args, "interval", 3600.0),
        keep=keep,
        settings=_settings(args),
        cancel=cancel,
        on_progress=Progress() if not (args.quiet or args.json or args.run is run) else None,
    )


def _settings(args: argparse.Namespace) -> Settings:
    from migrate.backup.manager import Settings

    age = timedelta(seconds=getattr(args, "orphan_age", 86400.0))
    return Settings(secret=_secret(args), workdir=args.workdir, patience_s=args.patience, orphan_age=age)


def _database(text: str) -> Path:
    """Accept a path or an address as `memlift migrate` takes it, of a SQLite file."""
    settings = parse(text)
    if not isinstance(settings, SqliteSettings):
        raise ConfigError(
            f"backups are of SQLite files, and {settings} is none",
            hint="a path, sqlite:///relative.db or sqlite:////absolute.db",
        )
    return settings.path


def _secret(args: argparse.Namespace) -> Secret | None:
    passphrase, key = getattr(args, "passphrase_file", None), getattr(args, "key_file", None)
    if passphrase is None and key is None:
        return None
    from migrate.backup.codecs import library

    library("cryptography")
    from migrate.backup.sealing import Secret

    return Secret.from_passphrase_file(passphrase) if passphrase else Secret.from_key_file(Path(str(key)))


def _retention(args: argparse.Namespace) -> Retention:
    from migrate.backup.retention import Retention

    return Retention(
        last=args.keep,
        max_age=timedelta(seconds=args.max_age) if args.max_age else None,
        daily=args.keep_daily,
        weekly=args.keep_weekly,
        monthly=args.keep_monthly,
    )


def _reach(store: ObjectStore, *, write: bool) -> None:
    """Look once whether the store is there: a failure now means that nothing was begun (exit 2)."""
    try:
        store.reach(write=write, patience_s=_REACH_S)
    except TransientError as exc:
        raise ConfigError(f"the store cannot be reached: {exc.message}", hint=exc.hint, **exc.where) from exc


class _Stopped(BaseException):
    """Raised by a signal. No Exception: boto3 would take one for a broken line, and try again."""


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let SIGTERM and SIGINT unwind what is under way, so that nothing half-made stays behind.

    Yields an event that is set then, for what runs in other threads.
    """
    cancel = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    came: int | None = None

    def stop(number: int, _frame: object) -> None:
        nonlocal came
        came = number
        # By another thread: this one may hold the event's lock, and lets go of it as it unwinds.
        _thread.start_new_thread(cancel.set, ())
        raise _Stopped

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield cancel
    except (_Stopped, MigrateError) as exc:
        if came is not None:
            raise InterruptedRunError("interrupted", exit_code=128 + came, hint="run it again") from exc
        raise
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _progress(args: argparse.Namespace, what: str) -> Callable[[int, int], None] | None:
    report = Progress()
    return None if args.quiet or args.json else lambda done, total: report(what, done, total)
