"""The rule tc-key/1 as its page tells it, in plain Python; its vectors; and the library beside both."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import tables
from trustcompute.tables import KeyColumn, KeySpec, Kind

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "normalisation.md"

TAGS = {
    "text": 1,
    "integer": 2,
    "binary": 3,
    "date": 4,
    "timestamp": 5,
    "timestamp_utc": 6,
    "boolean": 7,
    "decimal": 8,
}
TRIMMED = {0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0x200B, 0x2060, 0xFEFF}
TRIMMED |= set(range(0x09, 0x0E)) | set(range(0x2000, 0x200B))


def plain_text(value: str, casefold: bool) -> bytes | None:
    text = unicodedata.normalize("NFKC", value)
    if casefold:
        text = unicodedata.normalize("NFKC", text.casefold())
    while text and ord(text[0]) in TRIMMED:
        text = text[1:]
    while text and ord(text[-1]) in TRIMMED:
        text = text[:-1]
    return text.encode() or None


def plain_decimal(value: str) -> bytes:
    sign, digits, exponent = Decimal(value).as_tuple()
    number = int("".join(map(str, digits)))
    if number == 0:
        return b"0E0"
    while number % 10 == 0:
        number, exponent = number // 10, exponent + 1
    return f"{'-' if sign else ''}{number}E{exponent}".encode()


def plain_value(value, kind: str, casefold: bool = False) -> bytes | None:
    """The canonical bytes of a value as the page's vectors write it."""
    if value is None or kind == "null":
        return None
    if kind == "text":
        return plain_text(value, casefold)
    if kind == "binary":
        return bytes.fromhex(value) or None
    if kind == "boolean":
        return bytes([value])
    if kind == "decimal":
        return plain_decimal(value)
    return int(value).to_bytes(8, "little", signed=True)


def plain_digest(columns: list[dict], values: list) -> str | None:
    spec = json.dumps({"columns": columns, "version": "tc-key/1"}, sort_keys=True, separators=(",", ":"))
    message = b"tc-key/1" + bytes(24) + hashlib.sha256(spec.encode()).digest()
    for column, value in zip(columns, values, strict=True):
        cell = plain_value(value, **column)
        if cell is None:
            return None
        message += bytes([TAGS[column["kind"]]]) + len(cell).to_bytes(4, "little") + cell
    return hashlib.sha256(message).hexdigest()


ARROW = {
    "text": pa.string(),
    "integer": pa.int64(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamp_utc": pa.timestamp("us", "UTC"),
    "boolean": pa.bool_(),
    "decimal": pa.decimal128(38, 6),
    "null": pa.null(),
}


def arrow_column(values: list, kind: str) -> pa.Array:
    if kind == "binary":
        values = [None if value is None else bytes.fromhex(value) for value in values]
    if kind == "decimal":
        values = [None if value is None else Decimal(value) for value in values]
    if kind == "date":
        return pa.array(values, pa.int32()).cast(ARROW[kind])
    return pa.array(values, ARROW[kind])


def library_digests(columns: list[dict], rows: list[list]) -> list[str | None]:
    """Per row, the digest that ``keys`` gives it."""
    names = [f"c{number}" for number in range(len(columns))]
    table = pa.table(
        [arrow_column([row[i] for row in rows], column["kind"]) for i, column in enumerate(columns)], names
    )
    folded = [name for name, column in zip(names, columns, strict=True) if column["casefold"]]
    found = tables.keys(table, names, casefold=folded)
    return [None if code < 0 else found.digests[code].tobytes().hex() for code in found.codes]


def vectors() -> list[dict]:
    return json.loads(PAGE.read_text().split("```json\n")[1].split("```")[0])


@pytest.mark.vectors
def test_the_page_has_vectors_of_every_kind():
    kinds = {column["kind"] for vector in vectors() for column in vector["columns"]}
    assert kinds == set(TAGS) | {"null"}
    assert any(vector["digest"] is None for vector in vectors())


@pytest.mark.vectors
@pytest.mark.parametrize("vector", vectors(), ids=lambda v: json.dumps(v["values"])[:40])
def test_vectors(vector):
    assert plain_digest(vector["columns"], vector["values"]) == vector["digest"]
    assert library_digests(vector["columns"], [vector["values"]]) == [vector["digest"]]


@pytest.mark.vectors
def test_vectors_of_one_key_in_other_spellings_agree():
    """Pairs the page puts side by side are the same key; everything else differs."""
    digests = [vector["digest"] for vector in vectors() if vector["digest"]]
    assert len(digests) - len(set(digests)) == 5


SPICE = st.sampled_from(
    "aAbZ09 \t\n\x00\x1c\x85\xa0\u2003\u200b\u200d\u2060\ufeff\u3000"
    "éßİıſΣς１ＡﬁＦ²½ﷺ가각ᄀ\u0301\u0345\u0323\U0001f600\U00010400"
)
TEXT = st.one_of(
    st.text(SPICE, max_size=6),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=6),
    st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=4),
)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "text": TEXT,
    "integer": st.one_of(st.integers(-3, 3), INT64),
    "binary": st.binary(max_size=4).map(bytes.hex),
    "date": st.integers(-(2**31), 2**31 - 1),
    "timestamp": INT64,
    "timestamp_utc": INT64,
    "boolean": st.booleans(),
    "decimal": st.integers(-(10**30), 10**30).map(lambda n: f"{n}E-6"),
    "null": st.none(),
}


