"""The servicer of `AccessService`: unary, batch and stream checks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from gatebook.audit.recorder import Recorder
from gatebook.authorize import Answer, Question, authorize, question_of
from gatebook.config import Limits
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import GatebookError, InvalidRequestError
from gatebook.explanation import explain_question
from gatebook.revisions.active import Revisions
from gatebook.rpc import decode, encode, status
from gatebook.rpc.edge import Call, Edge, ServicerContext
from gatebook.rpc.receipts import Receipts
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceServicer
from gatebook.values import AccessRequest


class AccessServicer(AccessServiceServicer):
    """Answers checks; every decision is in the book before it is sent."""

    def __init__(
        self, revisions: Revisions, recorder: Recorder, receipts: Receipts, edge: Edge, limits: Limits
    ) -> None:
        """Takes the active revisions, the pen of the book, the rim of every call, and the limits."""
        self._revisions = revisions
        self._recorder = recorder
        self._receipts = receipts
        self._edge = edge
        self._limits = limits

    async def CheckAccess(  # noqa: N802  # gRPC names it
        self, request: pb.CheckAccessRequest, context: ServicerContext
    ) -> pb.CheckAccessResponse:
        """Decides one request."""
        async with self._edge.call("CheckAccess", context) as call:
            item = pb.CheckItem(access=request.access, allow_partial=request.allow_partial)
            access = self._permitted(item, call, request.policy_set, "access")
            snapshot = self._revisions.snapshot(request.policy_set, at_least=request.at_least)
            question = self._question(snapshot, access, call, request.request_id)
            with self._edge.items(call, 1):
                [answer] = await authorize(self._recorder, snapshot, [question])
            tell(call, [answer])
            response = pb.CheckAccessResponse(decision=self._decision(answer, request.receipt_level))
            if request.explain:
                near, roles = explain_question(snapshot, question)
                response.explanation.CopyFrom(encode.explanation(near, roles))
            return response
        raise AssertionError  # the block above returns or aborts

    async def BatchCheckAccess(  # noqa: N802  # as above
        self, request: pb.BatchCheckAccessRequest, context: ServicerContext
    ) -> pb.BatchCheckAccessResponse:
        """Decides many requests with one commit."""
        async with self._edge.call("BatchCheckAccess", context) as call:
            results = await self._results(
                call, request.items, request.policy_set, request.at_least, request.receipt_level, request.request_id
            )
            return pb.BatchCheckAccessResponse(results=results)
        raise AssertionError  # the block above returns or aborts

    async def StreamCheckAccess(  # noqa: N802  # as above
        self, request_iterator: AsyncIterator[pb.StreamCheckAccessRequest], context: ServicerContext
    ) -> AsyncIterator[pb.StreamCheckAccessResponse]:
        """Decides requests as they arrive; a few messages of one stream are worked on at once.

        A message is read only when there is room for it, so a caller that does not read its answers
        is held back by HTTP/2 flow control.
        """
        async with (
            self._edge.call("StreamCheckAccess", context, stream=True) as call,
            contextlib.aclosing(self._answers(call, request_iterator)) as answers,
        ):
            async for response in answers:
                yield response

    async def _answers(
        self, call: Call, requests: AsyncIterator[pb.StreamCheckAccessRequest]
    ) -> AsyncGenerator[pb.StreamCheckAccessResponse]:
        at_work: set[asyncio.Task[pb.StreamCheckAccessResponse]] = set()
        draining: asyncio.Task[Any] = asyncio.create_task(self._edge.draining.wait())
        reading: asyncio.Task[Any] | None = asyncio.create_task(_next(requests))
        failure: BaseException | None = None
        try:
            while reading is not None or at_work:
                has_room = len(at_work) < self._limits.stream_messages_in_flight_max
                wanted = () if reading is None else (draining, reading) if has_room else (draining,)
                done, _ = await asyncio.wait({*at_work, *wanted}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & at_work:
                    at_work.discard(task)
                    if task.exception() is None:
                        yield task.result()
                    failure = failure or task.exception()
                if reading is not None and reading in done:
                    message = reading.result()
                    reading = None
                    if message is not None:
                        at_work.add(asyncio.create_task(self._stream_message(call, message)))
                        reading = asyncio.create_task(_next(requests))
                if reading is not None and (failure is not None or draining in done):
                    # What is under way is still answered: it is written, or will be.
                    reading.cancel()
                    reading = None
            if failure is not None:
                raise failure
        finally:
            for unfinished in filter(None, (*at_work, draining, reading)):
                unfinished.cancel()

    async def _stream_message(self, call: Call, message: pb.StreamCheckAccessRequest) -> pb.StreamCheckAccessResponse:
        results = await self._results(call, message.items, message.policy_set, 0, types_pb2.RECEIPT_LEVEL_BASIC, "")
        return pb.StreamCheckAccessResponse(results=results)

    async def _results(
        self,
        call: Call,
        items: Sequence[pb.CheckItem],
        policy_set: str,
        at_least: int,
        receipt_level: types_pb2.ReceiptLevel.ValueType,
        request_id: str,
    ) -> list[pb.CheckResult]:
        if not items:
            raise InvalidRequestError("items", "must not be empty")
        if len(items) > self._limits.batch_items_max:
            raise decode.over_limit("items", "items", self._limits.batch_items_max, len(items))
        size = sum(item.ByteSize() for item in items)
        if size > self._limits.batch_bytes_max:
            raise decode.over_limit("items", "bytes", self._limits.batch_bytes_max, size)
        results: list[pb.CheckResult] = []
        permitted: list[tuple[int, AccessRequest]] = []
        for position, item in enumerate(items):
            result = pb.CheckResult(correlation_id=item.correlation_id)
            results.append(result)
            try:
                permitted.append((position, self._permitted(item, call, policy_set, f"items[{position}].access")))
            except GatebookError as error:
                result.error.CopyFrom(status.to_status(error))
        if not permitted:
            return results  # who may ask nothing does not learn whether there is such a set
        snapshot = self._revisions.snapshot(policy_set, at_least=at_least)
        questions: list[Question] = []
        asked: list[int] = []
        for position, access in permitted:
            try:
                questions.append(self._question(snapshot, access, call, request_id))
                asked.append(position)
            except GatebookError as error:
                results[position].error.CopyFrom(status.to_status(error))
        with self._edge.items(call, len(questions), size):
            answers = await authorize(self._recorder, snapshot, questions)
        for position, answer in zip(asked, answers, strict=True):
            results[position].decision.CopyFrom(self._decision(answer, receipt_level))
        tell(call, answers)
        return results

    def _permitted(self, item: pb.CheckItem, call: Call, policy_set: str, field: str) -> AccessRequest:
        """Converts what one item asks, if its caller may ask it; what is refused here is no entry."""
        decode.text(item.correlation_id, self._limits.name_bytes_max, "correlation_id")
        access = decode.access_request(item.access, self._limits, allow_partial=item.allow_partial, field=field)
        self._edge.permit_asking(call, self._revisions.name_of(policy_set), access)
        return access

    def _question(self, snapshot: Snapshot, access: AccessRequest, call: Call, request_id: str) -> Question:
        """Makes a question of what was permitted; what cannot be decided or written is refused, and is no entry."""
        return question_of(
            snapshot,
            access,
            caller=call.caller.id,
            caller_request_id=decode.text(request_id, self._limits.name_bytes_max, "request_id"),
            trace_id=call.trace_id,
        )

    def _decision(self, answer: Answer, level: types_pb2.ReceiptLevel.ValueType) -> types_pb2.Decision:
        full = level == types_pb2.RECEIPT_LEVEL_FULL
        receipt = self._receipts.full(answer.written) if full else self._receipts.basic(answer.written)
        return encode.decision(answer.decision, answer.decision_id, receipt)


def tell(call: Call, answers: Sequence[Answer]) -> None:
    """Adds the outcome of checks to the call's log line."""
    denied = sum(not answer.decision.allowed for answer in answers)
    call.tell(items=len(answers), denied=denied)
    if len(answers) == 1:
        call.tell(decision_id=answers[0].decision_id, decision_reason=answers[0].decision.reason.name)


async def _next(requests: AsyncIterator[pb.StreamCheckAccessRequest]) -> pb.StreamCheckAccessRequest | None:
    return await anext(requests, None)
