"""A real witness over HTTP: it cosigns what continues, refuses what does not, and never forgets what it cosigned."""

from __future__ import annotations

import json
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.certificates import authority, leaf, server_of
from tests.serving import gatebook
from tests.witnesses import MemoryBook, RunningWitness, create, submission, witnessing

from gatebook.tlog.cosignature import parse_signature_lines
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.note import Note, Signature
from gatebook.witness.listening import BODY_BYTES_MAX
from gatebook.witness.submission import HASHES_MAX

ENTRIES = [b"%d" % number for number in range(70)]
KEY = SigningKey.generate("gatebook.test/book")
BOOK = MemoryBook(KEY, ENTRIES)
FORKED = MemoryBook(KEY, [*ENTRIES[:5], b"another", *ENTRIES[6:]])
OTHER = MemoryBook(SigningKey.generate("gatebook.test/other"), ENTRIES)
STRANGER = MemoryBook(SigningKey.generate("gatebook.test/stranger"), ENTRIES)
IMPOSTOR = MemoryBook(SigningKey.generate(KEY.name), ENTRIES)
SIZE_TYPE = "text/x.tlog.size"


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[RunningWitness]:
    """Gives a new witness of two books."""
    with witnessing(tmp_path / "w1", "--origin", str(KEY.verifier), "--origin", str(OTHER.key.verifier)) as running:
        yield running


def test_each_checkpoint_that_continues_is_cosigned(witness: RunningWitness) -> None:
    """From nothing, by nothing, by one, by many: the cosignature is of now, and of this checkpoint."""
    began = int(time.time())
    for old_size, size in ((0, 0), (0, 1), (1, 1), (1, 7), (7, 64), (64, 65), (65, 70), (70, 70)):
        assert began <= witness.cosign(BOOK, old_size, size) <= int(time.time())


def test_each_book_is_remembered_by_itself(witness: RunningWitness) -> None:
    """What is cosigned of one origin says nothing about another."""
    witness.cosign(BOOK, 0, 9)
    witness.cosign(OTHER, 0, 4)

    assert (409, SIZE_TYPE, b"9\n") == witness.ask(BOOK.submission(4, 9))
    assert (409, SIZE_TYPE, b"4\n") == witness.ask(OTHER.submission(0, 9))


def test_the_size_is_told_where_the_old_one_is_another(witness: RunningWitness) -> None:
    """409 tells the size that was cosigned last, also to who knows nothing, and whatever the proof says."""
    assert (409, SIZE_TYPE, b"0\n") == witness.ask(BOOK.submission(3, 9))
    witness.cosign(BOOK, 0, 9)
    for old_size in (0, 3, 10):
        assert (409, SIZE_TYPE, b"9\n") == witness.ask(BOOK.submission(old_size, 12))
    assert (409, SIZE_TYPE, b"9\n") == witness.ask(submission(0, [bytes(32)], BOOK.note(12).format()))


