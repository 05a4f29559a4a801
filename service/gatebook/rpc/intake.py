"""How requests come in and answers go out: nothing is read before its call has passed the door.

Owns the server that services are added to. gRPC itself would read the request of a unary call before anyone is
asked; here every method is a stream to gRPC, on whose first message is waited. On the wire nothing is different.

Rules:

1. no byte of a request is asked for before its caller is known, permitted and admitted; what gRPC takes
   unasked is one HTTP/2 window;
2. a caller is waited for as `patience` says, for its request and until it takes its answer;
3. the bytes of an answer count as in flight until they are taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health

from gatebook.config import Limits
from gatebook.errors import GatebookError, InvalidRequestError
from gatebook.rpc.answering import Refusal, answering
from gatebook.rpc.edge import Call, Edge, Entered, ServicerContext, require_time
from gatebook.rpc.nowhere import Nowhere
from gatebook.rpc.patience import Next, Patience, Request, Taking, Wait

LARGE_BYTES = 32 * 1024
"""A smaller answer fits what a connection takes unread, and is not watched."""
OPEN_TO_ALL = frozenset({health.SERVICE_NAME})
"""Services that need no caller."""
HEALTH_REQUEST_BYTES_MAX = 256
NAMED_ALONE = ("gatebook.", "envoy.")
"""Begin the names of services whose methods are named without them."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Method = Callable[[Any, ServicerContext], Awaitable[Any]]


