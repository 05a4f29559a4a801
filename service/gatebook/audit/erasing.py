"""Erasure of a person: the keys go, and the book says so.

Owns the order of its steps, which a kill between any two of them leaves in a state that the next start completes:

1. an entry says that the erasure is begun, with the pseudonyms, the tag for the suppression list and two other
   people's names. When it is durable the keys count as gone, whatever the store holds;
2. the rows are deleted and the tag is put into the list, in one commit. Until then no other entry is built, so
   that none is sealed under a key that the book calls gone;
3. the store is written anew and its log is cut, so that no file holds the keys any more;
4. another entry says that it is completed.

A start applies every erasure of the book again to the store: one that was put back from an older copy gives
nobody back. Entries, their order, and every proof stay what they were.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

import msgspec
import structlog

from gatebook.audit.control_entry import Two, encode_erasure
from gatebook.audit.control_state import Erasure
from gatebook.audit.entry import Stamp
from gatebook.audit.people import People, PersonId
from gatebook.audit.reader import BookReader
from gatebook.audit.recorder import SERVICE_CALLER, Recorder, Written
from gatebook.errors import InvalidRequestError, PersonNotFoundError
from gatebook.v1 import entry_pb2

ID_BYTES_MAX = 512
REASON_BYTES_MAX = 512
NAMED_TYPE = "user"
"""Who asks for and who approves an erasure are people, and named by id alone."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Who is to be erased, on whose word, and why."""

    subject_id: str
    requested_by: str
    approved_by: str
    reason: str


