from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import airlines as several
import world as worlds

from trustcompute.node import client


@pytest.fixture
def world(tmp_path):
    made = worlds.World(tmp_path)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Sessions try again at once."""
    monkeypatch.setattr(client, "RETRY_SECONDS", (0, 0))


@pytest.fixture
def airlines(tmp_path):
    made = several.Airlines(tmp_path)
    yield made
    for name in list(made.nodes):
        made.stop(name)
