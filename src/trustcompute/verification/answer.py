"""From what a holder sent to an answer that may be shown: nothing is one before every check has passed.

Called by ``bucket`` and ``private`` on the asking side, and by whoever is shown a ``Proof``. An answer is proven by:
the descriptor's signature; the DLEQ proof that the holder used the key the descriptor names; the column's path to the
descriptor's root, and the column being the one in which the key would stand, so that absence is proven too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from trustcompute.errors import RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import canonical, merkle, oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import VerifyKey, token_hash
from trustcompute.verification import cells, descriptor, layout
from trustcompute.verification.cells import U64, Code, Place
from trustcompute.verification.descriptor import Descriptor

GROUP: Final = 64
"""Evaluations that one DLEQ proof covers: what a proof of one answer has to show of the others."""
MAX_PROOF: Final = 2**22


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked about. subjects: uint8[k, 32] key digests; elements: uint8[k, 32] digests of key and elements,
    for a match."""

    subjects: U8 = field(repr=False)
    elements: U8 | None = field(repr=False, default=None)

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def each(self) -> int:
        """Evaluations a question takes."""
        return 1 if self.elements is None else 2

    @property
    def evaluations(self) -> int:
        return len(self) * self.each

    def inputs(self) -> U8:
        """What goes into the OPRF, those of one question next to each other: uint8[evaluations, 33]."""
        parts = [cells.inputs(self.subjects, cells.SUBJECT)]
        if self.elements is not None:
            parts.append(cells.inputs(self.elements, cells.ELEMENTS))
        return np.ascontiguousarray(np.stack(parts, axis=1).reshape(-1, 33))

    def padded(self, count: int, rng: Rng) -> Questions:
        """With random ones behind, to ``count``: they look like any other."""
        more = max(0, count - len(self))
        subjects = np.concatenate([self.subjects, rng.array(32 * more).reshape(-1, 32)])
        if self.elements is None:
            return Questions(subjects)
        return Questions(subjects, np.concatenate([self.elements, rng.array(32 * more).reshape(-1, 32)]))

    def digest(self) -> bytes:
        """32 bytes that change with what is asked."""
        return hashlib.sha256(b"trustcompute questions 1\n" + self.inputs().tobytes()).digest()


@dataclass(frozen=True, eq=False)
class Blinded:
    """Questions as the holder sees them. blinds: secret, uint8[evaluations, 32]; elements: uint8[evaluations, 32]."""

    questions: Questions
    inputs: U8 = field(repr=False)
    blinds: U8 = field(repr=False)
    elements: U8 = field(repr=False)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Questions evaluated and proven. roots: uint8[k, 32]; checks: uint8[k, 8], for a match."""

    blinded: Blinded
    elements: U8 = field(repr=False)
    proofs: U8 = field(repr=False)
    roots: U8 = field(repr=False)
    checks: U8 | None = field(repr=False)

    @property
    def tags(self) -> U64:
        return cells.tags(self.roots)


def blind(questions: Questions, rng: Rng) -> Blinded:
    inputs = questions.inputs()
    blinds = oprf.random_scalars(rng, len(inputs))
    return Blinded(questions, inputs, blinds, oprf.blind(inputs, blinds, Mode.VOPRF))


def groups(evaluations: int) -> int:
    """DLEQ proofs for this many evaluations."""
    return -(-evaluations // GROUP)


def evaluate(key: oprf.SecretKey, elements: U8, rng: Rng) -> tuple[U8, U8]:
    """The holder's side: (evaluated uint8[n, 32], proofs uint8[groups, 64])."""
    found = oprf.evaluate(key, elements)
    proofs = [
        np.frombuffer(oprf.prove(key, elements[at : at + GROUP], found[at : at + GROUP], rng), dtype=np.uint8)
        for at in range(0, len(found), GROUP)
    ]
    return found, np.stack(proofs)


def unblind(said: Descriptor, blinded: Blinded, elements: U8, proofs: U8) -> Evaluated:
    """Check every proof, then take the blinds off. Raises ``VerificationError``."""
    public = bytes.fromhex(said.public)
    for number, proof in enumerate(proofs):
        part = slice(number * GROUP, (number + 1) * GROUP)
        oprf.verify(public, blinded.elements[part], elements[part], proof.tobytes())
    try:
        values = oprf.finalize(blinded.inputs, blinded.blinds, elements)
    except RemoteProtocolError as error:
        raise VerificationError(str(error)) from error
    return _evaluated(said, blinded, elements, proofs, values)


