"""Scenario AT-24: whoever changes a copied book is found out by `gatebook audit verify`, with the first bad index."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import json_format
from tests.serving import POLICIES, gatebook, serving

from gatebook.audit.files import Files
from gatebook.audit.opening import sign
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.tile_writer import TileWriter
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.tiles import encode_bundle
from gatebook_client import Check, connect_blocking

ENTRIES = 600
BUNDLE = 256


class Copied:
    """A book as an auditor has it: the published folder, its verifier key, and a checkpoint remembered earlier."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder that the fixture filled."""
        self.folder = folder
        self.book = folder / "book"
        self.remembered = folder / "remembered.txt"

    def bundle(self, number: int) -> Path:
        """Returns the file of a bundle of entries, whether full or partial."""
        full = self.book / "tile" / "entries" / f"{number:03}"
        partial = full.with_name(f"{full.name}.p")
        return full if full.is_file() else max(partial.iterdir(), key=lambda path: int(path.name))

    def verify(self, *, remembered: bool = False, receipts: bool = False) -> tuple[int, str]:
        """Runs `gatebook audit verify`, and returns its exit code and all that it said."""
        more = ["--checkpoint", str(self.remembered)] if remembered else []
        more += ["--receipts", str(self.folder / "receipts.jsonl")] if receipts else []
        key = self.folder / "trusted.vkey"
        done = gatebook("audit", "verify", str(self.book), "--vkey", str(key), *more)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a book through a real server, and remembers one of its checkpoints halfway."""
    folder = tmp_path_factory.mktemp("honest")
    checks = [Check("alice", "read", "report:weekly")] * (ENTRIES // 2)
    with serving(folder / "data", [POLICIES / "basic"]) as server, connect_blocking(server.target) as client:
        kept = [decision.raw.receipt for decision in client.check_many(checks)]
        (folder / "remembered.txt").write_text(client.checkpoint(refresh=True).checkpoint)
        client.check_many(checks)
    lines = [json_format.MessageToJson(receipt, indent=None) for receipt in kept]
    (folder / "receipts.jsonl").write_text("\n".join(lines) + "\n")
    shutil.copytree(folder / "data" / "book", folder / "book")
    shutil.copy(folder / "data" / "book" / "vkey", folder / "trusted.vkey")
    return folder


@pytest.fixture
def copied(honest: Path, tmp_path: Path) -> Copied:
    """A fresh copy that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(honest, folder, ignore=shutil.ignore_patterns("data"))
    return Copied(folder)


def test_an_honest_copy_verifies(copied: Copied) -> None:
    """The copied folder and the verifier key are enough."""
    assert copied.verify()[0] == 0
    assert copied.verify(remembered=True)[0] == 0


def flip_one_bit(copied: Copied) -> int:
    """Flips a bit of the third entry of the second bundle."""
    path = copied.bundle(1)
    entries = split(path.read_bytes())
    entries[2] = bytes([entries[2][0] ^ 1]) + entries[2][1:]
    path.write_bytes(encode_bundle(entries))
    return BUNDLE + 2


def corrupt_8192_bytes(copied: Copied) -> int:
    """Overwrites 8,192 bytes from the start of the first bundle."""
    path = copied.bundle(0)
    content = path.read_bytes()
    path.write_bytes(bytes(8_192) + content[8_192:])
    return 0


def swap_two_entries(copied: Copied) -> int:
    """Swaps two neighbours."""
    path = copied.bundle(1)
    entries = split(path.read_bytes())
    entries[10], entries[11] = entries[11], entries[10]
    path.write_bytes(encode_bundle(entries))
    return BUNDLE + 10


def drop_an_entry(copied: Copied) -> int:
    """Takes an entry out of the middle."""
    path = copied.bundle(1)
    entries = split(path.read_bytes())
    del entries[100]
    path.write_bytes(encode_bundle(entries))
    return BUNDLE + 100


