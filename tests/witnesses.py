"""Witnesses for the tests: real processes over HTTP, and books that exist in memory only."""

from __future__ import annotations

import http.client
import os
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import rfc6962
from tests.serving import STOP_SECONDS, LoggedProcess, gatebook

from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.cosignature import WitnessKey, parse_signature_lines
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.note import Note

NAME = "witness.test/w1"


class MemoryBook:
    """A book whose holder does as it pleases: any entries, any history. Roots and proofs are those of RFC 6962."""

    def __init__(self, key: SigningKey, entries: Sequence[bytes]) -> None:
        """Takes the key and the entries."""
        self.key = key
        self.entries = list(entries)

    def note(self, size: int, *, origin: str = "", root: bytes = b"") -> Note:
        """Returns the signed checkpoint of so many entries."""
        checkpoint = Checkpoint(origin or self.key.name, size, root or rfc6962.mth(self.entries[:size]))
        return self.key.sign_note(checkpoint.text())

    def proof(self, old_size: int, size: int) -> list[bytes]:
        """Returns the consistency proof from one size to another."""
        return [] if old_size in {0, size} else rfc6962.proof(old_size, self.entries[:size])

    def submission(self, old_size: int, size: int) -> bytes:
        """Returns the honest body of a request."""
        return submission(old_size, self.proof(old_size, size), self.note(size).format())


def submission(old_size: int | str, proof: Sequence[bytes], note: bytes) -> bytes:
    """Returns the body of a request, whether or not it is true."""
    lines = [f"old {old_size}", *(b64encode(value).decode() for value in proof)]
    return ("\n".join(lines) + "\n\n").encode() + note


class RunningWitness(LoggedProcess):
    """A witness in a process of its own."""

    def __init__(self, data: Path, *arguments: str, program: Sequence[str] = ("-m", "gatebook")) -> None:
        """Starts `gatebook witness serve` on a free port, and waits until it listens."""
        self.data = data
        command = [sys.executable, *program, "witness", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
        super().__init__([*command, "--log", "json", *arguments], os.environ)

    def _is_ready(self, told: Mapping[str, Any]) -> bool:
        if told.get("event") != "witness serving":
            return False
        self.address = str(told["listen"])
        self.key = WitnessKey.parse(str(told["key"]))
        return True

    def ask(self, body: bytes, path: str = "/add-checkpoint", method: str = "POST") -> tuple[int, str, bytes]:
        """Sends a request; returns status, content type and body."""
        connection = http.client.HTTPConnection(self.address, timeout=STOP_SECONDS)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("content-type", ""), answer.read()
        finally:
            connection.close()

    def cosign(self, book: MemoryBook, old_size: int, size: int) -> int:
        """Has a checkpoint cosigned, verifies the cosignature and returns its time."""
        status, _, lines = self.ask(book.submission(old_size, size))
        assert status == 200, lines
        note = book.note(size)
        [line] = parse_signature_lines(lines, note.text)
        return self.key.verify(line, note.text)


def create(data: Path, name: str = NAME) -> WitnessKey:
    """Makes a witness with the command, and returns its key."""
    return WitnessKey.parse(gatebook("witness", "create", "--data", str(data), "--name", name, check=True).stdout)


@contextmanager
def witnessing(data: Path, *arguments: str) -> Iterator[RunningWitness]:
    """Runs a witness within the block; makes it first where there is none."""
    if not data.exists():
        create(data)
    witness = RunningWitness(data, *arguments)
    try:
        yield witness
    finally:
        if witness.process.poll() is None:
            witness.stop()
