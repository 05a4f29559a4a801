"""`gatebook audit checkpoint`: asks a server for its newest checkpoint, verifies and remembers it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click

from gatebook.cli.audit_filter import origin_option
from gatebook.cli.audit_verify import told_failure
from gatebook.cli.memory import memory_of, memory_options, policy_of, read_key_text, witness_options
from gatebook.cli.output import ASK_TIMEOUT_SECONDS, COULD_NOT_ASK, channel, fail, json_option, target_option, told_time
from gatebook.errors import GatebookError, VerificationError
from gatebook.tlog.history import needs_proof, require_continued
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.note import parse_note
from gatebook.tlog.policy import NOBODY, WitnessPolicy
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

AGAIN_SECONDS = 0.5


@click.command(short_help="Verify that the newest checkpoint continues the one remembered.")
@click.option("--vkey", required=True, metavar="KEY|FILE", help="The verifier key of the book, or a file with it.")
@memory_options
@witness_options
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0, 3_600),
    default=0,
    help="Ask again for so many seconds until enough witnesses have cosigned.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the checkpoint to this file.")
@origin_option
@target_option
@json_option
def checkpoint(  # noqa: PLR0913  # each is an option
    *,
    vkey: str,
    remember: Path | None,
    forget: bool,
    witness_keys: tuple[str, ...],
    witnesses_needed: int | None,
    witness_policy: Path | None,
    wait_seconds: float,
    out: Path | None,
    origin: str,
    target: str,
    as_json: bool,
) -> None:
    """Ask for the newest checkpoint, verify that it continues the one remembered, and remember it.

    Needs no copy of the book, and no entry: what is needed is a proof of a few hashes. With witnesses it is the newest
    checkpoint that enough of them cosigned. Exits 1 when the book does not continue, and prints both checkpoints.

    \b
    gatebook audit checkpoint --vkey gatebook.vkey
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    try:
        key = VerifierKey.parse(read_key_text(vkey))
        witnesses = policy_of(key, witness_keys, witnesses_needed, witness_policy)
        memory = memory_of(key, remember, forget=forget)
        with channel(target) as opened:
            stub = AuditServiceStub(opened)
            note = newest(stub, witnesses, origin, wait_seconds)
            remembered = memory.notes()
            kept_size = advance(stub, key, note, remembered, origin)
        cosigned = witnesses.cosigners(parse_note(note)) if witnesses else ()
        warning = memory.put(note, remembered)
        if out is not None:
            out.write_bytes(note)
    except VerificationError as error:
        told_failure(error, as_json=as_json)
    except GatebookError as error:
        fail(error.message, COULD_NOT_ASK)
    except OSError as error:
        fail(f"cannot use `{error.filename}`: {error.strerror}", COULD_NOT_ASK)
    else:
        shown = open_checkpoint(note, key)
        times = {each.name: told_time(each.seconds) for each in cosigned}
        if as_json:
            fields = {
                "verified": True,
                "origin": shown.origin,
                "size": shown.size,
                "remembered_size": kept_size,
                "cosigned": times,
                "checkpoint": note.decode(),
                "warnings": [warning] if warning else [],
            }
            click.echo(json.dumps(fields, indent=2, ensure_ascii=False))
            return
        click.echo(f"VERIFIED checkpoint of {shown.size} entries of {shown.origin}")
        if kept_size:
            click.echo(f"  continues    the remembered checkpoint of size {kept_size}")
        for name, time in times.items():
            click.echo(f"  witnessed    by {name} at {time}")
        if warning:
            click.echo(f"  note         {warning}")


def newest(stub: AuditServiceStub, witnesses: WitnessPolicy | None, origin: str, wait_seconds: float) -> bytes:
    """Returns the newest checkpoint that has enough cosignatures.

    Raises:
        VerificationError: there is none by then.
    """
    until = time.monotonic() + wait_seconds
    while True:
        answer = stub.GetCheckpoint(pb.GetCheckpointRequest(origin=origin), timeout=ASK_TIMEOUT_SECONDS)
        try:
            return chosen(answer, witnesses)
        except VerificationError:
            if time.monotonic() > until:
                raise
            time.sleep(AGAIN_SECONDS)


def advance(stub: AuditServiceStub, key: VerifierKey, note: bytes, remembered: Sequence[bytes], origin: str) -> int:
    """Returns the size that is remembered, once a checkpoint is verified to continue it.

    Raises:
        VerificationError: it is not signed, or does not continue.
        OSError: what is remembered cannot be read.
    """
    shown = open_checkpoint(note, key)
    for kept in remembered:
        size = open_checkpoint(kept, key).size
        hashes: list[bytes] = []
        if needs_proof(kept, note, key):
            request = pb.GetConsistencyProofRequest(old_size=size, new_size=shown.size, origin=origin)
            hashes = list(stub.GetConsistencyProof(request, timeout=ASK_TIMEOUT_SECONDS).hashes)
        require_continued(kept, note, key, hashes)
        return size
    return 0


def chosen(answer: pb.GetCheckpointResponse, witnesses: WitnessPolicy | None) -> bytes:
    """Returns the newest checkpoint of an answer that has enough cosignatures.

    Raises:
        VerificationError: none has.
    """
    note = answer.checkpoint.encode()
    if witnesses is None or witnesses.quorum == NOBODY:
        return note
    try:
        witnesses.require(parse_note(note))
    except VerificationError:
        if not answer.witnessed_checkpoint:
            raise
        note = answer.witnessed_checkpoint.encode()
        witnesses.require(parse_note(note))
    return note
