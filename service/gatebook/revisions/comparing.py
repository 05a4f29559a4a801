"""Compares revisions and drafts of a server, under its directory.

Owns the choice of what is compared, one comparison at a time. It changes nothing, and that it was asked is in the book
before it is answered, since the answer names people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from gatebook.audit.entry import PolicyEvent
from gatebook.audit.recorder import Recorder
from gatebook.errors import NoActiveRevisionError
from gatebook.governance.inheritance import effective
from gatebook.governance.summary import Summary
from gatebook.policy.directory import Directory
from gatebook.revisions.active import Revisions
from gatebook.revisions.compare import compare, read_set
from gatebook.revisions.pacing import Stoppable, few_collections
from gatebook.v1 import entry_pb2
from gatebook.values import Revision


class Comparing:
    """Compares, for one server."""

    def __init__(self, revisions: Revisions, recorder: Recorder) -> None:
        """Takes the revisions, and the pen of the book."""
        self._revisions = revisions
        self._recorder = recorder
        self._stoppable = Stoppable()
        self._turn = asyncio.Lock()

    def stop(self) -> None:
        """Ends what is under way, at its next pause."""
        self._stoppable.stop()

    async def compare(
        self,
        name: str,
        draft: Mapping[str, bytes],
        digests: tuple[str, str],
        changes_max: int,
        caller: str,
    ) -> Summary:
        """Returns what a draft, or else a revision, gains and loses against another revision.

        Args:
            name: The policy set.
            draft: The files of the new side; none means the revision of the second digest.
            digests: The digest of the old side, and of the new; empty means the active revision.
            changes_max: How many changes are reported.
            caller: Who asks.

        Raises:
            RevisionNotFoundError: there is no such revision.
            NoActiveRevisionError: there is no directory.
            InvalidRequestError: the set is not governed.
            PolicySetRefusedError: the draft has findings of severity error.
            DrainingError: the service stops meanwhile.
            BookUnavailableError: it could not be written that it was asked.
        """
        directory = self._revisions.state.directory
        if directory is None:
            raise NoActiveRevisionError("no directory is active: publish one with `gatebook directory publish`")
        old, new = (self._revisions.find(name, digest).revision.digest for digest in digests)
        async with self._turn:
            now = self._recorder.now()
            found = await asyncio.to_thread(self._compare, name, (old, new), draft, directory, now, changes_max)
        compared = Revision(found.new_digest, 0)
        event = PolicyEvent(step=entry_pb2.POLICY_STEP_COMPARED, policy_set=name, revision=compared)
        await self._recorder.record_policy(event, caller)
        return found

    def _compare(
        self,
        name: str,
        digests: tuple[str, str],
        draft: Mapping[str, bytes],
        directory: Directory,
        now: datetime,
        changes_max: int,
    ) -> Summary:
        pause = self._stoppable.pacer("comparing", name)
        old, new = digests
        with few_collections():
            lineage = self._revisions.state.lineage
            before = effective(read_set(self._revisions.store.get_policy_set(old), name, "old"), lineage)
            after = effective(read_set(draft or self._revisions.store.get_policy_set(new), name, "new"), lineage)
            return compare(before, after, directory, now, changes_max=changes_max, pause=pause)
