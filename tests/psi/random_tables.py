"""Random pairs of tables with a known plain join. Used by the tests, and by hand for long runs:

python tests/psi/random_tables.py --pairs 1000 --largest 3000 [--over node] [--protocol psi.vole.v1]
"""

from __future__ import annotations

import argparse
import random
import sys
import unicodedata
from dataclasses import dataclass

import pyarrow as pa

KINDS = ("text", "integer", "unicode", "date")


@dataclass
class Pair:
    """Two tables, their key columns, and what a plain join says."""

    left: pa.Table
    right: pa.Table
    on: dict[str, str]
    left_rows: list[int]
    right_rows: list[int]
    count: int


def random_pair(seed: int, largest: int) -> Pair:
    """Sizes 0 to ``largest``, log-uniform; 1 to 3 key columns; duplicates, nulls and blanks; half the keys shared."""
    rng = random.Random(seed)
    kinds = [rng.choice(KINDS) for _ in range(rng.randint(1, 3))]
    sizes = [_log_uniform(rng, largest), _log_uniform(rng, largest)]
    space = max(1, int(max(sizes) * rng.choice([0.3, 1, 3])))
    left, right = (_rows(rng, kinds, size, space) for size in sizes)
    left_names = [f"l{i}" for i in range(len(kinds))]
    right_names = [f"r{i}" for i in range(len(kinds))]
    left_keys, right_keys = [_key(row) for row in left], [_key(row) for row in right]
    shared = (set(left_keys) & set(right_keys)) - {None}
    return Pair(
        _table(rng, kinds, left_names, left),
        _table(rng, kinds, right_names, right),
        dict(zip(left_names, right_names, strict=True)),
        [index for index, key in enumerate(left_keys) if key in shared],
        [index for index, key in enumerate(right_keys) if key in shared],
        len(shared),
    )


def _log_uniform(rng, largest):
    return int((largest + 2) ** rng.random()) - 1


def _rows(rng, kinds, size, space):
    return [tuple(_value(rng, kind, space) for kind in kinds) for _ in range(size)]


def _value(rng, kind, space):
    if rng.random() < 0.03:
        return None
    number = rng.randrange(space)
    if kind == "text":
        return rng.choice(["", " ", f"N{number}"]) if rng.random() < 0.03 else f"N{number}"
    if kind == "unicode":
        text = f"é{number}号"
        return rng.choice(
            [text, unicodedata.normalize("NFD", text), f" {text}\t", f"é{number}号".replace("1", "１")]
        )
    return number - space // 2 if kind == "integer" else number


def _key(row):
    """What a plain join compares, after the normalisation of the key specification."""
    normal = []
    for value in row:
        text = unicodedata.normalize("NFKC", value).strip() if isinstance(value, str) else value
        if text is None or text == "":
            return None
        normal.append(text)
    return tuple(normal)


def _table(rng, kinds, names, rows):
    columns = {}
    for index, (kind, name) in enumerate(zip(kinds, names, strict=True)):
        values = [row[index] for row in rows]
        types = {"integer": [pa.int64(), pa.int32()], "date": [pa.date32()]}.get(
            kind, [pa.string(), pa.large_string()]
        )
        columns[name] = pa.chunked_array([values[:7], values[7:]], type=rng.choice(types))
    table = pa.table(columns)
    return table.append_column("row", pa.array(range(table.num_rows), pa.int64()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--largest", type=int, default=3000)
    parser.add_argument("--over", choices=["process", "node"], default="process")
    parser.add_argument("--protocol", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    over = in_process if arguments.over == "process" else over_nodes
    intersect = over(arguments.protocol)
    rows = 0
    for seed in range(arguments.seed, arguments.seed + arguments.pairs):
        pair = random_pair(seed, arguments.largest)
        rows += pair.left.num_rows + pair.right.num_rows
        found = intersect(pair)
        if (found.count, found.left_rows.tolist()) != (pair.count, pair.left_rows):
            sys.exit(f"seed {seed}: the intersection is not the plain join")
        if sys.stderr.isatty():
            print(f"\r{seed - arguments.seed + 1} of {arguments.pairs}", end="", file=sys.stderr)
    where = f"{arguments.protocol} over {arguments.over}"
    print(f"{arguments.pairs} pairs with {rows} rows, {where}: all equal to the plain join")


def in_process(protocol: str):
    from trustcompute import psi

    return lambda pair: psi.intersect(pair.left, pair.right, on=pair.on, protocol=protocol)


def over_nodes(protocol: str):
    """Each pair over a node of its own, mutual TLS and a session, with a broker that counts."""
    import tempfile
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "node"))
    import pair_over_node

    directory = tempfile.TemporaryDirectory()
    return lambda pair: pair_over_node.intersect(pair, Path(directory.name), protocol=protocol)


if __name__ == "__main__":
    main()
