"""What is remembered of a book: rollback, truncation and split views are found out, with both signed checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.books import ORIGIN, key_of, open_book, publisher, some_entries
from tests.serving import POLICIES, RunningServer, gatebook, serving
from tests.witnesses import NAME

from gatebook.audit.files import Files
from gatebook.audit.opening import Layout, sign
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.tile_writer import TileWriter
from gatebook.audit.verify import verify_book
from gatebook.cli.memory import Memory
from gatebook.errors import ContradictionError, VerificationError
from gatebook.tlog.cosignature import WitnessSigningKey
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.note import Note, parse_note
from gatebook.tlog.policy import any_of
from gatebook.v1 import audit_service_pb2 as pb
from gatebook_client import connect_blocking
from gatebook_client.verify import CheckpointMemory

WITNESSES = [WitnessSigningKey.generate(f"{NAME}/{number}") for number in range(3)]
NOW = 1_700_000_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """Gives a server with a book, and a folder."""
    folder = tmp_path_factory.mktemp("remembered")
    with serving(folder / "data", [POLICIES / "basic"], "--origin", ORIGIN) as server:
        yield server, folder


def copied(server: RunningServer, to: Path) -> Path:
    """Publishes and copies the book."""
    with connect_blocking(server.target) as client:
        client.checkpoint(refresh=True)
    to.mkdir()
    shutil.copy(server.data / "book" / "checkpoint", to)
    shutil.copytree(server.data / "book" / "tile", to / "tile")
    return to


def rewritten(copy: Path, data: Path, to: Path, last: Sequence[bytes] = (b"rewritten",)) -> Path:
    """Makes what the holder of the key would: a consistent book with another last entry, or with none."""
    key = SigningKey.parse(Layout(data).key.read_text())
    size = int((copy / "checkpoint").read_text().splitlines()[1])
    entries = TileFolder(copy).entries(0, size, size)
    to.mkdir()
    (to / "new").mkdir()
    tiles = TileWriter(TileFolder(to), 0, Files(), to / "new")
    for entry in [*entries[:-1], *last]:
        tiles.add(entry)
    tiles.finish()
    (to / "new").rmdir()
    (to / "checkpoint").write_bytes(sign(key, tiles.size, tiles.root(), 1).note)
    return to


def verify(book: Path, key: Path, state: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Runs `gatebook audit verify --json`."""
    done = gatebook("audit", "verify", str(book), "--vkey", str(key), "--json", *more, state=state)
    return done.returncode, json.loads(done.stdout)


