"""What each command of memlift takes: arguments and their help, and nothing that runs.

A command's own module is imported when it is called.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from migrate.cli_parity import add_options as add_search_options

STORES = (
    "a store is a file name, sqlite:///relative.db, postgresql://user:pw@host/db?schema=s, "
    "postgresql+embedded:./folder (a server of our own in that folder), qdrant:./folder, "
    "qdrant+http://host:6333, or pinecone:index-name"
)
EXITS = (
    "exit codes: 0 done and verified as asked; 1 failed, the checkpoint stands; 2 nothing was begun; "
    "3 differences found; 4 cells that do not fit; 130, 143 interrupted, can be continued"
)
_HOMES = {  # the module of a command; the others are in cli_run
    "inspect": "migrate.cli_inspect",
    "advise": "migrate.cli_advise",
    "demo": "migrate.cli_demo",
    "search": "migrate.cli_search",
    "graph": "migrate.cli_search",
}


def add_commands(commands: Any) -> None:
    """Add our commands to a parser's, in the order of its help."""
    for add in (_migrate, _audit, _verify, _undo, _inspect, _advise, _search, _graph, _demo):
        add(commands)


def _command(
    commands: argparse._SubParsersAction[Any], name: str, text: str, **more: Any
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, **more)
    made.set_defaults(run=_Lazily(name))
    return made


