"""The servicer of `WorkerService`: tells the other workers of a service what is active."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gatebook.audit.entry import to_timestamp
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
        sent = 0
        try:
            while not (self._draining.is_set() or listening.done()):
                activations = self._revisions.state.activations
                new = activations[: len(activations) - sent]
                sent = len(activations)
                until = follower.extend(sent, self._followers.settled)
                yield pb.FollowResponse(
                    activations=[record_of(a) for a in new], total=sent, lease_until_ns=int(until * 1e9)
                )
                if len(self._revisions.state.activations) == sent:
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
