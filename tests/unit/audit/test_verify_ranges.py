"""Verification by ranges: in several processes, and from where an earlier run ended, it finds what one pass finds."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from tests.books import ORIGIN, UnsyncedFiles
from tests.receipts import sign_receipt

from gatebook.audit import verify_tiles
from gatebook.audit.opening import sign
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.tile_writer import TileWriter
from gatebook.audit.verify import Report, verify_book
from gatebook.errors import BookUnavailableError, ContradictionError, VerificationError
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.merkle import Frontier, leaf_hash
from gatebook.tlog.tiles import TILE_WIDTH, Tile, number_path

RANGE = 65_536
SIZE = 2 * RANGE + 9_000
SIZES = (1, 255, 256, 257, 1_000, RANGE - 1, RANGE, RANGE + 1, RANGE + 300, 2 * RANGE, 2 * RANGE + 256, SIZE)
KEY = SigningKey.generate(ORIGIN)


def entry(index: int) -> bytes:
    """One short entry."""
    return b"%x" % index


def roots_of(sizes: Sequence[int], entries: Callable[[int], bytes]) -> dict[int, bytes]:
    """The roots at these sizes, made apart from tiles."""
    frontier, roots = Frontier(), {}
    for index in range(max(sizes)):
        frontier.append(sha256(b"\x00" + entries(index)).digest())
        if frontier.size in sizes:
            roots[frontier.size] = frontier.root()
    return roots


def build(book: Path, size: int, entries: Callable[[int], bytes] = entry) -> Path:
    """Makes a signed book with these entries."""
    book.mkdir(parents=True)
    temporary = book.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    writer = TileWriter(TileFolder(book), 0, UnsyncedFiles(), temporary)
    for index in range(size):
        writer.add(entries(index))
    writer.finish()
    (book / "checkpoint").write_bytes(sign(KEY, size, writer.root(), 0).note)
    return book


@dataclass(frozen=True)
class Long:
    """A book of more than two ranges, with what was signed of it."""

    book: Path
    roots: dict[int, bytes]

    def note(self, size: int) -> bytes:
        """The checkpoint that was signed at a size."""
        return sign(KEY, size, self.roots[size], 0).note

    def path(self, level: str, index: int, *, width: int = TILE_WIDTH) -> Path:
        """The full tile of level 0, or the bundle, that holds an entry."""
        path = self.book / "tile" / level / number_path(index // TILE_WIDTH)
        return path if width == TILE_WIDTH else path.with_name(f"{path.name}.p") / str(width)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Long:
    """Makes the book once."""
    return Long(build(tmp_path_factory.mktemp("long") / "book", SIZE), roots_of(SIZES, entry))


@pytest.fixture
def copy(original: Long, tmp_path: Path) -> Long:
    """A copy that a test may change; its files are those of the original until they are replaced."""
    shutil.copytree(original.book, tmp_path / "book", copy_function=os.link)
    return Long(tmp_path / "book", original.roots)


def replace(path: Path, content: bytes) -> None:
    """Gives a file other content, and not the one that it is linked with."""
    path.unlink()
    path.write_bytes(content)


def flip(path: Path, at: int = 9) -> None:
    """Flips one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    replace(path, bytes(content))


def verify(long: Long, since: int | None = None, **asked: object) -> Report:
    """Verifies with the key."""
    note = None if since is None else long.note(since)
    return verify_book(long.book, KEY.verifier, since=note, **asked)  # type: ignore[arg-type]  # as it is asked


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_every_number_of_processes_finds_the_same(original: Long, jobs: int) -> None:
    """The report does not depend on how many processes there are; roots at all sizes hold; progress comes in order."""
    told: list[tuple[int, int]] = []
    remembered = [original.note(size) for size in SIZES]
    report = verify(original, jobs=jobs, remembered=remembered, progress=lambda *each: told.append(each))

    assert (SIZE, original.roots[SIZE], SIZE, 0) == (
        report.size,
        report.root,
        report.remembered_size,
        report.first_index,
    )
    assert sum(len(entry(index)) for index in range(SIZE)) == report.entry_bytes
    assert [(RANGE, SIZE), (2 * RANGE, SIZE), (SIZE, SIZE)] == told


