"""Programs of Go and npm that are not ours verify the book at every size where trees and tiles change shape.

| program | reads | says |
|---|---|---|
| `golang.org/x/mod/sumdb` (tlog, note) | checkpoint, hash tiles, entries | tiles lead to the root; proofs are ours |
| Tessera's `fsck` | checkpoint, bundles, hash tiles | every entry and every tile leads to the root |
| npm `@sigstore/verify` | checkpoint, our inclusion proofs | signature and inclusion |
| npm `@transmute/rfc9162` | our proofs | inclusion and consistency |

Each is also shown books that are damaged, since a verifier that accepts everything shows nothing. Needs Go, Node and
`make build/fsck/.ready build/npm-proofs/.ready`.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from tests.books import key_of
from tests.grown_books import (
    OF_CHECKPOINTS,
    OF_ENTRIES,
    OF_TILES,
    SIZES,
    Damage,
    GrownBooks,
    damaged,
    drop_the_last_bundle,
    entry,
    flip_an_upper_hash,
    grow,
    sign_another_root,
)
from tests.serving import POLICIES, ROOT, serving

from gatebook.audit.tile_folder import TileFolder
from gatebook.tlog.tiles import new_tiles
from gatebook_client import connect_blocking

FSCK = ROOT / "build" / "fsck" / "fsck"
PACKAGES = ROOT / "build" / "npm-proofs"
SUCCESS = "Successfully fsck'd log with size {size} and root {root}"

pytestmark = [
    pytest.mark.timeout(700),
    pytest.mark.skipif(shutil.which("go") is None, reason="needs Go: install the Debian package `golang-go`"),
    pytest.mark.skipif(not FSCK.exists(), reason="needs Tessera's fsck: run `make build/fsck/.ready`"),
    pytest.mark.skipif(not PACKAGES.exists(), reason="needs packages of npm: run `make build/npm-proofs/.ready`"),
]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> GrownBooks:
    """The book at every size."""
    return grow(tmp_path_factory.mktemp("grown"))


def run(*command: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program that knows nothing of Gatebook."""
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)


def asked_of_go(grown: GrownBooks, size: int, program: Path, book: Path) -> subprocess.CompletedProcess[str]:
    """Has Go verify a directory."""
    indexes, sizes = grown.samples(size), grown.earlier(size)
    return run(program, "book", book, str(grown.key), ",".join(map(str, indexes)), ",".join(map(str, sizes)))


@pytest.mark.parametrize("size", SIZES)
def test_go_reads_and_proves_the_book(grown: GrownBooks, program: Path, size: int) -> None:
    """Go finds every tile where it expects it, each leads to the signed root, and its proofs and roots are ours."""
    told = json.loads(asked_of_go(grown, size, program, grown.books[size]).stdout)

    assert size == told["Size"]
    assert (grown.inclusion(size), grown.consistency(size)) == (told["Inclusion"], told["Consistency"])
    for known in set(SIZES) & set(grown.earlier(size)):
        assert grown.roots[known].hex() == told["Roots"][str(known)]
    ours = {tile.path for tile in new_tiles(0, size) if tile.level >= 0}
    assert ours == set(told["Tiles"] or [])
    assert all((grown.books[size] / path).is_file() for path in ours)


@pytest.mark.parametrize("damage", [*OF_ENTRIES, *OF_TILES, *OF_CHECKPOINTS])
@pytest.mark.parametrize("size", [2, 257, 65_537])
def test_go_rejects_a_damaged_book(grown: GrownBooks, program: Path, size: int, damage: Damage) -> None:
    """Any damage of entries, tiles or checkpoint that it reads ends Go's verification with an error."""
    done = asked_of_go(grown, size, program, damaged(grown, size, damage))

    assert (1, "") == (done.returncode, done.stdout), done.stderr


def fsck(grown: GrownBooks, book: Path) -> str:
    """Has Tessera check a directory; returns what it says, since it ends with 0 in any case."""
    key = grown.books[0] / "vkey"
    done = run(FSCK, f"--storage_url={book.as_uri()}/", f"--public_key={key}", "--ui=false")
    assert 0 == done.returncode, done.stderr
    return done.stderr


@pytest.mark.parametrize("size", SIZES)
def test_tessera_checks_the_book(grown: GrownBooks, size: int) -> None:
    """Tessera's fsck makes all tiles anew from our bundles, and finds them and the root as we wrote them."""
    root = base64.b64encode(grown.roots[size]).decode()

    assert SUCCESS.format(size=size, root=root) in fsck(grown, grown.books[size])


@pytest.mark.parametrize("damage", [*OF_ENTRIES, *OF_TILES, *OF_CHECKPOINTS])
@pytest.mark.parametrize("size", [2, 257, 65_537])
def test_tessera_rejects_a_damaged_book(grown: GrownBooks, size: int, damage: Damage) -> None:
    """Any damage is said by fsck. It ends with 0 all the same: only what it prints counts."""
    told = fsck(grown, damaged(grown, size, damage))

    assert "fsck failed" in told
    assert "Successfully" not in told


def few(grown: GrownBooks, size: int) -> set[int]:
    """Some indexes of a book: Node is slow."""
    samples = grown.samples(size)
    return {*samples[::9], *samples[:2], samples[-1]}


