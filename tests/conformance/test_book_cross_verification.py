"""Programs that are not ours read the same directory and come to the same roots, proofs and signatures.

Each runs in a process of its own, which is given the directory and the verifier key and nothing of
Gatebook. `tlog-scales` reads C2SP tiles and checks checkpoints and proofs; `pymerkle` (GPL, hence
never imported here) builds the tree from the entries and makes its own proofs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.books import ORIGIN, UnsyncedFiles, key_of, publisher

from gatebook.audit.book import Book
from gatebook.tlog.cosignature import WitnessSigningKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.note import Note, parse_note
from gatebook.tlog.proof import verify_proof

SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 700]
ENTRIES = [b"%d" % at * (1 + at % 7) for at in range(SIZES[-1])]

TLOG_SCALES = """
import json, sys
from pathlib import Path
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tiles import leaf_hash

reader = TilesReader(LocalBackend(Path(sys.argv[1])))
checkpoint = reader.get_checkpoint()
checkpoint.verify(Vkey.from_string(sys.argv[2]))
assert reader.calculate_root_hash() == checkpoint.root_hash
size = checkpoint.size
inclusion, consistency = [], []
for index in range(0, size, 7):
    entry = reader.get_entry(index)
    proof = reader.get_inclusion_proof(index, size)
    proof.check(leaf_hash(entry), checkpoint.root_hash)
    inclusion.append([h.hex() for h in proof.node_hashes])
for old in range(1, size + 1, 7):
    proof = reader.get_consistency_proof(old, size)
    proof.check(reader.mth(0, old), checkpoint.root_hash)
    consistency.append([h.hex() for h in proof.node_hashes])
print(json.dumps({"origin": checkpoint.origin, "size": size, "root": checkpoint.root_hash.hex(),
    "inclusion": inclusion, "consistency": consistency}))
"""

PYMERKLE = """
import json, sys
from pathlib import Path
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion

book, roots = Path(sys.argv[1]), {int(size): bytes.fromhex(root) for size, root in json.loads(sys.argv[2]).items()}
tree = InmemoryTree(algorithm="sha256")
bundles = book / "tile" / "entries"
full = sorted(path for path in bundles.iterdir() if path.is_file())
last = max(bundles.glob("*.p/*"), key=lambda path: (path.parent.name, int(path.name)))
for path in [*full, last]:
    bundle = path.read_bytes()
    while bundle:
        end = 2 + int.from_bytes(bundle[:2], "big")
        tree.append_entry(bundle[2:end])
        bundle = bundle[end:]
size = tree.get_size()
inclusion = []
for index in range(0, size, 7):
    proof = tree.prove_inclusion(index + 1, size)
    verify_inclusion(tree.get_leaf(index + 1), roots[size], proof)
    inclusion.append([value.hex() for value in proof.path])
for old, root in roots.items():
    verify_consistency(root, roots[size], tree.prove_consistency(old, size))
print(json.dumps({"roots": {each: tree.get_root(each).hex() for each in roots}, "inclusion": inclusion}))
"""

TLOG_SCALES_COSIGNATURE = """
import json, sys
from tlog_scales.signing import Vkey
from tlog_scales.tlog import Checkpoint

checkpoint, keys = Checkpoint.from_text(sys.argv[1]), [Vkey.from_string(key) for key in sys.argv[2:]]
for key in keys:
    checkpoint.verify(key)
print(json.dumps([key.get_verifier().get_timestamp(line.payload)
    for key in keys for line in checkpoint.signatures if key.match(line)]))
