"""The kernels of set intersection from VOLE: what they mean, and that every implementation gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trustcompute import kernels
from trustcompute.errors import ParameterError
from trustcompute.kernels import OkvsFailure, OkvsShape
from trustcompute.kernels.arrays import MAX_CELLS, tree_depth, tree_level
from trustcompute.kernels.dispatch import Implementation
from trustcompute.kernels.reference import gf128

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEY, KEYS = bytes(range(16)), bytes(range(32))
U8 = NDArray[np.uint8]


def noise(seed: int, count: int, width: int = 16) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)


def hexed(text: str) -> U8:
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, 16)


# AES


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("key", "plain", "cipher"),
    [
        # FIPS 197, Appendix B and Appendix C.1
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3243f6a8885a308d313198a2e0370734",
            "3925841d02dc09fbdc118597196a0b32",
        ),
        (
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "69c4e0d86a7b0430d8cdb78070b4c55a",
        ),
    ],
)
def test_aes_of_the_standard(implementation: Implementation, key: str, plain: str, cipher: str) -> None:
    hashed = implementation.aes128_hash(bytes.fromhex(key), hexed(plain))
    assert (hashed ^ hexed(plain)).tobytes().hex() == cipher


def test_counter_mode_of_another_implementation(implementation: Implementation) -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    keys = noise(1, 3)
    blocks = b"".join(i.to_bytes(16, "little") for i in range(300))
    expected = [
        Cipher(algorithms.AES128(key.tobytes()), modes.ECB()).encryptor().update(blocks) for key in keys
    ]
    assert [row.tobytes() for row in implementation.aes128_ctr(keys, 300)] == expected


def test_a_hash_chains_its_blocks(implementation: Implementation) -> None:
    rows = noise(2, 40, 48)
    state = np.zeros((40, 16), np.uint8)
    for start in (0, 16, 32):
        state = implementation.aes128_hash(KEY, np.ascontiguousarray(state ^ rows[:, start : start + 16]))
    assert np.array_equal(implementation.aes128_hash(KEY, rows), state)


@pytest.mark.property
@few
@given(st.integers(0, 300), st.integers(1, 3), st.integers(0, 2**32))
def test_aes_agrees(
    compiled: Implementation, reference: Implementation, count: int, blocks: int, seed: int
) -> None:
    rows = noise(seed, count, 16 * blocks)
    key = noise(seed + 1, 1).tobytes()
    assert np.array_equal(compiled.aes128_hash(key, rows), reference.aes128_hash(key, rows))
    keys = noise(seed, count % 4)
    assert np.array_equal(compiled.aes128_ctr(keys, count), reference.aes128_ctr(keys, count))


def test_every_block_under_a_key_of_its_own(implementation: Implementation) -> None:
    keys, rows = noise(3, 9), noise(4, 9)
    one_by_one = [
        implementation.aes128_hash(k.tobytes(), r.reshape(1, 16)) for k, r in zip(keys, rows, strict=True)
    ]
    assert np.array_equal(implementation.aes128_davies_meyer(keys, rows), np.concatenate(one_by_one))


@pytest.mark.property
@few
@given(st.integers(0, 40), st.integers(0, 2**32))
def test_davies_meyer_agrees(
    compiled: Implementation, reference: Implementation, count: int, seed: int
) -> None:
    arguments = noise(seed, count), noise(seed + 1, count)
    assert np.array_equal(compiled.aes128_davies_meyer(*arguments), reference.aes128_davies_meyer(*arguments))


# GF(2^128)

EDGES = [0, 1, 2, 0x87, 1 << 63, 1 << 64, 1 << 127, (1 << 128) - 1, (1 << 128) - 2, 0x87 << 120]
elements = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**128 - 1))


def rows_of(values: list[int]) -> U8:
    return np.frombuffer(b"".join(v.to_bytes(16, "little") for v in values), np.uint8).reshape(
        len(values), 16
    )


@pytest.mark.property
@few
@given(st.lists(st.tuples(elements, elements), max_size=9))
def test_products_agree(
    compiled: Implementation, reference: Implementation, pairs: list[tuple[int, int]]
) -> None:
    a, b = rows_of([x for x, _ in pairs]), rows_of([y for _, y in pairs])
    assert np.array_equal(compiled.gf128_mul(a, b), reference.gf128_mul(a, b))
    assert np.array_equal(compiled.gf128_mul(a, b[:1]), reference.gf128_mul(a, b[:1])) or not pairs


@pytest.mark.property
@few
@given(st.lists(st.tuples(elements, elements), max_size=9))
def test_a_dot_product_is_the_sum_of_products(
    compiled: Implementation, reference: Implementation, pairs: list[tuple[int, int]]
) -> None:
    a, b = rows_of([x for x, _ in pairs]), rows_of([y for _, y in pairs])
    total = np.bitwise_xor.reduce(reference.gf128_mul(a, b), axis=0, initial=0).reshape(1, 16)
    assert np.array_equal(reference.gf128_dot(a, b), total)
    assert np.array_equal(compiled.gf128_dot(a, b), total)


def test_the_field_is_the_one_that_is_named(implementation: Implementation) -> None:
    def times(a: int, b: int) -> int:
        return gf128.integer(implementation.gf128_mul(rows_of([a]), rows_of([b]))[0])

    assert times(1 << 127, 2) == 0x87  # x¹²⁸ = x⁷ + x² + x + 1
    a, b, c = 0x0123456789ABCDEF0F1E2D3C4B5A6978, (1 << 127) | 5, 0xFEDCBA98
    assert times(a, b) == times(b, a)
    assert times(times(a, b), c) == times(a, times(b, c))
    assert times(a, b ^ c) == times(a, b) ^ times(a, c)
    assert times(a, gf128.invert(a)) == 1


# The key-value store


def encoded(implementation: Implementation, hashes: U8, values: U8, shape: OkvsShape) -> U8:
    return implementation.okvs_encode(hashes, values, KEY, shape, range(shape.bins))


@pytest.mark.parametrize("bins", [1, 3])
def test_a_store_decodes_every_key_to_its_value(implementation: Implementation, bins: int) -> None:
    shape = OkvsShape(bins, 120, 3, 80)
    hashes, values = noise(3, 60 * bins), noise(4, 60 * bins)
    table = encoded(implementation, hashes, values, shape)
    assert table.shape == (shape.cells, 16)
    assert np.array_equal(implementation.okvs_decode(hashes, table, KEY, shape), values)
    parts = [
        implementation.okvs_encode(hashes, values, KEY, shape, range(bin_, bin_ + 1)) for bin_ in range(bins)
    ]
    assert np.array_equal(np.concatenate(parts), table)


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments).tobytes()
    except OkvsFailure as error:
        return error.index


@pytest.mark.property
@few
@given(
    st.integers(0, 90),
    st.builds(OkvsShape, st.integers(1, 3), st.integers(3, 100), st.integers(0, 5), st.just(50)),
    st.integers(0, 2**32),
)
@example(30, OkvsShape(1, 100, 3, 50), 0)
def test_stores_agree_also_where_they_cannot_be_encoded(  # the elimination is at work in most of these
    compiled: Implementation, reference: Implementation, keys: int, shape: OkvsShape, seed: int
) -> None:
    hashes, values = noise(seed, keys), noise(seed + 1, keys)
    one, other = (outcome(encoded, i, hashes, values, shape) for i in (compiled, reference))
    assert one == other
    table = noise(seed + 2, shape.cells)
    one, other = (i.okvs_decode(hashes, table, KEY, shape) for i in (compiled, reference))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("keys", [16, 18])
def test_dense_cells_take_up_what_sparse_ones_cannot(implementation: Implementation, keys: int) -> None:
    """More keys than sparse cells: only the dense ones make the equations solvable."""
    shape = OkvsShape(1, 17, 8, 50)
    hashes, values = noise(6, keys), noise(7, keys)
    table = encoded(implementation, hashes, values, shape)
    assert np.array_equal(implementation.okvs_decode(hashes, table, KEY, shape), values)


def test_a_store_with_more_keys_than_cells_or_than_it_was_made_for_is_refused(
    implementation: Implementation,
) -> None:
    with pytest.raises(OkvsFailure, match="bin 0 ") as caught:
        encoded(implementation, noise(8, 21), noise(9, 21), OkvsShape(1, 17, 3, 50))
    assert caught.value.index == 0
    with pytest.raises(OkvsFailure):
        encoded(implementation, noise(8, 11), noise(9, 11), OkvsShape(1, 60, 3, 10))
    with pytest.raises(OkvsFailure):
        same = noise(8, 1).repeat(2, axis=0)
        encoded(implementation, same, noise(9, 2), OkvsShape(1, 60, 3, 10))


# Trees


def known_to_a_receiver(sums: U8, points: NDArray[np.int64], depth: int) -> U8:
    """Of each tree and level the sum of the side that the way to the point does not take."""
    path = points[:, None] >> np.arange(depth - 1, -1, -1) & 1
    sides = sums.reshape(len(points), depth, 2, 16)
    return np.where(path[:, :, None] == 1, sides[:, :, 0], sides[:, :, 1]).reshape(-1, 16)


@pytest.mark.parametrize("leaves", [1, 2, 3, 5, 8, 21, 64, 129, 300])
def test_a_punctured_tree_has_all_leaves_but_one(implementation: Implementation, leaves: int) -> None:
    depth = tree_depth(leaves)
    points = np.array([0, leaves - 1, leaves // 2, leaves // 3], dtype=np.int64)
    whole, sums = implementation.pprf_expand(noise(10, 4), leaves, KEYS)
    assert sums.shape == (4 * depth * 2, 16)
    some, totals = implementation.pprf_puncture(
        known_to_a_receiver(sums, points, depth), points, leaves, KEYS
    )
    whole, some = whole.reshape(4, leaves, 16).copy(), some.reshape(4, leaves, 16)
    whole[np.arange(4), points] = 0
    assert np.array_equal(some, whole)
    assert np.array_equal(totals, np.bitwise_xor.reduce(whole, axis=1))
    assert len(np.unique(whole.reshape(-1, 16), axis=0)) >= 4 * leaves - 4


def test_a_tree_is_a_tree_of_the_hash(reference: Implementation) -> None:
    root = noise(11, 1)
    left, right = (reference.aes128_hash(KEYS[i : i + 16], root) for i in (0, 16))
    leaves, sums = reference.pprf_expand(root, 2, KEYS)
    assert np.array_equal(leaves, np.concatenate([left, right]))
    assert np.array_equal(sums, leaves)


@pytest.mark.property
@few
@given(st.integers(0, 4), st.integers(1, 400), st.integers(0, 2**32))
def test_trees_agree(
    compiled: Implementation, reference: Implementation, trees: int, leaves: int, seed: int
) -> None:
    roots, depth = noise(seed, trees), tree_depth(leaves)
    for one, other in zip(
        compiled.pprf_expand(roots, leaves, KEYS), reference.pprf_expand(roots, leaves, KEYS), strict=True
    ):
        assert np.array_equal(one, other)
    points = np.random.default_rng(seed).integers(0, leaves, trees)
    arguments = (noise(seed, trees * depth), points, leaves, KEYS)
    for one, other in zip(
        compiled.pprf_puncture(*arguments), reference.pprf_puncture(*arguments), strict=True
    ):
        assert np.array_equal(one, other)


def test_levels_have_the_nodes_above_some_leaf() -> None:
    assert [tree_level(5, level) for level in range(4)] == [1, 2, 3, 5]
    assert [tree_depth(leaves) for leaves in (1, 2, 3, 4, 5)] == [0, 1, 2, 2, 3]


# The code


@pytest.mark.property
@few
@given(st.integers(64, 700), st.integers(0, 2**32))
@example(2069, 1)
def test_codes_agree(compiled: Implementation, reference: Implementation, size: int, seed: int) -> None:
    vector = noise(seed, size)
    assert np.array_equal(compiled.code_convolve(vector, KEY), reference.code_convolve(vector, KEY))
    first = seed % size
    part = noise(seed + 1, min(40, size - first))
    one, other = (i.code_expand(vector, part, KEY, first) for i in (compiled, reference))
    assert np.array_equal(one, other)


def test_the_code_is_linear_and_every_part_of_it_is_used(implementation: Implementation) -> None:
    size = 300
    a, b, zero = noise(12, size), noise(13, size), np.zeros((size, 16), np.uint8)
    mixed = implementation.code_convolve(a, KEY)
    assert np.array_equal(
        mixed ^ implementation.code_convolve(b, KEY), implementation.code_convolve(a ^ b, KEY)
    )
    whole = implementation.code_expand(mixed, b, KEY, 0)
    assert np.array_equal(whole[200:], implementation.code_expand(mixed, b[200:], KEY, 200))
    assert np.array_equal(whole ^ implementation.code_expand(mixed, zero, KEY, 0), b)


def test_compressing_is_convolving_and_expanding_in_place(implementation: Implementation) -> None:
    vector = noise(14, 400)
    mixed = implementation.code_convolve(vector[200:], KEY)
    expected = implementation.code_expand(mixed, vector[:150], KEY, 0)
    outputs = implementation.code_compress(vector, 150, KEY)
    assert np.array_equal(outputs, expected)
    assert np.shares_memory(outputs, vector)


def test_a_single_error_spreads_over_everything(implementation: Implementation) -> None:
    """Also one in the last place: the second round carries it back to the start."""
    size = 1000
    for place in (0, 500, 999):
        error = np.zeros((size, 16), np.uint8)
        error[place, 0] = 1
        reached = implementation.code_convolve(error, KEY)[:, 0]
        assert 400 < reached.sum() < 600
        outputs = implementation.code_expand(
            implementation.code_convolve(error, KEY), np.zeros_like(error), KEY, 0
        )
        assert 400 < outputs[:, 0].sum() < 600


def test_an_output_has_21_entries_one_from_each_segment(implementation: Implementation) -> None:
    size, zero = 420, np.zeros((1, 16), np.uint8)
    numbered = np.zeros((size, 16), np.uint8)
    for segment in range(21):
        numbered[20 * segment : 20 * segment + 20, segment // 8] = 1 << segment % 8
    sums = implementation.code_expand(numbered, zero, KEY, 7)
    assert sums[0, :3].tobytes() == bytes([255, 255, 31])


# Matching


@pytest.mark.property
@few
@given(st.integers(1, 20), st.integers(0, 300), st.integers(0, 2**32))
def test_matches_agree(  # two values a byte: rows of few bytes repeat, and tables have equal rows
    compiled: Implementation, reference: Implementation, width: int, count: int, seed: int
) -> None:
    values, table = noise(seed, count, width) & 1, noise(seed + 1, 200, width) & 1
    found = compiled.match_rows(values, table, KEY)
    assert np.array_equal(found, reference.match_rows(values, table, KEY))
    assert np.array_equal(table[found[found >= 0]], values[found >= 0])


def test_a_row_is_found_where_it_is(implementation: Implementation) -> None:
    table = noise(1, 5000, 10)
    order = np.random.default_rng(2).permutation(5000)
    assert np.array_equal(implementation.match_rows(table[order], table, KEY), order)
    assert (implementation.match_rows(noise(3, 50, 10), table, KEY) == -1).all()
    assert implementation.match_rows(table[:0], table, KEY).shape == (0,)
    assert (implementation.match_rows(table[:3], table[:0], KEY) == -1).all()


@pytest.mark.property
@few
@given(st.integers(1, 20), st.integers(0, 300), st.sampled_from([1, 3, 255]), st.integers(0, 2**32))
def test_sorting_and_matching_what_is_sorted_agree(  # noqa: PLR0917
    compiled: Implementation, reference: Implementation, width: int, count: int, mask: int, seed: int
) -> None:
    rows = noise(seed, count, width) & mask
    one, other = compiled.sort_rows(rows), reference.sort_rows(rows)
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert np.array_equal(rows[one[0]], one[1])
    values = np.concatenate([noise(seed + 1, 60, width) & mask, rows[:20]])
    found = compiled.match_sorted(values, one[1])
    assert np.array_equal(found, reference.match_sorted(values, one[1]))
    assert np.array_equal(found >= 0, compiled.match_rows(values, rows, KEY) >= 0)


def test_many_rows_sort_and_are_found(implementation: Implementation) -> None:
    for rows in (
        noise(5, 30_000, 10),
        noise(5, 3000, 10) | np.uint8([255] * 8 + [0, 0]),
    ):  # spread, and one bucket
        order, ordered = implementation.sort_rows(rows)
        assert [row.tobytes() for row in ordered] == sorted(row.tobytes() for row in rows)
        assert np.array_equal(rows[order], ordered)
        found = implementation.match_sorted(rows, ordered)
        assert np.array_equal(ordered[found], rows)


def test_a_table_out_of_order_is_refused_whatever_is_looked_up(implementation: Implementation) -> None:
    _, table = implementation.sort_rows(noise(6, 50, 10))
    table[[20, 30]] = table[[30, 20]]
    with pytest.raises(kernels.NotSorted, match="row 21 ") as caught:
        implementation.match_sorted(table[:0], table)
    assert caught.value.index == 21


# Arguments

WRONG: dict[str, Callable[[], object]] = {
    "hash of half a block": lambda: kernels.aes128_hash(KEY, noise(1, 2, 24)),
    "hash of nothing": lambda: kernels.aes128_hash(KEY, noise(1, 2, 0)),
    "short key": lambda: kernels.aes128_hash(KEY[:15], noise(1, 2)),
    "negative blocks": lambda: kernels.aes128_ctr(noise(1, 1), -1),
    "unequal factors": lambda: kernels.gf128_mul(noise(1, 3), noise(1, 2)),
    "too many dense cells": lambda: kernels.okvs_decode(
        noise(1, 1), noise(1, 99), KEY, OkvsShape(1, 82, 17, 9)
    ),
    "too many cells": lambda: kernels.okvs_decode(
        noise(1, 1), noise(1, 1), KEY, OkvsShape(1, MAX_CELLS, 1, 9)
    ),
    "another store": lambda: kernels.okvs_decode(noise(1, 1), noise(1, 99), KEY, OkvsShape(1, 80, 3, 9)),
    "bins that are not": lambda: kernels.okvs_encode(
        noise(1, 1), noise(1, 1), KEY, OkvsShape(2, 80, 3, 9), range(1, 3)
    ),
    "values that are missing": lambda: kernels.okvs_encode(
        noise(1, 2), noise(1, 1), KEY, OkvsShape(2, 80, 3, 9), range(2)
    ),
    "a point outside": lambda: kernels.pprf_puncture(noise(1, 3), np.array([5]), 5, KEYS),
    "one key for two": lambda: kernels.pprf_expand(noise(1, 3), 5, KEY),
    "no leaves": lambda: kernels.pprf_expand(noise(1, 3), 0, KEYS),
    "widths that differ": lambda: kernels.match_rows(noise(1, 2, 9), noise(1, 2, 10), KEY),
    "rows of nothing": lambda: kernels.match_rows(noise(1, 2, 0), noise(1, 2, 0), KEY),
    "rows of no bytes": lambda: kernels.sort_rows(noise(1, 2, 0)),
    "tables that differ": lambda: kernels.match_sorted(noise(1, 2, 9), noise(1, 2, 10)),
    "a key for two": lambda: kernels.aes128_davies_meyer(noise(1, 1), noise(1, 2)),
    "a dot of two lengths": lambda: kernels.gf128_dot(noise(1, 1), noise(1, 2)),
    "a short code": lambda: kernels.code_convolve(noise(1, 63), KEY),
    "halves that are none": lambda: kernels.code_compress(noise(1, 201), 3, KEY),
    "outputs past a half": lambda: kernels.code_compress(noise(1, 200), 101, KEY),
    "a vector that is not its own": lambda: kernels.code_compress(noise(1, 400)[::2], 3, KEY),
    "outputs past the end": lambda: kernels.code_expand(noise(1, 64), noise(1, 2), KEY, 63),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    with pytest.raises(ParameterError):
        WRONG[what]()


def test_the_extension_checks_lengths_itself() -> None:
    native: Any = pytest.importorskip("trustcompute.kernels._native")
    out, rows = np.zeros((3, 16), np.uint8), noise(1, 3)
    for call in (
        lambda: native.aes128_ctr(0, rows, 2, out),
        lambda: native.aes128_ctr(0, rows, -1, out),
        lambda: native.aes128_hash(0, KEY, rows, 15, out),
        lambda: native.aes128_hash(0, KEY, rows[:2], 16, out),
        lambda: native.gf128_mul(0, rows, rows[:2], out),
        lambda: native.okvs_encode(0, rows, rows, KEY, 1, 2, 1, 5, 0, 1, out),
        lambda: native.okvs_encode(0, rows, rows, KEY, 1, 3, 1, 5, 0, 2, out),
        lambda: native.okvs_encode(0, rows, rows[:2], KEY, 1, 3, 0, 5, 0, 1, out),
        lambda: native.okvs_decode(0, rows, rows, KEY, 1, 3, 1, out),
        lambda: native.okvs_decode(0, rows, rows, KEY, 1, 70000, 1, out),
        lambda: native.pprf_expand(0, rows, 2, KEYS, out, out),
        lambda: native.pprf_expand(0, rows, 0, KEYS, out, out),
        lambda: native.pprf_puncture(0, rows, np.arange(3), 2, KEYS, out, out),
        lambda: native.match_rows(rows, rows, 16, KEY, np.zeros(2, np.int64)),
        lambda: native.match_rows(rows, rows, 0, KEY, np.zeros(3, np.int64)),
        lambda: native.sort_rows(rows, 15, np.zeros(3, np.int64), out),
        lambda: native.sort_rows(rows, 16, np.zeros(2, np.int64), out),
        lambda: native.match_sorted(rows, rows, 16, np.zeros(2, np.int64)),
        lambda: native.match_sorted(rows, rows, 0, np.zeros(3, np.int64)),
        lambda: native.aes128_davies_meyer(0, rows[:2], rows, out),
        lambda: native.gf128_dot(0, rows, rows, out),
        lambda: native.code_convolve(0, KEY, out),
        lambda: native.code_expand(0, noise(1, 64), rows, KEY, 62, out),
        lambda: native.code_expand(0, noise(1, 64), rows, KEY, -1, out),
    ):
        with pytest.raises(ValueError, match="do not fit together"):
            call()


def test_reports_can_be_written_of_what_is_in_use() -> None:
    assert json.dumps(kernels.active().features)
