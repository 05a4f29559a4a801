"""Turns tallies and state into metrics, when somebody asks for them.

Owns the names and labels of every metric, and is the one module that imports `prometheus_client`. Rules:

1. no work is done for a metric before a scrape, except that tallies count (`gatebook.tally`);
2. a label is one of few values that the service or its policies name; never a caller, subject or
   resource, nor anything else that a request brought;
3. a scrape runs in a thread of its own, and only reads.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gatebook import __version__
from gatebook.door.admission import Admission
from gatebook.door.meter import Meter
from gatebook.door.tls_files import TlsFiles
from gatebook.log import lines_dropped
from gatebook.service import Service
from gatebook.tally import Distribution
from gatebook.values import Effect, Reason

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUG = "INTERNAL"
TOLD_AT_ONCE = (Reason.ALLOWED, Reason.EVALUATION_ERROR)
"""Reasons that are told from zero on: of a series that begins with its first event Prometheus sees no increase."""
Samples = Iterable[tuple[Sequence[str], float]]


class Metrics:
    """Everything that a scrape of one process tells."""

    def __init__(
        self,
        service: Service,
        admission: Admission,
        meter: Meter,
        lag: Distribution,
        tls: TlsFiles | None,
        data: Path,
    ) -> None:
        """Takes what is told of: the service, its door, how late the event loop is, and what TLS shows."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Calls(admission, meter, lag))
        self._registry.register(_Decisions(service))
        self._registry.register(_Book(service, data))
        self._registry.register(_Process(tls))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> bytes:
        """Returns the metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class _Calls(Collector):
    """Rate, errors and duration of calls, and what is under way."""

    def __init__(self, admission: Admission, meter: Meter, lag: Distribution) -> None:
        self._admission = admission
        self._meter = meter
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        admission, meter = self._admission, self._meter
        yield counter(
            "gatebook_calls",
            "Calls that ended, by operation, gRPC status code and kind of caller",
            ("operation", "code", "caller_kind"),
            dict(meter.calls).items(),
        )
        bugs = sum(count for (_, code, _), count in dict(meter.calls).items() if code == BUG)
        yield counter("gatebook_bugs", "Calls that met a bug of ours; the log has the traceback", (), [((), bugs)])
        yield counter(
            "gatebook_refused_calls",
            "Calls that ended with an error, by operation and reason",
            ("operation", "reason"),
            dict(meter.refusals).items(),
        )
        durations = [((operation,), seconds) for operation, seconds in dict(meter.seconds).items()]
        yield histogram("gatebook_call_seconds", "How long calls took", durations, ("operation",))
        yield gauge("gatebook_calls_in_flight", "Calls under way", admission.calls_in_flight)
        yield gauge("gatebook_streams_open", "Streams that are open", admission.streams_in_flight)
        yield gauge("gatebook_checks_in_flight", "Checks accepted and not yet answered", admission.items_in_flight)
        yield gauge("gatebook_bytes_in_flight", "Bytes of those checks", admission.bytes_in_flight)
        yield gauge("gatebook_callers", "Callers whose quota is counted singly", len(admission.shares))
        yield gauge("gatebook_draining", "1 once the server is stopping", admission.draining.is_set())
        yield histogram("gatebook_event_loop_lag_seconds", "How late the event loop is", [((), self._lag)])


class _Decisions(Collector):
    """What was decided, and by which revisions."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        recorder, state = self._service.recorder, self._service.revisions.state
        decided = {(name, reason): 0 for name in state.policy_sets for reason in TOLD_AT_ONCE} | recorder.decided
        yield counter(
            "gatebook_decisions",
            "Decisions in the book since the start, by policy set, effect and reason",
            ("policy_set", "effect", "reason"),
            (((name, effect_of(reason), reason.name), count) for (name, reason), count in decided.items()),
        )
        yield histogram(
            "gatebook_decisions_together", "Decisions that one call or message asked for", [((), recorder.together)]
        )
        newest = {a.policy_set: a for a in reversed(state.activations)}
        directory = newest.pop("", None)
        yield gauges(
            "gatebook_revision_number",
            "Number of the active revision of a policy set",
            ("policy_set",),
            (((name,), a.revision.number) for name, a in newest.items()),
        )
        yield gauges(
            "gatebook_revision_activated_timestamp_seconds",
            "When the active revision of a policy set was activated",
            ("policy_set",),
            (((name,), a.create_time.timestamp()) for name, a in newest.items()),
        )
        yield gauges(
            "gatebook_ceilings_exceeded",
            "Datasets and actions whose audience exceeds their ceiling, so that who is not proved within is denied",
            ("policy_set",),
            (((name,), len(it.not_proved)) for name, it in state.snapshots.items() if it.governed),
        )
        if directory is not None and state.directory is not None:
            activated = directory.create_time.timestamp()
            yield gauge("gatebook_directory_number", "Number of the active directory", directory.revision.number)
            yield gauge("gatebook_directory_activated_timestamp_seconds", "When it was activated", activated)
            yield gauge("gatebook_directory_subjects", "Subjects that it knows", len(state.directory.subjects))


