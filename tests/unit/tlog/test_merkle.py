"""RFC 6962 trees against the recursive transcription of the specification."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from tests import rfc6962

from gatebook.errors import VerificationError
from gatebook.tlog.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    frontier_at,
    inclusion_proof,
    leaf_hash,
    left_of,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

ENTRIES = [f"entry {index}".encode() for index in range(70)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
SIZES = [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537]


def subtree(level: int, number: int) -> bytes:
    """The hash of a complete subtree of the entries, from the oracle."""
    return rfc6962.mth(ENTRIES[number << level : (number + 1) << level])


def test_known_hashes() -> None:
    """The hashes are those that everybody else computes."""
    expected = {
        "empty": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "leaf of nothing": "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "leaf": "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56",
        "node": "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb",
    }

    actual = {
        "empty": EMPTY_ROOT.hex(),
        "leaf of nothing": leaf_hash(b"").hex(),
        "leaf": leaf_hash(b"L123456").hex(),
        "node": node_hash(b"N123", b"N456").hex(),
    }

    assert expected == actual


def test_roots_of_all_small_trees() -> None:
    """The root of each tree of up to 70 entries is MTH of RFC 6962 s2.1."""
    expected = [rfc6962.mth(ENTRIES[:size]) for size in range(71)]

    actual = [root_of(LEAVES[:size]) for size in range(71)]

    assert expected == actual


def test_roots_at_the_edges_of_tiles() -> None:
    """A frontier gives the root at each size around full tiles, without starting again."""
    entries = [index.to_bytes(3, "big") for index in range(SIZES[-1])]
    frontier, actual = Frontier(), {0: EMPTY_ROOT}

    for start, end in pairwise(SIZES):
        for entry in entries[start:end]:
            frontier.append(leaf_hash(entry))
        actual[end] = frontier.root()

    assert {size: rfc6962.mth(entries[:size]) for size in SIZES} == actual


def test_a_frontier_from_subtrees_goes_on() -> None:
    """A frontier made from the hashes of complete subtrees grows into the same tree."""
    for size in range(71):
        frontier = frontier_at(size, subtree)
        for leaf in LEAVES[size:]:
            frontier.append(leaf)

        assert rfc6962.mth(ENTRIES) == frontier.root()


def test_leaves_that_come_together_lead_where_single_ones_do() -> None:
    """A frontier of any size that grows by any number of leaves at once ends as if they had come one by one."""
    for size in range(35):
        for more in range(70):
            together, single = Frontier(), Frontier()
            leaves = [LEAVES[number % len(LEAVES)] for number in range(size + more)]
            for leaf in leaves:
                single.append(leaf)
            together.extend(leaves[:size])
            together.extend(leaves[size:])
            assert (together.size, together.hashes) == (size + more, single.hashes)


def test_a_copied_frontier_is_independent() -> None:
    """What is appended to a copy does not reach the original."""
    frontier = frontier_at(7, subtree)
    frontier.copy().append(LEAVES[7])

    assert (7, rfc6962.mth(ENTRIES[:7])) == (frontier.size, frontier.root())


def test_a_frontier_needs_one_hash_for_each_subtree() -> None:
    """A frontier with a hash too few is a bug, and says so."""
    with pytest.raises(ValueError, match="3 maximal subtrees"):
        Frontier(7, [LEAVES[0]])


def test_all_small_inclusion_proofs() -> None:
    """Each proof of each tree of up to 70 entries is PATH of RFC 6962 s2.1.1, and verifies."""
    for size in range(1, 71):
        root = rfc6962.mth(ENTRIES[:size])
        for index in range(size):
            proof = inclusion_proof(index, size, subtree)

            assert rfc6962.path(index, ENTRIES[:size]) == proof
            verify_inclusion(index, size, LEAVES[index], proof, root)


def test_all_small_consistency_proofs() -> None:
    """Each proof between trees of up to 70 entries is PROOF of RFC 6962 s2.1.2, and verifies."""
    roots = [rfc6962.mth(ENTRIES[:size]) for size in range(71)]
    for new in range(71):
        for old in range(new + 1):
            proof = consistency_proof(old, new, subtree)

            assert (rfc6962.proof(old, ENTRIES[:new]) if old else []) == proof
            verify_consistency(old, new, roots[old], roots[new], proof)


def test_no_small_proof_holds_elsewhere() -> None:
    """A proof of one entry in one tree verifies for no other index, entry or size of up to 33."""
    size = 33
    for index in range(size):
        proof = inclusion_proof(index, size, subtree)
        for other in range(size):
            if other != index:
                with pytest.raises(VerificationError):
                    verify_inclusion(other, size, LEAVES[index], proof, rfc6962.mth(ENTRIES[:size]))
                with pytest.raises(VerificationError):
                    verify_inclusion(index, size, LEAVES[other], proof, rfc6962.mth(ENTRIES[:size]))


def test_mutated_consistency_proofs_fail() -> None:
    """No proof of a small tree verifies with a hash changed, added, dropped or moved."""
    dice = random.Random(1)
    for _ in range(2_000):
        new = dice.randrange(2, 70)
        old = dice.randrange(1, new)
        proof = consistency_proof(old, new, subtree)
        wrong = list(proof)
        at = dice.randrange(len(wrong))
        match dice.randrange(4):
            case 0:
                wrong[at] = dice.randbytes(32)
            case 1:
                wrong.insert(at, dice.randbytes(32))
            case 2:
                del wrong[at]
            case _:
                wrong.insert(at, wrong.pop())
        if wrong != proof:
            with pytest.raises(VerificationError):
                verify_consistency(old, new, rfc6962.mth(ENTRIES[:old]), rfc6962.mth(ENTRIES[:new]), wrong)


def test_an_inclusion_proof_has_what_is_before_its_leaf() -> None:
    """The siblings on the left are the maximal subtrees over the leaves before, at every index of small trees."""
    leaves = [bytes([number]) for number in range(70)]
    for size in range(1, len(leaves) + 1):
        for index in range(size):
            before = Frontier()
            before.extend([leaf_hash(each) for each in leaves[:index]])
            proof = rfc6962.path(index, leaves[:size])
            assert list(before.hashes) == left_of(index, size, proof)
