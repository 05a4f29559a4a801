"""Base64 as transparency logs write it: RFC 4648 s4, and each value in exactly one way."""

from __future__ import annotations

import base64
import binascii

from gatebook.errors import VerificationError


def encode(value: bytes) -> str:
    """Returns bytes as base64 text, with padding."""
    return base64.b64encode(value).decode("ascii")


def decode(text: str, what: str) -> bytes:
    """Returns the bytes that a base64 text stands for.

    Raises:
        VerificationError: the text is not the one base64 form of any bytes; `what` names it.
    """
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as err:
        raise VerificationError(f"{what} is not base64") from err
    if encode(value) != text:
        raise VerificationError(f"{what} is not canonical base64")
    return value


def decode_hash(text: str, what: str) -> bytes:
    """Returns the 32 bytes that a base64 text stands for.

    Raises:
        VerificationError: the text is not base64, or not of 32 bytes.
    """
    value = decode(text, what)
    if len(value) != 32:  # noqa: PLR2004 - the size of SHA-256
        raise VerificationError(f"{what} has {len(value)} bytes, not 32")
    return value
