"""Who a bearer token is: a JWT of an issuer that is listed (RFC 7519, RFC 8725, RFC 9068).

A token counts only if all of this holds:

1. it comes alone, as `Bearer`, within `TOKEN_BYTES_MAX`, of three parts;
2. its issuer is listed, to the letter; its type and its algorithm are among those of the issuer;
3. its `kid` names one key of the issuer that is for this algorithm. What else the header offers (`jwk`,
   `jku`, `x5c`, `x5u`) is not looked at; a header that must be understood (`crit`) is refused;
4. the signature is that of the key; the audience is named; it has begun and has not expired, and is
   not too old, within the clock skew;
5. its subject is visible ASCII and, with the issuer's name, fits an entry; required claims are there;
6. where it is bound to a certificate (RFC 8705 s3.1), the connection has that certificate. A binding
   of another kind cannot be checked here, so it is refused.

Tokens that counted are remembered by their SHA-256, as long as they and the keys of their issuer count.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
import msgspec

from gatebook.door.caller import CALLER_ID_BYTES_MAX, Caller, CallerKind
from gatebook.door.callers_file import Issuer
from gatebook.door.jwks import IssuerKeys, KeySet
from gatebook.errors import UnauthenticatedError
from gatebook.values import Entity

TOKEN_BYTES_MAX = 8 * 1024
KNOWN_MAX = 10_000
"""Tokens that are remembered; the oldest is forgotten first."""
ATTRIBUTE_CHARACTERS_MAX = 256
ATTRIBUTE_ITEMS_MAX = 256
TYPES_BY_DEFAULT = frozenset(("", "jwt", "at+jwt"))
BEARER = "bearer "
DOTS = 2
REQUIRED = ["exp", "iat", "sub", "aud", "iss"]
TIME_MAX = 1e12
"""Far beyond all calendars, and exact in a float."""

_VISIBLE = re.compile(r"[\x21\x24-\x2b\x2d-\x5f\x61-\x7e]+")
"""Visible ASCII that a policy file can hold as it is: without `"`, `#`, a comma and a backtick."""


class _Known(msgspec.Struct, frozen=True):
    """A token that counted."""

    caller: Caller
    keys: KeySet
    source: IssuerKeys
    thumbprint: str


class Tokens:
    """Recognises tokens, and remembers whom it has recognised. Used on the event loop only."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        """Takes the issuers whose tokens count."""
        self.sources = {issuer.issuer: (issuer, IssuerKeys(issuer)) for issuer in issuers}
        self._known: dict[bytes, _Known] = {}

    async def caller(self, authorization: Sequence[str], certificate: bytes, now: float) -> Caller:
        """Returns who a token is, at a time in seconds since 1970.

        Args:
            authorization: Every header of that name.
            certificate: The client's certificate (DER), or nothing.
            now: The time.

        Raises:
            UnauthenticatedError: nobody that counts.
        """
        token = token_of(authorization)
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None or known.keys is not known.source.keys or now >= known.caller.valid_until:
            known = await self._verified(token, now)
            self._remember(digest, known)
        if known.thumbprint and known.thumbprint != thumbprint_of(certificate):
            raise UnauthenticatedError("the token is bound to another certificate")
        return known.caller

    def _remember(self, digest: bytes, known: _Known) -> None:
        self._known.pop(digest, None)
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[digest] = known

    async def _verified(self, token: str, now: float) -> _Known:
        header, claimed = _parts(token)
        found = self.sources.get(claimed) if isinstance(claimed, str) else None
        if found is None:
            raise UnauthenticatedError("the issuer of the token is not listed")
        issuer, source = found
        algorithm, kid = _checked_header(header, issuer)
        if source.keys is None or kid not in source.keys:
            await source.look_again()
        keys = source.keys
        if keys is None:
            raise UnauthenticatedError(f"the keys of `{issuer.name}` cannot be had")
        fitting = [key for key in keys.get(kid, ()) if key.fits(algorithm)]
        if len(fitting) != 1:
            raise UnauthenticatedError(f"the key that the token names is not one of `{issuer.name}` for its algorithm")
        try:
            claims = jwt.decode(
                token,
                fitting[0].key,
                algorithms=[algorithm],
                audience=issuer.audiences,
                issuer=issuer.issuer,
                # The library reads its own clock and rounds; one reading of the time decides about a call.
                options={"require": REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as err:
            raise UnauthenticatedError(_CAUSES.get(type(err), "the token does not verify")) from err
        valid_until = _checked_times(claims, issuer, now)
        return _Known(_caller_of(claims, issuer, valid_until), keys, source, _bound_to(claims))


_CAUSES: Mapping[type[Exception], str] = {
    jwt.InvalidSignatureError: "the signature of the token is not that of the key",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.MissingRequiredClaimError: "the token lacks one of `exp`, `iat`, `sub`, `aud`, `iss`",
}


def token_of(authorization: Sequence[str]) -> str:
    """Returns the token of the headers (RFC 6750 section 2.1).

    Raises:
        UnauthenticatedError: there is not exactly one header with one token.
    """
    if len(authorization) != 1:
        raise UnauthenticatedError("there are several authorization headers")
    scheme, token = authorization[0][: len(BEARER)], authorization[0][len(BEARER) :]
    if scheme.lower() != BEARER:
        raise UnauthenticatedError("the authorization is not of the scheme Bearer")
    if len(token) > TOKEN_BYTES_MAX:
        raise UnauthenticatedError(f"the token is over {TOKEN_BYTES_MAX:,} bytes")
    if not token.isascii() or token.count(".") != DOTS:
        raise UnauthenticatedError("the token is no JWT")
    return token


def thumbprint_of(certificate: bytes) -> str:
    """Returns the thumbprint of a certificate as tokens state it (RFC 8705 section 3.1)."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode() if certificate else ""


