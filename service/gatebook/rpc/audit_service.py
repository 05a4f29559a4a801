"""The servicer of `AuditService`: list, show and prove entries."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gatebook.audit.checkpoints import Signed
from gatebook.audit.closed import ClosedBook
from gatebook.audit.entry import from_timestamp
from gatebook.audit.erasing import Order
from gatebook.audit.keeping import Keeping
from gatebook.audit.pruning import PruneOrder
from gatebook.audit.reader import BookReader
from gatebook.audit.record import without_personal_data
from gatebook.audit.recorder import Recorder
from gatebook.audit.sight import Sight
from gatebook.errors import BookUnavailableError, EntryNotFoundError, InvalidRequestError
from gatebook.rpc.edge import Call, Edge, ServicerContext, require_valid
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceServicer

TAIL_ENTRIES_MAX = 1_000
WAKE_SECONDS = 0.5
"""How soon a tail that waits notices that the server is stopping."""


class AuditServicer(AuditServiceServicer):
    """Reads the book; every read is itself an entry, written before it is answered."""

    def __init__(
        self, reader: BookReader, recorder: Recorder, keeping: Keeping, edge: Edge, *, one_of_several: bool = False
    ) -> None:
        """Takes what reads, the pen, what erases and prunes, the rim, and whether others looked before."""
        self._one_of_several = one_of_several
        self._reader = reader
        self._keeping = keeping
        self._recorder = recorder
        self._edge = edge

    async def ListBooks(  # noqa: N802  # gRPC names it
        self,
        request: pb.ListBooksRequest,  # noqa: ARG002  # as above
        context: ServicerContext,
    ) -> pb.ListBooksResponse:
        """Names the book."""
        async with self._edge.call("ListBooks", context):
            book = self._reader.book
            size = book.signed.checkpoint.size
            return pb.ListBooksResponse(
                books=[
                    pb.Book(
                        origin=book.origin,
                        verifier_key=str(book.key.verifier),
                        size=size,
                        first_index=book.first_index,
                    )
                ]
            )
        raise AssertionError  # the block above returns or aborts

    async def _closed(self, origin: str) -> ClosedBook | None:
        """Returns the closed book that a call names, or None where it names the one that is written.

        Raises:
            InvalidRequestError: there is no such book.
        """
        book = self._reader.book
        if origin in ("", book.origin):
            return None
        found = await self._reader.find_closed(origin)
        if found is None:
            self._require_origin(origin)
        return found

    def _require_origin(self, origin: str) -> None:
        """Refuses a call that names another book.

        Raises:
            InvalidRequestError: it does.
        """
        if origin not in ("", self._reader.book.origin):
            here = self._reader.book.origin
            told = f"the book here is `{here}`: name that one; entries of a closed book are read in its folder"
            raise InvalidRequestError("origin", told)

    async def ListEntries(  # noqa: N802  # gRPC names it
        self, request: pb.ListEntriesRequest, context: ServicerContext
    ) -> pb.ListEntriesResponse:
        """Lists entries that match a filter."""
        async with self._edge.call("ListEntries", context) as call:
            self._require_origin(request.origin)
            # A further page covers what the first one did, which is published and indexed.
            further = bool(request.page_token)
            signed = self._reader.book.signed if further else await self._reader.covering(request.filter)
            page = await self._reader.page(request, signed.checkpoint.size, self._edge.sight(call), call.caller.id)
            await self._reader.record(
                self._recorder, call.method, call.caller.id, records=page.records, asked=request.filter
            )
            call.tell(entries=len(page.records))
            shown = page.records
            if request.without_personal_data:
                shown = tuple(without_personal_data(record) for record in shown)
            return pb.ListEntriesResponse(
                entries=shown,
                next_page_token=page.next_page_token,
                checkpoint_size=page.size,
                first_index=self._reader.book.first_index,
            )
        raise AssertionError  # the block above returns or aborts

    async def GetEntry(  # noqa: N802  # as above
        self, request: pb.GetEntryRequest, context: ServicerContext
    ) -> pb.GetEntryResponse:
        """Returns one entry by index or by decision id."""
        async with self._edge.call("GetEntry", context) as call:
            self._require_origin(request.origin)
            if request.WhichOneof("selector") is None:
                raise InvalidRequestError("selector", "name an index or a decision id")
            sight = self._edge.sight(call)
            try:
                record = await self._entry(request, self._reader.book.signed.checkpoint.size, sight)
            except (EntryNotFoundError, BookUnavailableError):
                # It may be acknowledged and not yet published, or not yet indexed.
                record = await self._entry(request, (await self._reader.fresh()).checkpoint.size, sight)
            await self._reader.record(self._recorder, call.method, call.caller.id, records=[record])
            return pb.GetEntryResponse(record=record)
        raise AssertionError  # the block above returns or aborts

    async def _entry(self, request: pb.GetEntryRequest, size: int, sight: Sight) -> pb.EntryRecord:
        """Returns the entry that is named, of those before a size."""
        if request.WhichOneof("selector") == "index":
            return await self._reader.entry(request.index, size, sight)
        return await self._reader.decision(request.decision_id, size, sight)

    async def TailEntries(  # noqa: N802  # as above
        self, request: pb.TailEntriesRequest, context: ServicerContext
    ) -> AsyncIterator[pb.TailEntriesResponse]:
        """Sends entries as they are published.

        It is written down once, at its start: were every answer an entry, a tail would feed itself. A caller
        that does not read is held back by HTTP/2 flow control, and misses nothing.
        """
        async with self._edge.call("TailEntries", context, stream=True) as call:
            self._require_origin(request.origin)
            size = (await self._reader.fresh()).checkpoint.size
            at = request.start_index if request.HasField("start_index") else size
            await self._reader.record(self._recorder, call.method, call.caller.id, asked=request.filter)

            def sight() -> Sight:
                require_valid(call.caller)
                self._edge.permit(call)  # again: it may be long since it began
                return self._edge.sight(call)

            while not self._edge.draining.is_set():
                require_valid(call.caller)
                while at < size:
                    end = min(size, at + TAIL_ENTRIES_MAX)
                    async for page in self._reader.between(request.filter, at, end, sight):
                        yield pb.TailEntriesResponse(
                            entries=page.records, checkpoint_size=end, origin=self._reader.book.origin
                        )
                    at = end
                size = await self._reader.published_beyond(size, WAKE_SECONDS)

    async def GetCheckpoint(  # noqa: N802  # as above
        self, request: pb.GetCheckpointRequest, context: ServicerContext
    ) -> pb.GetCheckpointResponse:
        """Returns the newest signed checkpoint."""
        async with self._edge.call("GetCheckpoint", context) as call:
            closed = await self._closed(request.origin)
            await self._reader.record(self._recorder, call.method, call.caller.id)
            if closed is not None:
                note = closed.signed.note.decode()
                final = closed.signed.checkpoint.size
                return pb.GetCheckpointResponse(checkpoint=note, verifier_key=str(closed.key), size=final)
            signed = await self._reader.fresh() if request.refresh else self._reader.book.signed
            witnessed = self._reader.witnessed
            return pb.GetCheckpointResponse(
                checkpoint=signed.note.decode(),
                verifier_key=str(self._reader.book.key.verifier),
                size=signed.checkpoint.size,
                witnessed_checkpoint="" if witnessed is None else witnessed.note.decode(),
            )
        raise AssertionError  # the block above returns or aborts

    async def GetInclusionProof(  # noqa: N802  # as above
        self, request: pb.GetInclusionProofRequest, context: ServicerContext
    ) -> pb.GetInclusionProofResponse:
        """Proves that an entry is in the tree of a size."""
        async with self._edge.call("GetInclusionProof", context) as call:
            closed = await self._closed(request.origin)
            if closed is not None:
                return await self._proved(call, closed, request)
            signed = self._reader.book.signed
            if request.index >= signed.checkpoint.size or not request.size:
                signed = await self._reader.fresh()
            size = request.size or signed.checkpoint.size
            hashes = await self._reader.prove(self._reader.book.inclusion_proof, request.index, size)
            leaf_hash = await self._reader.leaf_hash(request.index)
            await self._reader.record(self._recorder, call.method, call.caller.id, indexes=[request.index])
            return pb.GetInclusionProofResponse(
                index=request.index,
                size=size,
                leaf_hash=leaf_hash,
                hashes=hashes,
                checkpoint=note_of(size, self._reader.witnessed, signed),
            )
        raise AssertionError  # the block above returns or aborts

    async def _proved(
        self, call: Call, closed: ClosedBook, request: pb.GetInclusionProofRequest
    ) -> pb.GetInclusionProofResponse:
        """Proves that an entry is in a closed book."""
        size = request.size or closed.signed.checkpoint.size
        leaf, hashes = await self._reader.prove(closed.inclusion, request.index, size)
        await self._reader.record(self._recorder, call.method, call.caller.id)
        return pb.GetInclusionProofResponse(
            index=request.index, size=size, leaf_hash=leaf, hashes=hashes, checkpoint=note_of(size, closed.signed)
        )

    async def GetConsistencyProof(  # noqa: N802  # as above
        self, request: pb.GetConsistencyProofRequest, context: ServicerContext
    ) -> pb.GetConsistencyProofResponse:
        """Proves that the tree of one size is a prefix of that of another."""
        async with self._edge.call("GetConsistencyProof", context) as call:
            closed = await self._closed(request.origin)
            if closed is not None:
                size = request.new_size or closed.signed.checkpoint.size
                hashes = await self._reader.prove(closed.consistency, request.old_size, size)
                await self._reader.record(self._recorder, call.method, call.caller.id)
                note = note_of(size, closed.signed)
                return pb.GetConsistencyProofResponse(
                    old_size=request.old_size, new_size=size, hashes=hashes, checkpoint=note
                )
            signed = await self._reader.fresh()
            size = request.new_size or signed.checkpoint.size
            hashes = await self._reader.prove(self._reader.book.consistency_proof, request.old_size, size)
            await self._reader.record(self._recorder, call.method, call.caller.id)
            return pb.GetConsistencyProofResponse(
                old_size=request.old_size,
                new_size=size,
                hashes=hashes,
                checkpoint=note_of(size, self._reader.witnessed, signed),
            )
        raise AssertionError  # the block above returns or aborts

    async def EraseSubject(  # noqa: N802  # as above
        self, request: pb.EraseSubjectRequest, context: ServicerContext
    ) -> pb.EraseSubjectResponse:
        """Erases a person, or says what that would erase."""
        async with self._edge.call("EraseSubject", context) as call:
            order = Order(
                subject_id=request.subject_id,
                requested_by=request.requested_by,
                approved_by=request.approved_by,
                reason=request.reason,
            )
            if request.validate_only:
                await self._reader.record(
                    self._recorder, call.method, call.caller.id, asked=pb.EntryFilter(subject_id=request.subject_id)
                )
                found = await self._keeping.erasing.preview(order)
            else:
                found = await self._keeping.erasing.erase(order, call.caller.id, known=self._one_of_several)
            call.tell(entries=found.entries)
            return pb.EraseSubjectResponse(
                books=[
                    pb.Erased(
                        origin=self._reader.book.origin,
                        people_count=found.people,
                        entries_count=found.entries,
                        begun_index=found.begun_index,
                        completed_index=found.completed_index,
                        objects=found.objects,
                    )
                ]
            )
        raise AssertionError  # the block above returns or aborts

    async def PruneEntries(  # noqa: N802  # as above
        self, request: pb.PruneEntriesRequest, context: ServicerContext
    ) -> pb.PruneEntriesResponse:
        """Prunes the oldest entries, or says what would go."""
        async with self._edge.call("PruneEntries", context) as call:
            order = PruneOrder(
                before=from_timestamp(request.before_time) if request.HasField("before_time") else None,
                keep_days=request.keep_days,
                policy=request.policy,
                requested_by=request.requested_by,
                approved_by=request.approved_by,
                reason=request.reason,
            )
            pruning = self._keeping.pruning
            if request.validate_only:
                await self._reader.record(self._recorder, call.method, call.caller.id)
                found = await pruning.preview(order)
            else:
                found = await pruning.prune(order, call.caller.id)
            call.tell(entries=found.entries)
            return pb.PruneEntriesResponse(
                books=[
                    pb.Pruned(
                        origin=self._reader.book.origin,
                        first_index=found.first_index,
                        entries_count=found.entries,
                        carried_count=found.carried,
                        held=found.held,
                        begun_index=found.begun_index,
                        policy_index=found.policy_index,
                    )
                ]
            )
        raise AssertionError  # the block above returns or aborts


def note_of(size: int, *kept: Signed | None) -> str:
    """Returns the checkpoint of a tree of this size, verbatim, if it is one that is kept."""
    return next((each.note.decode() for each in kept if each is not None and each.checkpoint.size == size), "")
