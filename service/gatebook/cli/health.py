"""`gatebook health`: asks a server whether it serves, for probes and scripts."""

from __future__ import annotations

import json
import sys

import click
from grpc_health.v1 import health_pb2

from gatebook.cli.output import NO, YES, channel, json_option, target_option

_TIMEOUT_SECONDS = 3.0


@click.command()
@target_option
@click.option("--service", default="", help="One service, such as `gatebook.v1.AccessService`; else the whole server.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0.1, 60),
    default=_TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@json_option
def health(*, target: str, service: str, timeout_seconds: float, as_json: bool) -> None:
    """Ask a server whether it serves: grpc.health.v1.

    Exits 0 when it serves, 1 when it does not (it drains, or its book cannot be written), 3 when nobody answers.

    \b
    gatebook health --target 127.0.0.1:7443
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    with channel(target) as opened:
        ask = opened.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service=service)
        answer = ask(request, timeout=timeout_seconds)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    click.echo(json.dumps({"status": status}) if as_json else status)
    sys.exit(YES if answer.status == health_pb2.HealthCheckResponse.SERVING else NO)
