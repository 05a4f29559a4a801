"""A served book with real witnesses: its checkpoints are cosigned, and no witness can hold it up or deceive it."""

from __future__ import annotations

import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.books import ORIGIN, key_of
from tests.serving import POLICIES, RunningServer, gatebook, serving
from tests.witnesses import RunningWitness, create, witnessing

from gatebook.audit.witness_call import WitnessAwayError, ask
from gatebook.tlog.cosignature import WitnessSigningKey
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.note import parse_note
from gatebook.tlog.policy import any_of
from gatebook.v1 import audit_service_pb2 as pb
from gatebook_client import connect_blocking
from gatebook_client.verify import verify_proof_file

SECONDS_MAX = 60
SERVED = ([POLICIES / "basic"], "--origin", ORIGIN)


def begun(data: Path) -> str:
    """Makes a book, and returns its verifier key."""
    with serving(data, *SERVED):
        pass
    return str(key_of(data))


def until(told: str, found: Callable[[], bool]) -> None:
    """Waits until something is so; fails after a minute."""
    deadline = time.monotonic() + SECONDS_MAX
    while not found():
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def witnessed(server: RunningServer) -> pb.GetCheckpointResponse:
    """Writes an entry, and returns the answer in which a checkpoint that covers it is witnessed."""
    answers: list[pb.GetCheckpointResponse] = []
    with connect_blocking(server.target) as client:
        assert client.check("alice", "read", "report:weekly").allowed
        size = client.checkpoint(refresh=True).size

        def found() -> bool:
            answers[:] = [client.checkpoint()]
            note = answers[0].witnessed_checkpoint
            return bool(note) and int(note.split("\n")[1]) >= size

        until("a checkpoint is witnessed", found)
    return answers[0]


def options(*witnesses: RunningWitness) -> tuple[str, ...]:
    """Returns the options of a server that asks these witnesses."""
    return tuple(word for each in witnesses for word in ("--witness", f"http://{each.address}={each.key}"))


def events(server: RunningServer, event: str) -> list[str]:
    """Returns which witnesses an event in the log names."""
    return [str(line["witness"]) for line in list(server.lines) if line["event"] == event]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, RunningWitness, RunningWitness]]:
    """Gives a server with two witnesses."""
    folder = tmp_path_factory.mktemp("witnessed")
    key = begun(folder / "data")
    with ExitStack() as stack:
        for name in ("w1", "w2"):
            create(folder / name, f"witness.test/{name}")
        one, two = (stack.enter_context(witnessing(folder / name, "--origin", key)) for name in ("w1", "w2"))
        server = stack.enter_context(serving(folder / "data", *SERVED, *options(one, two)))
        yield server, one, two


def test_checkpoints_are_cosigned(running: tuple[RunningServer, RunningWitness, RunningWitness]) -> None:
    """What is published is cosigned by both, and each says that it is the newest that it has seen."""
    server, *witnesses = running
    note = parse_note(witnessed(server).witnessed_checkpoint.encode())

    assert 2 == len(any_of([each.key for each in witnesses]).require(note))
    key_of(server.data).open_note(note.format())
    for each in witnesses:
        told = gatebook("witness", "status", "--data", str(each.data), check=True).stdout
        assert int(note.text.split("\n")[1]) <= int(told.splitlines()[1].split()[1])


def test_the_checkpoint_of_the_book_has_the_lines(
    running: tuple[RunningServer, RunningWitness, RunningWitness],
) -> None:
    """The file `checkpoint`, which every program for C2SP reads, comes to have the cosignatures itself."""
    server, *witnesses = running
    policy = any_of([each.key for each in witnesses])
    checkpoint = server.data / "book" / "checkpoint"
    witnessed(server)

    until("the file has both lines", lambda: len(policy.cosigners(parse_note(checkpoint.read_bytes()))) == 2)


