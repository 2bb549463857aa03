"""Two registers of one made-up population, with slips of the pen, intersected and compared with DuckDB's join.

    PYTHONPATH=src python tests/psi/campaign_population.py --rows 1000000

The registers resemble record-linkage sets (FEBRL's): given name, surname, date of birth and postcode; a tenth of the
rows repeat another; fields are missing; names have letters of many scripts, composed or not, and blanks around them. A
typing error in a key is another key: matching is exact after ``tc-key/1``, here as there.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import unicodedata
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from trustcompute import psi

GIVEN = ["José", "Zoë", "Łukasz", "Ngọc", "Αλέξης", "Юлия", "李", "محمد", "Anna", "Bjørn", "Siân", "한결"]
KEY = ["given", "surname", "born", "postcode"]


def person(number: int) -> tuple[str, str, str, str]:
    """The number-th person: no two are alike."""
    chance = random.Random(number)
    born = f"{chance.randint(1920, 2020)}-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}"
    return (
        GIVEN[number % len(GIVEN)],
        f"{GIVEN[number // 12 % 12]}sen {number}",
        born,
        f"{number % 9000 + 1000}",
    )


def register(path: Path, people: range, seed: int) -> None:
    """Everybody once, a tenth twice, in any order, with slips."""
    chance = random.Random(seed)
    numbers = [*people, *chance.sample(people, len(people) // 10)]
    chance.shuffle(numbers)
    rows = [slip(list(person(number)), chance) for number in numbers]
    columns = {name: [row[at] for row in rows] for at, name in enumerate(KEY)}
    pq.write_table(pa.table(columns | {"row": range(len(rows))}), path)


def slip(fields: list[str | None], chance: random.Random) -> list[str | None]:
    what, at = chance.randint(0, 19), chance.randrange(4)
    value = fields[at]
    assert value is not None
    if what == 0:
        fields[at] = None
    elif what == 1:
        fields[at] = value[:-1] + "x"
    elif what == 2:
        fields[at] = f"  {value} "
    elif what <= 5:
        fields[at] = unicodedata.normalize("NFD", value)
    return fields


def compare(folder: Path, rows: int, *, runs: int | None = None, protocol: str = "auto") -> tuple[int, float]:
    """Intersect two registers that share half their people; (rows matched, seconds). Raises where DuckDB differs."""
    left, right, out = folder / "left.parquet", folder / "right.parquet", folder / "matched.parquet"
    register(left, range(rows), 1)
    register(right, range(rows // 2, rows + rows // 2), 2)
    started = time.monotonic()
    found = psi.intersect_files(left, right, on=KEY, out=out, runs=runs, protocol=protocol)  # type: ignore[arg-type]
    seconds = time.monotonic() - started
    key = ", ".join(f"nfc_normalize(trim({name})) AS {name}" for name in KEY)
    same = " AND ".join(f"l.{name} = r.{name}" for name in KEY)
    joined = duckdb.sql(
        f"SELECT l.row FROM (SELECT row, {key} FROM '{left}') l "
        f"SEMI JOIN (SELECT {key} FROM '{right}') r ON {same} ORDER BY l.row"
    ).fetchnumpy()["row"]
    assert pq.read_table(out)["row"].to_numpy().tolist() == joined.tolist()
    assert found.rows == len(joined)
    return found.rows, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="trustcompute-population-") as folder:
        matched, seconds = compare(Path(folder), rows)
    print(f"{matched:,} rows of {rows + rows // 10:,} match, the same as DuckDB's join; {seconds:.1f} s")


if __name__ == "__main__":
    main()
