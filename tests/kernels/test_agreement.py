"""The compiled kernels, with and without instruction sets, give what the reference gives: on any input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trustcompute.errors import KernelError
from trustcompute.kernels import FixedColumn, InvalidPoint, InvalidScalar, VariableColumn
from trustcompute.kernels.arrays import Column
from trustcompute.kernels.dispatch import Implementation
from trustcompute.kernels.reference import curve

pytestmark = pytest.mark.property

ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
EDGES = [
    0,
    1,
    2,
    7,
    8,
    9,
    15,
    16,
    ORDER // 2,
    ORDER - 2,
    ORDER - 1,
    ORDER,
    ORDER + 1,
    2 * ORDER,
    8 * ORDER - 1,
]
EDGES += [2**252, 2**253 - 1, 2**255 - 1, 2**255, 2**256 - 1, int("8" * 63, 16), int("7" * 63, 16)]
ENCODINGS = [bytes(32), curve.GENERATOR, bytes([1]) + bytes(31), P.to_bytes(32, "little"), b"\xff" * 32]
ENCODINGS += [(P - 1).to_bytes(32, "little"), (2**255 + 2).to_bytes(32, "little")]


def rows(values: list[bytes], width: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), width)


def element(seed: bytes) -> bytes:
    return curve.encode(curve.from_uniform(seed))


scalar_bytes = st.one_of(
    st.sampled_from([edge.to_bytes(32, "little") for edge in EDGES]), st.binary(min_size=32, max_size=32)
)
elements = st.one_of(st.just(bytes(32)), st.binary(min_size=64, max_size=64).map(element))
anything = st.one_of(elements, st.sampled_from(ENCODINGS), st.binary(min_size=32, max_size=32))
messages = st.integers(0, 300).flatmap(
    lambda width: st.lists(st.binary(min_size=width, max_size=width), max_size=3).map(
        lambda m: rows(m, width)
    )
)
tags = st.binary(min_size=1, max_size=255)
fields = st.one_of(
    st.sampled_from(
        [v.to_bytes(32, "little") for v in (0, 1, 18, 19, P - 1, P, P + 1, 2**255 - 1, 2**256 - 1)]
    ),
    st.binary(min_size=32, max_size=32),
)
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(few, max_examples=80)


def scalars(count: int) -> st.SearchStrategy[NDArray[np.uint8]]:
    return st.lists(scalar_bytes, min_size=count, max_size=count).map(lambda values: rows(values, 32))


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """The bytes that come out, or the error with the row it names."""
    try:
        result = call(*arguments)
    except (InvalidPoint, InvalidScalar) as error:
        return type(error), error.index, str(error)
    except KernelError as error:
        raise AssertionError("kernels raise nothing else") from error
    return (
        None if result is None else (result.shape, result.dtype, result.flags.c_contiguous, result.tobytes())
    )


def agree(one: Implementation, other: Implementation, name: str, *arguments: Any) -> None:
    assert outcome(getattr(one, name), *arguments) == outcome(getattr(other, name), *arguments)


@few
@given(st.data())
def test_multiplication(compiled: Implementation, reference: Implementation, data: st.DataObject) -> None:
    points = rows(data.draw(st.lists(anything, max_size=4)), 32)
    factors = data.draw(scalars(len(points)))
    agree(compiled, reference, "ristretto255_mul", points, factors)
    agree(compiled, reference, "ristretto255_mul", points, data.draw(scalars(1)))
    agree(compiled, reference, "ristretto255_multiscalar_vartime", points, factors)
    agree(compiled, reference, "ristretto255_mul_base", factors)


@few
@given(st.data())
def test_unblinding(compiled: Implementation, reference: Implementation, data: st.DataObject) -> None:
    points = rows(data.draw(st.lists(anything, max_size=4)), 32)
    base = rows([data.draw(elements)], 32)
    agree(compiled, reference, "ristretto255_unblind", points, base, data.draw(scalars(len(points))))


@many
@given(st.lists(anything, max_size=11))
def test_decoding(compiled: Implementation, reference: Implementation, encodings: list[bytes]) -> None:
    agree(compiled, reference, "ristretto255_check", rows(encodings, 32))


@many
@given(st.lists(st.tuples(fields, fields).map(b"".join), max_size=3))
def test_one_way_map(compiled: Implementation, reference: Implementation, uniform: list[bytes]) -> None:
    agree(compiled, reference, "ristretto255_from_uniform", rows(uniform, 64))


@few
@given(messages, tags, st.data())
def test_hash_to_group(
    compiled: Implementation, reference: Implementation, texts: Any, dst: bytes, data: st.DataObject
) -> None:
    agree(compiled, reference, "ristretto255_hash", texts, dst)
    agree(compiled, reference, "ristretto255_hash_mul", texts, dst, data.draw(scalars(len(texts))))
    agree(compiled, reference, "ristretto255_hash_blind", texts, dst, data.draw(scalars(len(texts))))
    factor = data.draw(scalars(1))
    fused = compiled.ristretto255_hash_mul(texts, dst, factor)
    assert np.array_equal(fused, compiled.ristretto255_mul(compiled.ristretto255_hash(texts, dst), factor))


@many
@given(st.data())
def test_scalars(compiled: Implementation, reference: Implementation, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 4))
    a, b = data.draw(scalars(count)), data.draw(scalars(count))
    agree(compiled, reference, "scalar255_mul", a, b)
    agree(compiled, reference, "scalar255_sub", a, b)
    agree(compiled, reference, "scalar255_invert", a)
    agree(compiled, reference, "scalar255_reduce", np.concatenate([a, b], axis=1))


@many
@given(messages, tags, st.integers(1, 400))
def test_expand_message(
    compiled: Implementation, reference: Implementation, texts: Any, dst: bytes, length: int
) -> None:
    agree(compiled, reference, "expand_message_xmd", texts, dst, length)


@many
@given(messages, st.data())
def test_finalize(
    compiled: Implementation, reference: Implementation, texts: Any, data: st.DataObject
) -> None:
    agree(compiled, reference, "oprf_finalize", texts, data.draw(scalars(len(texts))))


# Around one and two blocks of SHA-256 less the padding, and around the longest row gathered in one piece.
sizes = st.one_of(st.integers(0, 70), st.integers(110, 130), st.integers(980, 1030), st.just(3000))


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, list[Column]]:
    count = draw(st.integers(0, 5))
    columns: list[Column] = []
    for _ in range(draw(st.integers(1, 3))):
        tag = draw(st.integers(0, 255))
        if draw(st.booleans()):
            width = draw(sizes)
            columns.append(FixedColumn(tag, noise(count * width).reshape(count, width)))
        else:
            widths = draw(st.lists(sizes, min_size=count, max_size=count))
            start = draw(st.integers(0, 3))  # as in a slice of an Arrow array
            offsets = np.cumsum([start, *widths], dtype=np.int64)
            columns.append(VariableColumn(tag, offsets, noise(int(offsets[-1]) + draw(st.integers(0, 3)))))
    return count, columns


def noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8)


@many
@given(st.integers(0, 200), tables())
def test_digests(
    compiled: Implementation, reference: Implementation, prefix: int, table: tuple[int, list[Column]]
) -> None:
    agree(compiled, reference, "digest_columns", bytes(range(prefix)), *table)


def test_batches_larger_than_any_inner_one(compiled: Implementation, reference: Implementation) -> None:
    count = 131  # two inner batches of 64 and an odd rest
    texts, factors = noise(20 * count).reshape(count, 20), noise(32 * count).reshape(count, 32)
    points = reference.ristretto255_hash(texts, b"batches")
    assert np.array_equal(compiled.ristretto255_hash(texts, b"batches"), points)
    assert np.array_equal(
        compiled.ristretto255_mul(points, factors), reference.ristretto255_mul(points, factors)
    )
    assert np.array_equal(compiled.ristretto255_mul_base(factors), reference.ristretto255_mul_base(factors))
    assert np.array_equal(
        compiled.ristretto255_hash_blind(texts, b"batches", factors),
        reference.ristretto255_hash_blind(texts, b"batches", factors),
    )
    assert np.array_equal(
        compiled.ristretto255_unblind(points, points[:1], factors),
        reference.ristretto255_unblind(points, points[:1], factors),
    )
    assert np.array_equal(compiled.scalar255_invert(factors), reference.scalar255_invert(factors))
    columns = [FixedColumn(1, texts)]
    assert np.array_equal(
        compiled.digest_columns(b"", count, columns), reference.digest_columns(b"", count, columns)
    )


@pytest.mark.parametrize("count", range(1, 18))
def test_every_rest_of_a_batch(compiled: Implementation, reference: Implementation, count: int) -> None:
    """Lanes that are filled up neither show in the results nor hide the row at fault."""
    scalar = noise(32).reshape(1, 32)
    texts = noise(9 * count).reshape(count, 9)
    points = compiled.ristretto255_hash(texts, b"rest")
    assert np.array_equal(points, reference.ristretto255_hash(texts, b"rest"))
    products = compiled.ristretto255_mul(points, scalar)
    assert np.array_equal(products, reference.ristretto255_mul(points, scalar))
    for row in range(count):
        spoilt = points.copy()
        spoilt[row:] = 255
        agree(compiled, reference, "ristretto255_check", spoilt)
        agree(compiled, reference, "ristretto255_mul", spoilt[row:], scalar)


@pytest.mark.parametrize("scalar", EDGES)
def test_every_edge_in_every_lane(compiled: Implementation, reference: Implementation, scalar: int) -> None:
    points = rows(
        [curve.GENERATOR, bytes(32), element(bytes(64)), element(bytes(range(64))), curve.GENERATOR], 32
    )
    factors = rows([scalar.to_bytes(32, "little")] * 5, 32)
    agree(compiled, reference, "ristretto255_mul", points, factors[:1])
    agree(compiled, reference, "ristretto255_mul", points, factors)
    agree(compiled, reference, "ristretto255_mul_base", factors)
    agree(compiled, reference, "ristretto255_hash_blind", points, b"edges", factors)
    agree(compiled, reference, "ristretto255_unblind", points, points[2:3], factors)


def test_unblinding_takes_off_what_blinding_added(implementation: Implementation) -> None:
    count = 5
    texts, blinds = noise(20 * count).reshape(count, 20), noise(32 * count).reshape(count, 32)
    secret, two = noise(32).reshape(1, 32), rows([(2).to_bytes(32, "little")], 32)
    twice = implementation.scalar255_mul(secret, two)
    blinded = implementation.ristretto255_hash_blind(texts, b"both ways", blinds)
    evaluated = implementation.ristretto255_mul(blinded, secret)
    base = implementation.ristretto255_mul_base(twice)
    expected = implementation.ristretto255_hash_mul(
        texts, b"both ways", implementation.scalar255_mul(twice, two)
    )
    assert np.array_equal(implementation.ristretto255_unblind(evaluated, base, blinds), expected)


def test_multiscalar_over_several_parts(compiled: Implementation) -> None:
    count = 2100  # parts of 1024
    points = compiled.ristretto255_hash(noise(8 * count).reshape(count, 8), b"parts")
    factors = noise(32 * count).reshape(count, 32)
    ones = np.zeros_like(factors)
    ones[:, 0] = 1
    products = compiled.ristretto255_mul(points, factors)
    assert np.array_equal(
        compiled.ristretto255_multiscalar_vartime(points, factors),
        compiled.ristretto255_multiscalar_vartime(products, ones),
    )
    points[2050] = 255
    with pytest.raises(InvalidPoint, match="row 2050 "):
        compiled.ristretto255_multiscalar_vartime(points, factors)


def test_encodings_of_small_multiples_whose_products_vanish(compiled: Implementation) -> None:
    """Products that are the identity go through the batched encoder beside products that are not."""
    base = np.frombuffer(curve.GENERATOR, np.uint8)
    points = np.stack([base, np.zeros(32, np.uint8), base, base])
    factors = rows([v.to_bytes(32, "little") for v in (ORDER, 5, 1, 0)], 32)
    products = compiled.ristretto255_mul(points, factors)
    assert not products[[0, 1, 3]].any()
    assert np.array_equal(products[2], base)


@few
@given(st.lists(st.tuples(anything, elements), max_size=4))
def test_differences(
    compiled: Implementation, reference: Implementation, pairs: list[tuple[bytes, bytes]]
) -> None:
    a, b = rows([x for x, _ in pairs], 32), rows([y for _, y in pairs], 32)
    for one, other in ((a, b), (b, a), (a, a)):
        agree(compiled, reference, "ristretto255_sub", one, other)


def test_a_difference_and_what_was_taken_off_are_the_whole(implementation: Implementation) -> None:
    seeds = [bytes([n]) * 64 for n in range(6)]
    a, b = rows([element(s) for s in seeds[:3]], 32), rows([element(s) for s in seeds[3:]], 32)
    difference = implementation.ristretto255_sub(a, b)
    one = np.zeros((2, 32), np.uint8)
    one[:, 0] = 1
    for d, y, x in zip(difference, b, a, strict=True):
        total = implementation.ristretto255_multiscalar_vartime(np.stack([d, y]), one)
        assert total.tobytes() == x.tobytes()
