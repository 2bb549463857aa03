"""The import contracts hold something: an import that points up, or sideways, breaks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "trustcompute"


def lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("importlinter")
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
            "--config",
            str(ROOT / "pyproject.toml"),
        ],
        cwd=source,
        env={"PYTHONPATH": str(source), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "trustcompute", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return tmp_path


def test_the_contracts_are_kept(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors.py", "import trustcompute.protocol.operation"),
        ("protocol/operation.py", "import trustcompute.psi"),
        ("psi/__init__.py", "import trustcompute.transport"),
        ("transport/__init__.py", "import trustcompute.psi"),
        ("broker/__init__.py", "import trustcompute.transport"),
        ("broker/__init__.py", "import trustcompute.psi"),
        ("psi/__init__.py", "import trustcompute.broker"),
        ("psi/__init__.py", "import trustcompute.node"),
        ("kernels/__init__.py", "import trustcompute.primitives"),
        ("primitives/__init__.py", "import trustcompute.tables"),
        ("protocol/__init__.py", "import socket"),
        ("node/__init__.py", "import sqlite3"),
        ("node/__init__.py", "import trustcompute.cli"),
        ("stray.py", "import trustcompute.errors"),
    ],
)
def test_an_import_that_points_elsewhere_breaks_them(copy: Path, module: str, line: str) -> None:
    with (copy / "trustcompute" / module).open("a") as out:
        out.write(f"\n{line}\n")
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "refused"),
    [
        ("src/trustcompute/node/x.py", "import pyarrow.flight", True),
        ("src/trustcompute/transport/x.py", "import pyarrow.flight", False),
        ("src/trustcompute/psi/x.py", "from pickle import loads", True),
        ("src/trustcompute/primitives/x.py", "from numpy.random import default_rng", True),
        ("src/trustcompute/primitives/x.py", "import random", True),
    ],
)
def test_banned_modules_are_refused(module: str, line: str, *, refused: bool) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    done = subprocess.run(
        [ruff, "check", "--no-cache", "--select", "TID251", "--stdin-filename", module, "-"],
        cwd=ROOT,
        input=f"{line}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("TID251" in done.stdout) == refused, done.stdout + done.stderr
