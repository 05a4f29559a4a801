"""Explains a decision of the book: finds it, decides it again under the revisions of then, and proves its entry.

Rules:

1. who does not see the entry is answered as if there were none;
2. it is a read of the book, and an entry before anything is answered, also where nothing can be explained any more;
3. what is told was decided again, and what differs from the entry is said;
4. the work is done aside, so that checks do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec

from gatebook.audit.entry import from_timestamp
from gatebook.audit.proving import Proof
from gatebook.audit.reader import BookReader
from gatebook.audit.recorder import Recorder
from gatebook.audit.sight import EVERYTHING, Sight
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import BookUnavailableError, EntryNotFoundError
from gatebook.explanation import explain_question
from gatebook.replay.again import Again, decide_again
from gatebook.replay.asked_then import AskedThen, asked_then
from gatebook.replay.changes import Changes, smallest_changes
from gatebook.replay.repairs import Files
from gatebook.replay.snapshots import PastSnapshots, last_before
from gatebook.replay.story import Story, tell
from gatebook.revisions.active import Revisions
from gatebook.revisions.aside import is_large
from gatebook.v1 import audit_service_pb2, entry_pb2
from gatebook.values import NearRule

METHOD = "ExplainDecision"
LARGE = "changes, since the set or its directory is large: judging one would keep checks waiting"
PROOF_SECONDS = 5.0
_STARTED = frozenset((entry_pb2.SYSTEM_EVENT_STARTED, entry_pb2.SYSTEM_EVENT_BOOK_OPENED))


class Explained(msgspec.Struct, frozen=True):
    """A decision of the book, explained."""

    record: audit_service_pb2.EntryRecord
    asked: AskedThen
    snapshot: Snapshot
    again: Again
    story: Story
    near_rules: tuple[NearRule, ...]
    roles: tuple[str, ...]
    proof: Proof
    changes: Changes = Changes()


class Explaining:
    """Explains decisions of one book. Used on the event loop."""

    def __init__(self, reader: BookReader, recorder: Recorder, revisions: Revisions) -> None:
        """Takes what reads the book, its pen, and the revisions."""
        self._reader = reader
        self._recorder = recorder
        self._revisions = revisions
        self._past = PastSnapshots(revisions)
        self._turn = asyncio.Lock()  # changes are looked for by one at a time: it takes seconds

    async def explain(
        self, decision_id: str, sight: Sight, caller: str, wants_changes: Callable[[str], bool]
    ) -> Explained:
        """Explains a decision to a caller who sees this much of the book.

        `wants_changes` says of a policy set whether changes of it are to be looked for.

        Raises:
            EntryNotFoundError: there is none, or none that is seen.
            NotReplayableError: somebody whom it concerns was erased, or this version does not understand its revision.
            RevisionNotFoundError, BookRefusedError: its revisions are missing or damaged.
            BookUnavailableError: the book cannot be read, or its entry not proved in time.
        """
        record = await self._find(decision_id, sight)
        await self._reader.record(self._recorder, METHOD, caller, records=[record])
        asked = asked_then(record)
        snapshot = await self._past.find(asked.past, await self._scanned_at(asked, record.index))
        again, story, near = await asyncio.to_thread(_explain, snapshot, asked, record.entry.decision)
        try:
            [proof] = await self._reader.prover.prove([record.index], PROOF_SECONDS)
        except TimeoutError as err:
            raise BookUnavailableError("the entry could not be proved in time: ask again") from err
        changes = Changes()
        if not again.decision.allowed and wants_changes(asked.past.policy_set):
            async with self._turn:
                changes = await asyncio.to_thread(self._changes, snapshot, again, asked)
        return Explained(record, asked, snapshot, again, story, *near, proof, changes)

    def _changes(self, snapshot: Snapshot, again: Again, asked: AskedThen) -> Changes:
        store, past = self._revisions.store, asked.past
        people = {} if past.directory is None else store.get_directory(past.directory.digest)
        files = store.get_policy_set(past.policy.digest)
        if is_large(files, snapshot.directory):
            return Changes(left_out=(LARGE,))
        return smallest_changes(snapshot, again, Files(files, people))

    async def _find(self, decision_id: str, sight: Sight) -> audit_service_pb2.EntryRecord:
        """Returns the entry of a decision; one that was acknowledged a moment ago is published first."""
        reader = self._reader
        try:
            return await reader.decision(decision_id, reader.book.signed.checkpoint.size, sight)
        except (EntryNotFoundError, BookUnavailableError):
            return await reader.decision(decision_id, (await reader.fresh()).checkpoint.size, sight)

    async def _scanned_at(self, asked: AskedThen, index: int) -> datetime:
        """Returns when the audiences that counted were scanned: at the last start before, or activation."""
        names = (asked.past.policy_set, "")
        told = [one.create_time for one in self._revisions.state.activations if one.policy_set in names]
        starts = audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_SYSTEM, end_index=index + 1)
        request = audit_service_pb2.ListEntriesRequest(filter=starts, page_size=10)
        page = await self._reader.page(request, index + 1, EVERYTHING)
        told += [from_timestamp(it.entry.entry_time) for it in page.records if it.entry.system.event in _STARTED]
        return last_before(told, asked.entry_time)


def _explain(
    snapshot: Snapshot, asked: AskedThen, written: entry_pb2.DecisionEntry
) -> tuple[Again, Story, tuple[tuple[NearRule, ...], tuple[str, ...]]]:
    again = decide_again(snapshot, asked, written)
    return again, tell(snapshot, again), explain_question(snapshot, again.question, again.time)
