"""Offline verification of a copied book: each attack is named by its first bad index (AT-24)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.books import UnsyncedFiles, key_of, open_book, publisher
from tests.receipts import sign_receipt

from gatebook.audit.opening import sign
from gatebook.audit.signing_elsewhere import BookKey
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.tile_writer import TileWriter
from gatebook.audit.verify import NO_WITNESS, verify_book
from gatebook.errors import VerificationError
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.receipt import Receipt
from gatebook.tlog.tiles import decode_bundle, encode_bundle, parse_path

ENTRIES = [b"%05d" % at * (20 + at % 50) for at in range(800)]
SIGNED_SIZES = (300, 600, 800)


@dataclass(frozen=True)
class Copied:
    """A copied book, what its owner could sign, and the checkpoints that somebody remembers."""

    book: Path
    key: BookKey
    remembered: dict[int, bytes]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BookKey, dict[int, bytes]]:
    """A book of 800 entries, signed at three sizes."""
    data = tmp_path_factory.mktemp("original")
    book = open_book(data, files=UnsyncedFiles())
    publish, remembered = publisher(book), {}
    for size in SIGNED_SIZES:
        while book.size < size:
            book.append_group(ENTRIES[book.size : min(book.size + 10, size)])
        remembered[size] = publish.publish_now().note
    book.close()
    return data, book.key, remembered


@pytest.fixture
def copied(original: tuple[Path, BookKey, dict[int, bytes]], tmp_path: Path) -> Copied:
    """A copy that a test may change."""
    data, key, remembered = original
    shutil.copytree(data / "book", tmp_path / "book")
    return Copied(tmp_path / "book", key, remembered)


def test_a_good_copy_verifies(copied: Copied) -> None:
    """The report says what was verified, and that nobody witnessed it."""
    progress: list[tuple[int, int]] = []
    report = verify_book(copied.book, copied.key.verifier, progress=lambda done, of: progress.append((done, of)))

    assert (800, 0, 0, (NO_WITNESS,)) == (
        report.size,
        report.remembered_size,
        report.unsigned_entries,
        report.warnings,
    )
    assert sum(map(len, ENTRIES)) == report.entry_bytes
    assert [(800, 800)] == progress
    assert sum(path.is_file() for path in copied.book.rglob("*")) == report.files


def test_memory_is_worth_something(copied: Copied) -> None:
    """With remembered checkpoints and receipts the report says up to where they confirm the book."""
    receipts = [sign_receipt(copied.key, at, leaf_hash(ENTRIES[at]), at) for at in (0, 299, 799)]
    report = verify_book(
        copied.book, copied.key.verifier, remembered=list(copied.remembered.values()), receipts=receipts
    )

    assert (800, 3, ()) == (report.remembered_size, report.receipts, report.warnings)


def bundle(book: Path, index: int) -> Path:
    """The bundle that holds an entry."""
    number = index // 256
    return book / "tile" / "entries" / (f"{number:03d}.p/32" if number == 3 else f"{number:03d}")


def rewrite(book: Path, entries: list[bytes]) -> bytes:
    """Makes all tiles anew for a false history, every hash recomputed; returns its root."""
    shutil.rmtree(book / "tile")
    temporary = book.with_name("temporary")
    temporary.mkdir()
    writer = TileWriter(TileFolder(book), 0, UnsyncedFiles(), temporary)
    for entry in entries:
        writer.add(entry)
    writer.finish()
    return writer.root()


def swap(entries: list[bytes], one: int, other: int) -> list[bytes]:
    """The entries with two of them swapped."""
    swapped = list(entries)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped


def flip_a_bit(copy: Copied) -> None:
    """Flips one bit of entry 417."""
    path = bundle(copy.book, 417)
    path.write_bytes(path.read_bytes().replace(b"00417", b"00517", 1))


def corrupt_a_block(copy: Copied) -> None:
    """Overwrites 8,192 bytes from the middle of entry 300 on."""
    path = bundle(copy.book, 300)
    content = bytearray(path.read_bytes())
    at = content.index(b"00300") + 17
    content[at : at + 8_192] = bytes(8_192)
    path.write_bytes(content)


def corrupt_a_tile(copy: Copied) -> None:
    """Overwrites a whole tile, 8,192 bytes."""
    (copy.book / "tile" / "0" / "002").write_bytes(b"\xff" * 8_192)


def corrupt_an_upper_tile(copy: Copied) -> None:
    """Changes the hash of the second full tile, one level up."""
    path = copy.book / "tile" / "1" / "000.p" / "3"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)


def drop_the_last_entry(copy: Copied) -> None:
    """Cuts the last entry off."""
    path = bundle(copy.book, 799)
    path.write_bytes(path.read_bytes()[: -len(ENTRIES[799]) - 2])


def drop_the_tail(copy: Copied) -> None:
    """Removes the last bundle and its hashes."""
    shutil.rmtree(copy.book / "tile" / "entries" / "003.p")
    shutil.rmtree(copy.book / "tile" / "0" / "003.p")


def put_back_an_older_copy(copy: Copied) -> None:
    """Makes the book what it was at size 600: entries, tiles and the checkpoint of that time."""
    rewrite(copy.book, ENTRIES[:600])
    (copy.book / "checkpoint").write_bytes(copy.remembered[600])


def swap_two_entries(copy: Copied) -> None:
    """Swaps two entries within a bundle."""
    path = bundle(copy.book, 100)
    tile = parse_path("tile/entries/000")
    path.write_bytes(encode_bundle(swap(decode_bundle(path.read_bytes(), tile), 100, 150)))


def swap_two_entries_everywhere(copy: Copied) -> None:
    """Swaps two entries and recomputes every hash, under the signed head."""
    rewrite(copy.book, swap(ENTRIES, 400, 500))


def rewrite_under_an_older_head(copy: Copied) -> None:
    """Rewrites an entry, recomputes every hash and puts the older signed head over it."""
    rewrite(copy.book, [*ENTRIES[:350], b"nothing to see here", *ENTRIES[351:600]])
    (copy.book / "checkpoint").write_bytes(copy.remembered[600])


def rewrite_and_sign(copy: Copied) -> None:
    """Rewrites an entry with the signing key in hand: everything matches."""
    root = rewrite(copy.book, [*ENTRIES[:650], b"nothing to see here", *ENTRIES[651:]])
    (copy.book / "checkpoint").write_bytes(sign(copy.key, 800, root, 0).note)


def shorten_and_sign(copy: Copied) -> None:
    """Cuts the end off with the signing key in hand."""
    root = rewrite(copy.book, ENTRIES[:599])
    (copy.book / "checkpoint").write_bytes(sign(copy.key, 599, root, 0).note)


ATTACKS: list[tuple[Callable[[Copied], None], tuple[int, ...], int]] = [
    (flip_a_bit, (), 417),
    (corrupt_a_block, (), 300),
    (corrupt_a_tile, (), 512),
    (corrupt_an_upper_tile, (), 256),
    (drop_the_last_entry, (), 799),
    (drop_the_tail, (), 768),
    (put_back_an_older_copy, (800,), 600),
    (swap_two_entries, (), 100),
    (swap_two_entries_everywhere, (), 0),
    (swap_two_entries_everywhere, (300,), 300),
    (rewrite_under_an_older_head, (), 0),
    (rewrite_under_an_older_head, (300,), 300),
    (rewrite_and_sign, (300, 600, 800), 600),
    (rewrite_and_sign, (800,), 0),
    (shorten_and_sign, (300, 600), 599),
]


@pytest.mark.parametrize(
    ("attack", "sizes", "index"), ATTACKS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_an_attack_is_named_by_its_first_bad_index(
    copied: Copied, attack: Callable[[Copied], None], sizes: tuple[int, ...], index: int
) -> None:
    """Whatever was done to the copy, the verifier says from which entry on nothing vouches for the book."""
    attack(copied)

    with pytest.raises(VerificationError) as caught:
        verify_book(copied.book, copied.key.verifier, remembered=[copied.remembered[size] for size in sizes])
    assert index == caught.value.index


@pytest.mark.parametrize("attack", [rewrite_and_sign, shorten_and_sign, put_back_an_older_copy])
def test_what_only_memory_can_tell(copied: Copied, attack: Callable[[Copied], None]) -> None:
    """With the key, or with an old copy, a book can be made that verifies: the report says so in words."""
    attack(copied)

    assert NO_WITNESS in verify_book(copied.book, copied.key.verifier).warnings


@pytest.mark.parametrize(("attack", "index"), [(rewrite_and_sign, 650), (shorten_and_sign, 799)])
def test_a_receipt_convicts_the_holder_of_the_key(copied: Copied, attack: Callable[[Copied], None], index: int) -> None:
    """A book that lacks an entry for which it gave a receipt fails at that entry, whoever signed it."""
    receipt = sign_receipt(copied.key, index, leaf_hash(ENTRIES[index]), 1)
    attack(copied)

    with pytest.raises(VerificationError) as caught:
        verify_book(copied.book, copied.key.verifier, receipts=[receipt])
    assert index == caught.value.index


def test_a_forged_receipt_convicts_nobody(copied: Copied) -> None:
    """A receipt whose signature is not the book's is refused itself."""
    forged = Receipt(copied.key.name, 5, leaf_hash(b"never written"), 1, b"", bytes(64))

    with pytest.raises(VerificationError, match="signature of receipt 5"):
        verify_book(copied.book, copied.key.verifier, receipts=[forged])


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "checkpoint.bak",
        "tile/0/000.tmp",
        "tile/0/000.p/0",
        "tile/9/entries",
        "tile/entries/003.p/33",
        "tile/entries/0000",
        ".hidden",
    ],
)
def test_a_file_too_many(copied: Copied, name: str) -> None:
    """A file that is none of a book fails, wherever it lies."""
    path = copied.book / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")

    with pytest.raises(VerificationError):
        verify_book(copied.book, copied.key.verifier)


