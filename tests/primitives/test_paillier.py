"""Packed Paillier: equal to integers, to the definition, and to python-paillier in both directions."""

from __future__ import annotations

import json

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError, RemoteProtocolError, VerificationError
from trustcompute.primitives import paillier
from trustcompute.primitives.paillier import Encryptor, PublicKey, SecretKey
from trustcompute.primitives.rng import Rng

SECRET = paillier.keygen(Rng.from_os(), 2048)
PUBLIC = SECRET.public


def test_keys_have_the_form_that_the_randomness_needs():
    assert PUBLIC.bits == 2048
    assert SECRET.p % 4 == SECRET.q % 4 == 3
    assert gmpy2.gcd(SECRET.p - 1, SECRET.q - 1) == 2
    assert str(SECRET.p) not in repr(SECRET)
    # the base is an n-th power: raised to λ it is 1
    order = gmpy2.lcm(SECRET.p - 1, SECRET.q - 1)
    assert gmpy2.powmod(PUBLIC.base, order, PUBLIC.n2) == 1
    for bits in (1024, 2050, 16384):
        with pytest.raises(ParameterError):
            paillier.keygen(Rng.from_os(), bits)


@pytest.mark.parametrize("expected", [1, 10, 100])
def test_every_table_gives_encryptions_that_the_definition_opens(expected):
    encryptor = Encryptor(PUBLIC, expected)
    messages = [0, 1, -1, PUBLIC.n // 2, -(PUBLIC.n // 2), 12345]
    made = encryptor.encrypt(messages, Rng.from_os())
    assert len({int(one) for one in encryptor.encrypt([7] * 5, Rng.from_os())}) == 5
    order = gmpy2.lcm(SECRET.p - 1, SECRET.q - 1)
    for one, ciphertext in zip(messages, made, strict=True):
        assert paillier.decrypt(SECRET, ciphertext) == one
        opened = (gmpy2.powmod(ciphertext, order, PUBLIC.n2) - 1) // PUBLIC.n
        assert opened * gmpy2.invert(order, PUBLIC.n) % PUBLIC.n == one % PUBLIC.n  # Paillier 1999, scheme 1
    with pytest.raises(ParameterError):
        encryptor.encrypt([PUBLIC.n], Rng.from_os())


def test_the_table_holds_powers_of_the_base():
    n, n2 = PUBLIC.n, PUBLIC.n2
    table = paillier._powers(PUBLIC, 4)
    for row, digit in ((0, 0), (0, 1), (0, 15), (3, 7), (255, 15)):
        unit, multiple = table[row][digit]
        assert unit * (1 + multiple * n) % n2 == gmpy2.powmod(PUBLIC.base, digit << 4 * row, n2)


@pytest.mark.property
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_packed_sums_are_those_of_integers(data):
    width = data.draw(st.integers(2, 56))
    slots, parties = PUBLIC.slots(width), data.draw(st.integers(1, 5))
    reach = ((1 << (width - 1)) - 1) // parties
    count = data.draw(st.integers(0, 2 * slots + 1))
    values = st.lists(
        st.sampled_from([0, reach, -reach]) | st.integers(-reach, reach), min_size=count, max_size=count
    )
    rows = [np.array(data.draw(values), dtype=np.int64) for _ in range(parties)]
    packed = [paillier.pack(row, width, slots) for row in rows]
    totals = [sum(column) for column in zip(*packed, strict=True)]
    assert all(2 * abs(one) < PUBLIC.n for one in totals)
    found = paillier.unpack(totals, width, slots, count)
    assert np.array_equal(found, sum(rows))


def test_what_does_not_fit_a_slot_is_refused():
    for value in (128, -129):
        with pytest.raises(ParameterError, match="8 bits"):
            paillier.pack(np.array([value]), 8, 10)
    for plaintext in (1 << 100, -(1 << 100), 128, -129):
        with pytest.raises(VerificationError):
            paillier.unpack([plaintext], 8, 10, 1)


def test_ciphertexts_and_keys_of_others_are_checked():
    good = paillier.to_bytes(PUBLIC, Encryptor(PUBLIC, 1).encrypt([5], Rng.from_os()))
    assert paillier.decrypt(SECRET, paillier.from_bytes(PUBLIC, good, 1)[0]) == 5
    size = PUBLIC.ciphertext_bytes
    for bad in (good[:-1], bytes(size), int(PUBLIC.n2).to_bytes(size, "big"), SECRET.p.to_bytes(size, "big")):
        with pytest.raises(RemoteProtocolError):
            paillier.from_bytes(PUBLIC, bad, 1)
    key = PUBLIC.to_bytes()
    assert PublicKey.from_bytes(key, 2048) == PUBLIC
    for bad in (key[:-1], bytes(len(key)), key[:255] + b"\0" + key[256:], b"\0" + key[1:]):
        with pytest.raises(RemoteProtocolError):
            PublicKey.from_bytes(bad, 2048)
    with pytest.raises(ParameterError):
        SecretKey(SECRET.p, SECRET.p, PUBLIC)


@pytest.mark.peer
def test_python_paillier_reads_what_we_write_and_we_read_what_it_writes():
    phe = pytest.importorskip("phe", reason="python-paillier is not installed: trustcompute[he] brings it")
    command = pytest.importorskip("phe.command_line", reason="python-paillier's command needs click")
    document = json.loads(json.dumps(paillier.public_document(PUBLIC)))
    theirs = command.load_public_key(document)
    assert theirs.n == PUBLIC.n
    secret = json.loads(json.dumps(paillier.secret_document(SECRET)))
    their_secret = phe.PaillierPrivateKey(
        theirs, phe.util.base64_to_int(secret["p"]), phe.util.base64_to_int(secret["q"])
    )
    # ours, opened by theirs
    [ours] = Encryptor(PUBLIC, 1).encrypt([-123456789], Rng.from_os())
    number = json.loads(json.dumps(paillier.number_document(ours)))
    assert their_secret.decrypt(phe.EncryptedNumber(theirs, int(number["v"]), number["e"])) == -123456789
    # theirs, opened by ours, under keys read from their documents
    read = paillier.read_secret(secret)
    encrypted = theirs.encrypt(-987654321, precision=1)
    shown = json.loads(command.serialise_encrypted(encrypted))
    assert shown["e"] == -32
    found = paillier.read_number(shown, read.public, exponent=-32)
    assert paillier.decrypt(read, found) == -987654321 * 16**32
    # a sum of both
    both = theirs.encrypt(1000) + phe.EncryptedNumber(theirs, int(ours), 0)
    assert paillier.decrypt(SECRET, both.ciphertext()) == 1000 - 123456789
    # under their key, without our base
    assert read.public.base is None
    [plain] = Encryptor(read.public).encrypt([42], Rng.from_os())
    assert their_secret.raw_decrypt(int(plain)) == 42


def test_an_exponent_that_was_not_agreed_is_refused():
    [one] = Encryptor(PUBLIC, 1).encrypt([1], Rng.from_os())
    number = paillier.number_document(one)
    for bad in (
        number | {"e": -3},
        number | {"v": "12x"},
        number | {"v": "0"},
        {},
        None,
        number | {"e": None},
    ):
        with pytest.raises(ParameterError):
            paillier.read_number(bad, PUBLIC)
    for bad in ({}, None, {"kty": "RSA"}, {"kty": "DAJ", "alg": "PAI-GN1", "n": "!"}):
        with pytest.raises(ParameterError):
            paillier.read_public(bad)
