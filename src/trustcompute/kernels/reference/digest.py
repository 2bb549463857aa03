"""Hashing, row by row: expand_message_xmd (RFC 9380), the OPRF's last hash (RFC 9497), digests of table
rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

from trustcompute.kernels.arrays import U8, Column, FixedColumn
from trustcompute.kernels.reference.scalar import packed

BLOCK = 128  # bytes a SHA-512 block, s_in_bytes
OUTPUT = 64  # bytes of a SHA-512 output, b_in_bytes


def expand_message(message: bytes, dst: bytes, length: int) -> bytes:
    """RFC 9380 §5.3.1, with SHA-512."""
    dst_prime = dst + bytes([len(dst)])
    first = hashlib.sha512(bytes(BLOCK) + message + length.to_bytes(2, "big") + b"\0" + dst_prime).digest()
    block = bytes(OUTPUT)
    uniform = b""
    for index in range(1, -(-length // OUTPUT) + 1):
        mixed = bytes(a ^ b for a, b in zip(first, block, strict=True))
        block = hashlib.sha512(mixed + bytes([index]) + dst_prime).digest()
        uniform += block
    return uniform[:length]


def expand_message_xmd(messages: U8, dst: bytes, length: int) -> U8:
    return packed((expand_message(row.tobytes(), dst, length) for row in messages), length)


def oprf_finalize(inputs: U8, elements: U8) -> U8:
    width = inputs.shape[1].to_bytes(2, "big")
    return packed(
        (
            hashlib.sha512(width + x.tobytes() + b"\0\x20" + n.tobytes() + b"Finalize").digest()
            for x, n in zip(inputs, elements, strict=True)
        ),
        64,
    )


def _cells(column: Column) -> Iterator[bytes]:
    """tag ‖ length ‖ bytes of every cell."""
    tag = bytes([column.tag])
    if isinstance(column, FixedColumn):
        head = tag + column.values.shape[1].to_bytes(4, "little")
        for row in column.values:
            yield head + row.tobytes()
        return
    data, offsets = column.data.tobytes(), column.offsets.tolist()
    for start, end in pairwise(offsets):
        yield tag + (end - start).to_bytes(4, "little") + data[start:end]


def digest_columns(prefix: bytes, count: int, columns: Sequence[Column]) -> U8:
    cells = zip(*map(_cells, columns), strict=True)
    return packed((hashlib.sha256(prefix + b"".join(row)).digest() for row in cells), 32).reshape(count, 32)
