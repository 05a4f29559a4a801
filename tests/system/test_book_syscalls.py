"""The kernel fails, or the process is killed, at each file call of a book's life; and the disk is really full.

Needs strace, and root for a small file system. SQLite's own calls are among those that fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.books import ORIGIN, check_log, publisher

import gatebook
from gatebook.audit.book import Book
from gatebook.audit.limits import BookLimits
from gatebook.errors import BookUnavailableError
from gatebook.tlog.merkle import leaf_hash

PROGRAM = Path(__file__).with_name("book_life.py")
CALLS = ("pwrite64", "fsync", "fdatasync", "rename", "unlink", "fallocate", "mkdir")
LIMITS = BookLimits(segment_bytes=8_192, group_entries_max=64, group_bytes_max=4_000)
BY_ITSELF = {0, 3, 74}
KILLED = 137


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: these tests start hundreds of processes."""
    memory = Path("/dev/shm")  # noqa: S108 - only to choose the file system; the folder's name is random
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def strace(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the life of a book under strace."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(gatebook.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = ["strace", "-f", "-qq", "-o", str(data.with_suffix(".trace")), *options]
    return subprocess.run(
        [*command, sys.executable, str(PROGRAM), str(data)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def require_nothing_lost(data: Path, said: str) -> None:
    """Restarts the book, and checks that all that was acknowledged is there and everything verifies."""
    acknowledged = {int(index): leaf for index, leaf in re.findall(r"^(\d+) ([0-9a-f]{64})$", said, re.MULTILINE)}
    book = Book.open(data, origin=ORIGIN, limits=LIMITS)
    entries = book.read(0, book.size)
    assert acknowledged == {index: leaf_hash(entries[index]).hex() for index in acknowledged}
    book.append_group([b"one more"])
    signed = publisher(book).publish_now().checkpoint.size
    book.close()
    check_log(data, [*entries, b"one more"], signed)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=SIGKILL"])
def test_each_call_fails_in_turn(folder: Path, call: str, fault: str) -> None:
    """Whichever call fails, the process answers nothing false, ends as it should, and starts again."""
    dry = strace(folder / "dry", "-e", f"trace={call}")
    assert 0 == dry.returncode
    count = (folder / "dry.trace").read_text("utf-8").count(f"{call}(")
    assert count
    for at in range(1, count + 1):
        data = folder / f"{at}"
        injected = ("-e", f"inject={call}:{fault}:when={at}")
        if fault == "signal=SIGKILL":
            done, ends = strace(data, "-e", f"trace={call}", *injected), {KILLED, -9}
        else:
            # Faster, but would let a signal pass.
            done, ends = strace(data, "--seccomp-bpf", "-e", f"trace={call}", *injected), BY_ITSELF
            assert "(INJECTED)" in data.with_suffix(".trace").read_text("utf-8")
        assert done.returncode in ends, f"{call} {at}: {done.stderr}"
        require_nothing_lost(data, done.stdout)
        shutil.rmtree(data)


def test_a_disk_that_is_really_full(folder: Path) -> None:
    """On a file system of 400 KiB the book stops before it writes what does not fit, and goes on with space."""
    mount = folder / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(mount)], check=True)
    try:
        ballast = mount / "ballast"
        ballast.write_bytes(bytes(100_000))
        book = Book.open(mount / "data", origin=ORIGIN, limits=LIMITS)
        publish = publisher(book)
        entries: list[bytes] = []
        with pytest.raises(BookUnavailableError):
            fill(book, entries)
        assert entries == book.read(0, book.size)
        assert not book.failure
        ballast.unlink()
        publish.publish_now()
        book.append_group([b"after"])
        signed = publish.publish_now().checkpoint.size
        book.close()
        check_log(mount / "data", [*entries, b"after"], signed)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def fill(book: Book, entries: list[bytes]) -> None:
    """Appends and publishes until there is no space."""
    publish = publisher(book)
    for number in range(1_000):
        group = [b"%d" % (number * 40 + at) * 10 for at in range(40)]
        book.append_group(group)
        entries += group
        if number % 3 == 0:
            publish.publish_now()
