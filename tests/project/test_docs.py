"""What the documentation shows works.

The ``python`` blocks of the README, the first page and the tutorials run, in order, page by page. Blocks that
need a node or somebody's files are marked ``py``, and are for reading.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUNNABLE = [ROOT / "README.md", ROOT / "docs/index.md", *sorted((ROOT / "docs/tutorial").glob("*.md"))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if not page.exists():
        pytest.skip(f"there is no {page.name}")
    source = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    exec(compile(source, str(page), "exec"), {"__name__": "__page__"})


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if page not in navigation} == set()
