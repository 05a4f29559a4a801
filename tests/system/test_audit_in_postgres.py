"""The index in PostgreSQL answers what a look at every entry finds, and what is done to it shows."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit_samples import ORIGIN
from tests.contract.test_combined import aged, ask, prune
from tests.filters import FILTERS, IDS, NAMES, SIZE, matches, near, write_some
from tests.serving import POLICIES, serving
from tests.system.test_plans_in_postgres import socket as socket  # noqa: PLC0414  # a fixture

from gatebook.audit.book import Book
from gatebook.audit.copied import CopiedBook
from gatebook.audit.index import person_word, stranger_word
from gatebook.audit.people import People
from gatebook.audit.postgres import PostgresIndex
from gatebook.audit.publish import Publisher
from gatebook.cli import main
from gatebook.errors import BookUnavailableError
from gatebook.tlog.keys import VerifierKey
from gatebook.v1.audit_service_pb2 import EntryFilter

YES, NO, COULD_NOT_ASK = 0, 1, 3


def run(*arguments: str) -> Result:
    """Runs a command in this process."""
    return CliRunner().invoke(main, ["audit", *arguments])


class Indexed:
    """A published book, its entries, and an index of it."""

    def __init__(self, data: Path, socket: Path) -> None:
        """Writes the book, in two steps, and indexes it after each."""
        self.data = data
        self.address = f"postgresql://postgres@/postgres?host={socket}"
        self.grow(SIZE // 3)
        self.told = [self.index()]
        self.grow(SIZE)
        self.told += [self.index(), self.index()]
        self.people = People.open(data, read_only=True)
        self.key = VerifierKey.parse((data / "book" / "vkey").read_text("utf-8").strip())
        self.records = [r for batch in CopiedBook(data / "book", self.key, self.people).batches() for r in batch]
        self.connection = PostgresIndex(self.address)

    def grow(self, size: int) -> None:
        """Lets the book grow, and publishes it."""
        book = Book.open(self.data, origin=ORIGIN)
        people = People.open(self.data)
        write_some(book, people, size, size)
        Publisher(book).publish_now()
        people.close()
        book.close()

    def index(self) -> Result:
        """Indexes what is published."""
        vkey = str(self.data / "book" / "vkey")
        return run("index", "--to", self.address, "--copy", str(self.data), "--vkey", vkey)

    def words(self, wanted: EntryFilter) -> list[bytes]:
        """Returns the words of everyone whom a filter means."""
        people = [person_word(person.pseudonym) for person in self.people.find(wanted.subject_id)]
        return [*people, stranger_word(self.people.blind(wanted.subject_id))]

    def found(self, wanted: EntryFilter, *, size: int, limit: int, newest_first: bool) -> list[int]:
        """Returns the indexes that the index finds."""
        words = self.words(wanted)
        rows = self.connection.find(wanted, ORIGIN, words, size=size, limit=limit, newest_first=newest_first)
        return [row[1] for row in rows]

    def execute(self, query: str) -> list[Any]:
        """Runs SQL as the owner."""

        async def run() -> list[Any]:
            connection = await asyncpg.connect(self.address)
            try:
                return list(await connection.fetch(query))
            finally:
                await connection.close()

        return asyncio.run(run())


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, socket: Path) -> Iterator[Indexed]:
    """Provides a book with an index in PostgreSQL."""
    one = Indexed(tmp_path_factory.mktemp("data"), socket)
    yield one
    one.people.close()
    one.connection.__exit__()


def test_indexing_goes_on_where_it_ended(indexed: Indexed) -> None:
    """Each run covers what has come since, and one more changes nothing."""
    expected = [f"{size} entries of {ORIGIN} are indexed\n" for size in (SIZE // 3, SIZE, SIZE)]

    assert expected == [done.stdout for done in indexed.told]
    assert indexed.execute("SELECT count(*), min(index), max(index) FROM gatebook.entries") == [(SIZE, 0, SIZE - 1)]


@settings(max_examples=150)
@given(
    fields=FILTERS,
    at=st.integers(0, SIZE - 1),
    names=NAMES,
    use_near=st.booleans(),
    newest_first=st.booleans(),
    limit=st.integers(1, 50),
    size=st.one_of(st.just(SIZE), st.integers(0, SIZE)),
)
def test_answers_are_what_a_look_at_every_entry_finds(
    indexed: Indexed,
    fields: dict[str, object],
    at: int,
    names: list[str],
    limit: int,
    size: int,
    *,
    use_near: bool,
    newest_first: bool,
) -> None:
    """Whatever the filter, the order and the page, rows are those that an oracle finds."""
    wanted = EntryFilter(**fields)  # type: ignore[arg-type]  # fields with their own strategies
    if use_near:
        wanted = near(indexed.records[at], names, {at: indexed.records[at].request.subject.id})
    expected = [record.index for record in indexed.records[:size] if matches(record, wanted)]

    assert indexed.found(wanted, size=size, limit=limit, newest_first=newest_first) == (
        expected[::-1] if newest_first else expected
    )


def test_no_person_is_named(indexed: Indexed) -> None:
    """No id of a person is anywhere in the schema."""
    rows = indexed.execute("SELECT e::text FROM gatebook.entries e UNION ALL SELECT b::text FROM gatebook.books b")
    content = "\n".join(row[0] for row in rows)

    assert "mci.prompts" in content
    assert [each for each in IDS if each in content or each.encode().hex() in content] == []


def test_what_is_not_covered_is_not_answered(indexed: Indexed) -> None:
    """Rather than leave entries out, a query fails and says what to do."""
    with pytest.raises(BookUnavailableError, match="not 301: run `gatebook audit index`"):
        list(indexed.connection.find(EntryFilter(), ORIGIN, [], size=SIZE + 1))


@pytest.mark.parametrize(
    ("lie", "undo", "kind", "index"),
    [
        (
            "CREATE TABLE kept AS TABLE gatebook.entries; DELETE FROM gatebook.entries WHERE index = 7",
            "INSERT INTO gatebook.entries SELECT * FROM kept WHERE index = 7; DROP TABLE kept",
            "missing",
            7,
        ),
        (
            "UPDATE gatebook.entries SET caller = 'x' || caller WHERE index = 9",
            "UPDATE gatebook.entries SET caller = substr(caller, 2) WHERE index = 9",
            "altered",
            9,
        ),
        (
            "UPDATE gatebook.entries SET leaf_hash = sha256(leaf_hash) WHERE index = 11",
            "",
            "altered",
            11,
        ),
    ],
)
def test_what_is_done_to_the_index_shows(indexed: Indexed, lie: str, undo: str, kind: str, index: int) -> None:
    """A row that was taken out or changed is named by `verify-query`."""
    [before] = indexed.execute(f"SELECT encode(leaf_hash, 'hex') FROM gatebook.entries WHERE index = {index}")  # noqa: S608  # a number
    undo = undo or f"UPDATE gatebook.entries SET leaf_hash = decode('{before[0]}', 'hex') WHERE index = {index}"  # noqa: S608  # as above
    asked = ("verify-query", "--from", "5", "--copy", str(indexed.data), "--vkey", str(indexed.data / "book" / "vkey"))
    arguments = (*asked, "--index", indexed.address, "--no-remember", "--json")
    for statement in lie.split("; "):
        indexed.execute(statement)
    lied = run(*arguments)
    for statement in undo.split("; "):
        indexed.execute(statement)
    right = run(*arguments)

    assert (lied.exit_code, right.exit_code) == (NO, YES)
    assert json.loads(lied.stdout)[kind] == {"count": 1, "indexes": [index]}


def test_several_read_at_once_and_only_read(indexed: Indexed) -> None:
    """Roles that may select see every view, from several connections at once, and can change nothing."""
    for statement in (
        "CREATE ROLE auditor LOGIN",
        "GRANT USAGE ON SCHEMA gatebook TO auditor",
        "GRANT SELECT ON ALL TABLES IN SCHEMA gatebook TO auditor",
    ):
        indexed.execute(statement)
    address = indexed.address.replace("postgres@", "auditor@")
    found: list[int] = []

    def read() -> None:
        with PostgresIndex(address) as connection:
            found.append(len(list(connection.find(EntryFilter(), ORIGIN, [], limit=50))))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)

    async def refused() -> list[str]:
        connection = await asyncpg.connect(address)
        try:
            names = await connection.fetch(
                "SELECT table_name FROM information_schema.views WHERE table_schema = 'gatebook'"
            )
            for name in names:
                await connection.fetch(f"SELECT * FROM gatebook.{name[0]} LIMIT 5")  # noqa: S608  # names of ours
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("DELETE FROM gatebook.entries")
            return sorted(name[0] for name in names)
        finally:
            await connection.close()

    assert found == [SIZE] * 4
    assert asyncio.run(refused()) == [
        "columns_by_day",
        "coverage",
        "decisions",
        "denials",
        "policy_changes",
        "reads_of_the_book",
        "use_by_day",
    ]


def test_views_say_what_entries_say(indexed: Indexed) -> None:
    """The views count what is in the book."""
    decisions = [record.entry.decision for record in indexed.records if record.entry.HasField("decision")]
    [row] = indexed.execute("SELECT sum(decisions) FROM gatebook.use_by_day")
    [denials] = indexed.execute("SELECT count(*) FROM gatebook.denials")
    [columns] = indexed.execute("SELECT coalesce(sum(decisions), 0) FROM gatebook.columns_by_day")

    assert row[0] == len(decisions)
    assert denials[0] == sum(decision.effect == 2 for decision in decisions)
    assert columns[0] == sum(len([each for each in decision.columns if each.column]) for decision in decisions)


def test_an_older_copy_is_refused(indexed: Indexed, tmp_path: Path) -> None:
    """A book that ends before the index was put back, or is another copy: nothing is changed."""
    book = Book.open(tmp_path, origin=ORIGIN)
    Publisher(book).publish_now()
    book.close()
    done = run("index", "--to", indexed.address, "--copy", str(tmp_path), "--vkey", str(tmp_path / "book" / "vkey"))

    assert done.exit_code == NO
    assert "the book was put back, or this is an older copy" in done.stderr


def test_nobody_there_is_said() -> None:
    """Where no database answers, the error says so."""
    with pytest.raises(BookUnavailableError, match="cannot be used"):
        PostgresIndex("postgresql://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize("before", [0, 300, 600], ids=lambda size: f"indexed up to {size} before")
def test_an_index_of_a_pruned_book_has_what_the_book_has(tmp_path: Path, socket: Path, before: int) -> None:
    """It begins where the book does, whatever of it was indexed before that was pruned, and leads to its root."""
    data, address = tmp_path / "data", f"postgresql://postgres@/postgres?host={socket}"
    origin = f"gate.test/pruned/{before}"
    named = ("--to", address, "--copy", str(data), "--vkey", str(data / "book" / "vkey"))
    if before:
        server = aged(data, 400, "--policies", str(POLICIES / "basic"), "--origin", origin)
        ask(server, *["farah"] * before)
        assert server.stop() == 0
        assert run("index", *named).exit_code == YES
    server = aged(data, 400, "--policies", str(POLICIES / "basic"), "--origin", origin)
    ask(server, *["farah"] * (700 - before))
    assert server.stop() == 0
    with serving(data, [], "--dev") as served:
        ask(served, "farah")
        assert prune(served).first_index == 512
    done, again = run("index", *named), run("index", *named)
    checked = run("verify-query", "--index", address, "--copy", str(data), "--vkey", named[-1], "--json")

    async def coverage() -> list[Any]:
        connection = await asyncpg.connect(address)
        try:
            query = (
                "SELECT first_index, c.size, min(index) FROM gatebook.coverage c JOIN gatebook.books USING (origin) "
            )
            joined = "JOIN gatebook.entries USING (book) WHERE origin = $1 GROUP BY 1, 2"
            return list(await connection.fetch(query.replace("first_index", "c.first_index") + joined, origin))
        finally:
            await connection.close()

    assert (done.exit_code, again.exit_code) == (YES, YES), done.output
    [(first_index, size, lowest)] = asyncio.run(coverage())
    assert (first_index, lowest) == (512, 512)
    assert checked.exit_code == YES, checked.output
    assert (json.loads(checked.stdout)["first_index"], json.loads(checked.stdout)["rows"]) == (512, size - 512)
