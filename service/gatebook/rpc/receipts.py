"""Receipts: where in the book an answer stands, at the level that the caller asked for."""

from __future__ import annotations

from typing import Protocol

from gatebook.audit.entry import nanoseconds, to_timestamp
from gatebook.audit.recorder import Written
from gatebook.tlog.receipt import Receipt
from gatebook.v1 import types_pb2


class Signs(Protocol):
    """The book's key."""

    def sign(self, text: bytes) -> bytes: ...  # noqa: D102  # an Ed25519 signature of the text


class Receipts:
    """Writes receipts for entries that are durably in the book."""

    def __init__(self, origin: str, key: Signs) -> None:
        """Takes the origin of the book and its key."""
        self.origin = origin
        self._key = key

    def basic(self, written: Written) -> types_pb2.Receipt:
        """Returns where the entry stands."""
        return types_pb2.Receipt(
            origin=self.origin,
            index=written.index,
            leaf_hash=written.leaf_hash,
            entry_time=to_timestamp(written.entry_time),
        )

    def full(self, written: Written) -> types_pb2.Receipt:
        """Returns also the entry's exact bytes, and a signature that convicts a book that later lacks it."""
        receipt = self.basic(written)
        promised = Receipt(self.origin, written.index, written.leaf_hash, nanoseconds(receipt.entry_time))
        receipt.entry_bytes = written.entry_bytes
        receipt.signature = self._key.sign(promised.text())
        return receipt
