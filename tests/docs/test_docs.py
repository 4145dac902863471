"""What README and guides show is true: commands run, links lead somewhere, names exist."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from doc_blocks import DOCUMENTS, ROOT, SCRIPTS, blocks, folder_for, run

from migrate.backends.sqlbooks import NAMES
from migrate.cli import parser

TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if not any(b.needs_postgres for b in blocks(d))])
def test_commands_of_documents_that_need_no_server_run_in_order(document: str, tmp_path: Path) -> None:
    """Those of the others are run, all of them, in integration/cli/test_docs_postgres.py."""
    folder = folder_for(tmp_path)
    for block in blocks(document):
        if block.sets_up:
            continue
        done = run(block, folder)
        assert done.returncode == 0, f"{document}:{block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"


def test_the_readme_begins_with_five_lines_and_two_commands() -> None:
    head, first, *_ = re.split(r"^```\w*\n", TEXTS["README.md"], flags=re.MULTILINE)
    assert head.startswith("# memlift\n\n")
    assert len(head.strip().splitlines()) - 2 == 5
    assert first.split("```")[0].split() == ["scripts/demo", "scripts/test"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["sh", "-n", ROOT / script], check=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXTS[document]):
        if not link.startswith("http"):
            assert (ROOT / document).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_that_are_named_exist(document: str) -> None:
    known = {"--help", "--json", "--quiet"}
    commands = next(a.choices for a in parser()._actions if isinstance(a.choices, dict))
    for command in commands.values():
        known |= {option for action in command._actions for option in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXTS[document])) - {"--slow"}
    assert named <= known


def test_every_reserved_table_is_listed() -> None:
    listed = set(re.findall(r"^\| `(memlift_\w+)`", TEXTS["docs/migrating.md"], re.MULTILINE))
    assert listed == set(NAMES)


def test_the_extras_of_the_readme_are_those_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = TEXTS["README.md"].split("| extra | brings |")[1].split("\n\n")[0]
    for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE):
        assert name in extras


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_machine_or_host_is_named(document: str) -> None:
    for word in ("localhost:", "pypi", "npmjs", "session", "issue #"):
        assert word not in TEXTS[document].lower(), word
    assert re.findall(r"/(?:work|root|home)\b", TEXTS[document].lower()) == []
