"""The servicer of `AuditService` where a service has several workers, each with a book of its own.

Owns which book is asked, and how the answers of several become one. Rules:

1. each book is read by the worker that writes it, which writes the read down;
2. what a call names by its index alone is one of several things, so it must name the book;
3. a merged list is ordered by time, then origin, then index; each page covers all books that its first did.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

import grpc.aio
import msgspec
from google.protobuf.message import Message

from gatebook.config import Limits
from gatebook.errors import (
    BookUnavailableError,
    DeadlineExceededError,
    EntryNotFoundError,
    GatebookError,
    InvalidPageTokenError,
    InvalidRequestError,
    PersonNotFoundError,
)
from gatebook.rpc import decode
from gatebook.rpc.edge import Call, Edge, ServicerContext
from gatebook.rpc.inner import name_caller
from gatebook.rpc.relay import relayed
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceServicer, AuditServiceStub

Answer = TypeVar("Answer", bound=Message)
TAG_BYTES = 16
PARTS_EMPTY_MAX = 100
TAIL_WAITING_MAX = 4
"""Answers of the books' tails that wait for the caller to read."""


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """How far a merged list has come in one book of a size: the bound of what is still to be listed, or nothing is."""

    index: int
    size: int
    done: bool = False


class AuditBooks(AuditServiceServicer):
    """Reads all books of a service."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], token_key: bytes, edge: Edge, limits: Limits) -> None:
        """Takes the way to the worker of each book by its origin, the first worker's first."""
        self._stubs: dict[str, Any] = {origin: AuditServiceStub(channel) for origin, channel in channels.items()}
        self._token_key = token_key
        self._edge = edge
        self._limits = limits

    async def ListBooks(self, request: pb.ListBooksRequest, context: ServicerContext) -> pb.ListBooksResponse:  # noqa: N802  # gRPC names it
        """Names the books."""
        async with self._edge.call("ListBooks", context) as call:
            told = await asyncio.gather(
                *(self._ask(call, o, "ListBooks", request, pb.ListBooksResponse) for o in self._stubs)
            )
            return pb.ListBooksResponse(books=[book for response in told for book in response.books])
        raise AssertionError  # the block above returns or aborts

    async def ListEntries(self, request: pb.ListEntriesRequest, context: ServicerContext) -> pb.ListEntriesResponse:  # noqa: N802  # as above
        """Lists entries of one book, or of all."""
        async with self._edge.call("ListEntries", context) as call:
            if request.origin:
                return await self._ask(
                    call, self._named(request.origin), "ListEntries", request, pb.ListEntriesResponse
                )
            return await self._merged(call, request)
        raise AssertionError  # the block above returns or aborts

    async def _merged(self, call: Call, request: pb.ListEntriesRequest) -> pb.ListEntriesResponse:
        if request.filter.start_index or request.filter.end_index:
            raise InvalidRequestError("origin", "an index is that of one book: name the book")
        size = decode.page_size(request.page_size, self._limits)
        oldest_first = request.order == pb.ENTRY_ORDER_OLDEST_FIRST
        bounds = self._bounds(call, request)
        asked = [origin for origin in self._stubs if origin not in bounds or not bounds[origin].done]
        answers = await asyncio.gather(
            *(self._part_of(call, self._part(request, o, bounds.get(o), size)) for o in asked)
        )
        page = merge(answers, size, oldest_first=oldest_first)
        following = dict(bounds)
        for origin, answer in zip(asked, answers, strict=True):
            told = [record.index for record in page if record.origin == origin]
            covered = bounds[origin].size if origin in bounds else answer.checkpoint_size
            bound = bounds[origin].index if origin in bounds else 0 if oldest_first else covered
            if told:
                bound = told[-1] + 1 if oldest_first else told[-1]
            exhausted = not answer.next_page_token and len(told) == len(answer.entries)
            following[origin] = Bound(bound, covered, exhausted or (bound == 0 and not oldest_first))
        more = not all(following[origin].done for origin in self._stubs)
        begins = {o: answer.first_index for o, answer in zip(asked, answers, strict=True)}
        books = [pb.Book(origin=o, size=bound.size, first_index=begins.get(o, 0)) for o, bound in following.items()]
        token = self._token(call, request, following) if more else ""
        return pb.ListEntriesResponse(entries=page, next_page_token=token, books=books)

    async def _part_of(self, call: Call, part: pb.ListEntriesRequest) -> pb.ListEntriesResponse:
        """Returns the next page of a book that is not empty, or its last."""
        for _ in range(PARTS_EMPTY_MAX):
            answer: pb.ListEntriesResponse = await self._ask(
                call, part.origin, "ListEntries", part, pb.ListEntriesResponse
            )
            if answer.entries or not answer.next_page_token:
                return answer
            part.page_token = answer.next_page_token
        raise DeadlineExceededError("the filter takes too long: narrow it by time")

    def _part(
        self, request: pb.ListEntriesRequest, origin: str, bound: Bound | None, size: int
    ) -> pb.ListEntriesRequest:
        """Returns what one book is asked for: from where the page before left it."""
        part = pb.ListEntriesRequest(
            filter=request.filter,
            page_size=size,
            order=request.order,
            origin=origin,
            without_personal_data=request.without_personal_data,
        )
        if bound is not None and request.order == pb.ENTRY_ORDER_OLDEST_FIRST:
            part.filter.start_index = bound.index
            part.filter.end_index = bound.size
        elif bound is not None:
            part.filter.end_index = bound.index
        return part

    def _bounds(self, call: Call, request: pb.ListEntriesRequest) -> dict[str, Bound]:
        if not request.page_token:
            return {}
        message = "the page token is not one of this filter, order and caller: start again without one"
        try:
            token = base64.urlsafe_b64decode(request.page_token.encode())
            bounds = msgspec.json.decode(token[TAG_BYTES:], type=dict[str, Bound])
        except (binascii.Error, ValueError) as err:
            raise InvalidPageTokenError(message, field="page_token") from err
        if not hmac.compare_digest(self._token(call, request, bounds).encode(), request.page_token.encode()):
            raise InvalidPageTokenError(message, field="page_token")
        return bounds

    def _token(self, call: Call, request: pb.ListEntriesRequest, bounds: Mapping[str, Bound]) -> str:
        text = msgspec.json.encode(dict(sorted(bounds.items())))
        asked = pb.ListEntriesRequest(filter=request.filter, order=request.order).SerializeToString(deterministic=True)
        named = b"v2 books " + text + b"\n" + msgspec.json.encode(call.caller.id) + b"\n"
        tag = hmac.digest(self._token_key, named + asked, hashlib.sha256)[:TAG_BYTES]
        return base64.urlsafe_b64encode(tag + text).decode()

    async def GetEntry(self, request: pb.GetEntryRequest, context: ServicerContext) -> pb.GetEntryResponse:  # noqa: N802  # as above
        """Returns one entry of the book that is named, or the one book's that holds the decision."""
        async with self._edge.call("GetEntry", context) as call:
            if request.origin or request.WhichOneof("selector") != "decision_id":
                return await self._ask(call, self._named(request.origin), "GetEntry", request, pb.GetEntryResponse)
            missing: GatebookError | None = None
            for origin in self._stubs:
                try:
                    return await self._ask(call, origin, "GetEntry", request, pb.GetEntryResponse)
                except GatebookError as error:
                    if error.reason != EntryNotFoundError.reason:
                        raise
                    missing = error
            raise missing or AssertionError
        raise AssertionError  # the block above returns or aborts

    async def TailEntries(  # noqa: N802  # as above
        self, request: pb.TailEntriesRequest, context: ServicerContext
    ) -> AsyncIterator[pb.TailEntriesResponse]:
        """Sends the entries of one book as they are published, or those of all, each in its own order."""
        async with self._edge.call("TailEntries", context, stream=True) as call:
            if request.origin or request.HasField("start_index"):
                origins = [self._named(request.origin)]
            else:
                origins = list(self._stubs)
            waiting: asyncio.Queue[pb.TailEntriesResponse] = asyncio.Queue(TAIL_WAITING_MAX)
            draining = asyncio.create_task(self._edge.draining.wait())
            tails = [asyncio.create_task(self._tail(call, o, request, waiting)) for o in origins]
            arriving: asyncio.Task[pb.TailEntriesResponse] = asyncio.create_task(waiting.get())
            try:
                while True:
                    await asyncio.wait({arriving, draining, *tails}, return_when=asyncio.FIRST_COMPLETED)
                    if arriving.done():
                        yield arriving.result()
                        arriving = asyncio.create_task(waiting.get())
                    elif draining.done():
                        return
                    else:
                        for ended in (tail for tail in tails if tail.done()):
                            ended.result()
                            return
            finally:
                for task in (arriving, draining, *tails):
                    task.cancel()

    async def _tail(
        self, call: Call, origin: str, request: pb.TailEntriesRequest, waiting: asyncio.Queue[pb.TailEntriesResponse]
    ) -> None:
        answers = self._stubs[origin].TailEntries(request, metadata=[name_caller(call.caller)])
        try:
            async for answer in answers:
                await waiting.put(answer)
        except grpc.aio.AioRpcError as error:
            raise relayed(error) from error
        finally:
            answers.cancel()

    async def GetCheckpoint(  # noqa: N802  # as above
        self, request: pb.GetCheckpointRequest, context: ServicerContext
    ) -> pb.GetCheckpointResponse:
        """Returns the newest signed checkpoint of a book, of the first worker's unless one is named."""
        async with self._edge.call("GetCheckpoint", context) as call:
            origin = request.origin or next(iter(self._stubs))
            return await self._prove(call, origin, "GetCheckpoint", request, pb.GetCheckpointResponse)
        raise AssertionError  # the block above returns or aborts

    async def GetInclusionProof(  # noqa: N802  # as above
        self, request: pb.GetInclusionProofRequest, context: ServicerContext
    ) -> pb.GetInclusionProofResponse:
        """Proves that an entry is in the tree of a book."""
        async with self._edge.call("GetInclusionProof", context) as call:
            return await self._prove(call, request.origin, "GetInclusionProof", request, pb.GetInclusionProofResponse)
        raise AssertionError  # the block above returns or aborts

    async def GetConsistencyProof(  # noqa: N802  # as above
        self, request: pb.GetConsistencyProofRequest, context: ServicerContext
    ) -> pb.GetConsistencyProofResponse:
        """Proves that the tree of one size of a book is a prefix of that of another."""
        async with self._edge.call("GetConsistencyProof", context) as call:
            return await self._prove(
                call, request.origin, "GetConsistencyProof", request, pb.GetConsistencyProofResponse
            )
        raise AssertionError  # the block above returns or aborts

    async def EraseSubject(  # noqa: N802  # as above
        self, request: pb.EraseSubjectRequest, context: ServicerContext
    ) -> pb.EraseSubjectResponse:
        """Erases a person in every book, or says what that would erase. What a book has done already it does again."""
        async with self._edge.call("EraseSubject", context) as call:
            asked = pb.EraseSubjectRequest()
            asked.CopyFrom(request)
            asked.validate_only = True
            found = await self._erase(call, asked)
            if request.validate_only:
                return found
            if not any(book.people_count or book.begun_index for book in found.books):
                raise PersonNotFoundError
            return await self._erase(call, request)
        raise AssertionError  # the block above returns or aborts

    async def _erase(self, call: Call, request: pb.EraseSubjectRequest) -> pb.EraseSubjectResponse:
        done = "" if request.validate_only else "done"
        told = await self._each(call, "EraseSubject", request, pb.EraseSubjectResponse, done)
        return pb.EraseSubjectResponse(books=[book for answer in told for book in answer.books])

    async def PruneEntries(  # noqa: N802  # as above
        self, request: pb.PruneEntriesRequest, context: ServicerContext
    ) -> pb.PruneEntriesResponse:
        """Prunes every book, one after the other, or says what would go. What is refused by one is begun in none."""
        async with self._edge.call("PruneEntries", context) as call:
            asked = pb.PruneEntriesRequest()
            asked.CopyFrom(request)
            asked.validate_only = True
            told = await self._each(call, "PruneEntries", asked, pb.PruneEntriesResponse)
            if not request.validate_only:
                told = await self._each(call, "PruneEntries", request, pb.PruneEntriesResponse, "done")
            return pb.PruneEntriesResponse(books=[book for answer in told for book in answer.books])
        raise AssertionError  # the block above returns or aborts

    async def _each(
        self, call: Call, method: str, request: Message, kind: type[Answer], done: str = ""
    ) -> list[Answer]:
        """Asks for every book, one after the other.

        Raises:
            GatebookError: as one answers, where it is the first.
            BookUnavailableError: one could not do it when others had: it says which. Not where nothing is `done`.
        """
        told: dict[str, Answer] = {}
        for origin in self._stubs:
            try:
                told[origin] = await self._ask(call, origin, method, request, kind)
            except GatebookError as error:
                if not told or not done:
                    raise
                before = ", ".join(f"`{each}`" for each in told)
                message = f"{before} is {done}, `{origin}` is not: {error.message}; the same again does the rest"
                raise BookUnavailableError(message) from error
        return list(told.values())

    def _named(self, origin: str) -> str:
        if origin in self._stubs:
            return origin
        books = ", ".join(f"`{known}`" for known in self._stubs)
        raise InvalidRequestError("origin", f"name one of the books: {books}")

    async def _prove(self, call: Call, origin: str, method: str, request: Message, kind: type[Answer]) -> Answer:
        """Asks the worker of a book, or of a closed one, which only the worker of its successor knows."""
        if origin in self._stubs or not origin:
            return await self._ask(call, self._named(origin), method, request, kind)
        for known in self._stubs:
            try:
                return await self._ask(call, known, method, request, kind)
            except GatebookError as error:
                if error.reason != InvalidRequestError.reason:
                    raise
        return await self._ask(call, self._named(origin), method, request, kind)

    async def _ask(self, call: Call, origin: str, method: str, request: Message, kind: type[Answer]) -> Answer:
        try:
            answer = await getattr(self._stubs[origin], method)(request, metadata=[name_caller(call.caller)])
        except grpc.aio.AioRpcError as error:
            raise relayed(error) from error
        if not isinstance(answer, kind):
            raise TypeError(f"{method} answered {type(answer).__name__}")
        return answer


def merge(answers: Sequence[pb.ListEntriesResponse], size: int, *, oldest_first: bool) -> list[pb.EntryRecord]:
    """Returns the first entries of several lists together.

    A list may end early. What lies behind its last entry is not known, so nothing that could come after that is told.
    """
    records = [record for answer in answers for record in answer.entries]
    records.sort(key=_place, reverse=not oldest_first)
    ends = [_place(answer.entries[-1]) for answer in answers if answer.next_page_token]
    if oldest_first:
        known = [record for record in records if not ends or _place(record) <= min(ends)]
    else:
        known = [record for record in records if not ends or _place(record) >= max(ends)]
    return known[:size]


def _place(record: pb.EntryRecord) -> tuple[int, str, int]:
    return record.entry.entry_time.ToNanoseconds(), record.origin, record.index
