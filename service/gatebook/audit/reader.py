"""Reads of the book by auditors: fresh, opened, and themselves written down.

Owns what every such read has in common. Rules:

1. what was acknowledged before the call, and may concern it, is published and indexed first, so that the answer
   covers it and every row of it can be proved against a signed checkpoint;
2. a read is an entry before it is answered; its filter, which may name people, is sealed;
3. the work of a read is done on threads of its own, so that checks are not held up, and of the reads that
   wait for one there are not more than a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format

from gatebook.audit.book import Book
from gatebook.audit.checkpoints import Signed
from gatebook.audit.clerk_words import Begin
from gatebook.audit.clerking import Clerking
from gatebook.audit.closed import ClosedBook, find_closed
from gatebook.audit.cosigning import Collector
from gatebook.audit.entry import ReadEvent, decode, nanoseconds
from gatebook.audit.people import People, Person
from gatebook.audit.proving import Prover
from gatebook.audit.publish import Publisher
from gatebook.audit.query import PAGE_SIZE_MAX, Page, Query
from gatebook.audit.recorder import Recorder
from gatebook.audit.sight import Sight
from gatebook.errors import OverloadedError
from gatebook.tlog.policy import WitnessPolicy
from gatebook.v1 import audit_service_pb2

T = TypeVar("T")
READ_THREADS = 2
READS_WAITING_MAX = 64
PUBLISH_EVERY_SECONDS = 0.03


class BookReader:
    """Answers auditors. Methods are called on the event loop."""

    def __init__(
        self,
        book: Book,
        publisher: Publisher,
        clerking: Clerking,
        query: Query,
        people: People,
        prover: Prover,
        collector: Collector | None = None,
    ) -> None:
        """Takes the open book, what publishes it, who keeps its index, what finds, proves, and who asks witnesses."""
        self.book = book
        self.prover = prover
        self.collector = collector
        self._publisher = publisher
        self._clerking = clerking
        self._query = query
        self._people = people
        self._publish_turn = threading.Lock()
        self._published_clock = 0.0
        self._threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="book-read")
        self._waiting = 0
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()  # replaced and set whenever the index has grown

    @property
    def indexed_size(self) -> int:
        """Returns how many entries the index covers, from entry 0 on."""
        return self._clerking.indexed_size

    @property
    def clerks_begun(self) -> int:
        """Returns how many clerks have begun: one, and one more for each that has ended by itself."""
        return self._clerking.begun

    @property
    def witnessed(self) -> Signed | None:
        """Returns the newest checkpoint that enough witnesses cosigned, if there is one."""
        return None if self.collector is None else self.collector.witnessed

    async def fresh(self) -> Signed:
        """Publishes and indexes what is acknowledged, and returns the checkpoint that covers it.

        Raises:
            BookUnavailableError: it cannot be published.
            OverloadedError: too many reads wait.
        """
        return await self._work(self._fresh)

    async def covering(self, asked: audit_service_pb2.EntryFilter) -> Signed:
        """Returns a checkpoint that covers every acknowledged entry that a filter can match; publishes only if it must.

        Raises:
            BookUnavailableError: it cannot be published.
            OverloadedError: too many reads wait.
        """
        signed = self.book.signed
        return signed if await self._work(self._settled, asked, signed.checkpoint.size) else await self.fresh()

    def _settled(self, asked: audit_service_pb2.EntryFilter, size: int) -> bool:
        """Tells whether nothing from `size` on, which is published, can match a filter."""
        if self._clerking.indexed_size < size:
            return False
        if asked.end_index:
            return bool(asked.end_index <= size)
        if not size or not asked.HasField("end_time"):
            return False
        # INVARIANT: entry times never go backwards within a book.
        newest = decode(self.book.read(size - 1, size)[0], size - 1)
        return nanoseconds(newest.entry_time) >= nanoseconds(asked.end_time)

    def _fresh(self) -> Signed:
        wanted = self.book.size
        with self._publish_turn:
            signed = self.book.signed
            if signed.checkpoint.size < wanted:
                # Each publication writes tiles of its own, so reads in quick succession share one.
                time.sleep(max(0.0, self._published_clock + PUBLISH_EVERY_SECONDS - time.monotonic()))
                signed = self._publisher.publish_now()
                self._published_clock = time.monotonic()
        self._clerking.cover(signed.checkpoint.size)
        return signed

    async def _work(self, function: Callable[..., T], *arguments: object) -> T:
        if self._waiting >= READS_WAITING_MAX:
            raise OverloadedError("too many reads of the book wait; ask again", limit="reads_waiting")
        self._waiting += 1
        try:
            return await self._loop.run_in_executor(self._threads, function, *arguments)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ends the threads that read, once they have nothing more to do."""
        self._threads.shutdown()

    def tell_grown(self) -> None:
        """Is told, on whatever thread, that the index has grown."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._tell_grown)

    def _tell_grown(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def page(
        self, request: audit_service_pb2.ListEntriesRequest, size: int, sight: Sight, caller: str = ""
    ) -> Page:
        """Returns one page of the entries before `size`, or before that of its token, that match and are seen."""
        return await self._work(self._query.page, request, size, sight, caller)

    async def entry(self, index: int, size: int, sight: Sight) -> audit_service_pb2.EntryRecord:
        """Returns the entry with an index before `size`, if it is seen."""
        return await self._work(self._query.entry, index, size, sight)

    async def decision(self, decision_id: str, size: int, sight: Sight) -> audit_service_pb2.EntryRecord:
        """Returns the entry of a decision before `size`, if it is seen."""
        return await self._work(self._query.decision, decision_id, size, sight)

    async def between(
        self, asked: audit_service_pb2.EntryFilter, start: int, end: int, sight: Callable[[], Sight]
    ) -> AsyncIterator[Page]:
        """Yields pages of the entries of [start, end) that match and are seen, in the order of the book.

        For each page `sight` says anew what is seen, or raises: it may be long until a page is taken.
        """
        request = audit_service_pb2.ListEntriesRequest(
            filter=asked, page_size=PAGE_SIZE_MAX, order=audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST
        )
        request.filter.start_index = max(start, asked.start_index)
        request.filter.end_index = min(end, asked.end_index or end)
        more = True
        while more:
            page = await self.page(request, end, sight())
            yield page
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)

    async def concerning(self, pseudonyms: Sequence[bytes]) -> int:
        """Returns how many entries before the end of the book concern one of these people."""
        size = (await self.fresh()).checkpoint.size
        return await self._work(self._query.concerning, pseudonyms, size)

    async def first_since(self, time: int, size: int) -> int:
        """Returns the index of the first entry before `size` that was not made before a time, or `size`."""
        return await self._work(self._query.first_since, time, size)

    def forget_before(self, first_index: int) -> None:
        """Has the index forget what is pruned, and waits for it. For a thread that may wait.

        Raises:
            BookUnavailableError: it has not yet.
        """
        self._clerking.forget_before(first_index)

    async def without_key(self, size: int, going_on: Callable[[], bool]) -> tuple[int, int | None]:
        """Returns how many people in entries before `size` have neither a key nor an erasure, and the first entry.

        It may take long, so it takes no place of a reader's; it ends early where it is not to go on.
        """
        return await asyncio.to_thread(self._query.without_key, size, going_on)

    async def published_beyond(self, size: int, timeout_seconds: float) -> int:
        """Waits until more than `size` entries are published and indexed, or the time is over; returns how many are."""
        if self.indexed_size <= size:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._grown.wait(), timeout_seconds)
        return max(size, self.indexed_size)

    async def find_closed(self, origin: str) -> ClosedBook | None:
        """Returns the closed book with an origin, if this one has succeeded it."""
        return await self._work(find_closed, self.book.layout.data, origin)

    async def prove(self, prove: Callable[[int, int], T], first: int, second: int) -> T:
        """Computes a proof of the book on a thread."""
        return await self._work(prove, first, second)

    async def leaf_hash(self, index: int) -> bytes:
        """Returns the leaf hash of a published entry, be it pruned or not."""
        return await self._work(self.book.leaf_hash, index)

    async def record(
        self,
        recorder: Recorder,
        method: str,
        caller: str,
        *,
        records: Sequence[audit_service_pb2.EntryRecord] = (),
        indexes: Sequence[int] = (),
        asked: audit_service_pb2.EntryFilter | None = None,
    ) -> None:
        """Writes down a read, durably: of these records, or of what stands at these indexes."""
        indexes = indexes or [record.index for record in records]
        people = () if asked is None else await self._work(self._named, asked)
        event = ReadEvent(
            method=method,
            indexes=(min(indexes), max(indexes)) if indexes else None,
            count=len(indexes),
            filter_json=b"" if asked is None else filter_json(asked),
            people=people,
        )
        await recorder.record_read(event, caller)

    def _named(self, asked: audit_service_pb2.EntryFilter) -> tuple[Person, ...]:
        """Returns under whose keys a filter is sealed: everyone with the id that it names, or the stranger."""
        found = self._people.find(asked.subject_id) if asked.subject_id else ()
        return found or (self._people.stranger,)


def filter_json(asked: audit_service_pb2.EntryFilter) -> bytes:
    """Returns a filter as one JSON object."""
    return json_format.MessageToJson(asked, preserving_proto_field_name=True, indent=None).encode()


@contextlib.contextmanager
def open_reader(data: Path, book: Book, people: People, witnesses: WitnessPolicy | None = None) -> Iterator[BookReader]:
    """Opens what auditors read from, and has the book published, indexed and cosigned within the block.

    Raises:
        BookUnavailableError: the index cannot be kept.
        BookRefusedError: witnesses cosigned what this book does not continue.
    """
    with contextlib.ExitStack() as stack:
        query = Query(data / "index.db", book, people, book.origin)
        stack.callback(query.close)

        def begin() -> Begin:
            return Begin(str(data), book.origin, book.signed.checkpoint.size, book.first_index)

        clerking = Clerking(begin, on_begun=query.close, on_grown=lambda: reader.tell_grown())  # noqa: PLW0108  # made below
        publisher = Publisher(book, write_tiles=clerking.write_tiles)
        collector = Collector(book, publisher, witnesses) if witnesses and witnesses.witnesses else None
        prover = Prover(book, publisher, collector)
        stack.callback(prover.close)
        reader = BookReader(book, publisher, clerking, query, people, prover, collector)
        stack.callback(reader.close)
        clerking.open()
        stack.callback(clerking.close)
        clerking.follow(book.signed.checkpoint.size)
        publisher.add_listener(lambda _old_size, new_size: clerking.follow(new_size))
        if collector is not None:
            collector.start()
            stack.callback(collector.close)
        publisher.start()
        stack.callback(publisher.close)
        stack.callback(clerking.hasten)  # first of all
        yield reader
