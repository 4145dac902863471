"""The run: audit, copy, build, reconcile, verify; the only loop over batches.

The order is always the same, and each part can be broken off at any moment:

1. audit:  all of the source is read; cells that do not fit are counted and named;
2. copy:   batches and their positions become durable together;
3. keys:   built after load, when it is cheapest;
4. mend:   what an unfinished run copied earlier is compared again; a target that
           held rows before is brought up to date as far as was asked;
5. links and indexes;
6. verify: both sides are read again and compared.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

from migrate import retry
from migrate.auditing import audit
from migrate.backends.base import Fit, Metered, Packer, Phase, Position, Source, Standing, Step, Target
from migrate.collector import patient
from migrate.config import mask
from migrate.errors import (
    BackendError,
    ConfigError,
    InterruptedRunError,
    MigrateError,
    MisfitError,
    SchemaError,
    VerifyError,
)
from migrate.failpoints import hit
from migrate.plan import Plan, as_made, table_same_as
from migrate.readahead import Ahead, prepared
from migrate.reconcile import mend
from migrate.report import Observer, Progress, Report
from migrate.sampling import compare_sample
from migrate.schema import Table
from migrate.verify import Marked, Outcome, compare, compare_counts

# Rows are committed at about this size or after this time, whichever comes first. A quarter of the size
# costs a SQLite target a tenth of its time.
COMMIT_BYTES, COMMIT_S = 64 * 2**20, 1.0

OnProgress = Callable[[int, int, str], None]


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user asked of a run; see INTERFACE in the README for each."""

    batch_size: int = 1000
    dry_run: bool = False
    verify: str = "full"
    on_misfit: str = "fail"
    restart: bool = False
    update: bool = False
    mirror: bool = False
    into_existing: bool = False


