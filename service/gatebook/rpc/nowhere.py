"""Calls of methods that do not exist.

Owns that they pass the door as all others do: so nobody can tell by a refusal which methods a server has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from gatebook.errors import UnimplementedError
from gatebook.rpc.edge import Edge, ServicerContext

NOWHERE = "Unimplemented"
"""The operation of calling what does not exist."""


class Nowhere(grpc.GenericRpcHandler):
    """Answers for every method; added last."""

    def __init__(self, edge: Edge) -> None:
        """Takes the rim of every call."""
        self._edge = edge

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:  # noqa: ARG002  # whatever it is
        """Returns what refuses."""
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, _requests: AsyncIterator[bytes], context: ServicerContext) -> AsyncIterator[bytes]:
        async with self._edge.call(NOWHERE, context):
            nothing: list[bytes] = []
            for response in nothing:  # it is a stream, as whatever was called might be
                yield response
            raise UnimplementedError