class Intake(grpc.aio.Server):
    """A server whose methods are read from and written to with limits."""

    def __init__(self, server: grpc.aio.Server, edge: Edge, limits: Limits) -> None:
        """Takes the server, the rim of every call and the limits."""
        self._server = server
        self._edge = edge
        self._limits = limits
        self._open_calls = {False: 0, True: 0}  # of who asks for the health once, and of who watches it
        self._refusals: dict[str, Refusal] = {}
        self.patience = Patience(limits)

    def answer_errors(self, service_name: str, refusal: Refusal) -> None:
        """Has the errors of a service answered, whose methods are added afterwards."""
        self._refusals[service_name] = refusal

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds nothing: whoever calls this calls `add_registered_method_handlers` too."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Adds the methods of a service."""
        taken = {name: self._taken(service_name, name, handler) for name, handler in method_handlers.items()}
        self._server.add_registered_method_handlers(service_name, taken)

    def add_everything_else(self) -> None:
        """Adds what answers where no service does; to be called last."""
        self._server.add_generic_rpc_handlers((Nowhere(self._edge),))

    def add_insecure_port(self, address: str) -> int:
        """Listens for plain text."""
        return self._listened(self._server.add_insecure_port(address))

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listens for TLS."""
        return self._listened(self._server.add_secure_port(address, server_credentials))

    def _listened(self, port: int) -> int:
        self.patience.ports.add(port)
        return port

    async def start(self) -> None:
        """Starts the server."""
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        """Stops the server."""
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # grpc names it
        """Waits until the server has stopped."""
        return await self._server.wait_for_termination(timeout)

    def _taken(self, service: str, name: str, handler: Handler) -> Handler:
        """Returns the handler that gRPC is given in place of the one of a method: bytes in, bytes out."""
        kind = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        if service in OPEN_TO_ALL:
            return kind(self._open(handler), response_serializer=handler.response_serializer)
        operation = operation_of(service, name)
        if handler.response_streaming:
            method = self._streaming(operation, handler)
        else:
            method = (self._gathering if handler.request_streaming else self._unary)(operation, handler)
        taken: Handler = kind(method)
        refusal = self._refusals.get(service)
        return taken if refusal is None else answering(taken, refusal)

    def _unary(self, name: str, handler: Handler) -> Method:
        serve: Any = handler.unary_unary
        write = handler.response_serializer or bytes

        async def unary(context: ServicerContext) -> bytes:
            async with self._edge.call(name, context) as call:
                raw = await self._whole(call, context)
                if len(raw) > LARGE_BYTES:
                    with self._edge.request(call, len(raw)):
                        answer: bytes = write(await serve(parsed(raw, handler), Entered(call)))
                else:
                    answer = write(await serve(parsed(raw, handler), Entered(call)))
                if len(answer) > LARGE_BYTES:
                    self._watch(call, context, len(answer))
                return answer
            raise AssertionError  # the block above returns or aborts

        return forgetting(unary)

    def _gathering(self, name: str, handler: Handler) -> Method:
        serve: Any = handler.stream_unary
        write = handler.response_serializer or bytes

        async def gathering(context: ServicerContext) -> bytes:
            async with self._edge.call(name, context) as call:
                with contextlib.ExitStack() as held:
                    answer: bytes = write(await serve(self._parts(call, context, handler, held), Entered(call)))
                return answer
            raise AssertionError  # the block above returns or aborts

        return forgetting(gathering)

    def _streaming(self, name: str, handler: Handler) -> Method:
        serve: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
        write = handler.response_serializer or bytes

        async def streaming(context: ServicerContext) -> None:
            async with self._edge.call(name, context, stream=True) as call:
                with contextlib.ExitStack() as held:
                    streamed = handler.request_streaming
                    messages = self._messages(call, context, handler)
                    given = messages if streamed else await self._first(call, context, handler, held)
                    answers = serve(given, Entered(call))
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        await self._send(call, context, write(answer))

        return forgetting(streaming)

    def _open(self, handler: Handler) -> Method:
        """Serves anybody who asks for the health: so many at once, with little to say."""
        watching = handler.response_streaming
        serve: Any = handler.unary_stream if watching else handler.unary_unary

        async def opened(_: object, context: ServicerContext) -> Any:  # noqa: ANN401  # a message, or nothing of a stream
            if self._open_calls[watching] >= self._limits.health_calls_max:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many ask for the health")
            self._open_calls[watching] += 1
            try:
                with contextlib.suppress(GatebookError):
                    with Request(self.patience, ""):
                        raw = await context.read()
                    if raw is not grpc.aio.EOF and len(raw) <= HEALTH_REQUEST_BYTES_MAX:
                        return await serve(parsed(raw, handler), context)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a question about the health")
            finally:
                self._open_calls[watching] -= 1

        return opened

    async def _first(self, call: Call, context: ServicerContext, handler: Handler, held: contextlib.ExitStack) -> Any:  # noqa: ANN401  # a message of any kind
        """Reads the one request of a call. A large one is counted as long as it is held."""
        raw = await self._whole(call, context)
        if len(raw) > LARGE_BYTES:
            held.enter_context(self._edge.request(call, len(raw)))
        return parsed(raw, handler)

    async def _whole(self, call: Call, context: ServicerContext) -> bytes:
        """Returns the bytes of the one request of a call."""
        with Request(self.patience, call.caller.id):
            raw: Any = await context.read()
        if raw is grpc.aio.EOF:
            raise InvalidRequestError("request", "there is none")
        require_time(context)
        return bytes(raw)

    async def _messages(self, call: Call, context: ServicerContext, handler: Handler) -> AsyncIterator[Any]:
        """Yields the requests of a stream."""
        wait: type[Wait] = Request
        while True:
            with wait(self.patience, call.caller.id):
                raw = await context.read()
            if raw is grpc.aio.EOF:
                return
            yield parsed(raw, handler)
            wait = Next

    async def _parts(
        self, call: Call, context: ServicerContext, handler: Handler, held: contextlib.ExitStack
    ) -> AsyncIterator[Any]:
        """Yields the parts of one request, which has its time as a whole and is counted as long as it is held."""
        began = 0.0
        while True:
            with Request(self.patience, call.caller.id) as wait:
                wait.since = began = began or wait.since
                raw = await context.read()
            if raw is grpc.aio.EOF:
                require_time(context)
                return
            held.enter_context(self._edge.request(call, len(raw)))
            yield parsed(raw, handler)

    async def _send(self, call: Call, context: ServicerContext, answer: bytes) -> None:
        """Sends one answer of a stream, and waits until it is taken."""
        with Taking(self.patience, call.caller.id, context.peer()), self._edge.answer(call, len(answer)):
            try:
                await context.write(answer)
            except grpc.aio.InternalError:
                raise asyncio.CancelledError from None  # the caller has gone

    def _watch(self, call: Call, context: ServicerContext, size_bytes: int) -> None:
        """Waits, beyond the call, until its answer is taken."""
        until_taken = contextlib.ExitStack()
        until_taken.enter_context(Taking(self.patience, call.caller.id, context.peer()))
        until_taken.enter_context(self._edge.answer(call, size_bytes))
        context.add_done_callback(lambda _: until_taken.close())  # type: ignore[arg-type]  # it is told the context alone


def forgetting(serve: Callable[[ServicerContext], Awaitable[Any]]) -> Method:
    """Returns a method that leaves nothing large behind when it is aborted.

    gRPC keeps the error with the call, and an error keeps the frames that it passed with all they hold, the call
    included: such a ring, with the request in it, would stay until the collector of rings comes by.
    """

    async def method(_: object, context: ServicerContext) -> Any:  # noqa: ANN401  # a message, or nothing of a stream
        try:
            return await serve(context)
        except grpc.aio.AbortError as aborted:
            del context
            aborted.__context__ = None
            raise aborted.with_traceback(None) from None

    return method


def operation_of(service: str, method: str) -> str:
    """Returns what a method is called in the set `gatebook` and in the log."""
    return method if service.startswith(NAMED_ALONE) else f"{service.rpartition('.')[2]}.{method}"


def parsed(raw: bytes, handler: Handler) -> Any:  # noqa: ANN401  # a message of any kind
    """Returns the message that the bytes are."""
    if handler.request_deserializer is None:
        return raw
    try:
        return handler.request_deserializer(raw)
    except DecodeError as err:
        raise InvalidRequestError("request", "not a message of this method") from err
