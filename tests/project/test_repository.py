"""What the repository promises about itself: sizes, versions, nothing unfinished."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 10**6


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git clone")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_is_larger_than_a_megabyte() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in large.items() if size > MEGABYTE} == {}


def test_nothing_is_left_to_do() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|raise Not" + r"Implemented")
    found = []
    for path in tracked():
        if path.suffix in {".py", ".md", ".cpp", ".h", ".hpp", ".toml", ".yml"}:
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if mark.search(line)]
    assert found == []


def test_the_installed_version_is_the_declared_one_and_the_changelog_knows_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = "Unreleased" if ".dev" in declared else declared
    assert f"## [{heading}]" in changelog
    try:
        installed = importlib.metadata.version("trustcompute")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("trustcompute is on the path and not installed")
    assert installed == declared
