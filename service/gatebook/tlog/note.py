"""Signed notes (C2SP signed-note v1.0.0): a text and the signature lines under it.

Owns the form of a note, not the signatures' truth, which `keys` checks:

1. The text ends in a newline; a blank line and at least one signature line follow.
2. A note is UTF-8 without control characters other than newline.
3. A signature line is `— <key name> <base64(key id || signature)>`.
4. At most 100 signatures and 1,000,000 bytes (the specification asks for at least 16 signatures).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from gatebook.errors import VerificationError
from gatebook.tlog import base64

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
KEY_NAME_BYTES_MAX = 255
KEY_ID_BYTES = 4
_DASH = "\u2014 "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, not yet checked."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Returns the line, with its newline."""
        return f"{_DASH}{self.name} {base64.encode(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note whose form is right. Its text says nothing until a known key's signature is checked."""

    text: str
    signatures: tuple[Signature, ...]

    def format(self) -> bytes:
        """Returns the note as bytes."""
        return (self.text + "\n" + "".join(signature.line() for signature in self.signatures)).encode()


def require_key_name(name: str) -> str:
    """Returns a key name as it is.

    Raises:
        VerificationError: it is empty, too long, or has a space, a control character or a plus.
    """
    if not name or len(name.encode("utf-8", "replace")) > KEY_NAME_BYTES_MAX:
        raise VerificationError(f"a key name has 1 to {KEY_NAME_BYTES_MAX} bytes")
    if any(char == "+" or char.isspace() or not char.isprintable() for char in name):
        raise VerificationError(f"key name `{name!a}` has a space, a plus or a control character")
    return name


def key_id(name: str, type_and_key: bytes) -> bytes:
    """Returns the key id of SHA-256(name || 0x0A || signature type || public key)."""
    return sha256(name.encode() + b"\n" + type_and_key).digest()[:KEY_ID_BYTES]


def parse_note(note: bytes) -> Note:
    """Returns a note in its parts.

    Raises:
        VerificationError: the bytes are not a signed note.
    """
    if len(note) > NOTE_BYTES_MAX:
        raise VerificationError(f"a note has at most {NOTE_BYTES_MAX} bytes")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as err:
        raise VerificationError("the note is not UTF-8") from err
    if any(char < " " and char != "\n" for char in whole):
        raise VerificationError("the note has a control character")
    text, blank, lines = whole.rpartition("\n\n")
    if not blank:
        raise VerificationError("the note has no signatures")
    if not lines.endswith("\n"):
        raise VerificationError("the note does not end in a newline")
    return Note(text + "\n", tuple(_parse_signatures(lines[:-1].split("\n"))))


def _parse_signatures(lines: list[str]) -> Iterable[Signature]:
    if len(lines) > SIGNATURES_MAX:
        raise VerificationError(f"a note has at most {SIGNATURES_MAX} signatures")
    for line in lines:
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise VerificationError("a signature line of the note is malformed")
        blob = base64.decode(encoded, "a signature")
        if len(blob) <= KEY_ID_BYTES:
            raise VerificationError("a signature of the note is too short")
        yield Signature(require_key_name(name), blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:])
