"""Receipts as a book gives them out, for tests that have no server."""

from __future__ import annotations

from gatebook.audit.signing_elsewhere import BookKey
from gatebook.tlog.receipt import Receipt


def sign_receipt(key: BookKey, index: int, leaf_hash: bytes, time_ns: int, entry: bytes = b"") -> Receipt:
    """Returns a signed receipt for an entry that is durable at an index.

    The signature convicts a book that later lacks the entry. Whoever calls this has waited for the
    commit point: a receipt for anything less would convict an honest book.
    """
    receipt = Receipt(key.name, index, leaf_hash, time_ns, entry)
    return Receipt(key.name, index, leaf_hash, time_ns, entry, key.sign(receipt.text()))
