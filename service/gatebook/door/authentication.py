"""Who calls: the way from credentials to a caller.

Rules, in their order:

1. every `authorization` header counts: more than one, another scheme than `Bearer` or a token that does
   not verify is refused, whatever else was sent. Nothing falls back to `local` or to a certificate;
2. with a token the token says who calls. A certificate that came with it must be one that counts, too,
   and must be the one that the token is bound to, if it is bound (RFC 8705 s3);
3. without one the certificate says who calls;
4. with neither, who came in plain text over loopback is `local`, and everybody else is refused. A
   server that has TLS takes no plain text.

A refusal tells the caller nothing; the log says why, without the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import structlog

from gatebook.config import Config, require_address, require_loopback
from gatebook.door.caller import LOCAL, Caller, Credentials
from gatebook.door.callers_file import CallersFile, parse_callers
from gatebook.door.certificates import Certificates
from gatebook.door.jwks import IssuerKeys
from gatebook.door.tls_files import TlsFiles
from gatebook.door.tokens import Tokens
from gatebook.errors import CallersRefusedError, InvalidRequestError, UnauthenticatedError

NO_CREDENTIALS: Final = "neither a certificate nor a token"


class Authentication:
    """Recognises callers. Used on the event loop only."""

    def __init__(self, callers: CallersFile, tls: TlsFiles | None) -> None:
        """Takes whom it accepts, and the identity of the server; none where it speaks plain text."""
        self.tls = tls
        self.quotas = callers.quotas
        self.now = time.time
        self._certificates = Certificates(callers.certificates)
        self._tokens = Tokens(callers.issuers) if callers.issuers else None

    async def identify(self, credentials: Credentials) -> Caller:
        """Returns who calls.

        Raises:
            UnauthenticatedError: nobody that is known.
        """
        now = self.now()
        by_certificate = None
        if credentials.certificate:
            by_certificate = self._certificates.recognise(credentials.certificate, now)
        if credentials.authorization:
            if self._tokens is None:
                raise UnauthenticatedError("no issuer of tokens is listed")
            der = by_certificate.der if by_certificate else b""
            return await self._tokens.caller(credentials.authorization, der, now)
        if by_certificate is not None:
            return by_certificate.caller
        if credentials.encrypted or self.tls is not None:
            raise UnauthenticatedError(NO_CREDENTIALS)
        return LOCAL

    @contextlib.asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Reads certificates and keys again within the block, as they change.

        Raises:
            InvalidRequestError: there are no keys to begin with.
        """
        await asyncio.gather(*(source.begin() for source in self._sources))
        async with contextlib.AsyncExitStack() as stack:
            if self.tls is not None:
                await stack.enter_async_context(self.tls.watched())
            for source in self._sources:
                stack.callback(asyncio.create_task(source.keep_fresh()).cancel)
            yield

    def reload(self) -> None:
        """Has every file read again at once."""
        structlog.get_logger("gatebook.tls").info("told to reload")
        if self.tls is not None:
            self.tls.reload()
        for source in self._sources:
            source.look()

    @property
    def _sources(self) -> list[IssuerKeys]:
        return [] if self._tokens is None else [keys for _, keys in self._tokens.sources.values()]


PLAINTEXT: Final = Authentication(CallersFile(), None)
"""Of a server that speaks plain text on loopback and knows no tokens."""


def authentication_of(config: Config) -> Authentication:
    """Reads what a server was told about its callers.

    Raises:
        InvalidRequestError: it would serve nobody, or strangers.
        CallersRefusedError: the file of the callers has findings.
    """
    callers = CallersFile() if config.callers is None else _read_callers(config)
    tls = _tls_of(config)
    addresses = {"listen": config.listen, "listen-tokens": config.listen_tokens, "http": config.http}
    for option, address in addresses.items():
        if address and tls is None:
            require_loopback(address, option)
        elif address:
            require_address(address, option)
    if tls is None and config.client_ca is not None:
        raise InvalidRequestError("client-ca", "certificates of clients need TLS: give --tls-cert and --tls-key")
    if tls is None and config.listen_tokens:
        raise InvalidRequestError("listen-tokens", "a port for tokens needs TLS: give --tls-cert and --tls-key")
    if tls is not None and not callers.issuers and config.client_ca is None:
        raise InvalidRequestError(
            "tls-cert",
            "nobody could call: give --client-ca for certificates of clients, or name `issuers` of tokens in --callers",
        )
    if config.client_ca is not None and not callers.certificates:
        raise InvalidRequestError(
            "client-ca", "nobody could call: list `certificates.trust_domains` or `common_names` in --callers"
        )
    if config.listen_tokens and not callers.issuers:
        raise InvalidRequestError("listen-tokens", "nobody could call: name `issuers` of tokens in --callers")
    return Authentication(callers, tls)


def _tls_of(config: Config) -> TlsFiles | None:
    if config.tls_cert is None and config.tls_key is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise InvalidRequestError("tls-cert", "--tls-cert and --tls-key go together")
    return TlsFiles(config.tls_cert, config.tls_key, config.client_ca)


def _read_callers(config: Config) -> CallersFile:
    path = config.callers
    assert path is not None  # noqa: S101  # as asked for
    try:
        content = path.read_bytes()
    except OSError as err:
        raise InvalidRequestError("callers", f"`{path}` cannot be read: {err.strerror}") from err
    read, findings = parse_callers(content, str(path), path.parent)
    if read is None:
        raise CallersRefusedError(f"`{path}` is refused: nothing was started", findings)
    return read