class _Lazily:
    """Imports a command's module when it is run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, args: argparse.Namespace) -> int:
        module = import_module(_HOMES.get(self._name, "migrate.cli_run"))
        return int(getattr(module, self._name)(args))


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", help="print one JSON document on stdout, nothing else"
    )
    command.add_argument("--quiet", action="store_true", help="no progress")


def _reading(command: argparse.ArgumentParser) -> None:
    """Add what shapes how a source is read; the same for a run and its audit."""
    some = command.add_argument_group("what is read")
    some.add_argument("--table", action="append", metavar="T", help="only this table (again for more)")
    some.add_argument(
        "--exclude", action="append", default=[], metavar="T", help="not this table (again for more)"
    )
    some.add_argument(
        "--where-tenant", metavar="ID", help="only the rows of one tenant (an AgentOS brain_id)"
    )
    some.add_argument("--upgrade", action="store_true", help="bring an AgentOS brain of schema 1 to schema 2")
    some.add_argument(
        "--vector", action="append", default=[], metavar="T.C", help="this BLOB column holds float32 vectors"
    )
    some.add_argument("--no-vector", action="append", default=[], metavar="T.C", help="this one does not")
    some.add_argument(
        "--json-columns",
        choices=("jsonb", "text"),
        default="jsonb",
        help="how Postgres keeps JSON: jsonb can be queried (default), text keeps the bytes",
    )
    some.add_argument(
        "--batch-size", type=_positive, default=1000, metavar="N", help="rows per read (default 1000)"
    )


def _migrate(commands: Any) -> None:
    command = _command(
        commands,
        "migrate",
        "move everything from SOURCE to TARGET, go on where a run was broken off, prove that nothing was lost",
        epilog=f"{STORES}. {EXITS}.",
    )
    command.add_argument("source", metavar="SOURCE", help="the store to read; nothing in it is changed")
    command.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="the store to write to; made if it is not there (or --to-tier)",
    )
    _output(command)
    command.add_argument(
        "--to-tier",
        metavar="TIER",
        help="in place of TARGET: auto (the tier that is advised), sqlite, sqlite+hnsw, postgres, qdrant, "
        "pinecone; checks rows and search, then saves the new address",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="read all, say what would be done, write nothing"
    )
    command.add_argument(
        "--verify",
        choices=("full", "sample", "counts", "none"),
        help="default: full, every row; sample where a store is Pinecone",
    )
    command.add_argument(
        "--on-misfit",
        choices=("fail", "quarantine"),
        default="fail",
        help="cells that the target cannot hold: write nothing (default), or keep them exactly beside their rows",
    )
    command.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="processes that build an index"
    )
    command.add_argument(
        "--index",
        choices=("auto", "none", "hnsw"),
        default="auto",
        help="what searches use: auto builds it after the rows (default), none leaves it out; "
        "hnsw is auto, and says where an index beside a SQLite file could not be built",
    )
    again = command.add_argument_group("over a target that holds rows")
    again.add_argument("--restart", action="store_true", help="forget an unfinished run and begin anew")
    again.add_argument("--update", action="store_true", help="where rows differ, the source wins")
    again.add_argument(
        "--mirror", action="store_true", help="the same, and remove rows that the source has not"
    )
    again.add_argument(
        "--into-existing", action="store_true", help="write into tables that memlift did not make"
    )
    command.add_argument(
        "--backup",
        metavar="STORE",
        help="first back the SQLite file up: s3://bucket/prefix?... or file:///folder",
    )
    command.add_argument(
        "--auto-setup",
        nargs="?",
        const="any",
        choices=("any", "docker", "embedded"),
        metavar="docker|embedded",
        help="set the target's server up first, where none runs",
    )
    command.add_argument(
        "--check-search", action="store_true", help="at the end, see that the target finds the same"
    )
    _judging(command)
    _reading(command)
    add_search_options(command, vector=False)


def _audit(commands: Any) -> None:
    command = _command(
        commands,
        "audit",
        "say in full what a migration would do and what would not fit; writes nothing anywhere",
        epilog="Without TARGET the cells are judged against every store that memlift writes to. "
        "Exit code 4 where something does not fit.",
    )
    command.add_argument("source", metavar="SOURCE", help="the store to read; nothing in it is changed")
    command.add_argument("target", metavar="TARGET", nargs="?", help="where it is to go; not written to")
    _output(command)
    _reading(command)


def _verify(commands: Any) -> None:
    command = _command(
        commands, "verify", "compare two stores, key by key, and how they are searched; change nothing"
    )
    command.add_argument("source", metavar="SOURCE")
    command.add_argument("target", metavar="TARGET")
    _output(command)
    command.add_argument(
        "--mode",
        choices=("full", "sample", "counts", "none"),
        help="default: full, every row; sample where a store is Pinecone; none with --search",
    )
    command.add_argument(
        "--search", action="store_true", help="see that the target finds the same as the source"
    )
    command.add_argument(
        "--index", choices=("auto", "none"), default="auto", help="none: the target was to have no indexes"
    )
    add_search_options(command, vector=True)


def _undo(commands: Any) -> None:
    command = _command(
        commands, "undo", "drop what memlift created in TARGET, and nothing else, after asking"
    )
    command.add_argument("target", metavar="TARGET")
    _output(command)
    command.add_argument("--yes", action="store_true", help="do not ask")


def _inspect(commands: Any) -> None:
    command = _command(commands, "inspect", "show a store's layout, tables, rows, vectors, size and tier")
    command.add_argument("store", metavar="STORE")
    _output(command)


def _advise(commands: Any) -> None:
    command = _command(
        commands,
        "advise",
        "measure a store and say which tier fits it, why, what a move takes, and when the next is due",
    )
    command.add_argument("store", metavar="STORE")
    _output(command)
    _judging(command)


def _judging(command: Any) -> None:
    """Add what shapes advice; the same for a move to the tier that is advised."""
    group = command.add_argument_group("how a tier is chosen")
    group.add_argument(
        "--threshold",
        action="append",
        type=_threshold,
        default=[],
        metavar="NAME=NUMBER",
        help="another bound: sqlite=2000, sqlite+hnsw, postgres (vectors), writers, p95_ms, memory_share",
    )
    group.add_argument("--no-servers", action="store_true", help="nobody is to run a server")
    group.add_argument(
        "--writers", type=int, metavar="N", help="how many write at the same time, where you know"
    )


def _threshold(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from None


def _search(commands: Any) -> None:
    command = _command(
        commands,
        "search",
        "find what a store remembers: by words, by nearness of vectors, or by both",
        epilog="A filter is JSON, the same for every store: "
        '\'{"type": "semantic", "strength": {"gte": 0.5}, "metadata.user": {"in": ["Ada", "Bob"]}}\'. '
        "See docs/search.md.",
    )
    command.add_argument("store", metavar="STORE", help="the store to search; nothing in it is changed")
    asked = command.add_argument_group("what to search for")
    asked.add_argument("--text", metavar="T", help="words; with an embedder also their meaning")
    asked.add_argument("--like", metavar="KEY", help="rows near to the row of this key")
    asked.add_argument(
        "--vector", metavar="FILE", help="rows near to this vector: JSON (also sparse), .npy or raw float32"
    )
    asked.add_argument(
        "--mode", choices=("vector", "keyword", "hybrid"), help="how; by what is given unless said"
    )
    asked.add_argument("--embedder", metavar="M:F", help="the function that makes vectors of texts")
    asked.add_argument(
        "--embedder-command",
        metavar="COMMAND",
        help='or a program: {"text": ...} in, an array of numbers out',
    )
    where = command.add_argument_group("where")
    where.add_argument(
        "-k", type=_positive, default=10, metavar="N", help="how many hits at most (default 10)"
    )
    where.add_argument("--table", action="append", metavar="T", help="only this table (again for more)")
    where.add_argument("--where", metavar="JSON", help="only rows that satisfy this filter")
    where.add_argument("--tenant", metavar="ID", help="only the rows of one tenant (an AgentOS brain_id)")
    where.add_argument("--exact", action="store_true", help="look at every vector instead of asking an index")
    _output(command)


def _graph(commands: Any) -> None:
    command = _command(commands, "graph", "walk over a store's knowledge graph: neighbours of NODE, or paths")
    command.add_argument("store", metavar="STORE", help="the store; nothing in it is changed")
    command.add_argument("node", metavar="NODE", help="the id of a node")
    command.add_argument("--to", metavar="NODE", help="the paths from NODE to this one, shortest first")
    command.add_argument(
        "--depth", type=_positive, metavar="N", help="how many edges away at most (default 1; with --to 4)"
    )
    command.add_argument(
        "--direction", choices=("both", "out", "in"), default="both", help="which way edges are crossed"
    )
    command.add_argument("--tenant", metavar="ID", help="only the graph of one tenant (an AgentOS brain_id)")
    command.add_argument(
        "--limit", type=_positive, default=100, metavar="N", help="how many are shown (default 100)"
    )
    _output(command)


def _demo(commands: Any) -> None:
    command = _command(
        commands, "demo", "migrate a sample brain into a Postgres with pgvector of its own, and verify it"
    )
    command.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="where to work (default: a temporary folder)"
    )
    _output(command)
    command.add_argument("--keep", action="store_true", help="leave everything there to look at")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)
