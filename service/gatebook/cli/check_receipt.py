"""What `gatebook check` asks, verifies, remembers and keeps of a receipt.

What verifies is imported when it is wanted: who only asks needs no cryptography.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import grpc
import msgspec

from gatebook.cli.output import ASK_TIMEOUT_SECONDS, COULD_NOT_ASK, NO, fail
from gatebook.errors import GatebookError, VerificationError
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook_client.question import RECEIPT_LEVELS, ReceiptName

A_FILE = click.Path(dir_okay=False, path_type=Path)
OPTIONS = (
    click.option(
        "--receipt",
        type=click.Choice(list(RECEIPT_LEVELS)),
        default="basic",
        show_default=True,
        help="How the place in the book is proved: `full` has a signature; `proof` waits for a checkpoint that covers "
        "it, `witnessed` for cosignatures too.",
    ),
    click.option("--vkey", metavar="KEY|FILE", help="The verifier key of the book: verify the receipt."),
    click.option(
        "--witness",
        "witness_keys",
        multiple=True,
        metavar="KEY|FILE",
        help="The key of a witness that must have cosigned its checkpoint; may be repeated.",
    ),
    click.option(
        "--remember", type=A_FILE, help="Remember the newest checkpoint in this file; else in the folder for state."
    ),
    click.option("--proof-file", type=A_FILE, help="Keep the proof in this file, in the form of C2SP tlog-proof."),
)


class Wanted(msgspec.Struct, frozen=True):
    """What the command line says about the receipt."""

    receipt: ReceiptName
    vkey: str | None
    witness_keys: tuple[str, ...]
    remember: Path | None
    proof_file: Path | None

    @property
    def level(self) -> types_pb2.ReceiptLevel.ValueType:
        """Returns the level to ask for."""
        return RECEIPT_LEVELS[self.receipt]

    @property
    def proved(self) -> bool:
        """Tells whether there will be a proof."""
        return self.level >= types_pb2.RECEIPT_LEVEL_PROOF

    def require_sense(self) -> None:
        """Requires options that belong together.

        Raises:
            click.UsageError: they do not.
        """
        if self.vkey is not None and self.receipt == "basic":
            raise click.UsageError("--vkey: a basic receipt proves nothing: add --receipt proof, or full")
        if self.proof_file is not None and not self.proved:
            raise click.UsageError("--proof-file: add --receipt proof, or witnessed")
        if (self.witness_keys or self.remember) and (self.vkey is None or not self.proved):
            raise click.UsageError("--witness and --remember: add --vkey, and --receipt proof or witnessed")


def receipt_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options about receipts to a command, which gets them as one value, `wanted`."""

    @functools.wraps(function)
    def command(**options: Any) -> None:  # noqa: ANN401  # click knows the types
        wanted = Wanted(**{name: options.pop(name) for name in Wanted.__struct_fields__})
        wanted.require_sense()
        function(wanted=wanted, **options)

    for option in reversed(OPTIONS):
        command = option(command)
    return command


def verified_receipt(wanted: Wanted, decision: types_pb2.Decision, opened: grpc.Channel) -> str:
    """Verifies a receipt as far as is wanted, and returns what to tell of it; else ends the command."""
    try:
        if wanted.proof_file is not None:
            from gatebook_client.verify import receipt_proof_file  # noqa: PLC0415  # see the top

            wanted.proof_file.write_bytes(receipt_proof_file(decision))
        if wanted.vkey is None:
            told = "" if wanted.receipt == "basic" else "not verified: name the verifier key of the book with --vkey"
        else:
            told = _verified(wanted, wanted.vkey, decision, opened)
    except VerificationError as error:
        fail(f"NOT VERIFIED: {error.message}", NO)
    except GatebookError as error:
        fail(error.message, COULD_NOT_ASK)
    except OSError as error:
        fail(f"cannot use `{error.filename}`: {error.strerror}", COULD_NOT_ASK)
    else:
        return told


def _verified(wanted: Wanted, vkey: str, decision: types_pb2.Decision, opened: grpc.Channel) -> str:
    from gatebook.cli.memory import policy_of, read_key_text  # noqa: PLC0415  # see the top
    from gatebook.tlog.keys import VerifierKey  # noqa: PLC0415  # as above
    from gatebook.tlog.note import parse_note  # noqa: PLC0415  # as above
    from gatebook_client.verify import verify_receipt, verify_receipt_proof  # noqa: PLC0415  # as above

    key = VerifierKey.parse(read_key_text(vkey))
    receipt = decision.receipt
    if not wanted.proved:
        verify_receipt(decision, str(key))
        return f"entry {receipt.index} is promised by {receipt.origin}"
    covering = verify_receipt_proof(decision, str(key))
    note = receipt.proof.checkpoint.encode()
    witnesses = policy_of(key, wanted.witness_keys, None, None)
    told = f"entry {receipt.index} is in the checkpoint of {covering.size} entries of {covering.origin}"
    if witnesses is not None:
        witnesses.require(parse_note(note))
        told += f", cosigned by {', '.join(each.name for each in witnesses.cosigners(parse_note(note)))}"
    return told + _remembered(wanted, str(key), decision, opened)


def _remembered(wanted: Wanted, vkey: str, decision: types_pb2.Decision, opened: grpc.Channel) -> str:
    """Compares the checkpoint of a receipt with the one that is remembered; returns a warning, if any."""
    from gatebook.cli.memory import memory_of  # noqa: PLC0415  # see the top
    from gatebook.tlog.history import needs_proof, require_continued  # noqa: PLC0415  # as above
    from gatebook.tlog.keys import VerifierKey  # noqa: PLC0415  # as above
    from gatebook.tlog.proof import open_checkpoint  # noqa: PLC0415  # as above

    key = VerifierKey.parse(vkey)
    note = decision.receipt.proof.checkpoint.encode()
    memory = memory_of(key, wanted.remember, forget=False)
    compared = memory.notes()
    newest = note
    for kept in compared:
        # Another command may have seen a newer one since this entry was proved.
        older, newer = sorted((kept, note), key=lambda each: open_checkpoint(each, key).size)
        hashes: list[bytes] = []
        if needs_proof(older, newer, key):
            old, new = open_checkpoint(older, key), open_checkpoint(newer, key)
            request = pb.GetConsistencyProofRequest(old_size=old.size, new_size=new.size, origin=new.origin)
            answer = AuditServiceStub(opened).GetConsistencyProof(request, timeout=ASK_TIMEOUT_SECONDS)
            hashes = list(answer.hashes)
        require_continued(older, newer, key, hashes)
        newest = newer
    warning = memory.put(newest, compared)
    return f" ({warning})" if warning else ""
