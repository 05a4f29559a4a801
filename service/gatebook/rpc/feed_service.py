"""The servicer of `WorkerService`: tells the other workers of a service what is active."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gatebook.audit.entry import EPOCH, to_timestamp
from gatebook.audit.lineage_entry import derivation_message, reclassification_message
from gatebook.governance.lineage import Lineage
from gatebook.revisions.active import Activation, Revisions
from gatebook.revisions.followers import HEARTBEAT_SECONDS, Follower, Followers
from gatebook.rpc import encode
from gatebook.rpc.edge import ServicerContext
from gatebook.v1 import worker_service_pb2 as pb
from gatebook.v1.worker_service_pb2_grpc import WorkerServiceServicer


class WorkerServicer(WorkerServiceServicer):
    """Feeds the workers that follow this one."""

    def __init__(self, revisions: Revisions, followers: Followers, draining: asyncio.Event) -> None:
        """Takes what is active, who follows, and what tells that the server is stopping."""
        self._revisions = revisions
        self._followers = followers
        self._draining = draining

    async def Follow(  # noqa: N802  # gRPC names it
        self,
        request_iterator: AsyncIterator[pb.FollowRequest],
        context: ServicerContext,  # noqa: ARG002  # as above
    ) -> AsyncIterator[pb.FollowResponse]:
        """Tells one worker all that is active, then each change, and extends its lease."""
        first = await anext(request_iterator)
        follower = self._followers.join(first.worker)
        listening = asyncio.create_task(self._listen(request_iterator, follower))
        sent = sent_derived = 0
        try:
            while not (self._draining.is_set() or listening.done()):
                state = self._revisions.state
                new = state.activations[: len(state.activations) - sent]
                derived = told_lineage(state.lineage)[sent_derived:] if len(state.lineage) > sent_derived else []
                sent, sent_derived = len(state.activations), len(state.lineage)
                until = follower.extend(state.total, self._followers.settled)
                yield pb.FollowResponse(
                    activations=[record_of(a) for a in new],
                    total=state.total,
                    lease_until_ns=int(until * 1e9),
                    lineage=derived,
                )
                if self._revisions.state.total == state.total:
                    await self._followers.moved(HEARTBEAT_SECONDS)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    async def _listen(self, requests: AsyncIterator[pb.FollowRequest], follower: Follower) -> None:
        async for request in requests:
            has_come_on = request.folded != follower.folded
            follower.told(request.folded)
            if has_come_on:
                self._followers.tell()


def record_of(activation: Activation) -> pb.ActivationRecord:
    """Returns an activation as the feed tells it."""
    return pb.ActivationRecord(
        policy_set=activation.policy_set,
        revision=encode.revision(activation.revision),
        create_time=to_timestamp(activation.create_time),
        index=activation.index,
        request_id_hash=activation.request_id_hash,
    )


def told_lineage(lineage: Lineage) -> list[pb.LineageRecord]:
    """Returns entries of lineage as the feed tells them, the oldest first."""
    told = []
    for derivation in lineage.derivations:
        told.append(pb.LineageRecord(index=derivation.index, lineage=derivation_message(derivation)))
        told[-1].entry_time.CopyFrom(to_timestamp(derivation.entry_time or EPOCH))
    for one in lineage.reclassifications:
        told.append(pb.LineageRecord(index=one.index, reclassification=reclassification_message(one)))
        told[-1].entry_time.CopyFrom(to_timestamp(one.entry_time or EPOCH))
    return sorted(told, key=lambda record: record.index)
