"""`ExplainDecision` of `AccessService`: why a decision of the book came out as it did.

Owns which book is asked, and who is told what: of the policy set beyond the rules that decided, only who may read it is
told, since other rules, and what the gate says of changes to them, may name other people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from gatebook.errors import EntryNotFoundError, GatebookError, InvalidRequestError
from gatebook.replay.explaining import METHOD, Explaining
from gatebook.rpc import explained
from gatebook.rpc.access_service import SERVICE
from gatebook.rpc.edge import Call, Edge, ServicerContext
from gatebook.rpc.inner import name_caller
from gatebook.rpc.relay import relayed
from gatebook.service import Service
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub


class ExplainServicer:
    """Explains decisions of the book of this worker, or, given the ways to all workers, of every book."""

    def __init__(self, service: Service, edge: Edge, channels: Mapping[str, grpc.aio.Channel] | None = None) -> None:
        """Takes the parts of the service, the rim of every call, and the way to the worker of each book."""
        self._explaining = Explaining(service.reader, service.recorder, service.revisions)
        self._origin = service.origin
        self._verifier_key = str(service.key.verifier)
        self._edge = edge
        self._stubs: dict[str, Any] = {o: AccessServiceStub(channel) for o, channel in (channels or {}).items()}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the method to a server."""
        handler = grpc.unary_unary_rpc_method_handler(
            self.ExplainDecision, pb.ExplainDecisionRequest.FromString, pb.ExplainDecisionResponse.SerializeToString
        )
        server.add_registered_method_handlers(SERVICE, {METHOD: handler})

    async def ExplainDecision(  # noqa: N802  # gRPC names it
        self, request: pb.ExplainDecisionRequest, context: ServicerContext
    ) -> pb.ExplainDecisionResponse:
        """Explains one decision."""
        async with self._edge.call(METHOD, context) as call:
            if not request.decision_id:
                raise InvalidRequestError("decision_id", "must not be empty")
            return await (self._of_books(call, request) if self._stubs else self._of_book(call, request))
        raise AssertionError  # the block above returns or aborts

    async def _of_books(self, call: Call, request: pb.ExplainDecisionRequest) -> pb.ExplainDecisionResponse:
        """Asks the worker of the book that is named, or one after the other until one has the decision."""
        if request.origin and request.origin not in self._stubs:
            books = ", ".join(f"`{known}`" for known in self._stubs)
            raise InvalidRequestError("origin", f"name one of the books: {books}")
        missing: GatebookError | None = None
        for origin in (request.origin,) if request.origin else self._stubs:
            ask = self._stubs[origin].ExplainDecision
            try:
                answer: pb.ExplainDecisionResponse = await ask(request, metadata=[name_caller(call.caller)])
            except grpc.aio.AioRpcError as error:
                missing = relayed(error)
                if missing.reason != EntryNotFoundError.reason:
                    raise missing from error
            else:
                return answer
        raise missing or AssertionError

    async def _of_book(self, call: Call, request: pb.ExplainDecisionRequest) -> pb.ExplainDecisionResponse:
        if request.origin not in ("", self._origin):
            told = f"the book here is `{self._origin}`: name that one; entries of a closed book are read in its folder"
            raise InvalidRequestError("origin", told)

        def wants_changes(policy_set: str) -> bool:
            return not request.without_changes and self._edge.may_read(call, policy_set)

        sight = self._edge.sight(call)
        found = await self._explaining.explain(request.decision_id, sight, call.caller.id, wants_changes)
        call.tell(equal=not found.again.differences)
        may_read = self._edge.may_read(call, found.asked.past.policy_set)
        return explained.response(found, self._verifier_key, may_read=may_read)
