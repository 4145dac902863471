"""Checking search between two stores by their addresses."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from migrate.addresses import parse
from migrate.config import Endpoint, Settings
from migrate.errors import ConfigError, MigrateError, VerifyError
from migrate.reach import Reach
from migrate.report import Observer, Report
from migrate.search import load, open_searchable
from migrate.search.base import Means
from migrate.search.parity.check import check
from migrate.search.parity.result import Parity, Wanted


def refuse_unsearchable(*endpoints: Endpoint) -> None:
    """Raise ConfigError, before anything is begun, for stores that cannot be searched here."""
    for endpoint in endpoints:
        load(parse(endpoint))


def check_stores(source: Endpoint, target: Endpoint, wanted: Wanted, observer: Observer) -> Parity:
    """Open two stores and compare how they are searched. See `check`."""
    wanted.check()
    with Reach(observer) as reach:
        mine, theirs = (reach.settings(one, create=False) for one in (source, target))
        # Nothing is put beside a source: where it has no index of its own it is asked exactly.
        with (
            closing(open_searchable(mine, Means(hnsw=False, say=observer.say))) as asked,
            closing(open_searchable(theirs, Means(say=observer.say))) as judged,
        ):
            wanted = replace(wanted, always_indexed=_always(theirs), approximate=theirs.type == "pinecone")
            return check(asked, judged, wanted, observer)


def _always(settings: Settings) -> bool:
    """Whether memlift builds a vector index in such a store however few vectors there are."""
    return settings.type in ("postgres", "qdrant")


def with_search(
    report: Report, source: Endpoint, target: Endpoint, wanted: Wanted, observer: Observer
) -> Report:
    """Return a report with `search` filled in. A check that could not be made raises with the report."""
    try:
        parity = check_stores(source, target, wanted, observer)
    except MigrateError as exc:
        exc.report = report
        if report.total_rows and exc.exit_code == ConfigError.exit_code:
            exc.exit_code = MigrateError.exit_code  # it is too late to say that nothing was begun
        raise
    return replace(report, search=parity.to_dict())


def refuse_where_it_failed(report: Report) -> None:
    """Raise VerifyError, with the report, where search was checked and does not find the same."""
    if report.search is None or report.search["passed"]:
        return
    failures = report.search["failures"]
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    error = VerifyError(
        f"search in the target does not find the same: {failures[0]}{more}",
        hint="the report has each table's figures; a missing or half-built index: run memlift migrate again",
    )
    error.report = report
    raise error
