"""The keys of an issuer of tokens: read, kept while they are young enough, and read again.

Owns one issuer's key set (RFC 7517), from a file or an address. Rules:

1. a set is taken whole or not at all; until it arrives the one before it counts;
2. a file is read again when it changes, an address every `LOOK_SECONDS`, and at once where a token names
   a key that is not there, but never within `LOOK_AGAIN_SECONDS` of the last time: strangers cannot make
   this server hammer the issuer;
3. keys that could not be confirmed for `KEYS_SECONDS_MAX` count no longer: without an issuer nobody gets in;
4. only public keys for signatures count, of a sufficient size; what else is in a set is passed over.

An address is asked without proxies, follows no redirect, and has little time and room for its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gatebook.door.callers_file import ALGORITHMS, Issuer
from gatebook.errors import InvalidRequestError

BYTES_MAX = 256 * 1024
KEYS_MAX = 100
RSA_BITS_MIN = 2_048
LOOK_SECONDS = 300.0
FILE_LOOK_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 10.0
KEYS_SECONDS_MAX = 3_600.0
ANSWER_SECONDS_MAX = 5.0
WAITING_MAX = 100
"""Calls of one issuer that wait for its keys; more are refused at once."""
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


class Key(msgspec.Struct, frozen=True):
    """A key that signatures are checked with."""

    key: PublicKey
    algorithm: str
    """The only algorithm that it is for; empty where its type decides."""

    def fits(self, algorithm: str) -> bool:
        """Tells whether it is a key of an algorithm."""
        if self.algorithm not in ("", algorithm):
            return False
        match self.key:
            case RSAPublicKey():
                return algorithm.startswith(("RS", "PS"))
            case EllipticCurvePublicKey():
                return CURVES.get(algorithm) == self.key.curve.name
            case _:
                return algorithm == "EdDSA"


KeySet = Mapping[str, tuple[Key, ...]]
"""The keys of an issuer by their `kid`."""


class KeysError(Exception):
    """A key set cannot be had, or is none. Stays within the door."""


class IssuerKeys:
    """The keys of one issuer. Used on the event loop, but for `read`, which may block."""

    def __init__(self, issuer: Issuer) -> None:
        """Takes the issuer; there are no keys yet."""
        self._issuer = issuer
        self._log = structlog.get_logger("gatebook.keys")
        self._keys: KeySet | None = None
        self._content = b""
        self._seen: object = None
        self._looked_time = -LOOK_AGAIN_SECONDS
        self._confirmed_time = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._waiting = 0
        self._failing = False

    @property
    def keys(self) -> KeySet | None:
        """Returns the keys that count now; the very same object as long as they are the same."""
        if self._keys is None or time.monotonic() - self._confirmed_time > KEYS_SECONDS_MAX:
            return None
        return self._keys

    async def begin(self) -> None:
        """Reads the keys for the first time.

        Raises:
            InvalidRequestError: a file holds none. An address may answer later.
        """
        await self.look()
        if self._keys is None and isinstance(self._issuer.jwks, Path):
            raise InvalidRequestError("callers", f"`{self._issuer.jwks}` holds no keys that count: see the log")

    async def keep_fresh(self) -> None:
        """Reads them again as they age, for ever."""
        while True:
            is_file = isinstance(self._issuer.jwks, Path)
            await asyncio.sleep(FILE_LOOK_SECONDS if is_file else LOOK_AGAIN_SECONDS if self._failing else LOOK_SECONDS)
            await self.look()

    async def look_again(self) -> None:
        """Waits until the keys were read again, if it is not too soon for that."""
        soon = time.monotonic() - self._looked_time < LOOK_AGAIN_SECONDS
        if (soon and (self._looking is None or self._looking.done())) or self._waiting >= WAITING_MAX:
            return
        self._waiting += 1
        try:
            await asyncio.wait({self.look()}, timeout=ANSWER_SECONDS_MAX)
        finally:
            self._waiting -= 1

    def look(self) -> asyncio.Task[None]:
        """Reads the keys; who comes while that is under way waits for the same reading."""
        if self._looking is None or self._looking.done():
            self._looked_time = time.monotonic()
            self._looking = asyncio.create_task(self._take())
        return self._looking

    async def _take(self) -> None:
        try:
            content = await asyncio.to_thread(self._read)
            keys = self._keys if content in (None, self._content) else parse_keys(content or b"")
        except KeysError as error:
            if not self._failing:
                self._log.error("keys not read", issuer=self._issuer.name, error=str(error))
            self._failing = True
            return
        self._failing = False
        self._confirmed_time = time.monotonic()
        if keys is not self._keys:
            self._keys, self._content = keys, content or b""
            self._log.info("keys", issuer=self._issuer.name, kids=sorted(keys or ()))

    def _read(self) -> bytes | None:
        """Returns the bytes of the set; None where the file is what it was."""
        source = self._issuer.jwks
        if isinstance(source, str):
            return fetch(source, self._issuer.jwks_ca)
        try:
            stat = source.stat()
            seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if seen == self._seen and not self._failing:
                return None
            with source.open("rb") as file:
                content = file.read(BYTES_MAX + 1)
        except OSError as err:
            raise KeysError(f"`{source}` cannot be read: {err.strerror}") from err
        if len(content) > BYTES_MAX:
            raise KeysError(f"`{source}` is over {BYTES_MAX:,} bytes")
        self._seen = seen
        return content


def parse_keys(content: bytes) -> KeySet:
    """Reads a key set (RFC 7517 section 5).

    Raises:
        KeysError: it is none, or holds no key that counts.
    """
    try:
        read = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise KeysError("the key set is no JSON") from err
    listed = read.get("keys") if isinstance(read, dict) else None
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise KeysError(f"the key set has no list `keys`, or over {KEYS_MAX} of them")
    found: dict[str, tuple[Key, ...]] = {}
    for item in listed:
        kid = item.get("kid") if isinstance(item, dict) else None
        key = _key_of(item) if isinstance(kid, str) and kid else None
        if key is not None and isinstance(kid, str):
            found[kid] = (*found.get(kid, ()), key)
    if not found:
        raise KeysError("the key set holds no public key with a `kid` that counts")
    return found


def _key_of(item: Mapping[str, Any]) -> Key | None:
    """Returns a key of a set; None where it is not for checking signatures, or is too weak."""
    algorithm, operations = item.get("alg", ""), item.get("key_ops", ["verify"])
    if item.get("use", "sig") != "sig" or not isinstance(operations, Sequence) or "verify" not in operations:
        return None
    # A private or shared key in a public place proves nothing any more.
    if "d" in item or item.get("kty") not in ("RSA", "EC", "OKP") or algorithm not in ("", *ALGORITHMS):
        return None
    try:
        key = jwt.PyJWK(dict(item)).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        return None
    return Key(key, algorithm) if isinstance(key, PublicKey) else None


def fetch(address: str, ca: Path | None) -> bytes:
    """Asks an address for a key set.

    Raises:
        KeysError: there is no answer, or not such a one.
    """
    began = time.monotonic()
    try:
        trust = ssl.create_default_context(cafile=None if ca is None else str(ca))
        opener = urllib.request.OpenerDirector()  # with no proxy, and nothing that follows a redirect
        for handler in (
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=trust),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            opener.add_handler(handler)
        request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310  # https, or loopback: callers_file
        with contextlib.closing(opener.open(request, timeout=ANSWER_SECONDS_MAX)) as answer:
            content = b""
            while chunk := answer.read1(BYTES_MAX):
                content += chunk
                if len(content) > BYTES_MAX or time.monotonic() - began > ANSWER_SECONDS_MAX:
                    raise KeysError(f"`{address}` sent over {BYTES_MAX:,} bytes, or for over {ANSWER_SECONDS_MAX:g} s")
            if answer.status != http.client.OK:
                raise KeysError(f"`{address}` answered {answer.status}")
    except urllib.error.HTTPError as err:
        raise KeysError(f"`{address}` answered {err.code}") from err
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise KeysError(f"`{address}` cannot be asked: {getattr(err, 'reason', None) or err}") from err
    return content
