"""Cosignatures (C2SP tlog-cosignature, Ed25519 type 0x04): what a witness says about a checkpoint.

A cosignature states that, as of its time, the largest consistent tree that the witness has seen of an origin has
this size and root. It stands beside the signature of the book on the same note. Rules:

1. key id = SHA-256(name || 0x0A || 0x04 || public key)[:4], so the key of a witness is never taken for that of a book;
2. the signature is over `cosignature/v1`, `time <POSIX seconds>`, and the whole text of the note, extension lines too;
3. its value is the time, 8 bytes big-endian and below 2^63, and the 64 bytes of Ed25519.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatebook.errors import VerificationError
from gatebook.tlog import base64
from gatebook.tlog.keys import PRIVATE, parse_key, verify_ed25519
from gatebook.tlog.note import Note, Signature, key_id, parse_note, require_key_name

_COSIGNATURE = b"\x04"
_TIME_BYTES = 8
_SIGNATURE_BYTES = 64
TIME_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The public key of a witness, with the name it signs under."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The first four bytes of the hash of name, type and key."""
        return key_id(self.name, _COSIGNATURE + self.public_key)

    def __str__(self) -> str:
        """Returns the key in C2SP form."""
        return f"{self.name}+{self.key_id.hex()}+{base64.encode(_COSIGNATURE + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """Returns the key in a C2SP verifier key of type 0x04.

        Raises:
            VerificationError: it is malformed, of another type, or its key id is wrong.
        """
        name, stated_id, public_key = parse_key(text.strip(), "witness key", _COSIGNATURE)
        key = cls(name, public_key)
        if key.key_id.hex() != stated_id:
            raise VerificationError(f"the key id of witness key `{name}` does not belong to its key")
        return key

    def is_of(self, signature: Signature) -> bool:
        """Tells whether a signature line claims to be of this witness."""
        return (signature.name, signature.key_id) == (self.name, self.key_id)

    def verify(self, signature: Signature, text: str) -> int:
        """Returns the time of a cosignature of the note with this text, in POSIX seconds.

        Raises:
            VerificationError: it is malformed, or not this witness's.
        """
        value = signature.value
        if not self.is_of(signature) or len(value) != _TIME_BYTES + _SIGNATURE_BYTES:
            raise VerificationError(f"a cosignature of `{self.name}` is malformed")
        seconds = int.from_bytes(value[:_TIME_BYTES], "big")
        if seconds > TIME_MAX:
            raise VerificationError(f"the time of a cosignature of `{self.name}` is beyond 2^63")
        verify_ed25519(self.name, self.public_key, value[_TIME_BYTES:], cosigned_text(text, seconds))
        return seconds

    def time_on(self, note: Note) -> int | None:
        """Returns the newest time at which this witness cosigned a note, or None where it did not.

        Raises:
            VerificationError: a line of this witness fails, which rejects the note, as every known key's does.
        """
        times = [self.verify(each, note.text) for each in note.signatures if self.is_of(each)]
        return max(times, default=None)


@dataclass(frozen=True, slots=True, eq=False)
class WitnessSigningKey:
    """The private key of a witness. Its bytes never appear in a message or a repr."""

    name: str
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> WitnessSigningKey:
        """Returns a new key.

        Raises:
            VerificationError: no key may have this name.
        """
        return cls(require_key_name(name), Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: str) -> WitnessSigningKey:
        """Returns the key in the form that `serialize` wrote.

        Raises:
            VerificationError: it is malformed, that of a book, or its key id is wrong.
        """
        if not text.startswith(PRIVATE):
            raise VerificationError(f"a signing key begins with `{PRIVATE}`")
        name, stated_id, seed = parse_key(text.strip().removeprefix(PRIVATE), "witness signing key", _COSIGNATURE)
        key = cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        if key.public.key_id.hex() != stated_id:
            raise VerificationError(f"the key id of witness signing key `{name}` does not belong to its key")
        return key

    def serialize(self) -> str:
        """Returns the key in the form of a key file: secret."""
        private = base64.encode(_COSIGNATURE + self._private.private_bytes_raw())
        return f"{PRIVATE}{self.name}+{self.public.key_id.hex()}+{private}\n"

    @property
    def public(self) -> WitnessKey:
        """The public half."""
        return WitnessKey(self.name, self._private.public_key().public_bytes_raw())

    def cosign(self, text: str, seconds: int) -> Signature:
        """Returns a cosignature of the note with this text. The caller vouches for what it states."""
        signed = self._private.sign(cosigned_text(text, seconds))
        return Signature(self.name, self.public.key_id, seconds.to_bytes(_TIME_BYTES, "big") + signed)


def cosigned_text(text: str, seconds: int) -> bytes:
    """Returns what a witness signs for a note with this text."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def parse_signature_lines(lines: bytes, text: str) -> tuple[Signature, ...]:
    """Returns the signature lines that a witness answered with, for the note with this text; none is checked yet.

    Raises:
        VerificationError: they are no signature lines.
    """
    return parse_note(text.encode() + b"\n" + lines).signatures
