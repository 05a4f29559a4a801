"""Every bit, cut and byte too many of tiles and entry bundles: verification names the first entry that it concerns.

The right index is computed here from C2SP tlog-tiles alone: which hash or entry of which file a byte belongs to.
`make test` takes a sample that a seed chooses, `make test-long` all.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.books import UnsyncedFiles, key_of, open_book, publisher
from tests.fault.test_torn_or_rotten import flip
from tests.serving import gatebook

from gatebook.audit.limits import BookLimits
from gatebook.audit.verify import verify_book
from gatebook.errors import VerificationError

SEED = 20261121
SAMPLE = 20
HASH, WIDE = 32, 256
LONG = pytest.mark.long
LIMITS = BookLimits(group_entries_max=4_096, group_bytes_max=65_536)
SIZES = (300, 515, 522)
"""Two full tiles, and of two levels a partial one of the signed size and one of a size before it."""
TILES = {
    f"{level}/{number}"
    for level, numbers in {
        "entries": ("000", "001", "002.p/3", "002.p/10"),
        "0": ("000", "001", "002.p/3", "002.p/10"),
        "1": ("000.p/1", "000.p/2"),
    }.items()
    for number in numbers
}
LARGE = WIDE * WIDE + 300
LARGE_TILES = ("2/000.p/1", "1/000", "1/001.p/1", "0/255", "0/256", "0/257.p/44", "entries/256", "entries/257.p/44")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published book; its folder."""
    return made(tmp_path_factory.mktemp("small"), SIZES)


def made(data: Path, sizes: tuple[int, ...]) -> Path:
    """Makes a book that is published at some sizes, of entries of 1 to 3 bytes; returns its folder."""
    opened = open_book(data, files=UnsyncedFiles(), limits=LIMITS)
    publish = publisher(opened)
    for size in sizes:
        while opened.size < size:
            indexes = range(opened.size, min(size, opened.size + 2_048))
            opened.append_group([b"%x" % (index * 7 % 4_096) for index in indexes])
        publish.publish_now()
    opened.close()
    return data / "book"


def tiles(book: Path) -> list[Path]:
    """All tiles and bundles."""
    return sorted(path for path in (book / "tile").rglob("*") if path.is_file())


def owners(book: Path, path: Path) -> list[int]:
    """Returns for each byte of a file the first entry that is not vouched for without it, and who would come next."""
    level, number = path.relative_to(book / "tile").as_posix().split("/", 1)
    first = int(number.split(".")[0].replace("x", "").replace("/", "")) * WIDE
    content = path.read_bytes()
    if level != "entries":
        return [(first + at // HASH) * WIDE ** int(level) for at in range(len(content) + 1)]
    owned: list[int] = []
    while len(owned) < len(content):
        start = len(owned)
        owned += [first] * (2 + int.from_bytes(content[start : start + 2], "big"))
        first += 1
    return [*owned, first]


def places(size: int, bit: int | None) -> Iterator[tuple[int, int]]:
    """Yields places and bits: all places with one bit, or a sample."""
    if bit is not None:
        yield from ((at, bit) for at in range(size))
        return
    dice = random.Random(SEED)
    for at in sorted({0, size - 1, *dice.sample(range(size), min(SAMPLE, size))}):
        yield at, dice.randrange(8)


def found(book: Path, path: Path, content: bytes) -> int | None:
    """Returns the entry that verification names while a file has another content."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(VerificationError) as caught:
            verify_book(book, key_of(book.parent))
    finally:
        path.write_bytes(before)
    return caught.value.index


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("bit", [None, *(pytest.param(bit, marks=LONG) for bit in range(8))])
def test_a_flip_names_its_entry(book: Path, bit: int | None) -> None:
    """A bit of a bundle concerns its entry; one of a tile the first entry under its hash."""
    assert {path.relative_to(book / "tile").as_posix() for path in tiles(book)} == TILES
    for path in tiles(book):
        content, owned = path.read_bytes(), owners(book, path)
        wrong = [
            (path.name, at, which, owned[at], named)
            for at, which in places(len(content), bit)
            if owned[at] != (named := found(book, path, flip(which, content, at)))
        ]
        assert [] == wrong
    verify_book(book, key_of(book.parent))


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=LONG)])
def test_a_cut_names_the_first_entry_that_is_lost(book: Path, every: bool) -> None:
    """A file that was cut, or that has bytes too many, is reported from the first entry on that it lacks, or ends."""
    for path in tiles(book):
        content, owned = path.read_bytes(), owners(book, path)
        cuts = [at for at, _ in places(len(content), 0 if every else None)]
        assert [owned[at] for at in cuts] == [found(book, path, content[:at]) for at in cuts]
        assert {owned[-1]} == {found(book, path, content + bytes(more)) for more in (1, 2, 3, HASH)}


def test_a_byte_between_names_its_entry(book: Path) -> None:
    """A byte that was put in moves all behind it: named is the entry that it was put into or before."""
    for path in tiles(book):
        content, owned = path.read_bytes(), owners(book, path)
        for at, _ in places(len(content), None):
            put = bytes([content[at] ^ 0xFF])
            assert owned[at] == found(book, path, content[:at] + put + content[at:])


def test_the_command_names_it(book: Path, tmp_path: Path) -> None:
    """`gatebook audit verify` says so, for a bundle, for the one before it, and for a tile above the leaves."""
    copy = tmp_path / "copy"
    shutil.copytree(book, copy)
    for name in ("entries/001", "entries/002.p/3", "1/000.p/2"):
        path = copy / "tile" / name
        content, owned = path.read_bytes(), owners(copy, path)
        at = len(content) * 3 // 4
        path.write_bytes(flip(0, content, at))
        verified = gatebook("audit", "verify", str(copy), "--vkey", str(book / "vkey"), "--json")
        path.write_bytes(content)
        assert 1 == verified.returncode
        assert owned[at] == json.loads(verified.stdout)["first_bad_index"]


@LONG
@pytest.mark.timeout(3_600)
def test_tiles_of_three_levels(tmp_path: Path) -> None:
    """The same with a full tile of level 1 and one above it: places that a seed chooses, all of the topmost tile."""
    book, dice, seen = made(tmp_path, (LARGE,)), random.Random(SEED), Counter[str]()
    for name in LARGE_TILES:
        path = book / "tile" / name
        content, owned = path.read_bytes(), owners(book, path)
        some = range(len(content)) if len(content) <= HASH else dice.sample(range(len(content)), SAMPLE)
        for at in some:
            assert owned[at] == found(book, path, flip(dice.randrange(8), content, at))
            assert owned[at] == found(book, path, content[:at])
            seen[name] += 1
    assert set(LARGE_TILES) == seen.keys()
