"""``aggregation.rlwe-threshold.v1``: sums under a key that nobody has; opened by all contributors together, n of n.

Called by ``aggregate`` and by the node. The scheme is ``primitives.rlwe_threshold``: every party makes a share of the
key, having committed to it first, so that none chooses its share by the others', and encrypts under no key that its
own share is not in: what it encrypts cannot be opened without it; encrypts once, having committed to the
ciphertext first, so that none answers another's; adds up all ciphertexts itself, each signed by its party together with
the commitments to all; and gives one decryption share for that sum, once. An aggregator in the middle relays and adds.

Who cheats: the aggregator, in any way; up to n - 1 contributors pool what they see. They learn the sum, and nothing of
one contributor's part beyond it. Contributors make keys and ciphertexts as they should. Whoever vanishes stops the
aggregate: nothing is opened (docs/protocols/aggregation-keyed.md).
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import Vector, add_noise, in_range, whole
from trustcompute.aggregation.journal import Journal
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import LocalProtocolError, Refused, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives import member as members
from trustcompute.primitives import rlwe_threshold as rlwe
from trustcompute.primitives.member import MAX_CERTIFICATE, Member, Recognise
from trustcompute.primitives.rlwe_threshold import Ciphertext, PublicKey, Suite
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column, Message
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.roster import SIGNATURE, Roster, array, introduced, introducing
from trustcompute.protocol.star import Coordinator, gather, message, scatter

ID: Final = "aggregation.rlwe-threshold.v1"
NONCE: Final = 32
FORM: Final = {"nonce": NONCE}
DIGEST: Final = 32
SALT: Final = 32


class Given:
    """Sums a party has given its decryption share for: never a second one. Thread-safe; durable where there is a
    path."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._journal = Journal(path)
        self._known = set(self._journal.lines)

    def admit(self, total: bytes) -> None:
        """Remember a sum by its digest, before the share leaves. Raises ``Refused`` for one that was here before."""
        line = total.hex().encode()
        with self._lock:
            if line in self._known:
                raise Refused(
                    "a decryption share for this sum was given before: two of them would tell about the key",
                    rule="one_share",
                    field="session",
                    owner="the contributor's operator",
                    fix="start a new aggregate: its key is a new one",
                )
            self._journal.add(line)
            self._known.add(line)


def suite_of(spec: Spec, parties: int) -> Suite:
    """Raises ``ParameterError`` where no modulus holds sum and noise."""
    return rlwe.choose(parties, spec.slots, (1 << (spec.payload_bits - 1)) - 1)


def contributor(
    about: Round, member: Member, *, values: Callable[[], Vector], rng: Rng, cohorts: Cohorts, given: Given
) -> Party[None]:
    """One party. values: its vector, int64[spec.slots]; given: for which sums it gave its share before."""
    me, vector, count = about.place(member.name), whole(values()), len(about.parties)
    if len(vector) != about.spec.slots:
        raise LocalProtocolError("a contributor brings one integer for each slot")
    suite = suite_of(about.spec, count)
    add_noise(vector, about.spec, count, rng)
    roster = yield from introduced(about, member, {"nonce": rng.bytes(NONCE)})
    if len(roster.adverts) != count:
        raise RemoteProtocolError("the roster does not show everybody")
    a = rlwe.common(roster.digest, suite)
    secret, shown = rlwe.key_share(suite, a, rng)
    salt, packed = rng.bytes(SALT), rlwe.pack(shown)
    mine = _share_digest(roster, me, salt, packed)
    yield from send("committed", digest=array(mine))

    committed = (yield from receive("commitments", digest=Column("u1", (count, DIGEST))))["digest"]
    if committed[me].tobytes() != mine:  # a key without our share in it could be opened without us
        raise RemoteProtocolError("the list of key shares does not show ours")
    yield from send("share", salt=array(salt), value=packed)
    got = yield from receive("shares", salt=Column("u1", (count, SALT)), value=_rows(count, suite))
    key = _joint_key(roster, suite, committed, got)

    sealed = rlwe.encrypt(key, vector, rng).pack()
    del vector
    own = _cipher_digest(roster, key, me, sealed)
    yield from send("sealed", digest=array(own))
    seals = (yield from receive("seals", digest=Column("u1", (count, DIGEST))))["digest"]
    if seals[me].tobytes() != own:
        raise RemoteProtocolError("the list of ciphertexts does not show ours")
    statement = _seals_statement(roster, key, seals)
    yield from send("encrypted", value=sealed, signature=array(member.key.sign(statement)))

    got = yield from receive(
        "ciphertexts",
        value=Column("u1", (count, 2 * suite.element_bytes)),
        signature=Column("u1", (count, SIGNATURE)),
    )
    total = _recomputed(roster, key, seals, got)
    cohorts.admit(about.parties, about.spec.min_parties)
    given.admit(hashlib.sha256(statement).digest())
    yield from send("opened", releases=True, value=rlwe.pack(rlwe.decryption_share(secret, total, rng)))


