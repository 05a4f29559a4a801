"""The keys of the `hash` mask: one per policy set and purpose, so that joins do not cross purposes.

Owns their derivation and their names. A decision names a key and never carries it; the operator hands a
purpose's key to the enforcers of that purpose, out of band (docs/decisions/0002-mask-keys.md).

A key is HKDF-SHA256 (RFC 5869) of the master secret, 32 bytes, without salt, under the info

    "gatebook/mask-key/v1" || 0x00 || len(policy set) || policy set || len(purpose) || purpose

with lengths as 4 bytes, big-endian, and texts in UTF-8. Its id is `<policy set>/<purpose>/<fingerprint>`,
the fingerprint being the first 8 hexadecimal digits of SHA-256 of the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
MASTER_BYTES_MIN = 32
NO_PURPOSE = "-"
"""Stands in a key id for a request without a purpose."""

_LABEL = b"gatebook/mask-key/v1\x00"


def derive_mask_key(master: bytes, policy_set: str, purpose: str) -> bytes:
    """Returns the 32 bytes that `hash` uses for a purpose of a policy set.

    Raises:
        ValueError: The master secret is shorter than 32 bytes.
    """
    if len(master) < MASTER_BYTES_MIN:
        message = f"master secret of the mask keys has {len(master)} bytes: make it at least {MASTER_BYTES_MIN}"
        raise ValueError(message)
    info = _LABEL + _prefixed(policy_set) + _prefixed(purpose)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master)


def mask_key_id(key: bytes, policy_set: str, purpose: str) -> str:
    """Returns the name of a key, which changes whenever the key does and tells nothing about it."""
    fingerprint = hashlib.sha256(key).hexdigest()[:8]
    return f"{policy_set}/{purpose or NO_PURPOSE}/{fingerprint}"


def mask_key_ids(master: bytes, policy_set: str, purposes: Iterable[str]) -> dict[str, str]:
    """Returns the key id of each purpose, and of no purpose under the empty text.

    A snapshot holds them, so that no request derives a key.
    """
    return {
        purpose: mask_key_id(derive_mask_key(master, policy_set, purpose), policy_set, purpose)
        for purpose in ("", *purposes)
    }


def _prefixed(text: str) -> bytes:
    octets = text.encode()
    return len(octets).to_bytes(4, "big") + octets
