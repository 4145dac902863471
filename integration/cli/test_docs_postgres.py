"""All commands of README and guides, in order, with an embedded Postgres."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "docs"))

from doc_blocks import DOCUMENTS, blocks, folder_for, run

# Documents whose commands need no server have been run by tests/docs.
HERE = [name for name in DOCUMENTS if any(block.needs_postgres for block in blocks(name))]


@pytest.mark.parametrize("document", HERE)
def test_every_command_of_the_documents_runs_in_order(document: str, tmp_path: Path) -> None:
    folder = folder_for(tmp_path)
    for block in blocks(document):
        if block.sets_up:
            continue
        done = run(block, folder)
        assert done.returncode == 0, f"{document}:{block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