class ErasedIn(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased in one book, or would be."""

    people: int
    entries: int
    begun_index: int = 0
    completed_index: int = 0
    objects: bool = False
    """Whether the id is on the suppression list."""


class _Half(msgspec.Struct, frozen=True):
    """An erasure that is an entry, of which a later step failed."""

    pseudonyms: Sequence[bytes]
    told: ErasedIn


class Erasing:
    """Erases people in one book. Used on the event loop only."""

    def __init__(
        self, reader: BookReader, recorder: Recorder, people: People, origin: str, turn: asyncio.Lock | None = None
    ) -> None:
        """Takes what reads the book, its pen, and the store of people.

        Who holds the `turn` names people in entries: nobody is erased meanwhile, else an entry would be sealed for
        somebody whom an earlier one calls erased.
        """
        self._reader = reader
        self._recorder = recorder
        self._people = people
        self._origin = origin
        self._turn = turn or asyncio.Lock()
        self._half: dict[bytes, _Half] = {}  # by tag; what is left of it after a stop, a start completes

    async def preview(self, order: Order) -> ErasedIn:
        """Returns what an erasure would erase; nothing is changed.

        Raises:
            InvalidRequestError: the order is not one that may be carried out.
        """
        require_two(order.requested_by, order.approved_by, order.reason, erased=order.subject_id)
        found = await asyncio.to_thread(self._people.find, order.subject_id)
        entries = await self._reader.concerning([person.pseudonym for person in found])
        objects = await asyncio.to_thread(self._people.forgotten.is_suppressed, order.subject_id)
        half = self._half.get(self._people.forgotten.tag(order.subject_id))
        if half is not None:
            return ErasedIn(
                people=len(found) + half.told.people,
                entries=entries + half.told.entries,
                begun_index=half.told.begun_index,
                objects=objects,
            )
        return ErasedIn(people=len(found), entries=entries, objects=objects)

    async def erase(self, order: Order, caller: str, *, known: bool = False) -> ErasedIn:
        """Erases a person; `known` says that some book of the service knows this id, even if this one does not.

        When it returns, the keys are in no file of the data directory and the book says so.

        Raises:
            InvalidRequestError: the order is not one that may be carried out.
            PersonNotFoundError: nobody has this id.
            BookUnavailableError: it could not be done, or not be completed: the same order, or a start, completes it.
        """
        async with self._turn:
            tag = self._people.forgotten.tag(order.subject_id)
            half = self._half.get(tag)
            finished = None if half is None else await self._finish(half, tag, caller)
            found = await self.preview(order)
            if not found.people and finished is not None:
                return finished
            if not found.people and not known:
                raise PersonNotFoundError
            pseudonyms = [one.pseudonym for one in await asyncio.to_thread(self._people.find, order.subject_id)]
            named = await name_two(self._recorder, self._people, order.requested_by, order.approved_by, order.reason)
            begun = entry_pb2.ErasureEntry(
                step=entry_pb2.ERASURE_STEP_BEGUN,
                pseudonyms=pseudonyms,
                entries_count=found.entries,
                suppression=self._people.forgotten.seal_tag(tag),
            )

            def delete(written: Written) -> None:
                told = ErasedIn(people=len(pseudonyms), entries=found.entries, begun_index=written.index)
                self._half[tag] = _Half(pseudonyms, told)
                self._people.make_void(pseudonyms)
                self._people.erase(pseudonyms, tag, written.index)

            def encode(stamp: Stamp) -> bytes:
                return encode_erasure(begun, stamp, self._origin, named)

            await self._recorder.record_control([encode], caller, delete)
            return await self._completed(tag, caller)

    async def _finish(self, half: _Half, tag: bytes, caller: str) -> ErasedIn:
        """Takes the steps again that are left of an erasure."""
        await asyncio.to_thread(self._people.erase, half.pseudonyms, tag, half.told.begun_index)
        return await self._completed(tag, caller)

    async def _completed(self, tag: bytes, caller: str) -> ErasedIn:
        told = self._half[tag].told
        completed = await self._complete(told.begun_index, caller)
        del self._half[tag]
        return msgspec.structs.replace(told, completed_index=completed.index, objects=True)

    async def _complete(self, begun_index: int, caller: str) -> Written:
        """Takes the last bytes of the keys out of the files, and says so."""
        await asyncio.to_thread(self._people.forgotten.scrub)
        body = entry_pb2.ErasureEntry(step=entry_pb2.ERASURE_STEP_COMPLETED, begun_index=begun_index)
        encode: Callable[[Stamp], bytes] = lambda stamp: encode_erasure(body, stamp, self._origin)  # noqa: E731  # one of a list
        return (await self._recorder.record_control([encode], caller))[-1]

    async def apply_again(self, erasures: Sequence[Erasure]) -> None:
        """Applies the erasures of the book to the store, where it does not know them, and completes what was begun.

        Raises:
            BookRefusedError: the store's key is not the one that an erasure was written with.
            BookUnavailableError: the store cannot be written.
        """
        applied = await asyncio.to_thread(self._apply, erasures)
        unfinished = [erasure for erasure in erasures if not erasure.completed]
        if applied and not unfinished:
            await asyncio.to_thread(self._people.forgotten.scrub)
        for erasure in reversed(unfinished):
            await self._complete(erasure.index, SERVICE_CALLER)
        if applied or unfinished:
            structlog.get_logger("gatebook.audit").warning(
                "erasures applied again", applied=applied, completed=len(unfinished)
            )

    def _apply(self, erasures: Sequence[Erasure]) -> int:
        forgotten, applied = self._people.forgotten, 0
        forgotten.believe({one for erasure in erasures for one in erasure.pseudonyms})
        for erasure in erasures:
            tag = forgotten.open_tag(erasure.suppression)
            if not forgotten.knows(erasure.pseudonyms, tag):
                self._people.make_void(erasure.pseudonyms)
                self._people.erase(erasure.pseudonyms, tag, erasure.index)
                applied += 1
        return applied


async def name_two(recorder: Recorder, people: People, requested_by: str, approved_by: str, reason: str) -> Two:
    """Returns the two people who are named in an entry, durably in the store."""
    requester, approver = (PersonId(NAMED_TYPE, one) for one in (requested_by, approved_by))
    stored = await recorder.people_with({requester, approver})
    return Two(
        requested_by=requested_by,
        approved_by=approved_by,
        reason=reason,
        requester=stored[requester],
        approver=stored[approver],
        stranger=people.stranger,
    )


def require_two(requested_by: str, approved_by: str, reason: str, *, erased: str | None = None) -> None:
    """Requires two different people, neither of whom is erased, and a reason that does not name who is.

    Raises:
        InvalidRequestError: something is missing, too long, or the same.
    """
    required = {"requested_by": requested_by, "approved_by": approved_by, "reason": reason}
    if erased is not None:
        required = {"subject_id": erased, **required}
    for name, text in required.items():
        limit = REASON_BYTES_MAX if name == "reason" else ID_BYTES_MAX
        if not text.strip() or len(text.encode()) > limit:
            raise InvalidRequestError(name, f"1 to {limit} bytes, not {len(text.encode())}")
    if _alike(requested_by) == _alike(approved_by):
        raise InvalidRequestError("approved_by", "is who asks for it: somebody else must approve")
    if erased is None:
        return
    for name in ("requested_by", "approved_by"):
        if _alike(required[name]) == _alike(erased):
            raise InvalidRequestError(name, "is who is erased: name two other people")
    if re.search(rf"(?<!\w){re.escape(_alike(erased))}(?!\w)", _alike(reason)):
        raise InvalidRequestError("reason", "holds the id of who is erased, and is not erased: name a ticket")


def _alike(text: str) -> str:
    return text.strip().casefold()
