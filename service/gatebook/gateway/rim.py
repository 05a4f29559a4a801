"""The rim of every HTTP call: the door, the body, and errors as HTTP statuses.

Rules, beside those of the rim of gRPC (`rpc.edge`), which hold here too:

1. a body is read after the caller is recognised, permitted and admitted; up to its limit, and within `BODY_SECONDS`;
2. an error is a status with its message as plain text (Authorization API 1.0, Error Responses) and its reason in
   `gatebook-reason`; where the body was not read to its end, the connection is closed;
3. a denial is no error: it is answered with 200;
4. `X-Request-ID` is echoed on every answer, as it came.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatebook.config import Limits, is_loopback
from gatebook.door.caller import Caller, Credentials
from gatebook.door.door import Door, Finished
from gatebook.door.trace import HEADER
from gatebook.errors import DeadlineExceededError, GatebookError, InvalidRequestError, OverloadedError
from gatebook.gateway.connection import ABORT, CERTIFICATE
from gatebook.gateway.strict_json import read_object
from gatebook.rpc import status

NOBODY = "-"
JSON = "application/json"
BODY_SECONDS = 10.0
SEND_SECONDS = 30.0
REQUEST_ID = "x-request-id"
REQUEST_ID_BYTES_MAX = 256
TOO_LARGE = 413

STATUSES: Mapping[str, int] = {
    "INVALID_REQUEST": 400,
    "LIMIT_EXCEEDED": 400,
    "TOKEN_MISSING": 400,
    "POLICY_SET_REQUIRED": 400,
    "INVALID_PAGE_TOKEN": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "POLICY_SET_NOT_FOUND": 404,
    "NOT_SEARCHABLE": 404,
    "DEADLINE_EXCEEDED": 408,
    "OVERLOADED": 429,
    "NO_ACTIVE_REVISION": 503,
    "BOOK_UNAVAILABLE": 503,
    "CONTROL_FEED_LOST": 503,
    "DRAINING": 503,
}
"""The status of each error that a call can end with; every other is a fault of ours."""
FAULT = 500

_encode = msgspec.json.Encoder().encode


class BodyTooLargeError(GatebookError):
    """The body is over its limit."""

    reason = "LIMIT_EXCEEDED"


class Call:
    """One call under way: who calls, what it sent, and what its log line will say."""

    def __init__(self, operation: str, caller: Caller, request: Request, trace_id: bytes) -> None:
        """Takes the operation of the door, the caller, the request and the W3C trace id (16 bytes or none)."""
        self.trace_id = trace_id
        self.operation = operation
        self.caller = caller
        self.request = request
        self.body: dict[str, Any] = {}
        self.content = b""
        self.body_bytes = 0
        self.told: dict[str, object] = {}

    @property
    def request_id(self) -> str:
        """Returns the id that the caller gave the request."""
        return self.request.headers.get(REQUEST_ID, "")


Work = Callable[[Call], Awaitable[Mapping[str, Any]]]


class Rim:
    """Brings HTTP calls through the door and maps their errors. Used on the event loop only."""

    def __init__(self, door: Door, limits: Limits, url: str) -> None:
        """Takes the door, which all transports share, the limits, and how callers reach it, if that is known."""
        self.door = door
        self._url = url
        self._limits = limits
        self._log = structlog.get_logger("gatebook.gateway")

    async def answer(
        self, operation: str, request: Request, work: Work, body_bytes_max: int = 0, *, as_it_came: bool = False
    ) -> Response:
        """Answers one call; without a size, it has no body. The work reads one itself that it wants as it came."""
        began = time.perf_counter()
        code, caller_id, kind = "CANCELLED", NOBODY, None
        told: dict[str, object] = {"transport": "http"}
        trace = self.door.trace(request.headers.get(HEADER, ""))
        try:
            require_host(request, self._url)
            require_one_length(request)
            caller = await self.door.identify(credentials_of(request))
            caller_id, kind = caller.id, caller.kind
            self.door.permit(caller, operation)
            call = Call(operation, caller, request, trace.trace_id)
            call.told = told
            with self.door.admission.call(caller, operation):
                require_request_id(call)
                if body_bytes_max:
                    call.content = await read_body(request, body_bytes_max)
                    call.body_bytes = len(call.content)
                if body_bytes_max and not as_it_came:
                    call.body = read_object(call.content, self._limits.json_depth_max)
                answer = await work(call)
            code = "OK"
            return Response(_encode(answer), media_type=JSON, headers={"cache-control": "no-store"})
        except ClientDisconnect:
            return Response(status_code=FAULT)  # nobody reads it
        except GatebookError as error:
            code = status.code_of(error).name
            told["reason"] = error.reason
            return refusal(error)
        except Exception:  # noqa: BLE001  # the one place: a bug becomes 500 and never an answer
            code = "INTERNAL"
            error_id = secrets.token_hex(4)
            self._log.exception("bug", method=operation, error_id=error_id)
            return refusal(GatebookError(f"an internal error; the log names its cause under {error_id}"))
        finally:
            self.door.finish(Finished(operation, caller_id, code, time.perf_counter() - began, told, kind, trace))


def require_request_id(call: Call) -> None:
    """Refuses an id that no entry has room for.

    Raises:
        InvalidRequestError: it is too long.
    """
    if len(call.request_id.encode()) > REQUEST_ID_BYTES_MAX:
        raise InvalidRequestError(REQUEST_ID, f"is over {REQUEST_ID_BYTES_MAX} bytes")


def refusal(error: GatebookError) -> Response:
    """Returns an error as a response."""
    number = TOO_LARGE if isinstance(error, BodyTooLargeError) else STATUSES.get(error.reason, FAULT)
    headers = {"gatebook-reason": error.reason, "cache-control": "no-store"}
    if error.reason == "UNAUTHENTICATED":
        headers["www-authenticate"] = 'Bearer realm="gatebook"'
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_seconds)))
    return Response(error.message, number, headers, "text/plain")


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Returns the body of a request.

    Raises:
        InvalidRequestError: it is not sent as JSON.
        BodyTooLargeError: it is over its limit.
        DeadlineExceededError: it did not come in time.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise InvalidRequestError("content-type", f"is not {JSON}")
    return await read_content(request, bytes_max)


async def read_content(request: Request, bytes_max: int) -> bytes:
    """Returns the body of a request of whatever type.

    Raises:
        InvalidRequestError: it is packed.
        BodyTooLargeError: it is over its limit.
        DeadlineExceededError: it did not come in time.
    """
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequestError("content-encoding", "is not understood; send the body as it is")
    too_large = BodyTooLargeError(f"body: over {bytes_max} bytes", field="body", limit=str(bytes_max))
    length = headers.get("content-length", "0")
    if int(length) > bytes_max:  # digits alone, as h11 has seen to
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > bytes_max:
                    raise too_large
                parts.append(part)
    except TimeoutError as err:
        raise DeadlineExceededError(f"the body did not come within {BODY_SECONDS:g} seconds") from err
    return b"".join(parts)


def credentials_of(request: Request) -> Credentials:
    """Returns what HTTP saw of the caller."""
    certificate: bytes = request.scope["state"].get(CERTIFICATE, b"")
    sent = tuple(request.headers.getlist("authorization"))
    return Credentials(request.scope["scheme"] == "https", certificate, sent)


def require_host(request: Request, url: str) -> None:
    """Refuses a request in plain text that was not meant for this machine.

    A page in a browser on this machine could otherwise have a name of its own stand for 127.0.0.1, and call as `local`.

    Raises:
        InvalidRequestError: its `Host` header names another.
    """
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:  # such as half of an IPv6 address
        host = ""
    if request.scope["scheme"] == "http" and not is_loopback(host) and host != urlsplit(url).hostname:
        raise InvalidRequestError("host", "is not this machine, and not the one of --http-url")


def require_one_length(request: Request) -> None:
    """Refuses a request that says two things about where it ends: a proxy may have believed the other (RFC 9112 s6.3).

    Raises:
        InvalidRequestError: it has both `Content-Length` and `Transfer-Encoding`.
    """
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        raise InvalidRequestError("content-length", "stands beside transfer-encoding: send one of the two")


def echoing(app: ASGIApp) -> ASGIApp:
    """Returns the application with the request's id on every answer, and with a limit to the time that one takes.

    An answer to a request whose body was not read to its end closes the connection, also where no path fits.
    """

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        sent: list[tuple[bytes, bytes]] = scope["headers"]
        echoed = [(key, value) for key, value in sent if key == REQUEST_ID.encode()][:1]
        unread = any(k == b"transfer-encoding" or (k == b"content-length" and value.strip(b"0")) for k, value in sent)

        async def take() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                closing = [(b"connection", b"close")] if unread else []
                message = {**message, "headers": [*message["headers"], *echoed, *closing]}
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                scope["state"][ABORT]()  # its client does not read

        await app(scope, take, answer)

    return echo
