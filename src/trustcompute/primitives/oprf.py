"""Oblivious pseudorandom function, plain and verifiable: RFC 9497, suite ristretto255-SHA512, modes 0 and 1.

Called by the matching protocols: the client learns F(key, input) for inputs the key holder never sees. In
the order messages fly:

    client      blind -> blinded
    key holder  evaluate (and prove) -> evaluated (and proof)
    client      (verify and) finalize -> outputs

Adversary: malicious. The key holder learns the number of rows and nothing of the inputs (unconditionally);
the client learns one output a row and nothing of others, at about 126 bits less half the binary logarithm of
the evaluations it was given under one key (RFC 9497 §7.2.3). In mode ``OPRF`` the key holder may use another
key for each row; only the proof of mode ``VOPRF`` shows that it did not. Inputs and outputs are rows of uint8
arrays; every bulk function takes an ``executor`` and cuts its rows into chunks.
"""

from __future__ import annotations

import hmac
from concurrent.futures import Executor
from enum import IntEnum
from functools import partial
from hashlib import sha512
from typing import NoReturn

import numpy as np

from trustcompute import kernels
from trustcompute.errors import ParameterError, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import ristretto255
from trustcompute.primitives.parallel import map_rows
from trustcompute.primitives.ristretto255 import ORDER, random_scalars
from trustcompute.primitives.rng import Rng

__all__ = [
    "MAX_INPUT",
    "MAX_PROVED",
    "OUTPUT",
    "PROOF",
    "Mode",
    "SecretKey",
    "blind",
    "derive_key",
    "evaluate",
    "evaluate_inputs",
    "finalize",
    "generate_key",
    "prove",
    "public_key",
    "random_scalars",
    "verify",
]

OUTPUT = 64
"""Bytes of an output (Nh)."""
PROOF = 64
"""Bytes of a proof: challenge and response (2·Ns)."""
MAX_INPUT = 2**16 - 1
"""Bytes of an input: its length is hashed as two bytes (§1.2)."""
MAX_PROVED = 2**16 - 1
"""Rows one proof can cover: their index is hashed as two bytes (§2.2.1)."""


class Mode(IntEnum):
    """§3.1: outputs of the two modes differ for the same key and input."""

    OPRF = 0
    VOPRF = 1


class SecretKey:
    """The key holder's scalar in 1..ℓ-1. Shows nothing in ``repr`` and refuses to be pickled."""

    __slots__ = ("_scalar",)

    def __init__(self, encoding: bytes) -> None:
        """encoding: 32 bytes, little-endian, as ``to_bytes`` gives."""
        if len(encoding) != 32 or not 0 < int.from_bytes(encoding, "little") < ORDER:
            raise ParameterError("an OPRF key is 32 bytes, little-endian, above 0 and below the group order")
        self._scalar = np.frombuffer(encoding, dtype=np.uint8).reshape(1, 32)

    @property
    def scalar(self) -> U8:
        """The secret, uint8[1, 32]."""
        return self._scalar

    def to_bytes(self) -> bytes:
        """The secret, 32 bytes, for a key store."""
        return self._scalar.tobytes()

    def __repr__(self) -> str:
        return "SecretKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is never pickled")


def generate_key(rng: Rng) -> SecretKey:
    """A fresh key (§3.2)."""
    return SecretKey(random_scalars(rng, 1).tobytes())


def derive_key(seed: bytes, info: bytes, mode: Mode) -> SecretKey:
    """DeriveKeyPair (§3.2.1). seed: 32 uniform secret bytes; info: up to 65,535 public bytes."""
    if len(seed) != 32 or len(info) > 0xFFFF:
        raise ParameterError("an OPRF key is derived from a seed of 32 bytes and an info of up to 65535")
    derived = seed + _prefixed(info)
    for counter in range(256):
        scalar = _hash_to_scalar(_row(derived + bytes([counter])), b"DeriveKeyPair" + _context(mode))
        if scalar.any():
            return SecretKey(scalar.tobytes())
    raise ParameterError("no key can be derived from this seed and info: use another")  # once in 2^64000


def public_key(key: SecretKey) -> bytes:
    """key·G, the 32 bytes that ``verify`` needs."""
    return kernels.ristretto255_mul_base(key.scalar).tobytes()


