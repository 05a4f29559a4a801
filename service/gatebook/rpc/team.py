"""The workers of one service, as each of them sees the others.

Owns what a worker listens for from the others and how it reaches them. Each keeps a book of its own and
answers for it; the first keeps the order of what is active, and publishes; the others follow it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc.aio
import msgspec

from gatebook.audit.keyfile import derive_key, read_key
from gatebook.config import Config
from gatebook.door.door import Door
from gatebook.rpc.audit_books import AuditBooks
from gatebook.rpc.audit_service import AuditServicer
from gatebook.rpc.edge import Edge
from gatebook.rpc.explain_service import ExplainServicer
from gatebook.rpc.feed_service import WorkerServicer
from gatebook.rpc.following import Following
from gatebook.rpc.inner import MESSAGE_BYTES_MAX, InnerEdge, channel_to, socket_of
from gatebook.rpc.policy_service import PolicyServicer
from gatebook.rpc.receipts import Receipts
from gatebook.rpc.relay import Handler, relay
from gatebook.service import Service, known_origin, origin_of
from gatebook.v1 import audit_service_pb2_grpc, policy_service_pb2, policy_service_pb2_grpc, worker_service_pb2_grpc

POLICY_SERVICE = policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"]


class Team(msgspec.Struct, frozen=True):
    """The way to the worker of each book, by its origin, the first worker's first."""

    channels: Mapping[str, grpc.aio.Channel]
    token_key: bytes
    """Binds a page of a list of all books to its question; the same in every worker."""

    def audit(self, edge: Edge, config: Config) -> AuditBooks:
        """Returns what answers for all books."""
        return AuditBooks(self.channels, self.token_key, edge, config.limits)

    def policies(self, edge: Edge) -> dict[str, Handler]:
        """Returns what answers for policy sets by asking the first worker."""
        return relay(POLICY_SERVICE, next(iter(self.channels.values())), edge)


@contextlib.asynccontextmanager
async def joined(service: Service, door: Door, config: Config, sockets: Path) -> AsyncIterator[Team]:
    """Listens for the other workers within the block; one that is not the first follows it, and has begun to."""
    origin = known_origin(config.data)
    async with contextlib.AsyncExitStack() as stack:
        server = inner_server(service, door, config, sockets)
        await server.start()
        stack.push_async_callback(server.stop, grace=0.5)
        channels = {}
        for worker in range(config.workers):
            channel = await stack.enter_async_context(channel_to(sockets, worker))
            channels[origin_of(origin, worker)] = channel
        if config.worker:
            following = Following(config.worker, channels[origin], service.revisions)
            task = asyncio.create_task(following.run())
            stack.callback(task.cancel)
            await following.ready.wait()
        yield Team(channels, derive_key(read_key(config.data / "keys" / "mask.key"), "page tokens of all books"))


def inner_server(service: Service, door: Door, config: Config, sockets: Path) -> grpc.aio.Server:
    """Returns what answers the other workers: for this one's book, and where it is the first for all that is active."""
    sizes = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]
    server = grpc.aio.server(options=sizes)
    edge = InnerEdge(door)
    audit = AuditServicer(service.reader, service.recorder, service.keeping, edge, one_of_several=True)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
    ExplainServicer(service, edge).add_to(server)
    if not config.worker:
        receipts = Receipts(service.key, service.reader.prover, config.limits)
        policy = PolicyServicer(service, receipts, edge, config.limits)
        feed = WorkerServicer(service.revisions, service.publishing.followers, edge.draining)
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policy, server)
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(feed, server)
    server.add_insecure_port(socket_of(sockets, config.worker))
    return server
