"""A Parquet export has every entry of the book, and whatever is done to it shows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result
from tests.audit_samples import ORIGIN
from tests.faulty_files import FailingFiles
from tests.filters import IDS, SIZE, write_some
from tests.serving import POLICIES, RunningServer, serving

from gatebook.audit.book import Book
from gatebook.audit.copied import CopiedBook
from gatebook.audit.export import Export, read_manifest
from gatebook.audit.exported import PERSONAL, PSEUDONYMS, Shape
from gatebook.audit.people import People
from gatebook.audit.publish import Publisher
from gatebook.audit.verify_export import verify_export
from gatebook.cli import main
from gatebook.errors import BookRefusedError, BookUnavailableError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.v1 import access_service_pb2 as access
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

YES, NO, USAGE, COULD_NOT_ASK = 0, 1, 2, 3
STEP = timedelta(minutes=97)
"""Between moments, so that the book has several days."""


def run(*arguments: str) -> Result:
    """Runs a command in this process."""
    return CliRunner().invoke(main, ["audit", *arguments])


def grown(data: Path, size: int) -> None:
    """Lets a book grow to a size, and publishes it."""
    book = Book.open(data, origin=ORIGIN)
    people = People.open(data)
    write_some(book, people, size, size, STEP)
    Publisher(book).publish_now()
    people.close()
    book.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provides a data directory with entries of all kinds."""
    path = tmp_path_factory.mktemp("data")
    grown(path, SIZE)
    return path


def key_of(data: Path) -> VerifierKey:
    """Returns the verifier key of a book."""
    return VerifierKey.parse((data / "book" / "vkey").read_text("utf-8").strip())


def exported(data: Path, folder: Path, shape: Shape = Shape(), files: FailingFiles | None = None) -> Export:  # noqa: B008  # frozen
    """Exports a copied book."""
    book = CopiedBook(data / "book", key_of(data))
    export = Export(folder, ORIGIN, shape, files)
    export.run(book.batches(export.manifest.size), book.checkpoint, book.note, lambda _done, _total: None)
    return export


