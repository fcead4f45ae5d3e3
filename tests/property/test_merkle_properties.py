"""RFC 6962 written down as it stands there, and the fast code held against it."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from schemas.audit import ConsistencyProof, InclusionProof
from schemas.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    subtree_of,
    verify_consistency,
    verify_inclusion,
)


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(entries: list[bytes]) -> bytes:
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: list[bytes]) -> list[bytes]:
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: list[bytes], whole: bool) -> list[bytes]:
    if m == len(entries):
        return [] if whole else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], False), mth(entries[:k])]


entries = st.integers(1, 70).map(lambda n: [i.to_bytes(2, "big") for i in range(n)])


@given(entries, st.data())
def test_proofs_are_those_of_the_rfc_and_hold(tree: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(entry) for entry in tree]
    index = data.draw(st.integers(0, len(tree) - 1))
    old = data.draw(st.integers(1, len(tree)))
    assert root_of(leaves) == mth(tree)
    inclusion = inclusion_proof(index, len(tree), subtree_of(leaves))
    assert list(inclusion.path) == path(index, tree)
    assert verify_inclusion(leaves[index], inclusion, mth(tree))
    consistency = consistency_proof(old, len(tree), subtree_of(leaves))
    assert list(consistency.path) == subproof(old, tree, True)
    assert verify_consistency(consistency, mth(tree[:old]), mth(tree))


@given(entries, st.data())
def test_no_proof_holds_for_another_leaf_index_size_or_root(tree: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(entry) for entry in tree]
    index = data.draw(st.integers(0, len(tree) - 1))
    proof = inclusion_proof(index, len(tree), subtree_of(leaves))
    other = data.draw(st.integers(0, len(tree) - 1).filter(lambda i: i != index) if len(tree) > 1 else st.just(1))
    assert not verify_inclusion(leaf_hash(b"another"), proof, mth(tree))
    assert not verify_inclusion(leaves[index], proof, leaf_hash(b"another"))
    moved = InclusionProof(index=other, size=len(tree), path=proof.path)
    assert not verify_inclusion(leaves[index], moved, mth(tree))


@given(entries, st.data())
def test_a_rewritten_past_is_never_a_prefix(tree: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(1, len(tree)))
    touched = data.draw(st.integers(0, old - 1))
    rewritten = [*tree[:touched], b"rewritten", *tree[touched + 1 :]]
    leaves = [leaf_hash(entry) for entry in rewritten]
    proof = consistency_proof(old, len(tree), subtree_of(leaves))
    assert not verify_consistency(proof, mth(tree[:old]), mth(rewritten))
    stretched = ConsistencyProof(old_size=old, new_size=len(tree) + 1, path=proof.path)
    assert not verify_consistency(stretched, mth(tree[:old]), mth(rewritten))


@given(st.lists(st.binary(max_size=4), max_size=40), st.data())
def test_a_frontier_grows_like_the_tree(tree: list[bytes], data: st.DataObject) -> None:
    frontier = Frontier()
    done = 0
    while done < len(tree):
        widths = [w for w in (1, 2, 4, 8, 16) if done % w == 0 and done + w <= len(tree)]
        width = data.draw(st.sampled_from(widths))
        frontier.append_complete(mth(tree[done : done + width]), width)
        done += width
        assert frontier.root() == mth(tree[:done])
    assert frontier.size == len(tree)
