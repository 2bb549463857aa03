"""Trees of pseudorandom values, from their roots, or all but one leaf of each from what a receiver may know.

Goldreich, Goldwasser and Micali's tree with a fixed-key hash: the children of a node s are π_L(s) ⊕ s and
π_R(s) ⊕ s. A tree of m leaves has ⌈log2 m⌉ levels below its root, and of each level only the nodes above some leaf.
"""

from __future__ import annotations

import numpy as np

from trustcompute.kernels.arrays import I64, U8, tree_depth, tree_level
from trustcompute.kernels.reference.aes import aes128_hash


def _children(nodes: U8, width: int, keys: bytes) -> U8:
    """The next level of all trees: uint8[t, w, 16] -> uint8[t, width, 16]."""
    trees, parents, _ = nodes.shape
    flat = nodes.reshape(-1, 16)
    both = np.stack([aes128_hash(keys[:16], flat), aes128_hash(keys[16:], flat)], axis=1)
    return both.reshape(trees, 2 * parents, 16)[:, :width]


def _sums(nodes: U8) -> U8:
    """Left children and right children of a level, each added up: uint8[t, 2, 16]."""
    left = np.bitwise_xor.reduce(nodes[:, 0::2], axis=1)
    right = np.bitwise_xor.reduce(nodes[:, 1::2], axis=1)
    return np.stack([left, right], axis=1)


def pprf_expand(roots: U8, leaves: int, keys: bytes) -> tuple[U8, U8]:
    depth = tree_depth(leaves)
    nodes = roots.reshape(-1, 1, 16)
    sums = np.empty((len(roots), depth, 2, 16), dtype=np.uint8)
    for level in range(1, depth + 1):
        nodes = _children(nodes, tree_level(leaves, level), keys)
        sums[:, level - 1] = _sums(nodes)
    return np.ascontiguousarray(nodes).reshape(-1, 16), sums.reshape(-1, 16)


def pprf_puncture(sums: U8, points: I64, leaves: int, keys: bytes) -> tuple[U8, U8]:
    trees, depth = len(points), tree_depth(leaves)
    known = sums.reshape(trees, depth, 16)
    nodes = np.zeros((trees, 1, 16), dtype=np.uint8)
    tree = np.arange(trees)
    for level in range(1, depth + 1):
        path = points >> (depth - level)
        nodes = _children(nodes, tree_level(leaves, level), keys).copy()
        width = nodes.shape[1]
        nodes[tree, path] = 0
        sibling = path ^ 1
        inside = sibling < width
        nodes[tree[inside], sibling[inside]] = 0
        side = _sums(nodes)[tree, sibling & 1]
        nodes[tree[inside], sibling[inside]] = (side ^ known[:, level - 1])[inside]
    return nodes.reshape(-1, 16), np.bitwise_xor.reduce(nodes, axis=1)
