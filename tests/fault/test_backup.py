"""Backups of a book that is written as fast as it can be, and backups and restores that are killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from tests import rfc6962
from tests.books import open_book, publisher, some_entries
from tests.serving import POLICIES, gatebook, serving

from gatebook.audit.book import Book
from gatebook.audit.files import Files
from gatebook.audit.hold import require_released
from gatebook.audit.publish import Publisher
from gatebook.backup.contents import open_statement
from gatebook.backup.restore import restore_backup
from gatebook.backup.take import take_backup
from gatebook.errors import BookRefusedError

BACKUPS = 12
DONE, KILLED = 0, -signal.SIGKILL


def no_progress(_name: str) -> Callable[[int, int], None]:
    """Tells nobody."""
    return lambda _done, _total: None


class Writing:
    """A thread that appends groups without end, and a publisher beside it. Segments are small, so that many go."""

    def __init__(self, data: Path) -> None:
        """Begins to write."""
        self.entries: list[bytes] = []
        self.acknowledged = 0
        self.book: Book = open_book(data)
        self._publisher = Publisher(self.book, interval_seconds=0.15)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        """Starts both threads."""
        self._thread.start()
        self._publisher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends both."""
        self._over.set()
        self._thread.join()
        self._publisher.close()
        self.book.close()

    def reach(self, count: int) -> int:
        """Waits until so many entries are acknowledged; returns how many are."""
        while self.acknowledged < count:
            assert self._thread.is_alive()
            threading.Event().wait(0.005)
        return self.acknowledged

    def _write(self) -> None:
        seed = 0
        while not self._over.is_set():
            seed += 1
            group = some_entries(seed, 1 + seed % 20)
            self._over.wait(0.002)  # the roots of ten thousands of entries are computed by a slow oracle
            self.entries += group
            self.book.append_group(group)
            self.acknowledged = len(self.entries)


def test_a_backup_beside_a_busy_writer_is_whole(memory_path: Path) -> None:
    """While segments are begun, published, let go of and used again, none lacks what was acknowledged.

    The root of each is computed anew from the entries that were written.
    """
    with Writing(memory_path / "data") as writing:
        for number in range(BACKUPS):
            before = writing.reach(writing.acknowledged + 300)
            target = memory_path / f"{number}"
            taken = take_backup(memory_path / "data", target, keys=False, progress=no_progress)
            statement = open_statement((target / "backup").read_bytes(), writing.book.key.verifier)

            assert before <= taken.size == statement.size
            assert rfc6962.mth(writing.entries[: taken.size]) == statement.root


def test_what_is_not_yet_published_is_in_a_backup(tmp_path: Path) -> None:
    """Entries that no checkpoint covers yet are copied from the write-ahead log."""
    book = open_book(tmp_path / "data")
    entries = some_entries(1, 40)
    book.append_group(entries[:25])
    publisher(book).publish_now()
    book.append_group(entries[25:])
    taken = take_backup(tmp_path / "data", tmp_path / "b", keys=False, progress=no_progress)
    book.close()

    assert (25, 40, rfc6962.mth(entries)) == (taken.published_size, taken.size, taken.root)


class KillingFiles(Files):
    """A file system at whose n-th call the process is killed."""

    def __init__(self, kill_at: int) -> None:
        """Takes at which call; 0 means none."""
        self.calls = 0
        self._kill_at = kill_at

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def open(self, path: Path, flags: int, mode: int = 0o644) -> int:
        """Opens a file, or dies."""
        self._count()
        return super().open(path, flags, mode)

    def write(self, descriptor: int, content: bytes, offset: int) -> None:
        """Writes, or dies half-way."""
        self._count()
        super().write(descriptor, content, offset)

    def sync(self, descriptor: int) -> None:
        """Syncs, or dies."""
        self._count()
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Renames, or dies."""
        self._count()
        super().rename(source, target)


def killed(work: Callable[[Files], object], kill_at: int) -> int:
    """Does some work in a process that dies at its n-th file call; returns how that ended."""
    child = os.fork()
    if child == 0:
        try:
            work(KillingFiles(kill_at))
            os._exit(DONE)
        finally:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a stopped service."""
    data = tmp_path_factory.mktemp("source") / "data"
    with serving(data, [POLICIES / "basic"]):
        pass
    return data


def test_a_killed_backup_has_no_name(source: Path, memory_path: Path) -> None:
    """At whichever file call a backup is killed, there is no backup of its name, or a whole one."""
    target = memory_path / "b.tar"

    def take(files: Files) -> object:
        return take_backup(source, target, keys=True, progress=no_progress, files=files)

    for at in kills(take):
        target.unlink(missing_ok=True)
        assert KILLED == killed(take, at)
        assert not target.exists() or whole(target, memory_path / f"whole-{at}")
    assert whole(target, memory_path / "restored")


def kills(work: Callable[[Files], object]) -> list[int]:
    """Returns the file calls to be killed at: every fifth of all that the work makes, and each of the last ten."""
    files = KillingFiles(0)
    work(files)
    calls = files.calls
    assert calls > 50
    return sorted({*range(1, calls, 5), *range(calls - 10, calls + 1)})


def whole(backup: Path, data: Path) -> bool:
    """Tells whether a backup restores."""
    return gatebook("restore", str(backup), "--data", str(data)).returncode == 0


def test_a_killed_restore_is_not_served(source: Path, memory_path: Path) -> None:
    """At whichever file call a restore is killed, what it leaves is refused by a start, and by another restore."""
    backup = memory_path / "b"
    take_backup(source, backup, keys=True, progress=no_progress)

    def work(at: int, files: Files) -> object:
        return restore_backup(
            backup, memory_path / f"{at}", vkey=None, remembered=(), progress=no_progress, files=files
        )

    points = kills(partial(work, 0))
    for at in points:
        assert KILLED == killed(partial(work, at), at)
        left = {path.name for path in (memory_path / f"{at}").iterdir()} if (memory_path / f"{at}").exists() else set()
        if left - {"restored.json.new"}:
            with pytest.raises(BookRefusedError):
                require_released(memory_path / f"{at}")
    some = str(memory_path / f"{points[len(points) // 2]}")
    assert 1 == gatebook("serve", "--data", some, "--listen", "127.0.0.1:0").returncode
    assert 2 == gatebook("restore", str(backup), "--data", some).returncode
