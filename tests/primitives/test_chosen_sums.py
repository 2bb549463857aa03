"""Sums over chosen rows of an encrypted table: exact, masked, and noise within what the formula allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.primitives import chosen_sums
from trustcompute.primitives.chosen_sums import MAX_POLYNOMIALS, SUITES, Shape
from trustcompute.primitives.rng import Rng

REFERENCE = kernels.active().name == "reference"
EXAMPLES = 4 if REFERENCE else 25


def run(of, table, rows, open_slots=None, added=None):
    """Both sides: the sums as each learns them."""
    rng = Rng.from_os()
    seen = np.zeros(of.slots, np.bool_) if open_slots is None else open_slots
    key = chosen_sums.keygen(of, rng)
    chosen, choice = chosen_sums.choose(
        of, chosen_sums.encrypt(key, table, rng), rows, open_slots=seen, rng=rng
    )
    slots = chosen_sums.decrypt(key, chosen)
    back = chosen_sums.rounded(of, slots, added or [0] * of.slots)
    return [
        chosen_sums.opened(of, slots[at]) if seen[at] else chosen_sums.unmask(choice, at, back[at])
        for at in range(of.slots)
    ]


@pytest.mark.property
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), slots=st.sampled_from([1, 2, 3, 64, 1024]), bits=st.integers(0, 61))
def test_sums_are_exact_up_to_the_largest_that_was_declared(data, slots, bits):
    rows = data.draw(st.integers(0, 5000 // slots + 3))
    made = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    reach = 2**bits
    table = made.integers(-reach, reach + 1, (rows, slots))
    if rows:
        table[:: data.draw(st.integers(1, 3))] = data.draw(st.sampled_from([reach, -reach]))
    wanted = np.flatnonzero(made.random(rows) < data.draw(st.sampled_from([0, 0.5, 1])))
    of = chosen_sums.shape(rows, slots, rows, rows * reach + 1)
    expected = [sum(map(int, table[wanted, at].tolist())) for at in range(slots)]
    assert run(of, table, made.permutation(wanted)) == expected
    seen = made.random(slots) < 0.5
    assert run(of, table, wanted, seen) == expected
    assert run(of, table, wanted, added=[-1] * slots) == [one - 1 for one in expected]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_largest_sum_a_suite_holds_neither_wraps_nor_is_rounded_away(suite):
    of = Shape(suite, 3, 2, 3, 1)
    largest = min(((suite.modulus >> of.shift) - 4) // 2, 3 * 2**62)
    of = replace(of, largest=largest)
    assert of.fits
    for sign in (1, -1):
        table = np.full((3, 2), sign * (largest // 3), np.int64)
        for _ in range(20):
            assert run(of, table, np.arange(3)) == [sign * (largest // 3) * 3] * 2
    if largest < 3 * 2**62:
        assert not replace(of, largest=largest + 2).fits
    assert suite.core_svp > 105


def test_a_suite_is_chosen_by_formula_and_what_fits_none_is_refused():
    assert chosen_sums.shape(10**6, 1, 10**6, 10**12).suite.name == "rlwe-4096-100"
    assert chosen_sums.shape(10**6, 1, 10**6, 10**13).suite.name == "rlwe-8192-150"
    assert chosen_sums.shape(10**6, 65, 10**6, 2**62).suite.name == "rlwe-8192-150"
    for rows, slots, largest in (
        (10, 1, 2**96),
        (10, 8193, 5),
        (10, 0, 5),
        (4096 * 2 * MAX_POLYNOMIALS + 1, 1, 5),
    ):
        with pytest.raises(ParameterError, match="do not fit"):
            chosen_sums.shape(rows, slots, rows, largest)


def phases(of, table, rows, noise_scale=1):
    """The noise of every slot, with the masks known."""
    rng = Rng.from_os()
    key = chosen_sums.keygen(of, rng)
    chosen, choice = chosen_sums.choose(
        of,
        chosen_sums.encrypt(key, table, rng),
        rows,
        open_slots=np.zeros(of.slots, np.bool_),
        rng=rng,
    )
    q = of.suite.modulus
    found = []
    for at, slot in enumerate(chosen_sums.decrypt(key, chosen)):
        rest = (slot - choice.masks[at] - (int(table[rows, at].sum()) << of.shift)) % q
        found.append(rest - q if rest > q // 2 else rest)
    return found


@pytest.mark.statistical
def test_noise_stays_far_below_its_bound_and_is_there():
    """B is 11 standard deviations of the largest noise that any key could cause: 1,024 draws stay below 7."""
    rows = 50 if REFERENCE else 3000
    of = chosen_sums.shape(rows, 1024 if not REFERENCE else 256, rows, 2**20)
    table = np.random.default_rng(5).integers(-100, 100, (rows, of.slots))
    noise = np.array(phases(of, table, np.arange(rows)), dtype=np.float64)
    assert np.abs(noise).max() < 7 / 10.95 * of.noise
    assert noise.std() > 0.3 * of.noise / 10.95  # two thirds of the bound's factors are ones
    assert of.slots * of.noise * 2**chosen_sums.STATISTICAL_SECURITY <= 2 ** (of.shift - 1)


@pytest.mark.statistical
def test_what_the_holder_decrypts_does_not_depend_on_the_sum():
    """Masked slots are uniform modulo q: of 512 the quarters hold 128 each, ±6σ of 9.8."""
    of = chosen_sums.shape(2, 512, 2, 100)
    rng = Rng.from_os()
    key = chosen_sums.keygen(of, rng)
    table = np.full((2, 512), 50, np.int64)
    for rows in (np.arange(0), np.arange(2)):
        chosen, _ = chosen_sums.choose(
            of, chosen_sums.encrypt(key, table, rng), rows, open_slots=np.zeros(512, np.bool_), rng=rng
        )
        quarters = np.bincount([4 * slot // of.suite.modulus for slot in chosen_sums.decrypt(key, chosen)])
        assert np.all(np.abs(quarters - 128) < 60)


def test_the_same_choice_looks_different_each_time_and_the_same_table_too():
    of = chosen_sums.shape(5, 1, 5, 100)
    rng, table = Rng.from_os(), np.ones((5, 1), np.int64)
    key = chosen_sums.keygen(of, rng)
    one, other = (chosen_sums.encrypt(key, table, rng) for _ in range(2))
    assert (one[1] != other[1]).mean() > 0.9 and (one[0] != other[0]).any()
    seen = np.zeros(1, np.bool_)
    sums = [chosen_sums.choose(of, one, np.arange(3), open_slots=seen, rng=rng)[0] for _ in range(2)]
    assert (sums[0] != sums[1]).mean(axis=2).min() > 0.9


def test_residues_that_are_none_are_refused_before_anything_is_computed():
    of = chosen_sums.shape(5, 1, 5, 100)
    rng, table = Rng.from_os(), np.ones((5, 1), np.int64)
    key = chosen_sums.keygen(of, rng)
    seed, body = chosen_sums.encrypt(key, table, rng)
    bad, seen = body.copy(), np.zeros(1, np.bool_)
    bad[1, 1] = 0xFF
    with pytest.raises(RemoteProtocolError, match="residue"):
        chosen_sums.choose(of, (seed, bad), np.arange(2), open_slots=seen, rng=rng)
    chosen, choice = chosen_sums.choose(of, (seed, body), np.arange(2), open_slots=seen, rng=rng)
    bad = chosen.copy()
    bad[1, 0] = 0xFF
    with pytest.raises(RemoteProtocolError, match="residue"):
        chosen_sums.decrypt(key, bad)
    with pytest.raises(RemoteProtocolError, match="bounds rule out"):
        chosen_sums.unmask(choice, 0, np.full(of.answer_width, 0x55, np.uint8))
    with pytest.raises(ParameterError, match="can be chosen"):
        chosen_sums.choose(of, (seed, body), np.arange(6), open_slots=seen, rng=rng)
    with pytest.raises(ParameterError, match="int64"):
        chosen_sums.encrypt(key, table.astype(np.int32), rng)


def test_another_key_opens_nothing():
    of = chosen_sums.shape(5, 1, 5, 100)
    rng, table = Rng.from_os(), np.ones((5, 1), np.int64)
    keys = [chosen_sums.keygen(of, rng) for _ in range(2)]
    chosen, choice = chosen_sums.choose(
        of,
        chosen_sums.encrypt(keys[0], table, rng),
        np.arange(5),
        open_slots=np.zeros(1, np.bool_),
        rng=rng,
    )
    back = chosen_sums.rounded(of, chosen_sums.decrypt(keys[1], chosen), [0])
    with pytest.raises(RemoteProtocolError):
        chosen_sums.unmask(choice, 0, back[0])


def test_nothing_secret_shows():
    of = chosen_sums.shape(5, 1, 5, 100)
    key = chosen_sums.keygen(of, Rng.from_os())
    assert "transformed" not in repr(key)
    assert repr(chosen_sums.Choice(of, (12345,))).count("12345") == 0
