"""The lock that keeps a book to one writer.

It is two: on a file, which older versions know and which a copy of hard links shares; and on the folder itself, which
nobody takes away as a "stale lock file". Whoever gets past it would clear the log of the writer that is at work.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gatebook.errors import BookRefusedError


class DirectoryLock:
    """Holds a data directory until it is released, or the process ends in whatever way."""

    def __init__(self, path: Path) -> None:
        """Takes the lock, whose file lies in the folder that it holds.

        Raises:
            BookRefusedError: another process holds it.
        """
        self._descriptors: list[int] = []
        try:
            self._take(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._take(path, os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except BaseException:
            self.release()
            raise

    def _take(self, path: Path, descriptor: int) -> None:
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise BookRefusedError(f"another process has `{path.parent}` open: stop it first") from err

    def release(self) -> None:
        """Lets others in."""
        while self._descriptors:
            os.close(self._descriptors.pop())
