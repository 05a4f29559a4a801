"""Traces for OpenTelemetry: a span for each call, and for its commits, told when the call is over.

Owns the spans, and is the one module that imports OpenTelemetry, which is an extra (`gatebook[otel]`). Rules:

1. nothing is done before a call is over but to note when its commits began and ended; without `--traces`
   not even that;
2. a call that came with a `traceparent` continues that trace; the entry of a decision holds the same trace id;
3. no attribute names a caller, a subject or a resource;
4. spans leave in a thread of their own, from a bounded queue; what does not fit is dropped, and no call waits.

Where spans go, how many are kept and how the service is called is said by the variables `OTEL_...` of the
OpenTelemetry specification, which its own library reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from gatebook import __version__
from gatebook.door.door import Door, Finished

FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that are errors of a server, as the semantic conventions for gRPC say."""
TOLD = ("items", "denied", "decision_id", "decision_reason", "reason", "entries", "transport")
"""What a span says beside operation, code and kind of caller: facts of the call's log line."""
STOP_SECONDS = 5.0
NANOSECONDS = 1_000_000_000


class _Ids(RandomIdGenerator):
    """Makes ids; the trace of a call that came with none was begun when it came."""

    next_trace_id = 0

    def generate_trace_id(self) -> int:
        return self.next_trace_id


class Spans:
    """Observes a door. Used on the event loop only."""

    def __init__(self, provider: TracerProvider, ids: _Ids) -> None:
        """Takes where spans go."""
        self._tracer = provider.get_tracer("gatebook", __version__)
        self._ids = ids

    def observe(self, finished: Finished) -> None:
        """Tells a call."""
        end, end_clock = time.time_ns(), time.perf_counter()

        def at(clock: float) -> int:
            return end - int((end_clock - clock) * NANOSECONDS)

        began = end_clock - finished.seconds
        told = {f"gatebook.{key}": str(finished.told[key]) for key in TOLD if key in finished.told}
        span = self._begin(finished, at(began), told)
        if not span.is_recording():
            return
        within = api.set_span_in_context(span)
        clock = began
        for commit_began, commit_ended in finished.trace.commits:
            self._step("decide", within, at(clock), at(commit_began))
            self._step("commit", within, at(commit_began), at(commit_ended))
            clock = commit_ended
        if finished.trace.commits:
            self._step("answer", within, at(clock), end)
        if finished.code in FAULTS:
            span.set_status(api.StatusCode.ERROR)
        span.end(end)

    def _begin(self, finished: Finished, start: int, told: dict[str, str]) -> api.Span:
        came = finished.trace
        context = Context()
        if came.parent_id:
            flags = api.TraceFlags(api.TraceFlags.SAMPLED if came.sampled else api.TraceFlags.DEFAULT)
            trace_id, span_id = int.from_bytes(came.trace_id), int.from_bytes(came.parent_id)
            parent = api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
            context = api.set_span_in_context(api.NonRecordingSpan(parent), context)
        self._ids.next_trace_id = int.from_bytes(came.trace_id)
        attributes = {
            "rpc.method": finished.operation,
            "rpc.response.status_code": finished.code,
            "gatebook.caller_kind": finished.kind or "none",
            **told,
        }
        return self._tracer.start_span(finished.operation, context, api.SpanKind.SERVER, attributes, start_time=start)

    def _step(self, name: str, within: Context, start: int, end: int) -> None:
        self._tracer.start_span(name, within, start_time=start).end(end)


@contextlib.asynccontextmanager
async def telling_traces(door: Door) -> AsyncIterator[None]:
    """Tells the calls of a door within the block, then sends what is left."""
    ids = _Ids()
    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "gatebook"}))
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    door.traces = True
    door.observers.append(Spans(provider, ids).observe)
    try:
        yield
    finally:
        # A collector that does not answer must not hold up the end of the process.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, STOP_SECONDS)
