"""The commands that move or compare rows: migrate, audit, verify, undo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from migrate import api, progress
from migrate.autosetup import ready_target
from migrate.backends.base import Options
from migrate.cli import out_json
from migrate.cli_parity import wanted_of
from migrate.cli_report import report_text
from migrate.cli_signals import HINT, Interruption
from migrate.cli_text import Page, count_text, err, out, printable
from migrate.config import Endpoint
from migrate.errors import ConfigError, InterruptedRunError, MigrateError
from migrate.estimate import estimated
from migrate.reach import Reach, nothing_begun
from migrate.report import Observer, Report

if TYPE_CHECKING:
    from migrate.search.parity import Wanted


def migrate(args: argparse.Namespace) -> int:
    """`memlift migrate SOURCE TARGET`, or `--to-tier TIER`."""
    if (args.target is None) == (args.to_tier is None):
        raise ConfigError("migrate takes a TARGET, or --to-tier", hint="memlift migrate --help")
    if args.to_tier is None and (args.threshold or args.no_servers or args.writers is not None):
        raise ConfigError(
            "how a tier is chosen matters only with --to-tier auto",
            hint="leave the option, or memlift advise",
        )
    wanted = wanted_of(
        args, asked=args.check_search or args.to_tier is not None, indexed=args.index != "none", vectors=()
    )
    request = replace(
        _request(args),
        dry_run=args.dry_run,
        verify=args.verify,
        on_misfit=args.on_misfit,
        restart=args.restart,
        update=args.update,
        mirror=args.mirror,
        workers=args.workers,
        index=args.index,
        into_existing=args.into_existing,
        backup=args.backup,
        check_search=wanted or False,
    )
    if args.to_tier is not None:
        return _promote(args, request, wanted)
    with watched(args) as (watching, interruption):
        target: Endpoint = args.target
        if args.auto_setup:
            target = ready_target(
                args.target, args.auto_setup, watching.say, dry_run=args.dry_run, confirm=_confirm
            )
        if args.dry_run:
            report = api.audit(
                args.source, target, request=request, observer=watching, stop=interruption.stop
            )
        else:
            report = api.run(args.source, target, request, observer=watching, stop=interruption.stop)
    return _audited(report, args, target) if args.dry_run else _told(report, args)


def _promote(args: argparse.Namespace, request: api.Request, wanted: Wanted | None) -> int:
    """Move a store to a tier; asks before a server is set up, where somebody can be asked."""
    from migrate.promotion import Move, promote

    how = args.auto_setup if args.auto_setup in ("docker", "embedded") else bool(args.auto_setup)
    move = Move(
        args.to_tier,
        how,
        _confirm if sys.stdin.isatty() else None,
        wanted,
        dict(args.threshold),
        not args.no_servers,
        args.writers,
    )
    with watched(args) as (watching, interruption):
        report = promote(args.source, move, request, observer=watching, stop=interruption.stop)
    return _told(report, args)


def audit(args: argparse.Namespace) -> int:
    """`memlift audit SOURCE [TARGET]`."""
    with watched(args) as (watching, interruption):
        report = api.audit(
            args.source, args.target, request=_request(args), observer=watching, stop=interruption.stop
        )
    return _audited(report, args, args.target)


def verify(args: argparse.Namespace) -> int:
    """`memlift verify SOURCE TARGET`."""
    wanted = wanted_of(args, asked=args.search, indexed=args.index != "none", vectors=args.vector)
    with watched(args, at_once=True) as (watching, _):
        report = api.verify(
            args.source, args.target, mode=args.mode, search=wanted or False, observer=watching
        )
    return _told(report, args)


def undo(args: argparse.Namespace) -> int:
    """`memlift undo TARGET`: names what will be dropped, asks, drops."""
    with Interruption(at_once=True), Reach() as reach:
        settings = reach.settings(args.target, create=False)
        reach.source(settings).close()  # a store that is not there is an error, not made
        store = reach.target(settings, Options())
        with nothing_begun():
            standing = store.look([])
        made, where = sorted(standing.made), store.describe()
        if standing.plan is None:
            return _undone(args, where, [])
        if not args.yes:
            _ask(made, where)
        store.close()
        return _undone(args, where, api.undo(settings))


def _ask(made: list[str], where: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"undo would drop {count_text(len(made), 'table')} in {where}, and nobody is here to be asked",
            hint="--yes drops them without asking",
        )
    err(f"memlift made these tables in {printable(where)}:")
    for name in made:
        err(f"  {printable(name)}")
    err("They will be dropped with all rows in them, those written after the migration too, and with")
    err("memlift's own memlift_* tables. Nothing else is touched.")
    sys.stderr.write(f"Drop {count_text(len(made), 'table')}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was dropped", hint="answer y, or give --yes, to drop them")


def _undone(args: argparse.Namespace, where: str, dropped: list[str]) -> int:
    if args.json:
        out_json({"target": where, "dropped": dropped})
    elif not dropped:
        out(f"memlift has made nothing in {printable(where)}")
    else:
        out(
            f"dropped {count_text(len(dropped), 'table')} in {printable(where)}: {printable(', '.join(dropped))}"
        )
    return 0


def _request(args: argparse.Namespace) -> api.Request:
    return api.Request(
        batch_size=args.batch_size,
        tables=args.table,
        exclude=args.exclude,
        where_tenant=args.where_tenant,
        json=args.json_columns,
        vectors=args.vector,
        no_vectors=args.no_vector,
        upgrade=args.upgrade,
    )


@contextmanager
def watched(args: argparse.Namespace, *, at_once: bool = False) -> Iterator[tuple[Observer, Interruption]]:
    """Show progress and mind signals while the block runs; an interrupted run gets its exit code."""
    watching = progress.observer(quiet=args.quiet)

    def last(code: int) -> None:
        message = "interrupted inside a call that could not be ended; what was committed stays"
        if args.json:
            out_json({"error": message, "hint": HINT, "exit_code": code})
        err(f"error: {message}")
        err(f"hint: {HINT}")

    with Interruption(at_once=at_once, say=watching.say, last=last) as interruption:
        try:
            yield watching, interruption
        except MigrateError as exc:
            progress.close(watching)
            if isinstance(exc, InterruptedRunError):
                exc.exit_code = interruption.exit_code
            elif interruption.broken_off:  # some drivers answer the break with an error of their own
                stopped = InterruptedRunError(
                    f"interrupted: {exc.message}", exit_code=interruption.exit_code, hint=HINT, **exc.where
                )
                stopped.report = exc.report
                raise stopped from exc
            raise
        finally:
            progress.close(watching)


def _told(report: Report, args: argparse.Namespace) -> int:
    if args.json:
        out_json(report.to_dict())
    else:
        out(report_text(report, Page.of(sys.stdout)))
    return 0


def _audited(report: Report, args: argparse.Namespace, target: Endpoint | None) -> int:
    report = estimated(report, target)
    if not report.misfits:
        return _told(report, args)
    error = MigrateError(
        f"{count_text(report.misfits, 'cell does', 'cells do')} not fit the target",
        hint="migrate with --on-misfit quarantine to keep their exact values beside their rows",
    )
    error.exit_code, error.report = 4, report
    raise error


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
