"""Traces: a collector that speaks OTLP gets a span of each call, in the trace that the book names too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue
from types import SimpleNamespace

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.serving import POLICIES, RunningServer, serving

from gatebook.door.trace import read_trace
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

SECONDS = 30
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STRANGER = "mallory-the-stranger"


class Collector(TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.requests: Queue[otlp.ExportTraceServiceRequest] = Queue()
        self.spans: list[Span] = []
        self.names: set[str] = set()

    def Export(  # noqa: N802  # gRPC names it
        self, request: otlp.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> otlp.ExportTraceServiceResponse:
        """Takes spans."""
        del context
        self.requests.put(request)
        return otlp.ExportTraceServiceResponse()

    def wait_for(self, operation: str, trace_id: bytes = b"") -> SimpleNamespace:
        """Waits for the span of a call, and returns it with its children."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = [s for s in self.spans if s.name == operation and trace_id in (b"", s.trace_id)]
            if found:
                children = {s.name: s for s in self.spans if s.parent_span_id == found[0].span_id}
                return SimpleNamespace(span=found[0], children=children)
            self._take(deadline - time.monotonic())
        raise AssertionError(f"no span of {operation}: {[s.name for s in self.spans]}")

    def _take(self, seconds: float) -> None:
        try:
            request = self.requests.get(timeout=seconds)
        except Empty:
            return
        for resource in request.resource_spans:
            told = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.names.add(told["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector on loopback, which the standard variables name."""
    servicer = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated without types
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield servicer
    server.stop(None)


@pytest.fixture
def server(collector: Collector, tmp_path: Path) -> Iterator[RunningServer]:
    """A server that tells it."""
    del collector
    with serving(tmp_path / "data", [POLICIES / "basic"], "--traces") as running:
        yield running


def check(server: RunningServer, *traceparent: str, policy_set: str = "") -> None:
    """Asks once, within a trace."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(id=STRANGER),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )
    request = pb.CheckAccessRequest(access=access, policy_set=policy_set)
    with server.channel() as channel:
        metadata = tuple(("traceparent", value) for value in traceparent)
        AccessServiceStub(channel).CheckAccess(request, timeout=SECONDS, metadata=metadata)


def trace_ids(server: RunningServer) -> set[bytes]:
    """Returns the trace ids of the decisions in the book."""
    with server.channel() as channel:
        request = audit_service_pb2.ListEntriesRequest(page_size=100)
        request.filter.kind = entry_pb2.ENTRY_KIND_DECISION
        entries = AuditServiceStub(channel).ListEntries(request, timeout=SECONDS).entries
    return {entry_pb2.AuditEntry.FromString(record.entry_bytes).decision.trace_id for record in entries}


def test_a_call_continues_the_trace_that_it_came_with(server: RunningServer, collector: Collector) -> None:
    """The span of a call is a child of its caller's, has the steps within, and the entry has the same trace id."""
    check(server, SAMPLED)
    found = collector.wait_for("CheckAccess")
    assert (TRACE, PARENT) == (found.span.trace_id.hex(), found.span.parent_span_id.hex())
    assert Span.SPAN_KIND_SERVER == found.span.kind
    assert {bytes.fromhex(TRACE)} == trace_ids(server)
    told = {a.key: a.value.string_value for a in found.span.attributes}
    assert ("CheckAccess", "OK", "local") == (
        told["rpc.method"],
        told["rpc.response.status_code"],
        told["gatebook.caller_kind"],
    )
    assert "NO_MATCHING_RULE" == told["gatebook.decision_reason"]
    steps = [found.children[name] for name in ("decide", "commit", "answer")]
    edges = [time for step in steps for time in (step.start_time_unix_nano, step.end_time_unix_nano)]
    assert sorted(edges) == edges
    assert found.span.start_time_unix_nano <= edges[0]
    assert edges[-1] <= found.span.end_time_unix_nano
    assert {"gatebook"} == collector.names


def test_a_call_without_a_trace_begins_one(server: RunningServer, collector: Collector) -> None:
    """A call that came with no trace, or a malformed one, begins a trace, which its entry names."""
    check(server)
    check(server, SAMPLED.upper())
    ids = trace_ids(server)
    assert 2 == len(ids)
    for trace_id in ids:
        assert b"" == collector.wait_for("CheckAccess", trace_id).span.parent_span_id


def test_a_refused_call_has_its_reason(server: RunningServer, collector: Collector) -> None:
    """A call that is refused is told with the reason, and it is no fault of the server."""
    with pytest.raises(grpc.RpcError):
        check(server, SAMPLED, policy_set="absent")
    span = collector.wait_for("CheckAccess").span
    told = {a.key: a.value.string_value for a in span.attributes}
    assert ("NOT_FOUND", "POLICY_SET_NOT_FOUND") == (told["rpc.response.status_code"], told["gatebook.reason"])
    assert 0 == span.status.code


def test_what_the_caller_does_not_sample_is_not_told(server: RunningServer, collector: Collector) -> None:
    """A caller that samples nothing is heeded; the entry has its trace id all the same."""
    check(server, NOT_SAMPLED)
    check(server)
    collector.wait_for("CheckAccess")
    assert 0 == server.stop()
    while not collector.requests.empty():
        collector._take(0)
    assert TRACE not in {span.trace_id.hex() for span in collector.spans}


def test_spans_name_nobody(server: RunningServer, collector: Collector) -> None:
    """No span holds a subject or a resource."""
    check(server, SAMPLED)
    found = collector.wait_for("CheckAccess")
    text = str(found)
    assert [] == [word for word in (STRANGER, "report:weekly") if word in text]


def test_a_collector_that_is_gone_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a collector calls are answered, and the server stops in order."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with serving(tmp_path / "data", [POLICIES / "basic"], "--traces") as running:
        check(running)
        assert 0 == running.stop()


def test_without_traces_only_the_trace_of_the_caller_is_kept(tmp_path: Path) -> None:
    """Without `--traces` an entry has the trace id that its call came with, or none."""
    with serving(tmp_path / "data", [POLICIES / "basic"]) as running:
        check(running, SAMPLED)
        check(running)
        assert {bytes.fromhex(TRACE), b""} == trace_ids(running)


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01x",
    ],
)
def test_malformed_headers_say_nothing(header: str) -> None:
    """What W3C Trace Context does not allow is no trace."""
    assert b"" == read_trace(header).trace_id == read_trace(header).parent_id
