"""Runs the notebooks and saves them with their outputs: ``python notebooks/build.py [NAME...]``.

A notebook is a jupytext percent script (``notebooks/NAME.py``), which is what people edit and review, paired
with ``NAME.ipynb``, which is what people read. Also called by the tests, which run each again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
CELL_SECONDS = 300


class ThisPython(KernelSpecManager):
    """Every kernel is the running interpreter, whatever kernels the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
        )


def scripts() -> Iterator[Path]:
    """The percent scripts: every ``.py`` here but this one."""
    return (path for path in sorted(FOLDER.glob("*.py")) if path.name != Path(__file__).name)


def read_script(path: Path) -> NotebookNode:
    """The notebook a script stands for, without outputs, the same to the byte each time."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = NotebookNode(
        jupytext=NotebookNode(formats="ipynb,py:percent"),
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def execute(notebook: NotebookNode) -> NotebookNode:
    """Run all cells, in the notebooks' folder. Raises ``CellExecutionError`` at the first that fails."""
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=ThisPython()),
        timeout=CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    return client.execute()


def main(names: list[str]) -> None:
    known = {path.stem: path for path in scripts()}
    unknown = set(names) - set(known)
    if unknown:
        raise SystemExit(f"no notebook {', '.join(sorted(unknown))}; there are: {', '.join(known) or 'none'}")
    for name in names or known:
        target = known[name].with_suffix(".ipynb")
        executed = execute(read_script(known[name]))
        executed.metadata.pop("widgets", None)
        executed.metadata.language_info = NotebookNode(name="python")
        nbformat.write(executed, target)
        print(target.relative_to(FOLDER.parent))


if __name__ == "__main__":
    main(sys.argv[1:])
