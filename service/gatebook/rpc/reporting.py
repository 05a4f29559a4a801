"""Where run events go that come by another way than gRPC: to the worker that keeps lineage, which is the first."""

from __future__ import annotations

from typing import Any

import grpc.aio

from gatebook.config import Config
from gatebook.door.caller import Caller
from gatebook.revisions.deriving import Deriving
from gatebook.rpc.inner import channel_to, name_caller
from gatebook.rpc.lineage_answers import recorded
from gatebook.rpc.relay import relayed
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub


class Reporting:
    """Takes run events, or passes them on. Used on the event loop only."""

    def __init__(self, deriving: Deriving, config: Config) -> None:
        """Takes what keeps lineage here, and which of several workers this is."""
        self._deriving = deriving
        self._first: Any = None
        if config.worker and config.sockets is not None:
            self._first = PolicyServiceStub(channel_to(config.sockets, 0))

    async def record(self, event_json: bytes, caller: Caller) -> pb.RecordLineageResponse:
        """Takes one run event of a caller who may report.

        Raises:
            GatebookError: as `Deriving.record`; of the first worker, where this is another.
        """
        if self._first is None:
            return recorded(await self._deriving.record(event_json, caller.id))
        event = pb.RecordLineageRequest(event_json=event_json)
        try:
            response: pb.RecordLineageResponse = await self._first.RecordLineage(event, metadata=[name_caller(caller)])
        except grpc.aio.AioRpcError as error:
            raise relayed(error) from error
        return response
