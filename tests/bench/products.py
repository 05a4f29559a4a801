"""The servers of the comparison, each in a process of its own, and how each is asked.

Gatebook and Cerbos serve the same policy as they come, each with its own log of calls going to a file. Cerbos keeps its
audit: decisions, in its local store on the same disk. That store is written in groups, about once a second, after the
answers; nothing is synced for an answer. The third server is an empty handler of grpc.aio on uvloop: what the library
costs before anything is decided.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import ROOT
from tests.bench.office import Asked, write_casbin, write_cerbos

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook_client import Check, Enforcer, Resource, Subject
from gatebook_client.asking import Asking

CERBOS = ROOT / "build" / "cerbos"
CERBOS_BINARY = CERBOS / "server"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 30.0
POLICY_SET = "office"
CERBOS_NAME, EMPTY = "cerbos", "empty handler"
EMPTY_REQUEST_BYTES, EMPTY_ANSWER_BYTES = 200, 400


@dataclass(frozen=True, slots=True)
class Product:
    """A running server, and how it is asked: requests and answers are bytes."""

    name: str
    process: subprocess.Popen[bytes]
    target: str
    one_path: str
    many_path: str
    one: Callable[[Asked], bytes]
    many: Callable[[Sequence[Asked]], bytes]
    read_one: Callable[[bytes], list[bool]]
    read_many: Callable[[bytes], list[bool]]

    def cpu_seconds(self) -> float:
        """Returns the processor time that the server has used, its workers included (proc(5), /proc/pid/stat)."""
        ticks = 0
        for pid in _family(self.process.pid):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            fields = stat.rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND


def _family(pid: int) -> list[int]:
    """Returns a process and those below it."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            found += _family(int(child))
    return found


class UnansweredError(Exception):
    """A server answered with something else than decisions."""


@contextlib.contextmanager
def _running(
    command: Sequence[str], folder: Path, target: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server within the block; gives it when its port takes connections."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(("GATEBOOK_", "CERBOS_"))}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=told | environment)
    try:
        _wait(process, target, folder / "log")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], target: str, log: Path) -> None:
    host, _, port = target.rpartition(":")
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start:\n" + log.read_text(encoding="utf-8", errors="replace")[-2_000:])


def _free_target() -> str:
    """Returns an address that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


@contextlib.contextmanager
def gatebook(folder: Path, workers: int) -> Iterator[Product]:
    """Runs `gatebook serve` with the office's Casbin set, its books below `folder`."""
    folder.mkdir()
    write_casbin(folder / POLICY_SET)
    target = _free_target()
    command = [sys.executable, "-m", "gatebook", "serve", "--policies", str(folder / POLICY_SET)]
    command += ["--data", str(folder / "data"), "--listen", target, "--log", "json"]
    command += ["--workers", str(workers)]
    asking = Asking.of(POLICY_SET, Enforcer())

    def one(asked: Asked) -> bytes:
        request, _ = asking.check_request(check_of(asked), at_least=0, explain=False, receipt="basic")
        return request.SerializeToString()

    def many(asked: Sequence[Asked]) -> bytes:
        request, _ = asking.batch_request([check_of(question) for question in asked], at_least=0, receipt="basic")
        return request.SerializeToString()

    def read_one(answer: bytes) -> list[bool]:
        return [_effect(pb.CheckAccessResponse.FromString(answer).decision)]

    def read_many(answer: bytes) -> list[bool]:
        return [_effect(result.decision) for result in pb.BatchCheckAccessResponse.FromString(answer).results]

    service = "/gatebook.v1.AccessService"
    with _running(command, folder, target) as process:
        yield Product(
            name="gatebook" if workers == 1 else f"gatebook, {workers} workers",
            process=process,
            target=target,
            one_path=f"{service}/CheckAccess",
            many_path=f"{service}/BatchCheckAccess",
            one=one,
            many=many,
            read_one=read_one,
            read_many=read_many,
        )


def check_of(asked: Asked) -> Check:
    """Returns a question as Gatebook takes it; who holds which role is in the set."""
    person, thing = asked.person, asked.thing
    return Check(
        Subject(person.id, properties=person.attributes), asked.action, Resource(thing.id, thing.kind, thing.attributes)
    )


def _effect(decision: types_pb2.Decision) -> bool:
    """Reads an effect. A decision that says where it is written has been decided; the zero value has not."""
    if decision.effect not in (types_pb2.EFFECT_ALLOW, types_pb2.EFFECT_DENY) or not decision.receipt.leaf_hash:
        raise UnansweredError("gatebook answered without a decision in its book")
    return decision.effect == types_pb2.EFFECT_ALLOW


