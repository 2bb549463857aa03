"""Every Arrow type as a key, and the traps on the way: the same key comes out, or an error that helps."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from trustcompute import tables
from trustcompute.errors import TableError
from trustcompute.tables import Kind

SECRET = "Zaphod"
STRING = pa.string()


def digests(column: object, **options: object) -> list[bytes | None]:
    """Per row, the digest of a single-column key."""
    found = tables.keys({"k": column}, "k", **options)
    return [None if code < 0 else found.digests[code].tobytes() for code in found.codes]


def kind(column: pa.Array) -> Kind:
    return tables.key_spec({"k": column}, "k").columns[0].kind


def fault(column: object, **options: object) -> str:
    """The message of the TableError, which must not come with a cause that quotes the data."""
    with pytest.raises(TableError) as caught:
        tables.keys({"k": column}, "k", **options)
    shown = f"{caught.value} {caught.value.__cause__}"
    assert SECRET not in shown
    return str(caught.value)


def text_bytes(values: list[bytes], type_: pa.DataType = STRING) -> pa.Array:
    """A text array around bytes that nobody checked."""
    binary = pa.array(values, pa.large_binary() if type_ == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(type_, len(binary), binary.buffers())


WORDS = ["b", "a", None, "", "b", "Ünïcode", "x" * 40, " a "]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(WORDS, pa.large_string()),
        pa.array(WORDS, pa.string_view()),
        pa.array(WORDS).dictionary_encode(),
        pa.array(WORDS, pa.large_string()).dictionary_encode(),
        pa.DictionaryArray.from_arrays(
            pa.array([0, 1, 2, 3, 0, 4, 5, 6], pa.uint8()),
            pa.array(["b", "a", None, "", "Ünïcode", "x" * 40, " a "], pa.string_view()),
        ),
        pa.chunked_array([WORDS[:3], [], WORDS[3:]], pa.string()),
        pa.array(["skipped", *WORDS, "skipped"])[1:-1],
        pa.array(["skipped", *WORDS, "skipped"], pa.string_view())[1:-1],
        pa.array(["skipped", *WORDS, "skipped"]).dictionary_encode()[1:-1],
        pa.chunked_array([pa.array(["s", *WORDS[:4]])[1:], pa.array(["s", *WORDS[4:]])[1:]]),
        pa.compute.run_end_encode(pa.array(WORDS)),
        pa.compute.run_end_encode(pa.array(["s", *WORDS, "s"]))[1:-1],
        pd.Series(WORDS),
        pd.Series(WORDS, dtype=object),
        pd.Series(WORDS, dtype="category"),
        pl.Series(WORDS),
        pl.Series(WORDS, dtype=pl.Categorical),
        np.array(WORDS, dtype=object),
        WORDS,
    ],
    ids=lambda column: f"{type(column).__name__}-{getattr(column, 'type', getattr(column, 'dtype', ''))}",
)
def test_text_is_the_same_key_however_it_is_stored(column):
    found = digests(column)
    assert found == digests(pa.array(WORDS))
    assert [digest is None for digest in found] == [False, False, True, True, False, False, False, False]
    assert found[0] == found[4] != found[1] == found[7]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("９１１１", "9111"),
        ("ＡＢＣ", "ABC"),
        ("ﬁnance", "finance"),
        ("e\u0301", "é"),
        ("\ufeffid-1", "id-1"),
        ("id-1\u200b", "id-1"),
        ("\u2060id-1\u00a0\u3000", "id-1"),
        ("\tid-1\r\n", "id-1"),
        ("Å", "Å"),
        ("가", "가"),
    ],
)
def test_spellings_of_one_text(one, other):
    first, second = digests([one, other])
    assert first == second is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", "a"),
        ("id1", "id-1"),
        ("a b", "a  b"),
        ("a\u200bb", "ab"),
        ("a\u200cb", "ab"),
        ("\u200da", "a"),
        ("a\x00", "a"),
        ("\x1ca", "a"),
        ("é", "e"),
        ("00123", "123"),
        ("İ", "i"),
    ],
)
def test_different_texts_stay_different(one, other):
    first, second = digests([one, other])
    assert first != second
    assert None not in (first, second)


def test_case_folds_only_where_it_is_declared():
    values = ["Straße", "STRASSE", "strasse", "ΣΊΣΥΦΟΣ", "σίσυφος", "ＡＢ", "ab"]
    kept, folded = digests(values), digests(values, casefold=True)
    assert len(set(kept)) == 7
    assert folded[0] == folded[1] == folded[2]
    assert folded[3] == folded[4]
    assert folded[5] == folded[6]
    assert not set(folded) & set(kept)


def test_folding_keeps_rows_apart_when_their_lengths_change():
    values = ["ß", "", "ẞß", None, "ΐ", "plain", "İ"]
    each = [digests([value], casefold=True)[0] for value in values]
    assert digests(values, casefold=True) == each


@pytest.mark.parametrize("blank", ["", " ", "\t\r\n", "\u3000\u00a0", "\ufeff", "\u200b\u2060", None])
def test_blank_text_is_null(blank):
    found = tables.keys({"k": ["a", blank, "a"]}, "k")
    assert (found.nulls, found.duplicates, len(found)) == (1, 1, 1)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_bytes_that_are_not_utf8_are_refused_by_column_and_row(type_):
    values = [b"fine", SECRET.encode(), *[b"x"] * 70_000, b"\xff\xfe", b"y"]
    message = fault(text_bytes(values, type_))
    assert "'k', row 70002 " in message
    assert "UTF-8" in message
    assert "row 70002 " in fault(
        pa.chunked_array([pa.array(["a", "b"], type_), text_bytes(values[2:], type_)])
    )


@pytest.mark.parametrize("bad", [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
def test_every_kind_of_malformed_utf8_is_refused(bad):
    assert "row 1 " in fault(text_bytes([b"a", bad]))


def test_malformed_utf8_in_a_dictionary_names_the_row_that_uses_it():
    column = pa.DictionaryArray.from_arrays(pa.array([0, 0, 2, 1]), text_bytes([b"a", b"\xff", b"b"]))
    assert "row 3 " in fault(column)


def test_malformed_bytes_under_a_null_do_not_matter():
    clean = pa.array(["a", None, "é"])
    garbage = pa.array([b"a", b"\xff", "é".encode()])
    column = pa.Array.from_buffers(pa.string(), 3, [clean.buffers()[0], *garbage.buffers()[1:]])
    assert digests(column) == digests(clean)
    assert digests(column, casefold=True) == digests(clean, casefold=True)


def test_offsets_that_leave_their_buffer_are_refused():
    offsets = pa.py_buffer(np.array([0, 4, 2, 3], np.int32).tobytes())
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    assert "damaged" in fault(column)
    index = pa.py_buffer(bytes([0, 9]))
    dictionary = pa.DictionaryArray.from_buffers(
        pa.dictionary(pa.int8(), pa.string()), 2, [None, index], pa.array(["a", "b"])
    )
    assert "damaged" in fault(dictionary)


INTEGERS = [3, None, -1, 0, 127, 3]


@pytest.mark.parametrize(
    "column",
    [
        *(pa.array(INTEGERS, t) for t in (pa.int8(), pa.int16(), pa.int32())),
        pa.array(INTEGERS, pa.int64()).dictionary_encode(),
        pa.array([9, *INTEGERS], pa.int32())[1:],
        pa.array(INTEGERS, pa.float64()),
        pa.array(INTEGERS, pa.float32()),
        pa.array([np.float16(np.nan if v is None else v) for v in INTEGERS], pa.float16()),
        np.array([np.nan if v is None else v for v in INTEGERS]),
        pd.Series(INTEGERS),
        pd.Series(INTEGERS, dtype="Int64"),
        pd.Series(INTEGERS, dtype=object),
        pl.Series(INTEGERS),
        INTEGERS,
    ],
    ids=lambda column: f"{type(column).__name__}-{getattr(column, 'type', getattr(column, 'dtype', ''))}",
)
def test_integers_are_the_same_key_however_wide(column):
    assert digests(column) == digests(pa.array(INTEGERS, pa.int64()))


def test_unsigned_integers():
    values = [0, 255, None]
    for type_ in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()):
        assert digests(pa.array(values, type_)) == digests(pa.array(values, pa.int64()))
    assert digests(pa.array([2**63 - 1], pa.uint64())) == digests(pa.array([2**63 - 1], pa.int64()))
    message = fault(pa.array([1, None, 2**63, 2**64 - 1], pa.uint64()))
    assert "row 2 " in message
    assert "text or decimal" in message


def test_negative_zero_is_zero():
    assert digests(np.array([-0.0])) == digests([0])


@pytest.mark.parametrize(
    ("type_", "bits"), [(pa.float64(), 53), (pa.float32(), 24), (pa.float16(), 11)], ids=str
)
def test_floats_are_keys_only_while_they_are_exact(type_, bits):
    largest = 2**bits - 1
    column = pa.array([np.float64(largest), np.float64(-largest)]).cast(type_, safe=False)
    assert digests(column) == digests([largest, -largest])
    for bad in (2.0**bits, -(2.0**bits), 0.5, np.inf, -np.inf):
        message = fault(pa.array([1.0, np.nan, None, bad]).cast(type_, safe=False))
        assert "row 3 " in message
        assert "cast" in message
        assert "0.5" not in message


def test_what_stands_under_a_null_is_not_looked_at():
    validity = pa.array([1, None]).buffers()[0]
    for type_, garbage in (
        (pa.float64(), np.array([1.0, 0.5])),
        (pa.uint64(), np.array([1, 2**64 - 1], np.uint64)),
        (pa.timestamp("ns"), np.array([1000, 1], np.int64)),
        (pa.timestamp("s"), np.array([1, 2**62], np.int64)),
        (pa.date64(), np.array([86_400_000, 1], np.int64)),
    ):
        found = digests(pa.Array.from_buffers(type_, 2, [validity, pa.py_buffer(garbage.tobytes())]))
        assert found[0] is not None
        assert found[1] is None


BLOBS = [b"\x00\xff", None, b"ab", b"\xc3("]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(BLOBS, pa.large_binary()),
        pa.array(BLOBS, pa.binary_view()),
        pa.array(BLOBS, pa.binary(2)),
        pa.array([b"zz", *BLOBS], pa.binary(2))[1:],
        pa.array(BLOBS).dictionary_encode(),
        pd.Series(BLOBS),
        pl.Series(BLOBS),
        BLOBS,
    ],
    ids=lambda column: f"{type(column).__name__}-{getattr(column, 'type', getattr(column, 'dtype', ''))}",
)
def test_binary_is_the_same_key_however_it_is_stored(column):
    assert digests(column) == digests(pa.array(BLOBS))


def test_binary_without_nulls_and_without_bytes():
    assert digests(pa.array([b"ab", b"cd"], pa.binary(2))[1:]) == digests([b"cd"])
    assert digests(pa.array([b"", b"a"])) == [None, digests([b"a"])[0]]
    assert digests(pa.array([b"", b""], pa.binary(0))) == [None, None]


def test_uuids_are_binary():
    value = uuid.UUID(int=2**100 + 5)
    column = pa.array([value.bytes, None], pa.uuid())
    assert kind(column) is Kind.BINARY
    assert digests(column) == digests([value.bytes, None])


def test_binary_and_text_of_the_same_bytes_differ():
    assert digests(["ab"]) != digests([b"ab"])


def test_dates():
    dates = [datetime.date(2024, 1, 1), None, datetime.date(1969, 12, 31)]
    wanted = digests(pa.array(dates, pa.date32()))
    assert kind(pa.array(dates)) is Kind.DATE
    assert digests(pa.array(dates, pa.date64())) == wanted
    assert digests(pd.Series(dates, dtype=object)) == wanted
    assert digests(pl.Series(dates)) == wanted
    assert digests(np.array(["2024-01-01", "NaT", "1969-12-31"], "datetime64[D]")) == wanted
    message = fault(pa.array([0, 86_400_001], pa.int64()).view(pa.date64()))
    assert "row 1 " in message
    assert "86400001" not in message


def test_timestamps_in_any_unit():
    moment = datetime.datetime(1969, 12, 31, 23, 59, 58)
    wanted = digests(pa.array([moment, None], pa.timestamp("us")))
    for unit in ("s", "ms", "ns"):
        assert digests(pa.array([moment, None], pa.timestamp(unit))) == wanted
    assert digests(pd.Series([moment, pd.NaT])) == wanted
    assert digests(pl.Series([moment, None])) == wanted


def test_timestamps_too_fine_or_too_far():
    message = fault(pa.array([1_000, 1_001], pa.timestamp("ns")))
    assert "row 1 " in message
    assert "round" in message
    assert "row 0 " in fault(pa.array([2**62], pa.timestamp("s")))
    assert "row 0 " in fault(pa.array([-(2**63)], pa.timestamp("ms")))


def test_instants_and_wall_clock_times_are_different_kinds():
    moment = datetime.datetime(2024, 7, 1, 12, 0)
    local = pa.array([moment], pa.timestamp("us"))
    utc = pa.array([moment], pa.timestamp("us", "UTC"))
    assert (kind(local), kind(utc)) == (Kind.TIMESTAMP, Kind.TIMESTAMP_UTC)
    assert digests(local) != digests(utc)
    assert digests(utc.cast(pa.timestamp("ms", "Asia/Shanghai"))) == digests(utc)


def test_booleans():
    values = [True, None, False]
    wanted = digests(pa.array(values))
    assert digests(pa.array([False, *values])[1:]) == wanted
    assert digests(pd.Series(values, dtype="boolean")) == wanted
    assert digests(pl.Series(values)) == wanted
    assert wanted != digests([1, None, 0])


DECIMALS = [Decimal("12.50"), None, Decimal("-1200"), Decimal("0"), Decimal("0.05")]


@pytest.mark.parametrize(
    "type_",
    [
        pa.decimal32(8, 3),
        pa.decimal64(18, 2),
        pa.decimal128(38, 2),
        pa.decimal128(38, 20),
        pa.decimal256(76, 40),
    ],
    ids=str,
)
def test_decimals_of_any_precision_and_scale(type_):
    assert digests(pa.array(DECIMALS, type_)) == digests(pa.array(DECIMALS, pa.decimal128(10, 2)))
    assert digests(pa.array([Decimal(9), *DECIMALS], type_)[1:]) == digests(pa.array(DECIMALS, type_))


def test_decimals_with_a_negative_scale_and_of_full_width():
    assert digests(pa.array([Decimal("1200")], pa.decimal128(5, -2))) == digests([Decimal("1200.0")])
    widest = Decimal("9" * 38)
    first, second = digests(pa.array([widest, widest.copy_negate()], pa.decimal128(38, 0)))
    assert first != second
    assert [first] == digests(pa.array([widest], pa.decimal256(76, 10)))


def test_decimals_from_pandas_and_polars():
    wanted = digests(DECIMALS)
    assert digests(pd.Series(DECIMALS, dtype=object)) == wanted
    assert digests(pl.Series(DECIMALS, dtype=pl.Decimal(20, 2))) == wanted


def test_a_column_without_a_type_has_no_matchable_row():
    found = tables.keys({"k": pa.nulls(3), "l": ["a", "b", "c"]}, ["l", "k"])
    assert (len(found), found.nulls, found.codes.tolist()) == (0, 3, [-1, -1, -1])
    assert found.spec.columns[1].kind is Kind.NULL


@pytest.mark.parametrize("column", [[None, None], pa.array([None, None], pa.string()), [np.nan, np.nan]])
def test_all_null(column):
    assert digests(column) == [None, None]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([1], pa.duration("s")),
        pa.array([1], pa.time32("s")),
        pa.array([1], pa.time64("us")),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        pa.array([[1.0]], pa.list_(pa.float64(), 1)),
        pa.array(["{}"], pa.json_()),
    ],
    ids=lambda column: str(column.type),
)
def test_types_that_are_no_keys_are_refused_with_the_list_of_those_that_are(column):
    message = fault(column)
    assert "'k'" in message
    assert "allowed are strings, integers, binary, dates" in message


@pytest.mark.parametrize(
    "values",
    [
        [1, SECRET],
        [SECRET, 1],
        [SECRET, b"x"],
        [datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 5)],
        [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)],
        [True, 1],
        [object()],
        [2**70],
        [SECRET, ["x"]],
    ],
    ids=range(9),
)
def test_columns_of_mixed_objects_are_refused_wherever_they_come_from(values):
    for column in (values, np.array([*values, None], object)[:-1]):
        message = fault(column)
        assert "column 'k'" in message
        assert "cast it to one type" in message
    with pytest.raises(TableError, match="column 'k'") as caught:
        tables.keys(pd.DataFrame({"k": pd.Series(values, dtype=object)}), "k")
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


def test_missing_values_do_not_count_as_another_type():
    dates = [datetime.date(2020, 1, 1), pd.NaT, None]
    assert digests(pd.Series(dates, dtype=object))[1:] == [None, None]
    stamps = [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), pd.NaT, None]
    assert digests(pd.Series(stamps, dtype=object))[1:] == [None, None]
    assert digests(pd.Series(["a", np.nan, None, pd.NA], dtype=object))[1:] == [None] * 3


def test_objects_in_polars_are_not_read_as_addresses():
    objects = pl.Series("k", [object(), object()], dtype=pl.Object)
    assert "Python objects" in fault(objects)
    with pytest.raises(TableError, match="Python objects"):
        tables.keys(pl.DataFrame([objects]), "k")


def test_column_boundaries_count():
    found = tables.keys({"a": ["ab", "a", "abc", None], "b": ["c", "bc", None, "abc"]}, ["a", "b"])
    assert (len(found), found.nulls) == (2, 2)


def test_three_columns_of_three_kinds():
    table = {
        "name": ["Li", "Li", "Li", None, "Li"],
        "born": [datetime.date(2000, 1, d) for d in (1, 1, 2, 1, 1)],
        "code": [7, 7, 7, 7, None],
    }
    found = tables.keys(table, ["name", "born", "code"])
    assert found.codes.tolist() in ([0, 0, 1, -1, -1], [1, 1, 0, -1, -1])
    swapped = tables.keys(table, ["code", "born", "name"])
    assert not {d.tobytes() for d in found.digests} & {d.tobytes() for d in swapped.digests}
