"""Calls whose errors are answers: for callers who take a failed call for none, and then do as they please."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from gatebook.rpc.edge import ServicerContext

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Refusal = Callable[[status_pb2.Status], Message]
"""Makes an answer of the status that a call would end with."""


class AbortedError(Exception):
    """A call ended with a status, which its caller must not see."""

    def __init__(self, detail: status_pb2.Status) -> None:
        """Takes the status."""
        super().__init__(detail.message)
        self.detail = detail


class Answering:
    """Stands in for the gRPC context of a call whose errors are answers; it is that context in all else."""

    def __init__(self, context: ServicerContext) -> None:
        """Takes the context."""
        self._context = context

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # it stands for another object
        """Returns what the context has."""
        return getattr(self._context, name)

    async def abort(self, code: grpc.StatusCode, message: str, metadata: tuple[tuple[str, bytes], ...]) -> NoReturn:
        """Ends the call, and not the RPC."""
        del code, message
        raise AbortedError(status_pb2.Status.FromString(dict(metadata)["grpc-status-details-bin"]))


def answering(handler: Handler, refusal: Refusal) -> Handler:
    """Returns a handler that answers what the other one, of bytes, would end a call with."""
    serve: Any = handler.stream_unary

    async def answered(requests: object, context: ServicerContext) -> bytes:
        try:
            answer: bytes = await serve(requests, Answering(context))
        except AbortedError as aborted:
            return refusal(aborted.detail).SerializeToString()
        return answer

    return grpc.stream_unary_rpc_method_handler(answered)
