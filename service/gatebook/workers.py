"""Several workers of one service on one machine: started together, watched, stopped together.

Owns the processes. Each worker listens on the same port (SO_REUSEPORT: the kernel spreads connections) and
writes a book of its own. Rules:

1. the first worker is started first, since the others decide by what it says is active;
2. a worker that ends by itself is started again, but not without end;
3. without the first nothing is decided, so with it all end;
4. whoever outlives this process stops.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import msgspec
import structlog

from gatebook.audit.cosigning import witnesses_of
from gatebook.config import Config
from gatebook.door.authentication import authentication_of
from gatebook.errors import BookUnavailableError, GatebookError, ListenError
from gatebook.log import configure_log, flush_log

START_SECONDS_MAX = 600.0
"""How long a worker may take to open its book and compile what is active."""
STOP_SECONDS_BEYOND_DRAIN = 20.0
END_SECONDS = 5.0
"""How long a worker that could not start may take to end."""
RESTARTS_MAX = 5
RESTARTS_SECONDS = 60.0
FAILED = 1
NOT_NOW = 3
"""The exit code where the book cannot be opened for what may pass, such as a full disk: start again."""
SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """One worker process, as this one sees it."""

    def __init__(self, config: Config) -> None:
        """Starts it."""
        self.config = config
        self._ready, ready = SPAWN.Pipe(duplex=False)
        parent, self._alive = SPAWN.Pipe(duplex=False)
        self.process: SpawnProcess = SPAWN.Process(target=work, args=(config, ready, parent), daemon=False)
        self.process.start()
        ready.close()
        parent.close()

    def wait_ready(self, told: Connection) -> bool:
        """Waits until it answers calls; returns False where it has ended or is to stop instead."""
        with contextlib.suppress(EOFError):
            if multiprocessing.connection.wait([self._ready, told], START_SECONDS_MAX) == [self._ready]:
                return bool(self._ready.recv())
        return False

    def signal(self, number: int) -> None:
        """Sends it a signal: SIGTERM to drain and stop, SIGHUP to read certificates again."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def end(self, seconds: float) -> int:
        """Waits until it has ended, and kills it when the time is over; returns its exit code."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        for end in (self._alive, self._ready):
            end.close()
        code = self.process.exitcode
        return FAILED if code is None or code < 0 else code


def work(config: Config, ready: Connection, parent: Connection) -> None:
    """Runs one worker: what a worker process does from its start."""
    from gatebook.server import run  # noqa: PLC0415  # the process that starts workers needs nothing of it

    try:
        sys.exit(run(config, ready.send, parent))
    except GatebookError as error:
        structlog.get_logger("gatebook.server").error("not started", error=error.message)
        for finding in getattr(error, "findings", ()):
            structlog.get_logger("gatebook.server").error(
                "finding", file=finding.file, line=finding.line, column=finding.column, message=finding.message
            )
        flush_log()
        sys.exit(NOT_NOW if isinstance(error, BookUnavailableError) else FAILED)


def supervise(config: Config) -> int:
    """Runs all workers of a service until it is told to stop; returns the exit code of the process.

    Raises:
        InvalidRequestError, CallersRefusedError: it would serve nobody, or strangers.
        ListenError: the address cannot be had.
    """
    configure_log(as_json=config.log_json)
    log = structlog.get_logger("gatebook.workers")
    authentication_of(config)  # refuses here what every worker would refuse
    witnesses_of(config.witness, config.witnesses_needed, config.witness_policy)
    with (
        reserved(config.listen) as address,
        reserved(config.listen_tokens) as token_address,
        reserved(config.http) as http_address,
        socket_folder() as sockets,
        signals() as told,
    ):
        shared = msgspec.structs.replace(
            config, listen=address, listen_tokens=token_address, http=http_address, sockets=sockets
        )
        team = Workers(shared, told)
        try:
            if team.start():
                log.info("serving", listen=address, workers=config.workers)
                team.watch()
        finally:
            code = team.stop()
            log.info("stopped", code=code)
            flush_log()
    return code


class Workers:
    """All workers of one service."""

    def __init__(self, config: Config, told: Connection) -> None:
        """Takes the settings that they share, and what gives the signals that this process gets."""
        self._config = config
        self._told = told
        self._workers: list[Worker] = []
        self._restarts: deque[float] = deque(maxlen=RESTARTS_MAX)
        self._code = 0
        self._log = structlog.get_logger("gatebook.workers")

    def start(self) -> bool:
        """Starts them, the first one first; returns False where they are to stop instead."""
        for number in range(self._config.workers):
            self._workers.append(self._started(number))
            if not number and not self._is_ready(self._workers[0]):
                return False
        return all(self._is_ready(worker) for worker in self._workers[1:])

    def _is_ready(self, worker: Worker) -> bool:
        ready = worker.wait_ready(self._told)
        if not ready and not self._told.poll():
            self._code = worker.end(END_SECONDS) or FAILED
        return ready

    def _started(self, number: int) -> Worker:
        return Worker(msgspec.structs.replace(self._config, worker=number))

    def watch(self) -> None:
        """Waits until a signal arrives or the service cannot go on; meanwhile starts again what ends."""
        while True:
            ends = {worker.process.sentinel: worker for worker in self._workers}
            events = multiprocessing.connection.wait([self._told, *ends])
            if self._told in events:
                if self._told.recv() != signal.SIGHUP:
                    return
                for worker in self._workers:
                    worker.signal(signal.SIGHUP)
            for worker in [ends[event] for event in events if isinstance(event, int)]:
                number, code = worker.config.worker, worker.end(0.0)
                self._log.error("worker ended", number=number, code=code)
                if not number or not self._may_restart():
                    self._code = code or FAILED
                    return
                self._workers[number] = self._started(number)

    def _may_restart(self) -> bool:
        now = time.monotonic()
        often = len(self._restarts) == RESTARTS_MAX and now - self._restarts[0] < RESTARTS_SECONDS
        self._restarts.append(now)
        return not often

    def stop(self) -> int:
        """Stops all and waits for them; returns the exit code of the service."""
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        until = time.monotonic() + self._config.limits.drain_seconds + STOP_SECONDS_BEYOND_DRAIN
        codes = [worker.end(max(0.0, until - time.monotonic())) for worker in self._workers]
        return self._code or next((code for code in codes if code), 0)


@contextlib.contextmanager
def reserved(listen: str) -> Iterator[str]:
    """Keeps a port for the workers within the block; gives the address with its number. An empty one stays so.

    Raises:
        ListenError: another process has it.
    """
    if not listen:
        yield listen
        return
    host, _, port = listen.rpartition(":")
    name = host.removeprefix("[").removesuffix("]")
    family, _, _, _, address = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)[0]
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            # Without SO_REUSEPORT this fails where anybody listens, also another service of this user.
            alone.bind(address)
            number = alone.getsockname()[1]
        with socket.socket(family, socket.SOCK_STREAM) as shared:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shared.bind((address[0], number))
            yield f"{host}:{number}"
    except OSError as err:
        raise ListenError(f"cannot listen on {listen}: is the port taken by another process?") from err


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """Makes a folder for the workers' sockets, which nobody else may enter."""
    folder = Path(tempfile.mkdtemp(prefix="gatebook-"))  # short, as the name of a Unix socket must be
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def signals() -> Iterator[Connection]:
    """Turns signals into something to read, within the block: the number of each."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    known = {number: signal.signal(number, lambda caught, _: writing.send(caught)) for number in numbers}
    try:
        yield reading
    finally:
        for number, before in known.items():
            signal.signal(number, before)
        reading.close()
        writing.close()
