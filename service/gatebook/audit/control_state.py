"""What the control entries of a book say of erasures and of retention.

Owns the fold over the chain: which erasures there are and whether each was completed, which retention policy is in
force, and where the book begins. It takes entries and returns values.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gatebook.audit.entry import decode
from gatebook.v1 import entry_pb2


class Erasure(msgspec.Struct, frozen=True):
    """An erasure that is decided."""

    index: int
    pseudonyms: tuple[bytes, ...]
    suppression: bytes
    completed: bool


class Policy(msgspec.Struct, frozen=True):
    """A retention policy in force: the entry that says so, and the hash of its text."""

    index: int
    policy_hash: bytes


class ControlState(msgspec.Struct, frozen=True):
    """What holds at the end of a book."""

    erasures: tuple[Erasure, ...] = ()
    """The newest first."""
    policy: Policy | None = None
    first_index: int = 0
    """Where the book begins."""
    pruned_by: int = 0
    """The index of the entry that says so; 0 where nothing was pruned."""
    pruning_completed: bool = True


def control_state(chain: Iterable[tuple[int, entry_pb2.AuditEntry]]) -> ControlState:
    """Returns the state that control entries lead to; takes them as `control_links` yields them."""
    erasures: list[Erasure] = []
    done: set[int] = set()
    policy: Policy | None = None
    first_index = pruned_by = 0
    for index, found in chain:
        # What a predecessor left is restated here: its erasures were completed there, and where it began is its own.
        inherited = found.HasField("carried")
        entry = decode(found.carried.entry_bytes, index) if inherited else found
        if entry.HasField("erasure"):
            told = entry.erasure
            if told.step == entry_pb2.ERASURE_STEP_COMPLETED:
                done.add(told.begun_index)
            else:
                # Nothing is pruned while an erasure is not completed.
                completed = inherited or index in done or index < first_index
                erasures.append(Erasure(index, tuple(told.pseudonyms), told.suppression, completed))
        elif entry.HasField("retention"):
            kept = entry.retention
            if kept.step == entry_pb2.RETENTION_STEP_POLICY and policy is None:
                policy = Policy(index, kept.policy_hash)
            elif inherited:
                continue
            elif kept.step == entry_pb2.RETENTION_STEP_COMPLETED:
                done.add(kept.begun_index)
            elif kept.step == entry_pb2.RETENTION_STEP_BEGUN and kept.first_index > first_index:
                first_index, pruned_by = kept.first_index, index
    return ControlState(
        erasures=tuple(erasures),
        policy=policy,
        first_index=first_index,
        pruned_by=pruned_by,
        pruning_completed=not pruned_by or pruned_by in done,
    )