def test_an_auditor_verifies_that_it_is_witnessed(
    running: tuple[RunningServer, RunningWitness, RunningWitness], tmp_path: Path
) -> None:
    """A copy, a checkpoint over the wire and a proof verify with the keys of the witnesses, and not with others."""
    server, *witnesses = running
    witnessed(server)
    copy, proof, vkey = tmp_path / "copy", tmp_path / "proof", server.data / "book" / "vkey"
    copy.mkdir()
    for name in ("checkpoint", "witnessed"):
        shutil.copy(server.data / "book" / name, copy)
    shutil.copytree(server.data / "book" / "tile", copy / "tile")
    keys = [word for each in witnesses for word in ("--witness", str(each.key))]
    stranger = ("--witness", str(WitnessSigningKey.generate("witness.test/w1").public))
    verify = ("audit", "verify", str(copy), "--vkey", str(vkey))
    ask = ("audit", "checkpoint", "--vkey", str(vkey), "--target", server.target)
    proved = gatebook("audit", "proof", "1", "--witnessed", "--out", str(proof), "--target", server.target)

    assert [0, 0, 0] == [gatebook(*verify, *keys).returncode, gatebook(*ask, *keys).returncode, proved.returncode]
    assert "witnessed    up to" in gatebook(*verify, *keys).stdout
    for asked in (verify, ask):
        refused = gatebook(*asked, *stranger)
        assert (1, True) == (refused.returncode, "too few witnesses" in refused.stderr)
    with connect_blocking(server.target) as client:
        entry = client.entry(1).entry_bytes
    stated = [str(each.key) for each in witnesses]
    assert ORIGIN == verify_proof_file(proof.read_bytes(), entry, vkey.read_text(), witnesses=stated).origin
    with pytest.raises(Exception, match="too few witnesses"):
        verify_proof_file(proof.read_bytes(), entry, vkey.read_text(), witnesses=[stranger[1]])


def test_a_policy_file_says_who_is_needed(
    running: tuple[RunningServer, RunningWitness, RunningWitness], tmp_path: Path
) -> None:
    """A file of C2SP tlog-policy takes the place of the options, and one about other books is refused."""
    server, one, two = running
    witnessed(server)
    policy, vkey = tmp_path / "policy", server.data / "book" / "vkey"
    stranger = WitnessSigningKey.generate("witness.test/w3").public
    lines = [f"log {vkey.read_text().strip()}", f"witness a {one.key}", f"witness b {two.key}", f"witness c {stranger}"]
    ask = ("audit", "checkpoint", "--vkey", str(vkey), "--target", server.target, "--witness-policy", str(policy))

    def asked(*rest: str) -> tuple[int, str]:
        policy.write_text("\n".join([*lines, *rest, ""]))
        done = gatebook(*ask)
        return done.returncode, done.stderr

    assert (0, "") == asked("group most 2 a b c", "quorum most")
    assert (0, "") == asked("group all all a b", "group either any all c", "quorum either")
    for needed in ("group all all a b c", "group all 1 c"):
        code, told = asked(needed, "quorum all")
        assert (1, True) == (code, "too few witnesses" in told)
    lines[0] = f"log {key_of(server.data)}".replace("gatebook.test", "other.test")
    assert 1 == asked("quorum a")[0]
    lines[0] = f"log {SigningKey.generate(ORIGIN).verifier}"
    code, told = asked("quorum a")
    assert (1, True) == (code, "is about other books" in told)


def test_a_witness_that_is_gone_holds_nothing_up(tmp_path: Path) -> None:
    """With one of two needed, checks are answered and checkpoints witnessed while one is away; it is asked again."""
    key = begun(tmp_path / "data")
    for name in ("w1", "w2"):
        create(tmp_path / name, f"witness.test/{name}")
    with witnessing(tmp_path / "w1", "--origin", key) as one, witnessing(tmp_path / "w2", "--origin", key) as two:
        named = options(one, two)
        two.kill()
        with serving(tmp_path / "data", *SERVED, *named, "--witnesses-needed", "1") as server:
            note = parse_note(witnessed(server).witnessed_checkpoint.encode())
            assert 1 == len(any_of([one.key, two.key], 1).require(note))
            until("it is missed", lambda: events(server, "witness away") == ["witness.test/w2"])
            again = RunningWitness(tmp_path / "w2", "--origin", key, "--listen", two.address)
            try:
                until("it is back", lambda: events(server, "witness back") == ["witness.test/w2"])
            finally:
                again.stop()


def test_a_book_that_was_put_back_is_told(tmp_path: Path) -> None:
    """After the whole data directory was put back, the witness says that it has seen more; the server logs it."""
    data, old = tmp_path / "data", tmp_path / "old"
    key = begun(data)
    with witnessing(tmp_path / "w1", "--origin", key) as witness:
        with serving(data, *SERVED, *options(witness)) as server:
            witnessed(server)
        shutil.copytree(data, old)
        with serving(data, *SERVED, *options(witness)) as server:
            for _ in range(5):
                witnessed(server)
        shutil.rmtree(data)
        old.rename(data)
        with serving(data, *SERVED, *options(witness)) as server:
            until("it is told", lambda: events(server, "witness ahead") == [witness.key.name])


