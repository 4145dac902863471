"""The code of README and guides, run as a reader would: in order, in one folder with a brain.sqlite."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The guides of backups and of provisioning come with tests of their own.
DOCUMENTS = (
    "README.md",
    "docs/migrating.md",
    "docs/search.md",
    "docs/hnsw.md",
    "docs/tiers.md",
    "docs/parity.md",
    "docs/architecture.md",
    "docs/CHANGELOG.md",
)
RUN = ("bash", "console", "python")
# Scripts that make environments: the demo has a test of its own, and the tests are running now.
SCRIPTS = ("scripts/demo", "scripts/test", ".ci/run")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_MEMLIFT = """#!/bin/sh
PYTHONPATH='{root}' exec '{python}' -W error -m migrate "$@"
"""
_SQLITE = """#!{python}
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.executescript(sys.argv[2])
connection.close()
"""
_PYTHON = """#!/bin/sh
PYTHONPATH='{root}' exec '{python}' -W error "$@"
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a document."""

    document: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> str:
        """Return what is run: of a console block, the lines after `$`."""
        if self.language != "console":
            return self.text
        return "\n".join(line[2:] for line in self.text.splitlines() if line.startswith("$ "))

    @property
    def needs_postgres(self) -> bool:
        """Whether it starts an embedded Postgres (an audit does not)."""
        lines = [line for line in self.text.splitlines() if not line.startswith("memlift audit")]
        return any("postgresql" in line or '"embedded"' in line or "--auto-setup" in line for line in lines)

    @property
    def sets_up(self) -> bool:
        """Whether it is nothing but our scripts that make environments."""
        return all(line in SCRIPTS for line in self.commands.split())


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document that can be run."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(document, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in _BLOCK.finditer(text)
        if match[1] in RUN
    ]


def folder_for(place: Path) -> Path:
    """Return a folder with a brain.sqlite, and the commands of the documents in its bin."""
    programs = place / "bin"
    programs.mkdir(parents=True)
    for name, text in (("memlift", _MEMLIFT), ("sqlite3", _SQLITE), ("python", _PYTHON)):
        program = programs / name
        program.write_text(text.format(root=ROOT, python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    folder = place / "here"
    folder.mkdir()
    shutil.copyfile(ROOT / "migrate" / "samples" / "brain.sqlite", folder / "brain.sqlite")
    return folder


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block in a folder; its first command that fails ends it."""
    words = ["python", "-c", block.text] if block.language == "python" else ["bash", "-euc", block.commands]
    path = f"{folder.parent / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    env = {"PATH": path, "HOME": str(folder.parent), "MEMLIFT_HOME": str(folder.parent / "home")}
    words[0] = shutil.which(words[0], path=path) or words[0]
    return subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
