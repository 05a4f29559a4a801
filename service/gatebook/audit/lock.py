"""The lock that keeps a book to one writer."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gatebook.errors import BookRefusedError


class DirectoryLock:
    """Holds a data directory until it is released, or the process ends in whatever way."""

    def __init__(self, path: Path) -> None:
        """Takes the lock.

        Raises:
            BookRefusedError: another process holds it.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            os.close(self._descriptor)
            raise BookRefusedError(f"another process has `{path.parent}` open: stop it first") from err

    def release(self) -> None:
        """Lets others in."""
        os.close(self._descriptor)
