"""An index in PostgreSQL, for several auditors at once.

Owns the schema `gatebook` of a database, which is made from the entries of books alone and may be dropped at any time.
What it promises:

1. a row is what follows from one entry, which hashed to its leaf; no row has an id of a person: people stand by
   pseudonym, and strangers, where the keys are at hand, by a keyed hash of their id, as in the index of the service;
2. a transaction is bounded, and the size that is covered is part of it: who indexes again goes on from there, two who
   index at once do not mix, and readers see whole transactions;
3. of a pruned book it has what the book has: rows of what was pruned since go, too;
4. it is no source of truth: `gatebook audit verify-query --index` holds what it says against the book.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar

import msgspec

from gatebook.audit.conditions import ANY_PURPOSE
from gatebook.audit.entry import EPOCH, decode, nanoseconds
from gatebook.audit.exported import Shape, row_of
from gatebook.audit.index import mentioned, person_word, stranger_word
from gatebook.audit.people import People
from gatebook.audit.record import open_request
from gatebook.errors import BookCorruptError, BookRefusedError, BookUnavailableError
from gatebook.tlog.merkle import Frontier
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2

T = TypeVar("T")
VERSION: Final = 3
COMMIT_ENTRIES_MAX: Final = 8_192
SECONDS_MAX: Final = 60.0
"""How long one statement may take."""
STATEMENT_TOO_LONG: Final = "the filter takes too long: narrow it by time or index"

COLUMNS: Final = {
    "book": "SMALLINT NOT NULL",
    "index": "BIGINT NOT NULL",
    "leaf_hash": "BYTEA NOT NULL",
    "time": "TIMESTAMPTZ NOT NULL",
    "kind": "TEXT NOT NULL",
    "caller": "TEXT",
    "decision_id": "TEXT",
    "policy_set": "TEXT",
    "revision": "TEXT",
    "subject": "BYTEA",
    "actor": "BYTEA",
    "mentioned": "BYTEA[]",
    "subject_type": "TEXT",
    "resource_id": "TEXT",
    "action": "TEXT",
    "purpose": "TEXT",
    "effect": "TEXT",
    "reason": "TEXT",
    "columns": "TEXT[]",
    "plan_dialect": "TEXT",
    "policy_step": "TEXT",
    "read_method": "TEXT",
    "read_count": "INTEGER",
    "system_event": "TEXT",
}
"""Of the table `entries`. Those that `exported` names are as there."""
PEOPLE: Final = ("subject", "actor", "mentioned")
PLAIN: Final = tuple(name for name in COLUMNS if name not in ("book", "index", "leaf_hash", "time", *PEOPLE))

SCHEMA: Final = f"""
CREATE SCHEMA IF NOT EXISTS gatebook;
CREATE TABLE gatebook.version (version INTEGER NOT NULL);
CREATE TABLE gatebook.books (
    book SMALLINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin TEXT NOT NULL UNIQUE,
    first_index BIGINT NOT NULL DEFAULT 0,
    size BIGINT NOT NULL,
    frontier BYTEA[] NOT NULL,
    checkpoint TEXT NOT NULL
);
CREATE TABLE gatebook.entries ({", ".join(f'"{n}" {t}' for n, t in COLUMNS.items())}, PRIMARY KEY (book, index));
CREATE INDEX entries_by_time ON gatebook.entries (book, time, index);
CREATE INDEX entries_by_decision ON gatebook.entries (decision_id) WHERE decision_id IS NOT NULL;
CREATE INDEX entries_by_subject ON gatebook.entries (book, subject, index) WHERE subject IS NOT NULL;
CREATE INDEX entries_by_actor ON gatebook.entries (book, actor, index) WHERE actor IS NOT NULL;
CREATE INDEX entries_by_mentioned ON gatebook.entries USING gin (mentioned) WHERE mentioned IS NOT NULL;
CREATE INDEX entries_by_resource ON gatebook.entries (book, resource_id, effect, index) WHERE resource_id IS NOT NULL;
CREATE INDEX entries_by_reason ON gatebook.entries (book, reason, index) WHERE effect = 'deny';
CREATE INDEX entries_by_kind ON gatebook.entries (book, kind, index) WHERE kind <> 'decision';
CREATE VIEW gatebook.coverage AS SELECT origin, first_index, size, checkpoint FROM gatebook.books;
CREATE VIEW gatebook.decisions AS
    SELECT b.origin, e.* FROM gatebook.entries e JOIN gatebook.books b USING (book) WHERE e.kind = 'decision';
