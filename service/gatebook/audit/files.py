"""The file calls on whose success the promises of the book rest.

Each raises `OSError` when it fails. They stand in one class so that a test can make each of them
fail in turn; nothing else in the book writes, syncs, renames or removes.
"""

from __future__ import annotations

import os
from pathlib import Path

_ZEROS = bytes(1 << 20)


class Files:
    """The file system as it is."""

    def open(self, path: Path, flags: int, mode: int = 0o644) -> int:
        """Opens a file and returns its descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def write(self, descriptor: int, content: bytes, offset: int) -> None:
        """Writes all of the content at an offset."""
        written = os.pwrite(descriptor, content, offset)
        while written < len(content):
            written += os.pwrite(descriptor, content[written:], offset + written)

    def sync_content(self, descriptor: int) -> None:
        """Makes the content of a file durable: the commit point of a group."""
        os.fdatasync(descriptor)

    def sync(self, descriptor: int) -> None:
        """Makes a file durable, with its size."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file its final name, in place of what had it before."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Gives a file another name, which nothing may have yet."""
        target.hardlink_to(source)

    def remove(self, path: Path) -> None:
        """Removes a file."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """Makes the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def allocate(self, descriptor: int, size: int) -> None:
        """Finds the space for a file, or fails before anything is written."""
        os.posix_fallocate(descriptor, 0, size)

    def zero_fill(self, descriptor: int, start: int, end: int) -> None:
        """Writes zeros from one offset to another, so that the space is there and need not be found later."""
        for offset in range(start, end, len(_ZEROS)):
            self.write(descriptor, _ZEROS[: end - offset], offset)

    def replace_content(self, path: Path, content: bytes, temporary: Path, mode: int = 0o644) -> None:
        """Puts a file in place whole and synced, or not at all. The caller syncs its directory."""
        descriptor = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            self.write(descriptor, content, 0)
            self.sync(descriptor)
        finally:
            os.close(descriptor)
        self.rename(temporary, path)

    def settle(self, *paths: Path) -> None:
        """Makes files and directories that are there durable, whoever made them.

        What a killed process left may be in memory only; whoever goes on with it calls this first.
        """
        for path in paths:
            if path.exists():
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self.sync(descriptor)
                finally:
                    os.close(descriptor)

    def make_directories(self, path: Path) -> None:
        """Makes a directory and its parents, each name durable."""
        if path.is_dir():
            return
        self.make_directories(path.parent)
        path.mkdir(exist_ok=True)
        self.sync_directory(path.parent)