def blind(inputs: U8, blinds: U8, mode: Mode, *, executor: Executor | None = None) -> U8:
    """Blind (§3.3.1): inputs uint8[n, w], blinds uint8[n, 32] -> uint8[n, 32], uniform whatever the inputs.

    inputs: w is at most 65,535. blinds: ``random_scalars(rng, n)``, fresh for every run: a blind used for two
    inputs links them.
    """
    if inputs.shape[1] > MAX_INPUT:
        raise ParameterError(f"an input has at most {MAX_INPUT} bytes, not {inputs.shape[1]}: hash it first")
    if len(blinds) != len(inputs):
        raise ParameterError(
            f"every input needs a blind of its own: {len(inputs)} inputs, {len(blinds)} blinds"
        )
    blinded = ristretto255.hash_and_multiply(
        inputs, b"HashToGroup-" + _context(mode), blinds, executor=executor
    )
    identity = ~blinded.any(axis=1)
    if identity.any():  # an input that hashes to the identity exists with probability 2^-252
        raise ParameterError(f"the blind of row {int(identity.argmax())} is zero")
    return blinded


def evaluate(key: SecretKey, blinded: U8, *, executor: Executor | None = None) -> U8:
    """BlindEvaluate (§3.3.1), without a proof: the peer's uint8[n, 32] -> uint8[n, 32].

    Raises ``RemoteProtocolError`` naming the first row that is the identity or not a canonical encoding.
    """
    return ristretto255.multiply(blinded, key.scalar, name="blinded elements", executor=executor)


def finalize(inputs: U8, blinds: U8, evaluated: U8, *, executor: Executor | None = None) -> U8:
    """Finalize (§3.3.1): inputs uint8[n, w], blinds uint8[n, 32], the peer's uint8[n, 32] -> uint8[n, 64].

    In mode ``VOPRF`` call ``verify`` first. Raises ``RemoteProtocolError`` as ``evaluate`` does.
    """
    if not len(inputs) == len(blinds) == len(evaluated):
        raise RemoteProtocolError(f"{len(evaluated)} elements came back for {len(inputs)} blinded inputs")
    inverses = kernels.scalar255_invert(blinds)
    unblinded = ristretto255.multiply(evaluated, inverses, name="evaluated elements", executor=executor)
    return map_rows(kernels.oprf_finalize, inputs, unblinded, executor=executor)


def evaluate_inputs(key: SecretKey, inputs: U8, mode: Mode, *, executor: Executor | None = None) -> U8:
    """Evaluate (§3.3.1): the key holder's own outputs, uint8[n, w] -> uint8[n, 64]."""
    dst = b"HashToGroup-" + _context(mode)
    return map_rows(partial(_evaluate_inputs, dst=dst, scalar=key.scalar), inputs, executor=executor)


def prove(key: SecretKey, blinded: U8, evaluated: U8, rng: Rng, *, executor: Executor | None = None) -> bytes:
    """GenerateProof (§2.2.1): 64 bytes that show ``evaluated`` = k·``blinded`` for the k of the public key.

    blinded: what the peer sent; evaluated: what ``evaluate`` made of it; 1 to 65,535 rows. Non-interactive
    and zero knowledge in the random oracle model. rng: one scalar is drawn; the same one for two proofs
    gives the key away.
    """
    public = public_key(key)
    weights = _weights(public, blinded, evaluated)
    composite = ristretto255.weighted_sum(blinded, weights, executor=executor)  # M
    product = kernels.ristretto255_mul(composite, key.scalar)  # Z = k·M
    nonce = random_scalars(rng, 1)  # r
    first, second = kernels.ristretto255_mul_base(nonce), kernels.ristretto255_mul(composite, nonce)
    challenge = _challenge(public, composite, product, first, second)
    response = kernels.scalar255_sub(nonce, kernels.scalar255_mul(challenge, key.scalar))  # s = r - c·k
    return challenge.tobytes() + response.tobytes()


