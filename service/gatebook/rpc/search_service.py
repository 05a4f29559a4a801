"""The searches of `AccessService`: subjects, resources and actions for which a check would be allowed."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from gatebook.config import Limits
from gatebook.engine.candidates import Kind
from gatebook.engine.snapshot import Snapshot
from gatebook.revisions.active import Revisions
from gatebook.rpc import decode
from gatebook.rpc.access_service import SERVICE
from gatebook.rpc.edge import Call, Edge, ServicerContext
from gatebook.search import ANY, Found, Search
from gatebook.service import Service
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2

Request = pb.SearchSubjectsRequest | pb.SearchResourcesRequest | pb.SearchActionsRequest


class SearchServicer:
    """Answers searches; every page of a search is in the book before it is sent."""

    def __init__(self, service: Service, edge: Edge, limits: Limits) -> None:
        """Takes the parts of the service, the rim of every call, and the limits."""
        self._rim = edge
        self._active: Revisions = service.revisions
        self._bounds = limits
        self._searching = service.searching

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the methods to a server."""
        methods: dict[str, tuple[Any, Any, Any]] = {
            "SearchSubjects": (self.SearchSubjects, pb.SearchSubjectsRequest, pb.SearchSubjectsResponse),
            "SearchResources": (self.SearchResources, pb.SearchResourcesRequest, pb.SearchResourcesResponse),
            "SearchActions": (self.SearchActions, pb.SearchActionsRequest, pb.SearchActionsResponse),
        }
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(method, request.FromString, response.SerializeToString)
            for name, (method, request, response) in methods.items()
        }
        server.add_registered_method_handlers(SERVICE, handlers)

    async def SearchSubjects(  # noqa: N802  # gRPC names it
        self, request: pb.SearchSubjectsRequest, context: ServicerContext
    ) -> pb.SearchSubjectsResponse:
        """Finds who may."""
        async with self._rim.call(Kind.SUBJECTS.value, context) as call:
            found = await self._page(call, request, Kind.SUBJECTS)
            subjects = [types_pb2.Subject(type=found.type, id=name) for name in found.names]
            return pb.SearchSubjectsResponse(subjects=subjects, next_page_token=found.next_token)
        raise AssertionError  # the block above returns or aborts

    async def SearchResources(  # noqa: N802  # as above
        self, request: pb.SearchResourcesRequest, context: ServicerContext
    ) -> pb.SearchResourcesResponse:
        """Finds what may be reached."""
        async with self._rim.call(Kind.RESOURCES.value, context) as call:
            found = await self._page(call, request, Kind.RESOURCES)
            resources = [types_pb2.Resource(type=found.type, id=name) for name in found.names]
            return pb.SearchResourcesResponse(resources=resources, next_page_token=found.next_token)
        raise AssertionError  # the block above returns or aborts

    async def SearchActions(  # noqa: N802  # as above
        self, request: pb.SearchActionsRequest, context: ServicerContext
    ) -> pb.SearchActionsResponse:
        """Finds what may be done."""
        async with self._rim.call(Kind.ACTIONS.value, context) as call:
            found = await self._page(call, request, Kind.ACTIONS)
            actions = [types_pb2.Action(name=name) for name in found.names]
            return pb.SearchActionsResponse(actions=actions, next_page_token=found.next_token)
        raise AssertionError  # the block above returns or aborts

    async def _page(self, call: Call, request: Request, kind: Kind) -> Found:
        access = decode.access_request(template(request.access, kind), self._bounds, allow_partial=False)
        name = self._active.name_of(decode.policy_set(request.policy_set, self._bounds))
        if kind is Kind.SUBJECTS:
            self._rim.permit_searching(call, name, access.subject.type)
        else:
            self._rim.permit_asking(call, name, access)
        size = decode.page_size(request.page_size, self._bounds)
        snapshot: Snapshot = self._active.snapshot(request.policy_set, at_least=request.at_least)
        found = await self._searching.page(
            snapshot,
            Search(kind, access, request.page_token, request.page_size or None),
            call.caller.id,
            default_size=size,
            may_ask=lambda subject: self._rim.may_ask(call, name, subject, access.actor),
            admit=lambda count: self._rim.items(call, count),
        )
        call.tell(found=len(found.names), scanned=found.scanned)
        return found


def template(access: types_pb2.AccessRequest, kind: Kind) -> types_pb2.AccessRequest:
    """Returns the question with `ANY` in place of what is searched for."""
    asked = types_pb2.AccessRequest()
    asked.CopyFrom(access)
    match kind:
        case Kind.SUBJECTS:
            asked.subject.id = ANY
        case Kind.RESOURCES:
            asked.resource.id = ANY
        case Kind.ACTIONS:
            asked.action.Clear()
            asked.action.name = ANY
    return asked
