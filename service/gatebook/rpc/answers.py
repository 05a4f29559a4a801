"""Writes the answers to checks, as bytes.

Owns the encoding of `CheckResult`, `Decision` and the basic `Receipt` by hand: what many answers share is
encoded once, by the generated messages, and what is left of each is a few fields. Encodings of messages,
one after the other, are an encoding of all of them together; `encode` says what the parts are.
"""

from __future__ import annotations

import functools
from datetime import datetime

from gatebook.audit.entry import encode_time
from gatebook.audit.wire import SIZES, delimited, dense, head, tag, text
from gatebook.authorize import Answer
from gatebook.generations import Fragments
from gatebook.rpc import encode
from gatebook.tlog.merkle import HASH_BYTES
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.values import Outcome

FRAGMENTS_BYTES_MAX = 16 << 20
"""Encoded outcomes that are remembered, together."""

_RESULTS = tag(pb.BatchCheckAccessResponse, "results")  # that of StreamCheckAccessResponse is the same
_CORRELATION_ID, _RESULT_DECISION, _RESULT_ERROR = (
    tag(pb.CheckResult, name) for name in ("correlation_id", "decision", "error")
)
_DECISION, _EXPLANATION = tag(pb.CheckAccessResponse, "decision"), tag(pb.CheckAccessResponse, "explanation")
_DECISION_ID, _RECEIPT, _ROW_FILTER = (
    tag(types_pb2.Decision, name) for name in ("decision_id", "receipt", "row_filter")
)
_DECIDE_TIME, _EXPIRES_TIME = tag(types_pb2.Decision, "decide_time"), tag(types_pb2.Decision, "expires_time")
_INDEX, _ENTRY_TIME = tag(types_pb2.Receipt, "index"), tag(types_pb2.Receipt, "entry_time")
_LEAF_HASH_HEAD = head(types_pb2.Receipt, "leaf_hash", HASH_BYTES)


def check_response(decision: bytes, explanation: bytes | None = None) -> bytes:
    """Returns a `CheckAccessResponse`."""
    return delimited(_DECISION, decision) + (b"" if explanation is None else delimited(_EXPLANATION, explanation))


def result(correlation_id: str, decision: bytes) -> bytes:
    """Returns one of the `results` of a batch or a message of a stream, with its decision."""
    named = _correlation(correlation_id)
    size = SIZES[len(decision)]
    length = len(named) + len(_RESULT_DECISION) + len(size) + len(decision)
    return b"".join((_RESULTS, SIZES[length], named, _RESULT_DECISION, size, decision))


def failed_result(correlation_id: str, error: bytes) -> bytes:
    """Returns one of the `results`, with a `google.rpc.Status` in place of a decision."""
    return delimited(_RESULTS, text(_CORRELATION_ID, correlation_id) + delimited(_RESULT_ERROR, error))


class Answers:
    """Writes decisions that are durably in the book."""

    def __init__(self, origin: str) -> None:
        """Takes the origin of the book."""
        self._origin = origin
        self._outcome = Fragments(_encode_outcome, FRAGMENTS_BYTES_MAX)
        self._outcome_of_row = Fragments(_encode_outcome_of_row, FRAGMENTS_BYTES_MAX)
        # What the answers before had, since those of a group have it in common: allows and denials of one time.
        self._decide_time: datetime | None = None
        self._times: dict[datetime | None, bytes] = {}
        self._entry_time: datetime | None = None
        self._receipt_head = b""

    def decision(self, answer: Answer, beyond_basic: types_pb2.Receipt | None = None) -> bytes:
        """Returns a `Decision`, with a basic receipt or the one that is given."""
        decision, written = answer.decision, answer.written
        if beyond_basic is not None:
            receipt = beyond_basic.SerializeToString()
        else:
            if written.entry_time is not self._entry_time:
                self._receipt_head = _receipt_head(self._origin, written.entry_time)
                self._entry_time = written.entry_time
            index = _INDEX + dense(written.index) if written.index else b""
            receipt = b"".join((self._receipt_head, index, _LEAF_HASH_HEAD, written.leaf_hash))
        id_ = answer.decision_id.encode()
        if decision.decide_time is not self._decide_time:
            self._decide_time, self._times = decision.decide_time, {}
        times = self._times.get(decision.expires_time)
        if times is None:
            times = self._times[decision.expires_time] = _times(decision.decide_time, decision.expires_time)
        return b"".join(
            (
                _DECISION_ID,
                SIZES[len(id_)],
                id_,
                (self._outcome_of_row if decision.row_given else self._outcome)(decision.outcome),
                _RECEIPT,
                SIZES[len(receipt)],
                receipt,
                times,
            )
        )


def _encode_outcome(outcome: Outcome, *, row_given: bool = False) -> bytes:
    """Returns what was decided, and about which rows."""
    rows = types_pb2.RowFilter(kind=encode.row_filter_kind(outcome, row_given=row_given))
    return encode.outcome(outcome).SerializeToString() + delimited(_ROW_FILTER, rows.SerializeToString())


def _encode_outcome_of_row(outcome: Outcome) -> bytes:
    return _encode_outcome(outcome, row_given=True)


def _times(decide_time: datetime, expires_time: datetime | None) -> bytes:
    """Returns the times of a decision, which are the same for many of a batch."""
    decided = delimited(_DECIDE_TIME, encode_time(decide_time))
    return decided if expires_time is None else decided + delimited(_EXPIRES_TIME, encode_time(expires_time))


def _receipt_head(origin: str, entry_time: datetime) -> bytes:
    return _origin(origin) + delimited(_ENTRY_TIME, encode_time(entry_time))


@functools.lru_cache(maxsize=1_024)
def _correlation(correlation_id: str) -> bytes:
    return text(_CORRELATION_ID, correlation_id)


@functools.lru_cache(maxsize=8)
def _origin(origin: str) -> bytes:
    return types_pb2.Receipt(origin=origin).SerializeToString()