def aggregator(about: Round, recognise: Recognise) -> Coordinator[tuple[I64, tuple[str, ...]]]:
    """The star's middle: relays, adds, puts the shares together. Returns the sums and whose they are: everybody's."""
    names, count = about.parties, len(about.parties)
    suite = suite_of(about.spec, count)
    roster = yield from introducing(about, recognise, FORM, at_least=count)
    digest = Column("u1", (DIGEST,))
    commitments = _stacked((yield from gather("committed", names, at_least=count, digest=digest)))
    yield from scatter(dict.fromkeys(names, message("commitments", **commitments)))
    shares = _stacked((yield from gather(
        "share", names, at_least=count, salt=Column("u1", (SALT,)), value=Column("u1", (suite.polynomial_bytes,)),
    )))  # fmt: skip
    relayed = message("shares", **shares)
    key = _joint_key(roster, suite, commitments["digest"], relayed)
    yield from scatter(dict.fromkeys(names, relayed))

    seals = _stacked((yield from gather("sealed", names, at_least=count, digest=digest)))["digest"]
    yield from scatter(dict.fromkeys(names, message("seals", digest=seals)))
    sent = _stacked((yield from gather(
        "encrypted", names, at_least=count,
        take=lambda name, got: _checked(roster, key, seals, about.place(name), got),
        value=Column("u1", (2 * suite.element_bytes,)), signature=Column("u1", (SIGNATURE,)),
    )))  # fmt: skip
    relayed = message("ciphertexts", **sent)
    total = _recomputed(roster, key, seals, relayed)
    yield from scatter(dict.fromkeys(names, relayed))

    opened = yield from gather(
        "opened", names, at_least=count, releases=True,
        take=lambda _, got: rlwe.unpack(got["value"], suite, suite.polynomials),
        value=Column("u1", (suite.element_bytes,)),
    )  # fmt: skip
    sums = rlwe.combine(total, list(opened.values()))
    if not in_range(sums, about.spec):
        raise VerificationError(
            "a sum lies outside what the specification allows: a contributor broke the protocol"
        )
    return sums, names


def _stacked(got: Mapping[str, Message]) -> dict[str, U8]:
    """Columns of equal messages, a row a party."""
    parts = list(got.values())
    return {name: np.stack([one[name] for one in parts]) for name in parts[0].columns}


def _rows(count: int, suite: Suite) -> Column:
    return Column("u1", (count, suite.polynomial_bytes))


def _share_digest(roster: Roster, place: int, salt: bytes, packed: U8) -> bytes:
    parts = (roster.digest, bytes([place]), salt, packed.tobytes())
    return hashlib.sha256(roster.about.statement(b"key share", *parts)).digest()


def _joint_key(roster: Roster, suite: Suite, committed: U8, got: Message) -> PublicKey:
    """The sum of all shares, each the one that was committed to."""
    shown = []
    for place, row in enumerate(got["value"]):
        found = _share_digest(roster, place, got["salt"][place].tobytes(), row)
        if not hmac.compare_digest(found, committed[place].tobytes()):
            raise RemoteProtocolError(
                f"the key share of {roster.about.parties[place]} is not the one that was committed to"
            )
        shown.append(rlwe.unpack(row, suite, 1))
    return rlwe.public_key(suite, rlwe.common(roster.digest, suite), shown)


def _key_digest(key: PublicKey) -> bytes:
    return hashlib.sha256(rlwe.pack(key.b)).digest()


def _cipher_digest(roster: Roster, key: PublicKey, place: int, sealed: U8) -> bytes:
    """Hiding, because a ciphertext is random."""
    found = hashlib.sha256(
        roster.about.statement(b"ciphertext", roster.digest, _key_digest(key), bytes([place]))
    )
    found.update(np.ascontiguousarray(sealed))
    return found.digest()


def _seals_statement(roster: Roster, key: PublicKey, seals: U8) -> bytes:
    """What every party signs: the roster, the key, and which ciphertexts are added, whose they are."""
    return roster.about.statement(b"sealed", roster.digest, _key_digest(key), seals.tobytes())


def _checked(roster: Roster, key: PublicKey, seals: U8, place: int, got: Message) -> Message:
    """A party's ciphertext: the one it committed to, signed by it together with all the others'."""
    name = roster.about.parties[place]
    if not hmac.compare_digest(_cipher_digest(roster, key, place, got["value"]), seals[place].tobytes()):
        raise RemoteProtocolError(f"the ciphertext of {name} is not the one that was committed to")
    statement = _seals_statement(roster, key, seals)
    members.verify(roster.keys[place], got["signature"].tobytes(), statement, name)
    return got


def _recomputed(roster: Roster, key: PublicKey, seals: U8, got: Message) -> Ciphertext:
    """The sum of all ciphertexts, each checked; one is held at a time."""
    total: Ciphertext | None = None
    for place, (sealed, signature) in enumerate(zip(got["value"], got["signature"], strict=True)):
        one = message("ciphertext", value=sealed, signature=signature)
        _checked(roster, key, seals, place, one)
        found = rlwe.unpack_ciphertext(sealed, key.suite)
        total = found if total is None else rlwe.add([total, found])
    assert total is not None
    return total


def message_bytes(spec: Spec, parties: int) -> int:
    """The most bytes of message bodies of one contributor's exchange."""
    suite = suite_of(spec, parties)
    advert = MAX_CERTIFICATE + sum(FORM.values()) + SIGNATURE + 9
    relayed = advert + 2 * DIGEST + SALT + suite.polynomial_bytes + 2 * suite.element_bytes + SIGNATURE
    return (parties + 1) * relayed + suite.element_bytes
