"""Record-linkage sets in FEBRL's form, intersected on several keys and compared with DuckDB's joins.

    PYTHONPATH=src python tests/psi/campaign_febrl.py                              # made here
    PYTHONPATH=src python tests/psi/campaign_febrl.py --files dataset4a.csv dataset4b.csv   # FEBRL's own

What is made here is not FEBRL's data. It has the form of its fourth set (Christen, "Febrl: a freely available record
linkage system with a graphical user interface", HDKM 2008; ``dsgen``): 5,000 records in one file, one altered
duplicate of each in the other, the same eleven text fields, and typing errors of the same kinds: a character
inserted, left out, replaced or swapped with its neighbour, a value lost, a word moved, at most two in a field. Matching
is exact after ``tc-key/1``; how many duplicates an exact key still finds is what such sets are for.
"""

from __future__ import annotations

import argparse
import random
import string
import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from trustcompute import psi

FIELDS = [
    "rec_id",
    "given_name",
    "surname",
    "street_number",
    "address_1",
    "address_2",
    "suburb",
    "postcode",
    "state",
    "date_of_birth",
    "soc_sec_id",
]
KEYS = [
    ["soc_sec_id"],
    ["given_name", "surname", "date_of_birth"],
    ["surname", "suburb", "postcode", "state"],
    ["street_number", "address_1", "postcode"],
]
STATES = ["nsw", "vic", "qld", "wa", "sa", "tas", "act", "nt"]
SYLLABLES = [
    "ma",
    "ri",
    "el",
    "jo",
    "tan",
    "sha",
    "lee",
    "bro",
    "kyn",
    "dal",
    "wes",
    "ton",
    "ver",
    "gar",
    "ash",
]
LOST = 0.05  # of the values of an original; dsgen's tables give 1 to 20 % by field
ALTERED = 0.2  # of the fields of a duplicate, each by one or two errors


def word(chance: random.Random, least: int = 2) -> str:
    return "".join(chance.choice(SYLLABLES) for _ in range(chance.randint(least, 3)))


def original(number: int, chance: random.Random) -> dict[str, str | None]:
    """One person: names from a small stock, so that some share them."""
    values: dict[str, str | None] = {
        "given_name": word(chance, 1),
        "surname": word(chance),
        "street_number": str(chance.randint(1, 400)),
        "address_1": f"{word(chance)} {chance.choice(['street', 'place', 'crescent', 'court'])}",
        "address_2": word(chance) if chance.random() < 0.6 else None,
        "suburb": word(chance),
        "postcode": f"{chance.randint(800, 7999):04d}",
        "state": chance.choice(STATES),
        "date_of_birth": f"{chance.randint(1900, 1999)}{chance.randint(1, 12):02d}{chance.randint(1, 28):02d}",
        "soc_sec_id": f"{chance.randrange(10**7):07d}",
    }
    for name in values:
        if chance.random() < LOST:
            values[name] = None
    return {"rec_id": f"rec-{number}-org", **values}


def duplicate(record: dict[str, str | None], chance: random.Random) -> dict[str, str | None]:
    found = dict(record)
    found["rec_id"] = str(record["rec_id"]).replace("org", "dup-0")
    for name in FIELDS[1:]:
        if chance.random() < ALTERED:
            for _ in range(chance.randint(1, 2)):
                found[name] = altered(found[name], chance)
    return found


def altered(value: str | None, chance: random.Random) -> str | None:
    """One typing error."""
    if not value:
        return value
    at = chance.randrange(len(value))
    letter = chance.choice(string.digits if value[at].isdigit() else string.ascii_lowercase)
    kinds = [
        value[:at] + letter + value[at:],
        value[:at] + value[at + 1 :],
        value[:at] + letter + value[at + 1 :],
        value[:at] + value[at + 1 : at + 2] + value[at : at + 1] + value[at + 2 :],
        " ".join(reversed(value.split())),
        f" {value} ",
    ]
    return chance.choice([*kinds, None]) if chance.random() < 0.5 else chance.choice(kinds[:4])


def make(folder: Path, records: int, seed: int) -> tuple[Path, Path]:
    """Both files: originals, and their duplicates in another order."""
    chance = random.Random(seed)
    originals = [original(number, chance) for number in range(records)]
    duplicates = [duplicate(record, chance) for record in originals]
    chance.shuffle(duplicates)
    paths = folder / "a.csv", folder / "b.csv"
    for path, rows in zip(paths, (originals, duplicates), strict=True):
        pyarrow.csv.write_csv(pa.table({name: [row[name] for row in rows] for name in FIELDS}), path)
    return paths


def compare(left: Path, right: Path, key: list[str], out: Path) -> int:
    """Rows of the left file that match on a key, in memory and from files. Raises where DuckDB's join has others."""
    found = psi.intersect(left, right, on=key)
    written = psi.intersect_files(left, right, on=key, out=out)
    names = ", ".join(f"nullif(trim({name}), '') AS {name}" for name in key)
    same = " AND ".join(f"l.{name} = r.{name}" for name in key)
    joined = duckdb.sql(
        f"SELECT l.at FROM (SELECT file_row_number AS at, {names} FROM read_parquet('{left}', file_row_number=true)) l "
        f"SEMI JOIN (SELECT {names} FROM '{right}') r ON {same} ORDER BY l.at"
    ).fetchnumpy()["at"]
    assert found.left_rows is not None
    assert found.left_rows.tolist() == joined.tolist()
    assert written.rows == len(joined)
    return len(joined)


def as_text(path: Path, folder: Path) -> Path:
    """A Parquet copy, all text; FEBRL's own files have a blank after each comma, in the first line too."""
    names = [name.strip() for name in path.read_text(encoding="utf-8").partition("\n")[0].split(",")]
    names = [name.strip('"') for name in names]
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
        ),
    )
    copy = folder / f"{path.stem}.parquet"
    pq.write_table(table, copy)
    return copy


def campaign(left: Path, right: Path, folder: Path) -> dict[str, int]:
    """Every key; how many rows each finds."""
    sides = [as_text(path, folder) for path in (left, right)]
    return {" + ".join(key): compare(*sides, key, folder / "out.csv") for key in KEYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=Path, nargs=2, help="FEBRL's files, in place of made ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trustcompute-febrl-") as name:
        folder = Path(name)
        left, right = options.files or make(folder, options.records, options.seed)
        for key, rows in campaign(left, right, folder).items():
            print(f"{key}: {rows:,} rows match, the same as DuckDB's join")


if __name__ == "__main__":
    main()
