"""The command `memlift`: arguments in, text or one JSON document and an exit code out.

Results go to stdout, progress and errors to stderr. What a command needs is
imported when that command runs, so that `--help` is quick and needs no driver.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from migrate.cli_arguments import EXITS, STORES, add_commands
from migrate.cli_text import UnheardError, err, flush, out, printable
from migrate.config import debug, mask
from migrate.errors import ConfigError, InterruptedRunError, MigrateError

# Commands of other parts: (module, commands). Imported when one of them, or the list of all, is asked for.
_PARTS = (
    ("migrate.backup.cli", ("backup",)),
    ("provisioners.cli", ("up", "status", "logs", "stop", "down")),
)
_HINTS = {
    1: "run the same command again: it goes on from the last checkpoint; MEMLIFT_DEBUG=1 shows where it failed",
    2: "memlift COMMAND --help shows what can be given",
    3: "the differences are listed in the report",
    4: "--on-misfit quarantine keeps the exact values beside their rows",
}


class _Parser(argparse.ArgumentParser):
    """Answers wrong usage like every other failure: one line, then a hint."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"{self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in given
    _fill_closed()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a table may be called anything; a report never fails for it
            reconfigure(errors="backslashreplace")
    try:
        args = parser(given).parse_args(given)
        as_json = bool(getattr(args, "json", as_json))
        code = int(args.run(args))
        flush()
        return code
    except SystemExit as exc:  # argparse has printed its help
        return int(exc.code or 0)
    except MigrateError as exc:
        return failed(exc, exc.exit_code, as_json=as_json)
    except KeyboardInterrupt:
        stopped = InterruptedRunError("interrupted", hint="run the same command again")
        return failed(stopped, stopped.exit_code, as_json=as_json)
    except (BrokenPipeError, UnheardError) as exc:
        return _unheard(exc)
    except Exception as exc:
        bug = MigrateError(
            f"unexpected {type(exc).__name__}: {exc}",
            hint="this is a bug in memlift; MEMLIFT_DEBUG=1 shows where it is",
        )
        return failed(bug, 1, as_json=as_json, cause=exc)


def _fill_closed() -> None:
    """Give a stream that the caller has closed (`>&-`) a place, so that no store is opened as its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _silence() -> None:
    """Let nothing more be printed: what is left in the buffer would fail once more, at the very end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _unheard(lost: OSError) -> int:
    """End what could not be printed: quietly where nobody reads any more (`| head`); return the exit code."""
    _silence()
    if lost.errno != errno.EPIPE:
        with suppress(OSError):
            err(f"error: what was found could not be printed: {lost.strerror}")
            err("hint: look at the place that stdout goes to, and run the command again")
    return 1


def failed(error: MigrateError, code: int, *, as_json: bool, cause: BaseException | None = None) -> int:
    """Tell what failed, where, and what to do; return the exit code."""
    lines = mask(str(error)).splitlines()
    message = printable(" | ".join(line.strip() for line in lines if line.strip()))
    hint = printable(mask(error.hint or _HINTS.get(code, _HINTS[1])).replace("\n", " "))
    try:
        if as_json:
            document: dict[str, Any] = error.report.to_dict() if error.report is not None else {}
            out_json(document | {"error": message, "hint": hint, "exit_code": code})
        elif error.report is not None and (error.report.tables or error.report.search):
            from migrate.cli_report import report_text
            from migrate.cli_text import Page

            out(report_text(error.report, Page.of(sys.stdout), error=mask(str(error))))
        flush()
    except UnheardError:
        _silence()
    with suppress(OSError):  # the exit code tells it all the same
        if debug():
            import traceback

            err(mask("".join(traceback.format_exception(cause or error)).rstrip()))  # drivers quote addresses
        err(f"error: {message}")
        err(f"hint: {hint}")
    return code


def out_json(document: object) -> None:
    """Print the one JSON document of a command."""
    out(json.dumps(document, ensure_ascii=False, indent=1, default=str))


# --- arguments ----------------------------------------------------------------


def parser(given: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser. `given`: the arguments, which say which parts are needed."""
    top = _Parser(
        prog="memlift",
        description="Move an AI agent's memory between stores: nothing lost, and proof of it.",
        epilog=f"{STORES}. {EXITS}.",
    )
    top.add_argument(
        "--version", action="version", version=f"memlift {_version()}" if _asks_version(given) else ""
    )
    commands: argparse._SubParsersAction[Any] = top.add_subparsers(
        metavar="COMMAND", title="commands", required=True
    )
    add_commands(commands)
    _add_parts(commands, given)
    return top


def _asks_version(given: Sequence[str]) -> bool:
    return "--version" in given


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("memlift")
    except PackageNotFoundError:  # run from a checkout
        return "(not installed)"


def _add_parts(commands: argparse._SubParsersAction[Any], given: Sequence[str]) -> None:
    """Add the commands of backup and provisioners, unless one of ours is called."""
    asked = next((a for a in given if not a.startswith("-")), None)
    if asked in commands.choices:
        return
    for module, names in _PARTS:
        if asked is not None and asked not in names and any(asked in n for _, n in _PARTS):
            continue
        try:
            register = import_module(module).register
        except ImportError as exc:
            if asked in names:
                raise ConfigError(
                    f"memlift {asked} cannot be used here: {exc}", hint="pip install 'memlift[all]'"
                ) from exc
            continue
        register(commands)


if __name__ == "__main__":
    sys.exit(main())
