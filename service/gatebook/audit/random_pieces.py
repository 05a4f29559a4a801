"""Random bytes of one length, drawn from the system many at a time.

Owns the drawing of nonces, salts and ids, of which each entry needs some, and each draw by itself is a
system call.
"""

from __future__ import annotations

import os
import struct
from collections import deque

PIECES_PER_DRAW = 512


class RandomPieces:
    """Hands out random bytes of one length, drawn from the system many at a time.

    No piece is handed out twice: taking one is a single step, and a forked child starts empty.
    """

    def __init__(self, length: int) -> None:
        """Takes the length of a piece in bytes."""
        self._drawn_bytes = length * PIECES_PER_DRAW
        self._split = struct.Struct(f"{length}s" * PIECES_PER_DRAW).unpack
        self._pieces: deque[bytes] = deque()
        os.register_at_fork(after_in_child=self._pieces.clear)

    def draw(self) -> bytes:
        """Returns a fresh piece."""
        while True:
            try:
                return self._pieces.popleft()
            except IndexError:
                self._pieces.extend(self._split(os.urandom(self._drawn_bytes)))
