"""The plans of `AccessService`: what of a dataset may be read, said in SQL."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import grpc.aio

from gatebook.authorize import Question, question_of
from gatebook.config import Limits
from gatebook.engine.snapshot import Snapshot
from gatebook.explanation import explain_question
from gatebook.planning import Planned, plan_access
from gatebook.rpc import decode, encode
from gatebook.rpc.access_service import SERVICE
from gatebook.rpc.answers import Answers
from gatebook.rpc.checking import tell
from gatebook.rpc.edge import Edge, ServicerContext
from gatebook.rpc.receipts import Receipts
from gatebook.service import Service
from gatebook.sql.dialects import dialect_of
from gatebook.sql.statement import KeyPad, Parameter
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2


class PlanServicer:
    """Answers with plans; every plan is in the book before it is sent."""

    def __init__(self, service: Service, receipts: Receipts, edge: Edge, limits: Limits) -> None:
        """Takes the parts of the service, what writes receipts, the rim of every call, and the limits."""
        self._revisions = service.revisions
        self._recorder = service.recorder
        self._receipts = receipts
        self._answers = Answers(receipts.origin)
        self._edge = edge
        self._limits = limits

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the method to a server."""
        handler = grpc.unary_unary_rpc_method_handler(
            self.PlanAccess, pb.PlanAccessRequest.FromString, pb.PlanAccessResponse.SerializeToString
        )
        server.add_registered_method_handlers(SERVICE, {"PlanAccess": handler})

    async def PlanAccess(  # noqa: N802  # gRPC names it
        self, request: pb.PlanAccessRequest, context: ServicerContext
    ) -> pb.PlanAccessResponse:
        """Plans one request."""
        async with self._edge.call("PlanAccess", context) as call:
            limits = self._limits
            self._receipts.require(request.receipt_level)
            access = decode.access_request(request.access, limits, allow_partial=request.allow_partial)
            name = self._revisions.name_of(decode.policy_set(request.policy_set, limits))
            self._edge.permit_asking(call, name, access)
            dialect = dialect_of(request.dialect)
            snapshot = self._revisions.snapshot(request.policy_set, at_least=request.at_least)
            request_id = decode.text(request.request_id, limits.name_bytes_max, "request_id")
            question = question_of(
                snapshot, access, caller=call.caller.id, caller_request_id=request_id, trace_id=call.trace_id
            )
            with self._edge.items(call, 1):
                planned = await plan_access(self._recorder, snapshot, question, dialect)
                tell(call, [planned.answer])
                call.tell(dialect=dialect.name)
                receipt = await self._receipts.one(planned.answer, request.receipt_level, call.until)
            response = self._response(planned, receipt)
            response.people_types.extend(people_types(snapshot, question, planned))
            if request.explain and not planned.answer.decision.allowed:
                near = explain_question(snapshot, question, planned.answer.decision.decide_time)
                response.explanation.CopyFrom(encode.explanation(*near))
            return response
        raise AssertionError  # the block above returns or aborts

    def _response(self, planned: Planned, receipt: types_pb2.Receipt | None) -> pb.PlanAccessResponse:
        statement = planned.statement
        decision = types_pb2.Decision.FromString(self._answers.decision(planned.answer, receipt))
        if statement.filter is not None:
            decision.row_filter.kind = types_pb2.ROW_FILTER_KIND_CONDITIONAL
            decision.row_filter.expression.CopyFrom(encode.expression(statement.filter))
            decision.row_filter.sql[statement.dialect] = statement.filter_sql
        return pb.PlanAccessResponse(
            decision=decision,
            masks_sql=statement.columns,
            parameters=[parameter(value) for value in statement.parameters],
            narrowings=statement.narrowings,
        )


def people_types(snapshot: Snapshot, question: Question, planned: Planned) -> Iterator[str]:
    """Yields the types of the columns that say whom the rows of a minimum group are about."""
    catalogue, group = snapshot.policy_set.catalogue, planned.answer.decision.minimum_group
    if catalogue is not None and group is not None:
        columns = catalogue.datasets[question.request.resource].columns
        yield from (columns[name].type for name in group.entity_columns)


def parameter(value: Parameter) -> pb.PlanParameter:
    """Returns the value of a placeholder as a message."""
    match value:
        case bool():
            return pb.PlanParameter(bool_value=value)
        case int():
            return pb.PlanParameter(int_value=value)
        case float():
            return pb.PlanParameter(double_value=value)
        case str():
            return pb.PlanParameter(string_value=value)
        case KeyPad(key_id=key_id, pad=pad):
            return pb.PlanParameter(mask_key_pad=pb.MaskKeyPad(key_id=key_id, pad=pad))
