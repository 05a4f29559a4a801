"""What the client shows of itself, and how it recognises the service.

Owns TLS and tokens of a connection. Files are read when a channel is opened; when they have changed since,
the next call opens another channel, so that short-lived certificates are renewed without a restart.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from gatebook_client.errors import CredentialsError

CA_VARIABLE = "GATEBOOK_TLS_CA"
CERTIFICATE_VARIABLE = "GATEBOOK_TLS_CERT"
KEY_VARIABLE = "GATEBOOK_TLS_KEY"
TOKEN_FILE_VARIABLE = "GATEBOOK_TOKEN_FILE"  # noqa: S105  # the name of a variable
LOOK_SECONDS = 1.0
"""How often files are looked at, at most."""

TokenSource = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A token, or what gives a fresh one for each call (for asyncio it may be awaited)."""
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """How to recognise the service, and what to show of oneself. All files are PEM."""

    ca: str | os.PathLike[str] | None = None
    """The CA that signed the service's certificate; None means those that gRPC trusts by itself."""
    certificate: str | os.PathLike[str] | None = None
    """The certificate of this application with its chain, for a service that asks for one."""
    key: str | os.PathLike[str] | None = None
    """The key of that certificate."""

    @classmethod
    def of_environment(cls) -> Self | None:
        """Returns what the environment names; None where it names nothing."""
        found = [os.environ.get(name) or None for name in (CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE)]
        return cls(*found) if any(found) else None

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            CredentialsError: one cannot be read, or a certificate has no key.
        """
        if (self.certificate is None) != (self.key is None):
            raise CredentialsError("a certificate and its key go together: name both, or neither")
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))

    def seen(self) -> tuple[object, ...]:
        """Returns what the system says of the files; something else where one has changed."""
        return tuple(_seen(path) for path in (self.ca, self.certificate, self.key))


def token_file(path: str | os.PathLike[str]) -> Callable[[], str]:
    """Returns a source of the token that a file holds, which is read again when it changes."""
    kept: list[tuple[object, str]] = []

    def token() -> str:
        seen = _seen(path)
        if not kept or kept[0][0] != seen:
            kept[:] = [(seen, (_read(path) or b"").decode("ascii", "replace").strip())]
        return kept[0][1]

    return token


def token_of_environment() -> TokenSource | None:
    """Returns the source that the environment names; None where it names none."""
    path = os.environ.get(TOKEN_FILE_VARIABLE)
    return token_file(path) if path else None


async def metadata_of(source: TokenSource | None, deadline: float) -> Metadata | None:
    """Returns the headers of a call with a fresh token, which must be there by a moment of the monotonic clock.

    Raises:
        CredentialsError: there is no token.
    """
    if source is None:
        return None
    token = _ask(source)
    if inspect.isawaitable(token):
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                token = await token
        except TimeoutError as err:
            raise CredentialsError("the source of tokens gave none in time") from err
        except Exception as err:
            raise CredentialsError(f"the source of tokens failed: {err}") from err
    return _bearer(token)


def metadata_of_blocking(source: TokenSource | None) -> Metadata | None:
    """Returns the headers of a call, with a fresh token; the source may not be one that is awaited.

    Raises:
        CredentialsError: there is no token.
    """
    return None if source is None else _bearer(_ask(source))


class RenewedChannel:
    """A channel, or the next one when the files of its credentials have changed; as stubs use it.

    A channel that was replaced is kept for the calls under way on it, until the next is replaced.
    """

    def __init__(self, tls: Tls, open_channel: Callable[[grpc.ChannelCredentials], Any]) -> None:
        """Opens the first channel.

        Raises:
            CredentialsError: the files cannot be read.
        """
        self._tls = tls
        self._open = open_channel
        self._seen = tls.seen()
        self._looked_time = time.monotonic()
        self._current = open_channel(tls.channel_credentials())
        self._former: list[Any] = []

    def unary_unary(self, *arguments: object, **named: object) -> Callable[..., Any]:
        """Returns a method of whatever channel is the current one."""
        return self._method("unary_unary", *arguments, **named)

    def unary_stream(self, *arguments: object, **named: object) -> Callable[..., Any]:
        """Returns a method of whatever channel is the current one."""
        return self._method("unary_stream", *arguments, **named)

    def stream_stream(self, *arguments: object, **named: object) -> Callable[..., Any]:
        """Returns a method of whatever channel is the current one."""
        return self._method("stream_stream", *arguments, **named)

    def close(self) -> Any:  # noqa: ANN401  # awaited for asyncio, None for threads
        """Closes the channels."""
        for former in self._former:
            _close(former)
        return self._current.close()

    def _method(self, kind: str, *arguments: object, **named: object) -> Callable[..., Any]:
        made: list[tuple[Any, Callable[..., Any]]] = []

        def method(*sent: object, **options: object) -> Any:  # noqa: ANN401  # a call of either kind
            channel = self._renewed()
            if not made or made[0][0] is not channel:
                made[:] = [(channel, getattr(channel, kind)(*arguments, **named))]
            return made[0][1](*sent, **options)

        return method

    def _renewed(self) -> Any:  # noqa: ANN401  # a channel of either kind
        now = time.monotonic()
        if now - self._looked_time > LOOK_SECONDS:
            self._looked_time = now
            seen = self._tls.seen()
            if seen != self._seen:
                self._replace(seen)
        return self._current

    def _replace(self, seen: tuple[object, ...]) -> None:
        try:
            renewed = self._open(self._tls.channel_credentials())
        except (CredentialsError, ValueError):
            return  # half-written: what was opened before is used on, and the files are looked at again
        for former in self._former:
            _close(former)
        self._former = [self._current]
        self._current = renewed
        self._seen = seen


def _close(channel: Any) -> None:  # noqa: ANN401  # a channel of either kind
    closing = channel.close()
    if inspect.iscoroutine(closing):
        _closing.add(task := asyncio.ensure_future(closing))
        task.add_done_callback(_closing.discard)


_closing: set[Any] = set()
"""Channels on their way out: a task that nobody holds may be forgotten."""


def _ask(source: TokenSource) -> object:
    try:
        return source() if callable(source) else source
    except CredentialsError:
        raise
    except Exception as err:
        raise CredentialsError(f"the source of tokens failed: {err}") from err


def _bearer(token: object) -> Metadata:
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise CredentialsError("the source of tokens gave none")
    return (("authorization", f"Bearer {token}"),)


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as err:
        raise CredentialsError(f"`{os.fspath(path)}` cannot be read: {err.strerror}") from err


def _seen(path: str | os.PathLike[str] | None) -> object:
    if path is None:
        return None
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
