"""Checks on the wire: unary, batch and stream, with the errors and limits of each."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from tests.serving import POLICIES, RunningServer, serving

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub


@pytest.fixture
def stub(shipped: RunningServer) -> Iterator[AccessServiceStub]:
    """The access service of the shipped telemetry set."""
    with shipped.channel() as channel:
        yield AccessServiceStub(channel)


def access(subject: str = "kai", resource: str = "ai_usage.team_daily") -> types_pb2.AccessRequest:
    """Builds a question that the shipped set allows."""
    return types_pb2.AccessRequest(
        subject=types_pb2.Subject(type="user", id=subject),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id=resource),
        purpose="adoption_visualisation.team_dashboard",
    )


def refusal(error: grpc.RpcError) -> tuple[str, error_details_pb2.ErrorInfo, list[str]]:
    """Returns code, `ErrorInfo` and the kinds of the other details of an error."""
    metadata: dict[str, bytes] = dict(error.trailing_metadata())  # type: ignore[arg-type]  # pairs, say the docs
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return error.code().name, info, [detail.TypeName() for detail in status.details[1:]]


def test_a_batch_answers_each_item_in_order(stub: AccessServiceStub) -> None:
    """Results have the order and length of the items, ids of their own, and an error is one item's alone."""
    items = [
        pb.CheckItem(correlation_id="allowed", access=access()),
        pb.CheckItem(correlation_id="malformed", access=access(subject="")),
        pb.CheckItem(correlation_id="denied", access=access(resource="ai_usage.token_usage")),
    ]
    results = stub.BatchCheckAccess(pb.BatchCheckAccessRequest(items=items)).results

    outcomes = [(r.correlation_id, r.WhichOneof("outcome"), r.decision.effect) for r in results]
    assert outcomes == [
        ("allowed", "decision", types_pb2.EFFECT_ALLOW),
        ("malformed", "error", types_pb2.EFFECT_UNSPECIFIED),
        ("denied", "decision", types_pb2.EFFECT_DENY),
    ]
    assert results[1].error.code == code_pb2.INVALID_ARGUMENT
    assert len({results[0].decision.decision_id, results[2].decision.decision_id}) == 2
    assert results[2].decision.receipt.index == results[0].decision.receipt.index + 1


def test_a_stream_answers_every_item(stub: AccessServiceStub) -> None:
    """Each item of each message is answered once, under its correlation id."""

    def messages() -> Iterator[pb.StreamCheckAccessRequest]:
        for first in range(0, 500, 50):
            items = [pb.CheckItem(correlation_id=str(n), access=access()) for n in range(first, first + 50)]
            yield pb.StreamCheckAccessRequest(items=items)

    answered = [r.correlation_id for response in stub.StreamCheckAccess(messages()) for r in response.results]
    assert sorted(answered, key=int) == [str(n) for n in range(500)]


def test_a_stream_lives_as_long_as_its_caller(stub: AccessServiceStub) -> None:
    """A stream answers while it is open, before its end is sent."""
    more = threading.Semaphore(1)
    over = False

    def messages() -> Iterator[pb.StreamCheckAccessRequest]:
        while more.acquire(timeout=30) and not over:
            yield pb.StreamCheckAccessRequest(items=[pb.CheckItem(access=access())])

    responses = stub.StreamCheckAccess(messages())
    for _ in range(3):
        assert next(responses).results[0].decision.effect == types_pb2.EFFECT_ALLOW
        more.release()
    over = True
    more.release()
    responses.cancel()


def test_a_refused_message_ends_a_stream_after_what_was_asked_before(stub: AccessServiceStub) -> None:
    """A message that is refused ends the stream with its error, once all earlier ones are answered."""
    asked = [pb.StreamCheckAccessRequest(items=[pb.CheckItem(access=access())] * 20) for _ in range(5)]
    responses = stub.StreamCheckAccess(iter([*asked, pb.StreamCheckAccessRequest()]))
    answered: list[pb.CheckResult] = []
    with pytest.raises(grpc.RpcError) as refused:
        answered.extend(result for response in responses for result in response.results)

    assert len(answered) == 100
    assert refusal(refused.value)[1].reason == "INVALID_REQUEST"


def test_attributes_may_come_as_a_struct_or_as_json(stub: AccessServiceStub) -> None:
    """The Struct and its JSON sibling say the same; both at once are refused."""
    as_struct, as_json = access(), access()
    as_struct.context.update({"network": "corp"})
    as_json.context_json = b'{"network":"corp"}'
    both = types_pb2.AccessRequest()
    both.CopyFrom(as_struct)
    both.context_json = as_json.context_json

    for one in (as_struct, as_json):
        assert stub.CheckAccess(pb.CheckAccessRequest(access=one)).decision.effect == types_pb2.EFFECT_ALLOW
    with pytest.raises(grpc.RpcError) as refused:
        stub.CheckAccess(pb.CheckAccessRequest(access=both))
    assert refusal(refused.value)[0] == "INVALID_ARGUMENT"


