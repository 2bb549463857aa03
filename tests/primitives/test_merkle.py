from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import merkle
from trustcompute.primitives.merkle import Tree

# The eight leaves and the roots of sizes 0 to 8 that the reference implementations of RFC 6962 test with.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
N = 40


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# The definitions of RFC 6962 §2.1 by recursion, as the oracle.
def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return sha(b"\x00" + leaves[0])
    k = max(2**i for i in range(20) if 2**i < len(leaves))
    return sha(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = max(2**i for i in range(20) if 2**i < len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = max(2**i for i in range(20) if 2**i < len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


ENTRIES = [f"entry {i}".encode() for i in range(N)]
HASHES = [merkle.leaf_hash(entry) for entry in ENTRIES]
TREE = Tree(HASHES)


@pytest.mark.vectors
def test_known_roots() -> None:
    tree = Tree()
    for size, root in enumerate(ROOTS):
        assert tree.root().hex() == root
        if size < len(LEAVES):
            tree.append(merkle.leaf_hash(bytes.fromhex(LEAVES[size])))
    assert [tree.root(size).hex() for size in range(9)] == ROOTS


@pytest.mark.vectors
def test_known_proofs() -> None:
    # RFC 6962 §2.1.3: the tree of seven leaves d0..d6, named as there
    leaves = [bytes([i]) for i in range(7)]
    a, b, c, d, e, f, j = (sha(b"\x00" + leaf) for leaf in leaves)
    g, h, i = (sha(b"\x01" + x + y) for x, y in [(a, b), (c, d), (e, f)])
    k, ell = sha(b"\x01" + g + h), sha(b"\x01" + i + j)
    tree = Tree([a, b, c, d, e, f, j])
    assert tree.inclusion_proof(0) == [b, h, ell]
    assert tree.inclusion_proof(3) == [c, g, ell]
    assert tree.inclusion_proof(4) == [f, j, k]
    assert tree.inclusion_proof(6) == [i, k]
    assert tree.consistency_proof(3) == [c, d, g, ell]
    assert tree.consistency_proof(4) == [ell]
    assert tree.consistency_proof(6) == [i, j, k]


def test_roots_and_proofs_of_all_small_trees_follow_the_definition() -> None:
    for size in range(N + 1):
        assert TREE.root(size) == mth(ENTRIES[:size])
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            assert proof == path(index, ENTRIES[:size])
            merkle.verify_inclusion(HASHES[index], index, size, proof, TREE.root(size))
        for old in range(size + 1):
            proof = TREE.consistency_proof(old, size)
            assert proof == (subproof(old, ENTRIES[:size], True) if old else [])
            merkle.verify_consistency(old, size, proof, TREE.root(old), TREE.root(size))


@st.composite
def inclusion(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, N))
    return draw(st.integers(0, size - 1)), size


@pytest.mark.property
@given(inclusion(), st.data())
@settings(max_examples=150, deadline=None)
def test_an_altered_inclusion_proof_is_refused(where: tuple[int, int], data: st.DataObject) -> None:
    index, size = where
    proof, root = TREE.inclusion_proof(index, size), TREE.root(size)
    parts = [HASHES[index], root, *proof]
    which = data.draw(st.integers(0, len(parts) - 1))
    flipped = bytearray(parts[which])
    flipped[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    parts[which] = bytes(flipped)
    with pytest.raises(VerificationError):
        merkle.verify_inclusion(parts[0], index, size, parts[2:], parts[1])
    with pytest.raises(VerificationError):
        merkle.verify_inclusion(HASHES[index], index, size, [*proof, root], root)
    if proof:
        with pytest.raises(VerificationError):
            merkle.verify_inclusion(HASHES[index], index, size, proof[:-1], root)


@pytest.mark.property
@given(st.integers(2, N), st.data())
@settings(max_examples=150, deadline=None)
def test_an_altered_consistency_proof_is_refused(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    proof = TREE.consistency_proof(old, new)
    parts = [TREE.root(old), TREE.root(new), *proof]
    which = data.draw(st.integers(0, len(parts) - 1))
    flipped = bytearray(parts[which])
    flipped[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    parts[which] = bytes(flipped)
    with pytest.raises(VerificationError):
        merkle.verify_consistency(old, new, parts[2:], parts[0], parts[1])
    for wrong in ([], [*proof, proof[0]], proof[:-1]):
        with pytest.raises(VerificationError):
            merkle.verify_consistency(old, new, wrong, TREE.root(old), TREE.root(new))


def test_a_proof_serves_for_one_position_only() -> None:
    size = 13
    for index in range(size):
        for other in range(size):
            if other != index:
                with pytest.raises(VerificationError):
                    merkle.verify_inclusion(
                        HASHES[index], other, size, TREE.inclusion_proof(index, size), TREE.root(size)
                    )


def test_a_node_does_not_pass_for_a_leaf() -> None:
    root = TREE.root(4)
    left, right = TREE.root(2), merkle.node_hash(HASHES[2], HASHES[3])
    with pytest.raises(VerificationError):
        merkle.verify_inclusion(merkle.leaf_hash(left), 0, 2, [right], root)


def test_a_rewritten_log_is_not_consistent() -> None:
    other = Tree([merkle.leaf_hash(b"rewritten"), *HASHES[1:]])
    with pytest.raises(VerificationError, match="rewritten"):
        merkle.verify_consistency(5, N, other.consistency_proof(5), TREE.root(5), other.root())


def test_sizes_out_of_range_are_refused() -> None:
    for index, size in [(5, 5), (-1, 5), (0, 0), (0, 2**64)]:
        with pytest.raises(VerificationError):
            merkle.verify_inclusion(HASHES[0], index, size, [], HASHES[0])
    with pytest.raises(VerificationError):
        merkle.verify_inclusion(HASHES[0], 0, 1, [HASHES[0]] * 65, HASHES[0])
    for old, new in [(3, 2), (-1, 2)]:
        with pytest.raises(VerificationError):
            merkle.verify_consistency(old, new, [], HASHES[0], HASHES[0])
    with pytest.raises(ParameterError):
        TREE.root(N + 1)
    with pytest.raises(ParameterError):
        TREE.inclusion_proof(3, 3)
    with pytest.raises(ParameterError):
        TREE.append(b"short")


def test_truncating_forgets_what_came_after() -> None:
    for size in range(N + 1):
        tree = Tree(HASHES)
        tree.truncate(size)
        assert len(tree) == size and tree.root() == TREE.root(size)
        for leaf in HASHES[size:]:
            tree.append(leaf)
        assert tree.root() == TREE.root()
