"""A server with TLS within the process of a test, which tells who it thought each caller was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from tests.certificates import Pair, authority, server_of
from tests.serving import POLICIES

from gatebook.config import Config
from gatebook.door.authentication import Authentication, authentication_of
from gatebook.door.door import Finished
from gatebook.rpc.listening import listening
from gatebook.server import open_door, publish_folders
from gatebook.service import open_service
from gatebook.v1 import audit_service_pb2
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

SECONDS = 20
STRANGER = "-"
CA = authority()
UNREACHED = "no handshake"


@dataclass(frozen=True)
class Told:
    """How a call ended, for the caller and in the log."""

    code: str
    message: str = ""
    details: bytes = b""
    caller: str = STRANGER
    cause: str = ""

    @property
    def identity(self) -> str:
        """Returns who the server thought called, or for what cause that was nobody."""
        return self.cause if self.caller == STRANGER else self.caller


class Hostile:
    """A server, and what its door has told of finished calls."""

    def __init__(self, target: str, authentication: Authentication, finished: asyncio.Queue[Finished]) -> None:
        """Takes where it listens, what recognises its callers, and what their calls came to, one after the other."""
        self.target = target
        self.authentication = authentication
        self._finished = finished

    def channel(self, client: Pair | None = None, chain: bytes = b"") -> grpc.aio.Channel:
        """Opens a channel that shares nothing with others; without a TLS identity it is plain."""
        own = [("grpc.use_local_subchannel_pool", 1)]
        if self.authentication.tls is None:
            return grpc.aio.insecure_channel(self.target, options=own)
        shown = () if client is None else (client.key_pem, client.pem + chain)
        return grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(CA.pem, *shown), options=own)

    async def tell(
        self, client: Pair | None = None, *, chain: bytes = b"", headers: Sequence[tuple[str, str | bytes]] = ()
    ) -> Told:
        """Calls once on a connection of its own."""
        async with self.channel(client, chain) as channel:
            return await self.tell_on(channel, headers)

    async def tell_on(self, channel: grpc.aio.Channel, headers: Sequence[tuple[str, str | bytes]] = ()) -> Told:
        """Calls once."""
        code, message, details = "OK", "", b""
        try:
            method = AuditServiceStub(channel).GetCheckpoint
            await method(audit_service_pb2.GetCheckpointRequest(), timeout=SECONDS, metadata=tuple(headers))
        except grpc.aio.AioRpcError as error:
            code, message = error.code().name, error.details() or ""
            stated = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            details = stated if isinstance(stated, bytes) else b""
            if code == "UNAVAILABLE":
                return Told(code, cause=UNREACHED)
        last = await asyncio.wait_for(self._finished.get(), SECONDS)
        return Told(code, message, details, last.caller, str(last.told.get("cause", "")))


@asynccontextmanager
async def hostile_server(
    folder: Path, callers: str, *, plain: bool = False, tokens: bool = False
) -> AsyncIterator[Hostile]:
    """Serves the set `basic` to callers of a `callers.yaml`: with client certificates, with tokens only, or plain."""
    config = config_of(folder, callers, plain=plain, tokens=tokens)
    authentication = authentication_of(config)
    finished: asyncio.Queue[Finished] = asyncio.Queue()
    async with authentication.kept_fresh(), open_service(config) as service:
        await publish_folders(service, config)
        door = open_door(service, config, authentication)
        door.observers.append(finished.put_nowait)
        async with listening(service, door, config, authentication.tls) as port:
            yield Hostile(f"127.0.0.1:{port}", authentication, finished)


def config_of(folder: Path, callers: str, *, plain: bool, tokens: bool) -> Config:
    """Writes the files of a server, and returns what it is told."""
    certificate, key = server_of(CA).write(folder, "server")
    (folder / "ca.crt").write_bytes(CA.pem)
    (folder / "callers.yaml").write_text(callers)
    return Config(
        policies=(POLICIES / "basic",),
        data=folder / "data",
        listen="127.0.0.1:0",
        tls_cert=None if plain else certificate,
        tls_key=None if plain else key,
        client_ca=None if plain or tokens else folder / "ca.crt",
        callers=folder / "callers.yaml",
    )
