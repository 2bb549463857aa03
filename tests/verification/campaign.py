"""Random tables through every mode, against a plain look: ``python tests/verification/campaign.py --tables 1000``.

Tables of 0, 1 and odd sizes, with duplicate keys that agree and that do not, nulls in keys and elements; every key is
asked about, and absent ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))

from scene import (
    answers_of,
    batch_parties,
    bucket_parties,
    built,
    download_parties,
    play,
    private_parties,
)

from trustcompute.verification import question

MODES = (bucket_parties, private_parties, batch_parties, download_parties)
SIZES = (0, 1, 2, 3, 7, 31, 64, 101, 257)


def run_one(seed: int) -> int:
    """One random table; returns how many answers were right. Raises ``AssertionError`` at the first that is not."""
    rng = np.random.default_rng(seed)
    size = SIZES[seed % len(SIZES)]
    ids = [f"k{i}" if rng.random() > 0.05 else None for i in rng.integers(0, max(1, size), size)]
    values = [int(v) if rng.random() > 0.1 else None for v in rng.integers(0, 4, size)]
    held = pa.table({"id": pa.array(ids, pa.string()), "v": pa.array(values, pa.int64())})
    rows: dict[str, list[int | None]] = {}
    for key, value in zip(ids, values, strict=True):
        if key is not None:
            rows.setdefault(key, []).append(value)
    asked = [*rows, "absent", *(f"x{i}" for i in range(int(rng.integers(0, 4))))]
    predicate = ("v >= 2", "match(v)", "present", "v in (1, 3)")[seed // len(SIZES) % 4]
    brought = [int(v) for v in rng.integers(0, 4, len(asked))]
    expected = [_expected(predicate, rows.get(key), value) for key, value in zip(asked, brought, strict=True)]
    made = built(held, predicate, least_in_bucket=int(rng.integers(1, 8)))
    own = question.asked(made.descriptor, {"id": asked, "v": brought})
    for parties in MODES:
        result, _, _ = play(*parties(made, own.questions))
        assert not isinstance(result, Exception), result
        found = [answer.text for answer in own.spread(answers_of(result))]
        assert found == expected, (seed, parties.__name__)
    return len(expected)


def _expected(predicate: str, values: list[int | None] | None, brought: int) -> str:
    if values is None:
        return "no record"
    tests = {
        "present": lambda v: True,
        "v >= 2": lambda v: v is not None and v >= 2,
        "v in (1, 3)": lambda v: v in (1, 3),
        "match(v)": lambda v: v == brought,
    }
    return "match" if all(map(tests[predicate], values)) else "mismatch"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    answers = sum(run_one(seed) for seed in range(options.first, options.first + options.tables))
    print(
        f"{options.tables} tables, {len(MODES) * answers} answers, none wrong, {time.monotonic() - started:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
