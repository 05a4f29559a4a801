"""Pruning: the oldest entries go, under a written policy that is itself an entry.

Owns which entries may go and in which order they do. Rules:

1. only whole bundles (256 entries) go, a prefix of the book, all of it below a signed checkpoint. Hash tiles stay, so
   that every proof stays what it was, those of pruned entries too (C2SP tlog-tiles, Pruning; the book's first index is
   its minimum index);
2. nothing goes that is younger than the policy says, and nothing from the first entry on that a hold names;
3. what later starts need of the prefix is carried forward first: the entry that begins the book, what was active where
   the book begins now, every erasure, the policy, and every control entry that this version does not know;
4. an entry says that the book begins later. When it is durable and under a signed checkpoint, and not before, bundles
   are removed, from the lowest on, then the rows of the index, then the segments of the write-ahead log with them;
5. another entry says that it is done. A start completes what a kill left unfinished.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from gatebook.audit.book import Book
from gatebook.audit.chain import control_entries, control_links
from gatebook.audit.control_entry import encode_carried, encode_retention
from gatebook.audit.control_state import ControlState, control_state
from gatebook.audit.entry import Stamp, nanoseconds, to_timestamp
from gatebook.audit.erasing import name_two, require_two
from gatebook.audit.people import People
from gatebook.audit.reader import BookReader
from gatebook.audit.recorder import SERVICE_CALLER, Recorder, Written
from gatebook.audit.retention_policy import DAYS_MAX, RetentionPolicy, parse_policy, policy_hash
from gatebook.errors import BookUnavailableError, InvalidRequestError, RetentionRefusedError
from gatebook.tlog.tiles import ENTRIES, TILE_WIDTH, Tile
from gatebook.v1 import entry_pb2

Encoder = Callable[[Stamp], bytes]


class PruneOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to go, under which policy, on whose word, and why."""

    before: datetime | None
    """What is older goes; else what is older than `keep_days`."""
    keep_days: int
    policy: bytes
    requested_by: str
    approved_by: str
    reason: str


class PrunePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an order comes to."""

    policy: RetentionPolicy
    before: datetime
    first_index: int
    """Where the book is to begin."""
    entries: int
    """How many entries go that are there now."""
    held: bool
    """Whether a hold keeps what is old enough."""
    carried: Sequence[tuple[int, bytes]]


class PrunedIn(msgspec.Struct, frozen=True, kw_only=True):
    """What went from one book, or would go."""

    first_index: int
    entries: int
    carried: int
    held: bool
    begun_index: int = 0
    policy_index: int = 0


class Pruning:
    """Prunes one book. Used on the event loop only."""

    def __init__(
        self, book: Book, reader: BookReader, recorder: Recorder, people: People, turn: asyncio.Lock | None = None
    ) -> None:
        """Takes the open book, what reads it, its pen, and the store of people; the `turn` is that of `Erasing`."""
        self._book = book
        self._reader = reader
        self._recorder = recorder
        self._people = people
        self._turn = turn or asyncio.Lock()

    async def preview(self, order: PruneOrder) -> PrunedIn:
        """Returns what would go; nothing is changed.

        Raises:
            InvalidRequestError: the order is not one that may be carried out.
            RetentionRefusedError: the policy keeps what is to go.
        """
        plan = await self._plan(order)
        return PrunedIn(first_index=plan.first_index, entries=plan.entries, carried=len(plan.carried), held=plan.held)

    async def prune(self, order: PruneOrder, caller: str) -> PrunedIn:
        """Prunes the book, unless nothing is old enough; says so in the book.

        Raises:
            InvalidRequestError, RetentionRefusedError: as `preview`.
            BookUnavailableError: it is not done; what was begun is completed by the next start.
        """
        async with self._turn:
            plan = await self._plan(order)
            if not plan.entries:
                return PrunedIn(first_index=self._book.first_index, entries=0, carried=0, held=plan.held)
            named = await name_two(self._recorder, self._people, order.requested_by, order.approved_by, order.reason)
            origin, told = self._book.origin, _told(plan.policy, order.policy)
            state = await asyncio.to_thread(self._state)
            if not state.pruning_completed or any(not erasure.completed for erasure in state.erasures):
                raise BookUnavailableError("an erasure or pruning is not completed: restart the server, which does it")
            policy_index = 0 if state.policy is None else state.policy.index
            if state.policy is None or state.policy.policy_hash != told.policy_hash:
                told.step = entry_pb2.RETENTION_STEP_POLICY
                encode: Encoder = lambda stamp: encode_retention(told, stamp, origin, named, order.policy)  # noqa: E731  # one of a list
                policy_index = (await self._recorder.record_control([encode], caller))[-1].index
            begun = entry_pb2.RetentionEntry()
            begun.CopyFrom(told)
            begun.step = entry_pb2.RETENTION_STEP_BEGUN
            begun.policy_index, begun.first_index = policy_index, plan.first_index
            begun.carried_count = len(plan.carried)
            begun.before_time.CopyFrom(to_timestamp(plan.before))
            encoders: list[Encoder] = [functools.partial(encode_carried, index, raw) for index, raw in plan.carried]
            encoders.append(lambda stamp: encode_retention(begun, stamp, origin, named))

            def mark(_written: Written) -> None:
                self._book.mark_first(plan.first_index)

            old_first = self._book.first_index
            written = (await self._recorder.record_control(encoders, caller, mark))[-1]
            await self._remove(old_first, plan.first_index, written.index, caller)
            return PrunedIn(
                first_index=plan.first_index,
                entries=plan.entries,
                carried=len(plan.carried),
                held=plan.held,
                begun_index=written.index,
                policy_index=policy_index,
            )

    async def complete(self, state: ControlState) -> None:
        """Completes a pruning that was begun and not completed: what a start does.

        Raises:
            BookUnavailableError: it could not be done.
        """
        if not state.pruning_completed:
            await self._remove(0, state.first_index, state.pruned_by, SERVICE_CALLER)

    async def _remove(self, old_first: int, first_index: int, begun_index: int, caller: str) -> None:
        """Removes what is before the first index, once a signed checkpoint covers the entry that says so."""
        signed = await self._reader.fresh()
        if signed.checkpoint.size <= begun_index:
            raise BookUnavailableError("the entry of the pruning is not published: restart the server")
        await asyncio.to_thread(remove_bundles, self._book, old_first, first_index)
        await asyncio.to_thread(self._reader.forget_before, first_index)
        self._book.wal.begin_anew()
        body = entry_pb2.RetentionEntry(
            step=entry_pb2.RETENTION_STEP_COMPLETED, begun_index=begun_index, first_index=first_index
        )
        encode: Encoder = lambda stamp: encode_retention(body, stamp, self._book.origin)  # noqa: E731  # one of a list
        await self._recorder.record_control([encode], caller)
        await self._reader.fresh()  # which lets go of the segment before
        try:
            await asyncio.to_thread(self._book.wal.drop_retired)
        except OSError as err:
            raise BookUnavailableError(f"cannot remove a segment of the write-ahead log: {err.strerror}") from err

    def _state(self) -> ControlState:
        return control_state(control_links(self._book))

    async def _plan(self, order: PruneOrder) -> PrunePlan:
        require_two(order.requested_by, order.approved_by, order.reason)
        policy = parse_policy(order.policy)
        now = self._recorder.now()
        if order.before is None and not 1 <= order.keep_days <= DAYS_MAX:
            raise InvalidRequestError("selector", f"name a time or a number of days, 1 to {DAYS_MAX}")
        before = order.before or now - timedelta(days=order.keep_days)
        if before > now - timedelta(days=policy.keep_days):
            raise RetentionRefusedError(
                f"the policy keeps every entry for {policy.keep_days} days: name an earlier time or keep more days",
                keep_days=str(policy.keep_days),
            )
        size = (await self._reader.fresh()).checkpoint.size
        oldest_kept = await self._reader.first_since(_nanoseconds(before), size)
        first = oldest_kept
        for hold in policy.holds:
            start = await self._reader.first_since(_nanoseconds(hold.start), size)
            end = size if hold.until is None else await self._reader.first_since(_nanoseconds(hold.until), size)
            if start < end:
                first = min(first, start)
        begins = self._book.first_index
        first, wanted = (max(index // TILE_WIDTH * TILE_WIDTH, begins) for index in (first, oldest_kept))
        entries = first - begins
        carried = await asyncio.to_thread(carried_forward, self._book, first) if entries else ()
        return PrunePlan(
            policy=policy, before=before, first_index=first, entries=entries, held=first < wanted, carried=carried
        )


def carried_forward(book: Book, first_index: int) -> Sequence[tuple[int, bytes]]:
    """Returns the entries before an index that are needed once it is the first one, the oldest first."""
    seen: set[object] = set()
    found = {
        index: raw for index, entry, raw in control_entries(book) if index < first_index and _is_needed(entry, seen)
    }
    if not book.first_index:
        found[0] = book.read(0, 1)[0]
    return sorted(found.items())


def _is_needed(entry: entry_pb2.AuditEntry, seen: set[object]) -> bool:
    """Tells whether a control entry is needed later; takes them the newest first."""
    match entry.WhichOneof("body"):
        case "policy":
            key: object = (entry.policy.step, entry.policy.policy_set)
            activates = entry.policy.step in (
                entry_pb2.POLICY_STEP_ACTIVATED,
                entry_pb2.POLICY_STEP_DIRECTORY_ACTIVATED,
            )
            if not activates or key in seen:
                return False
            seen.add(key)
            return True
        case "erasure":
            return entry.erasure.step == entry_pb2.ERASURE_STEP_BEGUN
        case "retention":
            if entry.retention.step != entry_pb2.RETENTION_STEP_POLICY or "policy" in seen:
                return False
            seen.add("policy")
            return True
        case _:
            return True


def remove_bundles(book: Book, old_first: int, first_index: int) -> None:
    """Removes the entry bundles of [old_first, first_index), from the lowest on, durably.

    Raises:
        BookUnavailableError: one could not be removed.
    """
    unsynced: set[Path] = set()
    try:
        for number in range(old_first // TILE_WIDTH, first_index // TILE_WIDTH):
            path = book.layout.book / Tile(ENTRIES, number).path
            partials = path.with_name(f"{path.name}.p")
            for each in (path, *(partials.iterdir() if partials.is_dir() else ())):
                if each.exists():
                    book.files.remove(each)
                    unsynced.add(path.parent)
            if partials.is_dir():
                partials.rmdir()
            if len(unsynced) > 1:
                _sync(book, unsynced)
        _sync(book, unsynced)
    except OSError as err:
        raise BookUnavailableError(f"cannot remove what is pruned: {err.strerror}") from err


def _sync(book: Book, folders: set[Path]) -> None:
    for folder in folders:
        book.files.sync_directory(folder)
    folders.clear()


def _told(policy: RetentionPolicy, text: bytes) -> entry_pb2.RetentionEntry:
    told = entry_pb2.RetentionEntry(policy_hash=policy_hash(text), keep_days=policy.keep_days)
    for hold in policy.holds:
        added = told.holds.add()
        added.start_time.CopyFrom(to_timestamp(hold.start))
        if hold.until is not None:
            added.end_time.CopyFrom(to_timestamp(hold.until))
    return told


def _nanoseconds(time: datetime) -> int:
    return nanoseconds(to_timestamp(time.astimezone(UTC)))
