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
from tests.books import ORIGIN, UnsyncedFiles, publisher
from tests.grown_books import (
    OF_CHECKPOINTS,
    OF_ENTRIES,
    SIZES,
    Damage,
    GrownBooks,
    damaged,
    entry,
    flip_the_last_leaf,
    grow,
    sign_another_root,
)

from gatebook.audit.book import Book
from gatebook.tlog.checkpoint import parse_checkpoint
from gatebook.tlog.cosignature import WitnessSigningKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.note import Note, parse_note
from gatebook.tlog.proof import verify_proof

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
inclusion, consistency = {}, {}
for index in json.loads(sys.argv[3]):
    entry = reader.get_entry(index)
    proof = reader.get_inclusion_proof(index, size)
    proof.check(leaf_hash(entry), checkpoint.root_hash)
    inclusion[index] = [h.hex() for h in proof.node_hashes]
for old in json.loads(sys.argv[4]):
    proof = reader.get_consistency_proof(old, size)
    proof.check(reader.mth(0, old), checkpoint.root_hash)
    consistency[old] = [h.hex() for h in proof.node_hashes]
print(json.dumps({"origin": checkpoint.origin, "size": size, "root": checkpoint.root_hash.hex(),
    "inclusion": inclusion, "consistency": consistency}))
"""

PYMERKLE = """
import json, sys
from pathlib import Path
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion

book, roots = Path(sys.argv[1]), {int(size): bytes.fromhex(root) for size, root in json.loads(sys.argv[2]).items()}
indexes = json.loads(sys.argv[3])
tree = InmemoryTree(algorithm="sha256")
bundles = book / "tile" / "entries"
full = sorted(path for path in bundles.iterdir() if path.is_file())
last = sorted(bundles.glob("*.p/*"), key=lambda path: (path.parent.name, int(path.name)))[-1:]
last = [path for path in last if path.parent.name.removesuffix(".p") not in {each.name for each in full}]
for path in [*full, *last]:
    bundle = path.read_bytes()
    while bundle:
        end = 2 + int.from_bytes(bundle[:2], "big")
        tree.append_entry(bundle[2:end])
        bundle = bundle[end:]
size = tree.get_size()
assert tree.get_root(size) == roots[size], "another root"
inclusion = {}
for index in indexes:
    proof = tree.prove_inclusion(index + 1, size)
    verify_inclusion(tree.get_leaf(index + 1), roots[size], proof)
    inclusion[index] = [value.hex() for value in proof.path]
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


def told_by(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that knows nothing of Gatebook."""
    command = [sys.executable, "-I", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(program: str, *arguments: str) -> Any:  # noqa: ANN401 - whatever the other program says
    """Runs a program that knows nothing of Gatebook, and returns what it says."""
    done = told_by(program, *arguments)
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> GrownBooks:
    """The book at every size."""
    return grow(tmp_path_factory.mktemp("grown"))


def asked_of_tlog_scales(grown: GrownBooks, size: int, book: Path) -> tuple[str, ...]:
    """What tlog-scales is asked about a directory."""
    return TLOG_SCALES, str(book), str(grown.key), json.dumps(grown.samples(size)), json.dumps(grown.earlier(size))


def asked_of_pymerkle(grown: GrownBooks, size: int, book: Path, root: bytes) -> tuple[str, ...]:
    """What pymerkle is asked about a directory, whose root it is told."""
    roots = {each: grown.roots[each].hex() for each in SIZES if 0 < each < size} | {size: root.hex()}
    return PYMERKLE, str(book), json.dumps(roots), json.dumps(grown.samples(size))


@pytest.mark.parametrize("size", SIZES[1:])
def test_tlog_scales_reads_and_verifies_the_book(grown: GrownBooks, size: int) -> None:
    """tlog-scales accepts the signature, computes the signed root from our tiles, and all its proofs are ours."""
    theirs = run(*asked_of_tlog_scales(grown, size, grown.books[size]))

    assert (ORIGIN, size, grown.roots[size].hex()) == (theirs["origin"], theirs["size"], theirs["root"])
    assert (grown.inclusion(size), grown.consistency(size)) == (theirs["inclusion"], theirs["consistency"])


@pytest.mark.parametrize("damage", [*OF_ENTRIES, flip_the_last_leaf, *OF_CHECKPOINTS])
@pytest.mark.parametrize("size", [2, 257, 65_537])
def test_tlog_scales_rejects_a_damaged_book(grown: GrownBooks, size: int, damage: Damage) -> None:
    """Damage of entries, hashes or checkpoint ends tlog-scales with an error: its acceptance means something."""
    done = told_by(*asked_of_tlog_scales(grown, size, damaged(grown, size, damage)))

    assert (1, "") == (done.returncode, done.stdout), done.stderr


def test_the_proofs_that_tlog_scales_prints_verify(grown: GrownBooks) -> None:
    """A tlog-proof made by the command of tlog-scales from our directory verifies with ours."""
    size = SIZES[-1]
    for index in (0, 255, 256, 511, size - 1):
        program = "from tlog_scales.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, "gen-proof", str(grown.books[size]), str(index)],
            capture_output=True,
            check=True,
        )

        assert size == verify_proof(done.stdout, leaf_hash(entry(index)), grown.key).size


@pytest.mark.parametrize("size", SIZES[1:])
def test_pymerkle_builds_the_same_tree(grown: GrownBooks, size: int) -> None:
    """pymerkle, given our bundles, comes to every root that was signed, proves them consistent, and proves as we do."""
    theirs = run(*asked_of_pymerkle(grown, size, grown.books[size], grown.roots[size]))

    assert {str(each): grown.roots[each].hex() for each in SIZES if 0 < each <= size} == theirs["roots"]
    # A path of pymerkle begins with the leaf itself.
    ours = {at: [leaf_hash(entry(int(at))).hex(), *path] for at, path in grown.inclusion(size).items()}
    assert ours == theirs["inclusion"]


@pytest.mark.parametrize("damage", [*OF_ENTRIES, sign_another_root])
@pytest.mark.parametrize("size", [2, 257, 65_537])
def test_pymerkle_rejects_a_damaged_book(grown: GrownBooks, size: int, damage: Damage) -> None:
    """Other entries than those that were signed lead pymerkle to another root. It reads no tiles and no signatures."""
    book = damaged(grown, size, damage)
    root = parse_checkpoint(parse_note((book / "checkpoint").read_bytes()).text).root
    done = told_by(*asked_of_pymerkle(grown, size, book, root))

    assert (1, "") == (done.returncode, done.stdout), done.stderr


def test_tlog_scales_verifies_our_cosignatures(tmp_path: Path) -> None:
    """tlog-scales accepts our cosignatures and reads their times, and refuses one that is of another checkpoint."""
    book = Book.open(tmp_path, origin=ORIGIN, files=UnsyncedFiles())
    notes = []
    for each in (b"one", b"two"):
        book.append_group([each])
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