class Run:
    """One migration from an open source into a target.

    open_target: returns a target; called once everything is known to fit.
    open_reader: returns the target as a source, for comparing.
    fit:         what the target can hold of a table; needs no connection.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        choices: Choices,
        *,
        target: Target,
        open_reader: Callable[[], Source],
        fit: Callable[[Table], Fit],
        observer: Observer,
        on_progress: OnProgress = lambda done, total, table: None,
        stop: Event | None = None,
    ) -> None:
        self.source, self.plan, self.choices, self.target = source, plan, choices, target
        self._open_reader, self._observer, self._on_progress = open_reader, observer, on_progress
        self._stop = stop or Event()
        self._fit = fit
        self._fits = {t.name: fit(t) for t in plan.tables}
        self._commits = 0
        self._loosened: bool | None = None  # True: the unique indexes too
        self._added: set[str] = set()  # tables of earlier runs that rows were added to
        self.progress = Progress(
            source.describe(), target.describe(), choices.verify, dry_run=choices.dry_run
        )
        self.progress.set(
            layout=plan.layout,
            not_carried=tuple(
                {"name": n.name, "reason": n.reason, "derived": n.derived} for n in plan.not_carried
            ),
            notes=tuple(plan.notes),
        )

    # --- the whole ------------------------------------------------------------

    def run(self) -> Report:
        """Do it all and return the report.

        Raises a MigrateError with the partial report as `.report`.
        """
        started = time.monotonic()
        try:
            with patient():
                return self._run()
        except MigrateError as exc:
            self.progress.set(errors=(*self.progress.report.errors, mask(str(exc))))
            raise
        finally:
            self.progress.set(duration_ms=round((time.monotonic() - started) * 1000))
            for store in (self.source, self.target):
                if isinstance(store, Metered):
                    self.progress.used(store.usage())

    def report(self) -> Report:
        """Return the report as it stands."""
        return self.progress.current()

    def _run(self) -> Report:
        try:
            standing = self._look()
            for table in self.plan.tables:
                self._retrying(partial(self._audit, table), recover=False)
            self.progress.warn(*self.source.problems())
            if not self.plan.tables:
                self.progress.warn("the source has no tables, so there is nothing to migrate")
        except BackendError as exc:
            exc.exit_code = ConfigError.exit_code  # nothing was begun
            raise
        report = self.report()
        if self.choices.dry_run:
            return report
        if report.misfits and self.choices.on_misfit == "fail":
            raise MisfitError(
                f"{_counted(report.misfits, 'cell does', 'cells do')} not fit the target; nothing was written",
                hint="--on-misfit quarantine keeps the exact values beside their rows",
            )
        try:
            self._write(standing)
        finally:
            self._let_go()
        report = self.report()
        if report.differs:
            raise VerifyError(
                f"{_counted(report.differs, 'row differs', 'rows differ')} between source and target",
                hint=self._difference_hint(),
            )
        return report

    def _look(self) -> Standing:
        """See what stands in the target before the source is read: a wrong password costs no audit."""
        standing: Standing = self._retrying(
            lambda: self.target.look(self.plan.tables), recover=False, away_s=retry.AWAY_S
        )
        self.progress.set(notes=(*self.progress.report.notes, *standing.notes))
        if standing.strangers and not self.choices.into_existing:
            names = ", ".join(standing.strangers[:5])
            problem = f"the target already has tables that memlift did not make: {names}"
            if not self.choices.dry_run:
                raise SchemaError(
                    problem,
                    hint="choose another schema (?schema=...) or prefix, or --into-existing after a look at them",
                )
            self.progress.warn(f"{problem}; a run would refuse")
        self._hold(standing)
        if standing.state == "unfinished" and not self.choices.restart:
            self.plan.check_resumes(standing.plan or {})
        elif standing.state == "done":
            for table in self.plan.tables:
                table_same_as(table, standing.made.get(table.name))
        return standing

    def _hold(self, standing: Standing) -> None:
        """Go on writing tables of earlier runs as they were made, though their columns may look otherwise now."""
        tables = []
        for table in self.plan.tables:
            held, notes = as_made(table, standing.held.get(table.name))
            self._fits[table.name] = self._fit(held)
            self.progress.set(notes=(*self.progress.report.notes, *notes))
            tables.append(held)
        self.plan = replace(self.plan, tables=tuple(tables))

    def _let_go(self) -> None:
        try:
            self.target.rollback()
            self.target.release()
        except MigrateError as exc:
            self.progress.warn(f"the target was not released: {exc}")

    def _difference_hint(self) -> str:
        if self.choices.mirror:
            return "the source or the target is being written to; run again"
        return "--update lets the source win where rows differ, --mirror also removes rows it has not"

    # --- audit ----------------------------------------------------------------

    def _audit(self, table: Table) -> None:
        found = audit(
            self.source,
            table,
            self._fits[table.name],
            size=self.choices.batch_size,
            check_stop=self._check_stop,
            observer=self._observer,
        )
        self.progress.table(table.name, **found)

    # --- write ----------------------------------------------------------------

    def _write(self, standing: Standing) -> None:
        snapshot = self.source.snapshot
        resumed = self._claim(standing)
        tables = self.plan.tables
        self._retrying(lambda: self.target.prepare(tables))
        hit("prepare.after")
        owned = self._retrying(self.target.owned)
        positions = self._retrying(self.target.positions)
        for table in tables:
            if table.name in owned:
                self._copy(table, positions.get(table.name))
        steps = self._retrying(lambda: self.target.steps(tables))
        self._build(steps, Phase.KEY)
        clean: dict[str, Outcome] = {}
        moved = self.source.snapshot != snapshot
        for table in tables:
            earlier = positions.get(table.name)
            begun = resumed and earlier is not None and earlier.rows > 0
            if table.name not in owned or begun or moved:
                outcome = self._mend(table, owned=table.name in owned)
                if outcome is not None:
                    clean[table.name] = outcome
        if self._loosened is not None:
            steps = self._retrying(lambda: self.target.steps(tables))
        self._build(steps, Phase.LINK)
        self._build(steps, Phase.INDEX)
        self._verify(clean)
        hit("finish.before")
        self.progress.warn(*self._retrying(self.target.finish))
        hit("finish.after")
        quarantined = self._retrying(self.target.quarantine)
        self.progress.set(quarantine=quarantined)

    def _claim(self, standing: Standing) -> bool:
        """Become the owner of the target; return whether an unfinished run goes on."""
        run, resumed = uuid.uuid4().hex, False
        if standing.state == "unfinished" and not self.choices.restart:
            run, resumed = standing.run or run, True
        self.target.say = self._observer.say
        self._retrying(
            lambda: self.target.claim(self.plan.to_dict(), run, restart=self.choices.restart), recover=False
        )
        hit("claim.after")
        self.progress.set(resumed=resumed)
        return resumed

    def _retrying(self, work: Callable[[], Any], *, recover: bool = True, away_s: float | None = None) -> Any:
        def again() -> None:
            self._check_stop()
            if recover:
                self.target.rollback()
                self.target.reconnect()

        return retry.call(
            work, recover=again, progress=lambda: self._commits, say=self._observer.say, away_s=away_s
        )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise InterruptedRunError(
                "stopped; what was committed stays", hint="run the same command again to go on"
            )

    def _copy(self, table: Table, position: Position | None) -> None:
        started = time.monotonic()
        total = self.progress.table(table.name).rows_source
        reached = position or Position(table.name)
        if reached.done:
            self._tell("copy", table, total, total)
        else:
            self._tell("copy", table, min(reached.rows, total), total)
            self._retrying(lambda: self._copy_rest(table, total))
        self.progress.add(table.name, copy_s=time.monotonic() - started)

    def _tell(self, phase: str, table: Table, done: int, total: int) -> None:
        self._observer.step(phase, table.name, done, total)
        self._on_progress(done, total, table.name)

    def _copy_rest(self, table: Table, total: int) -> None:
        """Copy a table from where its last commit stands to its end."""
        at = self.target.positions().get(table.name, Position(table.name))
        waiting = size = quarantined = 0
        since = time.monotonic()
        fit, size_limit = self._fits[table.name], self.choices.batch_size
        items = prepared(self.source, table, fit, size_limit, at, self.target)
        waits = isinstance(self.target, Packer)  # for a server, while rows are packed
        with Ahead(items, f"read {table.name}", waits=waits) as ahead:
            for batch, exact, n, bytes_ in ahead:
                self.target.append(batch, exact)
                hit("copy.append")
                at = Position(table.name, batch.cursor, at.rows + n)
                waiting, size = waiting + n, size + bytes_
                quarantined += len(exact)
                if size >= COMMIT_BYTES or time.monotonic() - since >= COMMIT_S or self._stop.is_set():
                    self._commit(at, waiting, quarantined)
                    self._tell("copy", table, min(at.rows, total), total)
                    waiting = size = quarantined = 0
                    since = time.monotonic()
                    self._check_stop()
        self._commit(replace(at, done=True), waiting, quarantined)
        self._tell("copy", table, total, total)

    def _commit(self, at: Position, rows: int, quarantined: int) -> None:
        hit("copy.before_commit")
        self.target.commit(at)
        hit("copy.after_commit")
        self._commits += 1
        self.progress.add(at.table, rows_written=rows, rows_quarantined=quarantined)

    def _build(self, steps: Sequence[Step], phase: Phase) -> None:
        for step in steps:
            if step.phase is not phase:
                continue
            self._check_stop()
            started = time.monotonic()
            name = f"{step.table}: {step.name}" if step.table else step.name
            self._observer.step("index", name, 0, 1)
            hit(f"{phase.value}.before")
            self._retrying(partial(step.run, partial(self._observer.step, "index", name)))
            hit(f"{phase.value}.after")
            self._observer.step("index", name, 1, 1)
            if step.table:
                self.progress.add(step.table, index_s=time.monotonic() - started)

    # --- reconcile and verify -------------------------------------------------

    def _compared(self, table: Table, marked: Marked | None, *, sample: bool = False) -> Outcome:
        reader = self._open_reader()
        try:
            there = {t.name: t for t in reader.tables()}.get(table.name)
            if there is None:
                raise MigrateError("the table is gone from the target", table=table.name)
            total = self.progress.table(table.name).rows_source
            self._observer.step("verify", table.name, 0, total)

            def seen(rows: int) -> None:
                hit("verify.batch")
                self._check_stop()
                self._observer.step("verify", table.name, min(rows, total), total)

            if self.choices.verify == "counts" and marked is None:
                return compare_counts(self.source, reader, table, there)
            size = self.choices.batch_size
            if sample:
                return compare_sample(self.source, reader, table, there, size=size, progress=seen)
            return compare(self.source, reader, table, there, size=size, marked=marked, progress=seen)
        finally:
            if isinstance(reader, Metered):
                self.progress.used(reader.usage())
            reader.close()

    def _loosen(self, *, unique: bool) -> None:
        if self._loosened is None or (unique and not self._loosened):
            self._retrying(partial(self.target.loosen, unique=unique))
            self._loosened = unique

    def _mend(self, table: Table, *, owned: bool) -> Outcome | None:
        """Bring a table that held rows up to date; return the comparison if it found nothing to do.

        An unfinished run owns what it has written, so there the source wins.
        Over rows of an earlier run only what is missing is added, unless the
        user let the source win (`update`) or asked for its mirror image.
        """
        marked = Marked.empty()
        try:
            outcome: Outcome = self._retrying(lambda: self._compared(table, marked), recover=True)
            self.progress.add(table.name, verify_s=outcome.seconds)
            same = outcome.checked - outcome.missing - outcome.different
            self.progress.table(table.name, rows_unchanged=max(same, 0), rows_extra=outcome.extra)
            if outcome.clean:
                if not owned:
                    self._tell("copy", table, outcome.rows_source, outcome.rows_source)
                return outcome
            started = time.monotonic()
            change = owned or self.choices.update or self.choices.mirror
            remove = owned or self.choices.mirror
            to_change = change * marked.change.total + remove * marked.remove.total
            if marked.add.total or to_change:
                self._loosen(unique=to_change > 0)

            def told(written: int) -> None:
                if not owned:  # what is owned was told of when it was copied
                    done = min(max(same, 0) + written, outcome.rows_source)
                    self._tell("copy", table, done, outcome.rows_source)

            if marked.add.total and not owned:
                self._added.add(table.name)
            written, quarantined = mend(
                self.source,
                self.target,
                table,
                self._fits[table.name],
                marked,
                size=self.choices.batch_size,
                change=change,
                remove=remove,
                open_reader=self._open_reader,
                retrying=self._retrying,
                progress=told,
            )
            self.progress.add(
                table.name,
                rows_written=written,
                rows_quarantined=quarantined,
                copy_s=time.monotonic() - started,
            )
            if not owned:
                self._tell("copy", table, outcome.rows_source, outcome.rows_source)
            return None
        finally:
            marked.close()

    def _verify(self, clean: dict[str, Outcome]) -> None:
        mode = self.choices.verify
        for table in self.plan.tables:
            known = clean.get(table.name)
            if known is not None:
                self._verified(table, known)
            elif mode != "none":
                outcome: Outcome = self._retrying(
                    partial(self._compared, table, None, sample=mode == "sample")
                )
                self.progress.add(table.name, verify_s=outcome.seconds)
                self._verified(table, outcome)
        tables = self.report().tables
        self.progress.set(verified=mode != "none" and bool(tables) and all(t.verified for t in tables))

    def _verified(self, table: Table, outcome: Outcome) -> None:
        if table.name in self._added:  # what is missing of it was left out: another row has its unique value
            written = self.progress.table(table.name).rows_written
            self.progress.add(table.name, rows_written=-min(outcome.missing, written))
        self.progress.table(
            table.name,
            verified=outcome.clean and self.choices.verify != "none",
            rows_checked=outcome.checked,
            rows_extra=outcome.extra,
            differences=outcome.to_dict(),
        )
