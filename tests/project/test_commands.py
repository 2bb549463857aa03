"""Every command that a page shows exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import trustcompute
from trustcompute.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash", "shell", "console")


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line in the shell blocks of a page, without prompts and assignments."""
    text = page.read_text(encoding="utf-8")
    for language, block in FENCED.findall(text):
        if language in SHELL:
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            yield from (_words(line) for line in lines if language != "console" or line.startswith("$ "))
    indented = re.findall(r"^ {4}((?:make|trustcompute|python3?) .*)$", FENCED.sub("", text), re.MULTILINE)
    yield from (_words(line) for line in indented)


def _words(line: str) -> list[str]:
    words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    return words or [""]


def shown(program: str) -> list[tuple[str, list[str]]]:
    """(page, the words after the program) for each place where a page runs ``program``."""
    return [
        (str(page.relative_to(ROOT)), words[1:])
        for page in PAGES
        if page.exists()
        for words in commands(page)
        if words[0].rpartition("/")[2] == program
    ]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_makefile_has_what_every_clone_has() -> None:
    assert targets() >= {"demo", "test", "check", "bench", "docs", "sanitize", "clean"}


def test_make_targets_exist() -> None:
    asked = {
        (page, word) for page, words in shown("make") for word in words if "=" not in word and word[0] != "-"
    }
    assert asked, "some page says how to run the tests"
    assert {(page, word) for page, word in asked if word not in targets()} == set()


def test_the_makefile_parses() -> None:
    for target in sorted(targets()):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr


def test_trustcompute_commands_and_their_options_exist() -> None:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    used: dict[tuple[str, ...], set[str]] = {}
    for _, words in shown("trustcompute"):
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        used.setdefault(tuple(_leading_names(words)), set()).update(options)
    for names, options in used.items():
        result = runner.invoke(app, [*names, "--help"])
        assert result.exit_code == 0, f"trustcompute {' '.join(names)}: {result.output}"
        known = set(re.findall(r"--[a-z-]+", result.output))
        assert options - known == set(), f"trustcompute {' '.join(names)} has no such options"


def test_the_command_is_installed() -> None:
    program = Path(sys.executable).with_name("trustcompute")
    if not program.exists():
        pytest.skip("trustcompute is on the path and not installed")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == trustcompute.__version__


def test_benchmark_commands_parse() -> None:
    from benchmarks.__main__ import _parser

    for page, words in shown("python") + shown("python3"):
        if words[:2] == ["-m", "benchmarks"] and "--help" not in words:
            options = _parser().parse_args(words[2:])
            assert options.layer, page


def _leading_names(words: list[str]) -> Iterator[str]:
    """Subcommands come first; what follows is their arguments, which ``--help`` ignores."""
    for word in words:
        if not re.fullmatch(r"[a-z][a-z-]*", word):
            return
        yield word
