"""The port for operators: metrics and health over HTTP, apart from the port that callers use.

    GET /metrics   what Prometheus scrapes
    GET /livez     the process runs and its event loop answers
    GET /readyz    the book can be written, and the server is not stopping; else 503

Owns what listens there. Nothing behind it changes anything, names anybody or reads the book, so whoever
reaches the port may ask: in plaintext whoever is on this machine, and over TLS whoever has a certificate
that the client CA has signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gatebook.config import Config, is_loopback, require_address
from gatebook.door.door import Door
from gatebook.door.meter import Meter
from gatebook.door.tls_files import TlsFiles, ssl_context
from gatebook.errors import ListenError
from gatebook.gateway.connection import Connection
from gatebook.metrics.collect import CONTENT_TYPE, Metrics
from gatebook.metrics.lag import watch_lag
from gatebook.service import Service
from gatebook.tally import SECONDS, Distribution

CONNECTIONS_MAX = 128
IDLE_SECONDS = 20
STOP_SECONDS = 1


@contextlib.asynccontextmanager
async def telling_operators(service: Service, door: Door, config: Config, tls: TlsFiles | None) -> AsyncIterator[str]:
    """Counts calls and answers operators within the block; gives the address.

    Raises:
        ListenError: the address is taken.
    """
    meter, lag = Meter(), Distribution(SECONDS)
    door.observers.append(meter.observe)
    metrics = Metrics(service, door.admission, meter, lag, tls, config.data)
    app = application(metrics, service, door)
    listener = bind(config.metrics)
    host = config.metrics.rpartition(":")[0]
    secured = None if tls is None or is_loopback(require_address(config.metrics)) else tls
    settings = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        http=lambda config, server_state, **_: Connection(config, server_state, CONNECTIONS_MAX, secured),  # type: ignore[arg-type]  # what makes one is enough
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_context_factory=None if secured is None else lambda *_: certified(secured),
    )
    server = _Server(settings)
    watching, answering = asyncio.create_task(watch_lag(lag)), asyncio.create_task(server.serve([listener]))
    answering.add_done_callback(tell_end)  # calls are answered all the same
    try:
        yield f"{host}:{listener.getsockname()[1]}"
    finally:
        watching.cancel()
        server.should_exit = True
        await asyncio.wait([answering])


def certified(tls: TlsFiles) -> ssl.SSLContext:
    """Returns a context that follows the files and ends each handshake without a certificate that they trust."""
    context = ssl_context(tls, ("http/1.1",))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def tell_end(answering: asyncio.Task[None]) -> None:
    """Logs why operators are no longer answered, if not because the server stops."""
    if not answering.cancelled() and (error := answering.exception()) is not None:
        structlog.get_logger("gatebook.metrics").error("metrics ended", error=str(error))


class _Server(uvicorn.Server):
    """A server within a service, which alone hears signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def application(metrics: Metrics, service: Service, door: Door) -> Starlette:
    """Returns what answers operators."""

    async def tell_metrics(_: Request) -> Response:
        return Response(await asyncio.to_thread(metrics.text), media_type=CONTENT_TYPE)

    async def tell_alive(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def tell_ready(_: Request) -> Response:
        if door.admission.draining.is_set():
            return PlainTextResponse("draining\n", status_code=503)
        if not service.healthy:
            return PlainTextResponse("the book cannot be written; the log says why\n", status_code=503)
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[
            Route("/metrics", tell_metrics, methods=["GET"]),
            Route("/livez", tell_alive, methods=["GET"]),
            Route("/readyz", tell_ready, methods=["GET"]),
        ]
    )


def bind(address: str) -> socket.socket:
    """Binds `HOST:PORT`.

    Raises:
        ListenError: it is taken.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as err:
        raise ListenError(f"cannot listen on {address}: is the port taken by another process?") from err
