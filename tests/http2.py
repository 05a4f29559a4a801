"""HTTP/2 by hand, for callers who do not keep to it (RFC 9113; RFC 7541 for headers).

Owns frames and one raw connection. Nothing here is asked for by a well-behaved client.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 4
Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Builds a frame (RFC 9113 s4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(headers: Sequence[Header]) -> bytes:
    """Encodes headers without index and without Huffman code (RFC 7541 s6.2.2)."""
    return b"".join(b"\x00" + text(name) + text(value) for name, value in headers)


def text(value: bytes) -> bytes:
    """Encodes a string (RFC 7541 s5.2) with its length (s5.1)."""
    length = len(value)
    if length < 127:
        return bytes([length]) + value
    rest, encoded = length - 127, bytearray([127])
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes([*encoded, rest]) + value


def request(method: str, *more: Header) -> bytes:
    """Returns the headers of a gRPC call, encoded."""
    return literal(
        (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method.encode()),
            (b":authority", b"gate"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *more,
        )
    )


def message(payload: bytes, *, length: int | None = None, compressed: bool = False) -> bytes:
    """Returns a gRPC message, which may lie about its length."""
    return struct.pack(">BI", compressed, len(payload) if length is None else length) + payload


class Raw:
    """A connection that sends what it is told to."""

    def __init__(self, port: int, settings: bytes = b"", *, greet: bool = True) -> None:
        """Connects, and greets as a client does."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._rest = b""
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send_briefly(self, data: bytes, seconds: float) -> bool:
        """Sends bytes; returns whether the connection took them all in time."""
        self._socket.settimeout(seconds)
        return self.send(data)

    def send(self, data: bytes) -> bool:
        """Sends bytes; returns whether the connection still took them."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def frames(self, seconds: float) -> Iterator[tuple[int, int, int, bytes]]:
        """Yields kind, flags, stream and payload of what comes, until the connection ends or the time is over."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            while len(self._rest) >= 9 and len(self._rest) >= (size := 9 + int.from_bytes(self._rest[:3], "big")):
                kind, flags, stream = struct.unpack(">BBI", self._rest[3:9])
                yield kind, flags, stream, self._rest[9:size]
                self._rest = self._rest[size:]
            self._socket.settimeout(left)
            try:
                came = self._socket.recv(65_536)
            except OSError:
                return
            if not came:
                return
            self._rest += came

    def ended(self, seconds: float) -> bool:
        """Tells whether the server closes the connection within the time."""
        until = time.monotonic() + seconds
        for _ in self.frames(seconds):
            pass
        return time.monotonic() < until

    def ends(self, seconds: float, count: int) -> set[int]:
        """Returns the streams that the server ended, once there are so many or the time is over."""
        found: set[int] = set()
        for kind, flags, stream, _ in self.frames(seconds):
            if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
                found.add(stream)
            if kind == GOAWAY or len(found) >= count:
                break
        return found

    def close(self) -> None:
        """Closes the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def __enter__(self) -> Self:
        """Gives itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self.close()