@pytest.fixture(scope="module")
def kept(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provides an export with exact bytes, to be copied."""
    folder = tmp_path_factory.mktemp("kept") / "lake"
    exported(data, folder, Shape(exact=True))
    return folder


def rows(folder: Path, query: str = "SELECT * FROM lake ORDER BY index") -> list[dict[str, Any]]:
    """Returns what DuckDB reads of an export."""
    with duckdb.connect() as connection:
        times = "epoch_us(time) AS time, epoch_us(expires_time) AS expires_time"
        connection.execute(
            f"CREATE VIEW lake AS SELECT * REPLACE ({times}) "  # noqa: S608  # a path of ours
            f"FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
        )
        found = connection.execute(query)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_every_entry_is_a_row_of_its_day(data: Path, kept: Path) -> None:
    """A row says what its entry says, in columns that have types, in the folder of its day."""
    book = CopiedBook(data / "book", key_of(data))
    entries = [record for batch in book.batches() for record in batch]
    found = rows(kept)

    assert [row["index"] for row in found] == list(range(SIZE))
    assert len({row["day"] for row in found}) > 3
    for record, row in zip(entries, found, strict=True):
        decision = record.entry.decision
        assert row["entry_bytes"] == record.entry_bytes
        assert row["leaf_hash"] == record.leaf_hash
        assert row["time"] == record.entry.entry_time.ToMicroseconds()
        assert row["day"].isoformat() == record.entry.entry_time.ToDatetime().date().isoformat()
        if record.entry.HasField("decision"):
            assert row["kind"] == "decision"
            assert row["decision_id"] == decision.decision_id
            assert row["effect"] == types_pb2.Effect.Name(decision.effect).removeprefix("EFFECT_").lower()
            assert row["columns"] == [column.column for column in decision.columns if column.column]
            assert [outcome["reason"] for outcome in row["column_outcomes"]] == [
                types_pb2.ReasonCode.Name(column.reason).removeprefix("REASON_CODE_").lower()
                for column in decision.columns
            ]
        else:
            assert row["decision_id"] is None


def test_no_personal_data_unless_it_is_asked_for(data: Path, tmp_path: Path) -> None:
    """Without being told so, an export names nobody, in no form; with keys and the option it names them."""
    exported(data, tmp_path / "plain")
    content = json.dumps(rows(tmp_path / "plain"), default=repr) + (tmp_path / "plain" / "_manifest.json").read_text()
    names = set(rows(tmp_path / "plain")[0])

    assert [each for each in IDS if each in content] == []
    assert not names & {*PSEUDONYMS, *PERSONAL, "entry_bytes"}

    vkey = str(data / "book" / "vkey")
    asked = ("export", "--format", "parquet", "--vkey", vkey, "--with-personal-data")
    done = run(*asked, "--from-copy", str(data), "--out", str(tmp_path / "named"))

    assert (done.exit_code, done.stderr) == (YES, "")
    assert {row["subject_id"] for row in rows(tmp_path / "named")} == {None, *IDS}

    shutil.copytree(data / "book", tmp_path / "book")
    refused = run(*asked, "--from-copy", str(tmp_path / "book"), "--out", str(tmp_path / "closed"))

    assert refused.exit_code == COULD_NOT_ASK
    assert "has no keys of people" in refused.stderr


def test_an_export_goes_on_where_it_ended(tmp_path: Path) -> None:
    """What has come since is added, in parts of their own; those that are there are not touched."""
    data, folder = tmp_path / "data", tmp_path / "lake"
    grown(data, 50)
    exported(data, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    grown(data, 120)
    exported(data, folder)
    exported(data, folder)
    after = {path: path.read_bytes() for path in folder.rglob("*.parquet")}

    assert before.items() <= after.items()
    assert any(len(list(day.glob("*.parquet"))) > 1 for day in folder.glob("day=*"))
    assert [row["index"] for row in rows(folder)] == list(range(120))
    assert verify_export(folder, key_of(data)).size == 120


@pytest.mark.parametrize("done", [False, True])
def test_an_export_that_is_broken_off_is_taken_up(data: Path, tmp_path: Path, *, done: bool) -> None:
    """Whichever call to the file system fails, the next export makes it whole."""
    counting = FailingFiles()
    exported(data, tmp_path / "whole", files=counting)
    expected = rows(tmp_path / "whole")
    for at in range(1, counting.calls + 1, 7):
        folder = tmp_path / f"at-{at}"
        with pytest.raises(BookUnavailableError):
            exported(data, folder, files=FailingFiles(at, done=done))
        half = read_manifest(folder)
        assert half is None or not half.checkpoint or at > counting.calls - 3
        exported(data, folder)
        report = verify_export(folder, key_of(data), book=CopiedBook(data / "book", key_of(data)))

        assert (SIZE, SIZE, 0) == (report.size, report.rows_compared, report.beyond)
        assert rows(folder) == expected
        assert not (folder / "_new").exists()


def rewritten(folder: Path, name: str, select: str) -> None:
    """Rewrites a part as a query on it says, and makes the manifest agree."""
    path = folder / name
    with duckdb.connect() as connection:
        part = f"read_parquet('{path}', hive_partitioning = false)"
        connection.execute(f"COPY ({select.format(part=part)}) TO '{path}.new' (FORMAT parquet)")
    path.with_name(f"{path.name}.new").replace(path)
    manifest = json.loads((folder / "_manifest.json").read_text())
    for each in manifest["parts"]:
        if each["file"] == name:
            each["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "_manifest.json").write_text(json.dumps(manifest))


def a_part(folder: Path, at: int = 1) -> str:
    """Returns the name of a part."""
    name: str = json.loads((folder / "_manifest.json").read_text())["parts"][at]["file"]
    return name


def drop_a_part(folder: Path) -> None:
    """Takes a whole part out of folder and manifest."""
    manifest = json.loads((folder / "_manifest.json").read_text())
    (folder / manifest["parts"].pop(1)["file"]).unlink()
    (folder / "_manifest.json").write_text(json.dumps(manifest))


def drop_the_last_part(folder: Path) -> None:
    """Takes the last part out, and says that there was none."""
    manifest = json.loads((folder / "_manifest.json").read_text())
    last = manifest["parts"].pop()
    (folder / last["file"]).unlink()
    manifest["size"] = last["first_index"]
    (folder / "_manifest.json").write_text(json.dumps(manifest))


def add_a_part(folder: Path) -> None:
    """Puts a file beside the others."""
    (folder / "day=2020-01-01").mkdir()
    shutil.copy(folder / a_part(folder), folder / "day=2020-01-01" / "part-000000000000-000000000001.parquet")


def link_a_day(folder: Path) -> None:
    """Puts a file elsewhere, and a link to its folder beside the others: who reads `*/*.parquet` reads it."""
    (folder.parent / "elsewhere").mkdir()
    shutil.copy(folder / a_part(folder), folder.parent / "elsewhere" / "part-000000000000-000000000001.parquet")
    (folder / "day=2020-01-01").symlink_to(folder.parent / "elsewhere")


def lead_outside(folder: Path) -> None:
    """Has the manifest name a file outside."""
    manifest = json.loads((folder / "_manifest.json").read_text())
    manifest["parts"][1]["file"] = "../" + manifest["parts"][1]["file"]
    (folder / "_manifest.json").write_text(json.dumps(manifest))


def flip_a_bit(folder: Path) -> None:
    """Changes one bit of a part."""
    path = folder / a_part(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_in_another_day(folder: Path) -> None:
    """Gives a part to another day."""
    name = a_part(folder)
    other = f"day=2020-02-02/{name.partition('/')[2]}"
    (folder / other).parent.mkdir()
    (folder / name).rename(folder / other)
    text = (folder / "_manifest.json").read_text().replace(name, other)
    (folder / "_manifest.json").write_text(text)


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a part is left out": (drop_a_part, "does not follow on entry"),
    "the end is left out": (drop_the_last_part, "ends at"),
    "a file is added": (add_a_part, "is in no manifest"),
    "a link is added": (link_a_day, "is in no manifest"),
    "a file outside is named": (lead_outside, "is not the name of a part"),
    "a bit is flipped": (flip_a_bit, "is not the file that was exported"),
    "a part is in another day": (put_in_another_day, "another day"),
    "a row is left out": (
        lambda f: rewritten(f, a_part(f), "SELECT * FROM {part} WHERE index % 5 <> 2"),
        "stands where entry",
    ),
    "a row is doubled": (
        lambda f: rewritten(f, a_part(f), "SELECT * FROM {part} UNION ALL SELECT * FROM {part} ORDER BY index"),
        "stands where entry",
    ),
    "rows change places": (
        lambda f: rewritten(f, a_part(f), "SELECT * REPLACE (leaf_hash[0:0] AS leaf_hash) FROM {part}"),
        "has no leaf hash",
    ),
    "a leaf is forged": (
        lambda f: rewritten(
            f,
            a_part(f),
            "SELECT * EXCLUDE entry_bytes REPLACE (unhex(sha256('x')) AS leaf_hash), "
            "NULL::BLOB AS entry_bytes FROM {part}",
        ),
        "do not lead to the root",
    ),
    "an entry is forged": (
        lambda f: rewritten(f, a_part(f), "SELECT * REPLACE (entry_bytes || entry_bytes AS entry_bytes) FROM {part}"),
        "does not hash to its leaf",
    ),
    "a denial becomes an allow": (
        lambda f: rewritten(f, a_part(f), "SELECT * REPLACE ('allow' AS effect) FROM {part}"),
        "has another `effect` than its row",
    ),
    "a column is taken out": (
        lambda f: rewritten(f, a_part(f), "SELECT * EXCLUDE caller FROM {part}"),
        "is no file of this export",
    ),
}


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_whatever_is_done_to_an_export_shows(data: Path, kept: Path, tmp_path: Path, attack: str) -> None:
    """An export that was tampered with, with a manifest that agrees, is refused and the place is named."""
    folder = tmp_path / "lake"
    shutil.copytree(kept, folder)
    tamper, message = ATTACKS[attack]
    tamper(folder)

    with pytest.raises(VerificationError, match=message):
        verify_export(folder, key_of(data))


def test_rows_without_bytes_are_compared_with_a_copied_book(data: Path, tmp_path: Path) -> None:
    """What columns say is vouched for by the book, where the rows have no exact bytes."""
    exported(data, tmp_path / "lake")
    rewritten(tmp_path / "lake", a_part(tmp_path / "lake"), "SELECT * REPLACE ('somebody' AS caller) FROM {part}")
    vkey, folder = str(data / "book" / "vkey"), str(tmp_path / "lake")
    alone = run("verify-export", folder, "--vkey", vkey, "--no-remember")
    beside = run("verify-export", folder, "--vkey", vkey, "--no-remember", "--book", str(data))

    assert alone.exit_code == YES
    assert "compared     no: neither exact bytes nor --book" in alone.stdout
    assert beside.exit_code == NO
    assert "NOT VERIFIED" in beside.stderr
    assert "has another `caller` than its row" in beside.stderr


def test_a_folder_with_something_else_is_let_be(data: Path, tmp_path: Path) -> None:
    """Nothing is written beside other files, nor into the export of another book or with other columns."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    exported(data, tmp_path / "lake")

    with pytest.raises(BookRefusedError, match="is not empty"):
        exported(data, tmp_path / "mine")
    with pytest.raises(BookRefusedError, match="has other columns"):
        exported(data, tmp_path / "lake", Shape(pseudonyms=True))
    with pytest.raises(BookRefusedError, match="is an export of"):
        Export(tmp_path / "lake", "another.example/book", Shape())
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_without_duckdb_the_error_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("gatebook.audit.parquet.import_module", missing)

    with pytest.raises(BookUnavailableError, match=r"pip install 'gatebook\[parquet\]'"):
        exported(data, tmp_path / "lake")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Provides a server that was asked a few questions."""
    with serving(tmp_path_factory.mktemp("served"), [POLICIES / "basic"]) as one:
        with one.channel() as channel:
            for i in range(9):
                question = types_pb2.AccessRequest(
                    subject=types_pb2.Subject(type="user", id=f"person-{i % 3}"),
                    action=types_pb2.Action(name="read"),
                    resource=types_pb2.Resource(id=f"thing-{i}"),
                )
                AccessServiceStub(channel).CheckAccess(access.CheckAccessRequest(access=question))
        yield one


def test_a_server_exports_its_book(server: RunningServer, tmp_path: Path) -> None:
    """An export by way of a server can be checked like any other, and goes on with what has come since."""
    folder, vkey = str(tmp_path / "lake"), str(server.data / "book" / "vkey")
    asked = ("export", "--format", "parquet", "--out", folder, "--target", server.target, "--raw")
    first, second = run(*asked), run(*asked)
    verified = run("verify-export", folder, "--vkey", vkey, "--no-remember", "--json")
    report = json.loads(verified.stdout)

    assert (first.exit_code, second.exit_code, verified.exit_code) == (YES, YES, YES)
    assert (first.stderr, second.stderr) == ("", "")
    assert report["verified"]
    assert report["size"] == report["rows_compared"] == len(rows(tmp_path / "lake"))
    assert int(first.stdout.split()[0]) < report["size"]
    denied = rows(tmp_path / "lake", "SELECT count(*) AS n FROM lake WHERE kind = 'decision' AND effect = 'deny'")
    assert denied == [{"n": 9}]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "parquet"),
        ("--format", "parquet", "--out", "x", "--effect", "deny"),
        ("--with-personal-data",),
        ("--from-copy", "."),
        ("--format", "parquet", "--out", "x", "--from-copy", "."),
    ],
)
def test_what_does_not_go_together_is_said(arguments: tuple[str, ...]) -> None:
    """A Parquet export needs a folder and takes no filter; its options are for it alone."""
    assert run("export", *arguments).exit_code == USAGE
