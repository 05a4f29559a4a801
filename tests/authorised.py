"""A server within the process of a test, whose callers are whoever they say: what they may do is what is tested."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.rpc import status_pb2
from tests.serving import POLICIES

from gatebook.config import Config, Limits
from gatebook.door.authentication import Authentication
from gatebook.door.caller import LOCAL, Caller, CallerKind, Credentials
from gatebook.door.callers_file import CallersFile
from gatebook.door.door import Door
from gatebook.policy.bundle import read_folder
from gatebook.rpc.listening import listening
from gatebook.server import open_door, publish_folders
from gatebook.service import Service, open_service
from gatebook.v1 import access_service_pb2, policy_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub
from gatebook.values import Entity

SECONDS = 20
GATEBOOK = POLICIES / "gatebook"


class Claimed(Authentication):
    """Believes the name in the header `authorization`, which real authentication proves; without one it is `local`."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        """Takes the callers by their names."""
        super().__init__(CallersFile(), None)
        self.callers = dict(callers)

    async def identify(self, credentials: Credentials) -> Caller:
        """Returns who it is said to be."""
        return self.callers[credentials.authorization[0]] if credentials.authorization else LOCAL


def caller(name: str) -> Caller:
    """Returns the caller with the common name."""
    return Caller(f"cn:{name}", CallerKind.CERTIFICATE)


def person(name: str, type_: str = "employee") -> Caller:
    """Returns the caller of a person with a token."""
    return Caller(f"corp:{name}", CallerKind.TOKEN, subject=Entity(type_, name))


@dataclass(frozen=True)
class Ended:
    """How a call ended, byte for byte."""

    code: str
    message: str = ""
    details: bytes = b""

    @property
    def status(self) -> status_pb2.Status:
        """Returns the status in the details."""
        return status_pb2.Status.FromString(self.details)


@dataclass(frozen=True)
class Authorised:
    """The server: its parts, and how to call it."""

    service: Service
    door: Door
    target: str
    authentication: Claimed

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Any]:
        """Opens a channel."""
        async with grpc.aio.insecure_channel(self.target) as channel:
            yield channel

    async def call(self, name: str, path: str, request: bytes = b"") -> tuple[Ended, bytes]:
        """Calls any method by its path; returns how it ended, or `OK` once it answers, and the first answer."""
        async with grpc.aio.insecure_channel(self.target) as channel:
            method: Any = channel.unary_stream(path)
            call = method(request, metadata=claiming(name), timeout=SECONDS)
            try:
                first = await call.read()
            except grpc.aio.AioRpcError as error:
                return ended(error), b""
            call.cancel()
            return Ended("OK"), first if isinstance(first, bytes) else b""


def claiming(name: str) -> tuple[tuple[str, str], ...]:
    """Returns the header of a caller; `local` sends none."""
    return () if name == "local" else (("authorization", name),)


def ended(error: grpc.aio.AioRpcError) -> Ended:
    """Returns how a call failed."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return Ended(error.code().name, error.details() or "", details if isinstance(details, bytes) else b"")


def gatebook_set(folder: Path, *lines: str, without: Sequence[str] = ()) -> Path:
    """Copies the shipped set, without lines that hold any of these words, with further lines."""
    copy = folder / "gatebook"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(GATEBOOK, copy, ignore=shutil.ignore_patterns("tests"))
    rules = copy / "policy.csv"
    kept = [line for line in rules.read_text().splitlines() if not any(word in line for word in without)]
    rules.write_text("\n".join([*kept, *lines, ""]))
    return copy


def publishing(folder: Path) -> policy_service_pb2.PublishPolicySetRequest:
    """Returns the request that publishes a folder."""
    files = [policy_service_pb2.PolicyFile(path=path, content=content) for path, content in read_folder(folder).items()]
    return policy_service_pb2.PublishPolicySetRequest(policy_set=folder.name, files=files)


@asynccontextmanager
async def authorised(
    folder: Path, callers: Mapping[str, Caller], *lines: str, dev: bool = False, policies: Sequence[Path] = ()
) -> AsyncIterator[Authorised]:
    """Serves the set `basic` and others under the shipped set `gatebook` with further lines."""
    config = Config(
        policies=(POLICIES / "basic", *policies, gatebook_set(folder, *lines)),
        data=folder / "data",
        listen="127.0.0.1:0",
        dev=dev,
        limits=Limits(drain_seconds=0.1),
    )
    authentication = Claimed(callers)
    async with open_service(config) as service:
        await publish_folders(service, config)
        door = open_door(service, config, authentication)
        async with listening(service, door, config) as port:
            yield Authorised(service, door, f"127.0.0.1:{port}", authentication)


PEOPLE = {"farah": person("farah"), "kai": person("kai"), "trino": caller("trino"), "helper": person("helper", "agent")}
GRANTED = ["g, token, role:person", "g, cn:trino, role:service"]


def question(subject: str = "alice", type_: str = "employee", actor: str = "") -> types_pb2.AccessRequest:
    """Builds a question that the set `basic` can answer."""
    return types_pb2.AccessRequest(
        subject=types_pb2.Subject(type=type_, id=subject),
        actor=types_pb2.Subject(type="agent", id=actor) if actor else None,
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )


async def check(server: Authorised, name: str, access: types_pb2.AccessRequest, policy_set: str = "basic") -> Ended:
    """Asks one question as a caller."""
    async with server.channel() as channel:
        request = access_service_pb2.CheckAccessRequest(policy_set=policy_set, access=access)
        try:
            await AccessServiceStub(channel).CheckAccess(request, metadata=claiming(name))
        except grpc.aio.AioRpcError as error:
            return ended(error)
        return Ended("OK")


async def publish(server: Authorised, name: str, folder: Path, **fields: Any) -> Ended:  # noqa: ANN401  # of the request
    """Publishes a folder as a caller."""
    async with server.channel() as channel:
        request = publishing(folder)
        request.MergeFrom(policy_service_pb2.PublishPolicySetRequest(**fields))
        try:
            await PolicyServiceStub(channel).PublishPolicySet(request, metadata=claiming(name))
        except grpc.aio.AioRpcError as error:
            return ended(error)
        return Ended("OK")


async def read_to_the_end(stream: Any) -> None:  # noqa: ANN401  # grpc's own
    """Reads a stream until it fails."""
    while await stream.read() is not grpc.aio.EOF:
        pass