@pytest.mark.parametrize("size", SIZES)
def test_a_false_root_is_found_at_any_size(original: Long, size: int) -> None:
    """A remembered checkpoint with another root contradicts the book, wherever it lies within a range."""
    false = sign(KEY, size, bytes(32), 0).note
    for since in (None, SIZE):
        with pytest.raises(ContradictionError) as caught:
            verify(original, since, remembered=[false])
        assert false in caught.value.checkpoints


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("indexes", [[3], [RANGE - 1], [RANGE, 3], [2 * RANGE + 8_999], [2 * RANGE, RANGE + 77_7]])
def test_the_first_bad_index_is_named(copy: Long, indexes: list[int], jobs: int) -> None:
    """However many processes look, it is the first bad entry that is named."""
    for index in indexes:
        path = copy.path(
            "entries", index, width=SIZE % TILE_WIDTH if index // TILE_WIDTH == SIZE // TILE_WIDTH else 256
        )
        content = path.read_bytes()
        at = content.rindex(b"\x00%c%s" % (len(entry(index)), entry(index))) + 2
        replace(path, content[:at] + b"!" + content[at + 1 :])

    with pytest.raises(VerificationError) as caught:
        verify(copy, jobs=jobs)
    assert min(indexes) == caught.value.index


@pytest.mark.parametrize("since", SIZES)
def test_a_later_run_reads_only_what_is_new(copy: Long, since: int) -> None:
    """Of what lies before the vouched size only hashes at the right edge are read: nothing else has to be there."""
    first = max(since - 1, 0) // TILE_WIDTH * TILE_WIDTH
    edge = {Tile(level, since >> 8 * (level + 1)).path for level in range(1, 3)}
    before = 0
    for index in range(0, first, TILE_WIDTH):
        for level in ("entries", "0"):
            copy.path(level, index).unlink()
            before += 1
    for number in range(first // RANGE):
        if (path := copy.book / Tile(1, number).path).exists() and path.relative_to(copy.book).as_posix() not in edge:
            path.unlink()
    report = verify(copy, since)

    assert (first, copy.roots[SIZE]) == (report.first_index, report.root)
    assert sum(len(entry(index)) for index in range(first, SIZE)) == report.entry_bytes
    assert bool(before) == any("were not read" in warning for warning in report.warnings)
    if before:
        with pytest.raises(VerificationError, match="missing"):
            verify(copy)


def test_what_a_later_run_does_not_show(copy: Long) -> None:
    """A bundle that was damaged since it was verified is not found without reading it, and the report says that."""
    flip(copy.path("entries", 300))

    assert "entries 0 to 65535 were not read" in verify(copy, RANGE + 1).warnings[-1]
    with pytest.raises(VerificationError) as caught:
        verify(copy)
    assert 256 <= (caught.value.index or 0) < 512


@pytest.fixture(scope="module")
def rewritten(original: Long, tmp_path_factory: pytest.TempPathFactory) -> Long:
    """A book with another entry 5, every hash recomputed and the head signed anew."""
    book = tmp_path_factory.mktemp("rewritten") / "book"
    return Long(build(book, SIZE, lambda index: b"other" if index == 5 else entry(index)), original.roots)


@pytest.mark.parametrize("since", [257, RANGE, RANGE + 300, 2 * RANGE + 256, SIZE])
def test_a_rewritten_past_contradicts_what_was_verified(rewritten: Long, since: int) -> None:
    """A history that was rewritten with the key in hand verifies alone, and does not continue what was verified."""
    verify_book(rewritten.book, KEY.verifier)

    with pytest.raises(ContradictionError) as caught:
        verify(rewritten, since)
    assert (rewritten.note(since), (rewritten.book / "checkpoint").read_bytes()) == caught.value.checkpoints


@pytest.mark.parametrize(("level", "number"), [(1, 1), (2, 0)])
def test_a_false_hash_at_the_right_edge_vouches_for_nothing(copy: Long, level: int, number: int) -> None:
    """The hashes over what is not read count only once they lead to the vouched root."""
    count = SIZE >> 8 * level
    path = copy.book / Tile(level, number, min(count - number * TILE_WIDTH, TILE_WIDTH)).path
    flip(path)

    with pytest.raises(VerificationError):
        verify(copy, RANGE + 300)


def test_a_book_that_ends_before_what_was_verified(original: Long, tmp_path: Path) -> None:
    """A shorter book is a rollback, which nothing needs to be read for."""
    book = build(tmp_path / "short" / "book", 256)
    shutil.rmtree(book / "tile")

    with pytest.raises(ContradictionError, match="ends at 256, but a checkpoint of size 257") as caught:
        verify(Long(book, original.roots), 257)
    assert 256 == caught.value.index


def test_what_was_verified_was_signed_by_the_book(original: Long) -> None:
    """A checkpoint of another key vouches for nothing."""
    other = sign(SigningKey.generate(ORIGIN), 257, original.roots[257], 0).note

    with pytest.raises(VerificationError):
        verify_book(original.book, KEY.verifier, since=other)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("since", [None, RANGE + 300])
def test_receipts_hold_in_every_range(original: Long, since: int | None, jobs: int) -> None:
    """Receipts are kept wherever their entries lie, also where those are not read; a false one is named."""
    kept = [0, 255, 256, RANGE - 1, RANGE, RANGE + 299, 2 * RANGE, SIZE - 1]
    receipts = [sign_receipt(KEY, index, leaf_hash(entry(index)), 1) for index in kept]

    assert len(kept) == verify(original, since, receipts=receipts, jobs=jobs).receipts
    for index in kept:
        false = sign_receipt(KEY, index, leaf_hash(b"another"), 1)
        others = [receipt for receipt in receipts if receipt.index != index]
        with pytest.raises(
            VerificationError, match=f"entry {index} is not the one that its receipt promises"
        ) as caught:
            verify(original, since, receipts=[*others, false], jobs=jobs)
        assert index == caught.value.index
    with pytest.raises(VerificationError, match="the book ends before it"):
        verify(original, since, receipts=[sign_receipt(KEY, SIZE, leaf_hash(b""), 1)], jobs=jobs)


@pytest.mark.parametrize("name", ["tile/entries/x000/000", "tile/entries/x001/notes", "tile/0/x001", "tile/2/x000/000"])
def test_a_file_too_many_in_what_is_read(copy: Long, name: str) -> None:
    """A later run looks at the folders of what is new, and refuses what no book has."""
    (copy.book / name).parent.mkdir(parents=True, exist_ok=True)
    (copy.book / name).write_bytes(b"x")

    with pytest.raises(VerificationError):
        verify(copy, RANGE + 300)


class Dying(ProcessPoolExecutor):
    """A pool whose processes end at their first task."""

    def submit(self, *_: object) -> Future[object]:  # type: ignore[override]  # whatever is asked
        """Ends the process that takes the task."""
        return super().submit(os._exit, 1)


def test_a_process_that_ends_verifies_nothing(original: Long, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a process ends before it was done, nothing is verified."""
    monkeypatch.setattr(verify_tiles, "ProcessPoolExecutor", Dying)

    with pytest.raises(BookUnavailableError):
        verify(original, jobs=2)


def test_memory_does_not_grow_with_the_book(original: Long, tmp_path: Path) -> None:
    """A book of three ranges takes no more memory than one of one range."""
    peaks = []
    for book in (build(tmp_path / "one" / "book", RANGE), original.book):
        tracemalloc.start()
        verify_book(book, KEY.verifier)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.2 * peaks[0] + 200_000
