"""The Python API: `migrate()`, `MigrationEngine`, and what the command line calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from migrate import addresses, layouts
from migrate.backends.base import Options
from migrate.config import Endpoint
from migrate.engine import OnProgress
from migrate.errors import ConfigError, VerifyError
from migrate.reach import Reach, nothing_begun, understand
from migrate.report import Observer, Report, Silent
from migrate.running import Request, audit, run, verify_mode, wanted_check
from migrate.verify import MODES

if TYPE_CHECKING:
    from migrate.search.parity import Wanted

__all__ = ["MigrationEngine", "Request", "audit", "migrate", "run", "undo", "verify"]


def migrate(
    source: Endpoint,
    target: Endpoint,
    *,
    on_progress: OnProgress | None = None,
    observer: Observer | None = None,
    **options: Any,
) -> Report:
    """Move all of a store's memory into another store and prove that nothing was lost.

    source, target: URL, path, dict or settings (see the README's table). The target "auto" is the tier
                    that is advised: it is set up where `auto_setup` allows it, checked, and its
                    address saved (`migrate.promotion`).
    on_progress:    called with (done, total, table) after each commit.
    options:        the fields of `Request`: batch_size, dry_run, tables, workers,
                    verify ("full", "sample", "counts", "none"; for Pinecone a sample unless told), on_misfit ("fail",
                    "quarantine"), restart, update, mirror, index ("auto", "none",
                    "hnsw"), auto_setup (True, "docker", "embedded"), exclude, json,
                    check_search (True, or a `migrate.search.parity.Wanted`), ...

    Running it again goes on where an earlier run was broken off, or adds what
    is missing. Raises `migrate.errors.MigrateError`; the partial report is on
    the exception as `.report`.
    """
    known = {f.name for f in fields(Request)}
    for name in sorted(set(options) - known):
        close = ", ".join(get_close_matches(name, known)) or "see help(migrate.migrate)"
        raise ConfigError(f"migrate has no option {name!r}", hint=close)
    request = Request(**options)
    if target == "auto":
        from migrate.promotion import moved

        return moved(source, request, observer=observer, on_progress=on_progress)
    if request.dry_run:
        return audit(source, target, request=request, observer=observer)
    return run(source, target, request, observer=observer, on_progress=on_progress)


_SEED_NAMES = {"from": "from_", "batchSize": "batch_size", "onProgress": "on_progress", "dryRun": "dry_run"}


class MigrationEngine:
    """The same under the name and with the option names of the AgentOS engine."""

    @staticmethod
    def migrate(options: Mapping[str, Any] | None = None, /, **named: Any) -> Report:
        """Migrate `from_` to `to`. Takes keywords, or one dict with `from`, `to`, `batchSize`, ..."""
        given = {_SEED_NAMES.get(k, k): v for k, v in {**(options or {}), **named}.items()}
        try:
            source, target = given.pop("from_"), given.pop("to")
        except KeyError as exc:
            raise ConfigError(f"MigrationEngine.migrate needs {exc}", hint="from_=..., to=...") from None
        if addresses.wants_auto_setup(target) and "auto_setup" not in given:
            given["auto_setup"] = addresses.wants_auto_setup(target)
        return migrate(source, target, **given)


def verify(
    source: Endpoint,
    target: Endpoint,
    *,
    mode: str | None = None,
    search: bool | Wanted = False,
    observer: Observer | None = None,
) -> Report:
    """Compare two stores row by row, and how they are searched where asked, changing nothing.

    mode: "full", "sample", "counts" or, with `search`, "none"; None: full, and a sample where reading
    a store costs money. Raises VerifyError where they differ.
    """
    from migrate.standalone import compare_stores

    mode = verify_mode(mode, source, target)
    if mode not in MODES or (mode == "none" and not search):
        raise ConfigError(f"verify mode cannot be {mode!r}", hint="full, sample or counts")
    watching = observer or Silent()
    wanted = wanted_check(search)
    if wanted is not None:
        from migrate.search.parity.stores import refuse_unsearchable

        refuse_unsearchable(source, target)
    if mode == "none":
        report = Report(str(addresses.parse(source)), str(addresses.parse(target)), verify_mode=mode)
    else:
        with Reach(watching) as reach:
            left = reach.source(reach.settings(source, create=False))
            right = reach.source(reach.settings(target, create=False))
            report = compare_stores(left, right, understand, mode, watching)
    if wanted is not None:
        from migrate.search.parity.stores import with_search

        report = with_search(report, source, target, wanted, watching)
    if mode != "none" and not report.verified:
        error = VerifyError(
            "the two stores differ", hint="see the differences above; memlift migrate --update"
        )
        error.report = report
        raise error
    if wanted is not None:
        from migrate.search.parity.stores import refuse_where_it_failed

        refuse_where_it_failed(report)
    return report


def undo(target: Endpoint) -> list[str]:
    """Drop what memlift created in a target, and nothing else; return the names of the tables."""
    with Reach() as reach:
        settings = reach.settings(target, create=False)
        with nothing_begun():
            plan = reach.target(settings, Options()).look([]).plan
        if plan is None:
            return []
        return reach.target(settings, Options(layout=layouts.by_name(plan["layout"]))).undo()
