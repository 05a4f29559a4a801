"""The asyncio client.

Owns one channel to the service. Every call has a deadline, every error is a `GatebookClientError`
(or, with `on_error="deny"`, a denial), and no path leads from an error to an allow.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import grpc.aio

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import access_service_pb2_grpc as access_grpc
from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import audit_service_pb2_grpc as audit_grpc
from gatebook_client import stream as streams
from gatebook_client.asking import Asking, Terms, read_batch, read_check
from gatebook_client.attempts import AsyncMethod, Line, call
from gatebook_client.audit_calls import PAGE_SIZE, EntryFilter, entry_request, list_request, next_page
from gatebook_client.coalescing import Coalescing
from gatebook_client.credentials import Tls
from gatebook_client.decision import Decision, denied_by
from gatebook_client.errors import ConnectionClosedError, GatebookClientError, MalformedAnswerError
from gatebook_client.planning import Plans
from gatebook_client.question import ActionLike, Check, ReceiptName, ResourceLike, SubjectLike
from gatebook_client.searching import Searches
from gatebook_client.target import open_channel

SERVICE = "gatebook.v1.AccessService"
NOT_OPENED = "the connection is not open; use it inside `async with`"


class Connection(Searches, Plans):
    """A connection to the service, for asyncio. Open it with `async with`; tasks of one event loop may share it."""

    def __init__(
        self, target: str, asking: Asking, terms: Terms, *, tls: Tls | None = None, coalesce: bool = True
    ) -> None:
        """Takes a checked target, how to ask and on which terms; use `gatebook_client.connect`."""
        self._tls = tls
        self._coalesce = coalesce
        self._coalescing: Coalescing | None = None
        self._target = target
        self._asking = asking
        self._line = Line(terms)
        self._channel: grpc.aio.Channel | None = None
        self._access_stub: access_grpc.AccessServiceAsyncStub | None = None
        self._audit_stub: audit_grpc.AuditServiceAsyncStub | None = None

    async def __aenter__(self) -> Self:
        """Opens the channel. The first call connects."""
        if self._channel is not None:
            raise ConnectionClosedError("the connection was opened before; open another one")
        self._channel = open_channel(self._target, self._tls)
        self._access_stub = access_grpc.AccessServiceStub(self._channel)
        self._audit_stub = audit_grpc.AuditServiceStub(self._channel)
        if self._coalesce:
            self._coalescing = coalescing(self._channel, self._line, self._asking)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        await self.close()

    async def close(self) -> None:
        """Closes the channel; calls under way raise `ConnectionClosedError`."""
        self._line.is_open = False
        if self._coalescing is not None:
            self._coalescing.close()
        if self._channel is not None:
            await self._channel.close()

    async def check(  # noqa: PLR0913  # one argument per part of the question, by keyword
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        *,
        columns: Sequence[str] = (),
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        row: Mapping[str, Any] | None = None,
        actor: SubjectLike | None = None,
        allow_partial: bool = False,
        at_least: int = 0,
        explain: bool = False,
        receipt: ReceiptName = "basic",
        timeout_seconds: float | None = None,
    ) -> Decision:
        """Asks whether `subject` may do `action` to `resource`.

        Checks that are asked at the same time share calls to the service (see `coalescing`); with
        `explain` a check has a call of its own.

        Args:
            subject: a user's id, a `(type, id)` pair, or a `Subject`.
            action: a word of the policy set's vocabulary, such as `read`, or an `Action`.
            resource: the dataset, such as `mci.prompts`, or a `Resource`.
            columns: the columns; none means every column.
            purpose: a node of the purpose tree, such as `model_training`.
            context: circumstances, such as the network.
            row: the complete row asked about; None means unknown.
            actor: who acts on the subject's behalf.
            allow_partial: allow the columns that are allowed, and withhold the others.
            at_least: decide with this policy revision number or a later one.
            explain: also name the nearest rules and what they lacked.
            receipt: `full` also returns the entry's bytes and a signature, for `verify_receipt`.
                `proof` also waits for a published checkpoint and proves that it covers the entry; `witnessed`
                waits until witnesses have cosigned it.
            timeout_seconds: the deadline of this call, retries included.

        Raises:
            GatebookClientError: there is no decision, so the answer is no.
            ValueError: an argument cannot be sent as it is.
        """
        check = Check(subject, action, resource, columns, purpose, context, row, actor, allow_partial)
        try:
            if self._coalescing is not None and not explain:
                return await self._coalescing.ask(
                    check, at_least=at_least, receipt=receipt, timeout_seconds=timeout_seconds
                )
            request, asked = self._asking.check_request(check, at_least=at_least, explain=explain, receipt=receipt)
            response = await call(self._line, self._access.CheckAccess, request, timeout_seconds)
            return read_check(response, asked)
        except GatebookClientError as error:
            if self._line.terms.on_error == "deny":
                return denied_by(error)
            raise

    async def check_many(
        self,
        checks: Iterable[Check],
        *,
        at_least: int = 0,
        receipt: ReceiptName = "basic",
        timeout_seconds: float | None = None,
    ) -> list[Decision]:
        """Asks many checks (at most 1,000) with one commit to the book; the decisions are in their order.

        An error of one item is a denial with `error` set; the others are untouched.

        Raises:
            GatebookClientError: there is no decision at all.
            ValueError: an argument cannot be sent as it is.
        """
        listed = list(checks)
        if not listed:
            return []
        request, asked = self._asking.batch_request(listed, at_least=at_least, receipt=receipt)
        try:
            response = await call(self._line, self._access.BatchCheckAccess, request, timeout_seconds)
            return read_batch(response, asked)
        except GatebookClientError as error:
            if self._line.terms.on_error == "deny":
                return [denied_by(error) for _ in listed]
            raise

    def stream(
        self,
        checks: Iterable[Check] | AsyncIterable[Check],
        *,
        in_flight: int = streams.IN_FLIGHT,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[tuple[Check, Decision], None]:
        """Asks checks in one stream; yields each with its decision as soon as it is ready.

        Args:
            checks: the checks; taken one by one, at most `in_flight` of them unanswered.
            in_flight: the most checks to have open at once.
            timeout_seconds: the deadline of each check.

        Raises:
            GatebookClientError: the stream broke; the checks not yet yielded have no decision. Raised
                while iterating, whatever `on_error` says.
        """
        timeout = self._line.terms.timeout_seconds if timeout_seconds is None else timeout_seconds
        return streams.stream(
            self._line, self._access, self._asking, checks, in_flight=in_flight, timeout_seconds=timeout
        )

    async def entry(
        self, index: int | None = None, *, decision_id: str = "", origin: str = "", timeout_seconds: float | None = None
    ) -> audit_pb2.EntryRecord:
        """Returns one entry of the book, by index or by the id of its decision.

        `origin` names the book where a service keeps several, as a receipt does; the id of a decision does not need it.
        """
        request = entry_request(index, decision_id, origin)
        response = await call(self._line, self._audit.GetEntry, request, timeout_seconds)
        if not response.HasField("record"):
            raise MalformedAnswerError("the answer holds no entry")
        return response.record

    async def entries(
        self,
        *,
        oldest_first: bool = False,
        page_size: int = PAGE_SIZE,
        origin: str = "",
        timeout_seconds: float | None = None,
        **criteria: Unpack[EntryFilter],
    ) -> AsyncIterator[audit_pb2.EntryRecord]:
        """Yields the entries that match, page by page; each page is itself an entry of the book.

        Where a service keeps several books, `origin` names one; else all are listed, merged by time.
        """
        request: audit_pb2.ListEntriesRequest | None
        request = list_request(criteria, oldest_first=oldest_first, page_size=page_size, origin=origin)
        while request is not None:
            response = await call(self._line, self._audit.ListEntries, request, timeout_seconds)
            for record in response.entries:
                yield record
            request = next_page(request, response)

    async def checkpoint(
        self, *, refresh: bool = False, origin: str = "", timeout_seconds: float | None = None
    ) -> audit_pb2.GetCheckpointResponse:
        """Returns the newest signed checkpoint; `refresh` publishes what is acknowledged first."""
        request = audit_pb2.GetCheckpointRequest(refresh=refresh, origin=origin)
        return await call(self._line, self._audit.GetCheckpoint, request, timeout_seconds)

    async def inclusion_proof(
        self, index: int, *, size: int = 0, origin: str = "", timeout_seconds: float | None = None
    ) -> audit_pb2.GetInclusionProofResponse:
        """Returns the proof that an entry is in the tree of `size` (0: of the newest checkpoint)."""
        request = audit_pb2.GetInclusionProofRequest(index=index, size=size, origin=origin)
        return await call(self._line, self._audit.GetInclusionProof, request, timeout_seconds)

    async def consistency_proof(
        self, old_size: int, *, new_size: int = 0, origin: str = "", timeout_seconds: float | None = None
    ) -> audit_pb2.GetConsistencyProofResponse:
        """Returns the proof that one tree is a prefix of another (0: that of the newest checkpoint)."""
        request = audit_pb2.GetConsistencyProofRequest(old_size=old_size, new_size=new_size, origin=origin)
        return await call(self._line, self._audit.GetConsistencyProof, request, timeout_seconds)

    @property
    def _access(self) -> access_grpc.AccessServiceAsyncStub:
        if self._access_stub is None:
            raise ConnectionClosedError(NOT_OPENED)
        return self._access_stub

    @property
    def _audit(self) -> audit_grpc.AuditServiceAsyncStub:
        if self._audit_stub is None:
            raise ConnectionClosedError(NOT_OPENED)
        return self._audit_stub


def coalescing(channel: grpc.aio.Channel, line: Line, asking: Asking) -> Coalescing:
    """Returns what sends the checks of a channel; its requests are bytes already."""
    one: AsyncMethod[bytes, access_pb2.CheckAccessResponse | None] = channel.unary_unary(
        f"/{SERVICE}/CheckAccess", response_deserializer=access_pb2.CheckAccessResponse.FromString
    )
    many: AsyncMethod[bytes, access_pb2.BatchCheckAccessResponse | None] = channel.unary_unary(
        f"/{SERVICE}/BatchCheckAccess", response_deserializer=access_pb2.BatchCheckAccessResponse.FromString
    )
    return Coalescing(line, asking, one, many)
