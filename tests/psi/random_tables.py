"""Random pairs of tables with a known plain join. Used by the tests, and by hand for long runs:

python tests/psi/random_tables.py --pairs 1000 --largest 3000 [--over node] [--protocol psi.vole.v1,psi.lookup.v1]

Modes: ``process`` (both parties here), ``node`` (mutual TLS, a node for each pair), ``joins`` (rows of both sides,
inner and left, with duplicates); without ``--protocol`` every protocol that can do the mode.
"""

from __future__ import annotations

import argparse
import random
import sys
import unicodedata
from dataclasses import dataclass

import pyarrow as pa

KINDS = ("text", "integer", "unicode", "date")
LOOKUP = "psi.lookup.v1"
BOTH = ("psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1")  # those that can tell both sides
MODES = dict.fromkeys(("process", "node"), (*BOTH, "psi.vole-malicious.v1", LOOKUP)) | {"joins": BOTH}


@dataclass
class Pair:
    """Two tables, their key columns, and what a plain join says."""

    left: pa.Table
    right: pa.Table
    on: dict[str, str]
    left_rows: list[int]
    right_rows: list[int]
    count: int
    joined: list[tuple[int, int]]  # rows with the same key, by left, then right


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
    places: dict[object, list[int]] = {}
    for index, key in enumerate(right_keys):
        places.setdefault(key, []).append(index)
    return Pair(
        _table(rng, kinds, left_names, left),
        _table(rng, kinds, right_names, right),
        dict(zip(left_names, right_names, strict=True)),
        [index for index, key in enumerate(left_keys) if key in shared],
        [index for index, key in enumerate(right_keys) if key in shared],
        len(shared),
        [(index, other) for index, key in enumerate(left_keys) if key in shared for other in places[key]],
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
    parser.add_argument("--over", choices=MODES, default="process")
    parser.add_argument("--protocol", help="one or more; all that can do it if left out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for protocol in (arguments.protocol or ",".join(MODES[arguments.over])).split(","):
        seeds = range(arguments.seed, arguments.seed + arguments.pairs)
        rows = compare(RUNNERS[arguments.over](protocol), seeds, arguments.largest)
        where = f"{protocol} over {arguments.over}"
        print(f"{arguments.pairs} pairs with {rows} rows, {where}: all equal to the plain join", flush=True)


def compare(differs, seeds: range, largest: int) -> int:
    """Run every pair; the rows of all. Exits naming the first seed whose result is not the plain join's."""
    rows = 0
    for seed in seeds:
        pair = random_pair(seed, largest)
        rows += pair.left.num_rows + pair.right.num_rows
        if differs(pair):
            sys.exit(f"seed {seed}: the intersection is not the plain join")
        if sys.stderr.isatty():
            print(f"\r{seed - seeds.start + 1} of {len(seeds)}", end="", file=sys.stderr)
    return rows


def in_process(protocol: str):
    """Whether a pair's result differs from its plain join."""
    from trustcompute import psi

    if protocol == LOOKUP:
        return lambda pair: looked_up(pair) != pair.left_rows

    def differs(pair: Pair) -> bool:
        found = psi.intersect(pair.left, pair.right, on=pair.on, protocol=protocol)
        return (found.count, found.left_rows.tolist()) != (pair.count, pair.left_rows)

    return differs


def looked_up(pair: Pair) -> list[int]:
    """The left rows whose key is in an evaluated table of the right ones, both parties in this process."""
    from trustcompute import tables
    from trustcompute.primitives.rng import Rng
    from trustcompute.protocol.operation import Sizes
    from trustcompute.protocol.run import run_local
    from trustcompute.protocol.transcript import Binding
    from trustcompute.psi import lookup
    from trustcompute.psi.table import evaluated

    ours, theirs = tables.keys(pair.left, list(pair.on)), tables.keys(pair.right, list(pair.on.values()))
    table = evaluated(theirs.digests, theirs.spec.digest, Rng.from_os(), None)
    sizes = Sizes(len(ours), len(theirs))
    asked = {"columns": list(pair.on.values()), "keys": theirs.spec.digest, "table": table.id}
    params = lookup.check(asked, sizes)
    run = run_local(
        lookup.consumer(params, sizes, ours.digests, None, Rng.from_os()),
        lookup.provider(params, sizes, table),
        Binding("", LOOKUP, params, "consumer", "provider"),
    )
    return ours.rows_of(run.consumer.found.mask).tolist()


def joined(protocol: str):
    """Whether an inner or a left join of a pair, rows with the same key multiplied, differs from the plain one."""
    from trustcompute import psi

    def differs(pair: Pair) -> bool:
        found = psi.intersect(pair.left, pair.right, on=pair.on, reveal="both", protocol=protocol)
        lonely = sorted(set(range(pair.left.num_rows)) - set(pair.left_rows))
        expected = {"inner": pair.joined, "left": sorted(pair.joined + [(row, -1) for row in lonely])}
        for how, rows in expected.items():
            table = found.join(how)
            right = table["row_right"].fill_null(-1).to_pylist()
            if list(zip(table["row"].to_pylist(), right, strict=True)) != rows:
                return True
        return found.right_rows.tolist() != pair.right_rows

    return differs


def over_nodes(protocol: str):
    """Each pair over a node of its own, mutual TLS and a session, with a broker that counts."""
    import tempfile
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "node"))
    import pair_over_node

    directory = tempfile.TemporaryDirectory()

    def differs(pair: Pair) -> bool:
        found = pair_over_node.intersect(pair, Path(directory.name), protocol=protocol)
        return (found.count, found.left_rows.tolist()) != (pair.count, pair.left_rows)

    return differs


RUNNERS = {"process": in_process, "node": over_nodes, "joins": joined}


if __name__ == "__main__":
    main()
