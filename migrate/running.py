"""One migration or audit, from the addresses of its stores to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Any

from migrate import addresses, backends
from migrate.autosetup import ready_target
from migrate.backends.base import Judge, Options, Source, Standing
from migrate.config import Endpoint, PostgresSettings, Settings, SqliteSettings
from migrate.engine import Choices, OnProgress, Run
from migrate.errors import ConfigError, MigrateError
from migrate.estimate import estimated
from migrate.layouts.base import Wishes
from migrate.overlap import refuse_overlap
from migrate.plan import Plan, choose
from migrate.reach import Reach, understand
from migrate.report import Observer, Report, Silent
from migrate.schema import Table
from migrate.strictest import Strict
from migrate.tenants import OneTenant
from migrate.verify import MODES

if TYPE_CHECKING:
    from migrate.search.parity import Wanted


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a run can be told, with the defaults of the public contract.

    verify: None leaves it to the stores: "full", and "sample" where reading one of them costs money.
    """

    batch_size: int = 1000
    dry_run: bool = False
    tables: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    where_tenant: str | None = None
    workers: int = 1
    verify: str | None = None
    on_misfit: str = "fail"
    restart: bool = False
    update: bool = False
    mirror: bool = False
    index: str = "auto"
    json: str = "jsonb"
    vectors: Sequence[str] = ()
    no_vectors: Sequence[str] = ()
    upgrade: bool = False
    into_existing: bool = False
    auto_setup: bool | str = False
    backup: str | None = None
    check_search: bool | Wanted = False

    def check(self) -> None:
        """Raise ConfigError for a value that no run can use."""
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size!r} is not a positive number")
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1:
            raise ConfigError(f"{self.workers!r} is no number of workers", hint="--workers 1 or more")
        for name, names in (("tables", self.tables), ("exclude", self.exclude)):
            if isinstance(names, str):
                raise ConfigError(f"{name} is a list of names", hint=f"{name}=[{names!r}]")
        for name, value, allowed in (
            ("verify", self.verify, (None, *MODES)),
            ("on_misfit", self.on_misfit, ("fail", "quarantine")),
            ("index", self.index, ("auto", "none", "hnsw")),
            ("json", self.json, ("jsonb", "text")),
        ):
            if value not in allowed:
                choices = ", ".join(a for a in allowed if a is not None)
                raise ConfigError(f"{name} cannot be {value!r}", hint=f"one of {choices}")
        if self.auto_setup not in (False, True, "docker", "embedded"):
            raise ConfigError(f"auto_setup cannot be {self.auto_setup!r}", hint="True, docker or embedded")
        if self.check_search and self.upgrade:
            raise ConfigError(
                "search cannot be compared across an upgrade: its tables have other keys",
                hint="migrate without check_search, or upgrade first",
            )


def run(
    source: Endpoint,
    target: Endpoint,
    request: Request,
    *,
    observer: Observer | None = None,
    on_progress: OnProgress | None = None,
    stop: Event | None = None,
) -> Report:
    """Migrate, or only audit where `request.dry_run`. Raises a MigrateError with `.report` where it can."""
    request.check()
    watching = observer or Silent()
    how = request.auto_setup or addresses.wants_auto_setup(target)
    if how:
        target = ready_target(target, how, watching.say, dry_run=request.dry_run)
    wanted = wanted_check(request.check_search)
    if wanted is not None and not request.dry_run:
        from migrate.search.parity.stores import refuse_unsearchable

        refuse_unsearchable(source, target)
    report = _run(source, target, request, watching, on_progress, stop)
    if wanted is None or request.dry_run:
        return report
    return _searched(report, source, target, _of_run(wanted, request, report), watching)


def _run(
    source: Endpoint,
    target: Endpoint,
    request: Request,
    watching: Observer,
    on_progress: OnProgress | None,
    stop: Event | None,
) -> Report:
    with Reach(watching) as reach:
        goal = addresses.parse(target)
        module = backends.load(goal.type)
        opened, plan, options = _prepared(reach, source, goal, request)
        if request.dry_run and isinstance(goal, PostgresSettings) and goal.embedded is not None:
            store: Any = _NotLookedAt(goal)
        else:
            _back_up(request, source, goal)
            goal = reach.settings(goal, create=True)
            store = reach.target(goal, options)
        migration = Run(
            opened,
            plan,
            _choices(request, verify_mode(request.verify, source, target)),
            target=store,
            open_reader=lambda: module.source(goal),
            fit=store.fit if isinstance(store, Judge) else lambda table: module.fit(table, options),
            observer=watching,
            on_progress=on_progress or (lambda done, total, table: None),
            stop=stop,
        )
        return _reported(migration)


