"""File systems that fail on demand: a call that fails, and a power cut that loses what was not synced."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gatebook.audit.files import Files

T = TypeVar("T")
SECTOR_BYTES = 512


class FailingFiles(Files):
    """A file system whose n-th call fails, before it has done its work, half-way, or after."""

    def __init__(self, fail_at: int = 0, error: BaseException | None = None, *, done: bool = False) -> None:
        """Takes which call fails (0: none), how, and whether its work is done by then."""
        self.calls = 0
        self.fail_at = fail_at
        self.error = error or OSError(5, "Input/output error")
        self.done = done

    def _call(self, work: Callable[[], T]) -> T:
        self.calls += 1
        if self.calls != self.fail_at:
            return work()
        if self.done:
            work()
        raise self.error

    def open(self, path: Path, flags: int, mode: int = 0o644) -> int:
        """Opens a file, or fails before."""
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error
        return super().open(path, flags, mode)

    def write(self, descriptor: int, content: bytes, offset: int) -> None:
        """Writes, or fails after nothing or after all but the last byte."""
        self.calls += 1
        if self.calls != self.fail_at:
            super().write(descriptor, content, offset)
            return
        if self.done:
            super().write(descriptor, content[:-1], offset)
        raise self.error

    def sync_content(self, descriptor: int) -> None:
        """Syncs content, or fails."""
        self._call(lambda: super(FailingFiles, self).sync_content(descriptor))

    def sync(self, descriptor: int) -> None:
        """Syncs, or fails."""
        self._call(lambda: super(FailingFiles, self).sync(descriptor))

    def rename(self, source: Path, target: Path) -> None:
        """Renames, or fails."""
        self._call(lambda: super(FailingFiles, self).rename(source, target))

    def link(self, source: Path, target: Path) -> None:
        """Gives another name, or fails."""
        self._call(lambda: super(FailingFiles, self).link(source, target))

    def remove(self, path: Path) -> None:
        """Removes, or fails."""
        self._call(lambda: super(FailingFiles, self).remove(path))

    def allocate(self, descriptor: int, size: int) -> None:
        """Finds space, or fails."""
        self._call(lambda: super(FailingFiles, self).allocate(descriptor, size))


class PowerCutError(BaseException):
    """The power is gone: no code of the process does anything after it."""


class VolatileFiles(Files):
    """A disk with a cache: at the n-th call the power goes, and of what is not synced any part may be lost.

    Of unsynced writes any sectors are lost; of unsynced names in a directory the last ones are.
    """

    def __init__(self, cut_at: int = 0, seed: int = 0) -> None:
        """Takes at which call the power goes (0: never), and the seed of what is lost."""
        self.calls = 0
        self.cut_at = cut_at
        self._dice = random.Random(seed)
        self._written: dict[int, list[tuple[int, bytes]]] = {}
        self._paths: dict[int, Path] = {}
        self._names: dict[Path, list[Callable[[], object]]] = {}

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.cut_at:
            self._lose()
            raise PowerCutError

    def _lose(self) -> None:
        for descriptor, writes in self._written.items():
            for offset, before in reversed(writes):
                for at in range(0, len(before), SECTOR_BYTES):
                    if self._dice.random() < 0.5:
                        os.pwrite(descriptor, before[at : at + SECTOR_BYTES], offset + at)
        for undo in self._names.values():
            for step in reversed(undo[self._dice.randrange(len(undo) + 1) :]):
                step()

    def open(self, path: Path, flags: int, mode: int = 0o644) -> int:
        """Opens a file for reading too, so that its old content is known."""
        self._count()
        read_too = flags & ~os.O_ACCMODE | os.O_RDWR
        descriptor = super().open(path, read_too, mode)
        self._written[descriptor] = []
        self._paths[descriptor] = path
        return descriptor

    def write(self, descriptor: int, content: bytes, offset: int) -> None:
        """Writes into the cache; the power may go in the middle."""
        before = os.pread(descriptor, len(content), offset).ljust(len(content), b"\x00")
        self._written.setdefault(descriptor, []).append((offset, before))
        super().write(descriptor, content, offset)
        self._count()

    def sync_content(self, descriptor: int) -> None:
        """Empties the cache of a file."""
        self._count()
        self._written[descriptor] = []

    def sync(self, descriptor: int) -> None:
        """Empties the cache of a file or of the names in a directory."""
        self._count()
        self._written[descriptor] = []
        self._names.pop(Path(f"/proc/self/fd/{descriptor}").readlink(), None)

    def rename(self, source: Path, target: Path) -> None:
        """Renames in the cache."""
        self._count()
        before = target.read_bytes() if target.exists() else None
        super().rename(source, target)

        def undo() -> None:
            if target.exists():
                target.rename(source)
            if before is not None:
                target.write_bytes(before)

        self._names.setdefault(target.parent.resolve(), []).append(undo)

    def link(self, source: Path, target: Path) -> None:
        """Gives another name in the cache."""
        self._count()
        super().link(source, target)
        self._names.setdefault(target.parent.resolve(), []).append(lambda: target.unlink(missing_ok=True))

    def remove(self, path: Path) -> None:
        """Removes in the cache."""
        self._count()
        before = path.read_bytes()
        super().remove(path)
        self._names.setdefault(path.parent.resolve(), []).append(lambda: path.write_bytes(before))
