"""One running service: built, started, drained, stopped.

Owns the order of these steps, and nothing else:

1. build: open the book (which takes the lock), the people, the revisions that the book says are active;
2. start: write that the service started, publish what the folders bring, then listen;
3. drain: health says NOT_SERVING, new calls are refused, calls under way are answered;
4. stop: write that the service stopped, commit, publish a last checkpoint, release the lock.

One process does all of it; the writer, the publisher and the index have threads of their own. Several workers
are several such processes, which `workers` starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection

import msgspec
import structlog
import uvloop

from gatebook.config import Config, require_guarded
from gatebook.door.authentication import PLAINTEXT, Authentication, authentication_of
from gatebook.door.authority import Authority
from gatebook.door.door import Door
from gatebook.door.tls_files import TlsFiles
from gatebook.errors import InvalidRequestError
from gatebook.gateway.listening import answering_http
from gatebook.log import configure_log, flush_log
from gatebook.metrics.listening import telling_operators
from gatebook.policy import bundle
from gatebook.policy.gatebook_set import GATEBOOK
from gatebook.policy.shipped import shipped_gatebook
from gatebook.revisions.publisher import THE_SERVICE
from gatebook.revisions.validate import declared_name
from gatebook.rpc.listening import listening
from gatebook.service import Service, open_service

OLD_COLLECTIONS = 100
"""After how many collections of what is young what is old is looked at; Python has 10."""


def run(config: Config, ready: Callable[[int], None] | None = None, parent: Connection | None = None) -> int:
    """Runs a service, or one worker of it, until it is told to stop; returns the exit code of the process.

    Args:
        config: The settings.
        ready: Is told the port once calls are answered.
        parent: Ends when the process that started this one does, which then stops too.

    Raises:
        GatebookError: the service cannot be started; its message says why.
    """
    configure_log(as_json=config.log_json, worker=config.worker if config.workers > 1 else None)
    raise_file_limit()
    try:
        if config.metrics:
            require_guarded(config)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(config, ready, parent))
    finally:
        flush_log()


async def serve(config: Config, ready: Callable[[int], None] | None, parent: Connection | None) -> int:
    """Serves until SIGTERM or SIGINT, or until the book fails; then drains. SIGHUP reads certificates again."""
    log = structlog.get_logger("gatebook.server")
    stopping = asyncio.Event()
    authentication = authentication_of(config)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, authentication.reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if parent is not None:
        loop.add_reader(parent.fileno(), stopping.set)
    async with authentication.kept_fresh(), open_service(config) as service:
        if not config.worker:
            await publish_folders(service, config)
        door = open_door(service, config, authentication)
        async with (
            telling_traces_if_asked(door, config),
            telling_operators_if_asked(service, door, config, authentication.tls),
            answering_http_if_asked(service, door, config, authentication.tls),  # ends after the door is drained
            listening(service, door, config, authentication.tls) as port,
        ):
            collect_rarely()
            names = list(service.revisions.state.served)
            recovery = service.book.recovery
            if recovery.torn_bytes:
                log.warning("dropped a group that was never acknowledged", bytes=recovery.torn_bytes)
            log.info(
                "serving" if ready is None else "worker serving",
                listen=f"{config.listen.rpartition(':')[0]}:{port}",
                origin=service.origin,
                sets=names,
            )
            if ready is not None:
                ready(port)
            await stopping.wait()
            if parent is not None:
                loop.remove_reader(parent.fileno())
            log.info("draining", seconds=config.limits.drain_seconds)
    log.info("stopped")
    return 0


def telling_traces_if_asked(door: Door, config: Config) -> contextlib.AbstractAsyncContextManager[None]:
    """Tells calls to a collector of traces, where the command line says so.

    Raises:
        InvalidRequestError: what is needed for it is not installed.
    """
    if not config.traces:
        return contextlib.nullcontext()
    try:
        from gatebook.traces import telling_traces  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as err:
        raise InvalidRequestError("traces", "needs `gatebook[otel]`: install that extra") from err
    return telling_traces(door)


@contextlib.asynccontextmanager
async def telling_operators_if_asked(
    service: Service, door: Door, config: Config, tls: TlsFiles | None
) -> AsyncIterator[None]:
    """Tells operators how the service does, where the command line names an address for it."""
    if not config.metrics:
        yield
        return
    beside = msgspec.structs.replace(config, metrics=metrics_of(config))
    async with telling_operators(service, door, beside, tls) as address:
        structlog.get_logger("gatebook.server").info("metrics", listen=address)
        yield


def metrics_of(config: Config) -> str:
    """Returns where a worker tells operators: the first at the address given, each other one port further."""
    host, _, port = config.metrics.rpartition(":")
    return f"{host}:{int(port) + config.worker}" if int(port) else config.metrics


@contextlib.asynccontextmanager
async def answering_http_if_asked(
    service: Service, door: Door, config: Config, tls: TlsFiles | None
) -> AsyncIterator[None]:
    """Answers AuthZEN requests, where the command line names an address for it."""
    if not config.http:
        yield
        return
    async with answering_http(service, door, config, tls) as address:
        structlog.get_logger("gatebook.server").info("http", listen=address)
        yield


def open_door(service: Service, config: Config, authentication: Authentication = PLAINTEXT) -> Door:
    """Returns the door of a service: without an authentication, for plain text on loopback."""
    authority = Authority(service.revisions, dev=config.dev)
    service.publishing.approving.recall = authority.recalled
    return Door(config.limits, authority, authentication)


async def publish_folders(service: Service, config: Config) -> None:
    """Publishes the folders that the command line names: where nothing is active yet, and with `dev` at every start.

    What is active may ask for approvals: then nobody publishes past them, with `dev` neither.

    Where no folder brings the set `gatebook` and none is active, the shipped one is published: without it
    everything is refused. `reset_gatebook` publishes it, or the one that a folder brings, in any case.

    Raises:
        PolicySetRefusedError: a folder has findings; nothing of it is active.
    """
    folder = config.directory or next(filter(None, map(bundle.directory_beside, config.policies)), None)
    if folder is not None and (config.dev or service.revisions.state.directory is None):
        files = await asyncio.to_thread(bundle.read_directory_folder, folder)
        await service.publishing.publish_directory(files, THE_SERVICE)
    brought: set[str] = set()
    for path in config.policies:
        files = await asyncio.to_thread(bundle.read_folder, path)
        name = declared_name(files, path.resolve().name)
        active = service.revisions.newest(name)
        guarded = service.revisions.approvals_asked(name)
        if (config.dev and not guarded) or active is None or (config.reset_gatebook and name == GATEBOOK):
            await service.publishing.publish(files, name, THE_SERVICE)
        elif bundle.digest(files) != active.revision.digest:
            log = structlog.get_logger("gatebook.server")
            todo = f"gatebook policy publish {path}"
            log.warning("folder differs and is not published", set=name, active=active.revision.number, todo=todo)
        brought.add(name)
    if GATEBOOK not in brought and (config.reset_gatebook or service.revisions.newest(GATEBOOK) is None):
        shipped = await asyncio.to_thread(shipped_gatebook)
        await service.publishing.publish(shipped, GATEBOOK, THE_SERVICE)


def collect_rarely() -> None:
    """Has the collector of rings look at what is old only now and then: all calls wait as long as it looks.

    What is there at the start is never looked at again; what is young is, as often as ever.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, OLD_COLLECTIONS)


def raise_file_limit() -> None:
    """Lets the process open as many files and connections as it may at all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
