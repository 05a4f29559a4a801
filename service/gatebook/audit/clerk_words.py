"""What a book and its clerk say to each other, each message encoded by itself.

Owns the messages and how errors travel in them: what was raised there is raised here, of the same kind.
"""

from __future__ import annotations

import contextlib
import os
import socket
from multiprocessing.connection import Connection
from typing import TypeAlias

import msgspec

from gatebook.audit.tiling import Tiling
from gatebook.errors import BookCorruptError, BookUnavailableError, GatebookError


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first order: whose clerk it is, and how many entries are published."""

    data: str
    origin: str
    published_size: int
    first_index: int = 0
    """Where the book begins."""


class Cover(msgspec.Struct, frozen=True, tag=True):
    """The order to index all entries before a size, which are published. There is one answer or several."""

    size: int
    first_index: int = 0
    """What is before this is pruned and goes out of the index."""


class Told(msgspec.Struct, frozen=True):
    """An error on its way."""

    message: str
    code: int = 0
    """The number of an `OSError`; 0 is another error."""
    index: int | None = None
    corrupt: bool = False

    def error(self) -> Exception:
        """Returns the error, to be raised again."""
        if self.code:
            return OSError(self.code, os.strerror(self.code))
        return BookCorruptError(self.message, self.index) if self.corrupt else BookUnavailableError(self.message)


class Begun(msgspec.Struct, frozen=True, tag=True):
    """The first answer: how many entries the index covers, or why none can be kept."""

    indexed_size: int
    trouble: Told | None
    first_index: int = 0


class Tiled(msgspec.Struct, frozen=True, tag=True):
    """The answer to a `Tiling`: the root on disk, durably in tiles; or why not."""

    root: bytes
    trouble: Told | None


class Covered(msgspec.Struct, frozen=True, tag=True):
    """How many entries the index covers now, and why not more if it was to be more and cannot."""

    size: int
    trouble: Told | None
    first_index: int = 0
    """Where it begins."""


class Working(msgspec.Struct, frozen=True, tag=True):
    """It goes on: said about once a second while tiles are written, which may take long."""


Order: TypeAlias = Begin | Tiling | Cover
Answer: TypeAlias = Begun | Tiled | Covered | Working

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def tell(error: OSError | GatebookError) -> Told:
    """Returns an error as it travels."""
    if isinstance(error, OSError):
        return Told(str(error), error.errno or 0)
    if isinstance(error, BookCorruptError):
        return Told(error.message, index=error.index, corrupt=True)
    return Told(error.message)


def hang_up(connection: Connection) -> None:
    """Ends a connection for whoever waits at either end of it; its descriptor stays open."""
    with contextlib.suppress(OSError):
        ended = socket.socket(fileno=connection.fileno())
        try:
            ended.shutdown(socket.SHUT_RDWR)
        finally:
            ended.detach()
