"""Go's own `sumdb/note` and `sumdb/tlog` verify what we sign and prove, and what they sign our witness cosigns.

Needs Go, which fetches golang.org/x/mod in the version that `go_notes/go.sum` pins.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.books import ORIGIN, key_of, open_book, publisher, some_entries
from tests.witnesses import witnessing

from gatebook.tlog.cosignature import WitnessSigningKey, parse_signature_lines
from gatebook.tlog.note import Note, parse_note
from gatebook.tlog.proof import Proof

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="needs Go: install the Debian package `golang-go`")
NOW = 1_700_000_000


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the program of Go."""
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.timeout(700)
def test_go_verifies_a_cosigned_proof(program: Path, tmp_path: Path) -> None:
    """A proof of ours with a cosignature of ours verifies in Go, and not with another entry, key or index."""
    entries = some_entries(3, 70)
    book = open_book(tmp_path / "data")
    publish = publisher(book)
    for start in (0, 35):
        book.append_group(entries[start : start + 35])
    note = parse_note(publish.publish_now().note)
    witness, other = (WitnessSigningKey.generate("witness.test/w1") for _ in range(2))
    cosigned = Note(note.text, (*note.signatures, witness.cosign(note.text, NOW))).format()
    key, right, wrong = str(key_of(tmp_path / "data")), tmp_path / "right", tmp_path / "wrong"
    for index in (0, 33, 34, 63, 64, 69):
        proof = tmp_path / f"{index}.tlog-proof"
        proof.write_bytes(Proof(index, tuple(book.inclusion_proof(index)), cosigned).format())
        right.write_bytes(entries[index])
        wrong.write_bytes(entries[index] + b"x")

        assert f"70 {NOW}\n" == run(program, "verify", str(proof), str(right), key, str(witness.public)).stdout
        assert 1 == run(program, "verify", str(proof), str(wrong), key, str(witness.public)).returncode
        assert 1 == run(program, "verify", str(proof), str(right), key, str(other.public)).returncode
    book.close()
    assert ORIGIN == key.partition("+")[0]


@pytest.mark.timeout(700)
def test_our_witness_cosigns_a_book_of_go(program: Path, tmp_path: Path) -> None:
    """Checkpoints and consistency proofs that Go made are cosigned, for trees of many shapes; a changed one is not."""
    for number, (old, new) in enumerate(((1, 2), (5, 9), (8, 8), (7, 64), (64, 65), (33, 100))):
        key, *encoded = run(program, "submit", str(old), str(new)).stdout.split()
        bodies = [base64.b64decode(each) for each in encoded]
        with witnessing(tmp_path / str(number), "--origin", key) as witness:
            for body in bodies:
                status, _, lines = witness.ask(body)
                assert 200 == status, lines
                text = parse_note(body.partition(b"\n\n")[2]).text
                witness.key.verify(parse_signature_lines(lines, text)[0], text)
            assert 403 == witness.ask(bodies[1].replace(b"\n%d\n" % new, b"\n%d\n" % (new + 1)))[0]
