"""All commands of README and guides, in order, with an embedded Postgres."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "docs"))

from doc_blocks import DOCUMENTS, blocks, folder_for, run


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_documents_runs_in_order(document: str, tmp_path: Path) -> None:
    folder = folder_for(tmp_path)
    for block in blocks(document):
        if block.sets_up:
            continue
        done = run(block, folder)
        assert done.returncode == 0, f"{document}:{block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
