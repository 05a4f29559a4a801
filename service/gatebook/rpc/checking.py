"""Answers the bytes of check requests with bytes, whatever carries them.

Owns the way from the request of a check, a batch or a message of a stream to its encoded answer, and knows
nothing of gRPC: of a request only the outline is parsed where what it asks is remembered, each of its fields is
read once, and an answer is put together of parts that many answers share. Rules:

1. what is wrong with the whole request is an error of the call; what is wrong with one item of a batch
   is the error of that item, and no entry;
2. what repeats, merges or is unknown in the bytes of a request means what protobuf says it means, since
   the generated messages read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from google.protobuf.message import DecodeError

from gatebook.audit.asked import named
from gatebook.audit.recorder import Recorder
from gatebook.authorize import Answer, Question, authorize
from gatebook.config import Limits
from gatebook.errors import GatebookError, InvalidRequestError
from gatebook.explanation import explain_question
from gatebook.familiar import Familiar, Heard
from gatebook.revisions.active import Revisions
from gatebook.rpc import answers, decode, encode, outline, status
from gatebook.rpc.answers import Answers
from gatebook.rpc.edge import Call, Edge
from gatebook.rpc.receipts import BASIC, Receipts
from gatebook.v1 import types_pb2
from gatebook.values import AccessRequest, Effect


class Checking:
    """Answers checks; every decision is in the book before its answer is returned."""

    def __init__(
        self, revisions: Revisions, recorder: Recorder, receipts: Receipts, edge: Edge, limits: Limits
    ) -> None:
        """Takes the active revisions, the pen of the book, what writes receipts, the rim of calls, and the limits."""
        self._revisions = revisions
        self._recorder = recorder
        self._receipts = receipts
        self._answers = Answers(receipts.origin)
        self._edge = edge
        self._limits = limits
        self._familiar = Familiar(time.monotonic)

    async def check(self, call: Call, raw: bytes) -> bytes:
        """Answers a `CheckAccessRequest`."""
        self._familiar.turn()
        try:
            request = outline.check(raw)
            level = request.receipt_level
            self._receipts.require(level)
            heard = self._hear(request)
        except DecodeError as err:
            raise unreadable() from err
        self._permit(call, self._name_of(request.policy_set), heard, set())
        snapshot = self._revisions.snapshot(request.policy_set, at_least=request.at_least)
        request_id = decode.text(request.request_id, self._limits.name_bytes_max, "request_id")
        question = heard.question(snapshot, call.caller.id, named(request_id), call.trace_id)
        with self._edge.items(call, 1):
            [answer] = await authorize(self._recorder, snapshot, [question])
            tell(call, [answer])
            receipt = None if level in BASIC else await self._receipts.one(answer, level, call.until)
        explanation = None
        if request.explain:
            near = explain_question(snapshot, question, answer.decision.decide_time)
            explanation = encode.explanation(*near).SerializeToString()
        return answers.check_response(self._answers.decision(answer, receipt), explanation)

    async def batch(self, call: Call, raw: bytes) -> bytes:
        """Answers a `BatchCheckAccessRequest`."""
        try:
            request = outline.batch(raw)
        except DecodeError as err:
            raise unreadable() from err
        with self._held(call, request.items, len(raw)):
            return await self._results(
                call, request.items, request.policy_set, request.at_least, request.request_id, request.receipt_level
            )

    async def message(self, call: Call, raw: bytes) -> bytes:
        """Answers a `StreamCheckAccessRequest`."""
        try:
            request = outline.message(raw)
        except DecodeError as err:
            raise unreadable() from err
        self._edge.permit(call)  # again: it may be long since the stream began
        with self._held(call, request.items, len(raw)):
            return await self._results(call, request.items, request.policy_set, 0, "", request.receipt_level)

    async def _results(  # the fields of a request, and what may be wrong with each of its items
        self,
        call: Call,
        items: Sequence[outline.Item],
        policy_set: str,
        at_least: int,
        request_id: str,
        receipt_level: int,
    ) -> bytes:
        """Returns the encoded `results` of a batch or message."""
        self._receipts.require(receipt_level)
        results = [b""] * len(items)
        correlation_ids = [item.correlation_id for item in items]

        def refuse(position: int, error: GatebookError) -> None:
            told = status.to_status(error).SerializeToString()
            results[position] = answers.failed_result(correlation_ids[position], told)

        permitted = self._permitted(call, items, correlation_ids, policy_set, refuse)
        if not permitted:
            return b"".join(results)  # who may ask nothing does not learn whether there is such a set
        snapshot = self._revisions.snapshot(policy_set, at_least=at_least)
        questions: list[Question] = []
        asked: list[int] = []
        caller_id, trace_id, name = call.caller.id, call.trace_id, b""
        for position, heard in permitted:
            try:
                if not questions:
                    name = named(decode.text(request_id, self._limits.name_bytes_max, "request_id"))
                questions.append(heard.question(snapshot, caller_id, name, trace_id))
            except GatebookError as error:
                refuse(position, error)
            else:
                asked.append(position)
        answered = await authorize(self._recorder, snapshot, questions)
        tell(call, answered)
        receipts = None
        if receipt_level not in BASIC and answered:
            receipts = await self._receipts.beyond_basic(answered, receipt_level, call.until)
        for at, (position, answer) in enumerate(zip(asked, answered, strict=True)):
            receipt = None if receipts is None else receipts[at]
            if isinstance(receipt, GatebookError):
                refuse(position, receipt)
            else:
                results[position] = answers.result(correlation_ids[position], self._answers.decision(answer, receipt))
        return b"".join(results)

    def _permitted(
        self,
        call: Call,
        items: Sequence[outline.Item],
        correlation_ids: Sequence[str],
        policy_set: str,
        refuse: Callable[[int, GatebookError], None],
    ) -> list[tuple[int, Heard]]:
        """Returns what is asked, with its position, where the caller may ask it; the rest is refused."""
        self._familiar.turn()
        permitted: list[tuple[int, Heard]] = []
        people: set[tuple[str, str]] = set()
        name, name_bytes_max = self._name_of(policy_set), self._limits.name_bytes_max
        for position, item in enumerate(items):
            try:
                heard = self._hear(item, position)  # first, since what is no message makes the whole request none
                decode.text(correlation_ids[position], name_bytes_max, "correlation_id")
                self._permit(call, name, heard, people)
            except GatebookError as error:
                refuse(position, error)
            except DecodeError as err:
                raise unreadable() from err
            else:
                permitted.append((position, heard))
        return permitted

    def _held(self, call: Call, items: Sequence[outline.Item], size_bytes: int) -> AbstractContextManager[None]:
        """Returns the block of the items of a request, which are paid for whether or not they turn out to be questions.

        `size_bytes` is that of the request: a little more than the items, and known at once.

        Raises:
            InvalidRequestError, LimitExceededError: there are none, or too many or too large ones.
        """
        limits = self._limits
        if not items:
            raise InvalidRequestError("items", "must not be empty")
        if len(items) > limits.batch_items_max:
            raise decode.over_limit("items", "items", limits.batch_items_max, len(items))
        if size_bytes > limits.batch_bytes_max:
            size_bytes = sum([item.ByteSize() for item in items])
        if size_bytes > limits.batch_bytes_max:
            raise decode.over_limit("items", "bytes", limits.batch_bytes_max, size_bytes)
        return self._edge.items(call, len(items), size_bytes)

    def _hear(self, asked: outline.AskedBytes, position: int | None = None) -> Heard:
        """Reads what is asked, or remembers it; what is malformed is refused here and is no entry.

        Raises:
            DecodeError: it is no message, so that the whole request is none.
        """
        encoded, allow_partial = asked.access, asked.allow_partial
        heard = self._familiar.known(encoded, allow_partial=allow_partial)
        if heard is not None:
            return heard

        def read() -> AccessRequest:
            field = "access" if position is None else f"items[{position}].access"
            access = types_pb2.AccessRequest.FromString(encoded)
            return decode.access_request(access, self._limits, allow_partial=allow_partial, field=field)

        return self._familiar.hear(encoded, read, allow_partial=allow_partial)

    def _name_of(self, policy_set: str) -> str:
        """Returns the name that a request means by `policy_set`."""
        return self._revisions.name_of(decode.policy_set(policy_set, self._limits))

    def _permit(self, call: Call, policy_set: str, heard: Heard, people: set[tuple[str, str]]) -> None:
        """Lets the caller ask this; what is refused here is no entry.

        `people` are those about whom it may ask, as was found in this turn of the event loop.
        """
        request = heard.asked.request
        person = (request.subject.type, request.subject.id)
        if request.actor is not None:
            self._edge.permit_asking(call, policy_set, request)
        elif person not in people:
            self._edge.permit_asking(call, policy_set, request)
            people.add(person)


def unreadable() -> InvalidRequestError:
    """Returns the error of a request that is no message."""
    return InvalidRequestError("request", "not a message of this method")


def tell(call: Call, answered: Sequence[Answer]) -> None:
    """Adds the outcome of checks to the call's log line."""
    denied = sum([answer.decision.outcome.effect is not Effect.ALLOW for answer in answered])
    call.tell(items=len(answered), denied=denied)
    if len(answered) == 1:
        call.tell(decision_id=answered[0].decision_id, decision_reason=answered[0].decision.reason.name)
