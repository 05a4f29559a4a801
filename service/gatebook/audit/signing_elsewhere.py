"""A book's key that another program holds, which signs over a Unix socket: this process never has it.

Owns the few words that are exchanged. Each request is a line and so is each answer, which is `ok` with a value or
`error` with a reason; requests may follow each other before the answers come, which come in their order.

1. `key <origin>`: which key signs for a book with this origin? `ok <verifier key>`;
2. `sign <key id> <base64 of a text>`: the key id is the 8 hexadecimal digits in the verifier key. `ok <base64 of the
   bare Ed25519 signature>`. The text is a checkpoint, the text of a receipt or of a backup: the signer may look.

Every signature is verified before anybody sees it, and every answer has a time by which it must be there.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gatebook.errors import BookRefusedError, SignerAwayError, VerificationError
from gatebook.tlog import base64
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.note import Note, Signature

SECONDS_MAX = 2.0
"""How long the answers to some requests may take, together."""
TOGETHER_MAX = 128
"""Requests that are sent before their answers are read, so that neither side waits for the other to read."""
LINE_BYTES_MAX = 4_096
_SIGNER = "signer "


@dataclass(frozen=True, slots=True)
class SignerKey:
    """The key of a book, of which only the public half is here."""

    verifier: VerifierKey
    path: Path
    """The socket of the program that signs."""

    @property
    def name(self) -> str:
        """The origin of the book."""
        return self.verifier.name

    @classmethod
    def parse(cls, text: str) -> SignerKey:
        """Returns the key in the form that `serialize` wrote.

        Raises:
            VerificationError: it is malformed.
        """
        vkey, _, second = text.strip().partition("\n")
        if not second.startswith(_SIGNER) or "\n" in second:
            raise VerificationError("the file holds neither a signing key nor a verifier key and `signer <socket>`")
        return cls(VerifierKey.parse(vkey), Path(second.removeprefix(_SIGNER)))

    @classmethod
    def asked(cls, path: Path, origin: str) -> SignerKey:
        """Returns the key that a signer has for an origin.

        Raises:
            BookRefusedError: it does not answer, or has none.
        """
        try:
            [answer] = _ask(path, [f"key {origin}\n".encode()])
            verifier = VerifierKey.parse(answer)
        except (SignerAwayError, VerificationError) as err:
            raise BookRefusedError(f"no key of `{origin}` from the signer: {err.message}") from err
        if verifier.name != origin:
            raise BookRefusedError(f"the signer answered with the key of `{verifier.name}`, not of `{origin}`")
        key = cls(verifier, path)
        try:
            key.sign(b"gatebook/signer/v1\n")
        except SignerAwayError as err:
            raise BookRefusedError(f"the signer does not sign for `{origin}`: {err.message}") from err
        return key

    def serialize(self) -> str:
        """Returns the key in the form of a key file. Nothing in it is secret."""
        return f"{self.verifier}\n{_SIGNER}{self.path}\n"

    def sign(self, message: bytes) -> bytes:
        """Returns a bare Ed25519 signature.

        Raises:
            SignerAwayError: there is none.
        """
        return self.sign_all([message])[0]

    def sign_all(self, messages: Sequence[bytes]) -> list[bytes]:
        """Returns the signatures of several messages.

        Raises:
            SignerAwayError: there are none, or one is not that of the key.
        """
        key_id = self.verifier.key_id.hex()
        requests = [f"sign {key_id} {base64.encode(message)}\n".encode() for message in messages]
        try:
            signatures = [base64.decode(answer, "a signature") for answer in _ask(self.path, requests)]
            for message, signature in zip(messages, signatures, strict=True):
                self.verifier.verify(signature, message)
        except VerificationError as err:
            raise SignerAwayError(f"the signer `{self.path}` answered wrongly: {err.message}") from err
        return signatures

    def sign_note(self, text: str) -> Note:
        """Returns a note with this text, signed.

        Raises:
            SignerAwayError: it is not signed.
        """
        return Note(text, (Signature(self.name, self.verifier.key_id, self.sign(text.encode())),))


BookKey = SigningKey | SignerKey


def parse_book_key(text: str) -> BookKey:
    """Returns the key in the file of a book, or who holds it.

    Raises:
        VerificationError: it is neither.
    """
    return SigningKey.parse(text) if text.startswith("PRIVATE+KEY+") else SignerKey.parse(text)


def elsewhere(key: BookKey, path: Path) -> SignerKey:
    """Returns the key of a book, asked for at another socket than the one in its file.

    Raises:
        BookRefusedError: the key is in the file.
    """
    if isinstance(key, SigningKey):
        message = f"`{key.name}` has its key in its data directory: rotate it with `gatebook keys rotate --signer`"
        raise BookRefusedError(message)
    return SignerKey(key.verifier, path)


def _ask(path: Path, requests: Sequence[bytes]) -> list[str]:
    """Returns what a signer answers to requests, in their order.

    Raises:
        SignerAwayError: it does not, not in time, or with an error.
    """
    until = time.monotonic() + SECONDS_MAX
    answers: list[str] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS_MAX)
            connection.connect(str(path))
            unread = b""
            for start in range(0, len(requests), TOGETHER_MAX):
                some = requests[start : start + TOGETHER_MAX]
                _require_time(connection, until)
                connection.sendall(b"".join(some))
                while len(answers) < start + len(some):
                    line, newline, rest = unread.partition(b"\n")
                    if newline:
                        answers.append(_value(path, line))
                        unread = rest
                        continue
                    if len(unread) > LINE_BYTES_MAX:
                        raise SignerAwayError(f"the signer `{path}` answered with no line")
                    _require_time(connection, until)
                    if not (part := connection.recv(65_536)):
                        raise SignerAwayError(f"the signer `{path}` broke off")
                    unread += part
    except OSError as err:
        raise SignerAwayError(f"the signer `{path}` does not answer: {err.strerror or 'not in time'}") from err
    return answers


def _require_time(connection: socket.socket, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _value(path: Path, line: bytes) -> str:
    word, _, value = line.decode("utf-8", "replace").partition(" ")
    if word != "ok":
        raise SignerAwayError(f"the signer `{path}` refused: {value[:200]!r}")
    return value
