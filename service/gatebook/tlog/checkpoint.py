"""Checkpoints (C2SP tlog-checkpoint v1.0.0): the text of a note that states a tree's size and root."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gatebook.errors import VerificationError
from gatebook.tlog import base64

SIZE_MAX = (1 << 63) - 1
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_LINES = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a book: its origin, its size, and the RFC 6962 root over its entries."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Returns the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.encode(self.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Returns the checkpoint in the text of a note. Extension lines are allowed, and ignored.

    Raises:
        VerificationError: the text is not that of a checkpoint.
    """
    lines = text.split("\n")
    if len(lines) <= _LINES or lines[-1] or not all(lines[:-1]):
        raise VerificationError("a checkpoint has three lines: origin, size and root")
    origin, size_text, root_text = lines[:_LINES]
    if _SIZE.fullmatch(size_text) is None or int(size_text) > SIZE_MAX:
        raise VerificationError(f"the size `{size_text[:32]}` of the checkpoint is malformed")
    return Checkpoint(origin, int(size_text), base64.decode_hash(root_text, "the root of the checkpoint"))
