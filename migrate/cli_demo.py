"""`memlift demo`: the main job on a sample brain, with nothing to set up first."""

from __future__ import annotations

import argparse
import filecmp
import shlex
import shutil
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from urllib.parse import quote

from migrate import api, progress
from migrate.cli import out_json
from migrate.cli_report import report_text
from migrate.cli_run import watched
from migrate.cli_signals import Interruption
from migrate.cli_text import Page, count_text, err, flush, out, size_text
from migrate.config import mask
from migrate.errors import ConfigError
from migrate.estimate import estimated
from migrate.report import Observer, Report

SCHEMA = "brain"


def demo(args: argparse.Namespace) -> int:
    """Audit, migrate, index and verify the sample, then say how to look at it."""
    place = Place.of(args.folder)
    page = Page.of(sys.stdout)
    try:
        with watched(args) as (watching, interruption):
            if args.json:
                report = _run(place, watching, interruption)
                out_json(report.to_dict() | {"folder": str(place.folder), "kept": args.keep})
                return 0
            _intro(place, page)
            report = _run(place, watching, interruption, page)
            progress.close(watching)
        out("")
        out(page.paint("3. The report", "bold"))
        out(report_text(report, page))
        out("")
        if args.keep:
            _look_at(place, page)
    finally:
        if not args.keep:
            place.clear()
    if not args.keep:
        out("What the demo made was removed again; memlift demo FOLDER --keep leaves it to be looked at.")
    return 0


class Place:
    """The folder of a demo: a copy of the sample, and a Postgres beside it."""

    def __init__(self, folder: Path, *, made: bool) -> None:
        self.folder, self._made = folder, made
        self.brain, self.data = folder / "brain.sqlite", folder / "pgdata"
        self._earlier = [path for path in (self.brain, self.data) if path.exists()]

    @classmethod
    def of(cls, given: str | None) -> Place:
        """Return the place, with the sample in it. Raises ConfigError where other things are in the way."""
        if given is None:
            place = cls(Path(tempfile.mkdtemp(prefix="memlift-demo-")), made=True)
        else:
            if "://" in given:
                raise ConfigError("the demo works in a folder, not in a store", hint="memlift demo ./folder")
            folder = Path(given).expanduser()
            made = not folder.exists()
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise ConfigError(f"cannot make the folder {folder}: {exc.strerror}") from exc
            place = cls(folder, made=made)
        place._bring_sample()
        return place

    @property
    def target(self) -> str:
        """Return the address that the demo migrates to."""
        return f"postgresql+embedded:{quote(str(self.data), safe='/~')}?schema={SCHEMA}"

    def _bring_sample(self) -> None:
        with as_file(files("migrate") / "samples" / "brain.sqlite") as sample:
            if not self.brain.exists():
                shutil.copyfile(sample, self.brain)
            elif not filecmp.cmp(sample, self.brain, shallow=False):
                raise ConfigError(
                    f"{self.brain} is there and is not the sample", hint="choose another folder for the demo"
                )

    def clear(self) -> None:
        """Remove what this demo made; what an earlier one was told to keep stays."""
        if self.brain not in self._earlier:
            self.brain.unlink(missing_ok=True)
        if self.data not in self._earlier:
            shutil.rmtree(self.data, ignore_errors=True)
        if self._made and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _intro(place: Place, page: Page) -> None:
    brain = place.brain
    out(page.paint("memlift demo: an agent's memory moves from SQLite to Postgres with pgvector", "bold"))
    out(f"a sample AgentOS brain was copied to {brain} ({size_text(brain.stat().st_size)})")
    out("")


def _run(place: Place, watching: Observer, interruption: Interruption, page: Page | None = None) -> Report:
    if page:
        out(page.paint("1. Audit: all of it is read, nothing is written", "bold"))
        _command(page, "audit", str(place.brain), place.target)
    audited = estimated(
        api.audit(place.brain, place.target, observer=watching, stop=interruption.stop), place.target
    )
    progress.close(watching)
    if page:
        vectors = [t for t in audited.tables if t.vector]
        out(
            f"   {count_text(len(audited.tables), 'table')}, {count_text(audited.total_rows, 'row')},"
            f" {count_text(len(vectors), 'table')} with vectors;"
            f" {count_text(audited.misfits, 'cell does', 'cells do')} not fit"
        )
        out("")
        out(page.paint("2. Migrate: start a Postgres, copy, build the indexes, verify every row", "bold"))
        _command(page, "migrate", str(place.brain), place.target)
        flush()
    watching.say("starting a Postgres in the folder (the first start makes its database)")
    return api.run(place.brain, place.target, api.Request(), observer=watching, stop=interruption.stop)


def _command(page: Page, *words: str) -> None:
    out(page.paint(f"   $ memlift {shlex.join(words)}", "dim"))


def _look_at(place: Place, page: Page) -> None:
    from provisioners.embedded import EmbeddedPostgres

    out(page.paint("Look at it", "bold"))
    _command(page, "inspect", place.target)
    _command(page, "verify", str(place.brain), place.target)
    _command(page, "migrate", place.target, str(place.folder / "back.sqlite"))
    _command(page, "undo", place.target)
    url = EmbeddedPostgres(place.data).saved_url()
    out("   The server runs only while memlift uses it. To use it yourself:")
    _command(page, "up", "postgres", "--embedded", "--folder", str(place.data))
    if url is not None:
        out(page.paint(f"   $ psql '{mask(url)}'", "dim") + f"   (password: {place.data / 'password'})")
    err(f"kept in {place.folder}; remove that folder when you are done")
