"""The snapshots of then: revisions that decided once, read and compiled again.

Owns which of them are at hand. Rules:

1. a snapshot is built of the files that are stored under its digests, which are checked as they are read, so that it
   is the one that decided, or there is none;
2. what is kept is bounded in bytes; what decides now is not built again;
3. it is built aside and in steps, one at a time, so that checks do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from gatebook.engine.recall import Recall
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import NotReplayableError, PolicySetRefusedError
from gatebook.generations import Generations
from gatebook.revisions.active import Past, Revisions

PAST_BYTES_MAX = 512 << 20
"""What snapshots of the past may take, together, as far as their rules and subjects tell it."""
BYTES_EACH = 2_048
"""What a rule, a link or a subject takes in a snapshot, roughly."""
SNAPSHOT_BYTES = 1 << 20
"""What it takes beside that, roughly."""


class PastSnapshots:
    """The snapshots that were built again. Used on the event loop."""

    def __init__(self, revisions: Revisions) -> None:
        """Takes the revisions that are active, and where all are kept."""
        self._revisions = revisions
        self._built: Generations[tuple[Past, datetime | None], Snapshot] = Generations(PAST_BYTES_MAX)
        self._turn = asyncio.Lock()  # each takes memory, and who waits for the same finds it built

    async def find(self, past: Past, scanned_at: datetime) -> Snapshot:
        """Returns the snapshot that decided; its audiences are those as of a time.

        Raises:
            RevisionNotFoundError: a revision is not stored here any more.
            BookRefusedError: its files are not what was stored.
            NotReplayableError: this version does not understand it any more.
            DrainingError: the service stops.
        """
        known = self._revisions.state.lineage.times()
        past = msgspec.structs.replace(past, lineage_until=last_of(known, past.lineage_until))
        active = self._revisions.state.snapshots.get(past.policy_set)
        newest = past.lineage_until == last_of(known, datetime.max.replace(tzinfo=UTC))
        if active is not None and newest and _is(active, past) and not active.program.timed:
            # What it remembers is the event loop's own. A timed one was scanned at another time than was asked for.
            return msgspec.structs.replace(active, recall=Recall())
        async with self._turn:
            built = self._built.get((past, None)) or self._built.get((past, scanned_at))
            if built is None:
                built = await self._build(past, scanned_at)
                # Audiences depend on the time only where rules do.
                self._built.put((past, scanned_at if built.program.timed else None), built, size_of(built))
        return msgspec.structs.replace(built, recall=Recall())

    async def _build(self, past: Past, scanned_at: datetime) -> Snapshot:
        number = past.policy.number
        try:
            built = await self._revisions.build_past(past, scanned_at)
        except PolicySetRefusedError as err:
            message = f"this version of Gatebook does not understand revision {number}: {err.message}"
            raise NotReplayableError(message, policy_set=past.policy_set, digest=past.policy.digest) from err
        if built is None:
            raise NotReplayableError(f"revision {number} of `{past.policy_set}` was decided by without a directory")
        return built


def _is(active: Snapshot, past: Past) -> bool:
    return (active.policy_revision, active.directory_revision) == (past.policy, past.directory)


def last_of(times: Sequence[datetime], then: datetime | None) -> datetime | None:
    """Returns the latest of some times that is before a time, so that few are told apart; None without one."""
    return max((time for time in times if then is not None and time < then), default=None)


def size_of(snapshot: Snapshot) -> int:
    """Returns what a snapshot takes in memory, roughly, in bytes."""
    policy_set, directory = snapshot.policy_set, snapshot.directory
    people = 0 if directory is None else len(directory.subjects)
    return SNAPSHOT_BYTES + BYTES_EACH * (len(policy_set.rules) + len(policy_set.edges) + people)


def last_before(times: Iterable[datetime], then: datetime) -> datetime:
    """Returns the latest of some times that is not after a time, or that time itself."""
    return max((time for time in times if time <= then), default=then)