HONEST = BOOK.submission(5, 9)
NOTE = BOOK.note(9)
ATTACKS = {
    "split-view": (422, submission(5, [], FORKED.note(5, root=leaf_hash(b"x")).format())),
    "fork-with-the-proof-of-the-fork": (422, MemoryBook(KEY, [b"other", *ENTRIES[1:]]).submission(5, 9)),
    "rollback": (400, submission(5, [], BOOK.note(4).format())),
    "rollback-under-its-own-size": (409, BOOK.submission(4, 4)),
    "wrong-origin": (404, STRANGER.submission(5, 9)),
    "wrong-origin-signed-by-a-known-key": (
        404,
        submission(5, BOOK.proof(5, 9), BOOK.note(9, origin="gatebook.test/x").format()),
    ),
    "origin-of-another-book": (403, submission(5, BOOK.proof(5, 9), BOOK.note(9, origin=OTHER.key.name).format())),
    "another-key-under-the-name": (403, IMPOSTOR.submission(5, 9)),
    "another-key-under-name-and-id": (
        403,
        submission(
            5,
            BOOK.proof(5, 9),
            Note(NOTE.text, (Signature(KEY.name, KEY.verifier.key_id, bytes(64)),)).format(),
        ),
    ),
    "false-signature-beside-a-good-one": (
        403,
        submission(
            5,
            BOOK.proof(5, 9),
            Note(NOTE.text, (*NOTE.signatures, Signature(KEY.name, KEY.verifier.key_id, bytes(64)))).format(),
        ),
    ),
    "bad-proof": (422, submission(5, [bytes(32)] * len(BOOK.proof(5, 9)), NOTE.format())),
    "no-proof": (422, submission(5, [], NOTE.format())),
    "short-proof": (422, submission(5, BOOK.proof(5, 9)[:-1], NOTE.format())),
    "long-proof": (422, submission(5, [*BOOK.proof(5, 9), bytes(32)], NOTE.format())),
    "proof-between-equal-sizes": (422, submission(5, [bytes(32)], BOOK.note(5).format())),
    "oversize-proof": (400, submission(5, [bytes(32)] * (HASHES_MAX + 1), NOTE.format())),
    "short-hash": (400, HONEST.replace(b"=\n", b"\n", 1)),
    "old-size-with-leading-zero": (400, submission("05", BOOK.proof(5, 9), NOTE.format())),
    "old-size-negative": (400, submission("-5", BOOK.proof(5, 9), NOTE.format())),
    "old-size-in-other-digits": (400, submission("\u0665", BOOK.proof(5, 9), NOTE.format())),
    "old-size-huge": (400, submission(1 << 63, BOOK.proof(5, 9), NOTE.format())),
    "old-size-upper-case": (400, HONEST.replace(b"old", b"Old")),
    "carriage-returns": (400, HONEST.replace(b"\n", b"\r\n")),
    "no-empty-line": (400, HONEST.replace(b"\n\n", b"\n", 1)),
    "no-signature": (400, submission(5, BOOK.proof(5, 9), NOTE.text.encode())),
    "nothing": (400, b""),
    "not-utf-8": (400, b"\xff\xfe"),
    "trailing-garbage": (400, HONEST + b"x"),
    "size-with-plus": (400, HONEST.replace(b"\n9\n", b"\n+9\n")),
    "too-large": (413, HONEST + b"x" * BODY_BYTES_MAX),
}


def test_attacks_change_nothing(tmp_path: Path) -> None:
    """Each attack gets the status of the specification, and the honest checkpoint is cosigned afterwards."""
    with witnessing(tmp_path / "w1", "--origin", str(KEY.verifier), "--origin", str(OTHER.key.verifier)) as witness:
        witness.cosign(BOOK, 0, 5)
        got = {name: witness.ask(body) for name, (_, body) in ATTACKS.items()}

        assert {name: status for name, (status, _) in ATTACKS.items()} == {name: got[name][0] for name in got}
        assert {name: answer[1] == SIZE_TYPE for name, answer in got.items()} == {
            name: status == 409 for name, (status, _) in ATTACKS.items()
        }
        assert not any("\u2014".encode() in answer[2] for answer in got.values())
        witness.cosign(BOOK, 5, 9)


def test_an_empty_book_has_the_root_of_nothing(witness: RunningWitness) -> None:
    """A checkpoint of size 0 has one root, and a proof from nothing is empty."""
    assert 422 == witness.ask(submission(0, [], BOOK.note(0, root=bytes(32)).format()))[0]
    assert 422 == witness.ask(submission(0, [bytes(32)], BOOK.note(3).format()))[0]
    witness.cosign(BOOK, 0, 0)


def test_two_histories_are_kept_as_evidence(witness: RunningWitness) -> None:
    """A book that signs two roots of one size is convicted by both notes; `status` shows them, the log tells once."""
    witness.cosign(FORKED, 0, 7)
    for _ in range(3):
        assert 422 == witness.ask(submission(7, [], BOOK.note(7).format()))[0]
    told = gatebook("witness", "status", "--data", str(witness.data), "--json")

    assert 1 == told.returncode
    [found] = json.loads(told.stdout)["contradictions"]
    assert (KEY.name, 7) == (found["origin"], found["size"])
    assert [FORKED.note(7).format().decode(), BOOK.note(7).format().decode()] == found["checkpoints"]
    for each in found["checkpoints"]:
        KEY.verifier.open_note(each.encode())
    assert 1 == [line["event"] for line in witness.lines].count("two histories are signed")


def test_signatures_of_others_are_ignored(witness: RunningWitness) -> None:
    """A checkpoint may bring cosignatures of others and signatures nobody knows."""
    note = BOOK.note(3)
    others = tuple(Signature(f"other.test/{number}", bytes(4), bytes(70)) for number in range(20))
    status, _, lines = witness.ask(submission(0, [], Note(note.text, (*others, *note.signatures)).format()))

    assert 200 == status
    assert 1 == len(parse_signature_lines(lines, note.text))


