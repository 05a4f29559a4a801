"""One call to the service, tried until it succeeds, is final, or is out of time.

Owns the two loops (asyncio and blocking) around the rules of `retry`. Both promise: the deadline
covers every attempt and wait together; what comes out is the response or a `GatebookClientError`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from gatebook_client.asking import Terms
from gatebook_client.credentials import Metadata, metadata_of, metadata_of_blocking
from gatebook_client.errors import (
    ConnectionClosedError,
    GatebookClientError,
    MalformedAnswerError,
    from_call,
)
from gatebook_client.retry import RetryBudget, wait_seconds

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)
Question = TypeVar("Question")
Question_contra = TypeVar("Question_contra", contravariant=True)

LEAST_SECONDS = 0.001
"""What an attempt gets when the deadline is now: gRPC then reports DEADLINE_EXCEEDED itself."""

_NO_MESSAGE = "the answer is not a message of the service"
_UNREADABLE = "Exception deserializing response"
"""How grpcio words the status it makes up for a response that does not parse."""


class AsyncMethod(Protocol[Question, Answer]):
    """A unary method of an asyncio stub."""

    def __call__(
        self, request: Question, /, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> grpc.aio.UnaryUnaryCall[Question, Answer]:
        """Starts one attempt."""


class BlockingMethod(Protocol[Question_contra, Answer_co]):
    """A unary method of a blocking stub."""

    def __call__(
        self, request: Question_contra, /, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Answer_co:
        """Makes one attempt."""


class Line:
    """The terms, the retry budget and the state of one connection."""

    def __init__(self, terms: Terms) -> None:
        """Starts open, with a full budget."""
        self.terms = terms
        self.budget = RetryBudget(terms.retries)
        self.is_open = True

    def deadline(self, timeout_seconds: float | None) -> float:
        """Returns the deadline of a call that begins now, on the monotonic clock."""
        timeout = self.terms.timeout_seconds if timeout_seconds is None else timeout_seconds
        if not timeout > 0:
            raise ValueError(f"timeout_seconds: `{timeout}` is not more than 0")
        return time.monotonic() + timeout

    def wait_seconds(self, error: GatebookClientError, attempt: int, deadline: float) -> float:
        """Returns how long to wait after a failed attempt, or raises its error when it is final."""
        left = deadline - time.monotonic()
        wait = wait_seconds(self.terms.retries, self.budget, error, attempt=attempt, left_seconds=left)
        if wait is None:
            raise error
        return wait

    def raise_if_closed(self) -> None:
        """Turns the cancellation of an awaited call into an error where the closed channel caused it.

        grpc.aio cancels whoever awaits a call when its channel closes; a task that nobody asked to
        stop is told so instead.
        """
        task = asyncio.current_task()
        if not self.is_open and task is not None and not task.cancelling():
            raise ConnectionClosedError from None

    def read_error(self, error: grpc.RpcError) -> GatebookClientError:
        """Reads the error of an attempt."""
        if not self.is_open:
            return ConnectionClosedError()
        if _UNREADABLE in (error.details() or ""):
            return MalformedAnswerError(_NO_MESSAGE)
        return from_call(error)


async def call(
    line: Line, method: AsyncMethod[Question, Answer], request: Question, timeout_seconds: float | None
) -> Answer:
    """Makes a call on an asyncio channel."""
    deadline = line.deadline(timeout_seconds)
    attempt = 0
    while True:
        attempt += 1
        metadata = await metadata_of(line.terms.token, deadline)
        left = max(LEAST_SECONDS, deadline - time.monotonic())
        try:
            answer = await method(request, timeout=left, metadata=metadata)
        except grpc.RpcError as failure:
            error = line.read_error(failure)
        except grpc.aio.UsageError as failure:
            raise ConnectionClosedError from failure
        except asyncio.CancelledError:
            line.raise_if_closed()
            raise
        else:
            # grpc.aio gives None for bytes that do not parse.
            if answer is None:
                raise MalformedAnswerError(_NO_MESSAGE)
            line.budget.earn()
            return answer
        await asyncio.sleep(line.wait_seconds(error, attempt, deadline))


def call_blocking(
    line: Line, method: BlockingMethod[Question, Answer], request: Question, timeout_seconds: float | None
) -> Answer:
    """Makes a call on a blocking channel."""
    deadline = line.deadline(timeout_seconds)
    attempt = 0
    while True:
        attempt += 1
        metadata = metadata_of_blocking(line.terms.token)
        left = max(LEAST_SECONDS, deadline - time.monotonic())
        try:
            answer = method(request, timeout=left, metadata=metadata)
        except grpc.RpcError as failure:
            error = line.read_error(failure)
        except ValueError as failure:
            # grpcio says so of a closed channel.
            if line.is_open:
                raise
            raise ConnectionClosedError from failure
        else:
            line.budget.earn()
            return answer
        time.sleep(line.wait_seconds(error, attempt, deadline))
