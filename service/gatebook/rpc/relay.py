"""Passes the calls of whole services on to another worker, byte for byte, once they are through the door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import error_details_pb2, status_pb2

from gatebook.errors import ControlFeedLostError, GatebookError, RelayedError
from gatebook.rpc.edge import Edge, ServicerContext
from gatebook.rpc.inner import name_caller

STATUS_KEY = "grpc-status-details-bin"


Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


def relay(service: ServiceDescriptor, channel: grpc.aio.Channel, edge: Edge) -> dict[str, Handler]:
    """Returns what answers for the methods of a service by asking another worker.

    A call that its caller cancels, or whose deadline passes, is cancelled there too.
    """
    return {method.name: _handler(method, channel, edge) for method in service.methods}


def _handler(method: MethodDescriptor, channel: grpc.aio.Channel, edge: Edge) -> Handler:
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_streaming(method.name, channel.unary_stream(path), edge))
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(_unary(method.name, channel.stream_unary(path), edge))
    return grpc.unary_unary_rpc_method_handler(_unary(method.name, channel.unary_unary(path), edge))


def _unary(name: str, ask: Any, edge: Edge) -> Callable[[Any, ServicerContext], Awaitable[bytes]]:  # noqa: ANN401  # grpc's callable
    async def passed_on(request: bytes | AsyncIterator[bytes], context: ServicerContext) -> bytes:
        async with edge.call(name, context) as call:
            try:
                answer: bytes = await ask(request, metadata=[name_caller(call.caller)])
            except grpc.aio.AioRpcError as error:
                raise relayed(error) from error
            return answer
        raise AssertionError  # the block above returns or aborts

    return passed_on


def _streaming(name: str, ask: Any, edge: Edge) -> Callable[[bytes, ServicerContext], AsyncIterator[bytes]]:  # noqa: ANN401  # as above
    async def passed_on(request: bytes, context: ServicerContext) -> AsyncIterator[bytes]:
        async with edge.call(name, context, stream=True) as call:
            answers = ask(request, metadata=[name_caller(call.caller)])
            try:
                async for answer in answers:
                    yield answer
            except grpc.aio.AioRpcError as error:
                raise relayed(error) from error
            finally:
                answers.cancel()

    return passed_on


def relayed(error: grpc.aio.AioRpcError) -> GatebookError:
    """Returns the error of another worker as one of this; one that no worker sent means that it is out of reach."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            info = error_details_pb2.ErrorInfo()
            known = any(detail.Unpack(info) for detail in status.details)
            return RelayedError(status.message, info.reason if known else "INTERNAL", value)
    return ControlFeedLostError()
