"""Runs: groups that lie one after the other in one segment, for whoever has only the path of the file.

Owns the way from a run back to its entries. It needs nothing of the process that writes the log: a run names
its file, its place in it and the seed that its groups were written with, and every group is checked as it is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gatebook.audit.segment import HEADER_BYTES, Group, decode_group
from gatebook.errors import BookCorruptError

WINDOW_BYTES = 1 << 20
"""Read at once; doubled where a group is larger."""


class Run(msgspec.Struct, frozen=True):
    """Where groups lie, and the index of the first entry of the first of them."""

    path: str
    first_index: int
    offset: int
    end: int
    seed: bytes


def read_run(run: Run) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Yields the entries of each group, with the index of the first.

    Raises:
        BookCorruptError: one is not what was written.
        OSError: the file cannot be read.
    """
    descriptor = os.open(Path(run.path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        offset, index, window = run.offset, run.first_index, WINDOW_BYTES
        while offset < run.end:
            length = min(window, run.end - offset)
            # As in a segment, groups begin behind a header, whatever is in it.
            content = os.pread(descriptor, HEADER_BYTES + length, offset - HEADER_BYTES)
            at = HEADER_BYTES
            while isinstance(group := decode_group(content, at, index, run.seed), Group):
                yield index, group.entries
                at, index = group.end, group.size_after
            if at > HEADER_BYTES:
                offset, window = offset + at - HEADER_BYTES, WINDOW_BYTES
            elif length < run.end - offset:
                window *= 2
            else:
                message = f"entry {group.index} in the write-ahead log is not what was written"
                raise BookCorruptError(message, group.index)
    finally:
        os.close(descriptor)
