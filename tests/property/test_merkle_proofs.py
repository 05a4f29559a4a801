"""Merkle proofs of random trees, made from random subtree readers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import VerificationError
from gatebook.tlog.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

SIZE_MAX = 1_200
LEAVES = [leaf_hash(index.to_bytes(2, "big")) for index in range(SIZE_MAX)]
ROOTS = {0: root_of([])}
HASH = st.binary(min_size=32, max_size=32)


def subtree(level: int, number: int) -> bytes:
    """The hash of a complete subtree."""
    return root_of(LEAVES[number << level : (number + 1) << level])


def root(size: int) -> bytes:
    """The root of the first entries."""
    if size not in ROOTS:
        ROOTS[size] = root_of(LEAVES[:size])
    return ROOTS[size]


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int]:
    """An index, and a size beyond it."""
    size = draw(st.integers(1, SIZE_MAX))
    return draw(st.integers(0, size - 1)), size


@given(places())
def test_an_inclusion_proof_verifies(place: tuple[int, int]) -> None:
    """The proof of any entry in any tree verifies."""
    index, size = place

    verify_inclusion(index, size, LEAVES[index], inclusion_proof(index, size, subtree), root(size))


@given(places())
def test_a_consistency_proof_verifies(place: tuple[int, int]) -> None:
    """The proof between any two trees verifies."""
    old, new = place

    verify_consistency(old, new, root(old), root(new), consistency_proof(old, new, subtree))


@given(places(), st.data())
def test_a_proof_holds_for_one_index(place: tuple[int, int], data: st.DataObject) -> None:
    """A proof verifies for no other index of its tree; which root a size has, the checkpoint says."""
    index, size = place
    other = data.draw(st.integers(0, size - 1).filter(lambda at: at != index or size == 1))
    if size == 1:
        return

    with pytest.raises(VerificationError):
        verify_inclusion(other, size, LEAVES[index], inclusion_proof(index, size, subtree), root(size))


@given(places(), st.lists(HASH, max_size=66), HASH)
def test_made_up_proofs_fail(place: tuple[int, int], hashes: list[bytes], leaf: bytes) -> None:
    """Random hashes prove nothing, and end in an error of ours."""
    index, size = place

    with pytest.raises(VerificationError):
        verify_inclusion(index, size, leaf, hashes, root(size))
    if index not in (0, size):
        with pytest.raises(VerificationError):
            verify_consistency(index, size, leaf, root(size), hashes)
