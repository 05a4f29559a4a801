"""A real writer under load, to be killed. Run as a program, with a Python path that finds `gatebook`.

Reads lines `<data dir> <seed>` and for each forks a child that opens the book, appends in many
tasks at once through `BookWriter`, and publishes. The child reports each acknowledged entry on a
pipe. At a moment that the seed decides, the child is killed with SIGKILL; then what it acknowledged is
printed as one line of JSON: `[[index, leaf hash in hex], ...]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import struct
import sys
import time
from pathlib import Path

from gatebook.audit.book import Book
from gatebook.audit.limits import BookLimits
from gatebook.audit.publish import Publisher
from gatebook.audit.writer import BookWriter

ORIGIN = "gatebook.test/book"
LIMITS = BookLimits(segment_bytes=32_768, group_entries_max=64, group_bytes_max=16_384)
RECORD = struct.Struct(">Q32s")
SECONDS_MAX = 20.0


async def write(data: Path, seed: int, pipe: int) -> None:
    """Appends until the end of the world."""
    dice = random.Random(seed)
    book = Book.open(data, origin=ORIGIN, limits=LIMITS)
    os.write(pipe, RECORD.pack(2**64 - 1, bytes(32)))
    writer, publisher = BookWriter(book), Publisher(book, interval_seconds=0.002)
    writer.start()
    publisher.start()

    async def load() -> None:
        while True:
            entries = [dice.randbytes(dice.randrange(1, 200)) for _ in range(dice.randrange(1, 12))]
            appended = await writer.submit(entries)
            places = enumerate(appended.leaf_hashes, appended.first_index)
            os.write(pipe, b"".join(RECORD.pack(index, leaf) for index, leaf in places))

    await asyncio.gather(*(load() for _ in range(8)))


def run(data: Path, seed: int) -> list[tuple[int, str]]:
    """Runs one child until its end, and returns what it acknowledged."""
    dice = random.Random(seed)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            asyncio.run(write(data, seed, writer))
        finally:
            os._exit(70)
    os.close(writer)
    # Every fourth dies while it opens the book, the others some milliseconds into the load.
    opening = seed % 4 == 0
    wait_seconds = dice.random() * (0.02 if opening else 0.03)
    report = b""
    end = time.monotonic() + (wait_seconds if opening else SECONDS_MAX)
    while (left := end - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            break
        if not report and not opening:
            end = time.monotonic() + wait_seconds
        report += part
    os.kill(child, signal.SIGKILL)
    while part := os.read(reader, 1 << 16):
        report += part
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise SystemExit(f"the writer ended by itself: {status}")
    whole = len(report) - len(report) % RECORD.size
    return [(index, leaf.hex()) for index, leaf in RECORD.iter_unpack(report[:whole]) if index != 2**64 - 1]


if __name__ == "__main__":
    for line in sys.stdin:
        folder, _, number = line.strip().rpartition(" ")
        sys.stdout.write(json.dumps(run(Path(folder), int(number))) + "\n")
        sys.stdout.flush()