"""


def run(program: str, *arguments: str) -> Any:  # noqa: ANN401 - whatever the other program says
    """Runs a program that knows nothing of Gatebook, and returns what it says."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    """A book that was signed at each size, and its root at each."""
    data = tmp_path_factory.mktemp("book")
    book = Book.open(data, origin=ORIGIN, files=UnsyncedFiles())
    publish, roots = publisher(book), {}
    for size in SIZES:
        book.append_group(ENTRIES[book.size : size])
        roots[size] = publish.publish_now().checkpoint.root.hex()
    book.close()
    return data, roots


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
def test_tlog_scales_reads_and_verifies_the_book(tmp_path: Path, size: int) -> None:
    """tlog-scales accepts the signature, computes the signed root from our tiles, and all its proofs are ours."""
    book = Book.open(tmp_path, origin=ORIGIN, files=UnsyncedFiles())
    book.append_group(ENTRIES[:size])
    publisher(book).publish_now()
    theirs = run(TLOG_SCALES, str(tmp_path / "book"), str(key_of(tmp_path)))

    assert (ORIGIN, size, book.root.hex()) == (theirs["origin"], theirs["size"], theirs["root"])
    assert theirs["inclusion"] == [[h.hex() for h in book.inclusion_proof(index)] for index in range(0, size, 7)]
    assert theirs["consistency"] == [[h.hex() for h in book.consistency_proof(old)] for old in range(1, size + 1, 7)]
    book.close()


def test_tlog_scales_rejects_what_we_reject(tmp_path: Path) -> None:
    """With another key tlog-scales refuses the checkpoint, so that its acceptance means something."""
    book = Book.open(tmp_path / "one", origin=ORIGIN)
    other = Book.open(tmp_path / "other", origin=ORIGIN)
    other.close()
    book.append_group(ENTRIES[:3])
    publisher(book).publish_now()
    book.close()

    with pytest.raises(AssertionError):
        run(TLOG_SCALES, str(tmp_path / "one" / "book"), str(key_of(tmp_path / "other")))


def test_the_proofs_that_tlog_scales_prints_verify(grown: tuple[Path, dict[int, str]]) -> None:
    """A tlog-proof made by the command of tlog-scales from our directory verifies with ours."""
    data, _ = grown
    for index in (0, 255, 256, 511, 699):
        program = "from tlog_scales.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, "gen-proof", str(data / "book"), str(index)],
            capture_output=True,
            check=True,
        )

        assert SIZES[-1] == verify_proof(done.stdout, leaf_hash(ENTRIES[index]), key_of(data)).size


def test_pymerkle_builds_the_same_tree(grown: tuple[Path, dict[int, str]]) -> None:
    """pymerkle, given our bundles, comes to every root that was signed, proves them consistent, and proves as we do."""
    data, roots = grown
    theirs = run(PYMERKLE, str(data / "book"), json.dumps(roots))

    assert {str(size): root for size, root in roots.items()} == theirs["roots"]
    book = Book.open(data, origin=ORIGIN)
    # A path of pymerkle begins with the leaf itself.
    ours = [[leaf_hash(ENTRIES[at]), *book.inclusion_proof(at)] for at in range(0, book.size, 7)]
    assert [[value.hex() for value in path] for path in ours] == theirs["inclusion"]
    book.close()


def test_tlog_scales_verifies_our_cosignatures(tmp_path: Path) -> None:
    """tlog-scales accepts our cosignatures and reads their times, and refuses one that is of another checkpoint."""
    book = Book.open(tmp_path, origin=ORIGIN, files=UnsyncedFiles())
    notes = []
    for entry in (b"one", b"two"):
        book.append_group([entry])
        notes.append(parse_note(publisher(book).publish_now().note))
    book.close()
    witnesses = [WitnessSigningKey.generate(f"witness.test/w{number}") for number in (1, 2)]
    keys = [str(witness.public) for witness in witnesses]
    lines = tuple(witness.cosign(notes[1].text, 1_700_000_000 + at) for at, witness in enumerate(witnesses))
    whole = Note(notes[1].text, (*notes[1].signatures, *lines)).format().decode()
    replayed = Note(notes[0].text, (*notes[0].signatures, *lines)).format().decode()

    assert [1_700_000_000, 1_700_000_001] == run(TLOG_SCALES_COSIGNATURE, whole, *keys)
    with pytest.raises(AssertionError):
        run(TLOG_SCALES_COSIGNATURE, replayed, *keys)
