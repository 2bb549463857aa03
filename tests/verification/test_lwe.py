"""Parameters: the noise stays below half of Δ, the sampler has the variance, the estimate is what is recorded."""

from __future__ import annotations

import numpy as np
import pytest

from trustcompute.errors import VerificationError
from trustcompute.primitives.rng import Rng
from trustcompute.verification import lwe, pir


def test_the_noise_bound_holds_for_every_shape_in_use():
    assert lwe.noise_margin(2**16, 2640) > 4
    assert lwe.noise_margin(lwe.MAX_COLUMNS, 2**16) > 2


@pytest.mark.statistical
def test_the_sampler_has_the_variance_within_one_percent():
    assert abs(lwe.error_variance(400_000) - 1) < 0.01  # one percent is 4.5 standard deviations


def test_a_sampler_of_another_variance_is_noticed(monkeypatch):
    monkeypatch.setattr(lwe, "discrete_gaussian", lambda rng, variance, count: np.full(count, 7))
    with pytest.raises(VerificationError, match="variance"):
        lwe.error_variance(1000)


def test_the_recorded_security_is_what_the_formula_gives(capsys):
    beta, _ = lwe.block_size()
    assert round(0.292 * beta) == lwe.SECURITY["classical_bits"]
    assert int(0.265 * beta) == lwe.SECURITY["quantum_bits"]
    lwe.main()
    assert "block size 500" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [4, 64, 1024])
def test_every_column_is_decrypted_right(columns):
    rng = np.random.default_rng(columns)
    database = rng.integers(-128, 128, (48, columns)).astype(np.int8)
    seed = bytes(32)
    hint = pir.make_hint(database, seed)
    own = Rng.from_os()
    for j in {0, 1, columns // 2, columns - 1}:
        ready = pir.prepare(hint, seed, columns, own)
        got = pir.answer(database, pir.query(ready, j)[None])[0]
        assert np.array_equal(pir.column_of(ready, got), database[:, j].view(np.uint8))


def test_many_queries_in_one_pass_are_answered_like_one_by_one():
    rng = np.random.default_rng(5)
    database = rng.integers(-128, 128, (33, 64)).astype(np.int8)
    asked = rng.integers(0, 2**32, (9, 64), dtype=np.uint32)
    together = pir.answer(database, asked)
    assert np.array_equal(together, np.stack([pir.answer(database, one[None])[0] for one in asked]))


def test_an_answer_of_noise_only_is_refused():
    ready = pir.Prepared(np.zeros(4, np.uint32), np.zeros(8, np.uint32))
    with pytest.raises(VerificationError, match="noise"):
        pir.column_of(ready, np.full(8, (1 << 23) - 5, np.uint32))
