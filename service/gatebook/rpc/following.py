"""How a worker follows the first one: it folds what the feed tells, and decides only while its lease runs.

Owns the lease of this worker and the order of a change: build the state aside, swap it in, tell that it was
folded. Whatever it is told it answers, so that the first worker knows that it is there. A feed that breaks is
taken up again; meanwhile the lease runs out, and nothing is decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
import structlog

from gatebook.audit.entry import from_timestamp
from gatebook.audit.lineage_entry import derivation_of, reclassification_of
from gatebook.errors import DrainingError, GatebookError
from gatebook.governance.lineage import NO_LINEAGE, Lineage
from gatebook.revisions.active import Activation, Revisions
from gatebook.v1 import worker_service_pb2 as pb
from gatebook.v1.worker_service_pb2_grpc import WorkerServiceStub
from gatebook.values import Revision

AGAIN_SECONDS = 0.1


class Following:
    """Keeps the revisions of a worker at those of the first one."""

    def __init__(self, worker: int, channel: grpc.aio.Channel, revisions: Revisions) -> None:
        """Takes the number of this worker, the way to the first one, and what decides here: nothing, until told."""
        self._worker = worker
        self._stub: Any = WorkerServiceStub(channel)
        self._revisions = revisions
        self._revisions.lease_until = 0.0
        self._folded = 0
        self._writing = asyncio.Lock()
        self._log = structlog.get_logger("gatebook.feed")
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Follows until it is cancelled, or this worker stops while it folds: then its lease runs out."""
        while True:
            try:
                await self._follow()
                self._log.warning("feed ended", worker=self._worker)
            except grpc.aio.AioRpcError as error:
                self._log.warning("feed lost", worker=self._worker, code=error.code().name)
            except DrainingError:
                return
            except GatebookError as error:
                # What the first worker decides by cannot be had here: the lease runs out.
                self._log.error("feed not folded", worker=self._worker, error=error.message)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _follow(self) -> None:
        call = self._stub.Follow()
        told: tuple[Activation, ...] = ()
        lineage = NO_LINEAGE
        folding: asyncio.Task[None] | None = None
        begun = self._folded = 0
        try:
            await call.write(pb.FollowRequest(worker=self._worker))
            while (response := await call.read()) is not grpc.aio.EOF:
                told = (*(activation_of(record) for record in response.activations), *told)
                lineage = with_records(lineage, response.lineage)
                total = len(told) + len(lineage)
                if total != response.total:
                    return
                if folding is not None and folding.done():
                    folding.result()
                    folding = None
                if folding is None and begun < total:
                    begun = total
                    folding = asyncio.create_task(self._fold(call, told, lineage))
                if self.ready.is_set() or self._folded == begun:
                    # While a change is folded the state before it decides: no publish is answered before that ends.
                    self._revisions.lease_until = response.lease_until_ns / 1e9
                    if self._revisions.leased:
                        self.ready.set()
                await self._tell(call)
        finally:
            call.cancel()
            if folding is not None:
                folding.cancel()

    async def _fold(self, call: Any, told: tuple[Activation, ...], lineage: Lineage) -> None:  # noqa: ANN401  # grpc's call
        self._revisions.swap(await asyncio.to_thread(self._revisions.folded, told, lineage, beside_calls=True))
        self._folded = len(told) + len(lineage)
        await self._tell(call)

    async def _tell(self, call: Any) -> None:  # noqa: ANN401  # as above
        async with self._writing:
            await call.write(pb.FollowRequest(worker=self._worker, folded=self._folded))


def with_records(lineage: Lineage, records: Iterable[pb.LineageRecord]) -> Lineage:
    """Returns a lineage with what the feed tells of it beside."""
    derivations, reclassifications = list(lineage.derivations), list(lineage.reclassifications)
    for record in records:
        if record.HasField("lineage"):
            derivations.append(derivation_of(record.lineage, record.index, record.entry_time))
        else:
            reclassifications.append(reclassification_of(record.reclassification, record.index, record.entry_time))
    return Lineage(tuple(derivations), tuple(reclassifications))


def activation_of(record: pb.ActivationRecord) -> Activation:
    """Returns an activation that the feed tells."""
    return Activation(
        record.policy_set,
        Revision(record.revision.digest, record.revision.number),
        from_timestamp(record.create_time),
        record.index,
        record.request_id_hash,
    )
