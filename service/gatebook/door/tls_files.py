"""The certificate, key and client CA of a server: read from files, and read again when they change.

Owns what the server shows to its clients and whom it trusts to sign theirs. Every transport takes it
from here, so that all of them show the same. Rules:

1. what is served was read whole: the key belongs to the certificate, nothing has expired, every file parses;
2. files that are malformed, half-written or do not belong together change nothing: what was served is
   served on, the log says why, and they are looked at again when they change again;
3. a new connection sees what was read last; open connections are left alone.

Files are looked at once a second by what the system says about them, links followed, so an exchange of
a link to a folder (as Kubernetes exchanges secrets) is seen; SIGHUP reads them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gatebook.errors import InvalidRequestError

FILE_BYTES_MAX = 1024 * 1024
LOOK_SECONDS = 1.0
ALPN = ("h2", "http/1.1")


class Identity(msgspec.Struct, frozen=True):
    """What was read: the server's certificate and key, and the CA of its clients (all PEM)."""

    certificate: bytes
    key: bytes
    client_ca: bytes
    fingerprint: str
    """SHA-256 of the certificate (DER, hexadecimal)."""
    expires_time: datetime


class TlsFiles:
    """The identity of a server. `current` is swapped as a whole, by `refresh` alone."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Reads the files.

        Raises:
            InvalidRequestError: they cannot be served.
        """
        self._paths = (certificate, key, client_ca)
        self._seen = self._look()
        self._wanted = asyncio.Event()
        self._log = structlog.get_logger("gatebook.tls")
        self.current = read_identity(certificate, key, client_ca)
        self._trusted_time = 0.0
        self._tell("tls")

    @property
    def asks_for_certificates(self) -> bool:
        """Tells whether clients are asked for a certificate."""
        return self._paths[2] is not None

    def has_verified(self, connection: ssl.SSLObject) -> bool:
        """Tells whether the client's certificate, if it showed one, was verified with the client CA of now.

        A session of TLS 1.2 that goes on with an earlier one brings the certificate of then, and verifies nothing.
        """
        session = connection.session
        return not connection.session_reused or session is None or session.time > self._trusted_time

    def reload(self) -> None:
        """Has the files read at once, changed or not. Called on the event loop."""
        self._wanted.set()

    def refresh(self, *, anyway: bool = False) -> bool:
        """Reads the files if they have changed; returns whether they were taken. May block."""
        seen = self._look()
        if seen == self._seen and not anyway:
            return False
        self._seen = seen
        try:
            read = read_identity(*self._paths)
        except InvalidRequestError as error:
            self._log.error("tls files not taken", error=error.message, serving=self.current.fingerprint)
            return False
        if read == self.current:
            return False
        if read.client_ca != self.current.client_ca:
            self._trusted_time = time.time()  # those of the same second have to begin anew, too
        self.current = read
        self._tell("tls reloaded")
        return True

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Looks at the files within the block."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), LOOK_SECONDS)
            anyway = self._wanted.is_set()
            self._wanted.clear()
            await asyncio.to_thread(self.refresh, anyway=anyway)

    def _look(self) -> tuple[object, ...]:
        """Returns what the system says of the files; something else where one has changed."""
        looked: list[object] = []
        for path in self._paths:
            try:
                stat = None if path is None else path.stat()
            except OSError:
                stat = None
            looked.append(stat and (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        return tuple(looked)

    def _tell(self, event: str) -> None:
        current = self.current
        client_ca = hashlib.sha256(current.client_ca).hexdigest() if current.client_ca else ""
        expires = current.expires_time.isoformat()
        self._log.info(event, fingerprint=current.fingerprint, expires=expires, client_ca=client_ca)


def read_identity(certificate: Path, key: Path, client_ca: Path | None) -> Identity:
    """Reads what a server needs for TLS.

    Raises:
        InvalidRequestError: a file cannot be read, has expired, or the key is of another certificate.
    """
    pem, key_pem = _read(certificate, "tls-cert"), _read(key, "tls-key")
    leaf = _certificates(pem, certificate, "tls-cert")[0]
    try:
        public = load_pem_private_key(key_pem, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise InvalidRequestError("tls-key", f"`{key}` is not a private key in PEM without a password") from err
    if _spki(public) != _spki(leaf.public_key()):
        raise InvalidRequestError("tls-key", f"`{key}` is not the key of the first certificate in `{certificate}`")
    expires_time = leaf.not_valid_after_utc
    if expires_time <= datetime.now(UTC):
        raise InvalidRequestError("tls-cert", f"`{certificate}` expired on {expires_time.isoformat()}: renew it")
    ca_pem = b"" if client_ca is None else _read(client_ca, "client-ca")
    if client_ca is not None:
        _certificates(ca_pem, client_ca, "client-ca")
    fingerprint = hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
    return Identity(pem, key_pem, ca_pem, fingerprint, expires_time)


def _read(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as err:
        raise InvalidRequestError(option, f"`{path}` cannot be read: {err.strerror}") from err
    if len(content) > FILE_BYTES_MAX:
        raise InvalidRequestError(option, f"`{path}` is over {FILE_BYTES_MAX:,} bytes")
    return content


def _certificates(pem: bytes, path: Path, option: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as err:
        raise InvalidRequestError(option, f"`{path}` holds no certificate in PEM, or a malformed one") from err


def _spki(key: object) -> bytes:
    """Returns a public key in the one form in which two can be compared."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]  # each kind of key has it


def ssl_context(files: TlsFiles, alpn: Iterable[str] = ALPN) -> ssl.SSLContext:
    """Returns a context for transports of the standard library, which follows the files.

    A certificate is asked for where there is a client CA, and not required: a caller may have a token.
    """
    served = files.current
    context = _context_of(served, alpn)

    def follow(connection: ssl.SSLObject, _name: str | None, shown: ssl.SSLContext) -> None:
        # Runs in each handshake. The context that the connection began with stays its settings; keys
        # and trust are those of the one that is put in its place.
        nonlocal served, context
        if files.current is not served:
            served = files.current
            context = _context_of(served, alpn)
        if context is not shown:
            connection.context = context

    context.sni_callback = follow
    return context


def _context_of(identity: Identity, alpn: Iterable[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    # With a ticket a client would go on with a certificate that nobody verifies again, whatever has become of its CA.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    # What was checked is what is served, so not the files again: they may have changed meanwhile.
    with _in_memory(identity.certificate) as certificate, _in_memory(identity.key) as key:
        context.load_cert_chain(certificate, key)
    if identity.client_ca:
        context.load_verify_locations(cadata=identity.client_ca.decode("ascii", "replace"))
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Gives a path to bytes that are on no disk."""
    with open(os.memfd_create("tls", os.MFD_CLOEXEC), "wb", buffering=0) as file:  # noqa: PTH123  # it has no path
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"