class _Book(Collector):
    """How the book grows, and how far it is durable, published and indexed."""

    def __init__(self, service: Service, data: Path) -> None:
        self._service = service
        self._data = data

    def collect(self) -> Iterator[Metric]:
        service, book, wal = self._service, self._service.book, self._service.book.wal
        signed = book.signed
        yield gauge("gatebook_book_writable", "1 while the book can be written and published", service.healthy)
        yield gauge("gatebook_book_entries", "Entries that are durable", book.size)
        yield gauge("gatebook_published_entries", "Entries under the newest checkpoint", signed.checkpoint.size)
        signed_time = signed.time_ns / 1e9
        yield gauge("gatebook_checkpoint_timestamp_seconds", "When the newest checkpoint was signed", signed_time)
        yield gauge("gatebook_indexed_entries", "Entries that the index covers", service.reader.indexed_size)
        begun = service.reader.clerks_begun
        yield counter("gatebook_clerks_begun", "Clerks that have begun, the first included", (), [((), begun)])
        yield gauge(
            "gatebook_book_first_entry", "The first entry that is kept: what is before is pruned", book.first_index
        )
        watch = service.keeping.watch
        if watch.missing is not None:
            yield gauge("gatebook_people_without_key", "People whose key is gone without an erasure", watch.missing)
        if (collector := service.reader.collector) is not None:
            witnessed = 0 if collector.witnessed is None else collector.witnessed.checkpoint.size
            yield gauge("gatebook_witnessed_entries", "Entries under the newest witnessed checkpoint", witnessed)
            behind = collector.seconds_behind(time.time_ns())
            yield gauge("gatebook_witnessed_behind_seconds", "For how long the newest is not witnessed", behind)
            yield gauge("gatebook_witnesses_away", "Witnesses that did not cosign when asked", collector.away)
            yield gauge("gatebook_witnesses_ahead", "Witnesses that saw more of this book", len(collector.ahead))
        yield gauge("gatebook_wal_bytes", "Space that the write-ahead log takes", wal.size_bytes)
        free = disk_free_bytes(self._data)
        if free is not None:
            yield gauge("gatebook_data_free_bytes", "Free space where the data directory is", free)
        waiting = service.writer.waiting_entries
        yield gauge("gatebook_writer_waiting_entries", "Entries handed in and not yet durable", waiting)
        waits = [((), service.recorder.wait_seconds)]
        yield histogram("gatebook_commit_wait_seconds", "How long a call waited until its entries were durable", waits)
        yield histogram("gatebook_fsync_seconds", "How long the sync of a group took", [((), wal.sync_seconds)])
        yield histogram("gatebook_group_entries", "Entries that shared one sync", [((), wal.group_entries)])
        yield histogram("gatebook_group_bytes", "Bytes that shared one sync", [((), wal.group_bytes)])


class _Process(Collector):
    """Which build runs, until when its certificate counts, and whether its log keeps up."""

    def __init__(self, tls: TlsFiles | None) -> None:
        self._tls = tls

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "gatebook_build", "Which build runs", {"version": __version__, "python": platform.python_version()}
        )
        if self._tls is not None:
            expires = self._tls.current.expires_time.timestamp()
            yield gauge("gatebook_certificate_expiry_timestamp_seconds", "When the TLS certificate expires", expires)
        dropped = [((), float(lines_dropped()))]
        yield counter("gatebook_log_lines_dropped", "Lines of the log that could not be written", (), dropped)


def effect_of(reason: Reason) -> str:
    """Returns the name of the effect that a reason goes with: only one of them allows."""
    return (Effect.ALLOW if reason is Reason.ALLOWED else Effect.DENY).name


def disk_free_bytes(path: Path) -> int | None:
    """Returns the space that is free for this process, or None where it cannot be told."""
    try:
        told = os.statvfs(path)
    except OSError:
        return None
    return told.f_bavail * told.f_frsize


def counter(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    """Returns a counter; Prometheus adds `_total` to its name."""
    family = CounterMetricFamily(name, told, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family


def gauges(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    """Returns a gauge with labels."""
    family = GaugeMetricFamily(name, told, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def gauge(name: str, told: str, value: float) -> Metric:
    """Returns a gauge without labels."""
    return gauges(name, told, (), [((), value)])


def histogram(
    name: str, told: str, distributions: Iterable[tuple[Sequence[str], Distribution]], labels: Sequence[str] = ()
) -> Metric:
    """Returns a histogram."""
    family = HistogramMetricFamily(name, told, labels=labels)
    for values, distribution in distributions:
        bounds = [*map(floatToGoString, distribution.bounds), "+Inf"]
        family.add_metric(values, list(zip(bounds, distribution.cumulative(), strict=True)), distribution.total)
    return family