def test_extension_lines_are_cosigned(witness: RunningWitness) -> None:
    """What a checkpoint says beyond its third line is part of what is cosigned."""
    note = KEY.sign_note(BOOK.note(3).text + "more\n")
    status, _, lines = witness.ask(submission(0, [], note.format()))

    assert 200 == status
    witness.key.verify(parse_signature_lines(lines, note.text)[0], note.text)


def test_a_book_with_a_new_key_goes_on(tmp_path: Path) -> None:
    """Several keys may count for one origin, also one of another name; either continues what the other began."""
    newer = MemoryBook(SigningKey.generate("newer.test/key"), ENTRIES)
    stated = ("--origin", str(KEY.verifier), "--origin", f"{KEY.name}={newer.key.verifier}")
    with witnessing(tmp_path / "w1", *stated) as witness:
        witness.cosign(BOOK, 0, 5)
        note = newer.note(8, origin=KEY.name)

        assert 200 == witness.ask(submission(5, BOOK.proof(5, 8), note.format()))[0]
        assert (409, SIZE_TYPE, b"8\n") == witness.ask(BOOK.submission(5, 9))


def test_concurrent_updates_never_go_back(witness: RunningWitness) -> None:
    """Of many that ask at once from one size exactly those cosigned form one growing history."""
    witness.cosign(BOOK, 0, 5)
    answers: dict[int, int] = {}

    def ask(size: int) -> None:
        answers[size] = witness.ask(BOOK.submission(5, size))[0]

    threads = [threading.Thread(target=ask, args=(size,)) for size in range(6, 46)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [1, 39] == [list(answers.values()).count(status) for status in (200, 409)]
    [size] = [size for size, status in answers.items() if status == 200]
    assert (409, SIZE_TYPE, b"%d\n" % size) == witness.ask(BOOK.submission(0, 50))


KILLED = """
import os, signal, sys
from gatebook.__main__ import main
from gatebook.tlog.cosignature import WitnessSigningKey
WitnessSigningKey.cosign = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main())
"""


def test_a_kill_between_persisting_and_answering(tmp_path: Path) -> None:
    """A witness killed before it answered has remembered: it tells the new size, and cosigns no other history."""
    data = tmp_path / "w1"
    with witnessing(data, "--origin", str(KEY.verifier)) as witness:
        witness.cosign(BOOK, 0, 5)
    killed = RunningWitness(data, "--origin", str(KEY.verifier), program=("-c", KILLED))
    with pytest.raises((ConnectionError, OSError)):
        killed.ask(BOOK.submission(5, 9))
    killed.kill()

    with witnessing(data, "--origin", str(KEY.verifier)) as again:
        assert (409, SIZE_TYPE, b"9\n") == again.ask(BOOK.submission(5, 9))
        assert 422 == again.ask(submission(9, [], FORKED.note(9).format()))[0]
        again.cosign(BOOK, 9, 9)
        again.cosign(BOOK, 9, 12)


def test_what_is_not_its_own_is_refused(tmp_path: Path) -> None:
    """A witness does not start without its memory, with that of another, or with a file that is something else."""
    one, two = tmp_path / "one", tmp_path / "two"
    for data in (one, two):
        create(data)
    memory, key = one / "witness.db", one / "keys" / "witness.key"
    content = memory.read_bytes()
    serve = ("witness", "serve", "--data", str(one), "--origin", str(KEY.verifier), "--listen", "127.0.0.1:0")

    def refused(told: str) -> None:
        done = gatebook(*serve)
        assert (1, True) == (done.returncode, told in done.stderr), done.stderr

    memory.unlink()
    refused("nobody knows what this witness cosigned")
    memory.write_bytes((two / "witness.db").read_bytes())
    refused("is that of another witness")
    memory.write_bytes(b"hello")
    refused("cannot be read")
    memory.unlink()
    with sqlite3.connect(memory) as connection:
        connection.execute("CREATE TABLE witness (key TEXT)")
    refused("is not the database of a witness")
    memory.write_bytes(content)
    key.chmod(0o644)
    refused("may be read by others")
    key.chmod(0o600)
    key.write_text(KEY.serialize())
    refused("no key of a witness")
    key.unlink()
    refused("cannot read the signing key")


def test_one_process_has_a_witness(witness: RunningWitness) -> None:
    """A second process on the same memory is refused, and a new witness is not made over it."""
    again = gatebook("witness", "serve", "--data", str(witness.data), "--origin", str(KEY.verifier))
    made = gatebook("witness", "create", "--data", str(witness.data), "--name", "witness.test/new")

    assert (1, True) == (again.returncode, "another process" in again.stderr)
    assert (1, True) == (made.returncode, "already" in made.stderr)


def test_the_name_of_a_witness_has_no_scheme(tmp_path: Path) -> None:
    """A name is a URL without its scheme, and nothing is made of another."""
    made = gatebook("witness", "create", "--data", str(tmp_path / "w1"), "--name", "https://witness.test/w1")

    assert (1, True) == (made.returncode, "leave out `https://`" in made.stderr)
    assert not (tmp_path / "w1").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--origin", "nonsense"), "`nonsense` is no file, and a verifier key has the form"),
        (("--origin", str(KEY.verifier), "--listen", "0.0.0.0:0"), "needs TLS"),
        (("--origin", str(KEY.verifier), "--client-ca", __file__), "needs --tls-cert"),
    ],
)
def test_wrong_options(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    """A malformed key, or an address that others reach in plain text, ends the command with 2."""
    create(tmp_path / "w1")
    done = gatebook("witness", "serve", "--data", str(tmp_path / "w1"), *arguments)

    assert (2, True) == (done.returncode, told in done.stderr), done.stderr


def test_status_and_health(witness: RunningWitness) -> None:
    """The command shows what was cosigned, and the port whether the witness is well."""
    witness.cosign(BOOK, 0, 5)
    told = gatebook("witness", "status", "--data", str(witness.data), check=True).stdout
    key = gatebook("witness", "key", "--data", str(witness.data), check=True).stdout

    assert [KEY.name, "5"] == told.splitlines()[1].split()[:2]
    assert f"{witness.key}\n" == key
    assert [200, 200] == [witness.ask(b"", path, "GET")[0] for path in ("/livez", "/readyz")]
    assert [404, 405] == [witness.ask(b"", "/", "GET")[0], witness.ask(b"", "/add-checkpoint", "GET")[0]]
    assert 0 == witness.stop()


def test_over_tls(tmp_path: Path) -> None:
    """A witness beyond this machine speaks TLS, and may ask for certificates."""
    ca = authority()
    certificate, key = server_of(ca).write(tmp_path, "server")
    client = leaf(ca, common_names=["book.test"]).write(tmp_path, "client")
    trusted = ca.write(tmp_path, "ca")[0]
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key), "--client-ca", str(trusted))
    with witnessing(tmp_path / "w1", "--origin", str(KEY.verifier), *tls) as witness:
        url = f"https://localhost:{witness.address.rpartition(':')[2]}/add-checkpoint"
        context = ssl.create_default_context(cafile=str(trusted))
        with httpx.Client(verify=context) as nobody:
            refused = nobody.post(url, content=BOOK.submission(0, 5)).status_code
        context.load_cert_chain(*client)
        with httpx.Client(verify=context) as somebody:
            accepted = somebody.post(url, content=BOOK.submission(0, 5)).status_code
    assert (401, 200) == (refused, accepted)


def test_a_memory_put_back_while_it_runs_is_none(tmp_path: Path) -> None:
    """An older database put in place beneath a witness, or none: it cosigns no second history, and is not ready."""
    fork = MemoryBook(KEY, [*ENTRIES[:5], b"other", *ENTRIES[6:]])
    with witnessing(tmp_path / "w1", "--origin", str(KEY.verifier)) as witness:
        witness.cosign(BOOK, 0, 5)
        with sqlite3.connect(tmp_path / "w1" / "witness.db") as database, sqlite3.connect(tmp_path / "old") as old:
            database.backup(old)
        witness.cosign(BOOK, 5, 9)
        with sqlite3.connect(tmp_path / "w1" / "witness.db") as database, sqlite3.connect(tmp_path / "old") as old:
            old.backup(database)
        for book, old_size in ((fork, 5), (BOOK, 5), (BOOK, 9)):
            status, _, told = witness.ask(book.submission(old_size, 9))
            assert (503, True) == (status, b"from size 9 to 5" in told)
        assert 503 == witness.ask(b"", "/readyz", "GET")[0]
        (tmp_path / "w1" / "witness.db").unlink()
        assert 503 == witness.ask(fork.submission(5, 9))[0]
