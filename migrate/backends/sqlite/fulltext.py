"""Full-text tables that keep their own text (FTS3, FTS4, FTS5), as the tables of rows that they are.

Rows are read from the plain table in which the module keeps them (`notes_content`), never through the
module: a crafted file could have it do anything. A declaration is taken apart, and only what is known
here is put together again. See https://www.sqlite.org/fts5.html and https://www.sqlite.org/fts3.html.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from migrate.backends.sqlite.names import ident, literal
from migrate.schema import Column, FullText, Kind, Table

# Of the tables in which a module keeps what it has.
TAILS = ("content", "data", "idx", "docsize", "config", "segments", "segdir", "stat")
_PIECE = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])"""
    r"""|(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))|.""",
    re.S,
)
# FTS5 takes any beginning of a name for the first of these that has it.
_FTS5_OPTIONS = (
    *("prefix", "tokenize", "content", "contentless_delete", "contentless_unindexed", "content_rowid"),
    *("columnsize", "locale", "detail", "tokendata"),
)
_FTS4_OPTIONS = (
    *("matchinfo", "prefix", "compress", "uncompress", "order", "content", "languageid", "notindexed"),
)
_PLAIN = re.compile(r"[\w ,]*\Z", re.ASCII)  # the values of all options but a tokenizer's and names
_FTS5_TOKENIZERS = {"unicode61", "ascii", "porter", "trigram"}
_FTS3_TOKENIZERS = {"simple", "porter", "unicode61"}


@dataclass(frozen=True, slots=True)
class Declared:
    """A declaration of a virtual table, taken apart. `text` is None where it is no full-text table."""

    module: str
    text: FullText | None = None
    columns: tuple[str, ...] = ()

    def option(self, name: str) -> str | None:
        """Return the last value of an option, None where it is not given."""
        given = dict(self.text.options) if self.text is not None else {}
        return given.get(name)

    def kept(self) -> tuple[str, ...]:
        """Return the columns that the table of rows must have, the rowid first; empty if it cannot be read."""
        if (
            self.text is None
            or not self.columns
            or self.option("content") is not None
            or self.option("uncompress") is not None
        ):
            return ()
        return _stored(self.text, self.columns)


def taken_apart(sql: str) -> Declared:
    """Read the declaration of a virtual table, as `sqlite_schema` has it."""
    plain, masked = "", ""
    for piece in _PIECE.finditer(sql):
        text = " " if piece["comment"] else piece[0]
        plain += text
        masked += "\0" * len(text) if piece["quoted"] else text
    using = re.search(r"\busing\s+", masked, re.I)
    named = re.match(r"""["'`\[]?(\w+)["'`\]]?\s*""", plain[using.end() :]) if using else None
    if using is None or named is None:
        return Declared("")
    module, start = named[1].lower(), using.end() + named.end()
    if module not in ("fts3", "fts4", "fts5"):
        return Declared(module)
    arguments = _arguments(plain, masked, start)
    return _fts5(arguments) if module == "fts5" else _fts34(module, arguments)


def _arguments(plain: str, masked: str, start: int) -> list[str]:
    found, depth, begin = [], 0, start + 1
    for at in range(start, len(masked)):
        char = masked[at]
        depth += (char == "(") - (char == ")")
        if (char == "," and depth == 1) or (char == ")" and depth == 0):
            found.append(plain[begin:at].strip())
            begin = at + 1
        if depth == 0:
            break
    return [a for a in found if a]


def _unquoted(text: str) -> str:
    text = text.strip()
    if text[:1] == "[":
        return text[1:-1]
    if text[:1] in ("'", '"', "`"):
        return text[1:-1].replace(text[0] * 2, text[0])
    return text


def _words(text: str) -> list[str]:
    """Return the words of an argument, quoted ones without their quotes."""
    found, word = [], ""
    for piece in _PIECE.finditer(text):
        if piece["quoted"] or piece[0].isspace():
            found += [word] if word else []
            found += [_unquoted(piece[0])] if piece["quoted"] else []
            word = ""
        else:
            word += piece[0]
    return [*found, word] if word else found


