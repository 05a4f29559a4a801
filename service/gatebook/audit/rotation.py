"""Rotation: closes the book of a stopped service, and opens its successor under a new origin and a new key.

Owns `<data>/rotation.json`, `<data>/keys/book.next.key` and `<data>/closed/`, and the order of the steps:

1. the new key, then the mark `rotation.json`, which names both books: from here on nothing is served;
2. the closure: the last entry of the old book. It is published, so that a final checkpoint of the old key covers it;
3. book, write-ahead log, checkpoint database and, last of all, the key move to `closed/<key id>/`;
4. the new book is made, its key last. Its first group holds the birth and the control entries that go on;
5. the old key is removed, since nothing is to be signed by it any more, and then the mark.

Where the old key is lost there is no closure, and the birth says so: with the last checkpoint that the key signed, and
how many entries there are beyond it, which no signature covers.

Each step is durable before the next begins, and finds out what is done already. So whoever was killed between, or
within, any of them begins again and comes to the same end. What names people stays, and counts for both books.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gatebook.audit.book import Book
from gatebook.audit.chain import Entries, control_links, find_end
from gatebook.audit.checkpoints import Signed
from gatebook.audit.control_state import ControlState, control_state
from gatebook.audit.cosigning import Collector
from gatebook.audit.files import Files
from gatebook.audit.hold import ROTATION_FILE, read_hold
from gatebook.audit.limits import BookLimits
from gatebook.audit.lock import DirectoryLock
from gatebook.audit.lost_book import LostBook
from gatebook.audit.opening import Layout, create_book
from gatebook.audit.publish import Publisher
from gatebook.audit.segment import group_bytes
from gatebook.audit.signer import read_secret, write_signing_key
from gatebook.audit.signing_elsewhere import SignerKey, parse_book_key
from gatebook.audit.succession import (
    REASON_BYTES_MAX,
    birth,
    birth_without_key,
    carried,
    closure,
    encode_carried,
)
from gatebook.errors import BookRefusedError, InvalidRequestError, LimitExceededError, VerificationError
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.note import parse_note, require_key_name
from gatebook.tlog.policy import WitnessPolicy

CLOSED = "closed"
NEXT_KEY = "book.next.key"
_BYTES_MAX = 65_536
MOVED = ("book", "wal", "checkpoints.db")
DERIVED = ("index.db", "index.db-wal", "index.db-shm")

Clock = Callable[[], datetime]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation is about."""

    predecessor: str
    """The verifier key of the book that is closed."""
    successor: str
    reason: str
    key_lost: bool = False

    @property
    def old(self) -> VerifierKey:
        """Returns the key of the book that is closed."""
        return VerifierKey.parse(self.predecessor)

    @property
    def new(self) -> VerifierKey:
        """Returns the key of its successor."""
        return VerifierKey.parse(self.successor)


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """Two books, of which one succeeds the other."""

    old: str
    """The verifier key of the book that is closed."""
    new: str
    size: int
    """The final size of the closed book."""
    folder: Path
    """Where the closed book is."""
    cosigned: tuple[str, ...] = ()
    """Which of the witnesses that were asked cosigned its closure."""


class Place:
    """Where the parts of a rotation are."""

    def __init__(self, home: Path) -> None:
        """Takes the directory of one book."""
        self.home = home
        self.layout = Layout(home)
        self.mark = home / ROTATION_FILE
        self.next_key = home / "keys" / NEXT_KEY

    def closed(self, key: VerifierKey) -> Path:
        """Returns where a book with this key is moved to."""
        return self.home / CLOSED / key.key_id.hex()


