"""`memlift up`, `status`, `logs`, `stop`, `down`: arguments in, text or one JSON document out.

Errors are raised for the command's own `main` to show; results go to stdout, the rest to stderr.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

from migrate.config import mask
from migrate.errors import ConfigError
from provisioners import lifecycle, saved
from provisioners.base import KINDS, Confirm, Say, Status, check_name, silent
from provisioners.ready import TIMEOUT_S


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add our commands; each sets `run`, a function of the parsed arguments that returns the exit code."""
    up = _command(subparsers, "up", "set up Postgres or Qdrant, or find it running")
    up.add_argument("kind", choices=KINDS)
    place = up.add_mutually_exclusive_group()
    place.add_argument(
        "--embedded", action="store_const", const="embedded", dest="how", help="without Docker"
    )
    place.add_argument(
        "--docker", action="store_const", const="docker", dest="how", help="in Docker, and nowhere else"
    )
    up.add_argument("--folder", help="folder of an embedded store (default: in MEMLIFT_HOME)")
    up.add_argument("--version", help="major version (Postgres 16, 17, 18; embedded: 16, 18)")
    up.add_argument("--image", help="another image than the pinned one")
    up.add_argument("--port", type=_port, help="port on this machine, if it is free")
    up.add_argument("--publish", metavar="ADDRESS", help="address to publish on (default 127.0.0.1)")
    up.add_argument("--memory", type=_size, metavar="SIZE", help="limit of the container, e.g. 2g")
    up.add_argument(
        "--wait", type=_seconds, default=TIMEOUT_S, metavar="SECONDS", help="for readiness (default 15)"
    )
    up.add_argument("--yes", action="store_true", help="answer questions with yes")
    _common(up, run=_up)

    status = _command(subparsers, "status", "where our stores are, and how they stand")
    status.add_argument("kind", nargs="?", choices=KINDS)
    _common(status, run=_status, named=False)

    logs = _command(subparsers, "logs", "what a store has written last")
    logs.add_argument("kind", nargs="?", choices=KINDS)
    logs.add_argument("-n", "--lines", type=_lines, default=100, help="how many (default 100)")
    _which(logs)
    _common(logs, run=_logs, named=False)

    stop = _command(subparsers, "stop", "stop our stores; up starts them again")
    stop.add_argument("kind", nargs="?", choices=KINDS)
    _which(stop)
    _common(stop, run=_stop, named=False)

    down = _command(subparsers, "down", "remove our containers; their data stays")
    down.add_argument("kind", nargs="?", choices=KINDS)
    down.add_argument("--volumes", action="store_true", help="remove their data too, after asking")
    down.add_argument("--yes", action="store_true", help="do not ask")
    _which(down)
    _common(down, run=_down, named=False)
    for parser in (status, logs, stop, down):
        parser.add_argument("--name", default=None, help="only the store set up with this --name")


def _command(subparsers: argparse._SubParsersAction[Any], name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=text)
    return made


