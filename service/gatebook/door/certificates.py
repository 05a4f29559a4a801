"""Who a client certificate is.

Owns the way from the certificate of a connection, whose chain and times the transport has verified in
the handshake, to a `Caller`. Rules:

1. it is a leaf: `CA:FALSE`, may sign neither certificates nor revocation lists, and where it says
   what it is for (extended key usage), it is for clients;
2. with a URI among its names it is an X.509-SVID (SPIFFE X.509-SVID s2, s4): exactly one URI, a
   well-formed SPIFFE id with a path, of a trust domain that is listed. Malformed is refused, never
   taken for its common name;
3. without one its common name counts, where that is listed: exactly one, of visible ASCII, without
   what a policy file cannot hold;
4. it has not expired: a connection may outlive its certificate, so that is asked for every call.
"""

from __future__ import annotations

import hashlib
import re

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gatebook.door.caller import CALLER_ID_BYTES_MAX, Caller, CallerKind
from gatebook.errors import UnauthenticatedError

KNOWN_MAX = 4_096
"""Certificates whose caller is remembered; the oldest is forgotten first."""
ANY = "*"

_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
_COMMON_NAME = re.compile(r"[\x21\x24-\x2b\x2d-\x5f\x61-\x7e]{1,64}")
"""Visible ASCII that a policy file can hold as it is: without `"`, `#`, a comma and a backtick."""
_DOTS = frozenset((".", ".."))


class Accepted(msgspec.Struct, frozen=True):
    """Whose certificates count; `*` stands for all that the client CA has signed."""

    trust_domains: frozenset[str] = frozenset()
    common_names: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Tells whether any certificate could count."""
        return bool(self.trust_domains or self.common_names)


class Recognised(msgspec.Struct, frozen=True):
    """A certificate that counts."""

    caller: Caller
    der: bytes
    """The certificate, which a token may be bound to."""


class Certificates:
    """Recognises certificates, and remembers whom it has recognised. Used on the event loop only."""

    def __init__(self, accepted: Accepted) -> None:
        """Takes whose certificates count."""
        self._accepted = accepted
        self._known: dict[bytes, Recognised] = {}

    def recognise(self, pem: bytes, now: float) -> Recognised:
        """Returns who a certificate is, at a time in seconds since 1970.

        Raises:
            UnauthenticatedError: nobody that counts.
        """
        digest = hashlib.sha256(pem).digest()
        known = self._known.get(digest)
        if known is None:
            known = recognise(pem, self._accepted)
            if len(self._known) >= KNOWN_MAX:
                del self._known[next(iter(self._known))]
            self._known[digest] = known
        if now >= known.caller.valid_until:
            raise UnauthenticatedError("the certificate has expired")
        return known


def recognise(pem: bytes, accepted: Accepted) -> Recognised:
    """Returns who a certificate is, whenever that is.

    Raises:
        UnauthenticatedError: nobody that counts.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        _require_leaf(certificate)
        name = _name_of(certificate, accepted)
        expires_time = certificate.not_valid_after_utc
        der = certificate.public_bytes(Encoding.DER)
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as err:
        raise UnauthenticatedError("the certificate cannot be read") from err
    if len(name.encode()) > CALLER_ID_BYTES_MAX:
        raise UnauthenticatedError(f"the name in the certificate is over {CALLER_ID_BYTES_MAX} bytes")
    return Recognised(Caller(name, CallerKind.CERTIFICATE, valid_until=expires_time.timestamp()), der)


def _require_leaf(certificate: x509.Certificate) -> None:
    """Requires a certificate of a client, not of an authority or a server."""
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise UnauthenticatedError("the certificate is that of an authority, not of a client")
            case x509.KeyUsage() as usage if usage.key_cert_sign or usage.crl_sign:
                raise UnauthenticatedError("the certificate may sign others, so it is not that of a client")
            case x509.ExtendedKeyUsage() as purposes if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
                raise UnauthenticatedError("the certificate is not meant for clients")
            case _:
                pass


def _name_of(certificate: x509.Certificate, accepted: Accepted) -> str:
    """Returns the id of the caller that a certificate names."""
    uris: list[str] = []
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    return _spiffe_id(uris, accepted.trust_domains) if uris else _common_name(certificate, accepted.common_names)


def _spiffe_id(uris: list[str], trust_domains: frozenset[str]) -> str:
    """Returns the SPIFFE id among the URIs of a certificate (SPIFFE-ID s2, X.509-SVID s2)."""
    if len(uris) != 1:
        raise UnauthenticatedError("the certificate has several URIs, and an X.509-SVID has exactly one")
    found = _SPIFFE_ID.fullmatch(uris[0])
    if found is None or not _DOTS.isdisjoint(found[2].split("/")):
        raise UnauthenticatedError("the URI in the certificate is no SPIFFE id of a workload")
    if found[1] not in trust_domains and ANY not in trust_domains:
        raise UnauthenticatedError("the trust domain of the certificate is not listed")
    return uris[0]


def _common_name(certificate: x509.Certificate, common_names: frozenset[str]) -> str:
    """Returns the id that a certificate without a URI has."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not common_names:
        raise UnauthenticatedError("the certificate has no SPIFFE id, and no common name is listed")
    if len(found) != 1:
        raise UnauthenticatedError("the certificate has no common name, or several")
    name = found[0].value
    if not isinstance(name, str) or not _COMMON_NAME.fullmatch(name):
        raise UnauthenticatedError("the common name of the certificate is not well formed")
    if name not in common_names and ANY not in common_names:
        raise UnauthenticatedError("the common name of the certificate is not listed")
    return f"cn:{name}"