class Rotation:
    """The rotation of one book. Every step can be taken again."""

    def __init__(
        self,
        home: Path,
        *,
        files: Files | None = None,
        limits: BookLimits | None = None,
        clock: Clock = lambda: datetime.now(UTC),
        witnesses: WitnessPolicy | None = None,
    ) -> None:
        """Takes the directory of the book, which must not be served, and who is asked to cosign its closure."""
        self._witnesses = witnesses
        self._place = Place(home)
        self._files = files or Files()
        self._limits = limits or BookLimits()
        self._clock = clock

    def begun(self) -> Mark | None:
        """Returns what was begun before, if anything was.

        Raises:
            BookRefusedError: the mark cannot be read.
        """
        return read_mark(self._place)

    def require_possible(self, origin: str, reason: str, *, key_lost: bool = False) -> None:
        """Requires that the book can be closed, or that its closing has begun. Changes nothing.

        Raises:
            BookRefusedError: the book is served, held, damaged or closed, or has no key.
            BookUnavailableError: it cannot be opened.
            InvalidRequestError: the successor cannot have this origin, or the reason is too long.
            LimitExceededError: what would have to go on does not fit.
        """
        place = self._place
        if read_mark(place) is not None:
            return
        if len(reason.encode()) > REASON_BYTES_MAX:
            raise InvalidRequestError("reason", f"has at most {REASON_BYTES_MAX} bytes")
        if read_hold(place.home) is not None:
            raise BookRefusedError(
                f"`{place.home}` holds a restored book: release it with `gatebook restore --continue`"
            )
        key = self._old_key(key_lost=key_lost)
        if origin == key.name:
            raise InvalidRequestError("origin", f"the successor of `{key.name}` needs another origin")
        try:
            require_key_name(origin)
        except VerificationError as err:
            raise InvalidRequestError("origin", f"`{origin}` cannot be the origin of a book: {err}") from err
        mark = Mark(predecessor=str(key), successor=str(key), reason=reason)
        if key_lost:
            DirectoryLock(place.layout.lock).release()
            lost = LostBook.at(place.home, key)
            self._require_fitting(self._beginning(mark, lost, lost.signed))
            return
        book = self._open(key.name)
        try:
            if find_end(book).closed:
                raise BookRefusedError(f"the book `{key.name}` is closed already")
            _require_completed(control_state(control_links(book)))
            self._require_fitting(self._beginning(mark, book, book.signed))
        finally:
            book.close()

    def begin(self, origin: str, reason: str, *, key_lost: bool = False, signer: Path | None = None) -> Mark:
        """Makes the new key, or asks a signer for it, and then the mark; returns what is or was begun."""
        place, files = self._place, self._files
        if (mark := read_mark(place)) is not None:
            return mark
        key = SigningKey.generate(origin) if signer is None else SignerKey.asked(signer, origin)
        write_signing_key(place.next_key, key, files)
        old = self._old_key(key_lost=key_lost)
        mark = Mark(predecessor=str(old), successor=str(key.verifier), reason=reason, key_lost=key_lost)
        files.replace_content(place.mark, msgspec.json.encode(mark), place.home / f"{ROTATION_FILE}.new", 0o600)
        files.sync_directory(place.home)
        return mark

    def finish(self, mark: Mark) -> Rotated:
        """Takes all steps that are left.

        Raises:
            BookRefusedError: a part of the one or of the other book is not there.
            BookUnavailableError: the book cannot be written now; begin again.
            OSError: a file cannot be written; begin again.
        """
        place, folder = self._place, self._place.closed(mark.old)
        key = place.layout.key
        if key_in(key) != mark.new:
            if key_in(key) not in {None, mark.old}:
                raise BookRefusedError(f"`{key}` is of neither book of the rotation: restore it from a backup")
            if key.exists() and not (folder / "book").exists():
                self._close(mark)
            if key.exists() or mark.key_lost:
                self._set_aside(folder)
            self._create(mark)
        final = self._bear(mark, folder)
        self._end(folder)
        cosigned = () if self._witnesses is None else self._witnesses.cosigners(parse_note(final.note))
        return Rotated(
            old=mark.predecessor,
            new=mark.successor,
            size=final.checkpoint.size,
            folder=folder,
            cosigned=tuple(each.name for each in cosigned),
        )

    def _old_key(self, *, key_lost: bool) -> VerifierKey:
        layout = self._place.layout
        key = key_in(layout.key)
        if key_lost:
            if key is not None:
                raise BookRefusedError(f"`{layout.key}` is there: a book whose key is not lost is closed with it")
            if not layout.vkey.exists():
                raise BookRefusedError(f"there is no book in `{self._place.home}`")
            return VerifierKey.parse(layout.vkey.read_text("utf-8"))
        if key is None:
            raise BookRefusedError(f"there is no book in `{self._place.home}`, or its key is lost: see docs/keys.md")
        return key

    def _open(self, origin: str) -> Book:
        return Book.open(self._place.home, origin=origin, create=False, limits=self._limits, files=self._files)

    def _close(self, mark: Mark) -> None:
        """Writes the closure and publishes it."""
        book = self._open(mark.old.name)
        try:
            end = find_end(book)
            if not end.closed:
                time = max(self._clock(), end.last_entry_time)
                book.append_group([closure(mark.new, mark.reason, time, end.control_link)])
            publisher = publish(book)
            if self._witnesses is not None and self._witnesses.witnesses:
                collector = Collector(book, publisher, self._witnesses)
                collector.start()
                collector.close()  # waits for a while
        finally:
            book.close()

    def _set_aside(self, folder: Path) -> None:
        """Moves the closed book, its key last."""
        place, files = self._place, self._files
        files.make_directories(folder / "keys")
        (folder / "keys").chmod(0o700)
        for path in (place.home / name for name in DERIVED):  # it is of one book, and may go at any time
            if path.exists():
                files.remove(path)
        for name in MOVED:
            source, target = place.home / name, folder / name
            if source.exists() and not target.exists():
                files.rename(source, target)
                files.sync_directory(folder)
                files.sync_directory(place.home)
        if place.layout.key.exists():
            files.rename(place.layout.key, folder / "keys" / "book.key")
            files.sync_directory(folder / "keys")
            files.sync_directory(place.layout.key.parent)

    def _create(self, mark: Mark) -> None:
        """Makes the new book, empty."""
        place = self._place
        if key_in(place.next_key) != mark.new:
            raise BookRefusedError(
                f"`{place.next_key}` is not the key that the closed book names: restore it from a backup"
            )
        key = parse_book_key(read_secret(place.next_key))
        lock = DirectoryLock(place.layout.lock)
        try:
            time_ns = int(self._clock().timestamp() * 1_000_000_000)
            create_book(place.layout, key.name, time_ns, self._files, self._limits, key)
        finally:
            lock.release()

    def _bear(self, mark: Mark, folder: Path) -> Signed:
        """Writes how the new book begins, and publishes it; returns the final checkpoint of the old one."""
        closed = LostBook.at(folder, mark.old, tail=mark.key_lost)
        book = self._open(mark.new.name)
        try:
            if book.size == 0:
                book.append_group(self._beginning(mark, closed, closed.signed))
            publish(book)
        finally:
            book.close()
        return closed.signed

    def _beginning(self, mark: Mark, closed: Entries, final: Signed) -> list[bytes]:
        """Returns the entries that the new book begins with."""
        time = max(self._clock(), find_end(closed).last_entry_time)
        if mark.key_lost and isinstance(closed, LostBook):
            first = birth_without_key(mark.old, final, (closed.size, closed.root), mark.reason, time)
        else:
            first = birth(mark.old, final, mark.reason, time)
        return [first, *encode_carried(carried(closed, mark.old.name), time, 1)]

    def _require_fitting(self, entries: Sequence[bytes]) -> None:
        """Requires that entries fit one group, which is durable all or none."""
        limits = self._limits
        if len(entries) > limits.group_entries_max or group_bytes(entries) > limits.group_bytes_max:
            raise LimitExceededError(f"{len(entries)} entries to begin a book with do not fit one group")

    def _end(self, folder: Path) -> None:
        """Removes the old key and the mark."""
        place = self._place
        for path in (folder / "keys" / "book.key", place.next_key, place.mark):
            if path.exists():
                self._files.remove(path)
                self._files.sync_directory(path.parent)


