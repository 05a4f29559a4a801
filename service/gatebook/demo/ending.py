"""The ending of the story: the auditor's verification, and every promise with what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gatebook.demo.audience import Audience
from gatebook.demo.auditor import Auditor, stop_gate, tried
from gatebook.demo.cast import LEADERBOARD
from gatebook.demo.gate import Gate
from gatebook.demo.processes import Processes
from gatebook.demo.promises import Promises
from gatebook.demo.readers import Asked
from gatebook.demo.stage import Stage, count, mark

HASHES_SHOWN = 3


def tell_auditor(
    stage: Stage,
    processes: Processes,
    gate: Gate,
    auditor: Auditor,
    promises: Promises,
    asked: Sequence[Asked],
    audiences: Sequence[Audience],
) -> int:
    """Plays the auditor; returns the index of the entry that was tampered with."""
    stage.chapter(
        "The auditor trusts nobody",
        "Who tried, and was refused, is in the book as well. A copy of the book and its key are enough to prove "
        "it: no server, no word of ours, and tools that others wrote for the same format work too.",
    )
    dataset = LEADERBOARD.questions[0].dataset
    stage.say(f"What the book knows of `{LEADERBOARD.subject}` and `{dataset}`:")
    stage.gap()
    rows = tried(gate, LEADERBOARD.subject, dataset)
    stage.table(("entry", "time (UTC)", "purpose", "answer"), rows, right=("entry",))
    subjects = [outcome for actor, _, outcome in asked if actor is LEADERBOARD]
    promises.check(
        "every attempt of the rogue leaderboard is in the book",
        kept=[row[0] for row in rows] == [outcome.receipt.get("index", "0") for outcome in subjects],
        told=count(len(rows), "attempt"),
    )
    receipt = subjects[0].receipt
    proof = auditor.prove(gate, receipt)
    stage.gap()
    stage.say(f"The proof that entry {receipt['index']} is in the book (C2SP tlog-proof):")
    stage.gap()
    stage.verbatim(shortened(proof.splitlines()))
    stop_gate(gate, promises)
    auditor.copy(gate)
    auditor.check_proof(promises, receipt)
    stage.gap()
    stage.say("The server is stopped. The auditor verifies a copy of the book:")
    stage.gap()
    with stage.working("verifying the book"):
        printed = auditor.verify(processes, promises)
        auditor.check_leaves(promises, other_leaves(audiences))
    command = "$ gatebook audit verify book --vkey gatebook.vkey --checkpoint seen.checkpoint \\"
    stage.verbatim([command, "    --receipts receipts.jsonl", *printed])
    index = int(receipt["index"])
    path, printed = auditor.tamper(processes, promises, index)
    stage.gap()
    stage.say(f"Then somebody flips one bit of entry {index} in the copy, in {path}:")
    stage.gap()
    stage.verbatim(["$ gatebook audit verify book --vkey gatebook.vkey", *printed])
    return index


def other_leaves(audiences: Sequence[Audience]) -> Mapping[int, bytes]:
    """Returns what the receipts about everybody promise, which have no signature."""
    return {index: leaf for audience in audiences for index, leaf in audience.leaves.items()}


def shortened(lines: Sequence[str]) -> list[str]:
    """Leaves out the middle of a proof's hashes."""
    blank = lines.index("")
    hashes = lines[2:blank]
    if len(hashes) > HASHES_SHOWN:
        hashes = [*hashes[: HASHES_SHOWN - 1], f"... {len(hashes) - HASHES_SHOWN} more ...", hashes[-1]]
    return [*lines[:2], *hashes, *lines[blank:]]


def tell_promises(stage: Stage, promises: Promises, seconds: float) -> None:
    """Lists every promise, with what came of it."""
    stage.chapter(
        "What was promised, and what came of it", f"Each line was checked on the way, in {seconds:.0f} seconds."
    )
    stage.table(
        ("", "promise", "checked on"),
        [(mark(kept=one.kept), one.promise, one.told) for one in promises.checked],
        whole=("promise", "checked on"),
    )
    for one in promises.checked:
        if not one.kept:
            stage.gap()
            stage.say(f"BROKEN: {one.promise}: {one.told}", "bold red")


def tell_where_next(stage: Stage, kept: Path | None) -> None:
    """Says where to look next."""
    stage.gap()
    if kept is None:
        stage.say("Nothing is left behind. To look at the store, the book and the proof: gatebook demo --keep DIR")
    else:
        stage.say(f"Kept in {kept}:")
        serve = f"gatebook serve --data {kept / 'var'} --callers {kept / 'tokens' / 'callers.yaml'}"
        stage.pairs(
            [
                ("the store", f"{kept / 'telemetry.duckdb'}"),
                ("the book", f"{kept / 'var' / 'book'}"),
                ("serve it", serve),
                ("then", "gatebook audit list --subject svc-leaderboard-lee"),
            ]
        )
    stage.say("Next: docs/quickstart-backend.md, docs/governance.md, docs/quickstart-audit.md")