def _parts(token: str) -> tuple[Mapping[str, Any], object]:
    """Returns the header of a token, and who it claims to be from. Nothing of it is verified."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as err:
        raise UnauthenticatedError("the token is no JWT") from err
    return header, claims.get("iss")


def _checked_header(header: Mapping[str, Any], issuer: Issuer) -> tuple[str, str]:
    """Returns the algorithm and the `kid` of a header that counts."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    if "crit" in header or "b64" in header or "zip" in header or "enc" in header:
        raise UnauthenticatedError("the header of the token asks for what is not known here")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise UnauthenticatedError(f"the algorithm of the token is not one of `{issuer.name}`")
    if not isinstance(kid, str) or not kid:
        raise UnauthenticatedError("the token names no key")
    stated = kind.lower().removeprefix("application/") if isinstance(kind, str) else None
    if stated not in (issuer.types or TYPES_BY_DEFAULT):
        raise UnauthenticatedError(f"the type of the token is not one of `{issuer.name}`")
    return algorithm, kid


def _checked_times(claims: Mapping[str, Any], issuer: Issuer, now: float) -> float:
    """Returns until when a token counts, if it does now."""
    skew = issuer.clock_skew_seconds
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    begins = max(issued, _seconds(claims, "nbf") if "nbf" in claims else issued)
    if begins > now + skew:
        raise UnauthenticatedError("the token is not valid yet")
    valid_until = min(expires, issued + issuer.age_seconds_max) + skew
    if now >= valid_until:
        raise UnauthenticatedError("the token has expired, or is too old")
    return valid_until


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < TIME_MAX:
        raise UnauthenticatedError(f"`{name}` of the token is no time")
    return float(value)


def _caller_of(claims: Mapping[str, Any], issuer: Issuer, valid_until: float) -> Caller:
    """Returns the caller that verified claims speak of."""
    for name, wanted in issuer.required_claims.items():
        value = claims.get(name)
        if not (value if wanted is True else type(value) is type(wanted) and value == wanted):
            raise UnauthenticatedError(f"the token lacks a claim that `{issuer.name}` requires")
    caller_id = f"{issuer.name}:{_visible(claims.get('sub'), 'sub')}"
    if len(caller_id) > CALLER_ID_BYTES_MAX:
        raise UnauthenticatedError(f"the id of the caller is over {CALLER_ID_BYTES_MAX} bytes")
    attributes: dict[str, Any] = {
        name: _attribute(claims[claim]) for name, claim in issuer.attributes.items() if claim in claims
    }
    if issuer.groups:
        groups = _attribute(claims.get(issuer.groups, []))
        attributes["groups"] = groups if isinstance(groups, list) else [str(groups)]
    subject = None
    if issuer.subject_type and issuer.subject_claim in claims:
        subject = Entity(issuer.subject_type, _visible(claims[issuer.subject_claim], "the subject's id"))
    return Caller(caller_id, CallerKind.TOKEN, attributes, subject, valid_until)


def _visible(value: object, what: str) -> str:
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise UnauthenticatedError(f"{what} in the token is not well formed")
    return value


def _attribute(value: object) -> str | int | bool | list[str]:
    """Returns the value of a claim that rules may read; what else is refused, since a deny may rest on it."""
    items = value if isinstance(value, list) else [value]
    if len(items) > ATTRIBUTE_ITEMS_MAX or (isinstance(value, list) and not all(isinstance(i, str) for i in items)):
        raise UnauthenticatedError("a claim of the token is no value, or no list of texts")
    for item in items:
        if not isinstance(item, str | int) or (isinstance(item, str) and len(item) > ATTRIBUTE_CHARACTERS_MAX):
            raise UnauthenticatedError("a claim of the token is no value, or too long")
    return value  # type: ignore[return-value]  # as checked


def _bound_to(claims: Mapping[str, Any]) -> str:
    """Returns the thumbprint of the certificate that a token is bound to, or nothing."""
    bound = claims.get("cnf")
    if bound is None:
        return ""
    thumbprint = bound.get("x5t#S256") if isinstance(bound, dict) and len(bound) == 1 else None
    if not isinstance(thumbprint, str) or not thumbprint:
        raise UnauthenticatedError("the token is bound in a way that is not known here")
    return thumbprint