def test_a_link_is_no_file_of_a_book(copied: Copied) -> None:
    """A symbolic link fails, even to the right content."""
    path = bundle(copied.book, 0)
    path.rename(copied.book.with_name("elsewhere"))
    path.symlink_to(copied.book.with_name("elsewhere"))

    with pytest.raises(VerificationError, match="no file of a book"):
        verify_book(copied.book, copied.key.verifier)


def test_a_partial_tile_that_contradicts_the_full_one(copied: Copied) -> None:
    """A partial bundle of an earlier size must be the beginning of the full one."""
    path = copied.book / "tile" / "entries" / "000.p" / "2"
    path.parent.mkdir()
    path.write_bytes(encode_bundle(ENTRIES[:2]))
    verify_book(copied.book, copied.key.verifier)
    path.write_bytes(encode_bundle([ENTRIES[0], b"other"]))

    with pytest.raises(VerificationError) as caught:
        verify_book(copied.book, copied.key.verifier)
    assert 1 == caught.value.index


def test_a_copy_made_while_the_book_grew(copied: Copied) -> None:
    """Tiles beyond the checkpoint are no error, but the report says that no signature covers them."""
    (copied.book / "checkpoint").write_bytes(copied.remembered[600])
    report = verify_book(copied.book, copied.key.verifier, remembered=[copied.remembered[300]])

    assert (600, 200) == (report.size, report.unsigned_entries)
    assert ["200 entries lie beyond the checkpoint: no signature vouches for them yet"] == list(report.warnings)


