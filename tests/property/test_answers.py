"""Answers written by hand say what the generated messages would say."""

from __future__ import annotations

from datetime import UTC

from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.audit_samples import ORIGIN
from tests.property.test_entries import DECISION, NAME

from gatebook import values
from gatebook.audit.entry import to_timestamp
from gatebook.audit.recorder import Written
from gatebook.authorize import Answer
from gatebook.rpc import answers, encode
from gatebook.rpc.answers import Answers
from gatebook.rpc.receipts import basic_receipt, unsigned_receipt
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2

WRITTEN = st.builds(
    Written,
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.datetimes(timezones=st.just(UTC)),
    st.binary(min_size=1, max_size=300),
)
ANSWER = st.builds(Answer, DECISION, NAME, WRITTEN)


def as_message(answer: Answer, receipt: types_pb2.Receipt | None = None) -> types_pb2.Decision:
    """Returns the answer, put together of generated messages field by field."""
    decision, written = answer.decision, answer.written
    message = types_pb2.Decision(
        decision_id=answer.decision_id,
        effect=int(decision.effect),  # type: ignore[arg-type]  # the numbers are equal
        reason=int(decision.reason),  # type: ignore[arg-type]  # as above
        message=decision.message,
        policy_revision=revision(decision.policy_revision),
        columns=[encode.column_outcome(column) for column in decision.columns],
        must_apply=[int(kind) for kind in decision.must_apply],  # type: ignore[misc]  # as above
        row_filter=types_pb2.RowFilter(kind=row_filter(decision)),
        rules=[types_pb2.RuleRef(rule=r.rule, file=r.file, line=r.line, effect=r.effect) for r in decision.rules],
        receipt=basic_receipt(ORIGIN, written) if receipt is None else receipt,
        decide_time=to_timestamp(decision.decide_time),
        notice_id=decision.notice_id,
    )
    if decision.directory_revision is not None:
        message.directory_revision.CopyFrom(revision(decision.directory_revision))
    if decision.minimum_group is not None:
        group = decision.minimum_group
        message.minimum_group.CopyFrom(types_pb2.MinimumGroup(k=group.k, entity_columns=group.entity_columns))
    if decision.expires_time is not None:
        message.expires_time.CopyFrom(to_timestamp(decision.expires_time))
    return message


def revision(value: values.Revision) -> types_pb2.Revision:
    """Returns a revision as a message."""
    return types_pb2.Revision(digest=value.digest, number=value.number)


def row_filter(decision: values.Decision) -> types_pb2.RowFilterKind.ValueType:
    """Returns which rows a decision covers."""
    if not decision.allowed:
        return types_pb2.ROW_FILTER_KIND_NO_ROWS
    return types_pb2.ROW_FILTER_KIND_ASKED_ROW if decision.row_given else types_pb2.ROW_FILTER_KIND_ALL_ROWS


@given(answered=st.lists(ANSWER, min_size=1, max_size=4), full=st.booleans())
def test_a_decision_reads_back_as_the_message_it_stands_for(
    answered: list[Answer], full: bool
) -> None:  # hypothesis gives it
    """Whatever a decision holds, and whatever was encoded before it, its bytes are those of its message."""
    writing = Answers(ORIGIN)
    for answer in (*answered, *answered):
        receipt = unsigned_receipt(ORIGIN, answer.written) if full else None
        found = types_pb2.Decision.FromString(writing.decision(answer, receipt))

        assert as_message(answer, receipt) == found


@given(answer=ANSWER, correlation_ids=st.lists(NAME | st.just(""), max_size=4))
def test_results_read_back_in_order(answer: Answer, correlation_ids: list[str]) -> None:
    """Results stand in their order, each with its own correlation id, and an error in place of a decision."""
    decision, error = as_message(answer), status_pb2.Status(code=3, message="no")
    encoded = b"".join(
        answers.result(one, decision.SerializeToString())
        if place % 2
        else answers.failed_result(one, error.SerializeToString())
        for place, one in enumerate(correlation_ids)
    )
    expected = [
        pb.CheckResult(correlation_id=one, decision=decision)
        if place % 2
        else pb.CheckResult(correlation_id=one, error=error)
        for place, one in enumerate(correlation_ids)
    ]

    assert expected == list(pb.BatchCheckAccessResponse.FromString(encoded).results)
    assert expected == list(pb.StreamCheckAccessResponse.FromString(encoded).results)


@given(answer=ANSWER)
def test_the_answer_to_a_check_reads_back(answer: Answer) -> None:
    """A response holds its decision, and its explanation where there is one."""
    decision = as_message(answer)
    explanation = types_pb2.Explanation(roles=["role:employee"])
    plain = answers.check_response(decision.SerializeToString())
    explained = answers.check_response(decision.SerializeToString(), explanation.SerializeToString())

    assert pb.CheckAccessResponse(decision=decision) == pb.CheckAccessResponse.FromString(plain)
    expected = pb.CheckAccessResponse(decision=decision, explanation=explanation)
    assert expected == pb.CheckAccessResponse.FromString(explained)
