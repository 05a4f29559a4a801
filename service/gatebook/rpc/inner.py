"""What the workers of one service say to each other, over Unix sockets that their user alone can reach.

A worker has let its caller through the door already, and names it in the metadata; whoever can write to
such a socket could as well write to the book.
"""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import msgspec

from gatebook.door.caller import Caller
from gatebook.door.door import Finished
from gatebook.errors import UnauthenticatedError
from gatebook.rpc.edge import Edge, ServicerContext

CALLER_KEY = "gatebook-caller-bin"
MESSAGE_BYTES_MAX = 80 * 1024 * 1024


def socket_of(sockets: Path, worker: int) -> str:
    """Returns the address of a worker among the sockets of a service."""
    return f"unix:{sockets / str(worker)}"


def channel_to(sockets: Path, worker: int) -> grpc.aio.Channel:
    """Opens a channel to another worker."""
    sizes = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]
    again = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    return grpc.aio.insecure_channel(socket_of(sockets, worker), options=sizes + again)


def name_caller(caller: Caller) -> tuple[str, bytes]:
    """Returns the metadata that names a caller to another worker."""
    return CALLER_KEY, msgspec.msgpack.encode(caller)


class InnerEdge(Edge):
    """Takes the caller's name from another worker, which counts and logs the call."""

    async def identify(self, context: ServicerContext, authorization: tuple[str, ...]) -> Caller:  # noqa: ARG002  # a worker names whom it let in
        """Returns the caller that another worker names.

        Raises:
            UnauthenticatedError: none is named.
        """
        for key, value in context.invocation_metadata() or ():
            if key == CALLER_KEY and isinstance(value, bytes):
                return msgspec.msgpack.decode(value, type=Caller)
        raise UnauthenticatedError("no worker named a caller")

    def finish(self, finished: Finished) -> None:
        """Does nothing: the worker that was called tells its own door."""