CREATE VIEW gatebook.denials AS SELECT * FROM gatebook.decisions WHERE effect = 'deny';
CREATE VIEW gatebook.use_by_day AS
    SELECT origin, (time AT TIME ZONE 'UTC')::date AS day, policy_set, resource_id, action, purpose, effect,
           count(*) AS decisions, count(DISTINCT subject) AS people
    FROM gatebook.decisions GROUP BY 1, 2, 3, 4, 5, 6, 7;
CREATE VIEW gatebook.columns_by_day AS
    SELECT origin, (time AT TIME ZONE 'UTC')::date AS day, resource_id, "column", effect, count(*) AS decisions
    FROM gatebook.decisions, unnest(columns) AS "column" GROUP BY 1, 2, 3, 4, 5;
CREATE VIEW gatebook.policy_changes AS
    SELECT b.origin, e.index, e.time, e.caller, e.policy_step, e.policy_set, e.revision
    FROM gatebook.entries e JOIN gatebook.books b USING (book) WHERE e.kind = 'policy';
CREATE VIEW gatebook.reads_of_the_book AS
    SELECT b.origin, e.index, e.time, e.caller, e.read_method, e.read_count
    FROM gatebook.entries e JOIN gatebook.books b USING (book) WHERE e.kind = 'read';
