"""Private set intersection between two processes on one machine, over loopback.

Every system is timed over the same thing, in the consumer's process: read its keys from a CSV file, run the
protocol, and (``intersect``) write the matched keys to another. The provider reads its own CSV within that
time too. Libraries are loaded and connections made before the clock starts. Both sides hold ``rows`` distinct
keys of 18 characters; half of them are shared. ``lookup`` is one key against ``rows``; ``files`` is
``intersect`` for files of any size, whose keys lie on disk; ``parquet`` is ``intersect`` from Parquet to Parquet, for
systems that know it; ``workers`` is the same with both parties of a bucket in one worker, one or two of them;
``protocol`` begins and ends with digests in memory; ``labels`` brings a column of 64 bytes a key, and asks with a
hundredth of the keys; ``sum`` is the sum of a column of the provider's (Parquet) over shared keys; ``star`` is a
consumer and two nodes in the provider's process, with keys of which a quarter is everywhere. A wrong result fails the
run.
"""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.layers.layer import Layer
from benchmarks.peers import openmined, spu
from benchmarks.system import write_keys
from benchmarks.systems import trustcompute_psi

PIECE = 2**16
ASKED = 100  # one in so many keys, where labels are asked for
STRIDE = 0x9E3779B97F4A7C15 % 2**59 | 1


def prepare(folder: Path, task: str, rows: int) -> int:
    shared = rows // 2
    if task == "labels":
        return _prepare_labels(folder, rows, rows // ASKED)
    if task in ("files", "workers"):
        _prepare_files(folder, rows, shared)
        return shared
    numbers = random.Random(rows).sample(range(10**18), 2 * rows - shared)
    keys = [f"{number:018d}" for number in numbers]
    write_keys(folder / "consumer.csv", keys[:rows])
    theirs = sorted(keys[rows - shared :])
    write_keys(folder / "provider.csv", theirs)
    if task == "parquet":
        for role in ("consumer", "provider"):
            write_parquet(folder / f"{role}.csv", folder / f"{role}.parquet")
    if task == "sum":
        _prepare_sums(folder, theirs, set(keys[:rows]))
    if task == "lookup":
        write_keys(folder / "consumer.csv", keys[rows - 1 : rows])
        return 1
    if task == "star":
        write_keys(folder / "second.csv", keys[rows - shared // 2 : 2 * rows - shared // 2])
        return shared // 2
    return shared


def write_parquet(source: Path, target: Path) -> None:
    """The same keys as text columns of a Parquet file."""
    options = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(source, convert_options=options), target)


def _prepare_labels(folder: Path, rows: int, asked: int) -> int:
    """Half of the keys that are asked for are there."""
    keys = [f"{number * STRIDE % 2**59:018d}" for number in range(rows + asked)]
    write_keys(folder / "consumer.csv", keys[rows - asked // 2 : rows - asked // 2 + asked])
    with (folder / "provider.csv").open("w", encoding="ascii") as out:
        out.write("id,label\n")
        out.writelines(f"{key},{label_of(key)}\n" for key in keys[:rows])
    return asked // 2


def label_of(key: str) -> str:
    """What the holder says of a key: 64 characters."""
    return (key * 4)[:64]


def _prepare_sums(folder: Path, keys: list[str], consumer: set[str]) -> None:
    """The provider's table with a whole number for each key, and what those of the shared keys add up to."""
    values = [place * STRIDE % 10**6 for place in range(len(keys))]
    pyarrow.parquet.write_table(pa.table({"id": keys, "value": values}), folder / "provider.parquet")
    total = sum(value for key, value in zip(keys, values, strict=True) if key in consumer)
    (folder / "sum.txt").write_text(str(total))


def _prepare_files(folder: Path, rows: int, shared: int) -> None:
    """The same in pieces: the i-th key is i times an odd number, modulo 2⁵⁹, which is a permutation."""
    for name, first in (("consumer.csv", 0), ("provider.csv", rows - shared)):
        with (folder / name).open("w", encoding="ascii") as out:
            out.write("id\n")
            for start in range(first, first + rows, PIECE):
                numbers = range(start, min(start + PIECE, first + rows))
                out.writelines(f"{number * STRIDE % 2**59:018d}\n" for number in numbers)


LAYER = Layer(
    name="psi",
    tasks={
        "intersect": (2**14, 2**17),
        "parquet": (2**20,),
        "files": (2**20,),
        "workers": (2**20,),
        "cardinality": (2**14,),
        "sum": (2**14,),
        "lookup": (2**14,),
        "labels": (2**17,),
        "protocol": (2**17,),
        "star": (2**18,),
    },
    roles=("provider", "consumer"),
    ours=trustcompute_psi.SYSTEM,
    peers=(openmined.SYSTEM, spu.SYSTEM),
    prepare=prepare,
)
