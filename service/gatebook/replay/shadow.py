"""Decides live decisions also under a draft, after they were answered.

Owns one shadow: a queue that what decides hands its decisions to, once they are durably in the book. Rules:

1. nothing of a shadow is ever answered, and nothing that decides waits for it: a full queue drops, and the drops are
   counted;
2. one at a time; it ends with its time, its caller or the service;
3. its caller is told of what it may see of the book, and of nothing else;
4. its begin and its end are entries.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from gatebook.audit.decision_entry import Decided
from gatebook.audit.entry import ReadEvent
from gatebook.audit.people import STRANGER
from gatebook.audit.recorder import Recorder, Written
from gatebook.audit.sight import Sight
from gatebook.errors import OverloadedError
from gatebook.replay.asked_then import AskedThen
from gatebook.replay.comparing import Comparing
from gatebook.replay.tallies import Differing, Place, Tallies
from gatebook.revisions.active import Past

METHOD = "ShadowPolicySet"
WAITING_MAX = 2_000
"""Decisions that wait to be decided again; what comes beyond is dropped."""
TOGETHER_MAX = 200
TELL_SECONDS = 1.0
RETRY_SECONDS = 10.0
DROPPED = "came faster than they could be decided again"


class Live(msgspec.Struct, frozen=True):
    """A live decision, and where it is written."""

    decided: Decided
    written: Written
    caller: str


class Shadow:
    """One shadow of a policy set. Used on the event loop."""

    def __init__(self, recorder: Recorder, policy_set: str, origin: str) -> None:
        """Takes what writes decisions down, the set, and the book."""
        self._recorder = recorder
        self._policy_set = policy_set
        self._origin = origin
        self._waiting: deque[Live] = deque()
        self._come = asyncio.Event()
        self.tallies = Tallies()

    def watch(self, decided: Sequence[Decided], written: Sequence[Written], caller: str) -> None:
        """Is handed decisions that are durably in the book. It takes them or drops them, and never waits."""
        for one, place in zip(decided, written, strict=True):
            if one.decision.policy_set != self._policy_set:
                continue
            self.tallies.seen += 1
            if len(self._waiting) >= WAITING_MAX:
                self.tallies.left_out[DROPPED] += 1
            else:
                self._waiting.append(Live(one, place, caller))
        self._come.set()

    @contextlib.asynccontextmanager
    async def watching(self, caller: str, digest: str) -> AsyncIterator[None]:
        """Watches within the block, and writes that it did.

        Raises:
            OverloadedError: another shadow is at it.
            BookUnavailableError: its begin cannot be written.
        """
        recorder = self._recorder
        if recorder.watch is not None:
            message = "another shadow is at it, and there is one at a time: ask again"
            raise OverloadedError(message, RETRY_SECONDS, limit="shadows")
        recorder.watch = self.watch
        try:
            await self._record("begun", caller, digest)
            yield
        finally:
            recorder.watch = None
            self._waiting.clear()
            # Carried through also where the caller has gone.
            await asyncio.shield(asyncio.ensure_future(self._record("ended", caller, digest)))

    async def _record(self, event: str, caller: str, digest: str) -> None:
        people = await self._recorder.people_with({STRANGER})
        about = {"event": event, "policy_set": self._policy_set, "digest": digest}
        read = ReadEvent(
            method=METHOD,
            count=self.tallies.decided,
            filter_json=msgspec.json.encode(about),
            people=(people[STRANGER],),
        )
        await self._recorder.record_read(read, caller)

    async def differences(
        self, comparing: Comparing, seconds: float, sight: Callable[[], Sight], ended: asyncio.Event
    ) -> AsyncIterator[list[Differing]]:
        """Yields what differs, every second or sooner, until the time is over or the service ends."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not ended.is_set() and (left := until - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._come.wait(), min(TELL_SECONDS, left))
            self._come.clear()
            yield await self._judged(comparing, sight())
            if self._waiting:
                self._come.set()

    async def _judged(self, comparing: Comparing, sight: Sight) -> list[Differing]:
        places: list[Place] = []
        questions: list[AskedThen] = []
        while self._waiting and len(questions) < TOGETHER_MAX:
            live = self._waiting.popleft()
            asked = _asked(live)
            if sight.sees_facts("decision", self._policy_set, _facts(live)):
                places.append(Place(live.decided.decision_id, self._origin, live.written.index))
                questions.append(asked)
        judged = await comparing.judge(questions)
        found = (self.tallies.add(*each) for each in zip(places, questions, judged, strict=True))
        return [one for one in found if one is not None]


def _asked(live: Live) -> AskedThen:
    decision = live.decided.decision
    return AskedThen(
        live.decided.asked.request,
        live.caller,
        decision.decide_time,
        Past(decision.policy_set, decision.policy_revision, decision.directory_revision, live.written.entry_time),
        decision.plan_dialect,
    )


def _facts(live: Live) -> dict[str, str]:
    """Returns what the rules read of a decision's entry: see `audit.sight.facts`."""
    request, decision = live.decided.asked.request, live.decided.decision
    known = decision.vocabulary_known
    actor = request.actor
    found = {
        "caller": live.caller,
        "resource": request.resource if "resource" in known else "",
        "action": request.action if "action" in known else "",
        "purpose": request.purpose if "purpose" in known else "",
        "effect": decision.effect.name.lower(),
        "decision_id": live.decided.decision_id,
        "subject_type": request.subject.type,
        "subject_id": request.subject.id,
        "actor_type": "" if actor is None else actor.type,
        "actor_id": "" if actor is None else actor.id,
    }
    return {name: value for name, value in found.items() if value}
