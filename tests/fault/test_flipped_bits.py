"""Single bits that flip, cuts, and pages that reach the disk out of order: reported with the right index, or harmless.

Log, tiles and checkpoint are in `test_torn_or_rotten`; here are the databases, the right index, and every bit of the
log to its last zero. `make test` takes a sample that a seed chooses, `make test-long` all. What is harmless is counted,
by why it is.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.audit_samples import ORIGIN, decided, entry, request
from tests.books import UnsyncedFiles, key_of, open_book, publisher, some_entries
from tests.fault.test_torn_or_rotten import ENTRIES, SMALL, flip, replay, segment

from gatebook.audit.book import Book
from gatebook.audit.checkpoints import Checkpoints, Stored
from gatebook.audit.clerk import Published
from gatebook.audit.index import Index
from gatebook.audit.opening import Layout, check_book
from gatebook.audit.people import People
from gatebook.audit.query import Query
from gatebook.audit.segment import HEADER_BYTES
from gatebook.audit.sight import EVERYTHING
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import verify_book
from gatebook.errors import BookCorruptError, BookRefusedError, BookUnavailableError, GatebookError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.values import Entity

SEED = 20261121
SECTOR_BYTES = 512
SECTORS = 4
SAMPLE = 400
LONG = pytest.mark.long


def bits(content: bytes, part: int | None) -> Iterator[tuple[int, int]]:
    """Yields places and bits to flip: a sample where no part is given, else every bit of that number."""
    if part is not None:
        yield from ((at, part) for at in range(len(content)))
        return
    dice = random.Random(SEED)
    for at in dice.sample(range(len(content)), min(SAMPLE, len(content))):
        yield at, dice.randrange(8)


EVERY = pytest.mark.parametrize("every", [False, pytest.param(True, marks=LONG)], ids=["some", "every"])
PARTS = pytest.mark.parametrize("part", [None, *(pytest.param(bit, marks=LONG) for bit in range(8))])


@pytest.fixture
def log(memory_path: Path) -> tuple[Path, Checkpoint, int, int]:
    """A log of three groups that no checkpoint covers; where the last group begins, and where all end."""
    book = open_book(memory_path, files=UnsyncedFiles(), limits=SMALL)
    for group in (ENTRIES[:2], ENTRIES[2:3]):
        book.append_group(group)
    last = book.wal._segments[-1].end
    book.append_group(ENTRIES[3:])
    end = book.wal._segments[-1].end
    book.close()
    return memory_path, book.signed.checkpoint, last, end


@pytest.mark.timeout(1_800)
@PARTS
def test_every_bit_of_the_log(log: tuple[Path, Checkpoint, int, int], part: int | None) -> None:
    """Before the last group a flip is refused with the index of its entry. Behind that nothing is lost but that group.

    Harmless, and why: a bit in the last group that nothing follows is what a torn write looks like, and the next start
    says how much it drops; a bit in the zeros behind it lies in no entry, and is dropped in the same way.
    """
    data, published, last, end = log
    path = segment(data)
    content = path.read_bytes()
    seen: Counter[str] = Counter()
    for at, bit in bits(content, part):
        path.write_bytes(flip(bit, content, at))
        if at < last:
            with pytest.raises(BookRefusedError if at < HEADER_BYTES else BookCorruptError) as caught:
                replay(data, published)
            assert at < HEADER_BYTES or getattr(caught.value, "index", None) in indexes_at(content, at)
            seen["refused"] += 1
            continue
        entries, torn_bytes = replay(data, published)
        assert torn_bytes
        where = "torn" if at < end else "zeros"
        assert entries == (ENTRIES[:3] if where == "torn" else ENTRIES)
        seen[where] += 1

    if part is not None:
        assert {"refused": last, "torn": end - last, "zeros": len(content) - end} == seen
    assert {"refused", "torn", "zeros"} >= seen.keys() >= {"refused", "zeros"}


def indexes_at(content: bytes, at: int) -> set[int]:
    """Returns as which entry a byte may be reported: its own; of a trailer one of its group, or the one behind it."""
    first = content.index(b"third") - 16
    group = {0, 1} if at < first else {2}
    own = {index for index, text in enumerate(ENTRIES[:3]) if 0 <= at - (content.index(text) - 16) < 16 + len(text)}
    # A length that has changed breaks its own record, or makes what follows break.
    return own | {index + 1 for index in own} if own else group | {max(group) + 1}


def test_the_last_group_with_pages_out_of_order(memory_path: Path) -> None:
    """Whichever sectors of an unfinished write are on disk, it is torn and all before it is there."""
    torn = sectors_lost(memory_path, followed=False)
    assert torn == Counter(torn=2**SECTORS - 1)


def test_a_group_that_another_follows_lost_no_pages(memory_path: Path) -> None:
    """The same sectors lost before a valid group are rot, and the index lies in the group that lost them."""
    assert sectors_lost(memory_path, followed=True) == Counter(rot=2**SECTORS - 1)


def sectors_lost(data: Path, *, followed: bool) -> Counter[str]:
    """Loses each subset of the sectors of a group; returns what a start makes of it."""
    first, second, third = some_entries(1, 3), some_entries(2, 15, 300), some_entries(3, 3)
    book = open_book(data, files=UnsyncedFiles(), limits=SMALL)
    book.append_group(first)
    start = book.wal._segments[-1].end
    book.append_group(second)
    end = book.wal._segments[-1].end
    if followed:
        book.append_group(third)
    book.close()
    path = segment(data)
    content = path.read_bytes()
    cuts = [start, *range(start - start % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES), end]
    sectors = list(itertools.pairwise(cuts))
    assert len(sectors) >= SECTORS
    sectors = sectors[:SECTORS]
    seen: Counter[str] = Counter()
    for lost in itertools.product((False, True), repeat=len(sectors)):
        damaged = bytearray(content)
        for (begin, stop), gone in zip(sectors, lost, strict=True):
            if gone:
                damaged[begin:stop] = bytes(stop - begin)
        if bytes(damaged) == content:
            continue
        path.write_bytes(damaged)
        if followed:
            with pytest.raises(BookCorruptError) as caught:
                replay(data, book.signed.checkpoint)
            assert caught.value.index in range(len(first), len(first) + len(second))
            seen["rot"] += 1
        else:
            entries, torn_bytes = replay(data, book.signed.checkpoint)
            assert torn_bytes or all(lost)
            assert first == entries
            seen["torn"] += 1
    return seen


@pytest.fixture
def published(memory_path: Path) -> Path:
    """A book of decisions about several people, published and indexed."""
    data = memory_path / "data"
    book = open_book(data, files=UnsyncedFiles(), limits=SMALL)
    people = People.open(data)
    for number in range(3):
        ids = range(3 * number, 3 * number + 3)
        book.append_group(
            [entry(people, decided(request(subject=Entity("user", f"u{i}"), purpose=f"p{i}"), number=i)) for i in ids]
        )
        publisher(book).publish_now()
    tiles = Published(TileFolder(data / "book"), book.size)
    index = Index.open(data / "index.db", tiles, people, ORIGIN)
    index.catch_up(tiles, book.size)
    index.close()
    people.close()
    book.close()
    return data


@pytest.mark.timeout(3_600)
@PARTS
def test_every_bit_of_the_checkpoint_database(published: Path, part: int | None) -> None:
    """A start is refused, or finds the same checkpoint; only its time, which nothing signs, may be another.

    Harmless, and why: `same`, SQLite does not read that byte (free space, counters, versions of itself); `time` guards
    against a clock that goes back, and is not a part of what is signed: an earlier one guards less.
    """
    layout, path = Layout(published), published / "checkpoints.db"
    content, known = path.read_bytes(), Checkpoints(path).newest()
    seen: Counter[str] = Counter()
    for at, bit in bits(content, part):
        path.write_bytes(flip(bit, content, at))
        seen[verdict(layout, known)] += 1
    path.write_bytes(content)

    assert "same" == verdict(layout, known)
    assert seen.keys() <= {"refused", "same", "time"}
    assert seen["refused"]
    assert seen["same"] > seen["refused"]


def verdict(layout: Layout, known: Stored) -> str:
    """Says what a start makes of the checkpoint database."""
    try:
        _, signed = check_book(layout, ORIGIN, time.time_ns(), UnsyncedFiles(), SMALL)
    except GatebookError:
        return "refused"
    finally:
        layout.checkpoints.with_name("checkpoints.db-journal").unlink(missing_ok=True)
    assert (known.size, known.root, known.note) == (signed.checkpoint.size, signed.checkpoint.root, signed.note)
    return "same" if signed.time_ns == known.time_ns else "time"


@pytest.mark.timeout(3_600)
@EVERY
def test_every_cut_of_the_checkpoint_database(published: Path, every: bool) -> None:
    """A database that was cut is refused; only of its last bytes, the unsigned time, zeros may be read."""
    layout, path = Layout(published), published / "checkpoints.db"
    content, known = path.read_bytes(), Checkpoints(path).newest()
    for size in cuts(content, 300, every=every):
        path.write_bytes(content[:size])
        assert verdict(layout, known) in ({"refused", "time"} if size >= len(content) - 8 else {"refused"})


def cuts(content: bytes, sample: int, *, every: bool) -> Iterable[int]:
    """Returns how much is left of a database that was cut: all lengths, or the ends of pages and a sample."""
    if every:
        return range(len(content))
    some = random.Random(SEED).sample(range(len(content)), sample)
    return [0, 1, *range(4_095, len(content), 4_096), *range(4_096, len(content), 4_096), *some]


@pytest.mark.timeout(3_600)
@PARTS
def test_every_bit_of_the_index(published: Path, part: int | None) -> None:
    """Whatever an index says, no answer has an entry that is not in the book, and what cannot be read is reported.

    Harmless for the book, and why: `rebuilt` or `refused`, the damage is seen; `same`, the answers do not change;
    `short`, an index that lost a row hides it from a list, not from the book: an index may be deleted at any time.
    """
    path = published / "index.db"
    content = path.read_bytes()
    seen: Counter[str] = Counter()
    book = open_book(published, files=UnsyncedFiles(), limits=SMALL)
    people = People.open(published)
    entries = book.read(0, book.size)
    for at, bit in bits(content, part):
        path.write_bytes(flip(bit, content, at))
        seen[answered(path, book, people, entries)] += 1
    people.close()
    book.close()

    assert seen.keys() <= {"refused", "rebuilt", "same", "short"}
    assert seen["short"] < seen["same"]
    if part is None:
        assert seen["same"] > SAMPLE // 2


@pytest.mark.timeout(3_600)
@EVERY
def test_every_cut_of_the_index(published: Path, every: bool) -> None:
    """An index that was cut is refused, made anew, or shows every entry as before: it never hides one."""
    path = published / "index.db"
    content = path.read_bytes()
    seen: Counter[str] = Counter()
    book = open_book(published, files=UnsyncedFiles(), limits=SMALL)
    people = People.open(published)
    entries = book.read(0, book.size)
    for size in cuts(content, 200, every=every):
        path.write_bytes(content[:size])
        seen[answered(path, book, people, entries)] += 1
    people.close()
    book.close()

    assert seen.keys() <= {"refused", "rebuilt", "same"}
    assert seen["same"] < seen["rebuilt"] + seen["refused"]


ROTTEN = {
    "a leaf hash that is none": "UPDATE entries SET leaf = 7 WHERE idx = 2",
    "a leaf hash that is text, and no text": "UPDATE entries SET leaf = CAST(x'ff00' AS TEXT) WHERE idx = 2",
    "a size that is no number": "UPDATE covered SET size = x'01'",
    "a beginning that is no number": "UPDATE covered SET first = 'no'",
    "nothing said of what is covered": "DELETE FROM covered",
}


@pytest.mark.parametrize("rot", ROTTEN)
def test_a_row_of_the_index_that_is_no_row(published: Path, rot: str) -> None:
    """What has become of a row another kind of value is reported as damage; a start begins such an index anew."""
    path = published / "index.db"
    with sqlite3.connect(path) as connection:
        connection.execute(ROTTEN[rot])
    connection.close()
    book = open_book(published, files=UnsyncedFiles(), limits=SMALL)
    people = People.open(published)
    query = Query(path, book, people, ORIGIN)
    with pytest.raises(BookUnavailableError, match=r"the index is damaged|the index cannot be read"):
        query.page(pb.ListEntriesRequest(page_size=100), book.size, EVERYTHING)
    query.close()
    if "covered" in ROTTEN[rot]:
        begun = Index.open(path, Published(book.tiles, book.size), people, ORIGIN)
        assert begun.size == 0
        begun.close()
    people.close()
    book.close()


def answered(path: Path, book: Book, people: People, entries: list[bytes]) -> str:
    """Says what the index at a path answers, once its owner has opened it."""
    before = path.stat().st_ino
    published = Published(book.tiles, book.size)
    query = Query(path, book, people, ORIGIN)
    try:
        index = Index.open(path, published, people, ORIGIN)
        try:
            index.catch_up(published, book.size)
        finally:
            index.close()
        found = query.page(pb.ListEntriesRequest(page_size=100), book.size, EVERYTHING)
    except GatebookError:
        return "refused"
    finally:
        query.close()
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    for record in found.records:
        assert entries[record.index] == record.entry_bytes
    if path.stat().st_ino != before:
        assert len(entries) == len(found.records)
        return "rebuilt"
    return "same" if len(found.records) == len(entries) else "short"


def test_a_flip_in_a_bundle_names_its_entry(published: Path) -> None:
    """Verification of a copy says which entry is not what was written, for each byte of the newest bundle."""
    size = int((published / "book" / "checkpoint").read_text("utf-8").split("\n")[1])
    bundle = published / "book" / "tile" / "entries" / "000.p" / f"{size}"
    content, key = bundle.read_bytes(), key_of(published)
    at = 0
    for index in range(size):
        end = at + 2 + int.from_bytes(content[at : at + 2], "big")
        for place in range(at + 2, end, 7):
            bundle.write_bytes(flip(place % 8, content, place))
            with pytest.raises(VerificationError) as caught:
                verify_book(published / "book", key)
            assert index == caught.value.index
        at = end
    assert at == len(content)
