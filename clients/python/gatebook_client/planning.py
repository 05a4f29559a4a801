"""Planning: asking for plans, with the asyncio and the blocking client alike.

Owns the request and the reading of its answer. A plan is asked with what running its SQL fulfils, row filters among
it; who names no enforcer declares nothing here either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import access_service_pb2_grpc as access_grpc
from gatebook_client.asking import Asking, enforcer_message, new_request_id, receipt_level
from gatebook_client.attempts import Line, call, call_blocking
from gatebook_client.decision import clock, denied_by, read_decision
from gatebook_client.dialects import DIALECTS, Dialect, DialectName
from gatebook_client.doubts import Asked
from gatebook_client.errors import GatebookClientError, MalformedAnswerError
from gatebook_client.plan import Plan, no_plan, read_plan
from gatebook_client.question import ActionLike, Check, ReceiptName, Resource, ResourceLike, SubjectLike, access_request


class Planning(NamedTuple):
    """One question about all rows: its request, and what the answer has to fit."""

    request: pb.PlanAccessRequest
    asked: Asked
    dataset: str
    dialect: Dialect

    @classmethod
    def of(
        cls, asking: Asking, check: Check, dialect: str, *, at_least: int, explain: bool, receipt: ReceiptName
    ) -> Planning:
        """Takes a question without a row.

        Raises:
            ValueError: this client does not write the dialect, or an argument cannot be sent as it is.
        """
        known = DIALECTS.get(dialect)
        if known is None:
            raise ValueError(f"dialect: `{dialect}` is none of {sorted(DIALECTS)}")
        request = pb.PlanAccessRequest(
            request_id=new_request_id(),
            policy_set=asking.policy_set,
            access=access_request(check, enforcer_message(asking.planner)),
            dialect=dialect,
            allow_partial=check.allow_partial,
            at_least=at_least,
            explain=explain,
            receipt_level=receipt_level(receipt),
        )
        asked = Asked(
            columns=tuple(check.columns),
            allow_partial=check.allow_partial,
            masks=asking.planner.masks,
            obligations=asking.planner.obligations,
            receipt=receipt_level(receipt),
            sent_clock=clock(),
            plan=True,
        )
        dataset = check.resource.id if isinstance(check.resource, Resource) else check.resource
        return cls(request, asked, dataset, known)

    def read(self, response: pb.PlanAccessResponse) -> Plan:
        """Reads the answer."""
        if not response.HasField("decision"):
            raise MalformedAnswerError("the answer holds no decision")
        explanation = response.explanation if response.HasField("explanation") else None
        decision = read_decision(response.decision, self.asked, explanation)
        return read_plan(response, decision, self.dataset, self.dialect)

    def failed(self, error: GatebookClientError) -> Plan:
        """Returns the plan of a denial that stands for an error."""
        return no_plan(denied_by(error), self.dataset, self.dialect)


class Plans:
    """The plans of the asyncio client."""

    _asking: Asking
    _line: Line

    @property
    def _access(self) -> access_grpc.AccessServiceAsyncStub:
        raise NotImplementedError

    async def plan(  # noqa: PLR0913  # one argument per part of the question, by keyword
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        *,
        dialect: DialectName,
        columns: Sequence[str] = (),
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        actor: SubjectLike | None = None,
        allow_partial: bool = False,
        at_least: int = 0,
        explain: bool = False,
        receipt: ReceiptName = "basic",
        timeout_seconds: float | None = None,
    ) -> Plan:
        """Asks which rows and columns of `resource` `subject` may do `action` to, as SQL.

        Args:
            subject: a user's id, a `(type, id)` pair, or a `Subject`.
            action: a word of the policy set's vocabulary, such as `read`, or an `Action`.
            resource: the dataset, such as `mci.prompts`, or a `Resource`.
            dialect: of the engine that will run the SQL: `duckdb`, `postgres`, `spark` or `trino`.
            columns: the columns; none means every column.
            purpose: a node of the purpose tree, such as `model_training`.
            context: circumstances, such as the network.
            actor: who acts on the subject's behalf.
            allow_partial: allow the columns that are allowed, and withhold the others.
            at_least: decide with this policy revision number or a later one.
            explain: also name the nearest rules to a denial, and what they lacked.
            receipt: `full` also returns the entry's bytes and a signature, for `verify_receipt`.
                `proof` also waits for a published checkpoint and proves that it covers the entry; `witnessed`
                waits until witnesses have cosigned it.
            timeout_seconds: the deadline of this call, retries included.

        Raises:
            GatebookClientError: there is no plan, so the answer is no.
            ValueError: an argument cannot be sent as it is.
        """
        check = Check(subject, action, resource, columns, purpose, context, None, actor, allow_partial)
        planning = Planning.of(self._asking, check, dialect, at_least=at_least, explain=explain, receipt=receipt)
        try:
            return planning.read(await call(self._line, self._access.PlanAccess, planning.request, timeout_seconds))
        except GatebookClientError as error:
            if self._line.terms.on_error == "deny":
                return planning.failed(error)
            raise


class BlockingPlans:
    """The plans of the blocking client."""

    _asking: Asking
    _line: Line
    _access: access_grpc.AccessServiceStub

    def plan(  # noqa: PLR0913  # as above
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        *,
        dialect: DialectName,
        columns: Sequence[str] = (),
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        actor: SubjectLike | None = None,
        allow_partial: bool = False,
        at_least: int = 0,
        explain: bool = False,
        receipt: ReceiptName = "basic",
        timeout_seconds: float | None = None,
    ) -> Plan:
        """Asks which rows and columns of `resource` `subject` may do `action` to, as SQL. See `Plans.plan`.

        Raises:
            GatebookClientError: there is no plan, so the answer is no.
            ValueError: an argument cannot be sent as it is.
        """
        check = Check(subject, action, resource, columns, purpose, context, None, actor, allow_partial)
        planning = Planning.of(self._asking, check, dialect, at_least=at_least, explain=explain, receipt=receipt)
        try:
            return planning.read(call_blocking(self._line, self._access.PlanAccess, planning.request, timeout_seconds))
        except GatebookClientError as error:
            if self._line.terms.on_error == "deny":
                return planning.failed(error)
            raise
