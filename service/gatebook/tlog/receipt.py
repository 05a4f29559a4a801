"""Receipts: what the book promises to the caller whose entry it holds.

A receipt states that an entry stands at an index of a book. Where it carries a signature of the
book's key, a book that later lacks the entry is convicted by its own signature.
"""

from __future__ import annotations

from dataclasses import dataclass

from gatebook.errors import VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import HASH_BYTES, leaf_hash


@dataclass(frozen=True, slots=True)
class Receipt:
    """Says where in a book an entry is written. `time_ns` is the entry's time since the epoch."""

    origin: str
    index: int
    leaf_hash: bytes
    time_ns: int
    entry: bytes = b""
    """The entry's exact bytes, or empty where the receipt does not carry them."""
    signature: bytes = b""
    """The signature of the book's key over `text`, or empty where there is none."""

    def text(self) -> bytes:
        """Returns the text that is signed."""
        lines = ("gatebook/receipt/v1", self.origin, str(self.index), self.leaf_hash.hex(), str(self.time_ns))
        return "".join(f"{line}\n" for line in lines).encode()


def verify_receipt(receipt: Receipt, key: VerifierKey) -> None:
    """Checks everything that a receipt says about itself; a proof then ties it to a checkpoint.

    Raises:
        VerificationError: it is of another book, malformed, its entry has another leaf hash, or its
            signature is not the key's.
    """
    index = receipt.index
    if receipt.origin != key.name or "\n" in receipt.origin:
        raise VerificationError(f"the receipt is of `{receipt.origin}`, not of `{key.name}`", index)
    if index < 0 or len(receipt.leaf_hash) != HASH_BYTES:
        raise VerificationError("the receipt has no index or no leaf hash", index)
    if receipt.entry and leaf_hash(receipt.entry) != receipt.leaf_hash:
        raise VerificationError(f"the entry of receipt {index} has another leaf hash", index)
    if receipt.signature:
        try:
            key.verify(receipt.signature, receipt.text())
        except VerificationError as err:
            raise VerificationError(f"the signature of receipt {index} is not that of `{key.name}`", index) from err
