"""The servicer of `grpc.channelz.v1`: what gRPC itself knows of servers, channels and sockets.

Owns that its errors leave as ours do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2

from gatebook.errors import InvalidRequestError
from gatebook.rpc.edge import Edge, ServicerContext

SERVICE = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
PREFIX = f"{SERVICE.name}."


class Said:
    """Stands for the context of a call, and takes what a method says of its end."""

    def __init__(self) -> None:
        """Begins with nothing said."""
        self.code: grpc.StatusCode | None = None

    def set_code(self, code: grpc.StatusCode) -> None:
        """Takes the code."""
        self.code = code

    def set_details(self, details: str) -> None:
        """Takes the details, which tell of the inside of gRPC, and drops them."""


def methods(edge: Edge) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Returns what answers for each method."""
    return {
        method.name: grpc.unary_unary_rpc_method_handler(
            _guarded(method.name, edge),
            request_deserializer=getattr(channelz_pb2, method.input_type.name).FromString,
            response_serializer=getattr(channelz_pb2, method.output_type.name).SerializeToString,
        )
        for method in SERVICE.methods
    }


def _guarded(name: str, edge: Edge) -> Callable[[Any, ServicerContext], Awaitable[Any]]:
    ask = getattr(channelz.aio.ChannelzServicer, name)

    async def answer(request: Any, context: ServicerContext) -> Any:  # noqa: ANN401  # one of seven messages
        async with edge.call(PREFIX + name, context):
            said = Said()
            found = await ask(request, said)
            if said.code is not None:
                raise InvalidRequestError("request", "gRPC knows nothing of this id")
            return found

    return answer