def put_in_an_entry(copied: Copied) -> int:
    """Writes an entry twice."""
    path = copied.bundle(1)
    entries = split(path.read_bytes())
    entries[50] = entries[49]
    path.write_bytes(encode_bundle(entries))
    return BUNDLE + 50


@pytest.mark.parametrize("attack", [flip_one_bit, corrupt_8192_bytes, swap_two_entries, drop_an_entry, put_in_an_entry])
def test_at_24_a_changed_entry_is_named(copied: Copied, attack: Callable[[Copied], int]) -> None:
    """The first entry that is not what was written is named by its index."""
    index = attack(copied)
    code, said = copied.verify()

    assert code == 1
    assert f"first bad index: {index})" in said


def test_at_24_a_tile_cannot_be_changed_either(copied: Copied) -> None:
    """The hashes are checked as the entries are."""
    path = copied.book / "tile" / "0" / "000"
    path.write_bytes(bytes(32) + path.read_bytes()[32:])

    assert copied.verify()[0] == 1


def test_at_24_a_dropped_tail_is_found_by_a_remembered_checkpoint(copied: Copied, honest: Path) -> None:
    """A book cut back to an older, honestly signed state does not reach what is remembered."""
    older = Copied(copied.folder)
    newest = (older.book / "checkpoint").read_text()
    # The book as it was when the checkpoint was remembered, and the newest checkpoint remembered instead.
    remembered = older.remembered.read_text()
    size = int(remembered.splitlines()[1])
    shutil.rmtree(older.book)
    rebuild(honest, older.book, entries_of(Copied(honest))[:size])
    (older.book / "checkpoint").write_text(remembered)
    older.remembered.write_text(newest)

    assert older.verify()[0] == 0
    code, said = older.verify(remembered=True)
    assert code == 1
    assert f"first bad index: {size})" in said


def test_at_24_a_rewritten_history_is_found_by_a_remembered_checkpoint(copied: Copied, honest: Path) -> None:
    """Whoever holds the signing key and rewrites an entry, all hashes and the checkpoint, is convicted."""
    entries = entries_of(copied)
    entries[7] = entries[8]
    shutil.rmtree(copied.book)
    rebuild(honest, copied.book, entries)

    assert copied.verify()[0] == 0
    code, said = copied.verify(remembered=True)
    assert (code, "signed at size" in said) == (1, True)


def test_at_24_a_receipt_names_the_rewritten_entry(copied: Copied, honest: Path) -> None:
    """A caller who kept the receipts of its calls names the very entry that was rewritten."""
    entries = entries_of(copied)
    entries[7] = entries[8]
    shutil.rmtree(copied.book)
    rebuild(honest, copied.book, entries)
    code, said = copied.verify(receipts=True)

    assert code == 1
    assert "first bad index: 7)" in said


def split(bundle: bytes) -> list[bytes]:
    """Returns the entries of a bundle: each is its length in 16 bits, big-endian, and its bytes."""
    entries = []
    at = 0
    while at < len(bundle):
        (size,) = struct.unpack_from(">H", bundle, at)
        entries.append(bundle[at + 2 : at + 2 + size])
        at += 2 + size
    return entries


def entries_of(copied: Copied) -> list[bytes]:
    """Returns every entry of a copied book."""
    size = int((copied.book / "checkpoint").read_text().splitlines()[1])
    numbers = range((size + BUNDLE - 1) // BUNDLE)
    return [entry for n in numbers for entry in split(copied.bundle(n).read_bytes())][:size]


def rebuild(honest: Path, book: Path, entries: list[bytes]) -> None:
    """Writes a published folder from entries, signed with the stolen key of the honest book."""
    temporary = book.parent / "temporary"
    for folder in (book, temporary):
        folder.mkdir()
    writer = TileWriter(TileFolder(book), 0, Files(), temporary)
    for entry in entries:
        writer.add(entry)
    writer.finish()
    key = SigningKey.parse((honest / "data" / "keys" / "book.key").read_text())
    (book / "checkpoint").write_bytes(sign(key, len(entries), writer.root(), 0).note)
    shutil.copy(honest / "trusted.vkey", book / "vkey")
