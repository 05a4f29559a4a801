"""The recorder: the one object that puts entries into the book.

Owns what every entry continues, and keeps these rules:

1. entry times never go backwards, across restarts too, whatever the clock does;
2. control links are exact: while a policy entry is on its way no other entry is built, so that
   each entry names the newest policy entry before it;
3. the people of an entry are durable before the entry is;
4. what is returned is durable in the book.

It belongs to one event loop. Between taking the time and handing the entries to the writer nothing
is awaited, so that the order of times is the order of indexes.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import msgspec

from gatebook.audit.chain import BookEnd
from gatebook.audit.decision_entry import Decided, clear_of, encode_decision
from gatebook.audit.entry import (
    PolicyEvent,
    ReadEvent,
    Stamp,
    encode_policy,
    encode_read,
    encode_system,
)
from gatebook.audit.people import People, Person, PersonId
from gatebook.audit.writer import BookWriter
from gatebook.tally import COMMITS, COMMITS_MAX, COUNTS, SECONDS, Distribution
from gatebook.v1 import entry_pb2
from gatebook.values import Reason

SERVICE_CALLER = "gatebook"


class Written(msgspec.Struct, frozen=True, gc=False):
    """Where an entry stands in the book, durably."""

    index: int
    leaf_hash: bytes
    entry_time: datetime
    entry_bytes: bytes


Watch = Callable[[Sequence[Decided], Sequence[Written], str], None]


class Recorder:
    """Turns what happened into entries and waits until they are durable."""

    def __init__(
        self, writer: BookWriter, people: People, end: BookEnd, *, origin: str, clock: Callable[[], datetime]
    ) -> None:
        """Takes where the book ends (`chain.find_end`), and a clock that returns aware times."""
        self._writer = writer
        self._people = people
        self._origin = origin
        self._clock = clock
        self._last_entry_time = end.last_entry_time
        self._control_link = end.control_link
        self._settled = asyncio.Event()  # clear while a policy entry is on its way
        self._settled.set()
        self._policy_turn = asyncio.Lock()
        self._people_turn = asyncio.Lock()
        # A thread of its own, so that new people do not wait for whatever else the process does on threads.
        self._people_thread = ThreadPoolExecutor(1, thread_name_prefix="people")
        self._people_wanted: set[PersonId] = set()
        self._tasks: set[asyncio.Task[list[Written]]] = set()
        self.decided: dict[tuple[str, Reason], int] = {}
        """How many decisions are in the book since the start, by policy set and reason."""
        self.together = Distribution(COUNTS)
        """How many decisions were handed in together."""
        self.wait_seconds = Distribution(SECONDS)
        """How long entries waited until they were durable."""
        self.watch: Watch | None = None
        """Is handed decisions once they are durable. It must take next to no time, and raise nothing."""

    @property
    def control_link(self) -> int:
        """Returns one more than the index of the newest policy or control entry; 0 means none."""
        return self._control_link

    def now(self) -> datetime:
        """Returns the time that decisions are made at: never before that of the last entry."""
        return max(self._clock(), self._last_entry_time)

    async def record_decisions(self, decided: Sequence[Decided], caller: str) -> list[Written]:
        """Writes the decisions in order, with one commit.

        Raises:
            BookUnavailableError: they are not in the book, or nobody knows: nothing may be answered.
            OverloadedError: they are not in the book, since too much is under way.
            LimitExceededError: one of them does not fit.
        """
        clear = [clear_of(one) for one in decided]
        ids = {person for one in clear for person in one.people}
        people: Mapping[PersonId, Person] = {}
        erasures = -1
        while erasures != self._people.erasures:  # else somebody may have been erased while this waited
            erasures = self._people.erasures
            people = await self._people_with(ids)
            await self._settle()
        stamp = self._stamp(caller)
        origin = self._origin
        entries = [
            encode_decision(one, stamp, [people[i] for i in its.people], origin, its)
            for one, its in zip(decided, clear, strict=True)
        ]
        written = await self._append(entries, stamp)
        self._count(decided)
        if self.watch is not None:
            self.watch(decided, written, caller)
        return written

    async def record_read(self, event: ReadEvent, caller: str) -> Written:
        """Writes a read of the book."""
        await self._settle()
        event = msgspec.structs.replace(event, people=self._people.current(event.people))
        stamp = self._stamp(caller)
        return (await self._append([encode_read(event, stamp, self._origin)], stamp))[0]

    async def record_search(self, method: str, caller: str, *, question: bytes, count: int, about: PersonId) -> Written:
        """Writes a search, sealed under the key of whom it is about."""
        people = await self._people_with({about})
        event = ReadEvent(method=method, count=count, filter_json=question, people=(people[about],))
        return await self.record_read(event, caller)

    async def record_system(
        self, event: entry_pb2.SystemEvent.ValueType, *, version: str, recovered_size: int = 0, unclean: bool = False
    ) -> Written:
        """Writes a start or stop of the service."""
        await self._settle()
        stamp = self._stamp(SERVICE_CALLER)
        entry = encode_system(event, stamp, version=version, recovered_size=recovered_size, unclean=unclean)
        return (await self._append([entry], stamp))[0]

    async def record_policy(self, event: PolicyEvent, caller: str) -> Written:
        """Writes a step in the life of a policy set or directory.

        It is carried through also when the caller goes away: the link must follow the entry.
        """
        return (await self.record_policies([event], caller))[-1]

    async def record_policies(self, events: Sequence[PolicyEvent], caller: str) -> list[Written]:
        """Writes several such steps, in order and with no other entry in between."""
        origin = self._origin
        return await self.record_control(
            [functools.partial(encode_policy, event, origin=origin) for event in events], caller
        )

    async def record_control(
        self,
        encoders: Sequence[Callable[[Stamp], bytes]],
        caller: str,
        then: Callable[[Written], None] | None = None,
    ) -> list[Written]:
        """Writes control entries, each linked to the one before, and no other entry in between.

        It is carried through also when the caller goes away: the link must follow the entry. `then` is told where the
        last one stands, on a thread, and no entry is built until it has returned.
        """
        return await self._carry_through(self._append_control(encoders, caller, then))

    async def people_with(self, ids: set[PersonId]) -> Mapping[PersonId, Person]:
        """Returns the people with these ids, durably stored."""
        return await self._people_with(ids)

    async def _append_control(
        self,
        encoders: Sequence[Callable[[Stamp], bytes]],
        caller: str,
        then: Callable[[Written], None] | None,
    ) -> list[Written]:
        done: list[Written] = []
        async with self._policy_turn:
            self._settled.clear()
            try:
                for encode in encoders:
                    stamp = self._stamp(caller)
                    [written] = await self._append([encode(stamp)], stamp)
                    self._control_link = written.index + 1
                    done.append(written)
                if then is not None:
                    await asyncio.get_running_loop().run_in_executor(self._people_thread, then, done[-1])
            finally:
                self._settled.set()
        return done

    async def _append(self, entries: list[bytes], stamp: Stamp) -> list[Written]:
        began = time.perf_counter()
        appended = await self._writer.submit(entries)
        ended = time.perf_counter()
        self.wait_seconds.observe(ended - began)
        noted = COMMITS.get()
        if noted is not None and len(noted) < COMMITS_MAX:
            noted.append((began, ended))
        # Past the commit point: from here on the entries are durable.
        places = enumerate(zip(entries, appended.leaf_hashes, strict=True), start=appended.first_index)
        return [Written(index, leaf, stamp.entry_time, entry) for index, (entry, leaf) in places]

    def _count(self, decided: Sequence[Decided]) -> None:
        counts = self.decided
        for one in decided:
            outcome = one.decision.outcome
            key = (outcome.policy_set, outcome.reason)
            counts[key] = counts.get(key, 0) + 1
        self.together.observe(len(decided))

    async def _settle(self) -> None:
        while not self._settled.is_set():
            await self._settled.wait()

    def _stamp(self, caller: str) -> Stamp:
        self._last_entry_time = max(self._clock(), self._last_entry_time)
        return Stamp.of(self._last_entry_time, caller, self._control_link)

    async def _people_with(self, ids: set[PersonId]) -> Mapping[PersonId, Person]:
        """Returns the people with these ids; those who are new in many calls share one commit."""
        people = self._people.cached(ids)
        if people is not None:
            return people
        self._people_wanted |= ids
        async with self._people_turn:
            people = self._people.cached(ids)
            if people is None:
                wanted, self._people_wanted = self._people_wanted | ids, set()
                loop = asyncio.get_running_loop()
                people = await loop.run_in_executor(self._people_thread, self._people.ensure, wanted)
        return people

    async def _carry_through(self, work: Coroutine[Any, Any, list[Written]]) -> list[Written]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)
