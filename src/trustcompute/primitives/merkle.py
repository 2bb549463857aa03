"""Merkle trees over a list that only grows: RFC 6962 §2.1, and the verification algorithms of RFC 9162 §2.1.

Used by the broker's log and by whoever checks a receipt. SHA-256; leaves and nodes are hashed under different
prefixes, so a node cannot pass for an entry. A ``Tree`` keeps the hashes of all complete subtrees: 64 bytes a
leaf, appending takes amortised two hashes, roots and proofs of any earlier size O(log n).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from trustcompute.errors import ParameterError, VerificationError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()
MAX_SIZE: Final = 2**63 - 1
MAX_PROOF: Final = 64  # a path in a tree of 2^63 leaves


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """An append-only Merkle tree, held in memory. Not thread-safe."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]  # [k]: hashes of the complete subtrees of 2^k leaves
        self._edge: dict[tuple[int, int], bytes] = {}  # incomplete subtrees already asked for at this size
        self.append_all(b"".join(leaves))

    def __len__(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> int:
        """Add a leaf hash (32 bytes); returns its index."""
        if len(leaf) != HASH_BYTES:
            raise ParameterError(f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}")
        index = len(self)
        self._edge.clear()
        self._levels[0] += leaf
        level, count = 0, index + 1
        while count % 2 == 0:
            if level + 1 == len(self._levels):
                self._levels.append(bytearray())
            left, right = self._at(level, count - 2), self._at(level, count - 1)
            self._levels[level + 1] += node_hash(left, right)
            level, count = level + 1, count // 2
        return index

    def append_all(self, leaves: bytes) -> None:
        """Add leaf hashes, 32 bytes each, one after the other."""
        if len(leaves) % HASH_BYTES:
            raise ParameterError(
                f"leaf hashes have {HASH_BYTES} bytes each, these have {len(leaves)} together"
            )
        self._edge.clear()
        self._levels[0] += leaves
        pair, level = 2 * HASH_BYTES, 0
        while (complete := len(self._levels[level]) // pair) > 0:
            if level + 1 == len(self._levels):
                self._levels.append(bytearray())
            above = self._levels[level + 1]
            below = bytes(self._levels[level][2 * len(above) : complete * pair])
            above += b"".join(
                hashlib.sha256(b"\x01" + below[at : at + pair]).digest() for at in range(0, len(below), pair)
            )
            level += 1

    def hashes(self, level: int, start: int, end: int) -> bytes:
        """Roots of the complete subtrees start <= n < end of 2^level leaves each, one after the other."""
        count = len(self) >> level
        if not 0 <= start <= end <= count:
            raise ParameterError(f"level {level} of the tree has {count} complete subtrees, not {end}")
        return bytes(self._levels[level][start * HASH_BYTES : end * HASH_BYTES]) if end else b""

    def truncate(self, size: int) -> None:
        """Forget every leaf from ``size`` on."""
        self._check_size(size)
        self._edge.clear()
        for level, hashes in enumerate(self._levels):
            del hashes[(size >> level) * HASH_BYTES :]

    def leaf(self, index: int) -> bytes:
        self._check_size(index + 1)
        return self._at(0, index)

    def root(self, size: int | None = None) -> bytes:
        """MTH of the first ``size`` leaves (all of them by default)."""
        size = len(self) if size is None else size
        self._check_size(size)
        found = b""
        for level in range(
            size.bit_length()
        ):  # complete subtrees, one for each bit of the size, from the right
            if size >> level & 1:
                peak = self._at(level, (size >> level) - 1)
                found = node_hash(peak, found) if found else peak
        return found or EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """PATH(index, D[size]) of RFC 6962 §2.1.1, from the leaf upwards."""
        size = len(self) if size is None else size
        self._check_size(size)
        if not 0 <= index < size:
            raise ParameterError(f"a tree of {size} leaves has none with index {index}")
        path, level, last = (
            [],
            0,
            size - 1,
        )  # of the subtrees of 2^level leaves, the last one perhaps incomplete
        while last:
            beside = index ^ 1
            if (beside + 1) << level <= size:
                path.append(bytes(self._levels[level][beside * HASH_BYTES : (beside + 1) * HASH_BYTES]))
            elif beside <= last:
                path.append(self._hash(beside << level, size))
            index, last, level = index >> 1, last >> 1, level + 1
        return path

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """PROOF(old, D[new]) of RFC 6962 §2.1.2; empty where ``old`` is 0 or ``new``."""
        new = len(self) if new is None else new
        self._check_size(new)
        if not 0 <= old <= new:
            raise ParameterError(f"a tree of {old} leaves cannot have grown into one of {new}")
        if old in (0, new):
            return []
        start, end, whole, path = 0, new, True, []
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._hash(start, end))
        return path[::-1]

    def _at(self, level: int, position: int) -> bytes:
        start = position * HASH_BYTES
        return bytes(self._levels[level][start : start + HASH_BYTES])

    def _hash(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]); the algorithms only ask where ``start`` is a multiple of the split."""
        size = end - start
        if size & (size - 1) == 0:
            level = size.bit_length() - 1
            return self._at(level, start >> level)
        known = self._edge.get((start, end))
        if known is None:
            middle = start + _split(size)
            known = node_hash(self._hash(start, middle), self._hash(middle, end))
            if end == len(self):  # at most one for each level; proofs of other sizes are rare
                self._edge[start, end] = known
        return known

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= len(self):
            raise ParameterError(f"the tree has {len(self)} leaves, not {size}")


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 §2.1.3.2. Raises ``VerificationError`` unless the leaf is number ``index`` of that tree."""
    _check_proof(proof)
    if not 0 <= index < size <= MAX_SIZE:
        raise VerificationError(f"a tree of {size} leaves has none with index {index}")
    node, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise VerificationError("the inclusion proof is longer than the path in a tree of that size")
        if node & 1 or node == last:
            found = node_hash(step, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, step)
        node, last = node >> 1, last >> 1
    if last != 0 or found != root:
        raise VerificationError(
            "the entry is not in the tree with this root: the inclusion proof does not lead there"
        )


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """RFC 9162 §2.1.4.2. Raises ``VerificationError`` unless the new tree begins with the whole old one."""
    _check_proof(proof)
    if not 0 <= old <= new <= MAX_SIZE:
        raise VerificationError(f"a tree of {old} leaves cannot have grown into one of {new}")
    if old in (0, new):
        same = old_root == (EMPTY_ROOT if old == 0 else new_root)
        if proof or not same:
            raise VerificationError(
                "the two trees have the same size or the first is empty, and they contradict"
            )
        return
    steps = list(proof) if old & (old - 1) else [old_root, *proof]
    if not steps:
        raise VerificationError("the consistency proof is empty")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    found_old = found_new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise VerificationError("the consistency proof is longer than the path in a tree of that size")
        if node & 1 or node == last:
            found_old, found_new = node_hash(step, found_old), node_hash(step, found_new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found_new = node_hash(found_new, step)
        node, last = node >> 1, last >> 1
    if last != 0 or found_old != old_root or found_new != new_root:
        raise VerificationError(
            "the log was rewritten: the new tree does not begin with the leaves of the old"
        )


def _split(size: int) -> int:
    """The largest power of two below ``size`` (k of RFC 6962 §2.1)."""
    return 1 << (size - 1).bit_length() - 1


def _check_proof(proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF or any(len(step) != HASH_BYTES for step in proof):
        raise VerificationError(f"a proof is at most {MAX_PROOF} hashes of {HASH_BYTES} bytes")
