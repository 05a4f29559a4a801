"""The servicer of Envoy's `envoy.service.auth.v3.Authorization`: a check for each HTTP request.

Rules:

1. every way out but a written ALLOW is an answer that denies, errors of ours and refusals at the door too:
   Envoy takes a failed call for no answer, and what it does then is a setting of Envoy;
2. what the upstream is told stands in headers that are set or removed here, so that no client can forge them;
3. an allow with obligations leaves only where the route names who applies them; otherwise Envoy would be the
   enforcer, which can apply none.
"""

from __future__ import annotations

import base64
import json
from http import HTTPStatus

from google.rpc import code_pb2, error_details_pb2, status_pb2

from gatebook.audit.recorder import Recorder
from gatebook.authorize import Answer, authorize, question_of
from gatebook.config import Limits
from gatebook.envoy import external_auth_pb2 as envoy
from gatebook.envoy.external_auth_pb2_grpc import AuthorizationServicer
from gatebook.errors import InvalidRequestError, LimitExceededError, PermissionDeniedError
from gatebook.revisions.active import Revisions
from gatebook.rpc import decode, envoy_mapping
from gatebook.rpc.answers import Answers
from gatebook.rpc.checking import tell
from gatebook.rpc.edge import Call, Edge, ServicerContext
from gatebook.rpc.envoy_mapping import Mapped, mapped
from gatebook.rpc.receipts import Receipts

OPERATION = "Check"
DECISION_ID = "x-gatebook-decision-id"
RECEIPT = "x-gatebook-receipt"
DECISION = "x-gatebook-decision"
UNAVAILABLE = "UNAVAILABLE"


class EnvoyServicer(AuthorizationServicer):
    """Answers Envoy; every decision is in the book before it is sent."""

    def __init__(
        self, revisions: Revisions, recorder: Recorder, receipts: Receipts, edge: Edge, limits: Limits
    ) -> None:
        """Takes the active revisions, the pen of the book, the rim of every call, and the limits."""
        self._revisions = revisions
        self._recorder = recorder
        self._receipts = receipts
        self._answers = Answers(receipts.origin)
        self._edge = edge
        self._limits = limits

    async def Check(  # noqa: N802  # gRPC names it
        self, request: envoy.CheckRequest, context: ServicerContext
    ) -> envoy.CheckResponse:
        """Decides one HTTP request."""
        async with self._edge.call(OPERATION, context) as call:
            return await self._decide(request.attributes, call)
        raise AssertionError  # the block above returns or aborts

    async def _decide(self, attributes: envoy.AttributeContext, call: Call) -> envoy.CheckResponse:
        asked = mapped(attributes)
        access = decode.access_request(asked.access, self._limits, allow_partial=False)
        self._edge.permit_asking(call, self._revisions.name_of(asked.policy_set), access)
        snapshot = self._revisions.snapshot(asked.policy_set)
        question = question_of(snapshot, access, caller=call.caller.id, trace_id=call.trace_id)
        with self._edge.items(call, 1, asked.access.ByteSize()):
            [answer] = await authorize(self._recorder, snapshot, [question])
        tell(call, [answer])
        return self._allowed(answer, asked) if answer.decision.allowed else denied(answer)

    def _allowed(self, answer: Answer, asked: Mapped) -> envoy.CheckResponse:
        if answer.decision.must_apply and not asked.declares:
            raise AssertionError  # the engine denies what the enforcer does not declare
        receipt = self._receipts.basic(answer.written)
        set_here = {DECISION_ID: answer.decision_id, RECEIPT: in_base64(receipt.SerializeToString())}
        if asked.declares:
            set_here[DECISION] = in_base64(self._answers.decision(answer))
        passing = envoy.OkHttpResponse(headers=headers(set_here))
        passing.headers_to_remove.extend({DECISION_ID, RECEIPT, DECISION} - set_here.keys())
        return envoy.CheckResponse(status=status_pb2.Status(code=code_pb2.OK), ok_response=passing)


def denied(answer: Answer) -> envoy.CheckResponse:
    """Returns the answer to a request that was decided and denied."""
    body = {"decision_id": answer.decision_id, "reason": answer.decision.reason.name}
    return turned_away(HTTPStatus.FORBIDDEN, body, {DECISION_ID: answer.decision_id})


def refused(detail: status_pb2.Status) -> envoy.CheckResponse:
    """Returns the answer to a request that was not decided. What is not the client's own fault is not told."""
    told = error_details_pb2.ErrorInfo()
    detail.details[0].Unpack(told)
    match told.reason, told.metadata.get("field", ""):
        case InvalidRequestError.reason, envoy_mapping.WHO:
            http = HTTPStatus.UNAUTHORIZED
        case (InvalidRequestError.reason, envoy_mapping.PATH) | (LimitExceededError.reason, _):
            http = HTTPStatus.BAD_REQUEST
        case PermissionDeniedError.reason, _:
            http = HTTPStatus.FORBIDDEN
        case _:
            return turned_away(HTTPStatus.SERVICE_UNAVAILABLE, {"reason": UNAVAILABLE})
    return turned_away(http, {"reason": told.reason})


def turned_away(http: HTTPStatus, body: dict[str, str], more: dict[str, str] | None = None) -> envoy.CheckResponse:
    """Returns an answer that denies."""
    told = {"content-type": "application/json", "cache-control": "no-store", **(more or {})}
    code = code_pb2.UNAVAILABLE if http is HTTPStatus.SERVICE_UNAVAILABLE else code_pb2.PERMISSION_DENIED
    return envoy.CheckResponse(
        status=status_pb2.Status(code=code),
        denied_response=envoy.DeniedHttpResponse(
            status=envoy.HttpStatus(code=http), headers=headers(told), body=json.dumps(body)
        ),
    )


def headers(values: dict[str, str]) -> list[envoy.HeaderValueOption]:
    """Returns headers that are set, whatever was there."""
    return [envoy.HeaderValueOption(header=envoy.HeaderValue(key=key, value=value)) for key, value in values.items()]


def in_base64(content: bytes) -> str:
    """Returns bytes as a header can hold them."""
    return base64.b64encode(content).decode()
