"""An answer that is not what a look at every entry finds is told so, row by row, whatever the index says."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit_samples import ORIGIN
from tests.filters import FILTERS, NAMES, SIZE, matches, near, write_some
from tests.serving import POLICIES, RunningServer, serving

from gatebook.audit.book import Book
from gatebook.audit.copied import CopiedBook, Rooted
from gatebook.audit.matching import about_person, about_pseudonyms
from gatebook.audit.people import People
from gatebook.audit.publish import Publisher
from gatebook.audit.verify_query import QueryReport, rows_of, verify_query
from gatebook.cli import main
from gatebook.errors import VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.v1 import access_service_pb2 as access
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2 import EntryFilter, EntryRecord

YES, NO, USAGE, COULD_NOT_ASK = 0, 1, 2, 3


class Library:
    """A published book, its entries, and the keys of people."""

    def __init__(self, data: Path) -> None:
        """Writes the book."""
        self.data = data
        book = Book.open(data, origin=ORIGIN)
        self.people = People.open(data)
        write_some(book, self.people, SIZE, 5)
        Publisher(book).publish_now()
        book.close()
        self.key = VerifierKey.parse((data / "book" / "vkey").read_text("utf-8").strip())
        self.copy = CopiedBook(data / "book", self.key, self.people)
        self.records = [record for batch in self.copy.batches() for record in batch]

    def verified(
        self, wanted: EntryFilter, answer: Sequence[EntryRecord], *, pseudonyms: frozenset[bytes] | None = None
    ) -> QueryReport:
        """Returns what a verification of an answer finds."""
        about = about_pseudonyms(pseudonyms) if pseudonyms else about_person(wanted.subject_id, self.people, ORIGIN)
        return verify_query(wanted, rows_of(answer), self.copy.batches(), Rooted(self.copy.note, self.key), about)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Provides a published book of entries of all kinds."""
    one = Library(tmp_path_factory.mktemp("data"))
    yield one
    one.people.close()


@settings(max_examples=40)
@given(fields=FILTERS, at=st.integers(0, SIZE - 1), names=NAMES, use_near=st.booleans())
def test_the_right_answer_holds(
    library: Library, fields: dict[str, object], at: int, names: list[str], *, use_near: bool
) -> None:
    """What an oracle finds by looking at opened records holds, whatever the filter."""
    wanted = EntryFilter(**fields)  # type: ignore[arg-type]  # fields with their own strategies
    if use_near:
        wanted = near(library.records[at], names, {at: library.records[at].request.subject.id})
    answer = [record for record in library.records if matches(record, wanted)]
    report = library.verified(wanted, answer)

    assert (report.holds, report.rows, report.size, report.whole) == (True, len(answer), SIZE, True)


def altered(record: EntryRecord, change: str) -> EntryRecord:
    """Returns a record that says something else."""
    other = EntryRecord()
    other.CopyFrom(record)
    match change:
        case "leaf":
            other.leaf_hash = bytes(32)
        case "bytes":
            other.entry_bytes = record.entry_bytes + b"\x00"
        case "entry":
            other.entry.caller = "somebody"
        case _:
            other.request.subject.id = "somebody"
    return other


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    change=st.sampled_from(["missing", "added", "twice", "leaf", "bytes", "entry", "request"]),
)
def test_whatever_is_wrong_with_an_answer_is_named(library: Library, seed: int, change: str) -> None:
    """A row that is missing, was added, told twice or altered is named by its index, and nothing else is."""
    chance = random.Random(seed)
    wanted = EntryFilter(effect=types_pb2.EFFECT_DENY)
    right = [record for record in library.records if matches(record, wanted)]
    at = chance.randrange(len(right))
    victim = right[at]
    answer = list(right)
    expected: dict[str, list[int]] = {"missing": [], "added": [], "altered": []}
    if change == "missing":
        del answer[at]
        expected["missing"] = [victim.index]
    elif change == "added":
        other = chance.choice([record for record in library.records if not matches(record, wanted)])
        answer = sorted([*answer, other], key=lambda record: record.index)
        expected["added"] = [other.index]
    elif change == "twice":
        answer.insert(at, victim)
        expected["added"] = [victim.index]
    else:
        answer[at] = altered(victim, change)
        expected["altered"] = [victim.index]
    report = library.verified(wanted, answer)

    assert expected == {name: getattr(report, name).indexes for name in expected}
    assert not report.holds