INSERT INTO gatebook.version VALUES ({VERSION});
"""  # noqa: S608  # names of our own


def row_for(record: audit_service_pb2.EntryRecord, book: int, origin: str, people: People | None) -> tuple[Any, ...]:
    """Returns the row of an entry, whose bytes are its leaf's; with `people`, strangers are told apart."""
    entry = record.entry
    found = row_of(record, Shape())
    subject, actor = _askers(entry, record.index, origin, people)
    row = {
        "book": book,
        "index": record.index,
        "leaf_hash": record.leaf_hash,
        "time": EPOCH + timedelta(microseconds=nanoseconds(entry.entry_time) // 1_000),
        "subject": subject,
        "actor": actor,
        "mentioned": _mentioned(entry, people),
        **{name: _stored(found.get(name)) for name in PLAIN},
    }
    return tuple(row[name] for name in COLUMNS)


def _mentioned(entry: entry_pb2.AuditEntry, people: People | None) -> list[bytes] | None:
    """Returns the words for whom an entry concerns besides, but for the stranger."""
    stranger = None if people is None else people.stranger.pseudonym
    return [person_word(one) for one in sorted(mentioned(entry)) if one != stranger] or None


def _stored(value: Any) -> Any:  # noqa: ANN401  # a value of any column
    """Returns a value as PostgreSQL can hold it, whose texts have no NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    return [_stored(each) for each in value] if isinstance(value, list) else value


def _askers(
    entry: entry_pb2.AuditEntry, index: int, origin: str, people: People | None
) -> tuple[bytes | None, bytes | None]:
    """Returns the words for subject and actor."""
    subject, actor = entry.decision.subject_pseudonym, entry.decision.actor_pseudonym
    words = [person_word(subject) if subject else None, person_word(actor) if actor else None]
    stranger = None if people is None else people.stranger.pseudonym
    if people is not None and stranger in (subject, actor):
        request = open_request(entry, index, origin, people)
        asked = ("", "") if request is None else (request.subject.id, request.actor.id)
        for place, (pseudonym, named) in enumerate(zip((subject, actor), asked, strict=True)):
            if pseudonym == stranger and named:
                words[place] = stranger_word(people.blind(named))
    return words[0], words[1]


class PostgresIndex:
    """One connection to the index. For one thread."""

    def __init__(self, address: str) -> None:
        """Connects.

        Raises:
            BookUnavailableError: nobody answers there, or asyncpg is not installed.
        """
        try:
            import asyncpg  # noqa: PLC0415  # of an extra
        except ImportError as err:
            message = "PostgreSQL needs asyncpg, which is not installed: run `pip install 'gatebook[postgres]'`"
            raise BookUnavailableError(message) from err
        self._asyncpg = asyncpg
        self._loop = asyncio.new_event_loop()
        try:
            self._connection: Any = self._run(self._asyncpg.connect(address, command_timeout=SECONDS_MAX))
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Self:
        """Is open within the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._loop.run_until_complete(work)
        except TimeoutError as err:
            raise BookUnavailableError(STATEMENT_TOO_LONG) from err
        except (OSError, ValueError, self._asyncpg.PostgresError, self._asyncpg.InterfaceError) as err:
            raise BookUnavailableError(f"the index in PostgreSQL cannot be used: {err}") from err

    def begin(self, origin: str) -> tuple[int, Frontier]:
        """Makes the schema and the row of a book where there are none; returns its number and how far it is covered.

        Raises:
            BookRefusedError: the schema is of another version.
            BookUnavailableError: it cannot be made.
        """
        return self._run(self._begin(origin))

    async def _begin(self, origin: str) -> tuple[int, Frontier]:
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock(hashtext('gatebook'))")
            if await self._connection.fetchval("SELECT to_regclass('gatebook.version')") is None:
                await self._connection.execute(SCHEMA)
            version = await self._connection.fetchval("SELECT version FROM gatebook.version")
            if version != VERSION:
                message = f"the schema `gatebook` has version {version} and this Gatebook knows {VERSION}"
                raise BookRefusedError(f"{message}: run `DROP SCHEMA gatebook CASCADE` and index anew")
            query = "INSERT INTO gatebook.books (origin, size, frontier, checkpoint) VALUES ($1, 0, '{}', '')"
            await self._connection.execute(f"{query} ON CONFLICT DO NOTHING", origin)
            row = await self._connection.fetchrow("SELECT * FROM gatebook.books WHERE origin = $1", origin)
        return row["book"], Frontier(row["size"], row["frontier"])

    def add(self, records: Sequence[audit_service_pb2.EntryRecord], origin: str, people: People | None) -> int:
        """Covers the next entries, all or none; returns how many are covered.

        Raises:
            BookUnavailableError: it cannot be written, or another one covers the same book at the time.
        """
        return self._run(self._add(records, origin, people))

    async def _add(self, records: Sequence[audit_service_pb2.EntryRecord], origin: str, people: People | None) -> int:
        async with self._connection.transaction():
            query = "SELECT * FROM gatebook.books WHERE origin = $1 FOR UPDATE"
            row = await self._connection.fetchrow(query, origin)
            if row is None or row["size"] != records[0].index:
                raise BookUnavailableError("another command indexes this book at the same time: run one of them")
            frontier = Frontier(row["size"], row["frontier"])
            frontier.extend([record.leaf_hash for record in records])
            rows = [row_for(record, row["book"], origin, people) for record in records]
            await self._connection.copy_records_to_table(
                "entries", schema_name="gatebook", records=rows, columns=list(COLUMNS)
            )
            query = "UPDATE gatebook.books SET size = $2, frontier = $3 WHERE book = $1"
            await self._connection.execute(query, row["book"], frontier.size, list(frontier.hashes))
        return frontier.size

    def prune(self, origin: str, first_index: int, subtrees: Sequence[bytes]) -> None:
        """Removes the rows of what is pruned; where nothing is covered that is not, begins behind it.

        `subtrees` are the maximal ones over what is pruned, the largest first.

        Raises:
            BookUnavailableError: it cannot be written.
        """
        self._run(self._begin_at(origin, first_index, subtrees))
        while self._run(self._remove_some(origin, first_index)):
            pass

    async def _begin_at(self, origin: str, first_index: int, subtrees: Sequence[bytes]) -> None:
        async with self._connection.transaction():
            query = "UPDATE gatebook.books SET size = $2, frontier = $3 WHERE origin = $1 AND size < $2"
            await self._connection.execute(query, origin, first_index, list(subtrees))
            query = "UPDATE gatebook.books SET first_index = $2 WHERE origin = $1"
            await self._connection.execute(query, origin, first_index)

    async def _remove_some(self, origin: str, first_index: int) -> bool:
        """Removes some rows before an index; returns whether there may be more."""
        within = "book = (SELECT book FROM gatebook.books WHERE origin = $1)"
        lowest = await self._connection.fetchval(f"SELECT min(index) FROM gatebook.entries WHERE {within}", origin)  # noqa: S608  # ours
        if lowest is None or lowest >= first_index:
            return False
        end = min(lowest + COMMIT_ENTRIES_MAX, first_index)
        await self._connection.execute(f"DELETE FROM gatebook.entries WHERE {within} AND index < $2", origin, end)  # noqa: S608  # ours
        return True

    def confirm(self, origin: str, note: bytes, size: int, root: bytes) -> None:
        """Notes the checkpoint that the rows lead to.

        Raises:
            BookCorruptError: they do not.
        """
        _, frontier = self.begin(origin)
        if (frontier.size, frontier.root()) != (size, root):
            message = f"the {frontier.size} entries in PostgreSQL do not lead to the checkpoint of size {size}"
            raise BookCorruptError(f"{message}: run `DROP SCHEMA gatebook CASCADE` and index anew")
        query = "UPDATE gatebook.books SET checkpoint = $2 WHERE origin = $1 AND size = $3"
        self._run(self._connection.execute(query, origin, note.decode(), size))

    def find(
        self,
        wanted: audit_service_pb2.EntryFilter,
        origin: str,
        askers: Sequence[bytes],
        *,
        size: int | None = None,
        limit: int = 1_000,
        newest_first: bool = False,
    ) -> Iterator[tuple[Any, ...]]:
        """Yields the rows that match a valid filter, of the entries before a size, page by page.

        `askers` are the words of everyone with the id that the filter names.

        Raises:
            BookUnavailableError: the index cannot be read, or does not cover the size.
        """
        covered = self._run(self._connection.fetchval("SELECT size FROM gatebook.books WHERE origin = $1", origin))
        end = covered if size is None else size
        if covered is None or covered < end:
            message = f"the index covers {covered or 0} entries of `{origin}`" + (f", not {size}" if size else "")
            raise BookUnavailableError(f"{message}: run `gatebook audit index`")
        bound = end if newest_first else 0
        while True:
            query, values = select(wanted, origin, askers, Page(end, bound, limit, newest_first))
            rows = self._run(self._connection.fetch(query, *values))
            yield from (tuple(row) for row in rows)
            if len(rows) < limit:
                return
            bound = rows[-1]["index"] if newest_first else rows[-1]["index"] + 1


class Page(msgspec.Struct, frozen=True):
    """Which part of an answer is asked for: what comes after `bound`, in order, of the entries before `end`."""

    end: int
    bound: int
    limit: int
    newest_first: bool


class Marks:
    """Values of a query, each named by its mark."""

    def __init__(self) -> None:
        """Begins with none."""
        self.values: list[Any] = []

    def __call__(self, value: object) -> str:
        """Takes a value, and returns its mark."""
        self.values.append(value)
        return f"${len(self.values)}"


def select(
    wanted: audit_service_pb2.EntryFilter, origin: str, askers: Sequence[bytes], page: Page
) -> tuple[str, list[Any]]:
    """Returns the query for one page of a filter, and its values."""
    mark = Marks()
    start = max(wanted.start_index, 0 if page.newest_first else page.bound)
    end = min(wanted.end_index or page.end, page.end, page.bound if page.newest_first else page.end)
    book = f"book = (SELECT book FROM gatebook.books WHERE origin = {mark(origin)})"  # noqa: S608  # a mark
    where = [book, f"index >= {mark(start)}", f"index < {mark(end)}", *_texts(wanted, mark), *_names(wanted, mark)]
    if wanted.subject_id:
        people = mark(list(askers))
        where.append(
            f"(subject = ANY({people}::bytea[]) OR actor = ANY({people}::bytea[]) OR mentioned && {people}::bytea[])"
        )
    if wanted.HasField("start_time"):
        where.append(f"time >= {mark(_moment(nanoseconds(wanted.start_time)))}")
    if wanted.HasField("end_time"):
        where.append(f"time < {mark(_moment(nanoseconds(wanted.end_time)))}")
    chosen = ", ".join(f'"{name}"' for name in COLUMNS)
    order = f"ORDER BY index {'DESC' if page.newest_first else 'ASC'} LIMIT {page.limit:d}"
    return f"SELECT {chosen} FROM gatebook.entries WHERE {' AND '.join(where)} {order}", mark.values  # noqa: S608  # values are marks


def _texts(wanted: audit_service_pb2.EntryFilter, mark: Marks) -> Iterator[str]:
    """Yields the conditions on texts."""
    for name in ("resource_id", "action", "revision", "caller", "decision_id"):
        if text := getattr(wanted, name):
            yield f"{name} = {mark(_stored(text))}"
    if wanted.column:
        yield f"columns @> ARRAY[{mark(_stored(wanted.column))}::text]"
    if wanted.purpose == ANY_PURPOSE:
        yield "purpose IS NOT NULL"
    elif wanted.purpose:
        purpose = _stored(wanted.purpose)
        yield f"(purpose = {mark(purpose)} OR starts_with(purpose, {mark(f'{purpose}.')}))"


def _names(wanted: audit_service_pb2.EntryFilter, mark: Marks) -> Iterator[str]:
    """Yields the conditions on values that have names."""
    if wanted.effect:
        yield f"effect = {mark(types_pb2.Effect.Name(wanted.effect).removeprefix('EFFECT_').lower())}"
    if wanted.reason:
        yield f"reason = {mark(types_pb2.ReasonCode.Name(wanted.reason).removeprefix('REASON_CODE_').lower())}"
    if wanted.kind:
        yield f"kind = {mark(entry_pb2.EntryKind.Name(wanted.kind).removeprefix('ENTRY_KIND_').lower())}"


def _moment(time_ns: int) -> datetime:
    """Returns the first time, exact to the microsecond, that is not before one that is exact to the nanosecond."""
    try:
        return EPOCH + timedelta(microseconds=-(-time_ns // 1_000))
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if time_ns > 0 else datetime.min.replace(tzinfo=UTC)


def differs(row: Sequence[Any], record: audit_service_pb2.EntryRecord, origin: str, people: People | None) -> bool:
    """Tells whether a row says anything else than its entry; without keys, strangers are not told apart."""
    verified = audit_service_pb2.EntryRecord(
        index=record.index, leaf_hash=record.leaf_hash, entry=decode(record.entry_bytes, record.index)
    )
    expected = row_for(verified, row[0], origin, people)
    names = [name for name in COLUMNS if people is not None or name not in PEOPLE]
    stated, follows = dict(zip(COLUMNS, row, strict=True)), dict(zip(COLUMNS, expected, strict=True))
    return any(stated[name] != follows[name] for name in names)