def cerbos_is_there() -> bool:
    """Tells whether the peer's server and its Python client are installed; makes the client importable."""
    python = CERBOS / "python"
    if not CERBOS_BINARY.exists() or not (python / "cerbos").is_dir():
        return False
    if str(python) not in sys.path:
        sys.path.append(str(python))  # behind the environment's own: grpcio and protobuf are those of both clients
    return True


CERBOS_SETTINGS = """
server:
  grpcListenAddr: "{target}"
  httpListenAddr: "unix:{folder}/http.sock"
audit:
  enabled: true
  accessLogsEnabled: false
  decisionLogsEnabled: true
  backend: local
  local:
    storagePath: "{folder}/audit"
storage:
  driver: disk
  disk:
    directory: "{folder}/policies"
    watchForChanges: false
telemetry:
  disabled: true
"""


@contextlib.contextmanager
def cerbos(folder: Path) -> Iterator[Product]:
    """Runs the server of Cerbos with the office's policies and its audit on, below `folder`."""
    folder.mkdir()
    write_cerbos(folder / "policies")
    target = _free_target()
    settings = folder / "settings.yaml"
    settings.write_text(CERBOS_SETTINGS.format(target=target, folder=folder), encoding="utf-8")
    command = [str(CERBOS_BINARY), "server", f"--config={settings}", "--debug-listen-addr="]
    requests = cerbos_module("cerbos.request.v1.request_pb2")
    responses = cerbos_module("cerbos.response.v1.response_pb2")

    def many(asked: Sequence[Asked]) -> bytes:
        entry = requests.CheckResourcesRequest.ResourceEntry
        entries = [entry(actions=[one.action], resource=cerbos_resource(one)) for one in asked]
        request = requests.CheckResourcesRequest(
            request_id="bench", principal=cerbos_principal(asked[0]), resources=entries
        )
        return bytes(request.SerializeToString())

    def read(answer: bytes) -> list[bool]:
        found = []
        for result in responses.CheckResourcesResponse.FromString(answer).results:
            (effect,) = result.actions.values()
            if effect not in (1, 2):  # EFFECT_ALLOW, EFFECT_DENY
                raise UnansweredError("cerbos answered without an effect")
            found.append(effect == 1)
        return found

    path = "/cerbos.svc.v1.CerbosService/CheckResources"
    with _running(command, folder, target, CERBOS_NO_TELEMETRY="1") as process:
        yield Product(
            name=CERBOS_NAME,
            process=process,
            target=target,
            one_path=path,
            many_path=path,
            one=lambda asked: many([asked]),
            many=many,
            read_one=read,
            read_many=read,
        )


@functools.cache
def cerbos_module(name: str) -> Any:  # noqa: ANN401  # the peer's client has no types here
    """Returns a module of the peer's client, or one of protobuf that it uses."""
    return importlib.import_module(name)


def cerbos_principal(asked: Asked) -> Any:  # noqa: ANN401  # as above
    """Returns who asks, with roles: Cerbos takes them from the caller."""
    person = asked.person
    return cerbos_module("cerbos.engine.v1.engine_pb2").Principal(
        id=person.id, roles=person.roles, attr=_values(person.attributes)
    )


def cerbos_resource(asked: Asked) -> Any:  # noqa: ANN401  # as above
    """Returns what is asked for."""
    thing = asked.thing
    return cerbos_module("cerbos.engine.v1.engine_pb2").Resource(
        kind=thing.kind, id=thing.id, attr=_values(thing.attributes)
    )


def _values(attributes: dict[str, Any]) -> dict[str, Any]:
    value = cerbos_module("google.protobuf.struct_pb2").Value
    return {
        name: value(string_value=one) if isinstance(one, str) else value(number_value=one)
        for name, one in attributes.items()
    }


@contextlib.contextmanager
def empty(folder: Path) -> Iterator[Product]:
    """Runs a handler that answers a constant, about as large as a decision with its receipt."""
    folder.mkdir()
    target = _free_target()
    command = [sys.executable, "-m", "tests.bench.empty_server", target, str(EMPTY_ANSWER_BYTES)]
    with _running(command, folder, target) as process:
        yield Product(
            name=EMPTY,
            process=process,
            target=target,
            one_path="/bench.Bench/Empty",
            many_path="/bench.Bench/Empty",
            one=lambda _: b"\x01" * EMPTY_REQUEST_BYTES,
            many=lambda _: b"",
            read_one=lambda _: [True],
            read_many=lambda _: [True],
        )