def test_each_book_is_remembered_without_being_told(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """The first copy is believed, a later one continues it, and the first is then a rollback: both notes are shown."""
    server, _ = served
    key = server.data / "book" / "vkey"
    old, state = copied(server, tmp_path / "old"), tmp_path / "state"
    new = copied(server, tmp_path / "new")
    size = int((old / "checkpoint").read_text().splitlines()[1])

    assert (0, 0) == (verify(old, key, state)[0], verify(new, key, state)[0])
    code, told = verify(old, key, state)
    notes = [(each / "checkpoint").read_text() for each in (new, old)]
    assert (1, size, notes) == (code, told["first_bad_index"], told["evidence"])
    assert 0 == verify(new, key, state)[0]
    assert 0 == verify(old, key, state, "--no-remember")[0]
    assert 0 == verify(old, key, tmp_path / "another-state")[0]


def test_truncation_is_found(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """A consistent book that ends earlier, signed anew by its own key, is refused where more was remembered."""
    server, _ = served
    key, state = server.data / "book" / "vkey", tmp_path / "state"
    whole = copied(server, tmp_path / "whole")
    assert 0 == verify(whole, key, state)[0]
    size = int((whole / "checkpoint").read_text().splitlines()[1])
    code, told = verify(rewritten(whole, server.data, tmp_path / "shorter", ()), key, state)

    assert (1, True) == (code, f"but a checkpoint of size {size} was signed" in str(told["error"]))


def test_a_split_view_is_found(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """Another history under the same key is refused, and the two notes alone convict the key."""
    server, _ = served
    key, state = server.data / "book" / "vkey", tmp_path / "state"
    honest = copied(server, tmp_path / "honest")
    assert 0 == verify(honest, key, state)[0]
    other = rewritten(honest, server.data, tmp_path / "other")
    code, told = verify(other, key, state)

    assert 1 == code
    one, two = (key_of(server.data).open_note(str(note).encode()).text.split("\n") for note in told["evidence"])
    assert one[:2] == two[:2]
    assert one[2] != two[2]
    assert 0 == verify(honest, key, state)[0]


def test_the_server_is_asked_for_its_checkpoint(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """`audit checkpoint` remembers what a server shows, and what a copy shows later must continue that, both ways."""
    server, _ = served
    key, state = str(server.data / "book" / "vkey"), tmp_path / "state"
    old = copied(server, tmp_path / "old")
    ask = ("audit", "checkpoint", "--vkey", key, "--target", server.target)
    first = gatebook(*ask, state=state)
    copied(server, tmp_path / "new")
    second = gatebook(*ask, state=state)

    assert (0, 0) == (first.returncode, second.returncode), second.stderr
    assert second.stdout.splitlines()[1].startswith("  continues    the remembered checkpoint of size ")
    assert 1 == verify(old, Path(key), state)[0]


def test_the_server_is_caught_with_another_history(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """A server whose book does not continue what is remembered: `audit checkpoint` exits 1 and shows both notes."""
    server, _ = served
    seen = rewritten(copied(server, tmp_path / "copy"), server.data, tmp_path / "other") / "checkpoint"
    before = seen.read_bytes()
    copied(server, tmp_path / "grown")
    ask = ("audit", "checkpoint", "--vkey", str(server.data / "book" / "vkey"), "--target", server.target, "--json")
    done = gatebook(*ask, "--remember", str(seen))
    told = json.loads(done.stdout)

    assert (1, False) == (done.returncode, told["verified"])
    assert before.decode() == told["evidence"][0]
    assert before == seen.read_bytes()


def test_a_client_remembers(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """The memory of a client grows with the book, survives its process, and believes no older or other book."""
    server, _ = served
    key, path = str(key_of(server.data)), tmp_path / "seen"
    with connect_blocking(server.target) as client:
        memory = CheckpointMemory(path, key)
        first = client.checkpoint(refresh=True)
        assert 0 == memory.wants_proof(first)
        assert first.size == memory.take(first).size == CheckpointMemory(path, key).size
        newest = client.checkpoint(refresh=True)
        again = CheckpointMemory(path, key)
        assert newest.size == again.wants_proof(newest)
        with pytest.raises(ContradictionError, match="not proved"):
            again.take(newest)
        proof = client.consistency_proof(again.size, new_size=newest.size)
        assert newest.size == again.take(newest, proof).size
        with pytest.raises(ContradictionError, match="ends at") as caught:
            again.take(first)
    assert (newest.checkpoint.encode(), first.checkpoint.encode()) == caught.value.checkpoints
    assert newest.size == CheckpointMemory(path, key).size


def test_a_client_believes_witnesses(tmp_path: Path) -> None:
    """With witnesses named, the newest checkpoint with enough cosignatures is believed, and none without."""
    book = open_book(tmp_path)
    publish = publisher(book)
    notes = []
    for entry in some_entries(1, 3):
        book.append_group([entry])
        notes.append(parse_note(publish.publish_now().note))
    book.close()
    lines = tuple(each.cosign(notes[1].text, NOW) for each in WITNESSES[:2])
    cosigned = Note(notes[1].text, (*notes[1].signatures, *lines)).format().decode()
    newest, keys = notes[2].format().decode(), [str(each.public) for each in WITNESSES]
    answer = pb.GetCheckpointResponse(checkpoint=newest, size=3, witnessed_checkpoint=cosigned)
    key = str(key_of(tmp_path))

    assert 2 == CheckpointMemory(tmp_path / "a", key, witnesses=keys, witnesses_needed=2).take(answer).size
    assert 3 == CheckpointMemory(tmp_path / "b", key).take(answer).size
    strict = CheckpointMemory(tmp_path / "c", key, witnesses=keys)
    for given in (answer, pb.GetCheckpointResponse(checkpoint=newest, size=3)):
        with pytest.raises(VerificationError, match="too few witnesses"):
            strict.take(given)
    assert not (tmp_path / "c").exists()


def test_a_copy_is_verified_with_witnesses(tmp_path: Path) -> None:
    """Enough cosigned the copy's checkpoint, or an earlier one that it extends, and never one of another history."""
    book = open_book(tmp_path)
    publish = publisher(book)
    notes = []
    for entry in some_entries(2, 4):
        book.append_group([entry])
        notes.append(parse_note(publish.publish_now().note))
    book.close()
    copy, key = tmp_path / "book", key_of(tmp_path)
    all_of, two_of = (any_of([each.public for each in WITNESSES], needed) for needed in (None, 2))

    def cosign(note: Note, count: int) -> bytes:
        lines = tuple(each.cosign(note.text, NOW) for each in WITNESSES[:count])
        return Note(note.text, (*note.signatures, *lines)).format()

    for name, content in (("witnessed", None), ("witnessed", cosign(notes[2], 1)), ("checkpoint", cosign(notes[3], 1))):
        if content:
            (copy / name).write_bytes(content)
        with pytest.raises(VerificationError, match="too few witnesses"):
            verify_book(copy, key, witnesses=two_of)
    (copy / "witnessed").write_bytes(cosign(notes[2], 2))
    report = verify_book(copy, key, witnesses=two_of)
    assert (4, 3, 2) == (report.size, report.witnessed_size, len(report.cosigned))
    assert "the last 1 entries are not yet witnessed" in report.warnings[0]
    with pytest.raises(VerificationError, match="too few witnesses"):
        verify_book(copy, key, witnesses=all_of)
    (copy / "checkpoint").write_bytes(cosign(notes[3], 3))
    assert 4 == verify_book(copy, key, witnesses=all_of).witnessed_size

    signing = SigningKey.parse(Layout(tmp_path).key.read_text())
    forked = parse_note(sign(signing, 3, bytes(32), 1).note)
    (copy / "checkpoint").write_bytes(notes[3].format())
    (copy / "witnessed").write_bytes(cosign(forked, 3))
    with pytest.raises(ContradictionError, match="not those that were signed at size 3"):
        verify_book(copy, key, witnesses=all_of)


def test_a_rollback_between_two_processes_is_found(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """Two memories of one file: who knows less than the file puts no older or other checkpoint in its place."""
    server, _ = served
    key, path = str(key_of(server.data)), tmp_path / "seen"
    with connect_blocking(server.target) as client:
        first = client.checkpoint(refresh=True)
        behind, ahead = CheckpointMemory(path, key), CheckpointMemory(path, key)
        newest = client.checkpoint(refresh=True)
        ahead.take(newest)
        with pytest.raises(VerificationError, match="another process has remembered"):
            behind.take(first)
        with pytest.raises(ContradictionError, match="ends at"):
            behind.take(first)
        assert newest.size == behind.size == behind.take(newest).size == CheckpointMemory(path, key).size
        path.unlink()
        with pytest.raises(ContradictionError, match="ends at"):
            ahead.take(first)
        ahead.take(newest)
        path.write_bytes(first.checkpoint.encode())  # put back
        ahead.take(newest)
        assert newest.size == CheckpointMemory(path, key).size
    assert ["seen"] == [each.name for each in tmp_path.iterdir() if each.name.startswith("seen")]


def test_commands_at_once_forget_nothing(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """What another command remembers while one verifies is not overwritten by what it was never compared with."""
    server, _ = served
    old, new = copied(server, tmp_path / "old"), copied(server, tmp_path / "new")
    kept, newer = ((each / "checkpoint").read_bytes() for each in (old, new))
    memory = Memory(tmp_path / "seen", asked=True)
    assert "" == memory.put(kept, [])
    with pytest.raises(VerificationError, match="another command"):
        memory.put(newer, [])
    assert [kept] == memory.notes()
    assert "" == memory.put(newer, [kept])
    assert "" == memory.put(kept, [kept])
    assert [newer] == memory.notes()
    assert ["seen"] == [each.name for each in tmp_path.iterdir() if each.name.startswith("seen")]


DAMAGED = {"empty": b"", "cut": b"gatebook.test/book\n5\n", "binary": b"\xff\xfe", "huge": b"x" * 1_100_000}


def test_a_damaged_memory_is_not_a_new_one(served: tuple[RunningServer, Path], tmp_path: Path) -> None:
    """What cannot be read is neither believed nor begun anew, nor called a fault of the book; a link stays one."""
    server, _ = served
    key, book, seen = server.data / "book" / "vkey", copied(server, tmp_path / "book"), tmp_path / "seen"
    ask = ("audit", "verify", str(book), "--vkey", str(key), "--remember", str(seen))
    for content in DAMAGED.values():
        seen.write_bytes(content)
        done = gatebook(*ask)
        assert (3, True) == (done.returncode, "remembers no checkpoint" in done.stderr)
        assert content == seen.read_bytes()
        with pytest.raises(VerificationError):
            CheckpointMemory(seen, key.read_text())
    seen.unlink()
    elsewhere = tmp_path / "volume" / "seen"
    seen.symlink_to(elsewhere)
    assert 3 == gatebook(*ask).returncode
    with pytest.raises(FileNotFoundError):
        CheckpointMemory(seen, key.read_text())
    elsewhere.parent.mkdir()
    elsewhere.write_bytes((book / "checkpoint").read_bytes())
    assert 0 == gatebook(*ask).returncode
    assert seen.is_symlink()
    with connect_blocking(server.target) as client:
        memory = CheckpointMemory(seen, key.read_text())
        newest = client.checkpoint(refresh=True)
        memory.take(newest, client.consistency_proof(memory.size, new_size=newest.size))
    assert seen.is_symlink()
    assert newest.checkpoint.encode() == elsewhere.read_bytes()