def _fts5(arguments: Sequence[str]) -> Declared:
    columns, unindexed, options = [], [], []
    for argument in arguments:
        option = re.match(r"(\w+)\s*=\s*(.*)\Z", argument, re.S)
        if option:
            given = option[1].lower()
            name = next((o for o in _FTS5_OPTIONS if o.startswith(given)), given)
            options.append((name, _unquoted(option[2])))
            continue
        words = _words(argument)
        columns.append(words[0])
        if [w.lower() for w in words[1:]] == ["unindexed"]:
            unindexed.append(words[0])
    text = FullText("fts5", tuple(unindexed), tuple(options))
    return Declared("fts5", text, tuple(columns))


def _fts34(module: str, arguments: Sequence[str]) -> Declared:
    columns, options = [], []
    for argument in arguments:
        tokenizer = re.match(r"tokenize(?![\w$])[\s=]*(.*)\Z", argument, re.I | re.S)
        option = re.match(r"(\w+)\s*=(.*)\Z", argument, re.S) if module == "fts4" else None
        if tokenizer:
            options.append(("tokenize", tokenizer[1].strip()))
        elif option:
            options.append((option[1].lower(), _unquoted(option[2])))
        else:
            columns.append(_words(argument)[0])
    return Declared(module, FullText(module, (), tuple(options)), tuple(columns) or ("content",))


def _stored(text: FullText, columns: Sequence[str]) -> tuple[str, ...]:
    if text.module == "fts5":
        return ("id", *(f"c{i}" for i in range(len(columns))))
    kept = ("docid", *(f"c{i}{name}" for i, name in enumerate(columns)))
    return (*kept, "langid") if "languageid" in dict(text.options) else kept


def columns_of(declared: Declared) -> tuple[Column, ...]:
    """Return the columns that a table of this declaration is carried with: its rowid, then its own."""
    names = [*declared.columns, *([declared.option("languageid")] if declared.option("languageid") else [])]
    taken = {str(n).lower() for n in names}
    rowids = ("rowid", "docid", "_rowid_", "oid") if declared.module != "fts5" else ("rowid",)
    rowid = next((n for n in rowids if n not in taken), "rowid")
    key = Column(rowid, Kind.INTEGER, "INTEGER", nullable=False, identity=True)
    return (key, *(Column(str(name), Kind.TEXT) for name in names))


def relation(here: Table) -> str:
    """Return what stands after FROM for a table of a file: a full-text table's own table of rows, else its name."""
    if here.full_text is None:
        return ident(here.name)
    lid = "languageid" in dict(here.full_text.options)
    names = here.column_names
    stored = _stored(here.full_text, names[1:-1] if lid else names[1:])
    cells = ", ".join(f"{ident(a)} AS {ident(b)}" for a, b in zip(stored, names, strict=True))
    return f"(SELECT {cells} FROM {ident(f'{here.name}_content')})"


def unknown(text: FullText) -> str | None:
    """Say what of a declaration is not known here, so that it is not made again."""
    options = _FTS5_OPTIONS if text.module == "fts5" else _FTS4_OPTIONS
    for name, value in text.options:
        if name == "tokenize":
            words = _words(value)
            porter = text.module == "fts5" and words[:1] == ["porter"]
            known = _FTS5_TOKENIZERS if text.module == "fts5" else _FTS3_TOKENIZERS
            for word in words[: 2 if porter else 1]:
                if word.lower() not in known:
                    return f"the tokenizer {word!r}"
        elif name not in options or (
            name not in ("languageid", "notindexed") and not _PLAIN.match(value.strip())
        ):
            return f"the option {name!r}"
    return None


def create(table: Table) -> str | None:
    """Return the statement that makes a full-text table anew; None for a table that is none, or is not known."""
    text = table.full_text
    if text is None or unknown(text) is not None:
        return None
    own = [n for n in table.column_names if n not in table.key]
    if "languageid" in dict(text.options):
        own = own[:-1]
    parts = [ident(n) + (" UNINDEXED" if n in text.unindexed else "") for n in own]
    for name, value in text.options:
        if name == "tokenize" and text.module != "fts5":
            first, *more = _words(value)
            parts.append(" ".join([f"tokenize={first.lower()}", *map(ident, more)]))
        else:
            parts.append(f"{name}={literal(value)}")
    return f"CREATE VIRTUAL TABLE {ident(table.name)} USING {text.module}({', '.join(parts)})"
