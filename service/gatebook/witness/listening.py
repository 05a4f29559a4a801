"""The port of a witness: HTTP for books that ask for cosignatures, and for who asks whether it is well.

    POST /add-checkpoint   C2SP tlog-witness
    GET /livez             the process runs
    GET /readyz            what it remembers can be read and written; else 503

Whoever reaches the port may ask: what counts is who signed the checkpoint. Work is bounded by `WAITING_MAX`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gatebook.config import KIB, require_address, require_loopback
from gatebook.door.tls_files import TlsFiles
from gatebook.errors import BookUnavailableError, DeadlineExceededError, GatebookError, InvalidRequestError
from gatebook.gateway.connection import CERTIFICATE
from gatebook.gateway.listening import http_port
from gatebook.gateway.rim import TOO_LARGE, BodyTooLargeError, echoing, read_content, require_host, require_one_length
from gatebook.log import configure_log, flush_log
from gatebook.tlog.keys import VerifierKey
from gatebook.witness.cosigner import Cosigner
from gatebook.witness.submission import InconsistentError, OtherSizeError, RefusedError, SplitViewError

BODY_BYTES_MAX = 128 * KIB
"""A checkpoint with a hundred signatures and the longest proof has less."""
WAITING_MAX = 64
"""Submissions that are worked on or wait; more are refused, and asked again later."""
SIZE_TYPE = "text/x.tlog.size"
ADD_CHECKPOINT = "/add-checkpoint"


class WitnessConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one witness is told at its start."""

    data: Path
    origins: Mapping[str, Sequence[VerifierKey]]
    listen: str
    url: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    log_json: bool = True


def run(config: WitnessConfig) -> int:
    """Runs a witness until it is told to stop; returns the exit code of the process.

    Raises:
        GatebookError: it cannot be started; the message says why.
    """
    configure_log(as_json=config.log_json)
    try:
        return asyncio.run(serve(config))
    finally:
        flush_log()


async def serve(config: WitnessConfig) -> int:
    """Serves until SIGTERM or SIGINT. SIGHUP reads certificates again."""
    log = structlog.get_logger("gatebook.witness")
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    tls = tls_of(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with contextlib.AsyncExitStack() as stack:
        if tls is not None:
            loop.add_signal_handler(signal.SIGHUP, tls.reload)
            await stack.enter_async_context(tls.watched())
        cosigner = Cosigner(config.data, config.origins)
        stack.callback(cosigner.close)
        app = application(cosigner, config.url, certified=config.client_ca is not None)
        address = await stack.enter_async_context(http_port(app, config.listen, tls))
        log.info("witness serving", listen=address, key=str(cosigner.key), origins=sorted(config.origins))
        await stopping.wait()
        log.info("stopped")
    return 0


def tls_of(config: WitnessConfig) -> TlsFiles | None:
    """Returns the certificate of the witness, or None on loopback in plain text.

    Raises:
        InvalidRequestError: the address or the options do not fit together.
    """
    if config.tls_cert is None and config.tls_key is None:
        if config.client_ca is not None:
            raise InvalidRequestError("client-ca", "needs --tls-cert and --tls-key")
        require_loopback(config.listen)
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise InvalidRequestError("tls-cert", "and --tls-key go together: give both")
    require_address(config.listen)
    return TlsFiles(config.tls_cert, config.tls_key, config.client_ca)


def application(cosigner: Cosigner, url: str = "", *, certified: bool = False) -> ASGIApp:
    """Returns what answers; `url` is how books reach it, if not by the loopback interface or TLS.

    With `certified` only who has shown a certificate is answered.
    """
    binding = Binding(cosigner, url, certified=certified)
    routes = [
        Route(ADD_CHECKPOINT, binding.add_checkpoint, methods=["POST"]),
        Route("/livez", binding.livez, methods=["GET"]),
        Route("/readyz", binding.readyz, methods=["GET"]),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return echoing(app)


class Binding:
    """Answers each path. Used on the event loop only."""

    def __init__(self, cosigner: Cosigner, url: str, *, certified: bool) -> None:
        """Takes the witness, its address for others, and whether these need a certificate."""
        self._cosigner = cosigner
        self._url = url
        self._certified = certified
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, "witness")  # one submission at a time, as what it remembers is one
        self._log = structlog.get_logger("gatebook.witness")

    async def livez(self, _: Request) -> Response:
        """Answers while the process runs."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Answers whether what is remembered can be read and written."""
        return await self._in_turn(self._ready)

    async def _ready(self) -> Response:
        well = await asyncio.get_running_loop().run_in_executor(self._thread, self._cosigner.answers)
        return PlainTextResponse("ok\n") if well else PlainTextResponse("what it remembers cannot be read\n", 503)

    async def add_checkpoint(self, request: Request) -> Response:
        """Cosigns a checkpoint (C2SP tlog-witness, add-checkpoint)."""
        if self._certified and not request.scope["state"].get(CERTIFICATE):
            return PlainTextResponse("show a certificate that the client CA of this witness has signed\n", 401)
        try:
            require_host(request, self._url)
            require_one_length(request)
            body = await read_content(request, BODY_BYTES_MAX)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except GatebookError as error:
            return refused(error)
        return await self._in_turn(lambda: self._cosign(body))

    async def _in_turn(self, work: Callable[[], Awaitable[Response]]) -> Response:
        if self._waiting >= WAITING_MAX:
            return PlainTextResponse("too many wait: ask again\n", 503, {"retry-after": "1"})
        self._waiting += 1
        try:
            return await work()
        finally:
            self._waiting -= 1

    async def _cosign(self, body: bytes) -> Response:
        loop, seconds = asyncio.get_running_loop(), int(time.time())
        try:
            line = await loop.run_in_executor(self._thread, self._cosigner.add_checkpoint, body, seconds)
        except OtherSizeError as error:
            return Response(f"{error.size}\n", error.status, {"content-type": SIZE_TYPE})
        except SplitViewError as error:
            if error.is_new:
                self._log.error("two histories are signed", error=error.message)
            return refused(error)
        except InconsistentError as error:
            self._log.warning("checkpoint refused", error=error.message)
            return refused(error)
        except BookUnavailableError as error:
            self._log.error("witness cannot cosign", error=error.message)
            return refused(error)
        except GatebookError as error:
            return refused(error)
        return PlainTextResponse(line)


def refused(error: GatebookError) -> Response:
    """Returns an error as a response."""
    match error:
        case RefusedError():
            status = error.status
        case BodyTooLargeError():
            status = TOO_LARGE
        case BookUnavailableError():
            status = 503
        case DeadlineExceededError():
            status = 408
        case _:
            status = 400
    return PlainTextResponse(f"{error.message}\n", status)
