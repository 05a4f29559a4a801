"""Where the service is: which targets the client will talk to.

Owns the choice and the check of a target, and opens channels to it. Without TLS the client talks to this
very machine only; no proxy from the environment gets in between.
"""

from __future__ import annotations

import functools
import ipaddress
import os
from typing import cast

import grpc
import grpc.aio

from gatebook_client.credentials import RenewedChannel, Tls
from gatebook_client.errors import InsecureTargetError

DEFAULT_TARGET = "127.0.0.1:7443"
TARGET_VARIABLE = "GATEBOOK_TARGET"
PORT_MAX = 65_535

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.enable_http_proxy", 0),
    # The client retries by itself, within its deadline and budget; two layers of retries multiply.
    ("grpc.enable_retries", 0),
    # A restarted service is found again within a check's deadline.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.primary_user_agent", "gatebook-client"),
)


def open_channel(target: str, tls: Tls | None) -> grpc.aio.Channel:
    """Opens a channel for asyncio; nothing is connected yet.

    Raises:
        CredentialsError: the files of `tls` cannot be read.
    """
    if tls is None:
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    opened = functools.partial(grpc.aio.secure_channel, target, options=CHANNEL_OPTIONS)
    return cast("grpc.aio.Channel", RenewedChannel(tls, opened))


def open_channel_blocking(target: str, tls: Tls | None) -> grpc.Channel:
    """Opens a channel for threads; nothing is connected yet.

    Raises:
        CredentialsError: the files of `tls` cannot be read.
    """
    if tls is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    opened = functools.partial(grpc.secure_channel, target, options=CHANNEL_OPTIONS)
    return cast("grpc.Channel", RenewedChannel(tls, opened))


def choose_target(target: str | None, *, encrypted: bool = False) -> str:
    """Returns the target to dial: the argument, else `GATEBOOK_TARGET`, else 127.0.0.1:7443.

    Raises:
        InsecureTargetError: the target is not `host:port`, or in plain text not on a loopback address.
    """
    chosen = target or os.environ.get(TARGET_VARIABLE, "") or DEFAULT_TARGET
    host, _, port = chosen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= PORT_MAX:
        raise InsecureTargetError(f"target `{chosen}` is not `host:port`; write it like `{DEFAULT_TARGET}`")
    if encrypted:
        return chosen
    # RFC 6761 section 6.3: `localhost` is loopback; a resolver that says otherwise is not asked.
    literal = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    if not _is_loopback(literal):
        raise InsecureTargetError(
            f"target `{chosen}` is not on this machine, and plain text goes to loopback addresses only: "
            "say how to recognise the service with `tls`"
        )
    return f"[{literal}]:{port}" if ":" in literal else f"{literal}:{port}"


def _is_loopback(literal: str) -> bool:
    """Tells whether the text is a loopback address. Names are not: they may resolve to anything."""
    try:
        return ipaddress.ip_address(literal).is_loopback
    except ValueError:
        return False
