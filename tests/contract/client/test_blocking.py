"""The blocking client says and does what the asyncio one does.

The service's end is grpcio-testing's channel, which gives every call to the test. It is of no use for
`grpc.aio`, whose coroutines it takes for answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import grpc_testing
import pytest
from tests.client_cases import FAULTS, plain_answer
from tests.scripted_service import rich_status

import gatebook_client
from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook_client import BlockingConnection, Check, Decision, RetryPolicy
from gatebook_client.asking import Asking, Terms
from gatebook_client.question import Enforcer

PAGE = "page 2"
QUESTION = ("farah", "read", "mci.prompts")
QUICK = RetryPolicy(attempts_max=4, first_wait_seconds=0.001, wait_seconds_max=0.004)
ACCESS = access_pb2.DESCRIPTOR.services_by_name["AccessService"]
AUDIT = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]
CHECK = ACCESS.methods_by_name["CheckAccess"]
BATCH = ACCESS.methods_by_name["BatchCheckAccess"]
STREAM = ACCESS.methods_by_name["StreamCheckAccess"]


class Service:
    """The other end of the channel, in the hands of the test."""

    def __init__(self) -> None:
        """Opens a channel to the test."""
        self.channel = grpc_testing.channel([ACCESS, AUDIT], grpc_testing.strict_real_time())
        self.threads = futures.ThreadPoolExecutor(max_workers=4)

    def connection(self, **terms: Any) -> BlockingConnection:  # noqa: ANN401  # the fields of Terms
        """Returns a client on this channel."""
        asking = Asking.of("", Enforcer())
        return BlockingConnection(self.channel, asking, Terms(20.0, **({"retries": QUICK} | terms)))

    def answer(self, method: object, response: object) -> Any:  # noqa: ANN401  # a message
        """Answers the next call; returns its request."""
        _, request, call = self.channel.take_unary_unary(method)
        call.terminate(response, (), grpc.StatusCode.OK, "")
        return request

    def fail(self, method: object, stated: dict[str, Any]) -> Any:  # noqa: ANN401  # a message
        """Fails the next call as a case says; returns its request."""
        raw = stated["details"].encode() if "details" in stated else rich_status(stated).SerializeToString()
        _, request, call = self.channel.take_unary_unary(method)
        call.terminate(None, (("grpc-status-details-bin", raw),), grpc.StatusCode[stated["code"]], "said the case")
        return request


@pytest.fixture
def service() -> Iterator[Service]:
    """A channel whose other end is the test's."""
    opened = Service()
    yield opened
    opened.threads.shutdown(wait=False, cancel_futures=True)


def test_an_allow_comes_back_as_a_decision(service: Service) -> None:
    """A well-formed allow is an allow, and the request says what was asked."""
    asked = service.threads.submit(service.connection().check, *QUESTION, columns=["prompt_text"], purpose="security")
    request = service.answer(CHECK, access_pb2.CheckAccessResponse(decision=plain_answer()))

    assert asked.result()
    assert ("farah", "security", ["prompt_text"]) == (
        request.access.subject.id,
        request.access.purpose,
        list(request.access.resource.columns),
    )


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case["name"])
def test_a_fault_is_an_error_and_never_an_allow(service: Service, case: dict[str, Any]) -> None:
    """Every case of the table raises its class with its reason, after as many attempts as it says."""
    asked = service.threads.submit(service.connection().check, *QUESTION)
    request_ids = {service.fail(CHECK, case["status"]).request_id for _ in range(case["attempts"])}

    with pytest.raises(getattr(gatebook_client, case["error"])) as caught:
        asked.result()
    assert case.get("reason", case["status"].get("reason")) == caught.value.reason
    assert 1 == len(request_ids)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case["name"])
def test_a_fault_is_a_denial_for_who_prefers_that(service: Service, case: dict[str, Any]) -> None:
    """With `on_error="deny"` every case is a denial that carries the error."""
    connection = service.connection(on_error="deny")
    asked = service.threads.submit(connection.check_many, [Check(*QUESTION), Check(*QUESTION)])
    for _ in range(case["attempts"]):
        service.fail(BATCH, case["status"])

    assert [(False, case["error"])] * 2 == [(bool(d), type(d.error).__name__) for d in asked.result()]


def test_a_fault_that_passes_is_not_seen(service: Service) -> None:
    """After UNAVAILABLE the next answer counts."""
    asked = service.threads.submit(service.connection().check, *QUESTION)
    service.fail(CHECK, {"code": "UNAVAILABLE", "reason": "DRAINING", "retry_seconds": 0.001})
    service.answer(CHECK, access_pb2.CheckAccessResponse(decision=plain_answer()))

    assert asked.result()


@pytest.mark.parametrize(
    ("positions", "error"),
    [([], True), ([0], True), ([0, 1, 2], True), ([1, 0], True), ([0, 1], False)],
    ids=["empty", "too short", "too long", "swapped", "as asked"],
)
def test_a_batch_has_the_shape_of_its_question(service: Service, positions: list[int], *, error: bool) -> None:
    """Results that are not those of the items, in order, decide nothing."""
    asked = service.threads.submit(service.connection().check_many, [Check(*QUESTION), Check(*QUESTION)])
    results = [access_pb2.CheckResult(correlation_id=str(p), decision=plain_answer()) for p in positions]
    service.answer(BATCH, access_pb2.BatchCheckAccessResponse(results=results))

    assert (gatebook_client.MalformedAnswerError if error else type(None)) is type(asked.exception())


