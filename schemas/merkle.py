"""Merkle trees by RFC 6962: hashes, roots and proofs. Pure.

One definition serves three callers: a connector signs the root over a batch, the gateway recomputes it, and the
audit log proves with it that an entry is in the log and that no earlier one was changed.

    leaf_hash, node_hash                       RFC 6962, 2.1: the prefixes 0x00 and 0x01
    root_of                                    root over leaf hashes; a batch of 1,000 takes under a millisecond
    Frontier                                   the right edge of a growing tree: append, root, in log2(n) memory
    inclusion_proof, consistency_proof         RFC 6962, 2.1.1 and 2.1.2, over any source of subtrees
    verify_inclusion, verify_consistency       RFC 9162, 2.1.3.2 and 2.1.4.2

The prefixes keep leaves and nodes apart: without them the two halves of a node could be passed off as a leaf (second
preimage). Callers must pass leaf *hashes*; a verifier that is given an entry hashes it itself.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from schemas.audit import ConsistencyProof, InclusionProof
from schemas.errors import InvalidError, Reason

__all__ = [
    "EMPTY_ROOT",
    "HASH_SIZE",
    "Frontier",
    "Subtree",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_of",
    "subtree_of",
    "subtree_over",
    "verify_consistency",
    "verify_inclusion",
]

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()  # RFC 6962, 2.1: the hash of an empty list

Subtree: TypeAlias = Callable[[int, int], bytes]
"""Root over the leaves [start, end): MTH(D[start:end]) in the words of RFC 6962."""

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of one entry: SHA-256(0x00 ‖ entry)."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 ‖ left ‖ right)."""
    return _sha256(b"\x01" + left + right).digest()


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes of 32 bytes each; `EMPTY_ROOT` for none.

    Pairing level by level and carrying an odd last node up is the same tree as RFC 6962's, which splits at the
    largest power of two below the size.
    """
    if not leaf_hashes:
        return EMPTY_ROOT
    new_node = _sha256(b"\x01").copy  # a copied state is faster than a new one
    level = list(leaf_hashes)
    while len(level) > 1:
        above = []
        for left, right in zip(level[::2], level[1::2], strict=False):
            node = new_node()
            node.update(left)
            node.update(right)
            above.append(node.digest())
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


class Frontier:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first.

    A verifier streams a million leaves through it in constant memory.
    """

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []  # one for each 1 bit of the size

    def copy(self) -> "Frontier":
        """Return an independent copy."""
        copy = Frontier()
        copy.size, copy._roots = self.size, self._roots.copy()
        return copy

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        roots, size = self._roots, self.size
        while size & 1:
            leaf = _sha256(b"\x01" + roots.pop() + leaf).digest()
            size >>= 1
        roots.append(leaf)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes in order."""
        for leaf in leaves:
            self.append(leaf)

    def append_complete(self, root: bytes, width: int) -> None:
        """Add a complete subtree of *width* leaves by its root: a whole tile at once.

        Raises:
            InvalidError: REQUEST_INVALID, when the width is no power of two or the tree's size no multiple of it.
        """
        if width < 1 or width & (width - 1) or self.size % width:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got a subtree of {width} leaves for a tree of {self.size}; expected a power of two that divides it",
            )
        size = self.size // width
        while size & 1:
            root = _sha256(b"\x01" + self._roots.pop() + root).digest()
            size >>= 1
        self._roots.append(root)
        self.size += width

    def root(self) -> bytes:
        """Return the root over all leaves so far; `EMPTY_ROOT` for none."""
        if not self._roots:
            return EMPTY_ROOT
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = node_hash(left, root)
        return root


def subtree_of(leaf_hashes: Sequence[bytes]) -> Subtree:
    """Return the subtrees over leaf hashes in memory."""
    return lambda start, end: root_of(leaf_hashes[start:end])


def subtree_over(node: Callable[[int, int], bytes]) -> Subtree:
    """Return the subtrees over a store of complete nodes, such as tiles.

    Args:
        node: `node(level, index)` is the root over the 2^level leaves from index · 2^level on.
    """

    def subtree(start: int, end: int) -> bytes:
        # RFC 6962 only ever asks for ranges that begin at a multiple of the power of two that holds them.
        width = end - start
        level = width.bit_length() - 1
        if width == 1 << level:
            return node(level, start >> level)
        middle = start + (1 << level)
        return node_hash(node(level, start >> level), subtree(middle, end))

    return subtree


def inclusion_proof(index: int, size: int, subtree: Subtree) -> InclusionProof:
    """Return the proof that leaf *index* is in the tree of *size* leaves (RFC 6962, 2.1.1).

    Raises:
        InvalidError: REQUEST_INVALID, when there is no such leaf in a tree of that size.
    """
    if not 0 <= index < size:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got leaf {index} of a tree of {size}; expected an index from 0 to {size - 1}"
        )
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    return InclusionProof(index=index, size=size, path=tuple(reversed(path)))


def consistency_proof(old_size: int, new_size: int, subtree: Subtree) -> ConsistencyProof:
    """Return the proof that the tree of *old_size* leaves is a prefix of the one of *new_size* (RFC 6962, 2.1.2).

    Raises:
        InvalidError: REQUEST_INVALID, when the old tree is larger than the new one, or a size is negative.
    """
    if not 0 <= old_size <= new_size:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got trees of {old_size} and {new_size} leaves; expected the older to be smaller"
        )
    path: list[bytes] = []
    if 0 < old_size < new_size:
        start, end = 0, new_size
        # Descend to where the old tree ends; `whole` = the old tree is exactly this subtree (SUBPROOF's b).
        whole = True
        while old_size != end:
            middle = start + _split(end - start)
            if old_size <= middle:
                path.append(subtree(middle, end))
                end = middle
            else:
                path.append(subtree(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(subtree(start, end))
    return ConsistencyProof(old_size=old_size, new_size=new_size, path=tuple(reversed(path)))


def verify_inclusion(leaf: bytes, proof: InclusionProof, root: bytes) -> bool:
    """Return whether the leaf hash is at the proof's index, under this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= proof.index < proof.size:
        return False
    at, last, found = proof.index, proof.size - 1, leaf
    for sibling in proof.path:
        if last == 0 or len(sibling) != HASH_SIZE:
            return False
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            found = node_hash(found, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and hmac.compare_digest(found, root)


def verify_consistency(proof: ConsistencyProof, old_root: bytes, new_root: bytes) -> bool:
    """Return whether the new tree begins with all of the old one (RFC 9162, 2.1.4.2).

    An empty old tree is a prefix of every tree, and its root is `EMPTY_ROOT`.
    """
    old_size, new_size, path = proof.old_size, proof.new_size, list(proof.path)
    if not 0 <= old_size <= new_size or any(len(node) != HASH_SIZE for node in path):
        return False
    if old_size in (0, new_size):
        same = new_root if old_size == new_size else EMPTY_ROOT
        return not path and hmac.compare_digest(old_root, same)
    if not old_size & (old_size - 1):  # the old tree is a complete subtree: its root begins the path
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at >>= 1
        last >>= 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            new = node_hash(new, node)
        at >>= 1
        last >>= 1
    return last == 0 and hmac.compare_digest(old, old_root) and hmac.compare_digest(new, new_root)


def _split(size: int) -> int:
    """Return the largest power of two below *size* (RFC 6962, 2.1), for sizes above 1."""
    return 1 << (size - 1).bit_length() - 1
