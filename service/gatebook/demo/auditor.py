"""The chapter of the auditor, who trusts nobody: a copy of the book and the verifier key are enough.

Owns what the auditor keeps from the first day on (the verifier key, a checkpoint, the receipts of others), the
proof of one decision, the verification of a copy, and what comes of one flipped bit.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gatebook_client
from gatebook.audit.tile_folder import TileFolder
from gatebook.demo.gate import Gate
from gatebook.demo.processes import Processes
from gatebook.demo.promises import Promises
from gatebook.demo.stage import count
from gatebook.demo.tamper import flip_bit
from gatebook.errors import VerificationError
from gatebook.tlog.tiles import TILE_WIDTH
from gatebook.v1.types_pb2 import ReasonCode
from gatebook_client.verify import proof_file, verify_checkpoint, verify_proof_file

TIMEOUT_SECONDS = 30.0


class Auditor:
    """What the auditor keeps, in a folder of the auditor's own."""

    def __init__(self, folder: Path, gate: Gate) -> None:
        """Notes the verifier key and the checkpoint of the first day."""
        folder.mkdir()
        self.book = folder / "book"
        self.vkey = folder / "gatebook.vkey"
        self.seen = folder / "seen.checkpoint"
        self.receipts = folder / "receipts.jsonl"
        self.proof = folder / "decision.tlog-proof"
        self.size = 0
        shutil.copyfile(gate.data / "book" / "vkey", self.vkey)
        with gatebook_client.connect_blocking(gate.target, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
            note = gatebook.checkpoint(refresh=True).checkpoint
        self.seen_size = verify_checkpoint(note, self.key).size
        self.seen.write_text(note, encoding="utf-8")

    @property
    def key(self) -> str:
        """Returns the verifier key."""
        return self.vkey.read_text(encoding="utf-8").strip()

    def collect(self, receipts: Sequence[str]) -> None:
        """Collects the receipts that clients hold, one line of JSON each."""
        self.receipts.write_text("".join(receipts), encoding="utf-8")

    def prove(self, gate: Gate, receipt: Mapping[str, Any]) -> str:
        """Asks for the proof of one receipt's entry and keeps it; returns its text."""
        with gatebook_client.connect_blocking(gate.target, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
            gatebook.checkpoint(refresh=True)
            answer = gatebook.inclusion_proof(int(receipt["index"]))
        self.proof.write_bytes(proof_file(answer))
        return self.proof.read_text(encoding="utf-8")

    def check_proof(self, promises: Promises, receipt: Mapping[str, Any]) -> None:
        """Checks the kept proof with nothing but the receipt and the verifier key."""
        entry = base64.b64decode(receipt["entry_bytes"])
        try:
            covering = verify_proof_file(self.proof.read_bytes(), entry, self.key)
        except VerificationError as error:
            told, kept = error.message, False
        else:
            told, kept = f"entry {receipt['index']} of {count(covering.size)}", True
        promises.check("the proof of one decision holds, checked offline", kept=kept, told=told)

    def copy(self, gate: Gate) -> None:
        """Copies the published book, as it lies there."""
        shutil.copytree(gate.data / "book", self.book)
        self.size = verify_checkpoint((self.book / "checkpoint").read_bytes(), self.key).size

    def verify(self, processes: Processes, promises: Promises) -> list[str]:
        """Verifies the copy with `gatebook audit verify`; returns what it printed."""
        kept_files = ("--checkpoint", str(self.seen), "--receipts", str(self.receipts))
        done = processes.run("gatebook", "audit", "verify", str(self.book), "--vkey", str(self.vkey), *kept_files)
        promises.check(
            "a copy of the book is verified offline, with all receipts",
            kept=done.returncode == 0 and done.stdout.startswith("VERIFIED"),
            told=done.stderr.strip() or f"{count(self.size)} entries",
        )
        return done.stdout.splitlines()

    def check_leaves(self, promises: Promises, leaves: Mapping[int, bytes]) -> None:
        """Compares what receipts without a signature promise with the copied book."""
        tiles = TileFolder(self.book)
        stored = [leaf for number in range(-(-self.size // TILE_WIDTH)) for leaf in tiles.hashes(0, number, self.size)]
        missing = [f"entry {i}" for i, leaf in leaves.items() if i >= len(stored) or stored[i] != leaf]
        promises.check_all(
            "receipts without a signature are in the copy too", missing, told=count(len(leaves), "receipt")
        )

    def tamper(self, processes: Processes, promises: Promises, index: int) -> tuple[Path, list[str]]:
        """Flips one bit of an entry in the copy and verifies again; returns the file and what was printed."""
        path = flip_bit(self.book, index, self.size)
        done = processes.run("gatebook", "audit", "verify", str(self.book), "--vkey", str(self.vkey))
        named = f"first bad index: {index})" in done.stderr
        promises.check(
            "one flipped bit is found, and its entry named",
            kept=done.returncode == 1 and named,
            told=f"entry {index}" if named else done.stderr.strip() or "it was not found",
        )
        return path, done.stderr.splitlines()


def tried(gate: Gate, subject: str, dataset: str) -> list[tuple[str, ...]]:
    """Returns what the book knows of a subject's questions about a dataset, one row each, the oldest first."""
    with gatebook_client.connect_blocking(gate.target, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        records = list(gatebook.entries(oldest_first=True, subject_id=subject, resource_id=dataset))
    return [
        (
            str(record.index),
            f"{record.entry.entry_time.ToDatetime():%H:%M:%S}",
            record.request.purpose,
            ReasonCode.Name(record.entry.decision.reason).removeprefix("REASON_CODE_"),
        )
        for record in records
    ]


def stop_gate(gate: Gate, promises: Promises) -> None:
    """Stops the server as an operator does."""
    code = gate.stop()
    promises.check("the server stops in order when told to", kept=code == 0, told=f"exit code {code}")
