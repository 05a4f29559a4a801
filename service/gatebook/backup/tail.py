"""The end of a book that is being written: the newest checkpoint and all that was acknowledged after it.

Owns how both are had from outside the writing process, without asking it and without hindering it:

1. read the newest checkpoint, copy the segments of the write-ahead log, read the checkpoint again. If it is the
   same, no segment that it does not cover was let go of in between, so the copy is whole from there on;
2. segments are copied backwards, the last page first. Groups are written forwards and one after the other, so
   whoever sees a group also sees those before it: what is torn in the copy can only be the last group;
3. what was copied is replayed with the checks of a start. A group that was acknowledged before is in it.

Where the writer was faster, it is tried again.
"""

from __future__ import annotations

import mmap
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from gatebook.audit.checkpoints import Checkpoints, Signed
from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.audit.opening import Layout
from gatebook.audit.recovery import Replay, copy_tail, segment_paths
from gatebook.audit.tile_folder import TileFolder
from gatebook.errors import BookCorruptError, BookRefusedError, BookUnavailableError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.proof import open_checkpoint

ATTEMPTS_MAX = 30
_PAUSE_SECONDS = 0.1
_PAGE = mmap.PAGESIZE
_LIMITS = BookLimits(segment_bytes=2 * _PAGE)
"""The segment of a copy has no space to spare: the first start makes a new one."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a copied book ends."""

    signed: Signed
    size: int
    root: bytes
    segment: Path
    """The segment that holds what lies between the checkpoint and `size`."""


def take_tail(source: Layout, key: VerifierKey, target: Path, scratch: Path, files: Files) -> Tail:
    """Copies what is acknowledged and not published into the folder `target`; `scratch` is a folder for working in.

    Raises:
        BookCorruptError: something that was durable is not what was written.
        BookRefusedError: the data directory is not one of this key.
        BookUnavailableError: the writer was faster each time.
        OSError: it could not be copied.
    """
    failure: BookCorruptError | None = None
    for _ in range(ATTEMPTS_MAX):
        signed = newest_checkpoint(source, key)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        try:
            _copy_segments(source.wal, scratch)
            if newest_checkpoint(source, key) == signed:
                return _replayed(source, signed, target, scratch, files)
        except FileNotFoundError:
            failure = None  # a segment went while it was copied
        except BookCorruptError as err:
            failure = err  # rot, or the writer was faster: rot stays
        time.sleep(_PAUSE_SECONDS)
    if failure is not None:
        raise failure
    raise BookUnavailableError("the book is published faster than its end can be copied: try again")


def newest_checkpoint(source: Layout, key: VerifierKey) -> Signed:
    """Returns the newest checkpoint, which this key signed.

    Raises:
        BookRefusedError: there is none of this key.
    """
    stored = Checkpoints(source.checkpoints).newest()
    try:
        return Signed(open_checkpoint(stored.note, key), stored.note, stored.time_ns)
    except VerificationError as err:
        raise BookRefusedError(f"the checkpoint in `{source.checkpoints}` is not one of this book: {err}") from err


def _replayed(source: Layout, signed: Signed, target: Path, scratch: Path, files: Files) -> Tail:
    checkpoint, tiles = signed.checkpoint, TileFolder(source.book)
    replay = Replay(scratch, checkpoint, lambda at: tiles.frontier(at, checkpoint.size))
    segment = copy_tail(replay, target, checkpoint, files, _LIMITS)
    return Tail(signed, replay.frontier.size, replay.frontier.root(), segment)


def _copy_segments(source: Path, target: Path) -> None:
    for path in reversed(segment_paths(source)):
        with path.open("rb") as original, (target / path.name).open("wb") as copy:
            size = os.fstat(original.fileno()).st_size
            copy.truncate(size)
            if size:
                _copy_backwards(original.fileno(), copy.fileno(), size)


def _copy_backwards(source: int, target: int, size: int) -> None:
    """Copies the pages of a file, the last one first, and leaves out those of zeros."""
    zeros = bytes(_PAGE)
    with mmap.mmap(source, size, access=mmap.ACCESS_READ) as content:
        for offset in range((size - 1) // _PAGE * _PAGE, -1, -_PAGE):
            page = content[offset : offset + _PAGE]
            if page != zeros[: len(page)]:
                os.pwrite(target, page, offset)
