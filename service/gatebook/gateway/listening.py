"""The HTTP server: its port, its connections, and how it ends.

Owns what listens for AuthZEN requests beside gRPC, in the same event loop and behind the same door. It ends after
the door is drained: until then, new requests are answered with 503, and those under way in full.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from gatebook.config import Config
from gatebook.door.door import Door
from gatebook.door.tls_files import TlsFiles, ssl_context
from gatebook.errors import ListenError
from gatebook.gateway.authzen import application
from gatebook.gateway.connection import HEAD_BYTES_MAX, IDLE_SECONDS, Connection
from gatebook.service import Service

CONNECTIONS_MAX = 2_000
HANDSHAKE_SECONDS = 10.0
BACKLOG = 512
STOP_SECONDS = 1.0
ALPN = ("http/1.1",)


@contextlib.asynccontextmanager
async def answering_http(
    service: Service, door: Door, config: Config, tls: TlsFiles | None = None
) -> AsyncIterator[str]:
    """Answers AuthZEN requests within the block; gives the address.

    Raises:
        ListenError: the address is taken.
    """
    app = application(service, door, config)
    async with http_port(app, config.http, tls, shared=config.workers > 1) as address:
        yield address


@contextlib.asynccontextmanager
async def http_port(
    app: ASGIApp, address: str, tls: TlsFiles | None = None, *, shared: bool = False
) -> AsyncIterator[str]:
    """Has an application answer at an address within the block, which others may share; gives the address.

    Raises:
        ListenError: the address is taken.
    """
    settings = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
        proxy_headers=False,  # who calls, and how, is what the connection says
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    settings.load()
    state = ServerState()
    host, _, port = address.rpartition(":")
    try:
        listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(settings, state, CONNECTIONS_MAX, tls),
            host.removeprefix("[").removesuffix("]"),
            int(port),
            ssl=None if tls is None else ssl_context(tls, ALPN),
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_SECONDS,
            backlog=BACKLOG,
            reuse_port=shared or None,
        )
    except OSError as err:
        raise ListenError(f"cannot listen on {address}: is the port taken by another process?") from err
    try:
        yield f"{host}:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await close(state)


async def close(state: ServerState) -> None:
    """Closes every connection: what is under way is answered first, for as long as that takes no more than a second."""
    for connection in list(state.connections):
        connection.shutdown()
    began = time.monotonic()
    while (state.connections or state.tasks) and time.monotonic() - began < STOP_SECONDS:  # noqa: ASYNC110  # uvicorn sets no event
        await asyncio.sleep(STOP_SECONDS / 50)
    for task in list(state.tasks):
        task.cancel()
    for connection in list(state.connections):
        connection.transport.abort()
