"""The health of the service (`grpc.health.v1`), which a load balancer believes.

Owns what is told under which name:

    ""                           may calls be sent here? The book can be written and published, the writer and
                                 the event loop keep up, what is active is known, and the server is not stopping
    gatebook.v1.<Service>        the same; AccessService also needs a policy set that is active
    liveness                     does only a restart help? The writer has been stuck for a minute

Rules:

1. a change is told within half a second, and whoever watches is told the newest state;
2. who watches and does not read holds up nobody else;
3. a server that stops says NOT_SERVING first, and never SERVING again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gatebook.policy.gatebook_set import GATEBOOK
from gatebook.rpc.edge import ServicerContext
from gatebook.service import Service

LOOK_SECONDS = 0.25
LAG_SECONDS_MAX = 2.0
"""An event loop that is later than this does not keep up."""
STUCK_SECONDS_MAX = 10.0
"""A writer that has written nothing for so long, though something waits, does not keep up."""
HOPELESS_SECONDS = 60.0
LIVENESS = "liveness"
ACCESS = "gatebook.v1.AccessService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
Told = Mapping[str, int]


class Health(health_pb2_grpc.HealthServicer):
    """Tells the health, and looks after it."""

    def __init__(self, service: Service, names: Sequence[str]) -> None:
        """Takes the service and the names of what it serves."""
        self._service = service
        self._names = names
        self._stopping = False
        self._trouble = ""
        self._log = structlog.get_logger("gatebook.server")
        self._told: Told = self._found(lag_seconds=0.0)
        self._changed = asyncio.Event()  # replaced and set whenever something else is told

    async def Check(  # noqa: N802  # gRPC names it
        self, request: health_pb2.HealthCheckRequest, context: ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Tells the health of one service."""
        told = self._told.get(request.service)
        if told is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=told)

    async def Watch(  # noqa: N802  # as above
        self, request: health_pb2.HealthCheckRequest, context: ServicerContext
    ) -> None:
        """Tells the health of one service, and each change of it."""
        last = None
        while True:
            changed = self._changed
            told = self._told.get(request.service, UNKNOWN)
            if told != last:
                await context.write(health_pb2.HealthCheckResponse(status=told))
                last = told
                continue
            await changed.wait()

    async def keep(self) -> None:
        """Looks after the health until it is cancelled."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            self._tell(self._found(lag_seconds=time.monotonic() - began - LOOK_SECONDS))

    def stop(self) -> None:
        """Says NOT_SERVING from now on."""
        self._stopping = True
        self._tell(dict.fromkeys(self._told, NOT_SERVING))

    def _found(self, *, lag_seconds: float) -> Told:
        """Finds how everything is."""
        service = self._service
        stuck_seconds = service.writer.stuck_seconds
        trouble = service.book.trouble
        if not trouble and stuck_seconds > STUCK_SECONDS_MAX:
            trouble = f"nothing was written for {stuck_seconds:.0f} s, and entries wait"
        if not trouble and lag_seconds > LAG_SECONDS_MAX:
            trouble = f"the event loop is {lag_seconds:.1f} s late"
        if not trouble and not service.revisions.leased:
            trouble = "the first worker is out of reach, so that it is not known what is active"
        if bool(trouble) != bool(self._trouble):
            if trouble:
                self._log.error("not serving", error=trouble)
            else:
                self._log.info("serving again")
        self._trouble = trouble
        served = NOT_SERVING if trouble else SERVING
        ready = served if service.revisions.state.snapshots.keys() - {GATEBOOK} else NOT_SERVING
        alive = NOT_SERVING if stuck_seconds > HOPELESS_SECONDS else SERVING
        return {"": served, **dict.fromkeys(self._names, served), ACCESS: ready, LIVENESS: alive}

    def _tell(self, found: Told) -> None:
        if found != self._told and not (self._stopping and SERVING in found.values()):
            self._told = found
            self._changed.set()
            self._changed = asyncio.Event()
