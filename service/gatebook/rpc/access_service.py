"""The servicer of `AccessService`: unary, batch and stream checks.

Owns their methods and the flow of a stream. Requests and answers are bytes here: `checking` reads and
writes them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import grpc.aio

from gatebook.config import Limits
from gatebook.rpc.checking import Checking
from gatebook.rpc.edge import Call, Edge, ServicerContext
from gatebook.v1 import access_service_pb2

SERVICE = access_service_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name


class AccessServicer:
    """Answers checks; every decision is in the book before it is sent."""

    def __init__(self, checking: Checking, edge: Edge, limits: Limits) -> None:
        """Takes what answers the bytes of requests, the rim of every call, and the limits."""
        self._checking = checking
        self._edge = edge
        self._limits = limits

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the methods to a server. Without serializers both ends of a call are bytes."""
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "CheckAccess": grpc.unary_unary_rpc_method_handler(self.check_access),
            "BatchCheckAccess": grpc.unary_unary_rpc_method_handler(self.batch_check_access),
            "StreamCheckAccess": grpc.stream_stream_rpc_method_handler(self.stream_check_access),
        }
        server.add_registered_method_handlers(SERVICE, handlers)

    async def check_access(self, request: bytes, context: ServicerContext) -> bytes:
        """Decides one request."""
        async with self._edge.call("CheckAccess", context) as call:
            return await self._checking.check(call, request)
        raise AssertionError  # the block above returns or aborts

    async def batch_check_access(self, request: bytes, context: ServicerContext) -> bytes:
        """Decides many requests with one commit."""
        async with self._edge.call("BatchCheckAccess", context) as call:
            return await self._checking.batch(call, request)
        raise AssertionError  # the block above returns or aborts

    async def stream_check_access(
        self, request_iterator: AsyncIterator[bytes], context: ServicerContext
    ) -> AsyncIterator[bytes]:
        """Decides requests as they arrive; a few messages of one stream are worked on at once.

        A message is read only when there is room for it, so a caller that does not read its answers
        is held back by HTTP/2 flow control.
        """
        async with (
            self._edge.call("StreamCheckAccess", context, stream=True) as call,
            contextlib.aclosing(self._answers(call, request_iterator)) as answers,
        ):
            async for response in answers:
                yield response

    async def _answers(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        at_work: set[asyncio.Task[bytes]] = set()
        draining: asyncio.Task[Any] = asyncio.create_task(self._edge.draining.wait())
        reading: asyncio.Task[Any] | None = asyncio.create_task(_next(requests))
        failure: BaseException | None = None
        try:
            while reading is not None or at_work:
                has_room = len(at_work) < self._limits.stream_messages_in_flight_max
                wanted = () if reading is None else (draining, reading) if has_room else (draining,)
                done, _ = await asyncio.wait({*at_work, *wanted}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & at_work:
                    at_work.discard(task)
                    if task.exception() is None:
                        yield task.result()
                    failure = failure or task.exception()
                if reading is not None and reading in done:
                    message = reading.result()
                    reading = None
                    if message is not None:
                        at_work.add(asyncio.create_task(self._checking.message(call, message)))
                        reading = asyncio.create_task(_next(requests))
                if reading is not None and (failure is not None or draining in done):
                    # What is under way is still answered: it is written, or will be.
                    reading.cancel()
                    reading = None
            if failure is not None:
                raise failure
        finally:
            for unfinished in filter(None, (*at_work, draining, reading)):
                unfinished.cancel()


async def _next(requests: AsyncIterator[bytes]) -> bytes | None:
    return await anext(requests, None)
