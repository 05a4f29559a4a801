"""Issuers of tokens for tests: they sign with PyJWT, or put together by hand what no library would."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import get_default_algorithms

ISSUER = "https://id.corp.example"
AUDIENCE = "gatebook"
LIFE_SECONDS = 300


class SigningKey:
    """A key of an issuer."""

    def __init__(self, kid: str, algorithm: str) -> None:
        """Makes one."""
        self.kid = kid
        self.algorithm = algorithm
        self.key: PrivateKeyTypes
        if algorithm.startswith(("RS", "PS")):
            self.key = rsa.generate_private_key(65_537, 2_048)
        elif algorithm == "EdDSA":
            self.key = ed25519.Ed25519PrivateKey.generate()
        else:
            curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
            self.key = ec.generate_private_key(curves[algorithm])

    def jwk(self, **different: object) -> dict[str, Any]:
        """Returns the public key as an issuer publishes it."""
        algorithm = get_default_algorithms()[self.algorithm]
        read = json.loads(algorithm.to_jwk(self.key.public_key()))
        kept = {name: value for name, value in read.items() if name != "key_ops"}
        return {**kept, "kid": self.kid, "use": "sig", "alg": self.algorithm, **different}

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """Signs claims; a header of None leaves out its usual one."""
        named = {"kid": self.kid, **(header or {})}
        kept = {name: value for name, value in named.items() if value is not None}
        return jwt.encode(dict(claims), self.key, self.algorithm, headers=kept)  # type: ignore[arg-type]  # as above

    def token(self, header: Mapping[str, Any] | None = None, **claims: object) -> str:
        """Signs the usual claims but for those that differ; None leaves a claim out."""
        return self.sign(claims_with(**claims), header)


def key_set(*keys: SigningKey | Mapping[str, Any]) -> str:
    """Returns the key set of an issuer."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, SigningKey) else key for key in keys]})


def claims_with(**different: object) -> dict[str, Any]:
    """Returns the claims of a token that counts, but for those that differ; None leaves one out."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "farah", "iat": now, "exp": now + LIFE_SECONDS}
    return {name: value for name, value in {**usual, **different}.items() if value is not None}


def by_hand(header: object, claims: object, signature: bytes = b"") -> str:
    """Puts a token together as it is, signed by nobody."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
