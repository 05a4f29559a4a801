"""`gatebook health`: asks a server whether it serves, for probes and scripts."""

from __future__ import annotations

import http.client
import json
import sys
from http import HTTPStatus
from typing import NoReturn

import click
from grpc_health.v1 import health_pb2

from gatebook.cli.output import COULD_NOT_ASK, NO, USAGE, YES, channel, fail, json_option, target_option

_TIMEOUT_SECONDS = 3.0
_SERVING = health_pb2.HealthCheckResponse.SERVING


@click.command()
@target_option
@click.option("--service", default="", help="One service, such as `gatebook.v1.AccessService`; else the whole server.")
@click.option("--http", "address", default="", metavar="HOST:PORT", help="Ask where `--metrics` of the server answers.")
@click.option("--alive", is_flag=True, help="With --http: ask only whether the process runs, not whether it serves.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0.1, 60),
    default=_TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@json_option
def health(
    *,
    target: str,
    service: str,
    address: str,
    alive: bool,
    timeout_seconds: float,
    as_json: bool,
) -> None:
    """Ask a server whether it serves: grpc.health.v1, or HTTP.

    Exits 0 when it serves, 1 when it does not (it drains, or its book cannot be written), 3 when nobody answers.

    \b
    gatebook health --target 127.0.0.1:7443
    gatebook health --http 127.0.0.1:9464
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    if address:
        told(ask_http(address, "/livez" if alive else "/readyz", timeout_seconds), as_json=as_json)
    if alive:
        fail("--alive asks over HTTP: name the address with --http", USAGE)
    with channel(target) as opened:
        ask = opened.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = ask(health_pb2.HealthCheckRequest(service=service), timeout=timeout_seconds)
    told(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status), as_json=as_json)


def ask_http(address: str, path: str, timeout_seconds: float) -> str:
    """Returns the health that a server tells over HTTP; ends the command where none answers."""
    try:
        asked = http.client.HTTPConnection(address, timeout=timeout_seconds)
        asked.request("GET", path)
        status = asked.getresponse().status
        asked.close()
    except (OSError, http.client.HTTPException) as error:
        fail(f"no server answers at {address}: {error}", COULD_NOT_ASK)
    return "SERVING" if status == HTTPStatus.OK else "NOT_SERVING"


def told(status: str, *, as_json: bool) -> NoReturn:
    """Says how a server is, and ends the command."""
    click.echo(json.dumps({"status": status}) if as_json else status)
    sys.exit(YES if status == health_pb2.HealthCheckResponse.ServingStatus.Name(_SERVING) else NO)
