"""Merkle trees against published vectors, and against the attack that the prefixes are there for."""

import hashlib

import pytest

from schemas.audit import ConsistencyProof, InclusionProof
from schemas.errors import InvalidError
from schemas.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    subtree_of,
    subtree_over,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves, roots and paths that certificate-transparency and its successors test RFC 6962 with.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
HASHES = [leaf_hash(leaf) for leaf in LEAVES]


@pytest.mark.parametrize(("size", "root"), ROOTS.items())
def test_roots_are_those_of_the_published_vectors(size: int, root: str) -> None:
    assert root_of(HASHES[:size]).hex() == root
    frontier = Frontier()
    frontier.extend(HASHES[:size])
    assert frontier.root().hex() == root


@pytest.mark.parametrize(("place", "path"), INCLUSION.items())
def test_inclusion_paths_are_those_of_the_published_vectors(place: tuple[int, int], path: list[str]) -> None:
    index, size = place
    proof = inclusion_proof(index, size, subtree_of(HASHES))
    assert [node.hex() for node in proof.path] == path
    assert verify_inclusion(HASHES[index], proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("sizes", "path"), CONSISTENCY.items())
def test_consistency_paths_are_those_of_the_published_vectors(sizes: tuple[int, int], path: list[str]) -> None:
    old, new = sizes
    proof = consistency_proof(old, new, subtree_of(HASHES))
    assert [node.hex() for node in proof.path] == path
    assert verify_consistency(proof, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]))


def test_a_node_cannot_be_passed_off_as_a_leaf() -> None:
    """The second-preimage attack: a tree of 4 shown as one of 2, whose "entries" are the halves of the tree.

              root                 root'
            /      \\             /     \\
          n01      n23         E=l0‖l1  F=l2‖l3
          / \\      / \\
        l0  l1   l2  l3
    """
    forged = [HASHES[0] + HASHES[1], HASHES[2] + HASHES[3]]
    root = root_of(HASHES[:4])
    assert root_of([leaf_hash(entry) for entry in forged]) != root
    # Without the prefix of a leaf the attack works, so the test attacks what it says.
    without_prefix = [hashlib.sha256(b"\x01" + entry).digest() for entry in forged]
    assert root_of(without_prefix) == root
    proof = InclusionProof(index=0, size=2, path=(node_hash(HASHES[2], HASHES[3]),))
    assert not verify_inclusion(leaf_hash(forged[0]), proof, root)


def test_a_proof_does_not_hold_with_a_node_too_many_or_too_few() -> None:
    root = root_of(HASHES)
    path = inclusion_proof(5, 8, subtree_of(HASHES)).path
    for wrong in (path[:-1], path[1:], (*path, path[0]), (path[0][:-1], *path[1:]), ()):
        assert not verify_inclusion(HASHES[5], InclusionProof(index=5, size=8, path=wrong), root)
    steps = consistency_proof(6, 8, subtree_of(HASHES)).path
    for wrong in (steps[:-1], steps[1:], (*steps, steps[0]), ()):
        proof = ConsistencyProof(old_size=6, new_size=8, path=wrong)
        assert not verify_consistency(proof, root_of(HASHES[:6]), root)


def test_the_empty_tree_is_a_prefix_only_under_its_own_root() -> None:
    proof = consistency_proof(0, 8, subtree_of(HASHES))
    assert verify_consistency(proof, EMPTY_ROOT, root_of(HASHES))
    assert not verify_consistency(proof, HASHES[0], root_of(HASHES))


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_subtrees_from_stored_nodes_equal_those_from_leaves(size: int) -> None:
    def node(level: int, index: int) -> bytes:
        width = 1 << level
        assert (index + 1) * width <= size, "only complete nodes are stored"
        return root_of(HASHES[index * width : (index + 1) * width])

    for index in range(size):
        assert inclusion_proof(index, size, subtree_over(node)) == inclusion_proof(index, size, subtree_of(HASHES))
    for old in range(size + 1):
        assert consistency_proof(old, size, subtree_over(node)) == consistency_proof(old, size, subtree_of(HASHES))


def test_what_is_not_in_the_tree_has_no_proof() -> None:
    with pytest.raises(InvalidError):
        inclusion_proof(8, 8, subtree_of(HASHES))
    with pytest.raises(InvalidError):
        consistency_proof(9, 8, subtree_of(HASHES))
    frontier = Frontier()
    frontier.append(HASHES[0])
    with pytest.raises(InvalidError):
        frontier.append_complete(HASHES[1], 2)
