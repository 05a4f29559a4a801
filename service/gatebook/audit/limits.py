"""The limits of a book."""

from __future__ import annotations

import msgspec

MIB = 1 << 20


class BookLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one book may hold, keep waiting and tolerate."""

    segment_bytes: int = 16 * MIB
    """One segment of the write-ahead log. The space of the next one is there before it is needed."""
    group_entries_max: int = 4_096
    """Entries in one group, which one sync makes durable."""
    group_bytes_max: int = 4 * MIB
    waiting_entries_max: int = 40_000
    """Entries handed to the writer and not yet durable; more are refused as overload."""
    waiting_bytes_max: int = 128 * MIB
    unpublished_bytes_max: int = 1_024 * MIB
    """The write-ahead log, when publishing cannot keep up; beyond it writing stops."""
    read_entries_max: int = 65_536
    """Entries returned by one read."""
    clock_tolerance_seconds: float = 10.0
    """How far the clock may be behind the last checkpoint at start."""
