"""The schemes with a key holder: exact like integers, one size on the wire, and nothing malformed is added."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from acting import acting
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import aggregation
from trustcompute.aggregation import Bounds, Noise, Spec, keyed, seal
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import encode
from trustcompute.aggregation.operation import HOLDER, NOTHING, ROLES, operation_of, parameters
from trustcompute.aggregation.paillier import PaillierCipher
from trustcompute.aggregation.planner import IDS, cipher_of
from trustcompute.aggregation.rlwe import RlweCipher
from trustcompute.aggregation.round import Round
from trustcompute.errors import ParameterError, Refused, RemoteProtocolError
from trustcompute.primitives.member import in_process
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.star import TooFew, run_star
from trustcompute.protocol.transcript import Binding

HE = {"phe": "phe", "bfv": "tenseal", "ckks": "tenseal"}


def needs(scheme):
    if scheme in HE and importlib.util.find_spec(HE[scheme]) is None:
        pytest.skip(f"{HE[scheme]} is not installed: trustcompute[he] brings it")


def vectors(length=5, reach=1000, **options):
    made = {"columns": {"value": Bounds(-reach, reach)}, "length": length, "max_parties": 8} | options
    return Spec(**made)


@pytest.fixture(scope="module")
def small_keys():
    """Paillier of 2048 bits: the arithmetic is the same, the key is there in a third of a second."""
    return lambda spec: PaillierCipher(spec, bits=2048)


def add_up(cipher, spec, rows):
    """Encrypt, add and open without a star."""
    key, opener = cipher.generate(Rng.from_os())
    adder = cipher.adder(key)
    for row in rows:
        sent = cipher.encrypt(key, np.array(row, dtype=np.int64), Rng.from_os())
        assert len(sent) == cipher.ciphertext_bytes
        adder.add(sent)
    return opener(adder.total(), len(rows))


@pytest.mark.parametrize("scheme", ["rlwe", "rlwe-4096", "paillier", "phe", "bfv"])
def test_aggregates_of_tables_are_those_of_the_masked_scheme(scheme):
    needs(scheme)
    spec = Spec(
        columns={"delay": Bounds(-60, 1800)},
        statistics=["count", "sum", "mean", "variance"],
        by={"origin": ["EWR", "JFK", "LGA"]},
        max_rows=1000,
    )
    tables = {
        name: {"origin": ["EWR", "JFK", "EWR"], "delay": [at, -3, 95 + at]}
        for at, name in enumerate(["aa", "dl", "ua"])
    }
    found = aggregation.aggregate(tables, spec, scheme=scheme)
    expected = aggregation.aggregate(tables, spec)
    assert np.array_equal(found.sums, expected.sums)
    assert found.to_arrow().equals(expected.to_arrow())
    assert found.parties == ("aa", "dl", "ua")
    assert set(found.costs) == set(tables)


@pytest.mark.property
@settings(max_examples=6, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 57, 300])),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@pytest.mark.parametrize("kind", ["rlwe", "rlwe-wide", "rlwe-4096", "paillier", "bfv"])
def test_sums_are_those_of_integers_at_every_size_and_sign(kind, shape, share, seed, small_keys):
    needs(kind)
    bits = {"rlwe": 24, "rlwe-wide": 43, "rlwe-4096": 43, "paillier": 40, "bfv": 44}[kind]
    reach = max(
        1, int(2 ** (share * bits)) - 1
    )  # eight times 2^44 would need 49 bits, one more than there are
    spec = vectors(shape[1], reach)
    drawn = np.random.default_rng(seed)
    rows = drawn.integers(-reach, reach, shape, endpoint=True)
    extreme = drawn.random(rows.shape) < 0.3
    rows[extreme] = drawn.choice([-reach, reach, 0, 1, -1], int(extreme.sum()))
    made = {"paillier": small_keys, "rlwe-wide": RlweCipher}.get(kind, lambda s: cipher_of(kind, s))
    cipher = made(spec)
    assert add_up(cipher, spec, rows).tolist() == rows.sum(axis=0).tolist()


@pytest.mark.parametrize("extreme", [1, -1])
def test_the_largest_sums_do_not_wrap(extreme, small_keys):
    for make, reach in ((RlweCipher, 2**43), (RlweCipher, 2**30), (small_keys, 2**43)):
        spec = vectors(3, reach)
        rows = [[extreme * reach] * 3] * spec.max_parties
        assert add_up(make(spec), spec, rows).tolist() == [extreme * reach * spec.max_parties] * 3


def star(spec, cipher, rows, *, vanish=(), tamper=None, cohorts=None):
    """A round in this process. tamper: (party, kind) -> function of the columns it sends."""
    names = [f"p{at}" for at in range(len(rows))]
    about = Round(spec, tuple(names), b"s" * 16)
    known = in_process([*names, "holder", "adder"])
    roles = keyed.Roles("adder", known["adder"].key.public.x, "holder")

    def wrapped(name, inner):
        return acting(name, inner, vanish=vanish, tamper=tamper)

    parties = {
        name: wrapped(name, keyed.contributor(
            about, known[name], roles, cipher,
            values=lambda row=row: np.array(row, dtype=np.int64), rng=Rng.from_os(),
        )) for name, row in zip(names, rows, strict=True)
    }  # fmt: skip
    holder = keyed.key_holder(
        about, known["holder"], roles, cipher, rng=Rng.from_os(), cohorts=cohorts or Cohorts()
    )
    parties[keyed.LEG] = wrapped("holder", holder)
    binding = Binding("", cipher.id, {}, "aggregator", "contributor")
    return run_star(keyed.aggregator(about, roles, cipher, known["holder"].recognise), parties, binding,
                    patience=60)  # fmt: skip


ROWS = [[1, 2, -3], [10, 20, -30], [100, 200, -300], [1000, -1000, 0]]


@pytest.mark.parametrize("turn", ["ready", "encrypted"])
def test_one_that_vanishes_is_left_out_and_named(turn):
    spec = vectors(3)
    run = star(spec, RlweCipher(spec), ROWS, vanish={("p1", turn)})
    sums, names = run.result
    assert names == ("p0", "p2", "p3")
    assert sums.tolist() == [1101, -798, -303]
    assert "p1 is gone" in run.reasons["p1"]
    with pytest.raises(TooFew):
        star(spec, RlweCipher(spec), ROWS, vanish={("p1", turn), ("p2", turn)})


def flipped(name, at):
    def flip(columns):
        changed = np.array(columns[name])
        changed[at] ^= 255
        return columns | {name: changed}

    return flip


def test_a_key_that_the_holder_did_not_sign_is_refused():
    spec = vectors(3)
    for column, at in (("key", 5), ("signature", 0), ("certificate", 0)):
        with pytest.raises(RemoteProtocolError, match=r"signature of holder|cannot be recognised"):
            star(spec, RlweCipher(spec), ROWS, tamper={("holder", "key"): flipped(column, at)})


def test_a_contributor_encrypts_under_no_key_but_the_holders():
    """An aggregator that puts its own in its place, of this round or of an earlier one, learns nothing."""
    spec = vectors(3)
    cipher, known = RlweCipher(spec), in_process(["p0", "p1", "p2", "holder", "adder"])
    about = Round(spec, ("p0", "p1", "p2"), b"s" * 16)
    roles = keyed.Roles("adder", known["adder"].key.public.x, "holder")

    def offered(holder, where):
        return next(
            keyed.key_holder(where, known[holder], roles, cipher, rng=Rng.from_os(), cohorts=Cohorts())
        ).message

    def contribute(key):
        values = np.zeros(3, dtype=np.int64)
        party = keyed.contributor(about, known["p0"], roles, cipher, values=lambda: values, rng=Rng.from_os())
        next(party)
        party.send(None)
        return party.send(key).message

    assert contribute(offered("holder", about)).kind == "encrypted"
    for key in (offered("p1", about), offered("holder", Round(spec, about.parties, b"t" * 16))):
        with pytest.raises(RemoteProtocolError, match=r"is of p1|signature of holder"):
            contribute(key)


def test_nobody_adds_up_and_opens_under_one_key():
    spec = vectors(3)
    cipher, known = RlweCipher(spec), in_process(["p0", "p1", "p2", "holder"])
    about = Round(spec, ("p0", "p1", "p2"), b"s" * 16)
    both = keyed.Roles("adder", known["holder"].key.public.x, "holder")
    with pytest.raises(RemoteProtocolError, match="is the aggregator itself"):
        next(keyed.key_holder(about, known["holder"], both, cipher, rng=Rng.from_os(), cohorts=Cohorts()))


def test_a_malformed_ciphertext_is_refused_before_it_is_added(small_keys):
    spec = vectors(3)

    def high(columns):
        return {"value": np.full_like(columns["value"], 255)}

    for cipher in (RlweCipher(spec), small_keys(spec)):
        for bad in (high, lambda c: {"value": c["value"][:-1]}):
            run = star(spec, cipher, ROWS, tamper={("p2", "encrypted"): bad})
            assert run.result[1] == ("p0", "p1", "p3")
            assert run.result[0].tolist() == [1011, -978, -33]
            assert "p2" in run.reasons


def test_the_key_holder_opens_no_sum_of_too_few_nor_sets_that_are_almost_the_same():
    spec = vectors(3)
    cipher, cohorts = RlweCipher(spec), Cohorts()
    star(spec, cipher, ROWS, cohorts=cohorts)
    with pytest.raises(TooFew) as caught:
        star(spec, cipher, ROWS, cohorts=cohorts, vanish={("p3", "ready")})
    assert "differ from an earlier set" in str(caught.value)
    about = Round(spec, ("p0", "p1", "p2", "p3"), b"s" * 16)
    known = in_process(["holder", "adder"])
    roles = keyed.Roles("adder", known["adder"].key.public.x, "holder")
    holder = keyed.key_holder(about, known["holder"], roles, cipher, rng=Rng.from_os(), cohorts=Cohorts())
    next(holder)
    holder.send(None)
    with pytest.raises(RemoteProtocolError, match="are needed"):
        holder.send(
            Message("summed", {"member": np.array([1], dtype=np.uint8), "value": np.zeros(1, np.uint8)})
        )
    with pytest.raises(Refused):
        cohorts.admit(("p0", "p1"), 3)


@pytest.mark.parametrize("scheme", ["rlwe", "paillier", "bfv", "ckks"])
def test_the_size_on_the_wire_says_nothing_of_the_values(scheme, small_keys):
    needs(scheme)
    noisy = {"columns": {"value": Bounds(0, 1)}, "noise": Noise("1"), "max_rows": 10, "max_parties": 8}
    spec = Spec(**noisy) if scheme == "ckks" else vectors(300)
    cipher = small_keys(spec) if scheme == "paillier" else cipher_of(scheme, spec)
    key, _ = cipher.generate(Rng.from_os())
    assert len(key) <= cipher.key_bytes
    rng = np.random.default_rng(1)
    for values in (np.zeros(spec.slots, np.int64), rng.integers(-1, 2, spec.slots)):
        assert cipher.encrypt(key, values, Rng.from_os()).shape == (cipher.ciphertext_bytes,)


def test_ckks_takes_specifications_with_noise_only_and_rounds():
    needs("ckks")
    with pytest.raises(ParameterError, match="noise"):
        cipher_of("ckks", vectors(3))
    spec = Spec(columns={"value": Bounds(0, 1)}, noise=Noise("10"), max_rows=10, max_parties=8)
    cipher = cipher_of("ckks", spec)
    values = np.array([12345, -7, 2**30][: spec.slots], dtype=np.int64)
    assert add_up(cipher, spec, [values] * 8).tolist() == (8 * values).tolist()


def test_bytes_for_seal_are_read_before_seal_reads_them():
    needs("bfv")
    spec = vectors(3)
    cipher = cipher_of("bfv", spec)
    key, _ = cipher.generate(Rng.from_os())
    good = cipher.encrypt(key, np.array([1, 2, 3]), Rng.from_os())
    size = int.from_bytes(good[:4].tobytes(), "little")
    seal.check_form(good[4 : 4 + size].tobytes(), 8192 if size > 10**5 else 4096)
    for at, value in ((0, 255), (3, 255), (4, 0x12), (5, 9), (6, 1), (7, 0x0A), (12, 0), (-1, 1)):
        bad = good.copy()
        bad[at] = value
        with pytest.raises(RemoteProtocolError):
            cipher.adder(key).add(bad)
    other = cipher_of("bfv", vectors(3, 2**40))
    with pytest.raises(RemoteProtocolError, match="other parameters"):
        other.encrypt(key, np.array([1, 2, 3]), Rng.from_os())
    with pytest.raises(RemoteProtocolError):
        cipher.encrypt(b"nothing", np.array([1, 2, 3]), Rng.from_os())


def test_a_plan_says_why():
    spec = vectors(10**6)
    assert aggregation.plan(spec, 10).chosen == "masked"
    assert aggregation.plan(spec, 10, together=False, key_holder=True).chosen == "rlwe"
    assert aggregation.plan(vectors(20), 10, together=False, key_holder=True).chosen == "paillier"
    assert aggregation.plan(vectors(20), 10, quantum=True, key_holder=True).chosen == "rlwe-4096"
    with pytest.raises(ParameterError, match="key holder"):
        aggregation.plan(spec, 10, together=False)
    told = str(aggregation.plan(spec, 10))
    assert told.startswith("masked: nobody holds a key")
    assert "opened by the key holder" in told
    assert "ckks: does not fit: " in told


def test_only_masked_reveals_to_everyone_and_unknown_schemes_are_named():
    spec = vectors(3, reveal="everyone")
    with pytest.raises(ParameterError, match="masked"):
        aggregation.aggregate(ROWS, spec, scheme="rlwe")
    with pytest.raises(ParameterError, match="scheme must be"):
        aggregation.aggregate(ROWS, vectors(3), scheme="shamir")
    found = aggregation.aggregate(ROWS, vectors(3), scheme="auto")
    assert found.scheme == "aggregation.masked.v1"
    assert found.vector().tolist() == [1111, -778, -333]


def test_noise_is_inside_what_is_opened():
    spec = Spec(columns={"value": Bounds(0, 1)}, statistics=["sum"], noise=Noise("0.5"), max_rows=10)
    tables = [{"value": [1, 0, 1]}] * 4
    exact = sum(encode(one, spec, "p") for one in tables)
    found = [aggregation.aggregate(tables, spec, scheme="rlwe").sums - exact for _ in range(12)]
    assert np.abs(found).max() < 100  # σ below 4
    assert len({tuple(one) for one in found}) > 1


def test_vectors_that_must_lie_in_memory_whole_have_a_bound():
    spec, names = vectors(10**8), ("p0", "p1", "p2")
    about = Round(spec, names, b"s" * 16)
    roles = keyed.Roles("adder", in_process(["adder"])["adder"].key.public.x, "holder")
    for operation, params in (
        (operation_of("aggregation.rlwe-threshold.v1"), parameters(about)),
        (operation_of(IDS["rlwe"]), parameters(about) | {name: getattr(roles, name) for name in ROLES}),
    ):
        with pytest.raises(ParameterError, match="use 'masked'"):
            operation.check(params, NOTHING)
    small = parameters(Round(vectors(3), names, b"s" * 16), roles)
    for changes in (
        {"under": ["x"]},
        {"holder": 5},
        {"aggregator_key": 7},
        {"aggregator_key": "short"},
        {"more": 1},
    ):
        with pytest.raises(ParameterError):
            operation_of(HOLDER).check(small | {"under": IDS["rlwe"]} | changes, NOTHING)
