"""The Python API: `migrate()`, `MigrationEngine`, and what the command line calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from threading import Event
from typing import TYPE_CHECKING, Any

from migrate import backends, config, layouts
from migrate.autosetup import ready_target
from migrate.backends.base import Judge, Options, Source, Standing, Target
from migrate.config import Endpoint, PostgresSettings, Settings, SqliteSettings
from migrate.engine import Choices, OnProgress, Run
from migrate.errors import BackendError, ConfigError, MigrateError, VerifyError
from migrate.estimate import estimated
from migrate.layouts.base import Layout, Reading, Wishes
from migrate.overlap import refuse_overlap
from migrate.plan import Plan, choose
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
        settings = config.parse(endpoint)
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
        if not create and not folder.exists():
            raise ConfigError(f"there is no embedded Postgres in {folder}", hint="check the path")
        server = EmbeddedPostgres(folder)
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


class _NotLookedAt:
    """Stands for a target that a dry run must not start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def describe(self) -> str:
        return str(self._settings)

    def look(self, tables: Sequence[Table]) -> Standing:
        return Standing(notes=("the target was not looked at, because it is not running",))


def _prepared(
    reach: Reach, source: Endpoint, goal: Settings | None, request: Request
) -> tuple[Source, Plan, Options]:
    if goal is not None:
        refuse_overlap(config.parse(source), goal)
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
    how = request.auto_setup or config.wants_auto_setup(target)
    if how:
        target = ready_target(target, how, watching.say, dry_run=request.dry_run)
    wanted = _wanted(request.check_search)
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
        goal = config.parse(target)
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

    origin = config.parse(source)
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
    modules = [backends.load(config.parse(endpoint).type) for endpoint in endpoints]
    return next((m.VERIFY for m in modules if hasattr(m, "VERIFY")), "full")


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
        if config.wants_auto_setup(target) and "auto_setup" not in given:
            given["auto_setup"] = config.wants_auto_setup(target)
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
    wanted = _wanted(search)
    if wanted is not None:
        from migrate.search.parity.stores import refuse_unsearchable

        refuse_unsearchable(source, target)
    if mode == "none":
        report = Report(str(config.parse(source)), str(config.parse(target)), verify_mode=mode)
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


def _wanted(search: bool | Wanted) -> Wanted | None:
    """Return the check of search that is asked for, None where none is. Raises ConfigError for a wrong one."""
    if not search:
        return None
    from migrate.search.parity import Wanted

    wanted = Wanted() if isinstance(search, bool) else search
    wanted.check()
    return wanted


def undo(target: Endpoint) -> list[str]:
    """Drop what memlift created in a target, and nothing else; return the names of the tables."""
    with Reach() as reach:
        settings = reach.settings(target, create=False)
        with nothing_begun():
            plan = reach.target(settings, Options()).look([]).plan
        if plan is None:
            return []
        return reach.target(settings, Options(layout=layouts.by_name(plan["layout"]))).undo()


@contextmanager
def opened_source(endpoint: Endpoint, observer: Observer | None = None) -> Iterator[Source]:
    """Open a store for reading, for as long as the block lasts."""
    with Reach(observer or Silent()) as reach:
        yield reach.source(reach.settings(endpoint, create=False))
