"""A log of many charged jobs, written as tiles without a broker: what an audit is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from trustcompute.broker import log, tiles
from trustcompute.primitives import checkpoint
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey
from trustcompute.primitives.merkle import Tree, leaf_hash
from trustcompute.primitives.signing import SigningKey

GRANTS = 100
KEY = SigningKey.from_seed(bytes(32))
NAME = NoteKey("node.example/trustcompute", KEY.public)


def write(folder: Path, entries: int) -> None:
    """As many entries, all but the first 102 of charged jobs."""
    tree = Tree()
    stored = []
    for index, body in enumerate(_bodies(entries)):
        tree.append(leaf_hash(body))
        stored.append(log.StoredEntry(index, tree.leaf(index), body))
    tiles.write(folder, stored, tree, checkpoint.sign(Checkpoint(NAME.name, len(tree), tree.root()), KEY))


def _bodies(entries: int) -> Iterator[bytes]:
    yield log.encode("log.opened", 0, {"origin": NAME.name, "key": KEY.thumbprint})
    yield log.encode("asset.registered", 0, {"asset": "companies", "limits": {}})
    grants = [_digest(f"grant {n}") for n in range(GRANTS)]
    for grant in grants:
        terms = {"kind": "per_use", "currency": "CNY", "per_call": "100", "per_row": "1/3"}
        split = [{"party": "a" * 43, "share": "2/3"}, {"party": "fund", "share": "1/3"}]
        limits = {"calls": {"total": 10**9, "per_day": 10**9}}
        yield log.encode(
            "grant.issued", 0, {"grant": grant, "limits": limits, "price": terms, "split": split}
        )
    for n in range(entries - GRANTS - 2):
        yield log.encode("job.posted", n // 1000, _charge(n, grants[n % GRANTS]))


def _charge(n: int, grant: str) -> dict[str, object]:
    return {
        "job": f"{n:032x}",
        "request": _digest(f"request {n}"),
        "grant": grant,
        "asker": "a" * 43,
        "recipient": "a" * 43,
        "payer": "a" * 43,
        "operation": "benchmark.count.v1",
        "dataset": "companies",
        "purpose": "benchmark",
        "run": 0,
        "turn": 1,
        "frames": _digest(f"frames {n}"),
        "transcript": _digest(f"transcript {n}"),
        "accounts": [f"grant:{grant}", "dataset:companies"],
        "usage": {"calls": 1, "rows": n % 1000},
        "window": n // 1000 // 86400,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