def test_entries_that_were_not_signed_verify_nothing(library: Library) -> None:
    """Where the entries do not lead to the signed root, no answer is judged by them."""
    batches = [list(batch) for batch in library.copy.batches()]
    batches[-1].pop()
    rooted = Rooted(library.copy.note, library.key)

    with pytest.raises(VerificationError, match="do not lead to the root"):
        verify_query(EntryFilter(), rows_of(library.records), batches, rooted, None)


def test_a_third_party_tells_by_pseudonym(library: Library) -> None:
    """Without keys, whoever was told the pseudonyms of a person finds the same entries."""
    victim = next(record for record in library.records if record.request.subject.id == "ana.silva")
    wanted = EntryFilter(subject_id="ana.silva")
    right = [record for record in library.records if matches(record, wanted)]
    stranger = library.people.stranger.pseudonym
    known = frozenset(person.pseudonym for person in library.people.find("ana.silva"))
    named = [
        record
        for record in right
        if {
            record.entry.decision.subject_pseudonym,
            record.entry.decision.actor_pseudonym,
            *record.entry.decision.data_subject_pseudonyms,
            record.entry.read.subject_pseudonym,
        }
        & known
    ]

    assert library.verified(wanted, named, pseudonyms=known).holds
    assert stranger not in known
    assert victim.entry.decision.subject_pseudonym in known | {stranger}


