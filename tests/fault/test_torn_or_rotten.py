"""Every byte of a small write-ahead log and of a small book is flipped and cut: nothing passes unseen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.books import UnsyncedFiles, key_of, open_book, publisher

from gatebook.audit.limits import BookLimits
from gatebook.audit.recovery import Replay
from gatebook.audit.segment import HEADER_BYTES
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import verify_book
from gatebook.errors import BookCorruptError, BookRefusedError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint

SMALL = BookLimits(segment_bytes=8_192, group_entries_max=64, group_bytes_max=4_096)
GROUPS = [[b"first", b"second"], [b"third"], [b"fourth", b"fifth"]]
ENTRIES = [entry for group in GROUPS for entry in group]
LAST = len(GROUPS[-1])


@pytest.fixture
def unpublished(memory_path: Path) -> tuple[Path, Checkpoint, int]:
    """A write-ahead log of three groups, its checkpoint, and the offset where they end."""
    book = open_book(memory_path, files=UnsyncedFiles(), limits=SMALL)
    for group in GROUPS:
        book.append_group(group)
    end = book.wal._segments[-1].end
    book.close()
    return memory_path, book.signed.checkpoint, end


def replay(data: Path, published: Checkpoint) -> tuple[list[bytes], int]:
    """What a start would find: the entries, and the bytes of a torn group."""
    tiles = TileFolder(data / "book")
    found = Replay(data / "wal", published, lambda at: tiles.frontier(at, published.size))
    entries = [entry for group in found.groups() for entry in group.entries]
    return entries, found.torn_bytes


def segment(data: Path) -> Path:
    """The one segment with groups."""
    [path] = (data / "wal").glob("*.wal")
    return path


def verdict(data: Path, published: Checkpoint) -> str:
    """Says what a start makes of a log: refused, or torn with nothing but the last group lost."""
    try:
        entries, torn_bytes = replay(data, published)
    except BookCorruptError as err:
        return "refused" if err.index in range(len(ENTRIES)) else "refused without an index"
    except BookRefusedError:
        return "refused"
    return "torn" if torn_bytes and entries in (ENTRIES, ENTRIES[:-LAST]) else "unseen"


def last_group_offset(data: Path) -> int:
    """Where the last group begins."""
    content = segment(data).read_bytes()
    return content.index(b"fourth") - 16


def test_every_flipped_byte_of_the_log(unpublished: tuple[Path, Checkpoint, int]) -> None:
    """A flipped bit before the last group is refused with its index; in it or after it, it is a torn tail."""
    data, published, end = unpublished
    path, last = segment(data), last_group_offset(data)
    content = path.read_bytes()
    verdicts = []
    for at in range(end + 64):
        path.write_bytes(flip(at % 8, content, at))
        verdicts.append(verdict(data, published))

    assert ["refused"] * last + ["torn"] * (end + 64 - last) == verdicts


def test_every_flipped_byte_of_what_is_signed(unpublished: tuple[Path, Checkpoint, int]) -> None:
    """Below the signed size nothing passes for torn, not even in the last group."""
    data, _, end = unpublished
    book = open_book(data, files=UnsyncedFiles(), limits=SMALL)
    signed = publisher(book).publish_now().checkpoint
    end = book.wal._segments[-1].end
    book.close()
    path = segment(data)
    content = path.read_bytes()
    for at in range(HEADER_BYTES, end):
        path.write_bytes(flip(at % 8, content, at))
        with pytest.raises(BookCorruptError) as caught:
            replay(data, signed)
        assert caught.value.index in range(len(ENTRIES))


def test_every_flipped_byte_below_the_floor(unpublished: tuple[Path, Checkpoint, int]) -> None:
    """What a start has found and copied is durable: it never passes for torn later."""
    data, published, _ = unpublished
    book = open_book(data, files=UnsyncedFiles(), limits=SMALL)
    end = book.wal._segments[-1].end
    book.close()
    path = segment(data)
    content = path.read_bytes()
    for at in range(end):
        path.write_bytes(flip(at % 8, content, at))
        with pytest.raises(BookRefusedError):
            replay(data, published)


def test_every_cut_of_the_log(unpublished: tuple[Path, Checkpoint, int]) -> None:
    """A log cut anywhere is refused, since segments never shrink; the index is the first that may be lost."""
    data, published, _ = unpublished
    path = segment(data)
    content = path.read_bytes()
    for at in range(len(content) - 1):
        path.write_bytes(content[:at])
        with pytest.raises(BookCorruptError) as caught:
            replay(data, published)
        assert caught.value.index in range(len(ENTRIES) + 1)


def test_a_torn_group_is_reported_and_the_book_goes_on(unpublished: tuple[Path, Checkpoint, int]) -> None:
    """A start over a torn group says how much it drops, and the next entry takes the free index."""
    data, _, end = unpublished
    path, last = segment(data), last_group_offset(data)
    content = bytearray(path.read_bytes())
    content[end - 1] ^= 1
    path.write_bytes(content)

    book = open_book(data, files=UnsyncedFiles(), limits=SMALL)

    assert end - last == book.recovery.torn_bytes
    assert ENTRIES[:-LAST] == book.read(0, book.size)
    assert len(ENTRIES) - LAST == book.append_group([b"again"]).first_index
    book.close()
    again = open_book(data, files=UnsyncedFiles(), limits=SMALL)
    assert [*ENTRIES[:-LAST], b"again"] == again.read(0, again.size)
    again.close()


@pytest.fixture
def published(memory_path: Path) -> Path:
    """A book of five entries, signed at sizes 2, 3 and 5."""
    book = open_book(memory_path, files=UnsyncedFiles(), limits=SMALL)
    publish = publisher(book)
    for group in GROUPS:
        book.append_group(group)
        publish.publish_now()
    book.close()
    return memory_path


def flip(bit: int, content: bytes, at: int) -> bytes:
    """Flips one bit."""
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def damaged(data: Path, damage: Callable[[bytes, int], bytes]) -> int:
    """Damages each byte of each file of a book in turn; every time verification must fail."""
    key = key_of(data)
    files = [path for path in (data / "book").rglob("*") if path.is_file()]
    assert len(files) == 8
    cases = 0
    for path in files:
        content = path.read_bytes()
        for at in range(len(content)):
            path.write_bytes(damage(content, at))
            with pytest.raises(VerificationError):
                verify_book(data / "book", key)
            cases += 1
        path.write_bytes(content)
    verify_book(data / "book", key)
    return cases


def test_every_flipped_bit_of_a_book(published: Path) -> None:
    """Every bit of every file of a book counts: checkpoint, key, bundles and tiles of every signed size."""
    cases = sum(damaged(published, partial(flip, bit)) for bit in range(8))

    assert cases > 4_000


def test_every_cut_of_a_book(published: Path) -> None:
    """A file cut anywhere fails."""
    damaged(published, lambda content, at: content[:at])


def test_a_byte_more_in_any_file_of_a_book(published: Path) -> None:
    """A byte inserted anywhere, or added at the end, fails."""
    damaged(published, lambda content, at: content[:at] + b"0" + content[at:])
    damaged(published, lambda content, at: content + b"\x00" * (at + 1))


def test_a_start_refuses_a_flipped_byte_at_the_right_edge(published: Path) -> None:
    """A start does not read the whole book, but what it builds on must lead to the signed root."""
    tile = published / "book" / "tile" / "0" / "000.p" / "5"
    content = tile.read_bytes()
    for at in range(len(content)):
        tile.write_bytes(flip(0, content, at))
        with pytest.raises(BookCorruptError):
            open_book(published, files=UnsyncedFiles(), limits=SMALL)
    shutil.rmtree(published / "book" / "tile")
    with pytest.raises(BookCorruptError, match="missing"):
        open_book(published, files=UnsyncedFiles(), limits=SMALL)
