"""Where the service is: which targets the client will talk to.

Owns the choice and the check of a target. Until the client speaks TLS it talks in plain text, and
so only to this very machine; no proxy from the environment gets in between.
"""

from __future__ import annotations

import ipaddress
import os

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


def choose_target(target: str | None) -> str:
    """Returns the target to dial: the argument, else `GATEBOOK_TARGET`, else 127.0.0.1:7443.

    Raises:
        InsecureTargetError: the target is not `host:port` on a loopback address.
    """
    chosen = target or os.environ.get(TARGET_VARIABLE, "") or DEFAULT_TARGET
    host, _, port = chosen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= PORT_MAX:
        raise InsecureTargetError(f"target `{chosen}` is not `host:port`; write it like `{DEFAULT_TARGET}`")
    # RFC 6761 section 6.3: `localhost` is loopback; a resolver that says otherwise is not asked.
    literal = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    if not _is_loopback(literal):
        raise InsecureTargetError(
            f"target `{chosen}` is not on this machine: this client speaks plain text and only to "
            "loopback addresses; run gatebook beside the application, or tunnel to a loopback port"
        )
    return f"[{literal}]:{port}" if ":" in literal else f"{literal}:{port}"


def _is_loopback(literal: str) -> bool:
    """Tells whether the text is a loopback address. Names are not: they may resolve to anything."""
    try:
        return ipaddress.ip_address(literal).is_loopback
    except ValueError:
        return False