def test_entries_come_page_by_page(service: Service) -> None:
    """All pages are read, and the last has no token."""
    asked = service.threads.submit(lambda: [entry.index for entry in service.connection().entries(purpose="security")])
    method = AUDIT.methods_by_name["ListEntries"]
    record = audit_pb2.EntryRecord
    first = service.answer(method, audit_pb2.ListEntriesResponse(entries=[record(index=4)], next_page_token=PAGE))
    second = service.answer(method, audit_pb2.ListEntriesResponse(entries=[record(index=3)]))

    assert [4, 3] == asked.result()
    assert [("security", ""), ("security", PAGE)] == [(r.filter.purpose, r.page_token) for r in (first, second)]


def stream_all(service: Service, checks: list[Check], **terms: Any) -> futures.Future[list[tuple[Check, Decision]]]:  # noqa: ANN401  # the arguments of stream
    """Starts to read a stream to its end, in a thread."""
    return service.threads.submit(lambda: list(service.connection().stream(checks, **terms)))


def test_a_stream_gives_each_check_its_own_answer(service: Service) -> None:
    """Answers are matched by id, and no more checks are open than may be."""
    checks = [Check(f"subject-{number}", "read", "mci.prompts") for number in range(10)]
    asked = stream_all(service, checks, in_flight=3)
    _, call = service.channel.take_stream_stream(STREAM)
    answered = 0
    while answered < len(checks):
        request = call.take_request()
        assert 1 <= len(request.items) <= 3
        for item in reversed(request.items):
            effect = "EFFECT_ALLOW" if int(item.access.subject.id[-1]) % 2 == 0 else "EFFECT_DENY"
            decision = plain_answer({"effect": effect})
            result = access_pb2.CheckResult(correlation_id=item.correlation_id, decision=decision)
            call.send_response(access_pb2.StreamCheckAccessResponse(results=[result]))
            answered += 1
    call.requests_closed()
    call.terminate((), grpc.StatusCode.OK, "")

    assert {check.subject: int(str(check.subject)[-1]) % 2 == 0 for check in checks} == {
        check.subject: decision.allowed for check, decision in asked.result()
    }


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda call: call.terminate((), grpc.StatusCode.OK, ""), gatebook_client.MalformedAnswerError),
        (lambda call: call.terminate((), grpc.StatusCode.UNAVAILABLE, ""), gatebook_client.UnavailableError),
        (
            lambda call: call.send_response(
                access_pb2.StreamCheckAccessResponse(results=[access_pb2.CheckResult(correlation_id="9")])
            ),
            gatebook_client.MalformedAnswerError,
        ),
        (lambda _call: None, gatebook_client.DeadlineError),
    ],
    ids=["ends early", "fails", "answers what was not asked", "never answers"],
)
def test_a_stream_that_breaks_raises(service: Service, end: Callable[[Any], None], error: type[Exception]) -> None:
    """Whatever breaks the stream raises; no check without an answer goes unnoticed."""
    asked = stream_all(service, [Check(*QUESTION)], timeout_seconds=0.2)
    _, call = service.channel.take_stream_stream(STREAM)
    call.take_request()
    end(call)

    with pytest.raises(error):
        asked.result()


def test_an_error_of_the_source_reaches_the_caller(service: Service) -> None:
    """What the caller's iterable raises is raised as it is, on the caller's thread."""

    def source() -> Iterator[Check]:
        yield Check(*QUESTION)
        raise LookupError("no further check")

    asked = service.threads.submit(lambda: list(service.connection().stream(source(), in_flight=1)))
    _, call = service.channel.take_stream_stream(STREAM)
    item = call.take_request().items[0]
    result = access_pb2.CheckResult(correlation_id=item.correlation_id, decision=plain_answer())
    call.send_response(access_pb2.StreamCheckAccessResponse(results=[result]))
    call.requests_closed()
    call.terminate((), grpc.StatusCode.OK, "")

    with pytest.raises(LookupError):
        asked.result()


def test_a_stream_leaves_no_thread_behind(service: Service) -> None:
    """A caller that stops reading a stream ends its watch."""
    stream = service.connection().stream([Check(*QUESTION)] * 10, in_flight=2)
    first = service.threads.submit(next, stream)
    _, call = service.channel.take_stream_stream(STREAM)
    item = call.take_request().items[0]
    result = access_pb2.CheckResult(correlation_id=item.correlation_id, decision=plain_answer())
    call.send_response(access_pb2.StreamCheckAccessResponse(results=[result]))
    first.result()
    stream.close()

    assert [] == [thread for thread in threading.enumerate() if thread.name == "gatebook-stream-watch"]


def test_a_closed_connection_says_so() -> None:
    """After the block every call raises, and does not hang."""
    with gatebook_client.connect_blocking("127.0.0.1:1") as gatebook:
        pass

    with pytest.raises(gatebook_client.ConnectionClosedError):
        gatebook.check(*QUESTION)
    with pytest.raises(gatebook_client.ConnectionClosedError):
        list(gatebook.stream([Check(*QUESTION)]))


def test_nobody_listening_is_an_error() -> None:
    """A port without a service raises within the deadline."""
    with gatebook_client.connect_blocking("127.0.0.1:1", retries=QUICK) as gatebook:
        with pytest.raises(gatebook_client.UnavailableError):
            gatebook.check(*QUESTION)
        with pytest.raises(gatebook_client.UnavailableError):
            list(gatebook.stream([Check(*QUESTION)]))


def test_a_stream_that_never_ends_is_left(service: Service) -> None:
    """When every check is answered, a service that keeps the stream open holds nobody."""
    asked = stream_all(service, [Check(*QUESTION)], timeout_seconds=0.2)
    _, call = service.channel.take_stream_stream(STREAM)
    item = call.take_request().items[0]
    result = access_pb2.CheckResult(correlation_id=item.correlation_id, decision=plain_answer())
    call.send_response(access_pb2.StreamCheckAccessResponse(results=[result]))
    call.requests_closed()

    assert [True] == [decision.allowed for _, decision in asked.result()]
