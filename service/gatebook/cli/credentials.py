"""What a command shows of itself to a server, and how it recognises the server.

Owns the options that every command with `--target` has, and the channel that they make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import grpc

from gatebook.config import setting
from gatebook_client.credentials import Tls, metadata_of_blocking, token_file
from gatebook_client.target import choose_target

OPTIONS = {
    "tls-ca": "Speak TLS; the CA of the server.",
    "tls-cert": "The certificate to show to the server.",
    "tls-key": "The key of that certificate.",
    "token-file": "A bearer token to show to the server.",
}
F = TypeVar("F", bound=Callable[..., object])


def credential_options(function: F) -> F:
    """Adds the options to a command; `opened` finds what they say by itself."""
    for option, help_text in reversed(OPTIONS.items()):
        variable = option.replace("-", "_")
        function = click.option(
            f"--{option}",
            default=lambda variable=variable: setting(variable) or None,
            show_default=f"$GATEBOOK_{variable.upper()}",
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            callback=_keep,
            help=help_text,
        )(function)
    return function


def _keep(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    context.meta[f"{__name__}.{parameter.name}"] = value


@contextmanager
def opened(target: str, options: Sequence[tuple[str, int]]) -> Iterator[grpc.Channel]:
    """Opens a channel with the credentials that the command line names.

    Raises:
        GatebookClientError: the target or the credentials cannot be used.
    """
    ca, certificate, key, token = (_kept(option) for option in OPTIONS)
    encrypted = any((ca, certificate, key))
    target = choose_target(target, encrypted=encrypted)
    if encrypted:
        channel = grpc.secure_channel(target, Tls(ca, certificate, key).channel_credentials(), options=options)
    else:
        channel = grpc.insecure_channel(target, options=options)
    with channel:
        yield channel if token is None else grpc.intercept_channel(channel, Bearer(token_file(token)))


def tls_trouble(target: str, details: str) -> str | None:
    """Returns in words why somebody listens and no connection came about; None where nobody listens."""
    if not any(_kept(option) for option in ("tls-ca", "tls-cert", "tls-key")):
        hung_up = any(word in details for word in ("Socket closed", "Connection reset", "Broken pipe"))
        return f"{target} hung up: if it speaks TLS, give --tls-ca, --tls-cert and --tls-key" if hung_up else None
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return f"the certificate of {target} does not verify: is --tls-ca the CA that signed it, and is that its name?"
    if "Connection refused" in details:
        return None
    return f"{target} hung up: does it speak TLS, does it accept --tls-cert, and is --tls-key the key of that?"


def _kept(option: str) -> Path | None:
    kept: Path | None = click.get_current_context().meta.get(f"{__name__}.{option.replace('-', '_')}")
    return kept


class _Details(NamedTuple):
    """The details of a call with other metadata, as gRPC wants them of an interceptor."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Shows a token with each call."""

    def __init__(self, source: Callable[[], str]) -> None:
        """Takes what gives the token."""
        self._source = source

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ANN401  # gRPC's
        """Adds the token to a call."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ANN401  # gRPC's
        """Adds the token to a call with many answers."""
        return continuation(self._with_token(client_call_details), request)

    def _with_token(self, call: Any) -> _Details:  # noqa: ANN401  # gRPC's
        metadata = (*(call.metadata or ()), *(metadata_of_blocking(self._source) or ()))
        return _Details(call.method, call.timeout, metadata, call.credentials, call.wait_for_ready, call.compression)
