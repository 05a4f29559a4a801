"""Who calls, and what a transport saw of them.

Owns the two values that every transport hands over: `Credentials`, which prove nothing by themselves,
and the `Caller` that the door made of them. A caller is not a subject: it is the service or person that
asks, and the id under which its calls are written in the book. Ids of different kinds never meet:

    local                       plain text on the loopback interface
    spiffe://DOMAIN/PATH        a certificate with a SPIFFE id
    cn:NAME                     a certificate with a common name
    ISSUER:SUBJECT              a token; issuers cannot be named `cn`, `spiffe` or `local`
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from gatebook.values import Entity

CALLER_ID_BYTES_MAX = 256
"""What an entry of the book has room for (see audit.decision_entry)."""


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
    authorization: tuple[str, ...] = ()
    """Every `authorization` header as it was sent, not verified; more than one is refused."""


class Caller(msgspec.Struct, frozen=True):
    """An authenticated caller."""

    id: str
    kind: CallerKind
    attributes: Mapping[str, Any] = {}
    """What the rules of `policies/gatebook` may read of it."""
    subject: Entity | None = None
    """The subject that the caller is, if it is one: a person who may ask for themselves."""
    valid_until: float = math.inf
    """When its credentials run out, in seconds since 1970: a stream may live longer than they do."""


LOCAL = Caller("local", CallerKind.LOCAL)


def recalled(id_: str, subject: Entity | None) -> Caller:
    """Returns a caller as far as an entry of the book tells: whatever else its credentials said is not known."""
    if id_ == LOCAL.id:
        return LOCAL
    certificate = id_.startswith(("cn:", "spiffe://"))
    return Caller(id_, CallerKind.CERTIFICATE if certificate else CallerKind.TOKEN, {}, subject)
