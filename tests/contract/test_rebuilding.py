"""An index that is missing, damaged or half-done is built, and meanwhile it is said how far it is."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs
from tests.audit_samples import ORIGIN
from tests.filters import SIZE, write_some
from tests.serving import POLICIES, serving

from gatebook.audit.book import Book
from gatebook.audit.catching_up import NEAR_ENTRIES, CatchingUp
from gatebook.audit.clerk import Published
from gatebook.audit.clerk_words import Begin
from gatebook.audit.clerking import Clerking
from gatebook.audit.index import Index
from gatebook.audit.people import People
from gatebook.audit.publish import Publisher
from gatebook.audit.tile_folder import TileFolder
from gatebook.cli import main
from gatebook.errors import BookUnavailableError
from gatebook.tlog.checkpoint import parse_checkpoint
from gatebook.v1 import access_service_pb2 as access
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

YES, NO, COULD_NOT_ASK = 0, 1, 3


def run(*arguments: str) -> Result:
    """Runs a command in this process."""
    return CliRunner().invoke(main, ["audit", *arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Provides a data directory with a published book and no index."""
    book = Book.open(tmp_path, origin=ORIGIN)
    people = People.open(tmp_path)
    write_some(book, people, SIZE, 3, timedelta(0))
    Publisher(book).publish_now()
    people.close()
    book.close()
    return tmp_path


@pytest.fixture
def lived(tmp_path: Path) -> Path:
    """Provides the data directory of a server that has stopped, without its index."""
    with serving(tmp_path, [POLICIES / "basic"]) as server, server.channel() as channel:
        for number in range(20):
            question = types_pb2.AccessRequest(
                subject=types_pb2.Subject(type="user", id=f"person-{number % 3}"),
                action=types_pb2.Action(name="read"),
                resource=types_pb2.Resource(id=f"thing-{number}"),
            )
            AccessServiceStub(channel).CheckAccess(access.CheckAccessRequest(access=question))
    for file in tmp_path.glob("index.db*"):
        file.unlink()
    return tmp_path


def published(data: Path) -> tuple[str, int]:
    """Returns the origin of a book, and how many entries are published."""
    checkpoint = parse_checkpoint((data / "book" / "checkpoint").read_text("utf-8").partition("\n\n")[0] + "\n")
    return checkpoint.origin, checkpoint.size


def half_built(data: Path) -> None:
    """Leaves an index that was broken off."""
    origin, size = published(data)
    people = People.open(data, read_only=True)
    book = Published(TileFolder(data / "book"), size)
    index = Index.open(data / "index.db", book, people, origin)
    index.catch_up(book, size // 2)
    index.close()
    people.close()


def damage(data: Path) -> None:
    """Leaves what is no index."""
    (data / "index.db").write_bytes(b"SQLite format 3\0" + bytes(9_000))


@pytest.mark.parametrize("before", ["missing", "half built", "damaged", "there", "anew"])
def test_the_index_of_a_stopped_server_is_built(lived: Path, before: str) -> None:
    """Whatever there is of an index, the command makes it whole, and a server begins with it."""
    if before in ("half built", "there", "anew"):
        half_built(lived)
    if before in ("there", "anew"):
        assert run("rebuild-index", str(lived)).exit_code == YES
    if before == "damaged":
        damage(lived)
    _, size = published(lived)
    done = run("rebuild-index", str(lived), "--json", *(["--anew"] if before == "anew" else []))
    last = json.loads(done.stdout.splitlines()[-1])

    assert done.exit_code == YES
    assert last == {"indexed": size, "of": size, "done": True}
    with serving(lived, [POLICIES / "basic"]) as server:
        listed = run("list", "--limit", "1000", "--json", "--to", str(size), "--target", server.target)
        refused = run("rebuild-index", str(lived))
    assert [int(entry.get("index", 0)) for entry in json.loads(listed.stdout)["entries"]] == list(reversed(range(size)))
    assert refused.exit_code == NO
    assert "stop it first" in refused.stderr


def test_where_there_is_no_book_nothing_is_built(tmp_path: Path) -> None:
    """A wrong folder is said, and nothing is put there."""
    done = run("rebuild-index", str(tmp_path))

    assert done.exit_code == COULD_NOT_ASK
    assert list(tmp_path.iterdir()) == []


def test_whoever_asks_meanwhile_is_told_how_far_it_is(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read does not wait for an index that is far behind; once it is there, reads find it."""
    monkeypatch.setattr("gatebook.audit.catching_up.NEAR_ENTRIES", 10)
    damage(data)
    clerking = Clerking(lambda: Begin(str(data), ORIGIN, SIZE))
    clerking.open()
    told: list[str] = []
    until = time.monotonic() + 60
    try:
        while clerking.indexed_size < SIZE and time.monotonic() < until:
            try:
                clerking.cover(SIZE)
            except BookUnavailableError as error:
                told.append(error.message)
    finally:
        clerking.close()

    assert clerking.indexed_size == SIZE
    assert all(text.startswith("the index is being built and covers ") for text in told)


def test_progress_is_logged_and_foretold() -> None:
    """The log says every ten seconds how far it is, and who asks is told when it will be there."""
    now = 1_000.0
    catching_up = CatchingUp(lambda: now)
    wanted = 10 * NEAR_ENTRIES
    with capture_logs() as said:
        for step in range(11):
            catching_up.note(step * NEAR_ENTRIES, wanted)
            if step == 5:
                with pytest.raises(
                    BookUnavailableError, match=r"covers 500000 of 1000000 entries \(50 %\), ready in about 21 s"
                ):
                    catching_up.require_near(5 * NEAR_ENTRIES, wanted)
            now += 4
        catching_up.note(wanted + 5, wanted + 6)
    catching_up.require_near(wanted, wanted + NEAR_ENTRIES)

    assert [(line["event"], line.get("indexed")) for line in said] == [
        ("index is being built", 0),
        ("index is being built", 3 * NEAR_ENTRIES),
        ("index is being built", 6 * NEAR_ENTRIES),
        ("index is being built", 9 * NEAR_ENTRIES),
        ("index built", None),
    ]
