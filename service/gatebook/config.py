"""The settings of a server, and the limits of its calls.

Owns the environment: no other module reads it. A server is told everything on its command line; of the
environment only `GATEBOOK_TARGET` (whom the commands ask), `GATEBOOK_LOG` and, for what the commands remember,
`XDG_STATE_HOME` count. Limits are constants of
a deployment; those of the book are in `audit.limits`, and a bound that one module alone needs stands in it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gatebook.errors import InvalidRequestError

DEFAULT_LISTEN = "127.0.0.1:7443"
PORT_MAX = 65_535
KIB = 1024
MIB = 1024 * KIB


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller may have under way, and how fast it may call: a share of the limits of the server.

    A rate is that of a bucket that holds `BURST_SECONDS` worth of it; what is more is refused until it refills.
    """

    calls_in_flight: int = 500
    streams: int = 50
    items_in_flight: int = 5_000
    """Checks accepted and not yet answered."""
    bytes_in_flight: int = 32 * MIB
    """Questions that are not answered yet, and answers that are not taken yet."""
    changes_in_flight: int = 2
    """Calls that validate or publish."""
    calls_per_second: float = 10_000.0
    checks_per_second: float = 20_000.0
    reads_per_second: float = 50.0
    """Calls that read the book, search, or look at revisions."""
    changes_per_second: float = 2.0


LOCAL_QUOTA = Quota(
    calls_in_flight=1_500,
    streams=150,
    items_in_flight=15_000,
    bytes_in_flight=64 * MIB,
    changes_in_flight=4,
    calls_per_second=50_000.0,
    checks_per_second=200_000.0,
    reads_per_second=500.0,
    changes_per_second=50.0,
)
"""The quota of `local`: whoever is on this machine shares it, and it is most of what the server gives."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one server. A larger request is refused, never cut."""

    access_bytes_max: int = 16 * KIB
    """One AccessRequest. With it a decision entry always fits 65,535 bytes (see audit.entry)."""
    subject_id_bytes_max: int = 256
    resource_id_bytes_max: int = 512
    name_bytes_max: int = 128
    """An action, purpose, type, column, request id or correlation id."""
    columns_max: int = 256
    json_depth_max: int = 16
    batch_items_max: int = 1_000
    batch_bytes_max: int = 2 * MIB
    """The questions of one batch together, so that their entries fit one group of the book."""
    items_in_flight_max: int = 20_000
    """Checks accepted and not yet answered, over all calls."""
    calls_in_flight_max: int = 2_000
    bytes_in_flight_max: int = 128 * MIB
    """The same over all callers."""
    changes_in_flight_max: int = 8
    """Calls that validate or publish, and hold whole policy sets."""
    quota: Quota = Quota()
    """What each caller has who has no quota of its own."""
    local_quota: Quota = LOCAL_QUOTA
    callers_tracked_max: int = 10_000
    """Callers whose quotas are counted singly; what comes on top shares one quota."""
    stream_messages_in_flight_max: int = 8
    """Messages of one stream that are worked on at once; the next is not read before one is done."""
    streams_max: int = 200
    connections_max: int = 10_000
    """Connections that are open at once; more are closed at once."""
    files_reserved: int = 128
    """File descriptors that connections leave to the book, or half of what the process has."""
    message_bytes_max: int = 9 * MIB
    """The largest gRPC message. What is larger, such as a policy set of a million lines, comes in parts."""
    request_seconds: float = 30.0
    """How long the request of a call may take to arrive."""
    slow_requests_max: int = 32
    """Requests that may take longer than a moment to arrive, over all callers; one has a quarter of it."""
    stream_idle_seconds: float = 900.0
    """How long a stream may be open without a question."""
    send_seconds: float = 30.0
    """How long an answer may wait until its caller takes it; then the connection is closed."""
    health_calls_max: int = 1_000
    """Calls at once that ask for the health, and as many that watch it: they need no caller."""
    handshake_seconds: float = 10.0
    """How long a connection may take until HTTP/2, and TLS where there is any, is agreed on."""
    idle_seconds: float = 600.0
    """How long a connection may be open without a call."""
    connection_seconds_max: float = 3_600.0
    """How old a connection may grow; the next is checked against the CA of then. Calls under way go on."""
    metadata_bytes_max: int = 16 * KIB
    """The headers of one call, a bearer token included."""
    answer_bytes_max: int = 64 * MIB
    """The largest answer: a batch in which each decision has a full receipt."""
    policy_files_max: int = 1_000
    policy_bytes_max: int = 48 * MIB
    """A policy set or a directory, in one message or several."""
    page_size_max: int = 1_000
    page_size_default: int = 50
    receipt_seconds: float = 5.0
    """How long a call waits for a receipt with a proof, or for a signature; less where its deadline is sooner."""
    drain_seconds: float = 10.0
    retry_seconds: float = 0.1


