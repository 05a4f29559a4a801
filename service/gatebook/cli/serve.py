"""`gatebook serve`: runs the server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gatebook.cli.output import USAGE, fail
from gatebook.config import DEFAULT_LISTEN, WORKERS_MAX, Config, setting
from gatebook.errors import BookUnavailableError, GatebookError, InvalidRequestError

A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--policies",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A policy set to publish when none of its name is active yet; may be repeated.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The subjects to publish when no directory is active yet; else the `directory/` of a set.",
)
@click.option(
    "--data",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the book, the keys and the revisions are kept.",
)
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Without TLS, on this machine only; port 0 picks one.",
)
@click.option(
    "--metrics",
    default="",
    metavar="HOST:PORT",
    help="Tell operators at /metrics, /livez and /readyz; beyond loopback over TLS, with certificates.",
)
@click.option("--traces", is_flag=True, help="Send a span of each call to the collector that OTEL_... variables name.")
@click.option("--tls-cert", type=A_FILE, help="The certificate of the server, with its chain (PEM).")
@click.option("--tls-key", type=A_FILE, help="The key of that certificate.")
@click.option("--client-ca", type=A_FILE, help="Require client certificates, signed by this CA.")
@click.option("--callers", type=A_FILE, help="Whose certificates and tokens count (callers.yaml).")
@click.option("--listen-tokens", default="", metavar="HOST:PORT", help="A second port: TLS, tokens only.")
@click.option(
    "--http",
    default="",
    metavar="HOST:PORT",
    help="Answer AuthZEN requests too. Without TLS, on this machine only; port 0 picks one.",
)
@click.option("--http-url", default="", metavar="URL", help="How callers reach --http, for its metadata.")
@click.option("--origin", default="", help="The origin of a new book, such as `gatebook.example.org/audit`.")
@click.option(
    "--signer",
    type=click.Path(dir_okay=False, path_type=Path, resolve_path=True),
    help="The socket of a program that holds the key of a new book, and signs with it.",
)
@click.option(
    "--witness", multiple=True, metavar="URL=KEY|FILE", help="Have a witness cosign checkpoints; may be repeated."
)
@click.option(
    "--witnesses-needed", type=click.IntRange(min=0), help="How many of them make a checkpoint witnessed; else all."
)
@click.option(
    "--witness-policy", type=A_FILE, help="A file (C2SP tlog-policy) that names witnesses and says so instead."
)
@click.option("--dev", is_flag=True, help="Publish the folders at every start, and let `local` publish.")
@click.option(
    "--reset-gatebook", is_flag=True, help="Publish the set `gatebook` of --policies, or else the shipped one."
)
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=1,
    show_default=True,
    help="Processes that share the port, each with a book of its own.",
)
@click.option("--log", type=click.Choice(["auto", "json", "text"]), default="auto", show_default=True)
def serve(*, log: str, **settings: Any) -> None:  # noqa: ANN401  # click knows the types
    """Serve checks, policies and the book over gRPC.

    \b
    gatebook serve --policies policies/telemetry --data var
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    # The other commands start faster without the server.
    from gatebook.server import run  # noqa: PLC0415
    from gatebook.workers import NOT_NOW, supervise  # noqa: PLC0415

    as_json = log == "json" or (log == "auto" and not sys.stderr.isatty() and setting("log") != "text")
    config = Config(**settings, log_json=as_json)
    try:
        sys.exit(run(config) if config.workers == 1 else supervise(config))
    except InvalidRequestError as error:
        fail(error.message, USAGE)
    except BookUnavailableError as error:
        fail(error.message, NOT_NOW)
    except GatebookError as error:
        for finding in getattr(error, "findings", ()):
            click.echo(f"{finding.file}:{finding.line}:{finding.column}: {finding.message}", err=True)
        fail(error.message, 1)
