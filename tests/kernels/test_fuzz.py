"""The fuzzer calls everything the extension has; a few thousand of its calls on the build that is here."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("trustcompute.kernels._native", reason="the extension is not built")
sys.path.insert(0, str(Path(__file__).parent))

import fuzz

CALLS = 3000


def test_it_knows_every_function_of_the_extension():
    assert fuzz.functions() == set(fuzz.FITTING)


def test_arguments_are_computed_on_or_refused_and_nothing_else_happens():
    seen = Counter(fuzz.once(seed) for seed in range(CALLS))
    for name in fuzz.FITTING:
        assert seen[name, False] > 5, f"{name} was given nothing it could compute on"
        assert seen[name, True] > 5 or name == "detect", f"{name} was given nothing to refuse"
