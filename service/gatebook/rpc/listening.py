"""The gRPC server: its services, its port and its health.

Owns what listens for gRPC calls, and in which order it begins and ends: services, port, health; then
NOT_SERVING, the door drained, and only then the port closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from gatebook.config import Config, Limits
from gatebook.door.door import Door
from gatebook.door.tls_files import Identity, TlsFiles
from gatebook.envoy import external_auth_pb2, external_auth_pb2_grpc
from gatebook.errors import ListenError
from gatebook.rpc import channelz_service
from gatebook.rpc.access_service import AccessServicer
from gatebook.rpc.audit_service import AuditServicer
from gatebook.rpc.checking import Checking
from gatebook.rpc.edge import Edge
from gatebook.rpc.envoy_service import EnvoyServicer, refused
from gatebook.rpc.explain_service import ExplainServicer
from gatebook.rpc.health import Health
from gatebook.rpc.intake import Intake
from gatebook.rpc.plan_service import PlanServicer
from gatebook.rpc.policy_service import PolicyServicer
from gatebook.rpc.receipts import Receipts
from gatebook.rpc.search_service import SearchServicer
from gatebook.rpc.team import POLICY_SERVICE, Team, joined
from gatebook.service import Service
from gatebook.v1 import (
    access_service_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    policy_service_pb2,
    policy_service_pb2_grpc,
)

ENVOY_SERVICE = external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name
SERVICES = (
    access_service_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name,
    policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name,
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
    ENVOY_SERVICE,
)
CHANNELZ = channelz_service.SERVICE.full_name
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

PING_SECONDS = 20
"""How often a silent connection is asked whether it is there, and how long it has to answer."""
PING_LEAST_SECONDS = 5
"""How often a caller may ask the same."""


@contextlib.asynccontextmanager
async def listening(service: Service, door: Door, config: Config, tls: TlsFiles | None = None) -> AsyncIterator[int]:
    """Listens for calls within the block, then drains the door; gives the port."""
    limits = config.limits
    edge = Edge(door)
    server = Intake(grpc.aio.server(options=options_of(config)), edge, limits)
    async with contextlib.AsyncExitStack() as stack:
        team = None
        if config.workers > 1 and config.sockets is not None:
            team = await stack.enter_async_context(joined(service, door, config, config.sockets))
        checks = add_services(server, service, edge, config, team)
        port = add_port(server, config.listen, tls)
        if config.listen_tokens:
            token_port = add_port(server, config.listen_tokens, tls, with_certificates=False)
            address = f"{config.listen_tokens.rpartition(':')[0]}:{token_port}"
            structlog.get_logger("gatebook.server").info("listening for tokens", listen=address)
        await server.start()
        watches = [asyncio.create_task(watch) for watch in (checks.keep(), server.patience.keep())]
        try:
            yield port
        finally:
            checks.stop()
            service.publishing.close()  # who waits for a build is told at once, and a large one would outlast the drain
            await door.admission.drain(limits.drain_seconds)
            await server.stop(grace=1.0)
            for watch in watches:
                watch.cancel()


def add_port(server: grpc.aio.Server, address: str, tls: TlsFiles | None, *, with_certificates: bool = True) -> int:
    """Adds a port to a server, plain text or TLS, and returns its number.

    Raises:
        ListenError: it cannot be had.
    """
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, server_credentials(tls, with_certificates=with_certificates))
    except RuntimeError as err:
        raise ListenError(f"cannot listen on {address}: is the port taken by another process?") from err


def server_credentials(tls: TlsFiles, *, with_certificates: bool) -> grpc.ServerCredentials:
    """Returns credentials that follow the files.

    gRPC for Python knows a port that requires client certificates and one that does not ask for them, and
    none that asks without requiring.
    """
    required = with_certificates and tls.asks_for_certificates
    served = tls.current

    def configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
        pairs = [(identity.key, identity.certificate)]
        return grpc.ssl_server_certificate_configuration(pairs, identity.client_ca if required else None)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Asked before each handshake, in a thread of gRPC; None leaves what it has.
        nonlocal served
        current = tls.current
        if current is served:
            return None
        served = current
        return configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        configuration(served),
        fetch,  # type: ignore[arg-type]  # None is allowed, says its documentation
        require_client_authentication=required,
    )


def add_services(server: Intake, service: Service, edge: Edge, config: Config, team: Team | None = None) -> Health:
    """Adds every service to a server; returns the one that answers for its health.

    One of several workers answers for the books of all, and one that follows passes on what concerns policy sets.
    """
    limits = config.limits
    receipts = Receipts(service.key, service.reader.prover, limits)
    checking = Checking(service.revisions, service.recorder, receipts, edge, limits)
    envoy = EnvoyServicer(service.revisions, service.recorder, receipts, edge, limits)
    if team is None:
        audit: audit_service_pb2_grpc.AuditServiceServicer = AuditServicer(
            service.reader, service.recorder, service.keeping, edge
        )
    else:
        audit = team.audit(edge, config)
    checks = Health(service, SERVICES)
    AccessServicer(checking, edge, limits).add_to(server)
    PlanServicer(service, receipts, edge, limits).add_to(server)
    SearchServicer(service, edge, limits).add_to(server)
    ExplainServicer(service, edge, None if team is None else team.channels).add_to(server)
    if team is not None and config.worker:
        server.add_registered_method_handlers(POLICY_SERVICE.full_name, team.policies(edge))
    else:
        policy = PolicyServicer(service, receipts, edge, limits)
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policy, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
    server.answer_errors(ENVOY_SERVICE, refused)
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(envoy, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    add_foreign_services(server, edge)
    return checks


def add_foreign_services(server: Intake, edge: Edge) -> None:
    """Adds reflection and channelz, and what answers where no service does."""
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME, CHANNELZ)
    reflecting = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, server)  # type: ignore[no-untyped-call]  # it has no types
    # The messages of version 1 are those of v1alpha under another name.
    method = grpc.stream_stream_rpc_method_handler(
        reflecting.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_registered_method_handlers(REFLECTION_V1, {"ServerReflectionInfo": method})
    server.add_registered_method_handlers(CHANNELZ, channelz_service.methods(edge))
    server.add_everything_else()


def options_of(config: Config) -> list[tuple[str, int]]:
    """Returns the options of gRPC: what it refuses and closes by itself, before any call of ours."""
    limits = config.limits
    return [
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_send_message_length", limits.answer_bytes_max),
        ("grpc.max_allowed_incoming_connections", connections_max(limits)),
        # Calls over the limit are told why; of those beyond, the connection holds back.
        ("grpc.max_concurrent_streams", 2 * limits.calls_in_flight_max),
        # A stream that nobody reads holds no more than the first window, however fast its connection is.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes_max),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_seconds * 1_000)),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1_000)),
        ("grpc.max_connection_age_ms", int(limits.connection_seconds_max * 1_000)),
        # Who has gone without a word, or reads nothing, does not answer a ping; who pings too often is sent away.
        ("grpc.keepalive_time_ms", PING_SECONDS * 1_000),
        ("grpc.keepalive_timeout_ms", PING_SECONDS * 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_LEAST_SECONDS * 1_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.so_reuseport", int(config.workers > 1)),
    ]


def connections_max(limits: Limits) -> int:
    """Returns how many connections may be open, so that the book can still open its files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return limits.connections_max
    return min(limits.connections_max, files - min(limits.files_reserved, files // 2))