def verify(
    public: bytes, blinded: U8, evaluated: U8, proof: bytes, *, executor: Executor | None = None
) -> None:
    """VerifyProof (§2.2.2): raise ``VerificationError`` unless ``evaluated`` = k·``blinded``.

    public: k·G, that the key holder published before. A wrong statement passes with probability about 2⁻¹²⁶
    for every try of its maker.
    """
    if len(proof) != PROOF or any(
        int.from_bytes(half, "little") >= ORDER for half in (proof[:32], proof[32:])
    ):
        raise VerificationError("a proof is 64 bytes: two scalars below the group order")
    key, challenge, response = _row(public), _row(proof[:32]), _row(proof[32:])
    if key.shape != (1, 32) or not key.any():
        raise VerificationError("a public key is 32 bytes and not the identity element")
    weights = _weights(public, blinded, evaluated)
    composite = _composite(blinded, weights, "blinded elements", executor)  # M
    product = _composite(evaluated, weights, "evaluated elements", executor)  # Z
    pair = np.concatenate([response, challenge])
    try:  # s·G + c·K and s·M + c·Z
        first = ristretto255.weighted_sum(np.concatenate([_row(ristretto255.GENERATOR), key]), pair)
        second = ristretto255.weighted_sum(np.concatenate([composite, product]), pair)
    except kernels.InvalidPoint as error:
        raise VerificationError("the public key is not the canonical encoding of an element") from error
    expected = _challenge(public, composite, product, first, second)
    if not hmac.compare_digest(expected.tobytes(), challenge.tobytes()):
        raise VerificationError("the proof does not verify: another key was used, or an element was altered")


def _context(mode: Mode) -> bytes:
    """CreateContextString (§3.1)."""
    return b"OPRFV1-" + bytes([mode]) + b"-ristretto255-SHA512"


def _prefixed(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _row(value: bytes) -> U8:
    return np.frombuffer(value, dtype=np.uint8).reshape(1, -1)


def _hash_to_scalar(messages: U8, dst: bytes) -> U8:
    """HashToScalar of the suite (§4.1)."""
    return kernels.scalar255_reduce(kernels.expand_message_xmd(messages, dst, 64))


def _evaluate_inputs(inputs: U8, dst: bytes, scalar: U8) -> U8:
    return kernels.oprf_finalize(inputs, kernels.ristretto255_hash_mul(inputs, dst, scalar))


def _weights(public: bytes, blinded: U8, evaluated: U8) -> U8:
    """The d_i of ComputeComposites (§2.2.1), uint8[n, 32]: public, bound to the key and the pair of row i."""
    count = len(blinded)
    if not 1 <= count <= MAX_PROVED or blinded.shape != evaluated.shape:
        raise ParameterError(
            f"a proof covers 1 to {MAX_PROVED} pairs of elements, not {count} and {len(evaluated)}:"
            " prove in batches"
        )
    context = _context(Mode.VOPRF)
    seed = sha512(_prefixed(public) + _prefixed(b"Seed-" + context)).digest()
    index = np.arange(count, dtype=">u2").view(np.uint8).reshape(count, 2)
    transcripts = np.concatenate(
        [
            np.broadcast_to(piece, (count, piece.shape[1]))
            for piece in (
                _row(_prefixed(seed)),
                index,
                _row(b"\0\x20"),
                blinded,
                _row(b"\0\x20"),
                evaluated,
                _row(b"Composite"),
            )
        ],
        axis=1,
    )
    return _hash_to_scalar(transcripts, b"HashToScalar-" + context)


def _composite(elements: U8, weights: U8, name: str, executor: Executor | None) -> U8:
    """The weighted sum of a peer's elements, none of which may be the identity: uint8[1, 32]."""
    identity = ~elements.any(axis=1)
    if identity.any():
        raise VerificationError(f"row {int(identity.argmax())} of the {name} is the identity element")
    try:
        return ristretto255.weighted_sum(elements, weights, executor=executor)
    except kernels.InvalidPoint as error:
        raise VerificationError(
            f"row {error.index} of the {name} is not the canonical encoding of one"
        ) from error


def _challenge(public: bytes, *elements: U8) -> U8:
    transcript = (
        b"".join(map(_prefixed, (public, *(element.tobytes() for element in elements)))) + b"Challenge"
    )
    return _hash_to_scalar(_row(transcript), b"HashToScalar-" + _context(Mode.VOPRF))
