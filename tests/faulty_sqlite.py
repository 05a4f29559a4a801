"""SQLite databases that fail on demand: what was to be written is durable all the same, or is not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import pytest

T = TypeVar("T")
_READS = ("SELECT", "PRAGMA")


class FailingConnection(sqlite3.Connection):
    """A connection whose n-th statement that writes fails, of all connections together."""

    calls: ClassVar[int] = 0
    fail_at: ClassVar[int] = 0
    done: ClassVar[bool] = False
    code: ClassVar[int] = sqlite3.SQLITE_IOERR

    def _call(self, work: Callable[[], T]) -> T:
        FailingConnection.calls += 1
        if FailingConnection.calls != self.fail_at:
            return work()
        if self.done:
            work()
        error = sqlite3.OperationalError("disk I/O error" if self.code == sqlite3.SQLITE_IOERR else "full")
        error.sqlite_errorcode = self.code
        raise error

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401  # as in sqlite3
        """Runs a statement, or fails."""
        if sql.lstrip().startswith(_READS):
            return super().execute(sql, *arguments)
        return self._call(lambda: super(FailingConnection, self).execute(sql, *arguments))

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:  # noqa: ANN401  # as in sqlite3
        """Runs a statement many times, or fails."""
        return self._call(lambda: super(FailingConnection, self).executemany(sql, rows))

    def executescript(self, script: str) -> sqlite3.Cursor:
        """Runs many statements, or fails."""
        return self._call(lambda: super(FailingConnection, self).executescript(script))

    def __exit__(  # type: ignore[override]  # never True here
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Commits, or fails; what is not committed then is undone."""
        if kind is not None or not self.in_transaction:
            return super().__exit__(kind, error, trace)
        try:
            return self._call(lambda: super(FailingConnection, self).__exit__(kind, error, trace))
        finally:
            if self.in_transaction:
                self.rollback()


@contextmanager
def failing_sqlite(fail_at: int = 0, *, done: bool = False, code: int = sqlite3.SQLITE_IOERR) -> Iterator[None]:
    """Has the n-th statement that writes fail within the block (0: none), before or after its work is done."""
    connect = sqlite3.connect

    def connect_failing(database: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401  # as in sqlite3
        return connect(database, factory=FailingConnection, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_failing)
        for name, value in {"calls": 0, "fail_at": fail_at, "done": done, "code": code}.items():
            patch.setattr(FailingConnection, name, value)
        yield


def sqlite_calls() -> int:
    """Returns how many statements wrote since the block began."""
    return FailingConnection.calls
