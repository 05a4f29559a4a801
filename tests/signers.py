"""Signers for the tests: programs that hold the key of a book, and do as a test says."""

from __future__ import annotations

import base64
import contextlib
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

from gatebook.tlog.keys import SigningKey

SECONDS_MAX = 60.0


class Signer(socketserver.ThreadingUnixStreamServer):
    """A signer in this process, which does as a test says."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        """Listens, with a key for whatever origin it is asked for."""
        self.keys: dict[str, SigningKey] = {}
        self.mode = "honest"
        self.texts: list[bytes] = []
        self.resumed = threading.Event()
        super().__init__(str(path), Answering)

    def answer(self, line: str) -> str:
        """Returns the answer to a request."""
        word, _, rest = line.strip().partition(" ")
        if word == "key":
            key = self.keys.setdefault(rest, SigningKey.generate(rest))
            return f"ok {key.verifier}"
        key_id, _, encoded = rest.partition(" ")
        [key] = [key for key in self.keys.values() if key.verifier.key_id.hex() == key_id]
        text = base64.b64decode(encoded)
        self.texts.append(text)
        if self.mode == "refusing":
            return "error not today"
        if self.mode == "wrong":
            key = SigningKey.generate(key.name)
        if self.mode == "garbage":
            return "ok !!!"
        if self.mode == "silent":
            self.resumed.wait(SECONDS_MAX)
        return f"ok {base64.b64encode(key.sign(text)).decode()}"


class Answering(socketserver.StreamRequestHandler):
    """Answers line by line."""

    def handle(self) -> None:
        """Answers until the other side is gone."""
        signer = self.server
        assert isinstance(signer, Signer)
        with contextlib.suppress(OSError):
            for line in self.rfile:
                self.wfile.write(f"{signer.answer(line.decode())}\n".encode())


@contextlib.contextmanager
def signing(path: Path, keys: dict[str, SigningKey] | None = None) -> Iterator[Signer]:
    """Runs a signer within the block."""
    path.unlink(missing_ok=True)
    with Signer(path) as signer:
        signer.keys |= keys or {}
        thread = threading.Thread(target=signer.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield signer
        finally:
            signer.resumed.set()
            signer.shutdown()
            thread.join()
            path.unlink()
