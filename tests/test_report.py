"""What happened, as data."""

from __future__ import annotations

import json

from migrate.report import Progress, Report, Silent, TableReport


def test_a_report_is_collected_while_a_run_goes_on() -> None:
    progress = Progress("a.db", "b.db", "full", dry_run=False)
    progress.table("t", kind="traces", rows_source=5, key=("id",))
    progress.add("t", rows_written=2, copy_s=0.5)
    progress.add("t", rows_written=3, copy_s=0.25)
    progress.add("u", rows_quarantined=1)
    progress.warn("one")
    progress.warn("two", "three")
    progress.set(resumed=True)
    assert progress.current() == Report(
        "a.db",
        "b.db",
        total_rows=5,
        resumed=True,
        warnings=("one", "two", "three"),
        tables=(
            TableReport("t", "traces", rows_source=5, rows_written=5, key=("id",), copy_s=0.75),
            TableReport("u", "table", rows_quarantined=1),
        ),
    )


def test_misfits_and_differences_are_summed_over_tables() -> None:
    first = TableReport("a", "table", misfits={"cells": 2, "shown": []})
    second = TableReport(
        "b",
        "table",
        differences={"missing": 1, "extra": 2, "different": 3, "shown": []},
        misfits={"cells": 5, "shown": []},
    )
    report = Report("s", "t", tables=(first, second))
    assert (report.misfits, report.differs, first.differs, second.differs) == (7, 6, 0, 6)


def test_a_new_report_claims_nothing() -> None:
    report = Report("s", "t")
    assert (report.verified, report.misfits, report.differs, report.tables) == (False, 0, 0, ())
    assert json.loads(json.dumps(report.to_dict()))["verified"] is False


def test_tables_do_not_share_their_lists() -> None:
    one, two = TableReport("a", "table"), TableReport("b", "table")
    one.misfits["shown"].append({})
    one.differences["shown"].append({})
    assert (two.misfits["shown"], two.differences["shown"]) == ([], [])


def test_a_silent_observer_takes_everything() -> None:
    Silent().say("x")
    Silent().step("copy", "t", 1, 2)