def test_entries_that_are_not_yet_published(tmp_path: Path) -> None:
    """With the log of a copied data directory, acknowledged entries count, and rot in them is named."""
    book = open_book(tmp_path)
    book.append_group(ENTRIES[:3])
    publisher(book).publish_now()
    book.append_group(ENTRIES[3:5])
    book.append_group(ENTRIES[5:6])
    receipt = sign_receipt(book.key, 5, leaf_hash(ENTRIES[5]), 1)
    key = key_of(tmp_path)
    report = verify_book(tmp_path / "book", key, receipts=[receipt], wal=tmp_path / "wal")

    assert (3, 3) == (report.size, report.unsigned_entries)
    assert "3 entries are not yet published" in report.warnings[-1]
    [path] = [segment.path for segment in book.wal._segments]
    path.write_bytes(path.read_bytes().replace(b"00004", b"00005", 1))
    with pytest.raises(VerificationError) as caught:
        verify_book(tmp_path / "book", key, wal=tmp_path / "wal")
    assert 4 == caught.value.index
    book.close()


def test_another_key_verifies_nothing(copied: Copied) -> None:
    """The verifier key decides; the one in the copy counts for nothing."""
    other = SigningKey.generate(copied.key.name)
    (copied.book / "vkey").write_text(f"{other.verifier}\n", "utf-8")
    for key in (other.verifier, VerifierKey("gatebook.test/other", copied.key.verifier.public_key)):
        with pytest.raises(VerificationError):
            verify_book(copied.book, key)
    with pytest.raises(VerificationError, match="not the key"):
        verify_book(copied.book, copied.key.verifier)


def test_an_empty_book_verifies(tmp_path: Path) -> None:
    """A book without entries is a book, and has a root."""
    open_book(tmp_path).close()

    assert 0 == verify_book(tmp_path / "book", key_of(tmp_path)).size


def test_there_is_no_book(tmp_path: Path) -> None:
    """A directory without a checkpoint is no book."""
    with pytest.raises(VerificationError, match="cannot read the checkpoint"):
        verify_book(tmp_path, SigningKey.generate("a").verifier)
