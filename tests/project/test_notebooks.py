"""Notebooks run in this interpreter, and each ``.ipynb`` is what its script says, with outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from notebooks.build import FOLDER, execute, read_script, scripts

SCRIPTS = list(scripts())


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_every_notebook_has_a_script() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_is_its_script_with_outputs(script: Path) -> None:
    saved = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    rebuild = f"run: .venv/bin/python notebooks/build.py {script.stem}"
    assert cells(saved) == cells(read_script(script)), rebuild
    code = [cell for cell in saved.cells if cell.cell_type == "code" and cell.source]
    assert all(cell.execution_count for cell in code), rebuild
    assert outputs(saved), f"a notebook shows something; {rebuild}"
    assert not [output for output in outputs(saved) if output.output_type == "error"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_runs(script: Path) -> None:
    execute(read_script(script))


def test_the_kernel_is_this_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "which.py"
    script.write_text("# %% [markdown]\n# Which?\n\n# %%\nimport sys\nprint(sys.executable)\n")
    executed = execute(read_script(script))
    assert [kind for kind, _ in cells(executed)] == ["markdown", "code"]
    assert outputs(executed)[0].text.strip() == sys.executable


def test_a_failing_cell_fails(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("# %%\n1 / 0\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(read_script(script))
