"""What the documentation shows works.

The ``python`` blocks of every page run, in order, page by page. Blocks that need a node or somebody's files are marked
``py``, and are for reading: they parse, and what they take from the package is there.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import trustcompute

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> str:
    """All of a page's in one language, in order."""
    found = re.findall(
        rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return "\n".join(textwrap.dedent(block) for block in found)


RUN = [page for page in PAGES if blocks(page, "python")]
READ = [page for page in PAGES if blocks(page, "py")]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page, "python"), str(page), "exec"), {"__name__": "__page__"})


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_what_a_page_takes_from_the_package_is_there(page: Path) -> None:
    for node in ast.walk(ast.parse(blocks(page, "py"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), {})
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tc":
            assert hasattr(trustcompute, node.attr), f"tc.{node.attr}"


def test_there_are_pages_of_both_kinds() -> None:
    assert ROOT / "README.md" in RUN and ROOT / "README.md" in READ


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if page not in navigation} == set()