def _evaluated(said: Descriptor, blinded: Blinded, elements: U8, proofs: U8, values: U8) -> Evaluated:
    each = blinded.questions.each
    subjects = np.ascontiguousarray(values[::each])
    checks = cells.checks(np.ascontiguousarray(values[1::2])) if each == 2 else None
    return Evaluated(blinded, elements, proofs, cells.roots(subjects, bytes.fromhex(said.salt)), checks)


def code_of(root: U8, check: U8 | None, column: U8, number: int, place: Place) -> Code:
    """Read the cell of one root in its column. root: uint8[32]; check: uint8[8]; column: uint8[length], number
    ``number``.

    Raises ``VerificationError`` for a column that calls itself by another number, or a cell that holds no answer.
    """
    told = layout.header(column)
    if told.number != number:
        raise VerificationError(f"column {number} says that it is column {told.number}")
    if place is Place.COLUMN and not told.first <= int(cells.tags(root.reshape(1, -1))[0]) <= told.last:
        raise VerificationError("the column is not the one in whose range the key lies")
    sealed = layout.sealed_in(column, root[: cells.TAG].tobytes())
    if sealed is None:
        return Code.NO_RECORD
    where = np.array([number], dtype=np.uint32)
    mask = cells.masks(root.reshape(1, -1), place, where, np.array([told.epoch], dtype=np.uint32))[0]
    plain = (np.frombuffer(sealed, dtype=np.uint8) ^ mask).tobytes()
    if check is not None:
        return Code.MATCH if plain == check.tobytes() else Code.MISMATCH
    if plain[0] not in (Code.MATCH, Code.MISMATCH) or any(plain[1:]):
        raise VerificationError("the record's cell holds no answer: it is not what the table was built with")
    return Code(plain[0])


@dataclass(frozen=True)
class VerifiedAnswer:
    """One answer, every check passed. ``proof`` opens it to a third party. Made by ``opened`` only."""

    code: Code
    proof: Proof = field(repr=False)

    @property
    def text(self) -> str:
        """``match``, ``mismatch`` or ``no record``."""
        return self.code.name.lower().replace("_", " ")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Shown:
    """A column that a holder sent, where it is said to stand, and its path (uint8[depth, 32]) in the tree."""

    place: Place
    number: int
    column: U8 = field(repr=False)
    path: U8 = field(repr=False)

    def check(self, said: Descriptor) -> None:
        """Raise ``VerificationError`` unless it leads to the descriptor's root."""
        promised = said.buckets if self.place is Place.BUCKET else said.columns
        leaf = merkle.leaf_hash(self.column.tobytes())
        steps = [step.tobytes() for step in self.path]
        merkle.verify_inclusion(leaf, self.number, promised.columns, steps, bytes.fromhex(promised.root))


def in_tree(tree: merkle.Tree, number: int, column: U8) -> Shown:
    """A column of whoever holds the tree over all of them."""
    steps = b"".join(tree.inclusion_proof(number))
    return Shown(Place.COLUMN, number, column, np.frombuffer(steps, dtype=np.uint8).reshape(-1, 32))