WORKERS_MAX = 64


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What one server is told at its start."""

    policies: tuple[Path, ...]
    data: Path
    directory: Path | None = None
    listen: str = DEFAULT_LISTEN
    metrics: str = ""
    """Where operators find metrics and health; empty means nowhere."""
    traces: bool = False
    """Whether calls are told to a collector of OpenTelemetry."""
    listen_tokens: str = ""
    """A second address, TLS without client certificates, for callers with tokens; empty for none."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    callers: Path | None = None
    http: str = ""
    """Where AuthZEN requests are answered; empty means nowhere."""
    http_url: str = ""
    """How callers reach that address, if not as their `Host` header says."""
    origin: str = ""
    witness: tuple[str, ...] = ()
    """Who is asked to cosign checkpoints: `URL=KEY` each."""
    witnesses_needed: int | None = None
    """How many of them must have; None means all."""
    witness_policy: Path | None = None
    """A file in the form of C2SP tlog-policy that says so instead."""
    signer: Path | None = None
    """The socket of a program that holds the book's key; None where it is in the data directory, or the book knows."""
    dev: bool = False
    reset_gatebook: bool = False
    log_json: bool = True
    workers: int = 1
    worker: int = 0
    """Which of the workers this process is, from 0."""
    sockets: Path | None = None
    """Where the workers of one service speak to each other; None where there is one."""
    limits: Limits = Limits()


def home_of(config: Config) -> Path:
    """Returns where a worker keeps its book: the first in the data directory itself, the others beneath it."""
    return config.data / "workers" / str(config.worker) if config.worker else config.data


def setting(name: str, default: str = "", environ: Mapping[str, str] | None = None) -> str:
    """Returns the setting `GATEBOOK_<NAME>` of the environment, or the default where it is unset or empty."""
    return (os.environ if environ is None else environ).get(f"GATEBOOK_{name.upper()}") or default


def state_home(environ: Mapping[str, str] | None = None) -> Path:
    """Returns the folder for what commands remember (XDG Base Directory Specification)."""
    stated = Path((os.environ if environ is None else environ).get("XDG_STATE_HOME", ""))
    return (stated if stated.is_absolute() else Path.home() / ".local" / "state") / "gatebook"


def require_loopback(address: str, option: str = "listen") -> None:
    """Requires an address that is on this machine alone.

    Plaintext is served on the loopback interface only, since whoever reaches the port is the
    caller `local`.

    Raises:
        InvalidRequestError: the address is malformed or reaches beyond loopback.
    """
    if not is_loopback(require_address(address, option)):
        raise InvalidRequestError(
            option,
            f"`{address}` is reachable from other machines, which needs TLS: give --tls-cert and --tls-key, "
            "or listen on 127.0.0.1 or [::1]",
        )


def require_guarded(config: Config) -> None:
    """Requires that only who may sees the metrics: this machine, or who shows a certificate.

    Raises:
        InvalidRequestError: the address is malformed, or reaches beyond loopback without a client CA.
    """
    host = require_address(config.metrics, "metrics")
    if not is_loopback(host) and (config.tls_cert is None or config.client_ca is None):
        raise InvalidRequestError(
            "metrics",
            f"`{config.metrics}` is reachable from other machines, which needs TLS and certificates of those who "
            "scrape: give --tls-cert, --tls-key and --client-ca, or listen on 127.0.0.1 or [::1]",
        )


def require_address(address: str, option: str = "listen") -> str:
    """Returns the host of an address.

    Raises:
        InvalidRequestError: it is malformed.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        raise InvalidRequestError(option, f"`{address}` is not HOST:PORT, such as `{DEFAULT_LISTEN}`")
    return host.removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Tells whether a host is this machine alone. Names are not, except `localhost`: they may mean anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
