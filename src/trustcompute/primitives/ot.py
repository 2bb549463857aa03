"""Oblivious transfer of random keys: a few by Diffie-Hellman, many from 128 of these.

Called by ``psi.vole`` and ``psi.vole_malicious``. The sender gets two keys a transfer, the receiver the one of its
choice.

*Base transfers*, on ristretto255: Masny and Rindal, "Endemic Oblivious Transfer" (CCS 2019, §5), with one element of
the sender's for all. The receiver sends two elements of which it can know the logarithm of one only, once the hash of
the other is subtracted; the sender multiplies both by one secret. Choices are hidden whatever the sender computes: both
elements are uniform. Keys not chosen are hidden under computational Diffie-Hellman with random oracles, whatever the
receiver sends. (A receiver that deviates can influence its keys; nothing here needs them to be uniform then.)

*Extension*: Ishai, Kilian, Nissim and Petrank (CRYPTO 2003), semi-honest, and with ``prove`` against any receiver: 128
base transfers in the other direction give any number at the price of symmetric cryptography. 256 multiplications on the
curve replace the 1,900 and more that the trees of a silent VOLE would take.
"""

from __future__ import annotations

import hmac
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels import FixedColumn
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import ristretto255
from trustcompute.primitives.parallel import map_rows
from trustcompute.primitives.rng import Rng

Bits = npt.NDArray[np.bool_]

KEY: Final = 16  # bytes
WIDTH: Final = 128  # base transfers of an extension
_BASE: Final = b"trustcompute base oblivious transfer v2".ljust(64, b"\0")
_OTHER: Final = b"trustcompute base oblivious transfer v2 hash to group"
_EXTENDED: Final = b"trustcompute extended oblivious transfer v1".ljust(64, b"\0")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the receiver of base transfers keeps: its choices (bool[n]), the logarithms it knows (uint8[n, 32]), and the
    pairs it sent (uint8[n, 2, 32])."""

    choices: Bits = field(repr=False)
    logarithms: U8 = field(repr=False)
    pairs: U8 = field(repr=False)


def start(rng: Rng) -> tuple[U8, U8]:
    """The sender's secret and the element it sends, uint8[1, 32] each."""
    secret = ristretto255.random_scalars(rng, 1)
    return secret, kernels.ristretto255_mul_base(secret)


def choose(choices: Bits, rng: Rng) -> tuple[Chosen, U8]:
    """The receiver's choices: what it keeps, and the pairs of elements it sends, uint8[n, 2, 32]."""
    count, side = len(choices), choices.astype(np.uint8)
    negative = ristretto255.random_scalars(rng, count)
    logarithms = kernels.scalar255_sub(np.zeros_like(negative), negative)
    other = kernels.ristretto255_from_uniform(rng.array(64 * count).reshape(count, 64))
    known = kernels.ristretto255_sub(_hashed(other, side), kernels.ristretto255_mul_base(negative))
    mask = choices[:, None]
    pairs = np.stack([np.where(mask, other, known), np.where(mask, known, other)], axis=1)
    return Chosen(choices, logarithms, pairs), pairs


def received_keys(chosen: Chosen, element: U8, *, executor: Executor | None = None) -> U8:
    """The receiver's keys, uint8[n, 16]. Raises ``RemoteProtocolError`` if the sender's element is none."""
    repeated = np.repeat(element, len(chosen.choices), axis=0)
    shared = ristretto255.multiply(repeated, chosen.logarithms, name="sender's elements", executor=executor)
    return _keys(shared, chosen.choices.astype(np.uint8), element, chosen.pairs)


def sent_keys(secret: U8, element: U8, pairs: U8, *, executor: Executor | None = None) -> U8:
    """The sender's keys, uint8[n, 2, 16]. Raises ``RemoteProtocolError`` naming the first pair that is no element."""
    ristretto255.check(pairs.reshape(-1, 32), name="paired elements", executor=executor)
    sides = [np.full(len(pairs), side, dtype=np.uint8) for side in (0, 1)]
    bases = [
        map_rows(
            kernels.ristretto255_sub,
            pairs[:, side].copy(),
            _hashed(pairs[:, 1 - side].copy(), sides[side]),
            executor=executor,
            chunk=_SUBTRACTED,
        )
        for side in (0, 1)
    ]
    both = ristretto255.multiply(np.concatenate(bases), secret, name="paired elements", executor=executor)
    count = len(pairs)
    keys = [_keys(both[side * count :][:count], sides[side], element, pairs) for side in (0, 1)]
    return np.stack(keys, axis=1)


_SUBTRACTED: Final = 64
"""Rows a task of subtractions."""


def _hashed(others: U8, sides: U8) -> U8:
    """What to subtract from the element on this side: a hash of the other one, the side and the transfer's number."""
    return kernels.ristretto255_hash(
        np.concatenate([others, sides[:, None], _numbers(len(others))], axis=1), _OTHER
    )


