"""How what jobs report of tables comes to count: read, build, write, swap.

Owns the order of these steps. The entry of a derivation is the commit point, as that of an activation is, and nothing
else changes meanwhile. Rules:

1. what was reported before, by whatever run, changes nothing and is no entry;
2. when it is answered, every worker decides by it or can decide no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from gatebook.audit.lineage_entry import encode_derivation, encode_reclassification
from gatebook.audit.recorder import Recorder, Written
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import LimitExceededError
from gatebook.governance.lineage import DERIVATIONS_MAX, SOURCES_MAX, Derivation, Lineage, Reclassification
from gatebook.governance.openlineage import FIELD, Reported, read_event
from gatebook.revisions.active import Revisions
from gatebook.revisions.publish import Publishing
from gatebook.revisions.scan import scan_findings


class Output(msgspec.Struct, frozen=True):
    """A dataset that was made: how, by the entry at `index`, which is new where it is `changed`."""

    derivation: Derivation
    changed: bool

    @property
    def index(self) -> int:
        """Returns the index of the entry that says it."""
        return self.derivation.index


class Recorded(msgspec.Struct, frozen=True):
    """What came of a run event."""

    event_type: str
    outputs: tuple[Output, ...] = ()


class Deriving:
    """Takes run events, one at a time. Used on the event loop only."""

    def __init__(self, revisions: Revisions, recorder: Recorder, publishing: Publishing) -> None:
        """Takes the active revisions, the pen of the book, and what publishes: the two take turns."""
        self._revisions = revisions
        self._recorder = recorder
        self._publishing = publishing
        self._log = structlog.get_logger("gatebook.lineage")
        self._under_way: set[asyncio.Task[Recorded]] = set()

    async def record(self, event_json: bytes, caller: str) -> Recorded:
        """Takes one run event; what it says counts for every decision from the answer on.

        Raises:
            InvalidRequestError: it is no run event.
            LimitExceededError: it says too much, or too much is known already.
            DrainingError: the service stops.
            BookUnavailableError: it could not be written.
        """
        reported = await asyncio.to_thread(read_event, event_json)
        if not reported.derivations:
            return Recorded(reported.event_type)
        return await self._carry_through(self._record(reported, caller))

    async def _carry_through(self, work: Coroutine[Any, Any, Recorded]) -> Recorded:
        # INVARIANT: it runs to its end also when its caller goes away, so that what the book says is what decides.
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _record(self, reported: Reported, caller: str) -> Recorded:
        async with self._publishing.turn:
            known = self._revisions.state.lineage
            new = await asyncio.to_thread(known.new, reported.derivations)
            if new:
                await self._add(new, caller)
            lineage = self._revisions.state.lineage
        new_keys = {derivation.key for derivation in new}
        stands = await asyncio.to_thread(lambda: [lineage.find(one) or one for one in reported.derivations])
        return Recorded(reported.event_type, tuple(Output(one, changed=one.key in new_keys) for one in stands))

    async def _add(self, new: tuple[Derivation, ...], caller: str) -> None:
        known = self._revisions.state.lineage
        if not known.fits(new):
            message = (
                f"{DERIVATIONS_MAX:,} derivations of {SOURCES_MAX:,} sources are kept, and there is no room for more"
            )
            raise LimitExceededError(message, field=FIELD, limit=str(DERIVATIONS_MAX))
        snapshots = await self._revisions.build_derived(replace(known, derivations=(*known.derivations, *new)))
        written = await self._recorder.record_control([partial(encode_derivation, one) for one in new], caller)
        # The commit point: from here on it counts, here and after a restart.
        places = zip(new, written, strict=True)
        placed = tuple(replace(one, index=at.index, entry_time=at.entry_time) for one, at in places)
        await self._take(replace(known, derivations=(*known.derivations, *placed)), snapshots)
        for one in placed:
            self._log.info("lineage recorded", dataset=str(one.output), inputs=len(one.inputs), index=one.index)

    async def reclassify(self, one: Reclassification, caller: str) -> Written:
        """Takes a tag off a column, on the word of those whose approval was asked for.

        Raises:
            DrainingError: the service stops.
            BookUnavailableError: it could not be written.
        """
        async with self._publishing.turn:
            known = self._revisions.state.lineage
            lineage = replace(known, reclassifications=(*known.reclassifications, one))
            snapshots = await self._revisions.build_derived(lineage)
            [written] = await self._recorder.record_control([partial(encode_reclassification, one)], caller)
            # The commit point, as above.
            placed = replace(one, index=written.index, entry_time=written.entry_time)
            lineage = replace(known, reclassifications=(*known.reclassifications, placed))
            await self._take(lineage, snapshots)
            self._log.info(
                "tag taken off", policy_set=one.policy_set, dataset=one.dataset, column=one.column, tag=one.tag
            )
            return written

    async def _take(self, lineage: Lineage, snapshots: Mapping[str, Snapshot]) -> None:
        state = self._revisions.state
        self._revisions.swap(replace(state, snapshots={**state.snapshots, **snapshots}, lineage=lineage))
        await self._publishing.followers.settle(self._revisions.state.total)
        findings = await asyncio.to_thread(scan_findings, tuple(snapshots.values()), self._recorder.now())
        for found in findings:
            self._log.warning("ceiling exceeded", dataset=found.dataset, action=found.action, excess=found.excess)
