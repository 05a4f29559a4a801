"""Receipts: where in the book an answer stands, at the level that the caller asked for.

Rules:

1. a receipt is of an entry that is durably in the book;
2. what the caller asked for is in it, or there is an error in place of the answer: never an answer without
   the proof that was asked for;
3. nobody waits longer than a limit, nor beyond the deadline of the call. The error says where the entry stands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gatebook.audit.entry import nanoseconds, to_timestamp
from gatebook.audit.proving import Prover
from gatebook.audit.recorder import Written
from gatebook.audit.signing_elsewhere import BookKey
from gatebook.authorize import Answer
from gatebook.config import Limits
from gatebook.errors import (
    GatebookError,
    InvalidRequestError,
    ReceiptPendingError,
    SignerAwayError,
    SignerUnavailableError,
)
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.receipt import Receipt
from gatebook.v1 import types_pb2

SENDING_SECONDS = 0.1
"""How long before the deadline of a call it is told what did not come, so that it still hears it."""
SIGNING = ThreadPoolExecutor(4, thread_name_prefix="signing")
"""Threads that wait for another program to sign; none is started where the key is here."""
BASIC = frozenset({types_pb2.RECEIPT_LEVEL_UNSPECIFIED, types_pb2.RECEIPT_LEVEL_BASIC})
_PROVED = frozenset({types_pb2.RECEIPT_LEVEL_PROOF, types_pb2.RECEIPT_LEVEL_WITNESSED})


class Receipts:
    """Writes receipts for entries that are durably in the book."""

    def __init__(self, key: BookKey, prover: Prover, limits: Limits) -> None:
        """Takes the book's key, what proves entries, and the limits."""
        self.origin = key.name
        self._key = key
        self._prover = prover
        self._limits = limits

    def require(self, level: int) -> None:
        """Requires a level that can be given here. To be called before anything is decided.

        Raises:
            InvalidRequestError: it is unknown, or waits for witnesses that nobody asks.
        """
        if level in BASIC:
            return
        if level not in types_pb2.ReceiptLevel.values():
            raise InvalidRequestError("receipt_level", f"`{level}` is no level that this server knows")
        if level == types_pb2.RECEIPT_LEVEL_WITNESSED and not self._prover.asks_witnesses:
            raise InvalidRequestError("receipt_level", "this server asks no witnesses: ask for RECEIPT_LEVEL_PROOF")

    def basic(self, written: Written) -> types_pb2.Receipt:
        """Returns where the entry stands."""
        return basic_receipt(self.origin, written)

    async def one(self, answer: Answer, level: int, until: float | None) -> types_pb2.Receipt | None:
        """Returns the receipt of one answer, as `beyond_basic` does; None stands for a basic one.

        Raises:
            ReceiptError: there is none; the decision is not told.
        """
        if level in BASIC:
            return None
        [receipt] = await self.beyond_basic([answer], level, until)
        if isinstance(receipt, GatebookError):
            raise receipt
        return receipt

    async def beyond_basic(
        self, answers: Sequence[Answer], level: int, until: float | None
    ) -> list[types_pb2.Receipt | GatebookError]:
        """Returns receipts of a higher level, or in place of each why there is none.

        Args:
            answers: What is in the book, in any order.
            level: What is asked for; see `require`.
            until: When the deadline of the call passes, by the monotonic clock.
        """
        wait_seconds = self._limits.receipt_seconds
        if until is not None:
            wait_seconds = min(wait_seconds, until - SENDING_SECONDS - time.monotonic())
        receipts = [unsigned_receipt(self.origin, answer.written) for answer in answers]
        try:
            await self._sign(receipts, wait_seconds)
        except SignerAwayError as err:
            return [self._unsigned(answer, err.message) for answer in answers]
        except TimeoutError:
            return [self._unsigned(answer, "the signer has too much to do") for answer in answers]
        if level not in _PROVED:
            return list(receipts)
        witnessed = level == types_pb2.RECEIPT_LEVEL_WITNESSED
        try:
            indexes = [answer.written.index for answer in answers]
            proofs = await self._prover.prove(indexes, wait_seconds, witnessed=witnessed)
        except TimeoutError:
            return [self._pending(answer, wait_seconds, witnessed=witnessed) for answer in answers]
        for receipt, proof in zip(receipts, proofs, strict=True):
            receipt.proof.hashes.extend(proof.hashes)
            receipt.proof.checkpoint = proof.checkpoint.decode()
        return list(receipts)

    async def _sign(self, receipts: Sequence[types_pb2.Receipt], wait_seconds: float) -> None:
        """Signs receipts, or has them signed away from the event loop where somebody else does it."""
        texts = [receipt_text(receipt) for receipt in receipts]
        if isinstance(self._key, SigningKey):
            signatures = [self._key.sign(text) for text in texts]
        else:
            async with asyncio.timeout(wait_seconds):
                signatures = await asyncio.get_running_loop().run_in_executor(SIGNING, self._key.sign_all, texts)
        for receipt, signature in zip(receipts, signatures, strict=True):
            receipt.signature = signature

    def _unsigned(self, answer: Answer, cause: str) -> SignerUnavailableError:
        message = f"the decision is entry {answer.written.index} of the book, and nobody signs its receipt: {cause}"
        return SignerUnavailableError(message, **self._place(answer))

    def _pending(self, answer: Answer, wait_seconds: float, *, witnessed: bool) -> ReceiptPendingError:
        what = "cosigned by enough witnesses" if witnessed else "published"
        message = (
            f"the decision is entry {answer.written.index} of the book, which was not {what} within "
            f"{max(0.0, wait_seconds):.1f} s: prove it later with GetInclusionProof"
        )
        return ReceiptPendingError(message, **self._place(answer))

    def _place(self, answer: Answer) -> dict[str, str]:
        written = answer.written
        return {
            "origin": self.origin,
            "index": str(written.index),
            "leaf_hash": written.leaf_hash.hex(),
            "decision_id": answer.decision_id,
        }


def basic_receipt(origin: str, written: Written) -> types_pb2.Receipt:
    """Returns where an entry stands."""
    return types_pb2.Receipt(
        origin=origin,
        index=written.index,
        leaf_hash=written.leaf_hash,
        entry_time=to_timestamp(written.entry_time),
    )


def unsigned_receipt(origin: str, written: Written) -> types_pb2.Receipt:
    """Returns also the entry's exact bytes, and as yet no signature."""
    receipt = basic_receipt(origin, written)
    receipt.entry_bytes = written.entry_bytes
    return receipt


def receipt_text(receipt: types_pb2.Receipt) -> bytes:
    """Returns the text whose signature convicts a book that later lacks the entry."""
    return Receipt(receipt.origin, receipt.index, receipt.leaf_hash, nanoseconds(receipt.entry_time)).text()