def _keys(shared: U8, sides: U8, element: U8, pairs: U8) -> U8:
    count = len(shared)
    parts = [
        _numbers(count),
        sides[:, None],
        shared,
        np.repeat(element, count, axis=0),
        pairs.reshape(count, 64),
    ]
    columns = [FixedColumn(tag, np.ascontiguousarray(part)) for tag, part in enumerate(parts)]
    return np.ascontiguousarray(kernels.digest_columns(_BASE, columns)[:, :KEY])


def _numbers(count: int) -> U8:
    return np.arange(count, dtype="<u8").reshape(count, 1).view(np.uint8)


def extension_bytes(count: int) -> int:
    """Bytes of each of the 128 rows that the receiver of an extension sends."""
    return -(-count // 8)


def extend_receiver(keys: U8, choices: Bits) -> tuple[U8, U8]:
    """The receiver of the extension, who sent the base transfers.

    keys: uint8[128, 2, 16]; choices: bool[n] -> what it sends, uint8[128, ⌈n/8⌉], and its pads, uint8[n, 16].
    """
    count, width = len(choices), extension_bytes(len(choices))
    streams = kernels.aes128_ctr(keys.reshape(-1, KEY), -(-width // 16))[:, :width].reshape(WIDTH, 2, width)
    masked = streams[:, 0] ^ streams[:, 1] ^ np.packbits(choices, bitorder="little")
    return masked, _pads(_rows(streams[:, 0], count))


def extend_sender(keys: U8, secret: Bits, masked: U8, count: int) -> U8:
    """The sender of the extension, who received the base transfers of its secret.

    keys: uint8[128, 16]; secret: bool[128]; masked: uint8[128, ⌈n/8⌉] -> both pads of each, uint8[n, 2, 16].
    """
    width = extension_bytes(count)
    streams = kernels.aes128_ctr(keys, -(-width // 16))[:, :width]
    rows = _rows(streams ^ masked * secret[:, None], count)
    return np.stack([_pads(rows), _pads(rows ^ np.packbits(secret, bitorder="little"))], axis=1)


def padded_choices(choices: Bits, rng: Rng) -> Bits:
    """Choices, filled up with random ones to whole blocks, and a block more that hides the rest in ``prove``."""
    count = -(-len(choices) // WIDTH) * WIDTH + WIDTH
    filled = np.unpackbits(rng.array(count // 8), bitorder="little").astype(np.bool_)
    filled[: len(choices)] = choices
    return filled


def prove(keys: U8, choices: Bits, challenge: bytes) -> tuple[U8, U8]:
    """Show that an extension's columns all hold the same choices.

    keys uint8[128, 2, 16], choices bool[n] -> their sum uint8[1, 16], the columns' sums uint8[128, 16].
    choices: from ``padded_choices``; challenge: 16 bytes that depend on what ``extend_receiver`` sent. The check of
    Roy, "SoftSpokenOT" (CRYPTO 2022, §4), with a linear hash over GF(2¹²⁸): a receiver that deviates passes with
    probability 2⁻ᵏ for k bits of the sender's secret it has to guess, or 2⁻¹²⁸.
    """
    width = len(choices) // 8
    weights = _weights(challenge, width // 16)
    columns = kernels.aes128_ctr(np.ascontiguousarray(keys[:, 0]), width // 16)
    own = kernels.gf128_dot(np.packbits(choices, bitorder="little").reshape(-1, 16), weights)
    return own, _column_sums(columns, weights)


def check_proof(keys: U8, secret: Bits, masked: U8, challenge: bytes, own: U8, sums: U8) -> None:  # noqa: PLR0917
    """The other side of ``prove``: keys uint8[128, 16], secret bool[128]. Raises ``RemoteProtocolError``."""
    blocks = masked.shape[1] // 16
    columns = kernels.aes128_ctr(keys, blocks) ^ masked * secret[:, None]
    found = _column_sums(columns, _weights(challenge, blocks))
    if not hmac.compare_digest(found.tobytes(), (sums ^ own * secret[:, None]).tobytes()):
        raise RemoteProtocolError(
            "the peer's transfers do not hold together: it deviated, or a message was altered"
        )


def _weights(challenge: bytes, blocks: int) -> U8:
    weights = kernels.aes128_ctr(np.frombuffer(challenge, dtype=np.uint8).reshape(1, 16), blocks).reshape(
        blocks, 16
    )
    weights[-1] = 0
    weights[-1, 0] = 1  # the last block hides the sum of the others
    return weights


def _column_sums(columns: U8, weights: U8) -> U8:
    return np.concatenate([kernels.gf128_dot(column.reshape(-1, 16), weights) for column in columns])


def _rows(columns: U8, count: int) -> U8:
    """Transpose a matrix of bits: uint8[128, ⌈n/8⌉] -> uint8[n, 16]."""
    bits = np.unpackbits(columns, axis=1, count=count, bitorder="little")
    return np.packbits(bits.T, axis=1, bitorder="little")


def _pads(rows: U8) -> U8:
    columns = [FixedColumn(0, _numbers(len(rows))), FixedColumn(1, rows)]
    return np.ascontiguousarray(kernels.digest_columns(_EXTENDED, columns)[:, :KEY])
