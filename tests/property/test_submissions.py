"""Whatever is sent to a witness is refused with a status of the specification, or is a checkpoint that continues."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.rfc6962 import mth
from tests.witnesses import MemoryBook, submission

from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import SigningKey
from gatebook.witness.submission import RefusedError, parse_submission, require_consistent, require_trusted

KEY = SigningKey.generate("gatebook.test/book")
BOOK = MemoryBook(KEY, [b"%d" % number for number in range(40)])
ORIGINS = {KEY.name: [KEY.verifier]}
STATUSES = {400, 403, 404, 409, 422}
sizes = st.integers(0, 40)


def status(body: bytes, last: Checkpoint) -> int:
    """Returns what a witness that cosigned `last` answers."""
    try:
        sent = parse_submission(body)
        require_trusted(sent, ORIGINS)
        require_consistent(sent, last)
    except RefusedError as error:
        return error.status
    return 200


def last_of(size: int) -> Checkpoint:
    """Returns the checkpoint of a size."""
    return Checkpoint(KEY.name, size, mth(BOOK.entries[:size]))


@given(known=sizes, old=sizes, new=sizes)
def test_what_continues_is_cosigned_and_nothing_else(known: int, old: int, new: int) -> None:
    """Of honest bodies exactly those from the known size to one that is not smaller are cosigned."""
    body = BOOK.submission(old, new) if old <= new else submission(old, [], BOOK.note(new).format())
    expected = 400 if old > new else 409 if old != known else 200

    assert expected == status(body, last_of(known))


@given(known=sizes, new=sizes, entry=st.integers(0, 39), data=st.data())
def test_no_rewritten_history_is_cosigned(known: int, new: int, entry: int, data: st.DataObject) -> None:
    """A history with one entry changed before the known size is never cosigned, whichever proof comes with it."""
    entries = [*BOOK.entries[:entry], b"changed", *BOOK.entries[entry + 1 :]]
    forged = MemoryBook(KEY, entries)
    hashes = st.sampled_from([*forged.proof(known, max(known, new)), *BOOK.proof(known, max(known, new)), bytes(32)])
    proof = data.draw(st.one_of(st.just(forged.proof(known, max(known, new))), st.lists(hashes, max_size=7)))
    found = status(submission(known, proof, forged.note(new).format()), last_of(known))

    assert found in STATUSES or entry >= min(known, new)


@given(at=st.integers(0, 600), byte=st.integers(0, 255), known=sizes)
def test_a_changed_byte_is_no_fault(at: int, byte: int, known: int) -> None:
    """An honest body with any one byte changed is refused with a known status, or means the same."""
    body = bytearray(BOOK.submission(known, 40))
    body[at % len(body)] = byte

    assert status(bytes(body), last_of(known)) in STATUSES | {200}


@given(body=st.binary(max_size=300))
def test_any_bytes_are_no_fault(body: bytes) -> None:
    """Bytes that are no submission are refused."""
    assert status(body, last_of(3)) in STATUSES
