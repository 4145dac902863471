"""What people read: columns that fit the screen, numbers with units, colour only on a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from migrate.config import env

_PLAIN_WIDTH = 110  # where no terminal says how wide it is
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


@dataclass(frozen=True, slots=True)
class Page:
    """How wide the page is, and what may be put on it."""

    width: int = _PLAIN_WIDTH
    colour: bool = False
    plain: bool = False  # ASCII only

    @classmethod
    def of(cls, stream: TextIO) -> Page:
        """Return the page that a stream is."""
        terminal = stream.isatty()
        width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns
        colour = terminal and env("NO_COLOR") is None and env("TERM") != "dumb"
        try:
            "✓✗→…".encode(stream.encoding or "ascii")
        except UnicodeEncodeError:
            return cls(max(width, 40), colour, plain=True)
        return cls(max(width, 40), colour)

    @property
    def yes(self) -> str:
        """Return the mark of what is proven."""
        return "+" if self.plain else "✓"

    @property
    def no(self) -> str:
        """Return the mark of what failed."""
        return "x" if self.plain else "✗"

    @property
    def arrow(self) -> str:
        """Return what stands between a source and a target."""
        return "->" if self.plain else "→"

    def paint(self, text: str, look: str) -> str:
        """Return text in a look (bold, dim, red, green, yellow), where colour is wanted."""
        return f"\x1b[{_CODES[look]}m{text}\x1b[0m" if self.colour and text else text

    def cut(self, text: str, width: int) -> str:
        """Shorten text to a width, with a sign that it was."""
        if len(text) <= width:
            return text
        return text[: max(width - (3 if self.plain else 1), 0)] + ("..." if self.plain else "…")

    def wrapped(self, text: str, indent: str = "", first: str | None = None) -> list[str]:
        """Break a paragraph into lines of the page's width; long names stay whole."""
        return textwrap.wrap(
            printable(text),
            max(self.width, 40),
            initial_indent=indent if first is None else first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [first or ""]


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a table on the page.

    keep: columns with lower numbers go first where the page is too narrow; 0 stays.
    """

    title: str
    left: bool = False
    keep: int = 0


def columns(
    page: Page, fields: Sequence[Field], rows: Sequence[Sequence[str]], *, ends: int = 0
) -> list[str]:
    """Lay rows out under their titles. The last `ends` rows stand apart (totals).

    A column in which no row has anything is left out.
    """
    chosen = [i for i, f in enumerate(fields) if i == 0 or any(row[i] not in ("", "-") for row in rows)]
    widths = {i: max([len(fields[i].title), *(len(row[i]) for row in rows)]) for i in chosen}

    def needed() -> int:
        return sum(widths[i] + 2 for i in chosen) - 2

    while needed() > page.width:
        spare = [i for i in chosen if fields[i].keep]
        if not spare:
            break
        chosen.remove(min(spare, key=lambda i: fields[i].keep))
    names = [i for i in chosen if fields[i].left]
    if needed() > page.width and names:
        widest = max(names, key=lambda i: widths[i])
        widths[widest] = max(widths[widest] - (needed() - page.width), 8)

    def line(cells: Sequence[str]) -> str:
        parts = []
        for i in chosen:
            text = page.cut(printable(cells[i]), widths[i])
            parts.append(text.ljust(widths[i]) if fields[i].left else text.rjust(widths[i]))
        return "  ".join(parts).rstrip()

    out = [page.paint(line([f.title for f in fields]), "dim")]
    for n, row in enumerate(rows):
        text = line(row)
        if n >= len(rows) - ends:
            text = page.paint(text, "bold")
        out.append(text)
    return out


def printable(text: str) -> str:
    """Replace what would steer a terminal (a table may be called anything)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def size_text(size: float) -> str:
    """Return bytes as people read them: 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def time_text(seconds: float) -> str:
    """Return a length of time: 0.02 s, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count_text(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: 1 row, 1,234 rows."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


class UnheardError(OSError):
    """What was to be printed does not get out: a full disk, or a reader that went away."""


def out(text: str) -> None:
    """Print a result, for people or programs. Raises UnheardError."""
    try:
        sys.stdout.write(text + "\n")
    except OSError as exc:
        raise UnheardError(*exc.args) from exc


def flush() -> None:
    """Let out what has been printed. Raises UnheardError."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        raise UnheardError(*exc.args) from exc


def err(text: str) -> None:
    """Print what is not a result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