@st.composite
def random_tables(draw) -> tuple[list[dict], list[list]]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3))
    columns = [{"casefold": kind == "text" and draw(st.booleans()), "kind": kind} for kind in kinds]
    row = st.tuples(*(st.one_of(st.none(), VALUES[kind], VALUES[kind]) for kind in kinds)).map(list)
    return columns, draw(st.lists(row, max_size=12))


@pytest.mark.property
@settings(max_examples=150, deadline=None)
@given(random_tables())
def test_keys_agree_with_the_rule_in_plain_python(table):
    columns, rows = table
    wanted = [plain_digest(columns, row) for row in rows]
    assert library_digests(columns, rows) == wanted

    names = [f"c{number}" for number in range(len(columns))]
    arrow = pa.table([arrow_column([r[i] for r in rows], c["kind"]) for i, c in enumerate(columns)], names)
    folded = [name for name, column in zip(names, columns, strict=True) if column["casefold"]]
    found = tables.keys(arrow, names, casefold=folded)
    distinct = sorted({digest for digest in wanted if digest})
    assert [row.tobytes().hex() for row in found.digests] == distinct
    assert found.nulls == wanted.count(None)
    assert found.duplicates == len(rows) - found.nulls - len(distinct)
    assert found.first_rows.tolist() == [wanted.index(digest) for digest in distinct]
    mask = np.arange(len(distinct)) % 2 == 0
    assert found.rows_of(mask).tolist() == [i for i, d in enumerate(wanted) if d in distinct[::2]]


def test_every_assigned_character_normalises_and_folds_as_python_says():
    """One row a character; those Python does not know yet may differ with the release, as the page says."""
    unassigned = {"Cn", "Cs"}
    points = [p for p in range(0x110000) if unicodedata.category(chr(p)) not in unassigned]
    values = [f"a{chr(p)}b" for p in points]
    for casefold in (False, True):
        found = tables.keys({"c": values}, "c", casefold=casefold)
        by_text: dict[bytes, int] = {}
        for row, value in enumerate(values):
            by_text.setdefault(plain_text(value, casefold) or b"", row)
        assert len(found) == len(by_text)
        assert sorted(found.first_rows.tolist()) == sorted(by_text.values())


@pytest.mark.vectors
def test_the_spec_and_its_digest_on_the_page():
    spec = KeySpec("tc-key/1", (KeyColumn(Kind.TEXT), KeyColumn(Kind.DATE)))
    assert f"    {spec.to_json()}\n" in PAGE.read_text()
    assert f"`{spec.digest}`" in PAGE.read_text()


@pytest.mark.vectors
def test_the_schema_hash_on_the_page():
    schema = pa.schema(
        {"credit_code": pa.string(), "revenue": pa.float64(), "tags": pa.list_(pa.large_string())}
    )
    assert f"`{tables.schema_hash(schema)}`" in PAGE.read_text()
