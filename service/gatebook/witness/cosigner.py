"""The witness itself: checks a submission against what it remembers, remembers it, and cosigns.

Owns the order that C2SP tlog-witness asks for, in one transaction at a time: check, persist, and only then sign. A
process that is killed in between has cosigned nothing; the book is told the new size with 409 and asks again.
What it cosigned since its start it knows by itself: a database that is put back beneath it is no memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from gatebook.audit.lock import DirectoryLock
from gatebook.errors import BookUnavailableError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import EMPTY_ROOT
from gatebook.witness.state import Remembered, State, read_witness_key
from gatebook.witness.submission import (
    SplitViewError,
    Submission,
    parse_submission,
    require_consistent,
    require_trusted,
)

CLOCK_TOLERANCE_SECONDS = 10


class Cosigner:
    """A witness that is open. Any thread may call it; it does one thing at a time."""

    def __init__(self, data: Path, origins: Mapping[str, Sequence[VerifierKey]]) -> None:
        """Opens the witness in a data directory, which no other process may have open, for books with these keys.

        Raises:
            BookRefusedError: the directory holds no whole witness, or another process has it open.
        """
        self._key = read_witness_key(data)
        self._lock = DirectoryLock(data / "witness.lock")
        try:
            self._state = State(data, self._key)
        except BaseException:
            self._lock.release()
            raise
        self._origins = origins
        self._turn = threading.Lock()
        self._newest_seconds = self._state.newest_seconds()
        self._cosigned = {each.checkpoint.origin: each.checkpoint for each in self._state.all()}
        self._keeps = True  # whether the last that was to be kept was kept
        self.key = self._key.public

    def close(self) -> None:
        """Closes the witness."""
        with self._turn:
            self._state.close()
            self._lock.release()

    def add_checkpoint(self, body: bytes, seconds: int) -> str:
        """Returns the signature line for a submission, once what it says is durable; `seconds` is the time of now.

        Raises:
            RefusedError: the witness does not cosign; its class says why.
            BookUnavailableError: what was cosigned could not be kept, or the clock is behind.
        """
        submission = parse_submission(body)
        require_trusted(submission, self._origins)
        with self._turn:
            if seconds < self._newest_seconds - CLOCK_TOLERANCE_SECONDS:
                behind = self._newest_seconds - seconds
                raise BookUnavailableError(f"the clock is {behind} s behind the last cosignature: set it right")
            stated = max(seconds, self._newest_seconds)
            try:
                self._remember(submission, stated)
            except BookUnavailableError:
                self._keeps = False
                raise
            self._keeps = True
            self._cosigned[submission.checkpoint.origin] = submission.checkpoint
            self._newest_seconds = stated
            return self._key.cosign(submission.note.text, stated).line()

    def _remember(self, submission: Submission, seconds: int) -> None:
        checkpoint, note = submission.checkpoint, submission.note.format()
        contradiction: SplitViewError | None = None
        with self._state.transaction():
            last = self._state.last(checkpoint.origin)
            known = Checkpoint(checkpoint.origin, 0, EMPTY_ROOT) if last is None else last.checkpoint
            self._require_not_behind(known)
            try:
                require_consistent(submission, known)
            except SplitViewError as err:
                contradiction = err
                if last is not None:
                    err.is_new = self._state.put_evidence(last, checkpoint, note, seconds)
            else:
                self._state.put(Remembered(checkpoint, note, seconds))
        if contradiction is not None:
            raise contradiction

    def _require_not_behind(self, known: Checkpoint) -> None:
        """Requires that a checkpoint in the database is none that is older, or other, than what was cosigned.

        Raises:
            BookUnavailableError: it is.
        """
        cosigned = self._cosigned.get(known.origin, known)
        if known.size < cosigned.size or (known.size == cosigned.size and known.root != cosigned.root):
            message = f"the database of the witness was put back beneath it, from size {cosigned.size} to {known.size}"
            raise BookUnavailableError(f"{message}: stop it, restore the newest, and start it again")

    def answers(self) -> bool:
        """Tells whether what is remembered can be read, and could be written when that was tried last."""
        try:
            with self._turn, self._state.transaction():
                self._state.newest_seconds()
        except BookUnavailableError:
            return False
        return self._keeps
