"""Sealed parts of entries: personal data that opens only while its people's keys exist.

Owns the format of a sealed part (`Sealed` in entry.proto):

1. AES-256-GCM under the key of one person or, for several, under a key derived (HKDF-SHA-256,
   RFC 5869) from all of their keys in the order of their pseudonyms in the part;
2. the associated data names the book, the field and the version of the format, so that a part
   does not open in another book or as another field;
3. nonces are 12 random bytes. They come from one draw for many, which a forked child forgets.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatebook.audit.keyfile import derive_key
from gatebook.audit.people import PSEUDONYM_BYTES, People, Person
from gatebook.audit.random_pieces import RandomPieces
from gatebook.audit.wire import SIZES, head, tag, varint
from gatebook.errors import BookCorruptError
from gatebook.v1 import entry_pb2

FORMAT = "gatebook/sealed/v1"
NONCE_BYTES = 12


_nonces = RandomPieces(NONCE_BYTES)
_FIELD, _CIPHERTEXT = tag(entry_pb2.Sealed, "field"), tag(entry_pb2.Sealed, "ciphertext")
_PSEUDONYM_HEAD = head(entry_pb2.Sealed, "pseudonyms", PSEUDONYM_BYTES)
_NONCE_HEAD = head(entry_pb2.Sealed, "nonce", NONCE_BYTES)


def seal(field: entry_pb2.SealedField.ValueType, origin: str, people: Sequence[Person], plaintext: bytes) -> bytes:
    """Seals personal data under the keys of all these people (at least one, each once).

    Returns an encoded `Sealed`.
    """
    nonce = _nonces.draw()
    before, associated = _constant(origin, field)
    if len(people) == 1:
        person = people[0]
        ciphertext = person.cipher.encrypt(nonce, plaintext, associated)
        pseudonyms = person.pseudonym
    else:
        ciphertext = _cipher(people).encrypt(nonce, plaintext, associated)
        pseudonyms = _PSEUDONYM_HEAD.join([person.pseudonym for person in people])
    return b"".join((before, pseudonyms, _NONCE_HEAD, nonce, _CIPHERTEXT, SIZES[len(ciphertext)], ciphertext))


def open_sealed(sealed: entry_pb2.Sealed, origin: str, people: People) -> bytes | None:
    """Returns what is inside, or None where the key of one of its people no longer exists.

    Raises:
        BookCorruptError: all keys exist and it does not open: it was sealed for another book or
            field, or it is not what was written.
    """
    found = [people.by_pseudonym(pseudonym) for pseudonym in sealed.pseudonyms]
    present = [person for person in found if person is not None]
    if not present or len(present) < len(found):
        return None
    try:
        return _cipher(present).decrypt(sealed.nonce, sealed.ciphertext, _constant(origin, sealed.field)[1])
    except (InvalidTag, ValueError) as err:
        raise BookCorruptError(f"sealed field {sealed.field} does not open under the keys of its people") from err


def _cipher(people: Sequence[Person]) -> AESGCM:
    if len(people) == 1:
        return people[0].cipher
    if not people:
        raise RuntimeError("nothing is sealed for nobody")
    return AESGCM(derive_key(b"".join(person.key for person in people), "sealed/joint/v1"))


@functools.lru_cache(maxsize=64)
def _constant(origin: str, field: int) -> tuple[bytes, bytes]:
    """Returns how a sealed field begins, up to its first pseudonym, and its associated data."""
    return _FIELD + varint(field) + _PSEUDONYM_HEAD, f"{FORMAT}\n{origin}\n{field}".encode()