def _common(parser: argparse.ArgumentParser, *, run: Any, named: bool = True) -> None:
    if named:
        parser.add_argument("--name", type=_name, default="memlift", help="to have several (default memlift)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    parser.add_argument("--quiet", action="store_true", help="say no steps")
    parser.set_defaults(run=run)


def _which(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--embedded", action="store_const", const="embedded", dest="how", help="not in Docker")
    place.add_argument("--docker", action="store_const", const="docker", dest="how", help="in Docker")


def _up(args: argparse.Namespace) -> int:
    _refuse_unused(args)
    endpoint = lifecycle.up(
        args.kind,
        args.how,
        _say(args),
        name=args.name,
        version=args.version,
        image=args.image,
        port=args.port,
        publish=args.publish,
        memory=args.memory,
        folder=args.folder,
        ready_timeout=args.wait,
        confirm=_confirm(args),
    )
    found = {
        "kind": endpoint.kind,
        "how": endpoint.how,
        "name": endpoint.name,
        "address": endpoint.masked,
        "version": endpoint.version,
        "extension": endpoint.extension,
        "saved": str(saved.path()),
        **endpoint.details,
    }
    if args.json:
        _print_json(found)
    else:
        extra = f", pgvector {endpoint.extension}" if endpoint.extension else ""
        _print(f"{endpoint.kind} {endpoint.version}{extra}: {endpoint.masked}")
        _print(f"its password is in {saved.path()}" if endpoint.how in ("docker", "embedded") else "")
    return 0


def _refuse_unused(args: argparse.Namespace) -> None:
    """Raise ConfigError for an option of the place that was not asked for: it would change nothing."""
    if args.how != "embedded" and args.folder is not None:
        raise ConfigError("--folder is for an embedded store", hint="add --embedded")
    for option in ("image", "port", "publish", "memory"):
        if args.how == "embedded" and getattr(args, option) is not None:
            raise ConfigError(f"--{option} is for a store in Docker", hint="leave it, or --embedded")


def _status(args: argparse.Namespace) -> int:
    found = lifecycle.status(args.kind, name=args.name)
    if args.json:
        _print_json([item.to_dict() for item in found])
    elif not found:
        _print("no store has been set up; memlift up postgres makes one")
    else:
        _print(table(found))
    return 0


def _logs(args: argparse.Namespace) -> int:
    text = lifecycle.logs(args.kind, name=args.name, how=args.how, lines=args.lines)
    _print_json({"lines": text.splitlines()}) if args.json else _print(text.rstrip())
    return 0


def _stop(args: argparse.Namespace) -> int:
    stopped = lifecycle.stop(args.kind, name=args.name, how=args.how, say=_say(args))
    _print_json({"stopped": stopped}) if args.json else _print("\n".join(stopped))
    return 0


def _down(args: argparse.Namespace) -> int:
    removed = lifecycle.down(
        args.kind, volumes=args.volumes, name=args.name, how=args.how, confirm=_confirm(args), say=_say(args)
    )
    _print_json({"removed": removed}) if args.json else _print("\n".join(removed))
    return 0


def table(found: list[Status]) -> str:
    """Return statuses as aligned columns, notes below."""
    head = ("NAME", "WHERE", "STATE", "HEALTH", "VERSION", "ROWS", "DISK", "SINCE", "ADDRESS")
    rows = [head]
    for item in found:
        version = "-" if item.version is None else item.version
        version += f" (pgvector {item.extension})" if item.extension else ""
        rows.append(
            (
                item.name,
                item.where,
                item.state,
                item.health,
                version,
                "-" if item.rows is None else f"{'' if item.rows_exact else '~'}{item.rows}",
                "-" if item.disk is None else f"{item.disk / 1e6:.1f} MB",
                item.since or "-",
                item.address,
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(lines + [f"{item.name}: {item.note}" for item in found if item.note])


def _say(args: argparse.Namespace) -> Say:
    return silent if args.quiet else lambda text: print(mask(text), file=sys.stderr, flush=True)  # noqa: T201


def _confirm(args: argparse.Namespace) -> Confirm | None:
    if args.yes:
        return lambda _: True
    if not sys.stdin.isatty():
        return None

    def ask(question: str) -> bool:
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return ask


def _print(text: str) -> None:
    if text:
        print(text)  # noqa: T201


def _print_json(document: object) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=1))  # noqa: T201


def _name(text: str) -> str:
    try:
        return check_name(text)
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(exc.message) from exc


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65534:
        raise argparse.ArgumentTypeError("a number from 1 to 65534")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 86400:  # also not a number
        raise argparse.ArgumentTypeError("seconds, from above 0 to 86400")
    return found


def _lines(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("a number from 1 to 1,000,000")
    return int(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([kmg]?)b?", text.lower())
    if not found:
        raise argparse.ArgumentTypeError("a number of bytes, or with k, m, g")
    factors = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
    return int(found[1]) * factors[found[2]]
