"""The collector: has each published checkpoint cosigned by witnesses, and shows what they signed.

Owns the threads that ask them, one for each, the file `<data>/book/witnessed`, and what was cosigned. Rules:

1. nobody waits for a witness: no answer, no publication; what is not cosigned in time is not cosigned, since the next
   checkpoint covers it as well;
2. a witness that fails is asked again, after a pause that doubles up to `PAUSE_SECONDS_MAX`;
3. the newest checkpoint that satisfies the policy is in `witnessed`; `checkpoint` has the lines that came for it, too;
4. a witness that cosigned more than this book has says that the book was put back: that is logged, and in `ahead`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from gatebook.audit.book import Book
from gatebook.audit.checkpoints import Signed
from gatebook.audit.publish import Publisher
from gatebook.audit.witness_call import OtherSizeTold, WitnessAwayError, ask, require_url
from gatebook.errors import BookRefusedError, GatebookError, InvalidRequestError, VerificationError
from gatebook.tlog.cosignature import WitnessKey
from gatebook.tlog.note import NOTE_BYTES_MAX, Note, Signature, parse_note
from gatebook.tlog.policy import POLICY_BYTES_MAX, Witness, WitnessPolicy, any_of, parse_policy
from gatebook.tlog.proof import open_checkpoint

WITNESSES_MAX = 16
PENDING_MAX = 64
"""Checkpoints that some witnesses cosigned and not yet enough."""
TRIES_MAX = 4
"""How often in a row a witness may tell another size."""
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.5, 60.0
CLOSE_SECONDS = 2.0
"""How long the end of the service waits for cosignatures of its last checkpoint."""
WITNESSED = "witnessed"


def witnesses_of(stated: tuple[str, ...], needed: int | None, path: Path | None) -> WitnessPolicy:
    """Returns whom a book asks, as the command line says it: `URL=KEY` or `URL=FILE`, or a policy that has URLs.

    Raises:
        InvalidRequestError: it is malformed.
    """
    try:
        if path is not None:
            if stated or needed is not None:
                raise InvalidRequestError("witness-policy", "says all: leave out --witness and --witnesses-needed")
            policy = parse_policy(path.read_bytes()[: POLICY_BYTES_MAX + 1])
        else:
            pairs = [text.partition("=") for text in stated]
            keys = [WitnessKey.parse(_key_text(key, text)) for (_, _, key), text in zip(pairs, stated, strict=True)]
            policy = any_of(keys, needed, [url for url, _, _ in pairs])
    except (OSError, UnicodeDecodeError, VerificationError) as err:
        raise InvalidRequestError("witness", str(err)) from err
    if len(policy.witnesses) > WITNESSES_MAX:
        raise InvalidRequestError("witness", f"a book asks at most {WITNESSES_MAX} witnesses")
    for witness in policy.witnesses:
        require_url(witness.url)
    return policy


def _key_text(key: str, stated: str) -> str:
    path = Path(key)
    if path.is_file():
        return path.read_text("utf-8")
    if "+" not in key:
        raise VerificationError(
            f"`{stated}` is not URL=KEY or URL=FILE: a witness key has the form `<name>+<key id>+<key>`"
        )
    return key


class Collector:
    """Asks witnesses. Its threads are its own; what was cosigned may be read by any."""

    def __init__(self, book: Book, publisher: Publisher, policy: WitnessPolicy) -> None:
        """Takes the open book, its publisher, and whom to ask.

        Raises:
            BookRefusedError: a checkpoint was witnessed that this book does not continue.
        """
        self._book = book
        self._publisher = publisher
        self._policy = policy
        self._pending: dict[str, dict[str, Signature]] = {}
        self._grown = threading.Condition()
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._closed = False
        self._began_ns = time.time_ns()
        self._log = structlog.get_logger("gatebook.witnesses")
        self.witnessed = self._read_witnessed()
        """The newest checkpoint that enough witnesses cosigned, with their lines."""
        self.troubles: dict[str, str] = {}
        """Why a witness did not cosign when it was last asked, by its name; empty where it did."""
        self._listeners: list[Callable[[], None]] = []
        self.ahead: set[str] = set()
        """Witnesses that cosigned more than this book has."""
        self._threads = [
            threading.Thread(target=self._feed, args=(each,), name=f"witness-{number}", daemon=True)
            for number, each in enumerate(policy.witnesses)
        ]

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Has a listener told, on some thread, whenever enough have cosigned. It must be quick and not raise."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begins to ask."""
        for thread in self._threads:
            thread.start()
        self._publisher.add_listener(self._tell)

    def close(self) -> None:
        """Ends the threads, once witnesses that answer have cosigned the last checkpoint, or after a while."""
        with self._grown:
            self._closing.set()
            self._grown.notify_all()
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        with self._turn:
            self._closed = True

    def seconds_behind(self, now_ns: int) -> float:
        """Returns the age of the newest witnessed checkpoint, or of this start; 0 where the newest is witnessed."""
        newest, witnessed = self._book.signed, self.witnessed
        if witnessed is not None and witnessed.checkpoint.size >= newest.checkpoint.size:
            return 0.0
        since = self._began_ns if witnessed is None else max(witnessed.time_ns, self._began_ns)
        return max(0.0, (now_ns - since) / 1e9)

    @property
    def away(self) -> int:
        """Returns how many witnesses did not cosign when they were last asked."""
        return sum(map(bool, list(self.troubles.values())))

    def _tell(self, _old_size: int, _new_size: int) -> None:
        with self._grown:
            self._grown.notify_all()

    def _feed(self, witness: Witness) -> None:
        size, done, pause = 0, "", PAUSE_SECONDS
        while (signed := self._next(done)) is not None:
            try:
                signed = self._offer(witness, signed, size)
            except (GatebookError, OSError) as err:
                self._tell_trouble(witness.name, str(err))
                if self._closing.wait(pause):
                    return
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
            else:
                self._tell_trouble(witness.name, "")
                size, done, pause = signed.checkpoint.size, signed.checkpoint.text(), PAUSE_SECONDS

    def _next(self, done: str) -> Signed | None:
        """Returns the newest checkpoint once it is another than the one done; None at the end."""
        with self._grown:
            while (signed := self._book.signed).checkpoint.text() == done:
                if self._closing.is_set():
                    return None
                self._grown.wait()
            return signed

    def _offer(self, witness: Witness, signed: Signed, size: int) -> Signed:
        """Returns the checkpoint that the witness has cosigned: this one, or a newer.

        Raises:
            GatebookError: it did not.
        """
        for _ in range(TRIES_MAX):
            proof = self._book.consistency_proof(size, signed.checkpoint.size)
            try:
                line = ask(witness.url, witness.key, size, proof, signed.note)
            except OtherSizeTold as told:
                size = told.size
                if size > signed.checkpoint.size:
                    signed = self._book.signed
                if size > signed.checkpoint.size:
                    self._tell_ahead(witness.name, size)
                    message = f"it cosigned size {size} of this book, which ends at {signed.checkpoint.size}"
                    raise WitnessAwayError(message) from None
            else:
                self.ahead.discard(witness.name)
                self._add(signed, witness.name, line)
                return signed
        raise WitnessAwayError(f"it told another size {TRIES_MAX} times in a row")

    def _add(self, signed: Signed, name: str, line: Signature) -> None:
        """Takes in a cosignature, and shows it."""
        text = signed.checkpoint.text()
        with self._turn:
            if self._closed:
                return
            lines = self._pending.setdefault(text, {})
            lines[name] = line
            while len(self._pending) > PENDING_MAX:
                self._pending.pop(next(iter(self._pending)))
            cosigned = Signed(signed.checkpoint, _with_lines(signed.note, lines), signed.time_ns)
            before = self.witnessed
            if self._policy.satisfied_by(lines.keys()) and (
                before is None or before.checkpoint.size <= signed.checkpoint.size
            ):
                self._write(cosigned.note)
                self.witnessed = cosigned
                for listener in self._listeners:
                    listener()
            self._publisher.show_cosigned(cosigned)

    def _write(self, note: bytes) -> None:
        layout, files = self._book.layout, self._book.files
        try:
            files.replace_content(layout.book / WITNESSED, note, layout.temporary / WITNESSED)
            files.sync_directory(layout.book)
        except OSError as err:
            raise WitnessAwayError(f"what it signed cannot be kept: {err.strerror}") from err

    def _read_witnessed(self) -> Signed | None:
        """Returns what was witnessed before this start, if this policy still says so."""
        path, book = self._book.layout.book / WITNESSED, self._book
        if not path.exists():
            return None
        try:
            with path.open("rb") as file:
                note = file.read(NOTE_BYTES_MAX + 1)
            checkpoint = open_checkpoint(note, book.key.verifier)
            self._policy.require(parse_note(note))
        except (OSError, VerificationError):
            return None
        published = book.signed.checkpoint.size
        if checkpoint.size > published:
            raise BookRefusedError(
                f"witnesses cosigned size {checkpoint.size} of this book, and it ends at {published}: "
                "it was put back from an older copy"
            )
        if book.tiles.frontier(checkpoint.size, published).root() != checkpoint.root:
            raise BookRefusedError(
                f"witnesses cosigned another root for size {checkpoint.size}: the book was rewritten"
            )
        return Signed(checkpoint, note, 0)

    def _tell_trouble(self, name: str, trouble: str) -> None:
        before = self.troubles.get(name, "")
        self.troubles[name] = trouble
        if trouble and not before:
            self._log.warning("witness away", witness=name, error=trouble)
        elif before and not trouble:
            self._log.info("witness back", witness=name)

    def _tell_ahead(self, name: str, size: int) -> None:
        if name not in self.ahead:
            self.ahead.add(name)
            self._log.error("witness ahead", witness=name, size=size, published=self._book.signed.checkpoint.size)


def _with_lines(note: bytes, lines: Mapping[str, Signature]) -> bytes:
    """Returns a note with cosignatures in place of those by the same keys."""
    parsed = parse_note(note)
    replaced = {(each.name, each.key_id) for each in lines.values()}
    kept = tuple(each for each in parsed.signatures if (each.name, each.key_id) not in replaced)
    return Note(parsed.text, (*kept, *lines.values())).format()
