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

from gatebook.audit.entry import PolicyEvent
from gatebook.audit.lineage_entry import encode_derivation, encode_reclassification
from gatebook.audit.recorder import Recorder, Written
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import ApprovalRefusedError, LimitExceededError, PolicySetNotFoundError
from gatebook.governance.change import Change, diff_digest
from gatebook.governance.lineage import DERIVATIONS_MAX, SOURCES_MAX, Derivation, Lineage
from gatebook.governance.openlineage import FIELD, Reported, read_event
from gatebook.governance.reclassification import change_of, digest_of, find, reclassification
from gatebook.policy import gatebook_set
from gatebook.policy.policy_set import PolicySet
from gatebook.revisions.active import Revisions
from gatebook.revisions.proposals import Proposal, ProposalKind
from gatebook.revisions.proposing import Approved
from gatebook.revisions.publish import Publishing
from gatebook.revisions.publisher import Publisher
from gatebook.revisions.scan import scan_findings
from gatebook.v1 import entry_pb2
from gatebook.values import Revision


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
        publishing.proposing.enact[ProposalKind.RECLASSIFICATION] = self._enact
        publishing.proposing.retell[ProposalKind.RECLASSIFICATION] = self._retell

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

    async def propose(
        self, policy_set: str, dataset: str, column: str, tag: str, publisher: Publisher
    ) -> tuple[Proposal, Written]:
        """Proposes to take a tag off a column, which waits for approvals.

        Raises:
            PermissionDeniedError: the publisher may not publish the set.
            PolicySetNotFoundError: no such set is active.
            ApprovalRefusedError: it asks for no approvals, so that nobody could give them.
            InvalidRequestError: the tag cannot be taken off.
            BookUnavailableError: it could not be written.
        """
        publisher.require(gatebook_set.POLICY_SET, policy_set)
        async with self._publishing.turn:
            declared = self._declared(policy_set)
            rules = declared.settings.approvals
            if rules is None:
                message = f"`{policy_set}` asks for no approvals, and a tag is taken off by two: add `approvals`"
                raise ApprovalRefusedError(message, policy_set=policy_set)
            lineage = self._revisions.state.lineage
            one = await asyncio.to_thread(reclassification, declared, lineage, dataset, column, tag)
            digest, changes, now = digest_of(one), (change_of(one),), self._recorder.now()
            diff = diff_digest(policy_set, "", digest, changes)
            kind = ProposalKind.RECLASSIFICATION
            proposal = Proposal(
                kind,
                policy_set,
                digest,
                diff,
                None,
                loosens=True,
                requested_by="",
                requester="",
                create_time=now,
                expires_time=now,
                index=0,
                changes=changes,
            )
            return await self._publishing.approving.propose(proposal, rules, publisher)

    def _declared(self, policy_set: str) -> PolicySet:
        declared = self._revisions.state.policy_sets.get(policy_set)
        if declared is None:
            raise PolicySetNotFoundError(f"no policy set `{policy_set}` is served", policy_set=policy_set)
        return declared

    def _retell(self, proposal: Proposal) -> tuple[Change, ...]:
        one = find(self._declared(proposal.policy_set), self._revisions.state.lineage, proposal.digest)
        return () if one is None else (change_of(one),)

    async def _enact(self, proposal: Proposal, approver: Publisher) -> Approved:
        """Takes the tag off that was proposed, with every approval there, while nobody else changes what is active."""
        name, known = proposal.policy_set, self._revisions.state.lineage
        one = await asyncio.to_thread(find, self._declared(name), known, proposal.digest)
        event = PolicyEvent(step=entry_pb2.POLICY_STEP_VOIDED, policy_set=name, revision=Revision(proposal.digest, 0))
        if one is None:
            why = "what the column is made of has moved since it was proposed"
            await self._publishing.approving.end(proposal, event, approver.id, why)
            raise ApprovalRefusedError(f"{why}, and every approval of it is void", policy_set=name)
        lineage = replace(known, reclassifications=(*known.reclassifications, one))
        snapshots = await self._revisions.build_derived(lineage)
        [written] = await self._recorder.record_control([partial(encode_reclassification, one)], approver.id)
        # The commit point, as above.
        placed = replace(one, index=written.index, entry_time=written.entry_time)
        await self._take(replace(known, reclassifications=(*known.reclassifications, placed)), snapshots)
        self._log.info("tag taken off", policy_set=name, dataset=one.dataset, column=one.column, tag=one.tag)
        enacted = replace(event, step=entry_pb2.POLICY_STEP_ENACTED)
        await self._publishing.approving.end(proposal, enacted, approver.id, "it took effect")
        return Approved(proposal, None, written)

    async def _take(self, lineage: Lineage, snapshots: Mapping[str, Snapshot]) -> None:
        state = self._revisions.state
        self._revisions.swap(replace(state, snapshots={**state.snapshots, **snapshots}, lineage=lineage))
        await self._publishing.followers.settle(self._revisions.state.total)
        findings = await asyncio.to_thread(scan_findings, tuple(snapshots.values()), self._recorder.now())
        for found in findings:
            self._log.warning("ceiling exceeded", dataset=found.dataset, action=found.action, excess=found.excess)
