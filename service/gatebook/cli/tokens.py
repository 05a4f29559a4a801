"""A throw-away issuer of tokens, for trying out what people do who call as themselves.

Owns what `gatebook keys tokens` makes: the public key, the `callers.yaml` that lets a server trust it, and a token
for each person. The private key is never written: who wants another token makes all of them anew. Real people have
real issuers, such as a company's single sign-on (OpenID Connect).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

HOURS_MAX: Final = 24
"""A server takes no older token unless its `callers.yaml` says so."""
ISSUER: Final = "https://people.example"
KEY_ID: Final = "throw-away"
ALGORITHM: Final = "ES256"
CALLERS: Final = """# Whose tokens count. The caller is called `people:ID`, and is that person of the directory.
issuers:
  people:
    issuer: {issuer}
    audiences: [gatebook]
    algorithms: [{algorithm}]
    jwks: keys.json
    subject: {{type: {type}}}
"""


def make_tokens(folder: Path, people: Sequence[str], type_: str, hours: int) -> list[Path]:
    """Makes an issuer and a token for each person; returns the files written.

    Args:
        folder: Where they go.
        people: The ids of people in the directory.
        type_: The type that they have in the directory.
        hours: How long the tokens count.
    """
    key = generate_private_key(SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    keys = {"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": ALGORITHM}]}
    written = [
        _write(folder / "callers.yaml", CALLERS.format(issuer=ISSUER, algorithm=ALGORITHM, type=type_), 0o644),
        _write(folder / "keys.json", json.dumps(keys) + "\n", 0o644),
    ]
    now = int(time.time())
    for person in people:
        claims = {"iss": ISSUER, "aud": "gatebook", "sub": person, "iat": now, "exp": now + hours * 3_600}
        token = jwt.encode(claims, key, ALGORITHM, headers={"kid": KEY_ID})
        written.append(_write(folder / f"{person}.token", token + "\n", 0o600))
    return written


def _write(path: Path, content: str, mode: int) -> Path:
    """Makes a file; one that exists is left alone, and is an error."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(content)
    return path