def opened(token: str, said: Descriptor, found: Evaluated, index: int, shown: Shown) -> VerifiedAnswer:
    """The answer to question ``index``, after its column was checked. Raises ``VerificationError``.

    token: the signed descriptor that ``said`` was read from.
    """
    shown.check(said)
    check = None if found.checks is None else found.checks[index]
    code = code_of(found.roots[index], check, shown.column, shown.number, shown.place)
    return VerifiedAnswer(code, _proof(token, found, index, shown))


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Opens one answer to anybody: which key was asked about, and everything that shows what the registered table
    says of it.

    Whoever has it learns the question, the answer, and the masked cells of one column. Bytes are hex in its JSON.
    """

    token: str
    place: int
    subject: bytes = field(repr=False)
    elements: bytes | None = field(repr=False)
    position: int
    blinds: bytes = field(repr=False)
    blinded: bytes = field(repr=False)
    evaluated: bytes = field(repr=False)
    dleq: bytes = field(repr=False)
    column: bytes = field(repr=False)
    number: int
    path: bytes = field(repr=False)

    def to_json(self) -> bytes:
        document: dict[str, Any] = {"v": 1, "token": self.token, "place": self.place}
        document |= {"position": self.position, "number": self.number}
        for name in _BYTES:
            value = getattr(self, name)
            document[name] = None if value is None else value.hex()
        return canonical.dumps(document)

    @classmethod
    def from_json(cls, data: bytes) -> Proof:
        """Raises ``VerificationError``."""
        document = canonical.loads(data, limit=MAX_PROOF)
        if not isinstance(document, dict) or set(document) != _MEMBERS:
            raise VerificationError(f"a proof has exactly the members {', '.join(sorted(_MEMBERS))}")
        if type(document["v"]) is not int or document["v"] != 1:
            raise VerificationError("a proof is of version 1: v")
        for name in _NUMBERS:
            if type(document[name]) is not int:
                raise VerificationError(f"the proof's {name} is no integer")
        if type(document["token"]) is not str:
            raise VerificationError("the proof's token is no text")
        return cls(
            token=document["token"],
            **{name: document[name] for name in _NUMBERS},
            **{name: _bytes_of(name, document[name]) for name in _BYTES},
        )

    def verify(self, holder: VerifyKey, *, table: str | None = None) -> VerifiedAnswer:
        """The answer this proves, offline. holder: whose descriptor it must be; table: the id of the one it must be
        about.

        Raises ``VerificationError``.
        """
        said = descriptor.verify(self.token, holder)
        if table is not None and token_hash(self.token) != table:
            raise VerificationError("the proof is about another table")
        place = Place(self.place) if self.place in (0, 1) else None
        if place is None or (self.elements is None) != (said.elements is None):
            raise VerificationError("the proof of an answer is not in the agreed form")
        evaluated = self._evaluated(said)
        if place is Place.BUCKET:
            salt = bytes.fromhex(said.place)
            right = int(layout.bucket_of(evaluated.blinded.questions.subjects, salt, said.buckets.columns)[0])
            if right != self.number:
                raise VerificationError("the proof shows another bucket than that of the key")
        if len(self.path) % 32:
            raise VerificationError("the proof of an answer is not in the agreed form")
        path = np.frombuffer(self.path, dtype=np.uint8).reshape(-1, 32)
        column = np.frombuffer(self.column, dtype=np.uint8)
        return opened(self.token, said, evaluated, 0, Shown(place, self.number, column, path))

    def _evaluated(self, said: Descriptor) -> Evaluated:
        try:
            questions = Questions(
                _rows(self.subject), None if self.elements is None else _rows(self.elements)
            )
            blinded, evaluated, blinds = map(_rows, (self.blinded, self.evaluated, self.blinds))
        except ValueError:
            raise VerificationError("the proof of an answer is not in the agreed form") from None
        own = slice(self.position, self.position + questions.each)
        if len(questions) != 1 or len(blinds) != questions.each or len(blinded) != len(evaluated):
            raise VerificationError("the proof of an answer is not in the agreed form")
        if not 0 <= self.position <= len(blinded) - questions.each or len(blinded) > GROUP:
            raise VerificationError("the proof of an answer is not in the agreed form")
        inputs = questions.inputs()
        if (
            not blinds.any(axis=1).all()
            or oprf.blind(inputs, blinds, Mode.VOPRF).tobytes() != blinded[own].tobytes()
        ):
            raise VerificationError("the proof does not show the evaluation of its own question")
        oprf.verify(bytes.fromhex(said.public), blinded, evaluated, self.dleq)
        values = oprf.finalize(inputs, blinds, evaluated[own])
        proofs = np.frombuffer(self.dleq, dtype=np.uint8).reshape(1, -1)
        return _evaluated(said, Blinded(questions, inputs, blinds, blinded), evaluated, proofs, values)


_NUMBERS: Final = ("place", "position", "number")
_BYTES: Final = ("subject", "elements", "blinds", "blinded", "evaluated", "dleq", "column", "path")
_MEMBERS: Final = {"v", "token", *_NUMBERS, *_BYTES}


def _bytes_of(name: str, value: object) -> Any:
    if value is None and name == "elements":  # none were asked about
        return None
    try:
        if not isinstance(value, str):
            raise ValueError("no text")
        return bytes.fromhex(value)
    except ValueError as error:
        raise VerificationError(f"the proof's {name} is not hex digits") from error


def _rows(data: bytes) -> U8:
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, 32)


def _proof(token: str, found: Evaluated, index: int, shown: Shown) -> Proof:
    questions, each = found.blinded.questions, found.blinded.questions.each
    first = index * each
    group = first // GROUP
    part, own = slice(group * GROUP, (group + 1) * GROUP), slice(first, first + each)
    return Proof(
        token=token,
        place=int(shown.place),
        subject=questions.subjects[index].tobytes(),
        elements=None if questions.elements is None else questions.elements[index].tobytes(),
        position=first - group * GROUP,
        blinds=found.blinded.blinds[own].tobytes(),
        blinded=found.blinded.elements[part].tobytes(),
        evaluated=found.elements[part].tobytes(),
        dleq=found.proofs[group].tobytes(),
        column=shown.column.tobytes(),
        number=shown.number,
        path=shown.path.tobytes(),
    )
