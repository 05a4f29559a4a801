"""Parquet files of exported rows.

Owns the one use of DuckDB in the service, which writes and reads Parquet and comes with the extra `parquet`. Rows go
in as lines of JSON in memory, whose columns have the types that `exported` names: nothing but the Parquet file
touches a disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from gatebook.audit.exported import BLOBS, TIMES
from gatebook.errors import BookUnavailableError, VerificationError

ROWS_READ = 4_096
MEMORY = "1GB"
_json = msgspec.json.Encoder()


class Parquet:
    """Writes files of rows with certain columns."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        """Takes the columns with their types.

        Raises:
            BookUnavailableError: DuckDB is not installed.
        """
        self._duckdb = _duckdb()
        self._connection = _connection(self._duckdb)
        self._columns = dict(columns)
        self._descriptor = os.memfd_create("gatebook-rows")

    def __enter__(self) -> Self:
        """Is open within the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of all rows."""
        self._connection.close()
        os.close(self._descriptor)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows to the next file."""
        lines = memoryview(_json.encode_lines(rows))
        while lines:
            lines = lines[os.write(self._descriptor, lines) :]

    def write(self, path: Path) -> None:
        """Writes what was added since the last file, which is something.

        Raises:
            BookUnavailableError: it cannot be written.
        """
        chosen = ", ".join(_out(name) for name in self._columns)
        typed = ", ".join(f"'{name}': '{_type_on_the_way(name, kind)}'" for name, kind in self._columns.items())
        lines = f"read_json('/proc/self/fd/{self._descriptor}', format = 'newline_delimited', columns = {{{typed}}})"
        copy = f"COPY (SELECT {chosen} FROM {lines}) TO '{_quoted(path)}' (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608  # names of our own
        try:
            self._connection.execute(copy)
        except self._duckdb.Error as err:
            raise BookUnavailableError(f"cannot write `{path}`: {err}") from err
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """Yields the rows of a file, many at a time, in the order in which they are there.

    Raises:
        VerificationError: it is no Parquet file with these columns.
    """
    duckdb = _duckdb()
    connection = _connection(duckdb)
    try:
        chosen = ", ".join(f'epoch_us("{n}")' if n in TIMES else f'"{n}"' for n in columns)
        with path.open("rb"):
            pass  # so that what cannot be read is told as such
        connection.execute(f"SELECT {chosen} FROM read_parquet($1, hive_partitioning = false)", [_escaped(path)])  # noqa: S608  # as above
        while rows := connection.fetchmany(ROWS_READ):
            yield rows
    except duckdb.Error as err:
        raise VerificationError(f"`{path.name}` is no file of this export: {err}") from err
    finally:
        connection.close()


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _duckdb() -> Any:  # noqa: ANN401  # a module that may not be there
    try:
        return import_module("duckdb")
    except ImportError as err:
        message = "Parquet needs DuckDB, which is not installed: run `pip install 'gatebook[parquet]'`"
        raise BookUnavailableError(message) from err


def _connection(duckdb: Any) -> Any:  # noqa: ANN401  # as above
    settings = {"memory_limit": MEMORY, "threads": "2", "autoinstall_known_extensions": "false"}
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _type_on_the_way(name: str, kind: str) -> str:
    return "BIGINT" if name in TIMES else "VARCHAR" if name in BLOBS else kind


def _out(name: str) -> str:
    if name in TIMES:
        return f'make_timestamptz("{name}") AS "{name}"'
    return f'from_base64("{name}") AS "{name}"' if name in BLOBS else f'"{name}"'


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("'", "''")


def _escaped(path: Path) -> str:
    """Returns a path that names one file, whatever it has in it that stands for other files."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in str(path.absolute()))
