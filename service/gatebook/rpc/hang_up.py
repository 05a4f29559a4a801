"""Closes connections of callers who do not read or do not write.

gRPC lets a server end a call only with a status, which waits behind the answer that is not taken. So the
connection is shut down beneath it: gRPC then sees that the caller has gone, and lets go of its calls.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote

DESCRIPTORS = Path("/proc/self/fd")


def address_of(peer: str) -> tuple[str, int] | None:
    """Returns the address that gRPC names as `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; None for others."""
    family, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if family not in {"ipv4", "ipv6"} or not port.isdigit():
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def hang_up(addresses: Collection[tuple[str, int]], ports: Collection[int]) -> int:
    """Shuts down the connections from these addresses to these ports of this process; returns how many there were."""
    found = 0
    for path in list(DESCRIPTORS.iterdir()):
        descriptor = int(path.name)
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            # INVARIANT: what is looked at is what is shut down, even if the number is given away in between.
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                if connection.family not in {socket.AF_INET, socket.AF_INET6}:
                    continue
                own, peer = connection.getsockname(), connection.getpeername()
                if own[1] in ports and (plain(peer[0]), peer[1]) in addresses:
                    connection.shutdown(socket.SHUT_RDWR)
                    found += 1
    return found


def plain(host: str) -> str:
    """Returns an IPv4 address as such, also where an IPv6 socket shows it."""
    return host.removeprefix("::ffff:")