def test_a_book_that_ends_before_what_was_witnessed_is_refused(tmp_path: Path) -> None:
    """A start is refused where `witnessed` is of more than the book has."""
    data, kept = tmp_path / "data", tmp_path / "kept"
    key = begun(data)
    with witnessing(tmp_path / "w1", "--origin", key) as witness:
        shutil.copytree(data, kept)
        with serving(data, *SERVED, *options(witness)) as server:
            witnessed(server)
        shutil.copy(data / "book" / "witnessed", kept / "book")
        done = gatebook("serve", "--data", str(kept), "--listen", "127.0.0.1:0", *options(witness))

    assert (1, True) == (done.returncode, "it was put back from an older copy" in done.stderr), done.stderr


LIAR = WitnessSigningKey.generate("witness.test/liar")
LIES: dict[str, Callable[[str], tuple[int, str, bytes]]] = {
    "replayed-cosignature": lambda text: (200, "text/plain", LIAR.cosign(f"other\n{text}", 1).line().encode()),
    "unknown-witness": lambda text: (
        200,
        "text/plain",
        WitnessSigningKey.generate("witness.test/other").cosign(text, 1).line().encode(),
    ),
    "no-cosignature": lambda _: (200, "text/plain", b"\n"),
    "endless-answer": lambda _: (200, "text/plain", b"x" * 1_000_000),
    "another-size-each-time": lambda _: (409, "text/x.tlog.size", b"0\n"),
    "a-size-of-no-tree": lambda _: (409, "text/x.tlog.size", b"-1\n"),
    "a-size-beyond-the-book": lambda _: (409, "text/x.tlog.size", b"9223372036854775807\n"),
    "a-conflict-without-a-size": lambda _: (409, "text/plain", b"no\n"),
    "a-redirect": lambda _: (307, "text/plain", b""),
    "a-fault": lambda _: (500, "text/plain", b"\x1b[2J\n"),
}


@contextmanager
def lying(lie: Callable[[str], tuple[int, str, bytes]]) -> Iterator[str]:
    """Runs a witness that lies, and gives its address."""

    class Liar(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status, kind, content = lie(body.split("\n\n")[1] + "\n")
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_witness_that_lies_changes_nothing(tmp_path: Path) -> None:
    """Whatever a witness answers but a true cosignature: checks are answered, and nothing of it is believed."""
    begun(tmp_path / "data")
    keys = {name: WitnessSigningKey.generate(f"witness.test/{name}").public for name in LIES}
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(lying(lie)) for name, lie in LIES.items()}
        stated = {**keys, "replayed-cosignature": LIAR.public}
        named = [word for name in LIES for word in ("--witness", f"{addresses[name]}={stated[name]}")]
        server = stack.enter_context(serving(tmp_path / "data", *SERVED, *named, "--witnesses-needed", "1"))
        names = {key.name for key in stated.values()}
        until("each is found out", lambda: set(events(server, "witness away")) == names)
        with connect_blocking(server.target) as client:
            assert client.check("alice", "read", "report:weekly").allowed
            answer = client.checkpoint(refresh=True)

    assert "" == answer.witnessed_checkpoint
    assert 1 == len(parse_note(answer.checkpoint.encode()).signatures)
    assert not (tmp_path / "data" / "book" / "witnessed").exists()


def test_a_name_that_no_host_can_have_is_a_witness_that_is_away() -> None:
    """What the resolver does not even look up is told as any witness that does not answer."""
    with pytest.raises(WitnessAwayError, match="does not answer"):
        ask("https://a..example", LIAR.public, 0, [], b"")


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (["--witness", "nonsense"], "has the form"),
        (["--witness", "nonsense", "--workers", "2"], "has the form"),
        (["--witness", f"http://witness.example.org={LIAR.public}"], "in plain text"),
        (["--witness", f"ftp://127.0.0.1={LIAR.public}"], "not the URL"),
        (["--witness", f"https://b\u00fccher.example/\u672c={LIAR.public}"], "not the URL"),
        (["--witness", f"http://127.0.0.1:1={LIAR.public}", "--witnesses-needed", "2"], "2 witnesses are needed"),
        (["--witness", f"http://127.0.0.1:1={LIAR.public}"] * 2, "has the key of"),
    ],
)
def test_witnesses_that_cannot_be_asked_end_the_start(tmp_path: Path, stated: list[str], told: str) -> None:
    """A key or address that is none, plain text beyond this machine, or one key twice: exit code 2."""
    done = gatebook("serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", *stated)

    assert (2, True) == (done.returncode, told in done.stderr), done.stderr