def _require_completed(state: ControlState) -> None:
    """Requires that nothing is half done: a successor takes what it inherits for done."""
    if not state.pruning_completed or any(not erasure.completed for erasure in state.erasures):
        raise BookRefusedError("an erasure or pruning is not completed: start the server, which does it, and stop it")


def publish(book: Book) -> Publisher:
    """Publishes all of a book; returns its publisher.

    Raises:
        BookUnavailableError: it cannot be published now.
    """
    publisher = Publisher(book, on_failure=lambda: None)
    publisher.publish_now()
    return publisher


def read_mark(place: Place) -> Mark | None:
    """Returns what was begun, if anything was.

    Raises:
        BookRefusedError: the mark cannot be read.
    """
    try:
        with place.mark.open("rb") as file:
            return msgspec.json.decode(file.read(_BYTES_MAX), type=Mark)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as err:
        raise BookRefusedError(f"`{place.mark}` cannot be read: restore it from a backup") from err


def key_in(path: Path) -> VerifierKey | None:
    """Returns the public half of the key in a file, if there is one.

    Raises:
        BookRefusedError: it is no key, or may be read by others.
    """
    if not path.exists():
        return None
    try:
        return parse_book_key(read_secret(path)).verifier
    except VerificationError as err:
        raise BookRefusedError(f"`{path}` holds no signing key: restore it from a backup") from err