MALFORMED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no subject": ({"subject": {"type": "user", "id": ""}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    "no action": ({"action": {"name": ""}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    "no resource": ({"resource": {"id": ""}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    "control character": ({"purpose": "a\nb"}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    "long subject": ({"subject": {"type": "user", "id": "x" * 257}}, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED"),
    "a column twice": ({"resource": {"columns": ["c", "c"]}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    "too many columns": (
        {"resource": {"id": "a.b", "columns": [f"c{n}" for n in range(257)]}},
        "RESOURCE_EXHAUSTED",
        "LIMIT_EXCEEDED",
    ),
    "too large": ({"context": {"note": "x" * 20_000}}, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_and_not_booked(stub: AccessServiceStub, name: str) -> None:
    """A malformed request gets its code, one reason and the field, and leaves no entry."""
    change, code, reason = MALFORMED[name]
    before = stub.CheckAccess(pb.CheckAccessRequest(access=access())).decision.receipt.index
    with pytest.raises(grpc.RpcError) as refused:
        stub.CheckAccess(pb.CheckAccessRequest(access=json_format.ParseDict(change, access())))
    after = stub.CheckAccess(pb.CheckAccessRequest(access=access())).decision.receipt.index

    got_code, info, details = refusal(refused.value)
    assert (got_code, info.reason, info.domain, details) == (code, reason, "gatebook", ["google.rpc.BadRequest"])
    assert after == before + 1


@pytest.mark.parametrize("text", ["[1]", "{", '"x"', json.dumps({"a": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}), "9" * 30])
def test_hostile_json_is_refused(stub: AccessServiceStub, text: str) -> None:
    """JSON that is no object, is broken, or nests too deeply is refused."""
    request = access()
    request.context_json = text.encode()
    with pytest.raises(grpc.RpcError) as refused:
        stub.CheckAccess(pb.CheckAccessRequest(access=request))

    assert refused.value.code().name in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


def test_a_batch_over_its_limit_is_refused_whole(stub: AccessServiceStub) -> None:
    """A thousand items are taken, one more is not, and none is refused as an empty batch."""
    for count, code in ((0, "INVALID_ARGUMENT"), (1_001, "RESOURCE_EXHAUSTED")):
        items = [pb.CheckItem(access=access()) for _ in range(count)]
        with pytest.raises(grpc.RpcError) as refused:
            stub.BatchCheckAccess(pb.BatchCheckAccessRequest(items=items))
        assert refused.value.code().name == code
    full = pb.BatchCheckAccessRequest(items=[pb.CheckItem(access=access()) for _ in range(1_000)])
    assert len(stub.BatchCheckAccess(full).results) == 1_000


def test_a_later_revision_can_be_demanded(stub: AccessServiceStub) -> None:
    """`at_least` is refused until that revision is active."""
    stub.CheckAccess(pb.CheckAccessRequest(access=access(), at_least=1))
    with pytest.raises(grpc.RpcError) as refused:
        stub.CheckAccess(pb.CheckAccessRequest(access=access(), at_least=2))

    code, info, _ = refusal(refused.value)
    assert (code, info.reason, dict(info.metadata)) == (
        "FAILED_PRECONDITION",
        "REVISION_NOT_ACTIVE",
        {"at_least": "2", "active": "1"},
    )


def test_what_a_caller_states_counts_only_where_it_is_believed(stub: AccessServiceStub) -> None:
    """A subject does not gain a level or role by saying so."""
    request = access(subject="noor", resource="ai_usage.token_usage")
    request.subject.properties_json = b'{"level": 9, "groups": ["role:finops"]}'
    request.purpose = "cost_management"

    assert stub.CheckAccess(pb.CheckAccessRequest(access=request)).decision.effect == types_pb2.EFFECT_DENY


@pytest.mark.parametrize(
    "subject",
    [
        ("service", "kai"),
        ("user", "role:employee"),
        ("user", "kai "),
        ("", "kai"),
        ("user", "tag:content"),
        ("user", "*"),
    ],
)
def test_only_subjects_of_the_directory_are_known(stub: AccessServiceStub, subject: tuple[str, str]) -> None:
    """A wrong type, a role, a tag or a near miss is nobody."""
    request = access()
    request.subject.type, request.subject.id = subject

    decision = stub.CheckAccess(pb.CheckAccessRequest(access=request)).decision
    assert decision.reason == types_pb2.REASON_CODE_UNKNOWN_SUBJECT


def test_a_token_that_the_model_needs_must_be_sent(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A plain model with domains answers with a domain, and says which field lacks without one."""
    folder = tmp_path_factory.mktemp("domains")
    policies = folder / "domains"
    policies.mkdir()
    source = POLICIES.parent / "tests" / "cases" / "casbin" / "rbac_domains"
    for name in ("model.conf", "policy.csv"):
        (policies / name).write_bytes((source / name).read_bytes())
    with serving(folder / "data", [policies]) as server, server.channel() as channel:
        domains = AccessServiceStub(channel)
        request = types_pb2.AccessRequest(
            subject=types_pb2.Subject(id="ana"),
            action=types_pb2.Action(name="read"),
            resource=types_pb2.Resource(id="data1"),
        )
        with pytest.raises(grpc.RpcError) as refused:
            domains.CheckAccess(pb.CheckAccessRequest(access=request))
        code, info, _ = refusal(refused.value)
        assert (code, info.reason, dict(info.metadata)) == (
            "INVALID_ARGUMENT",
            "TOKEN_MISSING",
            {"token": "dom", "field": "context.dom"},
        )
        request.context_json = b'{"dom": "hr"}'
        allowed = domains.CheckAccess(pb.CheckAccessRequest(access=request)).decision
        assert allowed.effect == types_pb2.EFFECT_ALLOW


@pytest.mark.parametrize("change", [{"resource": {"columns": ["title"]}}, {"row": {"owner": "alice"}}])
def test_a_plain_set_refuses_columns_and_rows(tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any]) -> None:
    """Columns and rows mean nothing to a set without catalogue, and are refused instead of being passed over."""
    question = types_pb2.AccessRequest(
        subject=types_pb2.Subject(id="alice"),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )
    with (
        serving(tmp_path_factory.mktemp("plain"), [POLICIES / "basic"]) as server,
        server.channel() as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        AccessServiceStub(channel).CheckAccess(pb.CheckAccessRequest(access=json_format.ParseDict(change, question)))

    code, info, _ = refusal(refused.value)
    assert (code, info.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_one_malformed_item_harms_no_other(stub: AccessServiceStub, number: float) -> None:
    """Bytes that are no UTF-8 and numbers that JSON does not have are errors of their items alone."""
    no_text, no_number = access(), access()
    no_text.context_json = b'{"a": "\xff"}'
    no_number.context.fields["a"].number_value = number
    items = [pb.CheckItem(access=one) for one in (no_text, access(), no_number)]
    results = stub.BatchCheckAccess(pb.BatchCheckAccessRequest(items=items)).results

    assert [r.WhichOneof("outcome") for r in results] == ["error", "decision", "error"]
    assert {r.error.code for r in results if r.HasField("error")} == {code_pb2.INVALID_ARGUMENT}


def test_an_answer_about_a_row_covers_that_row_alone(stub: AccessServiceStub) -> None:
    """Who asked about their own row is not told that every row is covered."""
    own = access(subject="ana", resource="ai_usage.token_usage")
    own.purpose = "subject_access"
    own.row_json = b'{"subject_id": "ana"}'
    decision = stub.CheckAccess(pb.CheckAccessRequest(access=own)).decision

    assert decision.effect == types_pb2.EFFECT_ALLOW
    assert decision.row_filter.kind == types_pb2.ROW_FILTER_KIND_ASKED_ROW


@pytest.mark.parametrize(
    "twisted",
    [
        pytest.param(
            pb.CheckAccessRequest(access=access(subject="nobody")).SerializeToString()
            + pb.CheckAccessRequest(access=access()).SerializeToString(),
            id="the_access_twice",
        ),
        pytest.param(
            pb.CheckAccessRequest(access=access()).SerializeToString()
            + pb.CheckAccessRequest(
                access=types_pb2.AccessRequest(subject=types_pb2.Subject(id="nobody"))
            ).SerializeToString(),
            id="another_subject_behind_it",
        ),
        pytest.param(
            pb.CheckAccessRequest(access=access()).SerializeToString() + b"\xfa\x7f\x03abc", id="an_unknown_field"
        ),
        pytest.param(
            b"\x1a" + bytes([len(raw := access().SerializeToString()) | 0x80, 0x80, 0x00]) + raw, id="a_length_too_long"
        ),
    ],
)
def test_bytes_mean_what_protobuf_says(shipped: RunningServer, stub: AccessServiceStub, twisted: bytes) -> None:
    """What repeats, merges, is unknown or longer than needed means what protobuf says, each time again."""
    meant = stub.CheckAccess(pb.CheckAccessRequest.FromString(twisted)).decision
    with shipped.channel() as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/gatebook.v1.AccessService/CheckAccess")
        answers = [pb.CheckAccessResponse.FromString(ask(twisted)).decision for _ in range(4)]

    assert {(meant.effect, meant.reason, meant.message)} == {(a.effect, a.reason, a.message) for a in answers}
    assert len({answer.decision_id for answer in answers}) == 4
    assert len({answer.receipt.index for answer in answers}) == 4


def test_bytes_that_are_no_request_are_refused(shipped: RunningServer) -> None:
    """What cannot be parsed is the caller's mistake, of a check and of a batch."""
    for method in ("CheckAccess", "BatchCheckAccess"):
        with shipped.channel() as channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes]
            ask = channel.unary_unary(f"/gatebook.v1.AccessService/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                ask(b"\x0a\xff")
        code, info, _ = refusal(caught.value)

        assert (code, info.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
