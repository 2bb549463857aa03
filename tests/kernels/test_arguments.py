"""What the kernels refuse before they compute, and that what is merely laid out differently is taken."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trustcompute import kernels
from trustcompute.errors import KernelError, ParameterError
from trustcompute.kernels import FixedColumn, InvalidScalar, VariableColumn

ONE = np.zeros((3, 32), np.uint8)
ONE[:, 0] = 1
POINTS = kernels.ristretto255_mul_base(ONE)
TEXTS = np.arange(60, dtype=np.uint8).reshape(3, 20)

WRONG: dict[str, Callable[[], Any]] = {
    "a list": lambda: kernels.ristretto255_mul([[0] * 32], ONE),  # type: ignore[arg-type]
    "another dtype": lambda: kernels.ristretto255_mul(POINTS.astype(np.int64), ONE),  # type: ignore[arg-type]
    "a flat array": lambda: kernels.ristretto255_mul(POINTS.reshape(-1), ONE),
    "31 bytes": lambda: kernels.ristretto255_mul(POINTS[:, :31], ONE),
    "fewer scalars": lambda: kernels.ristretto255_mul(POINTS, ONE[:2]),
    "one scalar where each row needs its own": lambda: kernels.ristretto255_multiscalar_vartime(
        POINTS, ONE[:1]
    ),
    "one blind for several messages": lambda: kernels.ristretto255_hash_blind(TEXTS, b"dst", ONE[:1]),
    "two bases": lambda: kernels.ristretto255_unblind(POINTS, POINTS[:2], ONE),
    "a base that is no element": lambda: kernels.ristretto255_unblind(POINTS, ONE[:1], ONE),
    "no scalar": lambda: kernels.ristretto255_hash_mul(TEXTS, b"dst", ONE[:0]),
    "narrow scalars": lambda: kernels.scalar255_invert(ONE[:, :16]),
    "32 bytes to reduce": lambda: kernels.scalar255_reduce(ONE),
    "operands that differ": lambda: kernels.scalar255_mul(ONE, ONE[:1]),
    "an empty tag": lambda: kernels.ristretto255_hash(TEXTS, b""),
    "a long tag": lambda: kernels.ristretto255_hash(TEXTS, bytes(256)),
    "a tag as text": lambda: kernels.ristretto255_hash(TEXTS, "dst"),  # type: ignore[arg-type]
    "nothing to expand to": lambda: kernels.expand_message_xmd(TEXTS, b"dst", 0),
    "too much to expand to": lambda: kernels.expand_message_xmd(TEXTS, b"dst", 255 * 64 + 1),
    "a long OPRF input": lambda: kernels.oprf_finalize(np.zeros((1, 65536), np.uint8), ONE[:1]),
    "no column": lambda: kernels.digest_columns(b"", []),
    "a tag of a column": lambda: kernels.digest_columns(b"", [FixedColumn(256, TEXTS)]),
    "a text prefix": lambda: kernels.digest_columns("p", [FixedColumn(0, TEXTS)]),  # type: ignore[arg-type]
    "columns that differ": lambda: kernels.digest_columns(
        b"", [FixedColumn(0, TEXTS), FixedColumn(0, TEXTS[:2])]
    ),
    "falling offsets": lambda: digest([0, 5, 4]),
    "negative offsets": lambda: digest([-1, 5]),
    "offsets past the end": lambda: digest([0, 11]),
    "no offsets": lambda: digest([]),
    "wide data": lambda: kernels.digest_columns(b"", [VariableColumn(0, np.zeros(2, np.int64), TEXTS)]),
}


def digest(offsets: list[int]) -> Any:
    return kernels.digest_columns(
        b"", [VariableColumn(0, np.array(offsets, np.int64), np.zeros(10, np.uint8))]
    )


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    with pytest.raises(ParameterError):
        WRONG[what]()


def test_strided_and_read_only_views_are_taken() -> None:
    wide = np.repeat(POINTS, 2, axis=0)
    assert np.array_equal(kernels.ristretto255_mul(wide[::2], np.asfortranarray(ONE)), POINTS)
    frozen = POINTS.copy()
    frozen.setflags(write=False)
    assert np.array_equal(kernels.ristretto255_mul(frozen, ONE), POINTS)
    data = np.arange(20, dtype=np.uint8)
    offsets = np.array([0, 9, 1, 9, 5], np.int64)[::2]
    column = VariableColumn(1, offsets, data[::2])
    expected = VariableColumn(1, offsets.copy(), data[::2].copy())
    assert np.array_equal(kernels.digest_columns(b"", [column]), kernels.digest_columns(b"", [expected]))


def test_empty_batches() -> None:
    nothing, no_texts = np.empty((0, 32), np.uint8), np.empty((0, 20), np.uint8)
    assert kernels.ristretto255_mul(nothing, nothing).shape == (0, 32)
    assert kernels.ristretto255_mul(nothing, ONE[:1]).shape == (0, 32)
    assert kernels.ristretto255_mul_base(nothing).shape == (0, 32)
    assert kernels.ristretto255_hash(no_texts, b"dst").shape == (0, 32)
    assert kernels.ristretto255_hash_mul(no_texts, b"dst", nothing).shape == (0, 32)
    assert kernels.ristretto255_hash_blind(no_texts, b"dst", nothing).shape == (0, 32)
    assert kernels.ristretto255_unblind(nothing, POINTS[:1], nothing).shape == (0, 32)
    assert kernels.ristretto255_from_uniform(np.empty((0, 64), np.uint8)).shape == (0, 32)
    assert not kernels.ristretto255_multiscalar_vartime(nothing, nothing).any()
    assert kernels.scalar255_invert(nothing).shape == (0, 32)
    assert kernels.scalar255_reduce(np.empty((0, 64), np.uint8)).shape == (0, 32)
    assert kernels.expand_message_xmd(no_texts, b"dst", 7).shape == (0, 7)
    assert kernels.oprf_finalize(no_texts, nothing).shape == (0, 64)
    assert kernels.digest_columns(b"p", [FixedColumn(0, no_texts)]).shape == (0, 32)
    assert digest([0]).shape == (0, 32)


def test_messages_without_bytes() -> None:
    empty = np.empty((2, 0), np.uint8)
    hashed = kernels.ristretto255_hash(empty, b"dst")
    assert np.array_equal(hashed[0], hashed[1])
    assert kernels.oprf_finalize(empty, POINTS[:2]).shape == (2, 64)
    assert kernels.digest_columns(b"", [FixedColumn(0, empty)]).shape == (2, 32)


def test_zero_has_no_inverse() -> None:
    order = (2**252 + 27742317777372353535851937790883648493).to_bytes(32, "little")
    scalars = ONE.copy()
    scalars[1] = list(order)
    with pytest.raises(InvalidScalar, match="row 1 ") as caught:
        kernels.scalar255_invert(scalars)
    assert caught.value.index == 1


def test_results_are_fresh_and_inputs_untouched() -> None:
    points, scalars = POINTS.copy(), ONE.copy()
    result = kernels.ristretto255_mul(points, scalars)
    assert result.flags.writeable
    assert not np.shares_memory(result, points)
    assert np.array_equal(points, POINTS)
    assert np.array_equal(scalars, ONE)


def test_the_extension_checks_lengths_itself() -> None:
    """It writes to memory: whatever its caller got wrong must end in an error, not in a crash."""
    try:
        native: Any = importlib.import_module("trustcompute.kernels._native")
    except ImportError:
        pytest.skip("the extension is not built")
    out, short = np.zeros((3, 32), np.uint8), np.zeros((2, 32), np.uint8)
    texts, columns = TEXTS, ((0, 20, b"", TEXTS),)
    far, falling = np.array([0, 5, 10, 61]), np.array([0, 5, 4, 4])
    for call in (
        lambda: native.ristretto255_mul(0, POINTS, ONE, short),
        lambda: native.ristretto255_mul(0, POINTS, ONE, out[:, :31].copy()),
        lambda: native.ristretto255_mul(0, POINTS, short, out),
        lambda: native.ristretto255_mul_base(0, ONE, short),
        lambda: native.ristretto255_check(0, bytes(33)),
        lambda: native.ristretto255_multiscalar_vartime(POINTS, short, out[:1]),
        lambda: native.ristretto255_multiscalar_vartime(POINTS, ONE, out),
        lambda: native.ristretto255_from_uniform(0, bytes(64), out),
        lambda: native.ristretto255_hash(0, texts, 21, b"dst", out),
        lambda: native.ristretto255_hash(0, texts, -20, b"dst", out),
        lambda: native.ristretto255_hash(0, texts, 20, b"", out),
        lambda: native.ristretto255_hash(0, texts, 20, bytes(256), out),
        lambda: native.ristretto255_hash_mul(0, texts, 20, b"dst", short, out),
        lambda: native.ristretto255_hash_blind(0, texts, 20, b"dst", short, out),
        lambda: native.ristretto255_hash_blind(0, texts, 21, b"dst", ONE, out),
        lambda: native.ristretto255_hash_blind(0, texts, 20, b"", ONE, out),
        lambda: native.ristretto255_unblind(0, POINTS, POINTS, ONE, out),
        lambda: native.ristretto255_unblind(0, POINTS, POINTS[:1], short, out),
        lambda: native.ristretto255_unblind(0, POINTS, POINTS[:1], ONE, short),
        lambda: native.scalar255_reduce(ONE, out),
        lambda: native.scalar255_mul(ONE, short, out),
        lambda: native.scalar255_sub(short, ONE, out),
        lambda: native.scalar255_invert(short, out),
        lambda: native.expand_message_xmd(texts, 20, b"dst", 33, out),
        lambda: native.expand_message_xmd(texts, 20, b"dst", 0, out),
        lambda: native.oprf_finalize(texts, 20, POINTS, out),
        lambda: native.digest_columns(0, b"", columns, short),
        lambda: native.digest_columns(0, b"", ((0, -1, np.arange(3), TEXTS),), out),
        lambda: native.digest_columns(0, b"", ((0, -1, far, TEXTS),), out),
        lambda: native.digest_columns(0, b"", ((0, -1, falling, TEXTS),), out),
        lambda: native.digest_columns(0, b"", ((0, -1, -far, TEXTS),), out),
    ):
        with pytest.raises(ValueError, match="do not fit together"):
            call()
    for call in (
        lambda: native.ristretto255_mul(0, POINTS, ONE, bytes(96)),  # read-only
        lambda: native.ristretto255_mul(0, POINTS[::2], ONE[:2], short),  # not contiguous
        lambda: native.ristretto255_unblind(0, POINTS, b"\xff" * 32, ONE, out),  # no element
        lambda: native.digest_columns(0, b"", [columns[0]], out),
        lambda: native.digest_columns(0, b"", (None,), out),
        lambda: native.digest_columns(0, b"", ((256, 20, b"", TEXTS),), out),
    ):
        with pytest.raises((TypeError, ValueError, BufferError, OverflowError)):
            call()


def test_kernel_errors_are_in_the_tree() -> None:
    assert issubclass(kernels.InvalidPoint, KernelError)
    assert len({KernelError.code, kernels.InvalidPoint.code, InvalidScalar.code}) == 3
