"""Writes the reference of commands from the commands themselves, so that it cannot differ from them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

PAGE = "reference/cli.md"
MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    if page.file.src_uri != PAGE:
        return markdown
    if MARKER not in markdown:
        raise ValueError(f"docs/{PAGE} has no line {MARKER}")
    return markdown.replace(MARKER, commands())


def commands() -> str:
    """Every command's help in Markdown, one heading lower than Typer writes it."""
    docs = ["trustcompute.cli.commands", "utils", "docs", "--name", "trustcompute"]
    done = subprocess.run(
        [sys.executable, "-m", "typer", *docs],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"the commands cannot describe themselves: {done.stderr.strip()}")
    _, _, body = done.stdout.partition("## `")
    return re.sub(r"^#", "##", "## `" + body, flags=re.MULTILINE) if body else done.stdout
