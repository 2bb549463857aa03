"""A holder that alters anything is caught, and what it sees is what it sees of an honest run."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from scene import (
    HOLDER,
    bucket_parties,
    built,
    check_for,
    download_parties,
    play,
    private_parties,
    questions,
)

from trustcompute import kernels
from trustcompute.errors import VerificationError
from trustcompute.primitives.oprf import SecretKey
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.verification import answer, descriptor, layout, pir, private, statement, table
from trustcompute.verification.table import Table

HELD = pa.table({"id": [f"N{i}" for i in range(150)], "seats": range(150)})
KEYS = ["N99", "N120", "absent"]


@pytest.fixture(scope="module")
def made():
    return built(HELD, "seats >= 100", least_in_bucket=30)


@pytest.fixture(scope="module")
def asked(made):
    return questions(made, KEYS)


def altered(kind, column, at, *, signs=None):
    """Flips a bit of one column of one message; signs: makes a fresh signature over what is left, as a malicious
    holder can."""

    def spoil(message, columns):
        if message != kind:
            return columns
        flat = columns[column].reshape(-1).view(np.uint8)
        flat[at % len(flat)] ^= 1 << at % 8
        if signs is not None and column != "signature":
            columns["signature"] = signs(columns)
        return columns

    return spoil


PLACES = [0, 1, 31, 32, 77, 1000, 5003, -1]


@pytest.mark.fault
@pytest.mark.parametrize("column", ["point", "proof", "column", "path", "signature"])
@pytest.mark.parametrize("resigned", [False, True])
def test_whatever_a_bucket_holder_alters_is_caught(made, asked, column, resigned):
    honest = play(*bucket_parties(made, asked))
    for at in PLACES:
        consumer, provider = bucket_parties(made, asked)
        first = next(consumer)
        consumer = resumed(consumer, first)

        def signs(columns, first=first):
            question = [first.message["point"], first.message["bucket"]]
            parts = [columns[name] for name in ("point", "proof", "column", "path")]
            return np.array(statement.sign(made.id, question, parts, HOLDER))

        spoil = altered("answered", column, at, signs=signs if resigned else None)
        result, shown, _ = play(consumer, provider, spoil)
        if resigned and column in ("column", "path", "signature") and isinstance(result, list):
            pytest.fail(f"{column} altered at {at} and accepted")
        assert isinstance(result, VerificationError), (column, at, result)
        assert shown == honest[1]


def resumed(party, first):
    """A party whose first step has been taken already."""
    value = yield first
    try:
        while True:
            value = yield party.send(value)
    except StopIteration as stop:
        return stop.value


@pytest.mark.fault
@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("public", "splitter"), ("public", "leaf"), ("public", "hint"),
        ("evaluated", "point"), ("evaluated", "proof"), ("answer", "word"), ("answer", "signature"),
    ],
)  # fmt: skip
def test_whatever_a_private_holder_alters_is_caught_and_it_sees_no_difference(made, asked, kind, column):
    honest = play(*private_parties(made, asked))
    assert sorted(answer.text for answer in honest[0].answers) == ["match", "mismatch", "no record"]
    for at in PLACES:
        result, shown, _ = play(*private_parties(made, asked), altered(kind, column, at))
        assert isinstance(result, VerificationError), (kind, column, at, result)
        assert shown == honest[1]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("kind", "column"),
    [("table", "cell"), ("evaluated", "point"), ("evaluated", "proof"), ("evaluated", "signature")],
)
def test_whatever_a_holder_alters_of_a_masked_table_is_caught(made, asked, kind, column):
    honest = play(*download_parties(made, asked))
    assert sorted(answer.text for answer in honest[0].answers) == ["match", "mismatch", "no record"]
    for at in PLACES:
        result, shown, _ = play(*download_parties(made, asked), altered(kind, column, at))
        assert isinstance(result, VerificationError), (kind, column, at, result)
        assert shown == honest[1]


@pytest.mark.fault
@pytest.mark.parametrize("parties", [bucket_parties, private_parties, download_parties])
def test_any_byte_of_any_message_altered_is_caught_and_nothing_shows_it(made, asked, parties):
    """Any bit of all that a holder sends, at random: what the asker sends is of the same kinds, types and shapes."""
    _, honest, _ = play(*parties(made, asked))
    sizes = {}

    def measured(kind, columns):
        sizes.update({(kind, name): column.nbytes for name, column in columns.items()})
        return columns

    play(*parties(made, asked), measured)
    rng = np.random.default_rng(11)
    for (kind, name), size in sizes.items():
        for at in rng.integers(0, size, 4).tolist():
            result, shown, _ = play(*parties(made, asked), altered(kind, name, at))
            assert isinstance(result, VerificationError), (kind, name, at)
            assert shown == honest


@pytest.mark.fault
def test_any_byte_of_a_kept_table_altered_is_found(tmp_path):
    built(HELD, "seats >= 100", directory=tmp_path)
    [place] = [path for path in tmp_path.iterdir() if path.is_dir()]
    rng = np.random.default_rng(12)
    for name in (*table.FILES, "descriptor"):
        whole = (place / name).read_bytes()
        for at in rng.integers(0, len(whole), 8).tolist():
            (place / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 7]) + whole[at + 1 :])
            with pytest.raises(VerificationError):
                table.check(table.load(place, HOLDER))
        (place / name).write_bytes(whole)
    table.check(table.load(place, HOLDER))


def respoken(made, *, cells=None, key=None, claims=None):
    """The same promise, another table behind it."""
    masked = made.masked
    if cells is not None:
        masked = dataclasses.replace(masked, **cells)
    if claims is not None:
        said = made.descriptor.model_copy(update=claims)
        masked = dataclasses.replace(masked, descriptor=said, token=made.masked.token)
    return Table(masked, key or made.key)


@pytest.mark.fault
@pytest.mark.parametrize("parties", [bucket_parties, private_parties, download_parties])
def test_a_table_other_than_the_promised_one_is_caught(made, asked, parties):
    """Every cell of database and buckets, another key, another version: signed and served consistently."""
    database, buckets = np.array(made.masked.database), np.array(made.masked.buckets)
    database[40] ^= 1
    buckets[:, 40] ^= 1
    others = [
        respoken(made, cells={"database": database, "buckets": buckets}),
        respoken(made, key=SecretKey((5).to_bytes(32, "little"))),
    ]
    for other in ({"version": "2"}, {"epoch": 2}):
        another = built(HELD, "seats >= 100", least_in_bucket=30, **other)
        assert another.descriptor.buckets.shape == made.descriptor.buckets.shape
        assert another.descriptor.columns.shape == made.descriptor.columns.shape
        others.append(Table(dataclasses.replace(another.masked, token=made.masked.token), another.key))
    honest = play(*parties(made, asked))[1]
    for other in others:
        result, shown, _ = play(*parties(made, asked, served=other))
        assert isinstance(result, VerificationError), result
        assert shown == honest


@pytest.mark.fault
def test_an_answer_signed_by_somebody_else_is_none(made, asked):
    for parties in (bucket_parties, private_parties, download_parties):
        result = play(*parties(made, asked, signer=SigningKey.generate()))[0]
        assert isinstance(result, VerificationError)


def test_a_descriptor_with_any_byte_altered_is_refused(made):
    token = made.masked.token
    for at in range(len(token)):
        other = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(VerificationError):
            descriptor.verify(other, HOLDER.public)


def test_a_descriptor_whose_parameters_could_not_be_decrypted_is_refused(made):
    columns = made.descriptor.columns
    for update in (
        {"suite": "tc-verify/0"},
        {"columns": columns.model_copy(update={"columns": 3})},
        {"columns": columns.model_copy(update={"columns": 2**20, "capacity": 2**20})},
        {"records": -1},
    ):
        token = made.descriptor.model_copy(update=update).sign(HOLDER)
        with pytest.raises(VerificationError):
            descriptor.verify(token, HOLDER.public)


def test_selective_failure_does_not_depend_on_the_key(made):
    """A holder that spoils one column only: whoever asks, for that column or for another, rejects."""
    check_of = check_for(made)
    target = 3
    database = np.array(made.masked.database)
    database[40:60, target] ^= 0x55
    for key in ["N1", "N7", "N50", "N149", "absent"]:
        asked = questions(made, [key])
        check = dataclasses.replace(check_of)
        result = play(
            *private_parties(made, asked, served=respoken(made, cells={"database": database}), check=check)
        )[0]
        assert isinstance(result, VerificationError) and "registered table" in str(result)
        assert check.spent
        again = play(*private_parties(made, asked, check=check))[0]
        assert isinstance(again, VerificationError) and "ask the auditor" in str(again)


@pytest.mark.statistical
def test_queries_for_two_columns_cannot_be_told_apart_by_simple_statistics(made):
    """Mean and byte histogram of 400 queries each, at the two positions and over all. False alarm: below 10⁻⁶."""
    said, rng, runs = made.descriptor, Rng.from_os(), 400
    columns, seed = said.columns.columns, bytes.fromhex(said.seed)
    found = {}
    for j in (1, columns - 2):
        ready = pir.prepare_many(made.masked.hint, seed, columns, rng, runs)
        found[j] = np.stack([pir.query(one, j) for one in ready])
    for queries in found.values():
        for position in (1, columns - 2):
            mean = queries[:, position].astype(np.float64).mean() / 2**32
            assert abs(mean - 0.5) < 5 * (1 / 12 / runs) ** 0.5  # 5 standard deviations
        counts = np.bincount(queries.view(np.uint8).reshape(-1), minlength=256)
        expected = counts.sum() / 256
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert abs(statistic - 255) < 6 * (2 * 255) ** 0.5


@pytest.mark.statistical
def test_what_is_asked_about_two_keys_cannot_be_told_apart_by_simple_statistics(made):
    """Byte histograms of 300 blinded elements each, against one another. False alarm: below 10⁻⁸."""
    rng, counts = Rng.from_os(), []
    for key in ("N1", "N149"):
        asked = questions(made, [key])
        sent = np.concatenate([answer.blind(asked, rng).elements for _ in range(300)])
        assert len(np.unique(sent, axis=0)) == 300
        counts.append(np.bincount(sent[:, :31].reshape(-1), minlength=256))  # the last byte has five bits
    first, second = counts
    statistic = ((first - second) ** 2 / np.maximum(first + second, 1)).sum()
    assert abs(statistic - 255) < 6 * (2 * 255) ** 0.5


def test_what_is_sent_and_received_has_the_same_size_for_every_key(made):
    shown = {}
    for key in ["N1", "N149", "absent"]:
        for parties in (bucket_parties, private_parties, download_parties):
            _, sent, _ = play(*parties(made, questions(made, [key])))
            shown.setdefault(parties, []).append(sent)
    assert all(one == seen[0] for seen in shown.values() for one in seen)


@pytest.mark.skipif(
    kernels.active().name == "reference", reason="the reference kernels are not constant time, and say so"
)
@pytest.mark.parametrize("parties", [bucket_parties, private_parties, download_parties])
def test_the_holder_does_the_same_for_every_key(made, parties):
    """Calls its party makes, of Python's and compiled functions: a run's time cannot tell keys apart where the calls
    and all sizes are the same, and kernels take the same for all data."""

    def counted(party):
        seen, value = [], None
        while True:
            sys.setprofile(lambda frame, event, argument: seen.append(event))
            try:
                step = party.send(value)
            except StopIteration:
                return
            finally:
                sys.setprofile(None)
                calls.append(Counter(seen))
            value = yield step

    found = []
    for key in ["N1", "N1", "N149", "absent"]:
        calls = []
        consumer, provider = parties(made, questions(made, [key]))
        play(consumer, counted(provider))
        found.append(calls[:])
    assert found[1] == found[2] == found[3]
    assert len(found[1]) >= 2 and sum(found[1][1].values()) > 20


def test_a_hint_of_another_version_is_refused_when_it_is_loaded(made):
    other = built(HELD, "seats >= 100", version="2").masked
    with pytest.raises(VerificationError, match="hint"):
        private.public_of(made.descriptor, made.masked.splitters, made.masked.leaves, other.hint)
    with pytest.raises(VerificationError, match="leaves"):
        private.public_of(made.descriptor, made.masked.splitters, other.leaves, made.masked.hint)
    assert layout.occupied(made.masked.buckets) == 150
