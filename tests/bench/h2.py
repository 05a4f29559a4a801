"""A cheap source of gRPC load: unary calls as HTTP/2 frames that were put together beforehand.

Owns one connection in clear text. A general client costs more processor time per call than some servers do, and
shares their cores; this one writes a constant header block and the bytes of the request, and splits what comes back
into frames (RFC 9113; RFC 7541 for the header block; gRPC over HTTP2). It keeps each answer's message and decodes no
headers: an answer without a message is a failed call, since gRPC states an error in trailers alone. Whoever uses it
reads every message afterwards. It is no client for anything else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
FRAME_HEAD_BYTES, MESSAGE_HEAD_BYTES, FRAME_BYTES_MAX = 9, 5, 16_384
WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65_535
STREAM_MAX = 2**31 - 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4

Answered = Callable[[bytes], None]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns one frame (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _kept(name: bytes, value: bytes) -> bytes:
    """A header field that the other side keeps under the next index (RFC 7541 section 6.2.1)."""
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value


def message(body: bytes) -> bytes:
    """Returns a request as gRPC frames it: not compressed, its length, itself. It has to fit one frame."""
    if len(body) > FRAME_BYTES_MAX - MESSAGE_HEAD_BYTES:
        raise ValueError(f"a request of {len(body)} bytes does not fit one frame")
    return b"\x00" + len(body).to_bytes(4, "big") + body


class Connection(asyncio.Protocol):
    """One connection for calls of one method."""

    def __init__(self, path: str, authority: str) -> None:
        """Takes the method's path and the host."""
        first = (
            b"\x83\x86"  # :method POST, :scheme http: indices 3 and 6 of the static table
            + _kept(b":path", path.encode())
            + _kept(b":authority", authority.encode())
            + _kept(b"content-type", b"application/grpc")
            + _kept(b"te", b"trailers")
        )
        # Kept in this order, the four have the indices 65 to 62 from the second request on.
        self._blocks = iter([first])
        self._block = b"\x83\x86\xc1\xc0\xbf\xbe"
        self._stream = -1
        self._window = WINDOW_DEFAULT
        self._streams_max = STREAM_MAX
        self._received = 0
        self._rest = b""
        self._open: dict[int, Answered] = {}
        self._parts: dict[int, bytes] = {}
        self._held: deque[tuple[bytes, Answered]] = deque()
        self._transport: asyncio.Transport | None = None
        self.told = ""
        """What the other side said of a failure."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens HTTP/2, with all the room for answers that there can be."""
        self._transport = transport = cast("asyncio.Transport", transport)  # that of uvloop is none by class
        settings = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + WINDOW_MAX.to_bytes(4, "big")
        more = (WINDOW_MAX - WINDOW_DEFAULT).to_bytes(4, "big")
        transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails what is open."""
        self.told = self.told or f"connection lost: {exc}"
        for answered in list(self._open.values()):
            answered(b"")
        self._open.clear()

    def call(self, framed: bytes, answered: Answered) -> None:
        """Sends a request, made by `message`; `answered` gets the answer's message, or nothing when the call failed."""
        self._held.append((framed, answered))
        self._send_held()

    def _send_held(self) -> None:
        """Sends what waits, as far as the other side takes it (RFC 9113 sections 5.1.2 and 6.9)."""
        while self._held and len(self._held[0][0]) <= self._window and len(self._open) < self._streams_max:
            self._send(*self._held.popleft())

    def _send(self, framed: bytes, answered: Answered) -> None:
        assert self._transport is not None
        self._stream += 2
        if self._stream > STREAM_MAX or self._transport.is_closing():
            raise ConnectionError("the connection takes no more calls")
        self._window -= len(framed)
        self._open[self._stream] = answered
        block = next(self._blocks, self._block)
        self._transport.write(
            frame(HEADERS, END_HEADERS, self._stream, block) + frame(DATA, END_STREAM, self._stream, framed)
        )

    def data_received(self, data: bytes) -> None:
        """Takes what came apart into frames."""
        data = self._rest + data
        start, size = 0, len(data)
        while size - start >= FRAME_HEAD_BYTES:
            length = int.from_bytes(data[start : start + 3], "big")
            end = start + FRAME_HEAD_BYTES + length
            if end > size:
                break
            stream = int.from_bytes(data[start + 5 : start + 9], "big")
            self._take(data[start + 3], data[start + 4], stream, data[start + FRAME_HEAD_BYTES : end])
            start = end
        self._rest = data[start:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._parts[stream] = self._parts.get(stream, b"") + payload
            self._give_room(len(payload))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self._finish(stream)
        elif kind == RST_STREAM:
            self.told = f"stream reset with code {int.from_bytes(payload, 'big')}"
            self._parts.pop(stream, None)
            self._finish(stream)
        elif kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload, "big")
            self._send_held()
        elif kind in (SETTINGS, PING) and not flags & ACK:
            assert self._transport is not None
            self._transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
            if kind == SETTINGS:
                self._take_settings(payload)
        elif kind == GOAWAY:
            self.told = f"connection refused further calls: {payload[4:]!r}"

    def _take_settings(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            if int.from_bytes(payload[start : start + 2], "big") == MAX_CONCURRENT_STREAMS:
                self._streams_max = int.from_bytes(payload[start + 2 : start + 6], "big")

    def _finish(self, stream: int) -> None:
        answered = self._open.pop(stream, None)
        body = self._parts.pop(stream, b"")[MESSAGE_HEAD_BYTES:]
        if answered is not None:
            answered(body)
            self._send_held()

    def _give_room(self, count: int) -> None:
        """Gives back the connection's window, now and then."""
        self._received += count
        if self._received > WINDOW_MAX // 4 and self._transport is not None:
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()


async def connect(target: str, path: str) -> Connection:
    """Opens a connection for calls of one method."""
    host, _, port = target.rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(path, target), host, int(port)
    )
    return connection