def _of_run(wanted: Wanted, request: Request, report: Report) -> Wanted:
    """Return a check of search for the tables and the tenant that a migration has moved."""
    return replace(
        wanted,
        indexed=wanted.indexed and request.index != "none",
        tables=frozenset(t.name for t in report.tables),
        tenant=request.where_tenant,
    )


def _searched(
    report: Report, source: Endpoint, target: Endpoint, wanted: Wanted, observer: Observer
) -> Report:
    """Check search and return the report with it. Raises VerifyError where the target finds something else."""
    from migrate.search.parity.stores import refuse_where_it_failed, with_search

    report = with_search(report, source, target, wanted, observer)
    refuse_where_it_failed(report)
    return report


def _back_up(request: Request, source: Endpoint, goal: Settings) -> None:
    """Take a backup of every SQLite file that the run reads or writes, where one was asked for."""
    if request.backup is None:
        return
    from migrate.backup import backup_before

    origin = addresses.parse(source)
    stores = (s.path for s in (origin, goal) if isinstance(s, SqliteSettings))
    files = [path for path in stores if path.exists() and path.stat().st_size]
    if not files:
        raise ConfigError(
            "there is no SQLite file to back up", hint="--backup is for SQLite sources and targets"
        )
    for path in files:
        backup_before(path, request.backup)


def audit(
    source: Endpoint,
    target: Endpoint | None = None,
    *,
    request: Request | None = None,
    observer: Observer | None = None,
    stop: Event | None = None,
) -> Report:
    """Read all of a source and say what a migration would do; start, create and change nothing.

    Without a target, cells are judged against every store that memlift writes to.
    """
    request = replace(request or Request(), dry_run=True)
    if target is not None:
        return estimated(run(source, target, request, observer=observer, stop=stop), target)
    request.check()
    watching = observer or Silent()
    with Reach(watching) as reach:
        opened, plan, options = _prepared(reach, source, None, request)
        strict = Strict(options)
        migration = Run(
            opened,
            plan,
            _choices(request, verify_mode(request.verify, source)),
            target=strict,  # type: ignore[arg-type]  # a dry run only looks at it
            open_reader=lambda: opened,
            fit=strict.fit,
            observer=watching,
            stop=stop,
        )
        return estimated(_reported(migration), None)


def verify_mode(asked: str | None, *endpoints: Endpoint) -> str:
    """Return how stores are compared: as asked, else as the dearest of them has it (a module's `VERIFY`)."""
    if asked is not None:
        return asked
    modules = [backends.load(addresses.parse(endpoint).type) for endpoint in endpoints]
    return next((m.VERIFY for m in modules if hasattr(m, "VERIFY")), "full")


def wanted_check(search: bool | Wanted) -> Wanted | None:
    """Return the check of search that is asked for, None where none is. Raises ConfigError for a wrong one."""
    if not search:
        return None
    from migrate.search.parity import Wanted

    wanted = Wanted() if isinstance(search, bool) else search
    wanted.check()
    return wanted


def _prepared(
    reach: Reach, source: Endpoint, goal: Settings | None, request: Request
) -> tuple[Source, Plan, Options]:
    if goal is not None:
        refuse_overlap(addresses.parse(source), goal)
    settings = reach.settings(source, create=False)
    opened = reach.source(settings)
    if request.upgrade:
        from migrate.layouts.upgrade import Upgraded

        brain_id = settings.path.stem if isinstance(settings, SqliteSettings) else None
        opened = Upgraded(opened, brain_id)
    wishes = Wishes(frozenset(request.vectors), frozenset(request.no_vectors))
    layout, reading = understand(opened, wishes)
    if request.where_tenant is not None:
        opened = OneTenant(opened, reading.tables, request.where_tenant, request.exclude)
    tables = choose(reading.tables, request.tables, request.exclude)
    plan = Plan(
        opened.describe(),
        "" if goal is None else str(goal),
        reading.layout,
        request.json,
        tuple(tables),
        tuple(reading.not_carried),
        tuple(reading.notes),
    )
    options = Options(
        request.json, request.index, request.into_existing, layout, request.workers, request.dry_run
    )
    return opened, plan, options


class _NotLookedAt:
    """Stands for a target that a dry run must not start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def describe(self) -> str:
        return str(self._settings)

    def look(self, tables: Sequence[Table]) -> Standing:
        return Standing(notes=("the target was not looked at, because it is not running",))


def _choices(request: Request, verify: str) -> Choices:
    return Choices(
        batch_size=request.batch_size,
        dry_run=request.dry_run,
        verify=verify,
        on_misfit=request.on_misfit,
        restart=request.restart,
        update=request.update,
        mirror=request.mirror,
        into_existing=request.into_existing,
    )


def _reported(migration: Run) -> Report:
    try:
        migration.run()
    except MigrateError as exc:
        exc.report = migration.report()
        raise
    return migration.report()
