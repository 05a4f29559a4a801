"""RFC 6962 Merkle trees: hashes, roots, and the two standard proofs.

Owns the hash arithmetic of the book and promises:

1. `leaf_hash` and `node_hash` are those of RFC 6962 s2.1, with SHA-256.
2. `Frontier` computes roots incrementally and remembers one hash per set bit of its size.
3. Proofs are made after RFC 6962 s2.1.1 and s2.1.2 from hashes of complete subtrees.
4. Proofs are checked after RFC 9162 s2.1.3.2 and s2.1.4.2. The `verify_` functions raise, they
   never return False.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

from gatebook.errors import VerificationError

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
PROOF_HASHES_MAX = 64
"""A tree of fewer than 2^63 leaves needs no longer proof."""

SubtreeHash = Callable[[int, int], bytes]
"""Returns the hash of the complete subtree (level, number): 2^level leaves from number * 2^level on."""


def leaf_hash(entry: bytes) -> bytes:
    """Returns the hash of a leaf: SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Returns the hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def left_of(index: int, size: int, proof: Sequence[bytes]) -> list[bytes]:
    """Returns the maximal subtrees over the leaves before one, the largest first, which its inclusion proof has.

    They are the siblings on the left on its way to the root (RFC 9162 s2.1.3.2). Whether they are right only the root
    shows that they lead to.
    """
    left: list[bytes] = []
    at, last = index, size - 1
    for each in proof:
        if at & 1 or at == last:
            left.append(each)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    return left[::-1]


class Frontier:
    """The right edge of a growing tree: what is needed to append leaves and to compute the root.

    Holds the hashes of the maximal complete subtrees of the tree, the largest first: one for each
    set bit of the size. It has one owner, which alone appends.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Takes the size of a tree and the hashes of its maximal complete subtrees, the largest first."""
        self.size = size
        self._hashes = list(hashes)
        if len(self._hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} maximal subtrees")

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The hashes of the maximal complete subtrees, the largest first."""
        return tuple(self._hashes)

    def copy(self) -> Frontier:
        """Returns an independent copy."""
        return Frontier(self.size, self._hashes)

    def append(self, leaf: bytes) -> None:
        """Appends one leaf by its hash."""
        hashes, carry = self._hashes, self.size
        while carry & 1:
            leaf = sha256(b"\x01" + hashes.pop() + leaf).digest()
            carry >>= 1
        hashes.append(leaf)
        self.size += 1

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Appends leaves by their hashes, a level of the tree at a time."""
        hashes, size = self._hashes, self.size
        row = list(leaves)
        self.size += len(row)
        kept: list[bytes] = []  # of the new edge, the smallest subtree first
        while row:
            if size & 1:
                row.insert(0, hashes.pop())
            if len(row) & 1:
                kept.append(row.pop())
            pairs = iter(row)
            row = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            size >>= 1
        hashes.extend(reversed(kept))

    def root(self) -> bytes:
        """Returns the root of the tree so far."""
        return fold(self._hashes)


def fold(hashes: Sequence[bytes]) -> bytes:
    """Returns the root over adjacent maximal subtrees, the largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Returns the root of the tree with these leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def maximal_subtrees(size: int) -> Iterator[tuple[int, int]]:
    """Yields (level, number) of the maximal complete subtrees of a tree, the largest first."""
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            yield level, start >> level
            start += 1 << level


def frontier_at(size: int, subtree: SubtreeHash) -> Frontier:
    """Returns the frontier of the tree's first `size` leaves."""
    return Frontier(size, (subtree(level, number) for level, number in maximal_subtrees(size)))


def _range_root(start: int, end: int, subtree: SubtreeHash) -> bytes:
    """Returns MTH(D[start:end]) where `start` is aligned to a power of two of at least end - start."""
    return fold([subtree(level, (start >> level) + number) for level, number in maximal_subtrees(end - start)])


def _split(size: int) -> int:
    """Returns the largest power of two smaller than `size`, for `size` > 1."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(index: int, size: int, subtree: SubtreeHash) -> list[bytes]:
    """Returns the audit path of a leaf, its sibling first: PATH(m, D[n]) of RFC 6962 s2.1.1."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, subtree))
            end = middle
        else:
            path.append(_range_root(start, middle, subtree))
            start = middle
    return path[::-1]


def consistency_proof(old_size: int, new_size: int, subtree: SubtreeHash) -> list[bytes]:
    """Returns PROOF(m, D[n]) of RFC 6962 s2.1.2; empty when either tree is empty or both are equal."""
    if not 0 <= old_size <= new_size:
        raise ValueError(f"no tree of {old_size} leaves within one of {new_size}")
    if old_size in (0, new_size):
        return []
    proof: list[bytes] = []
    start, end, whole = 0, new_size, True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(_range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(_range_root(start, middle, subtree))
            start, whole = middle, False
    if not whole:
        proof.append(_range_root(start, end, subtree))
    return proof[::-1]


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Returns the root that an inclusion proof leads to (RFC 9162 s2.1.3.2).

    Raises:
        VerificationError: the proof has the wrong length for this index and size.
    """
    if not 0 <= index < size:
        raise VerificationError(f"no entry {index} in a book of {size}", index)
    root = leaf
    for sibling, on_left in _climb(index, size - 1, proof):
        root = node_hash(sibling, root) if on_left else node_hash(root, sibling)
    return root


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Checks that the leaf is at the index of the tree with this size and root (RFC 9162 s2.1.3.2).

    Raises:
        VerificationError: it is not, or the proof is malformed.
    """
    if root_from_inclusion(index, size, leaf, proof) != root:
        raise VerificationError(f"the inclusion proof of entry {index} leads to another root", index)


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Checks that the old tree is a prefix of the new one (RFC 9162 s2.1.4.2).

    Raises:
        VerificationError: it is not, or the proof is malformed. No index is named: two roots say
            that the histories differ, not where.
    """
    if not 0 <= old_size <= new_size:
        raise VerificationError(f"a book of {new_size} entries cannot extend one of {old_size}")
    if old_size in (0, new_size):
        _verify_same(old_size, old_root, new_root if old_size else EMPTY_ROOT, proof)
        return
    if not proof:
        raise VerificationError("the proof is too short")
    path = list(proof) if old_size & old_size - 1 else [old_root, *proof]
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling, on_left in _climb(node, last, path[1:]):
        if on_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if old != old_root:
        raise VerificationError(f"the consistency proof leads to another root for size {old_size}")
    if new != new_root:
        raise VerificationError(f"the consistency proof leads to another root for size {new_size}")


def _verify_same(size: int, root: bytes, other_root: bytes, proof: Sequence[bytes]) -> None:
    if proof:
        raise VerificationError("the proof is too long")
    if root != other_root:
        raise VerificationError(f"two roots for a book of {size} entries")


def _climb(node: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yields each hash of a proof, and whether it stands on the left, on the way from a node to the root.

    This is the loop that RFC 9162 s2.1.3.2 and s2.1.4.2 share; `node` is their `fn`, `last` their `sn`.
    """
    if len(proof) > PROOF_HASHES_MAX:
        raise VerificationError(f"a proof has at most {PROOF_HASHES_MAX} hashes")
    for sibling in proof:
        if len(sibling) != HASH_BYTES:
            raise VerificationError(f"a hash in a proof has {HASH_BYTES} bytes")
        if last == 0:
            raise VerificationError("the proof is too long")
        on_left = bool(node & 1) or node == last
        yield sibling, on_left
        while on_left and not node & 1 and node:
            node, last = node >> 1, last >> 1
        node, last = node >> 1, last >> 1
    if last:
        raise VerificationError("the proof is too short")
