"""One running service: built, started, drained, stopped.

Owns the order of these steps, and nothing else:

1. build: open the book (which takes the lock), the people, the revisions that the book says are active;
2. start: write that the service started, publish what the folders bring, then listen;
3. drain: health says NOT_SERVING, new calls are refused, calls under way are answered;
4. stop: write that the service stopped, commit, publish a last checkpoint, release the lock.

On one machine one process does all of it; the writer, the publisher and the index have threads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator

import grpc.aio
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gatebook.config import Config, Limits, require_loopback
from gatebook.errors import ListenError
from gatebook.log import configure_log, flush_log
from gatebook.policy import bundle
from gatebook.revisions.validate import declared_name
from gatebook.rpc.access_service import AccessServicer
from gatebook.rpc.audit_service import AuditServicer
from gatebook.rpc.edge import Edge
from gatebook.rpc.policy_service import PolicyServicer
from gatebook.rpc.receipts import Receipts
from gatebook.service import Service, open_service
from gatebook.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    policy_service_pb2,
    policy_service_pb2_grpc,
)

SERVICES = (
    access_service_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name,
    policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name,
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
)
SERVICE_CALLER = "gatebook"


def run(config: Config) -> int:
    """Runs a service until it is told to stop; returns the exit code of the process.

    Raises:
        GatebookError: the service cannot be started; its message says why.
    """
    configure_log(as_json=config.log_json)
    raise_file_limit()
    try:
        require_loopback(config.listen)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(config))
    finally:
        flush_log()


async def serve(config: Config) -> int:
    """Serves until SIGTERM or SIGINT, or until the book fails; then drains."""
    log = structlog.get_logger("gatebook.server")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with open_service(config) as service:
        await publish_folders(service, config)
        async with listening(service, config) as port:
            names = sorted(service.revisions.state.policy_sets)
            recovery = service.book.recovery
            if recovery.torn_bytes:
                log.warning("dropped a group that was never acknowledged", bytes=recovery.torn_bytes)
            log.info("serving", listen=f"{config.listen.rpartition(':')[0]}:{port}", origin=service.origin, sets=names)
            await stopping.wait()
            log.info("draining", seconds=config.limits.drain_seconds)
    log.info("stopped")
    return 0


async def publish_folders(service: Service, config: Config) -> None:
    """Publishes the folders that the command line names: always with `dev`, else where nothing is active yet.

    Raises:
        PolicySetRefusedError: a folder has findings; nothing of it is active.
    """
    folder = config.directory or next((d for p in config.policies if (d := p / bundle.DIRECTORY_FOLDER).is_dir()), None)
    if folder is not None and (config.dev or service.revisions.state.directory is None):
        files = await asyncio.to_thread(bundle.read_directory_folder, folder)
        await service.publishing.publish_directory(files, SERVICE_CALLER)
    for path in config.policies:
        files = await asyncio.to_thread(bundle.read_folder, path)
        name = declared_name(files, path.resolve().name)
        active = service.revisions.newest(name)
        if config.dev or active is None:
            await service.publishing.publish(files, name, SERVICE_CALLER)
        elif bundle.digest(files) != active.revision.digest:
            log = structlog.get_logger("gatebook.server")
            todo = f"gatebook policy publish {path}"
            log.warning("folder differs and is not published", set=name, active=active.revision.number, todo=todo)


@contextlib.asynccontextmanager
async def listening(service: Service, config: Config) -> AsyncIterator[int]:
    """Listens for calls within the block, then drains; gives the port."""
    limits = config.limits
    edge = Edge(limits)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.message_bytes_max),
            ("grpc.max_send_message_length", limits.answer_bytes_max),
            ("grpc.max_allowed_incoming_connections", connections_max(limits)),
            ("grpc.max_concurrent_streams", 2 * limits.calls_in_flight_max),  # calls over the limit are told why
            ("grpc.so_reuseport", 0),
        ]
    )
    checks = add_services(server, service, edge, limits)
    try:
        port = server.add_insecure_port(config.listen)
    except RuntimeError as err:
        raise ListenError(f"cannot listen on {config.listen}: is the port taken by another process?") from err
    await server.start()
    watch = asyncio.create_task(watch_book(service, checks))
    try:
        yield port
    finally:
        watch.cancel()
        await checks.enter_graceful_shutdown()
        await edge.drain(limits.drain_seconds)
        await server.stop(grace=1.0)


def add_services(server: grpc.aio.Server, service: Service, edge: Edge, limits: Limits) -> health.aio.HealthServicer:
    """Adds every service to a server; returns the one that answers for its health."""
    receipts = Receipts(service.origin, service.key)
    access = AccessServicer(service.revisions, service.recorder, receipts, edge, limits)
    policy = PolicyServicer(service.revisions, service.publishing, receipts, edge, limits)
    audit = AuditServicer(service.reader, service.recorder, edge)
    checks = health.aio.HealthServicer()
    access_service_pb2_grpc.add_AccessServiceServicer_to_server(access, server)
    policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policy, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return checks


async def watch_book(service: Service, checks: health.aio.HealthServicer) -> None:
    """Tells the health of the service: SERVING as long as the book can be written and published."""
    log = structlog.get_logger("gatebook.server")
    told = None
    while True:
        healthy = service.healthy
        if healthy != told:
            if not healthy:
                log.error("not serving", error=service.book.trouble)
            elif told is not None:
                log.info("serving again")
            status = health_pb2.HealthCheckResponse.SERVING if healthy else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in ("", *SERVICES):
                await checks.set(name, status)
            told = healthy
        await asyncio.sleep(0.25)


def raise_file_limit() -> None:
    """Lets the process open as many files and connections as it may at all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_max(limits: Limits) -> int:
    """Returns how many connections may be open, so that the book can still open its files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return limits.connections_max
    return min(limits.connections_max, files - min(limits.files_reserved, files // 2))
