"""Who calls, and what a transport saw of them.

Owns the two values that every transport hands over: `Credentials`, which prove nothing by themselves,
and the `Caller` that the door made of them. A caller is not a subject: it is the service or person that
asks, and the id under which its calls are written in the book.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec


class CallerKind(enum.StrEnum):
    """How a caller was recognised."""

    LOCAL = "local"
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105  # a kind, no secret


class Credentials(msgspec.Struct, frozen=True):
    """What a transport saw of a caller."""

    encrypted: bool = False
    """Whether the connection is TLS. Plaintext is served on the loopback interface only."""
    certificate: bytes = b""
    """The client's certificate (PEM), whose chain the transport has verified; empty without one."""
    bearer: str = ""
    """The bearer token (RFC 6750 section 2.1), not verified; empty without one."""


class Caller(msgspec.Struct, frozen=True):
    """An authenticated caller."""

    id: str
    kind: CallerKind
    attributes: Mapping[str, Any] = {}
    """What the rules of `policies/gatebook` may read of it."""


LOCAL = Caller("local", CallerKind.LOCAL)
