"""AES-128 (FIPS 197) over a batch of blocks, as counter mode and as a hash with a fixed key.

``aes128_hash`` is Matyas-Meyer-Oseas chaining with one public key for all blocks: h' = π(h ⊕ x) ⊕ h ⊕ x, the
fixed-key hash of Bellare, Hoang, Keelveedhi and Rogaway (S&P 2013). *Not constant time*: table look-ups.
"""

from __future__ import annotations

import numpy as np

from trustcompute.kernels.arrays import U8


def _doubled(values: U8) -> U8:
    """Multiplication by x in GF(2⁸) with x⁸ + x⁴ + x³ + x + 1."""
    return values << np.uint8(1) ^ (values >> np.uint8(7)) * np.uint8(0x1B)


def _sbox() -> U8:
    """FIPS 197 §5.1.1: the inverse in GF(2⁸), then an affine map. Found by running through all powers of 3 and 1/3."""
    box = np.zeros(256, dtype=np.uint8)
    value, inverse = 1, 1
    for _ in range(255):
        value ^= (value << 1 ^ (0x11B if value & 0x80 else 0)) & 0xFF
        inverse ^= inverse << 1
        inverse ^= inverse << 2
        inverse ^= inverse << 4
        inverse &= 0xFF
        inverse ^= 0x09 if inverse & 0x80 else 0
        turned = [inverse] + [(inverse << r | inverse >> (8 - r)) & 0xFF for r in (1, 2, 3, 4)]
        box[value] = np.bitwise_xor.reduce(np.array(turned, dtype=np.uint8)) ^ 0x63
    box[0] = 0x63
    return box


SBOX = _sbox()
SHIFT_ROWS = np.array(
    [(i + 4 * (i % 4)) % 16 for i in range(16)]
)  # where byte i of the next state comes from


def round_keys(keys: U8) -> U8:
    """FIPS 197 §5.2, of each key: uint8[n, 16] -> uint8[11, n, 16]."""
    words = [keys[:, 4 * i : 4 * i + 4] for i in range(4)]
    constant = 1
    for i in range(4, 44):
        word = words[i - 1]
        if i % 4 == 0:
            word = SBOX[np.roll(word, -1, axis=1)]
            word[:, 0] ^= constant
            constant = constant << 1 ^ (0x11B if constant & 0x80 else 0)
        words.append(words[i - 4] ^ word)
    return np.stack([np.concatenate(words[i : i + 4], axis=1) for i in range(0, 44, 4)])


def encrypt(key: bytes, blocks: U8) -> U8:
    """AES-128 of each block: uint8[n, 16] -> uint8[n, 16]."""
    return _encrypted(round_keys(np.frombuffer(key, dtype=np.uint8).reshape(1, 16)), blocks)


def _encrypted(keys: U8, blocks: U8) -> U8:
    state = blocks ^ keys[0]
    for number in range(1, 11):
        state = SBOX[state][:, SHIFT_ROWS]
        if number < 10:
            a = state.reshape(-1, 4, 4)  # [block, column, row]
            whole = np.bitwise_xor.reduce(a, axis=2, keepdims=True)
            state = (a ^ whole ^ _doubled(a ^ np.roll(a, -1, axis=2))).reshape(-1, 16)
        state = state ^ keys[number]
    return np.ascontiguousarray(state)


def counters(first: int, count: int) -> U8:
    """Blocks first, first + 1, ... as 128-bit little-endian integers below 2⁶⁴: uint8[count, 16]."""
    wide = np.zeros((count, 2), dtype="<u8")
    wide[:, 0] = np.arange(first, first + count, dtype=np.uint64)
    return wide.view(np.uint8)


def aes128_ctr(keys: U8, blocks: int) -> U8:
    out = np.empty((len(keys), 16 * blocks), dtype=np.uint8)
    for row, key in zip(out, keys, strict=True):
        row[:] = encrypt(key.tobytes(), counters(0, blocks)).reshape(-1)
    return out


def aes128_davies_meyer(keys: U8, rows: U8) -> U8:
    return _encrypted(round_keys(keys), rows) ^ rows


def aes128_hash(key: bytes, rows: U8) -> U8:
    state = np.zeros((len(rows), 16), dtype=np.uint8)
    for start in range(0, rows.shape[1], 16):
        mixed = state ^ rows[:, start : start + 16]
        state = encrypt(key, mixed) ^ mixed
    return state
