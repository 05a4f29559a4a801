"""Where a call stands in a trace: what came in the header `traceparent` (W3C Trace Context s3.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 1


class Trace(msgspec.Struct, frozen=True, gc=False):
    """A place in a trace; empty where a call came with none and nobody traces."""

    trace_id: bytes = b""
    """16 bytes, or none."""
    parent_id: bytes = b""
    """The span that the call belongs to: 8 bytes, or none."""
    sampled: bool = False
    commits: Sequence[tuple[float, float]] = ()
    """When the commits of the call began and ended, by `time.perf_counter`; filled while it is under way."""


NONE = Trace()


def read_trace(header: str) -> Trace:
    """Returns what a header says; one that is malformed says nothing."""
    found = _TRACEPARENT.fullmatch(header) if header else None
    if found is None:
        return NONE
    return Trace(bytes.fromhex(found[1]), bytes.fromhex(found[2]), bool(int(found[3], 16) & _SAMPLED))