def asked_of_npm(grown: GrownBooks, size: int, book: Path, change: Callable[[Any], object] = bool) -> Any:  # noqa: ANN401 - JSON
    """Has programs of npm verify a checkpoint, entries and our proofs; returns what they say, or their complaint."""
    proofs = {at: proof for at, proof in grown.inclusion(size).items() if int(at) in few(grown, size)}
    asked = {
        "vkey": str(grown.key),
        "checkpoint": (book / "checkpoint").read_text("utf-8"),
        "size": size,
        "inclusion": {
            at: {"entry": base64.b64encode(entry(int(at))).decode(), "hashes": proof} for at, proof in proofs.items()
        },
        "roots": {str(known): grown.roots[known].hex() for known in SIZES if 0 < known < size},
        "consistency": {
            str(known): proof
            for known, proof in ((known, grown.consistency(size).get(str(known))) for known in SIZES)
            if proof is not None and known < size
        },
    }
    change(asked)
    return npm(asked)


def npm(asked: Any) -> Any:  # noqa: ANN401 - JSON
    """Has the packages of npm verify what is asked; returns what they say, or their complaint."""
    done = run("node", Path(__file__).with_name("npm_proofs") / "verify.cjs", PACKAGES, stdin=json.dumps(asked))
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("size", SIZES[1:])
def test_npm_verifies_our_proofs(grown: GrownBooks, size: int) -> None:
    """Our checkpoint, inclusion proofs and consistency proofs verify with two packages of npm."""
    told = asked_of_npm(grown, size, grown.books[size])

    assert {"inclusion": len(few(grown, size)), "consistency": sum(0 < each < size for each in SIZES)} == told


def _another_entry(asked: Any) -> None:  # noqa: ANN401 - JSON
    last = list(asked["inclusion"])[-1]
    asked["inclusion"] = {last: asked["inclusion"][last] | {"entry": base64.b64encode(b"another").decode()}}


def _another_hash(asked: Any) -> None:  # noqa: ANN401 - JSON
    first = asked["inclusion"]["0"]["hashes"]
    first[-1] = bytes(32).hex()


def _another_index(asked: Any) -> None:  # noqa: ANN401 - JSON
    asked["inclusion"] = {"1": asked["inclusion"]["0"]}


def _another_earlier_root(asked: Any) -> None:  # noqa: ANN401 - JSON
    asked["inclusion"] = {}
    asked["roots"]["2"] = bytes(32).hex()


def _another_consistency(asked: Any) -> None:  # noqa: ANN401 - JSON
    asked["inclusion"] = {}
    asked["consistency"]["2"][-1] = bytes(32).hex()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_another_entry, "root hash does not match"),
        (_another_hash, "root hash does not match"),
        (_another_index, "root hash does not match"),
        (_another_earlier_root, "size 2 is not continued"),
        (_another_consistency, "size 2 is not continued"),
    ],
)
@pytest.mark.parametrize("size", [257, 65_537])
def test_npm_rejects_a_false_proof(
    grown: GrownBooks, size: int, change: Callable[[Any], object], complaint: str
) -> None:
    """An entry, a hash, an index or an earlier root that is another is refused."""
    assert complaint in asked_of_npm(grown, size, grown.books[size], change)


@pytest.mark.parametrize("damage", OF_CHECKPOINTS)
def test_npm_rejects_a_false_checkpoint(grown: GrownBooks, damage: Damage) -> None:
    """A checkpoint that the book did not sign, or of another root, is refused."""
    told = asked_of_npm(grown, 257, damaged(grown, 257, damage))

    assert ("root hash does not match" if damage is sign_another_root else "invalid checkpoint signature") in told


def test_what_only_all_tiles_show(grown: GrownBooks, program: Path) -> None:
    """Where nothing is asked about an entry, Go reads no bundle and does not miss one; fsck reads every file."""
    book = damaged(grown, 257, drop_the_last_bundle)
    upper = damaged(grown, 257, flip_an_upper_hash)

    assert 0 == run(program, "book", book, str(grown.key), "", "1").returncode
    assert "fsck failed" in fsck(grown, book)
    assert "fsck failed" in fsck(grown, upper)


def test_npm_verifies_what_a_server_answers(tmp_path: Path) -> None:
    """What the RPCs of a served book answer, as JSON, verifies with npm: entries, proofs, checkpoint."""
    with serving(tmp_path / "data", [POLICIES / "basic"]) as server, connect_blocking(server.target) as client:
        signed = []
        for _ in range(3):
            client.check("alice", "read", "report:weekly")
            signed.append(client.checkpoint(refresh=True).checkpoint)
        *old, size = (int(checkpoint.splitlines()[1]) for checkpoint in signed)
        entries = [MessageToDict(client.entry(index), preserving_proto_field_name=True) for index in range(size)]
        proofs = [MessageToDict(client.inclusion_proof(index, size=size)) for index in range(size)]
        consistency = [MessageToDict(client.consistency_proof(each, new_size=size)) for each in old]
        tiles = TileFolder(server.data / "book")
        asked = {
            "vkey": str(key_of(server.data)),
            "checkpoint": signed[-1],
            "size": size,
            "inclusion": {
                str(at): {"entry": entry["entry_bytes"], "hashes": hexes(proof["hashes"])}
                for at, (entry, proof) in enumerate(zip(entries, proofs, strict=True))
            },
            "roots": {str(each): tiles.frontier(each, size).root().hex() for each in old},
            "consistency": {str(each): hexes(proof["hashes"]) for each, proof in zip(old, consistency, strict=True)},
        }

    assert {"inclusion": size, "consistency": len(old)} == npm(asked)
    asked["size"] = size - 1
    assert "another size" in npm(asked)


def hexes(encoded: list[str]) -> list[str]:
    """Hashes of an answer in hexadecimal."""
    return [base64.b64decode(each).hex() for each in encoded]
