"""The commands of the Pinecone guide, run as a reader would, against the emulator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from integration.pinecone_emulator import PineconeEmulator
from tests.docs.doc_blocks import ROOT, blocks, folder_for


def test_the_commands_of_the_guide_run_in_order(emulator: PineconeEmulator, tmp_path: Path) -> None:
    folder = folder_for(tmp_path)
    path = f"{tmp_path / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    env = {
        "PATH": path,
        "HOME": str(tmp_path),
        "MEMLIFT_HOME": str(tmp_path / "home"),
        "PINECONE_API_KEY": "any",
        "PINECONE_CONTROLLER_HOST": emulator.url,
    }
    bash = shutil.which("bash", path=path) or "bash"
    found = blocks("docs/pinecone.md")
    assert found
    for block in found:
        done = subprocess.run(
            [bash, "-euc", block.commands], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    assert (
        len(list((tmp_path / "home" / "sidecars").glob("*.sqlite"))) == 1
    )  # of the files; the rest was undone
    assert (folder / "files" / "brain" / "memory_traces").is_dir()


def test_the_guide_says_what_the_code_does() -> None:
    from migrate import sampling
    from migrate.backends.pinecone import fresh, limits, reading, sending

    text = (ROOT / "docs" / "pinecone.md").read_text(encoding="utf-8")
    for number in (
        limits.REQUEST_BYTES,
        limits.REQUEST_RECORDS,
        limits.METADATA_BYTES,
        sampling.LEAST,
        sampling.MOST,
    ):
        assert f"{number:,}" in text
    assert "six requests at a time" in text
    assert (reading.STREAMS, sending.STREAMS, fresh.BOUND_S, sampling.SAMPLE_ONE_IN) == (6, 4, 120, 20)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (ROOT / "docs" / link).exists()
    assert os.path.exists(ROOT / "integration" / "pinecone_emulator")
