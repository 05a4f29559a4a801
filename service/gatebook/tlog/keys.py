"""Ed25519 keys of signed notes (C2SP signed-note v1.0.0, signature type 0x01).

With `cosignature` the one module of `tlog` that needs `cryptography`. A verifier key is public and short enough
to be read over the telephone: `<name>+<8 hex digits of key id>+<base64(0x01 || public key)>`. A signing key
has the same form behind `PRIVATE+KEY+`, with the private key's 32 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gatebook.errors import VerificationError
from gatebook.tlog import base64
from gatebook.tlog.note import Note, Signature, key_id, parse_note, require_key_name

_ED25519 = b"\x01"
_KEY_BYTES = 32
PRIVATE = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name it signs under, which is the origin of its book."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The first four bytes of the hash of name and key."""
        return key_id(self.name, _ED25519 + self.public_key)

    def __str__(self) -> str:
        """Returns the key in C2SP form."""
        return f"{self.name}+{self.key_id.hex()}+{base64.encode(_ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Returns the key in a C2SP verifier key.

        Raises:
            VerificationError: it is malformed, of another type, or its key id is wrong.
        """
        name, stated_id, public_key = parse_key(text.strip(), "verifier key", _ED25519)
        key = cls(name, public_key)
        if key.key_id.hex() != stated_id:
            raise VerificationError(f"the key id of verifier key `{name}` does not belong to its key")
        return key

    def verify(self, signature: bytes, message: bytes) -> None:
        """Checks one bare Ed25519 signature.

        Raises:
            VerificationError: it is not this key's signature of the message.
        """
        verify_ed25519(self.name, self.public_key, signature, message)

    def open_note(self, note: bytes) -> Note:
        """Returns a note that this key has signed. Signatures of unknown keys are ignored.

        Raises:
            VerificationError: the note is malformed, a signature of this key fails, or there is none.
        """
        parsed = parse_note(note)
        mine = [each for each in parsed.signatures if (each.name, each.key_id) == (self.name, self.key_id)]
        if not mine:
            raise VerificationError(f"the note is not signed by `{self.name}`")
        for each in mine:
            self.verify(each.value, parsed.text.encode())
        return parsed


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """A private key with the name it signs under. Its bytes never appear in a message or a repr."""

    name: str
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        """Returns a new key.

        Raises:
            VerificationError: no key may have this name.
        """
        return cls(require_key_name(name), Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Returns the key in the form that `serialize` wrote.

        Raises:
            VerificationError: it is malformed, or its key id is wrong.
        """
        if not text.startswith(PRIVATE):
            raise VerificationError(f"a signing key begins with `{PRIVATE}`")
        name, stated_id, seed = parse_key(text.strip().removeprefix(PRIVATE), "signing key", _ED25519)
        key = cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        if key.verifier.key_id.hex() != stated_id:
            raise VerificationError(f"the key id of signing key `{name}` does not belong to its key")
        return key

    def serialize(self) -> str:
        """Returns the key in the form of a key file: secret."""
        private = base64.encode(_ED25519 + self._private.private_bytes_raw())
        return f"{PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{private}\n"

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Returns a bare Ed25519 signature."""
        return self._private.sign(message)

    def sign_note(self, text: str) -> Note:
        """Returns a note with this text, signed."""
        signature = Signature(self.name, self.verifier.key_id, self.sign(text.encode()))
        return Note(text, (signature,))


def verify_ed25519(name: str, public_key: bytes, signature: bytes, message: bytes) -> None:
    """Checks one bare Ed25519 signature of whoever has this name.

    Raises:
        VerificationError: it is not this key's signature of the message.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as err:
        raise VerificationError(f"a signature is not that of `{name}`") from err


def parse_key(text: str, what: str, type_: bytes) -> tuple[str, str, bytes]:
    """Returns name, stated key id and key bytes of a key of one type, which `what` names in errors.

    Raises:
        VerificationError: it is malformed, or of another type.
    """
    name, plus, rest = text.partition("+")
    stated_id, plus_again, encoded = rest.partition("+")
    if not plus or not plus_again:
        raise VerificationError(f"a {what} has the form `<name>+<key id>+<key>`")
    key = base64.decode(encoded, f"the key in the {what}")
    if key[:1] != type_ or len(key) != 1 + _KEY_BYTES:
        raise VerificationError(f"the {what} `{name}` is not of type Ed25519 (0x{type_.hex()})")
    return require_key_name(name), stated_id, key[1:]
