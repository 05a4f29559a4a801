"""A book whose key another program holds: what is believed of its answers, and for how long entries wait for it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.books import LIMITS, ORIGIN, publisher, some_entries
from tests.signers import signing

from gatebook.audit import publish, signing_elsewhere
from gatebook.audit.book import Book
from gatebook.audit.signing_elsewhere import SignerKey, parse_book_key
from gatebook.errors import BookRefusedError, BookUnavailableError, SignerAwayError, VerificationError
from gatebook.tlog.keys import SigningKey


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Answers whoever connects with the same bytes, whatever was asked."""

    class Same(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            """Answers, and waits until the other side is gone."""
            self.request.sendall(answer)
            while self.request.recv(65_536):
                pass

    with socketserver.ThreadingUnixStreamServer(str(path), Same) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_many_texts_are_signed_in_their_order(tmp_path: Path) -> None:
    """More texts than are sent at once come back signed, each with its own signature."""
    with signing(tmp_path / "s"):
        key = SignerKey.asked(tmp_path / "s", ORIGIN)
        texts = [f"text {number}".encode() for number in range(3 * signing_elsewhere.TOGETHER_MAX + 1)]
        signatures = key.sign_all(texts)

    for text, signature in zip(texts, signatures, strict=True):
        key.verifier.verify(signature, text)


@pytest.mark.parametrize(
    "answer", [b"", b"ok", b"ok \n", b"no\n", b"error so\n", b"ok AAAA\n", b"x" * 10_000], ids=repr
)
def test_no_answer_is_believed_that_is_no_signature(
    tmp_path: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing, half a line, another word, an error, a wrong length, a line without end: each is an error."""
    monkeypatch.setattr(signing_elsewhere, "SECONDS_MAX", 0.3)
    key = SignerKey(SigningKey.generate(ORIGIN).verifier, tmp_path / "s")
    with answering(tmp_path / "s", answer), pytest.raises(SignerAwayError):
        key.sign(b"text")
    with pytest.raises(SignerAwayError, match="does not answer"):
        SignerKey(key.verifier, tmp_path / "nobody").sign(b"text")


def test_a_key_of_another_origin_is_refused(tmp_path: Path) -> None:
    """A signer that answers with the key of another book makes none."""
    vkey = SigningKey.generate("other.test/book").verifier
    with answering(tmp_path / "s", f"ok {vkey}\n".encode()), pytest.raises(BookRefusedError, match="not of"):
        SignerKey.asked(tmp_path / "s", ORIGIN)


@pytest.mark.parametrize("text", ["", "vkey", "a+b+c\nsigner x", "a+b+c", "signer x"])
def test_a_key_file_that_is_neither(text: str) -> None:
    """What is no private key, and no verifier key with a socket, is refused."""
    with pytest.raises(VerificationError):
        parse_book_key(text)


def test_entries_wait_for_a_signature_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a signer entries are written, then no more, and all of them are signed when it is back."""
    path, entries = tmp_path / "s", some_entries(1, 6)
    with signing(path) as signer:
        book = Book.open(tmp_path / "data", origin=ORIGIN, limits=LIMITS, signer=path)
        publishing = publisher(book)
        keys = signer.keys
        book.append_group(entries[:2])
        publishing.publish_now()
    book.append_group(entries[2:4])
    with pytest.raises(SignerAwayError):
        publishing.publish_now()
    book.append_group(entries[4:])
    monkeypatch.setattr(publish, "UNSIGNED_SECONDS_MAX", 0.0)
    with pytest.raises(BookUnavailableError):
        publishing.publish_now()
    with pytest.raises(BookUnavailableError, match="signer"):
        book.append_group([b"more"])
    with signing(path, keys):
        signed = publishing.publish_now()
        book.append_group([b"more"])
        publishing.publish_now()
    book.close()

    assert len(entries) == signed.checkpoint.size
    keys[ORIGIN].verifier.open_note(signed.note)