def run(*arguments: str) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(main, ["audit", *arguments])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Provides a server that was asked a few questions."""
    with serving(tmp_path_factory.mktemp("served"), [POLICIES / "basic"]) as one:
        with one.channel() as channel:
            for i in range(12):
                question = types_pb2.AccessRequest(
                    subject=types_pb2.Subject(type="user", id=f"person-{i % 3}"),
                    action=types_pb2.Action(name="read"),
                    resource=types_pb2.Resource(id=f"thing-{i}"),
                )
                AccessServiceStub(channel).CheckAccess(access.CheckAccessRequest(access=question))
        yield one


def copied(server: RunningServer, folder: Path) -> Path:
    """Copies what a server has published, its checkpoint first."""
    assert run("list", "--target", server.target).exit_code == YES  # which publishes, and waits for the index
    folder.mkdir()
    shutil.copy(server.data / "book" / "checkpoint", folder)
    shutil.copytree(server.data / "book" / "tile", folder / "tile")
    return folder


def vkey(server: RunningServer) -> str:
    """Returns where the verifier key is."""
    return str(server.data / "book" / "vkey")


@pytest.mark.parametrize("lie", ["none", "a row is hidden", "an effect is changed"])
def test_an_index_that_lies_is_found_out(server: RunningServer, tmp_path: Path, lie: str) -> None:
    """Where somebody changes the index under a server, its answer is found to lack a row, or to have one too many."""
    asked = ("verify-query", "--effect", "deny", "--vkey", vkey(server), "--no-remember", "--json")
    copy = copied(server, tmp_path / "copy")
    with sqlite3.connect(server.data / "index.db") as index:
        victim = index.execute("SELECT idx, effect FROM entries WHERE effect IS NOT NULL ORDER BY idx").fetchall()[3][0]
        other = index.execute("SELECT min(idx) FROM entries WHERE effect IS NULL").fetchone()[0]
        if lie == "a row is hidden":
            index.execute("UPDATE entries SET effect = 1 WHERE idx = ?", (victim,))
        elif lie == "an effect is changed":
            index.execute("UPDATE entries SET effect = 2 WHERE idx = ?", (other,))
    try:
        fetched = run(*asked, "--target", server.target)
        beside = run(*asked, "--copy", str(copy), "--target", server.target)
    finally:
        with sqlite3.connect(server.data / "index.db") as index:
            index.execute("UPDATE entries SET effect = 2 WHERE idx = ?", (victim,))
            index.execute("UPDATE entries SET effect = NULL WHERE idx = ?", (other,))
    expected = {
        "none": (YES, [], []),
        "a row is hidden": (NO, [victim], []),
        "an effect is changed": (NO, [], [other]),
    }[lie]

    for done in (fetched, beside):
        report = json.loads(done.stdout)
        assert expected == (done.exit_code, report["missing"]["indexes"], report["added"]["indexes"])
        assert report["verified"] is (lie == "none")


def test_a_saved_answer_is_verified_without_a_server(server: RunningServer, tmp_path: Path) -> None:
    """An answer in a file and a copied book are enough; a line that is taken out shows."""
    saved = tmp_path / "answer.jsonl"
    filters = ("--kind", "decision", "--effect", "deny")
    assert run("export", *filters, "--out", str(saved), "--target", server.target).exit_code == YES
    copy = copied(server, tmp_path / "copy")
    asked = ("verify-query", *filters, "--copy", str(copy), "--vkey", vkey(server), "--answer", str(saved))
    whole = run(*asked, "--no-remember")
    lines = saved.read_text("utf-8").splitlines(keepends=True)
    saved.write_text("".join(lines[:4] + lines[5:]), "utf-8")
    short = run(*asked, "--no-remember")

    assert whole.exit_code == YES
    assert whole.stdout.startswith("THE ANSWER HOLDS 12 rows")
    assert short.exit_code == NO
    assert f"missing   1: {json.loads(lines[4])['index']}" in short.stdout


def test_by_subject_it_says_what_only_keys_can_tell(server: RunningServer, tmp_path: Path) -> None:
    """Without keys the answer to a filter by person is not called verified; with the data directory it is."""
    asked = (
        "verify-query",
        "--subject",
        "person-1",
        "--kind",
        "decision",
        "--vkey",
        vkey(server),
        "--no-remember",
        "--target",
        server.target,
    )
    alone = run(*asked)
    pseudonym = json.loads(
        run("list", "--subject", "person-1", "--kind", "decision", "--json", "--target", server.target).stdout
    )
    told = pseudonym["entries"][0]["entry"]["decision"]["subject_pseudonym"]
    copy = copied(server, tmp_path / "copy")
    shutil.copytree(server.data / "keys", tmp_path / "whole" / "keys")
    (tmp_path / "whole" / "people.db").write_bytes(b"")
    with (
        sqlite3.connect(server.data / "people.db") as source,
        sqlite3.connect(tmp_path / "whole" / "people.db") as target,
    ):
        source.backup(target)
    copy.rename(tmp_path / "whole" / "book")
    whole = run(*asked, "--copy", str(tmp_path / "whole"))

    assert alone.exit_code == COULD_NOT_ASK
    assert "only those can tell who have the keys" in alone.stdout
    assert whole.exit_code == YES
    assert whole.stdout.startswith("THE ANSWER HOLDS 4 rows")
    assert told
    assert run(*asked, "--pseudonym", "not-hex").exit_code == USAGE


@pytest.mark.parametrize("damage", ["entries", "checkpoint"])
def test_a_copy_that_was_tampered_with_verifies_nothing(server: RunningServer, tmp_path: Path, damage: str) -> None:
    """No verdict is given on the word of entries that are not those that were signed."""
    copy = copied(server, tmp_path / "copy")
    targets: dict[str, Callable[[], Path]] = {
        "entries": lambda: max((copy / "tile" / "entries").rglob("000.p/*"), key=lambda each: int(each.name)),
        "checkpoint": lambda: copy / "checkpoint",
    }
    path = targets[damage]()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = run(
        "verify-query", "--effect", "deny", "--copy", str(copy), "--vkey", vkey(server), "--target", server.target
    )

    assert done.exit_code == NO
    assert "NOT VERIFIED" in done.stderr
