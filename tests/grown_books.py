"""One book of the real writer at each of the sizes where trees and tiles change shape, and damaged copies of it.

For programs that are not ours: they read directories.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.books import ORIGIN, UnsyncedFiles, key_of, publisher

from gatebook.audit.book import Book
from gatebook.audit.opening import sign
from gatebook.audit.tile_folder import TileFolder
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.tiles import ENTRIES, TILE_WIDTH, Tile, tile_count

SIZES = (0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537)
LONGEST = 3
"""The entry that is as long as an entry can be."""


def entry(index: int) -> bytes:
    """An entry of the book; the first are as short and as long as can be."""
    return b"x" * {0: 1, LONGEST: 65_535}[index] if index in (0, LONGEST) else b"%d" % index * (1 + index % 7)


@dataclass(frozen=True)
class GrownBooks:
    """The directories of a book, by size."""

    key: VerifierKey
    books: dict[int, Path]
    roots: dict[int, bytes]

    def samples(self, size: int) -> list[int]:
        """Indexes of a book: all of a small one, and those at edges of a large one."""
        if size <= 2 * TILE_WIDTH:
            return list(range(size))
        near = {edge + step for edge in (0, *SIZES, size, size // 2, 12_345) for step in (-2, -1, 0, 1)}
        return sorted(index for index in near if 0 <= index < size)

    def earlier(self, size: int) -> list[int]:
        """Sizes that a book continues: all of a small one, and those at edges of a large one."""
        return [index + 1 for index in self.samples(size)]

    def inclusion(self, size: int) -> dict[str, list[str]]:
        """Our own proofs, in hexadecimal."""
        tiles = TileFolder(self.books[size])
        return {str(at): [h.hex() for h in tiles.inclusion_proof(at, size, size)] for at in self.samples(size)}

    def consistency(self, size: int) -> dict[str, list[str]]:
        """Our own proofs, in hexadecimal."""
        tiles = TileFolder(self.books[size])
        return {str(old): [h.hex() for h in tiles.consistency_proof(old, size, size)] for old in self.earlier(size)}


def grow(folder: Path) -> GrownBooks:
    """Makes the book in a folder, and keeps what it was at each size."""
    data = folder / "data"
    book = Book.open(data, origin=ORIGIN, files=UnsyncedFiles())
    publish, books, roots = publisher(book), {}, {}
    for size in SIZES:
        while book.size < size:
            book.append_group([entry(index) for index in range(book.size, min(book.size + 500, size))])
        roots[size] = publish.publish_now().checkpoint.root
        # What has a name in a book never changes, so that a copy may be of links.
        books[size] = shutil.copytree(data / "book", folder / str(size), copy_function=os.link)
    book.close()
    return GrownBooks(key_of(data), books, roots)


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.unlink()
    path.write_bytes(content)


def _last(size: int, level: int) -> str:
    """The path of the last tile of a level."""
    count = tile_count(level, size)
    return Tile(level, (count - 1) // TILE_WIDTH, (count - 1) % TILE_WIDTH + 1).path


def flip_the_last_entry(book: Path, size: int) -> None:
    """Flips a bit of the last entry."""
    _flip(book / _last(size, ENTRIES), -1)


def flip_the_last_leaf(book: Path, size: int) -> None:
    """Flips a bit of the last leaf hash."""
    _flip(book / _last(size, 0), -1)


def flip_an_upper_hash(book: Path, size: int) -> None:
    """Flips a bit of the last hash of the topmost level."""
    top = max(level for level in range(8) if tile_count(level, size))
    _flip(book / _last(size, top), -1)


def drop_the_last_bundle(book: Path, size: int) -> None:
    """Removes the last bundle."""
    (book / _last(size, ENTRIES)).unlink()


def claim_another_size(book: Path, size: int) -> None:
    """Changes the size in the checkpoint, under the signature that is there."""
    note = (book / "checkpoint").read_bytes()
    (book / "checkpoint").unlink()
    (book / "checkpoint").write_bytes(note.replace(b"\n%d\n" % size, b"\n%d\n" % (size - 1), 1))


def sign_with_another_key(book: Path, _size: int) -> None:
    """Has the true size and root signed by another key under the same name."""
    text = (book / "checkpoint").read_text("utf-8").partition("\n\n")[0] + "\n"
    (book / "checkpoint").unlink()
    (book / "checkpoint").write_bytes(SigningKey.generate(ORIGIN).sign_note(text).format())


def sign_another_root(book: Path, size: int) -> None:
    """Has another root signed by the true key, which a liar may hold."""
    key = SigningKey.parse((book.parent / "data" / "keys" / "book.key").read_text("utf-8"))
    (book / "checkpoint").unlink()
    (book / "checkpoint").write_bytes(sign(key, size, bytes(32), 0).note)


Damage = Callable[[Path, int], None]
OF_ENTRIES: tuple[Damage, ...] = (flip_the_last_entry, drop_the_last_bundle)
OF_TILES: tuple[Damage, ...] = (flip_the_last_leaf, flip_an_upper_hash)
OF_CHECKPOINTS: tuple[Damage, ...] = (claim_another_size, sign_with_another_key, sign_another_root)
"""What is done to a book of at least two entries. Each verifier says which of these it finds."""


def damaged(grown: GrownBooks, size: int, damage: Damage) -> Path:
    """A copy of a book, damaged."""
    to = grown.books[size].with_name(f"{size}-{damage.__name__}")
    if not to.exists():
        shutil.copytree(grown.books[size], to, copy_function=os.link)
        damage(to, size)
    return to
