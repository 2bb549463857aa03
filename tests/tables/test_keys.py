"""Keys: from rows to distinct digests and back, against the peer's spec, on one thread or several."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.reduction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import tables
from trustcompute.errors import TableError
from trustcompute.tables import KeyColumn, KeySpec, Kind

NAMES = ["bo", "al", None, "bo", "  ", "cy", "al", "bo"]
TEXT = KeySpec("tc-key/1", (KeyColumn(Kind.TEXT),))


def test_the_way_back_to_rows():
    found = tables.keys({"name": NAMES}, "name")
    assert (found.rows, found.nulls, found.duplicates, len(found)) == (8, 2, 3, 3)
    assert [NAMES[row] for row in found.first_rows] == [NAMES[found.first_rows[c]] for c in (0, 1, 2)]
    assert sorted(NAMES[row] for row in found.first_rows) == ["al", "bo", "cy"]
    for code, first in enumerate(found.first_rows):
        mask = np.arange(3) == code
        wanted = [row for row, name in enumerate(NAMES) if name == NAMES[first]]
        assert found.rows_of(mask).tolist() == wanted
        rows, starts = found.groups()
        assert rows[starts[code] : starts[code + 1]].tolist() == wanted
    assert found.rows_of(np.ones(3, bool)).tolist() == [0, 1, 3, 5, 6, 7]
    assert found.rows_of(np.zeros(3, bool)).tolist() == []


def test_digests_ascend_and_do_not_depend_on_row_order():
    found = tables.keys({"name": NAMES}, "name")
    turned = tables.keys({"name": NAMES[::-1]}, "name")
    assert np.array_equal(found.digests, turned.digests)
    assert [d.tobytes() for d in found.digests] == sorted({d.tobytes() for d in found.digests})
    assert found.digests.dtype == np.uint8
    assert found.digests.flags.c_contiguous


@pytest.mark.parametrize("mask", [np.ones(2, bool), np.ones(3, int), np.ones((3, 1), bool), [True] * 4])
def test_a_mask_of_the_wrong_shape_is_refused(mask):
    with pytest.raises(TableError, match="a bool array with one element a distinct key, 3"):
        tables.keys({"name": NAMES}, "name").rows_of(mask)


def test_keys_cannot_be_changed_and_do_not_show_their_digests():
    found = tables.keys({"name": ["secret"]}, "name")
    for array in (found.digests, found.codes, found.first_rows):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert repr(found) == f"Keys(distinct=1, rows=1, nulls=0, duplicates=0, spec={TEXT.to_json()})"


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.sampled_from(["a", "B", " c", "é", "ＺＺ", "ß", " "])), max_size=20),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]),
    st.booleans(),
    st.data(),
)
def test_chunks_and_slices_do_not_matter(values, type_, casefold, data):
    whole = tables.keys({"k": values or pa.array([], pa.string())}, "k", casefold=casefold)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    array = pa.array(values, type_)
    pieces = [array[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(values)], strict=True)]
    found = tables.keys({"k": pa.chunked_array(pieces, type_)}, "k", casefold=casefold)
    assert np.array_equal(found.digests, whole.digests)
    assert np.array_equal(found.codes, whole.codes)


def test_more_rows_than_a_batch():
    count = 150_000
    numbers = np.random.default_rng(1).integers(0, 90_000, count)
    found = tables.keys(pa.table({"n": numbers}), "n")
    distinct, first, codes = np.unique(numbers, return_index=True, return_inverse=True)
    assert len(found) == len(distinct)
    assert sorted(found.first_rows.tolist()) == sorted(first.tolist())
    assert np.array_equal(numbers[found.first_rows][found.codes], numbers)
    assert found.duplicates == count - len(distinct)
    assert len(codes) == count


@pytest.mark.parametrize("casefold", [False, True])
@pytest.mark.parametrize("form", ["Id-{}", " Id-{}", "Ïd-{}", "Ｉd-{}"])
def test_text_beyond_the_first_batch(form, casefold):
    """The second batch is a slice whose offsets do not start at 0."""
    values = [form.format(number) for number in range(70_000)]
    found = tables.keys({"k": values}, "k", casefold=casefold)
    for row in (0, 65_535, 65_536, 69_999):
        alone = tables.keys({"k": [values[row]]}, "k", casefold=casefold)
        assert np.array_equal(found.digests[found.codes[row]], alone.digests[0])
    assert len(found) == 70_000


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_executor_changes_nothing(kind):
    values = [None if n % 7 == 0 else f"é{n % 90_000}" for n in range(140_000)]
    table = pa.table({"k": pa.array(values)})
    alone = tables.keys(table, "k")
    if kind == "threads":
        executor = concurrent.futures.ThreadPoolExecutor(2)
    else:
        context = multiprocessing.get_context("forkserver")
        executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
    with executor:
        shared = tables.keys(table, "k", executor=executor)
    assert np.array_equal(shared.digests, alone.digests)
    assert np.array_equal(shared.codes, alone.codes)
    assert np.array_equal(shared.first_rows, alone.first_rows)


def test_a_batch_sent_to_another_process_is_no_larger_than_its_rows():
    sizes = []

    class Recording(concurrent.futures.Executor):
        def submit(self, function, /, *arguments, **options):
            stream = multiprocessing.reduction.ForkingPickler.dumps(arguments)
            sizes.append(len(stream))
            future = concurrent.futures.Future()
            future.set_result(function(*multiprocessing.reduction.ForkingPickler.loads(stream)))
            return future

    values = [f"{number:020}" for number in range(200_000)]
    for column in (pa.array(values), pa.array(values[:1000] * 200).dictionary_encode()):
        found = tables.keys({"k": column}, "k", executor=Recording())
        assert np.array_equal(found.digests, tables.keys({"k": column}, "k").digests)
    assert max(sizes) < 65_536 * 26


def test_an_error_on_an_executor_names_the_first_row():
    values = np.arange(300_000, dtype=np.float64)
    values[[200_000, 290_000]] = 0.5
    with (
        concurrent.futures.ThreadPoolExecutor(2) as executor,
        pytest.raises(TableError, match="column 'k', row 200000 "),
    ):
        tables.keys({"k": values}, "k", executor=executor)


def test_casefold_by_column():
    table = {"a": ["X", "x"], "b": ["Y", "y"], "n": [1, 1]}
    assert len(tables.keys(table, ["a", "b", "n"])) == 2
    assert len(tables.keys(table, ["a", "b", "n"], casefold="a")) == 2
    assert len(tables.keys(table, ["a", "b", "n"], casefold=["a", "b"])) == 1
    both = tables.keys(table, ["a", "b", "n"], casefold=True)
    assert [column.casefold for column in both.spec.columns] == [True, True, False]
    assert len(both) == 1
    for wrong in ("n", "z", ["a", "n"]):
        with pytest.raises(TableError, match="no text column of the key"):
            tables.keys(table, ["a", "b", "n"], casefold=wrong)


def test_against_the_peers_spec():
    folded = KeySpec("tc-key/1", (KeyColumn(Kind.TEXT, casefold=True),))
    assert tables.keys({"id": ["A", "a"]}, "id", spec=folded).spec == folded
    assert len(tables.keys({"id": ["A", "a"]}, "id", spec=folded)) == 1
    with pytest.raises(TableError, match=r"'id' \(integer\) .* cast left column 'id' to text"):
        tables.keys({"id": [1]}, "id", spec=folded)
    with pytest.raises(TableError, match="the left key has 2 columns"):
        tables.keys({"id": ["a"], "b": ["c"]}, ["id", "b"], spec=folded)
    with pytest.raises(TableError, match="not both"):
        tables.keys({"id": ["a"]}, "id", spec=folded, casefold=True)


def test_a_column_without_a_type_takes_the_peers_kind():
    for kind in Kind:
        spec = KeySpec("tc-key/1", (KeyColumn(kind),))
        found = tables.keys({"id": [None, None]}, "id", spec=spec) if kind is not Kind.NULL else None
        if found is not None:
            assert found.spec == spec
            assert (found.nulls, len(found)) == (2, 0)


def test_the_spec_without_the_rows():
    table = {"id": ["a"], "n": [1.0], "d": pa.array([1], pa.date32())}
    for on in ("id", ["n", "d"], ["d", "id"]):
        assert tables.key_spec(table, on) == tables.keys(table, on).spec
    assert tables.key_spec(table, "id", casefold=True) == tables.keys(table, "id", casefold=True).spec


def test_equal_keys_meet_and_nothing_else_does():
    left = tables.keys({"id": ["Ａ1", "b ", None, "c"]}, "id")
    right = tables.keys(pa.table({"code": pa.array(["b", "A1", "", "d"], pa.large_string())}), "code")
    left.spec.check_matches(right.spec, ["id"], ["code"])
    theirs = {digest.tobytes() for digest in right.digests}
    mask = np.array([digest.tobytes() in theirs for digest in left.digests])
    assert left.rows_of(mask).tolist() == [0, 1]


def test_a_prepared_table_is_digested_once_and_serves_the_keys_it_was_prepared_for(monkeypatch):
    columns = {"id": ["a", "B", None, "a"], "n": [1, 2, 3, 4]}
    plain, table = tables.keys(columns, "id"), tables.prepared(columns, "id")
    folded = tables.keys(columns, "id", casefold=True)
    assert tables.keys(table, ["n"]).spec != plain.spec  # other columns: digested anew
    assert np.array_equal(tables.keys(table, "id", casefold=True).digests, folded.digests)
    assert np.array_equal(tables.keys(table, "id", spec=folded.spec).digests, folded.digests)
    assert tables.take(table, [1]).to_pydict() == {"id": ["B"], "n": [2]}
    monkeypatch.setattr("trustcompute.kernels.digest_columns", None)  # from here nothing can be digested
    for found in (tables.keys(table, "id"), tables.keys(tables.open_table(table), ["id"], spec=plain.spec)):
        assert np.array_equal(found.digests, plain.digests)
        assert found.codes.tolist() == plain.codes.tolist()


def test_a_prepared_stream_is_read_once_and_its_rows_are_kept():
    reader = pa.table({"id": ["x", "y"]}).to_reader()
    table = tables.prepared(reader, "id")
    assert len(tables.keys(table, "id")) == 2
    assert tables.take(table, [1]).to_pydict() == {"id": ["y"]}
