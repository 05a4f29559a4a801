"""One HTTP connection: uvicorn's, with the time limits that it lacks, and with the client's certificate.

Rules:

1. the head of a request is complete within `HEAD_SECONDS` of its first byte, the first within that of the connection;
2. a connection that is idle, or whose client does not take its answer, is closed after `IDLE_SECONDS`;
3. a connection over the limit is closed at once;
4. the certificate is that whose chain the handshake verified, or none; who goes on with a session from before the
   client CA changed has to begin anew.
"""

from __future__ import annotations

import asyncio
import ssl

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gatebook.door.tls_files import TlsFiles

HEAD_BYTES_MAX = 16 * 1024
HEAD_SECONDS = 10.0
IDLE_SECONDS = 20
CERTIFICATE, ABORT = "certificate", "abort"
"""Where in the state of a request the certificate stands (PEM), and what ends its connection at once."""


class Connection(H11Protocol):
    """One connection of the gateway."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, connections_max: int, tls: TlsFiles | None = None
    ) -> None:
        """Takes the settings, the connections that are open, how many may be, and what verifies certificates."""
        super().__init__(config, state, {})
        self._connections_max = connections_max
        self._tls = tls
        self._head_timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begins, or ends at once where there are too many."""
        super().connection_made(transport)
        secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        verified = self._tls is None or secured is None or self._tls.has_verified(secured)
        if len(self.connections) > self._connections_max or not verified:
            transport.abort()
            return
        self.app_state = {CERTIFICATE: certificate_of(transport), ABORT: transport.abort}
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Reads what came."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Goes on with the next request, of which a part may have come already."""
        super().on_response_complete()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._forget_head()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection that is idle; where an answer is still on its way, only if nothing of it was taken."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent == self._unsent_bytes:
            self.transport.abort()
        elif unsent:
            self._unsent_bytes = unsent
            self.timeout_keep_alive_task = self.loop.call_later(IDLE_SECONDS, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _watch_head(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect_head()
        elif self.conn.their_state is not h11.IDLE:
            self._forget_head()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def certificate_of(transport: asyncio.Transport) -> bytes:
    """Returns the client's certificate in PEM, or nothing."""
    connection = transport.get_extra_info("ssl_object")
    shown = None if connection is None else connection.getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(shown).encode() if shown else b""
