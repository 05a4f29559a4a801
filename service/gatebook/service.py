"""The parts of one running service, from the book up, without the network.

Owns how they are built from a data directory and in which order they are closed. Whoever holds a
`Service` may decide, publish and read; that it can be opened at all means that the book is whole.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gatebook import __version__
from gatebook.audit.book import Book
from gatebook.audit.chain import control_chain, control_links, find_end
from gatebook.audit.control_state import control_state
from gatebook.audit.cosigning import witnesses_of
from gatebook.audit.entry import from_timestamp
from gatebook.audit.hold import require_released
from gatebook.audit.keeping import Keeping, keeping_of
from gatebook.audit.keyfile import derive_key, open_key
from gatebook.audit.lineage_entry import lineage_of
from gatebook.audit.people import People
from gatebook.audit.reader import BookReader, open_reader
from gatebook.audit.recorder import Recorder
from gatebook.audit.signing_elsewhere import BookKey, parse_book_key
from gatebook.audit.succession import ACTIVATING
from gatebook.audit.writer import BookWriter
from gatebook.config import Config, home_of
from gatebook.errors import BookRefusedError, VerificationError
from gatebook.revisions.active import Activation, Revisions
from gatebook.revisions.approving import Approving, proposals_of
from gatebook.revisions.deriving import Deriving
from gatebook.revisions.proposals import Proposals
from gatebook.revisions.publish import Publishing
from gatebook.revisions.store import RevisionStore
from gatebook.search import Searching
from gatebook.v1 import entry_pb2
from gatebook.values import Revision


class Service(msgspec.Struct, frozen=True):
    """The parts of one running service."""

    book: Book
    writer: BookWriter
    recorder: Recorder
    revisions: Revisions
    publishing: Publishing
    deriving: Deriving
    reader: BookReader
    searching: Searching
    keeping: Keeping

    @property
    def origin(self) -> str:
        """Returns the origin of the book."""
        return self.book.origin

    @property
    def key(self) -> BookKey:
        """Returns the signing key of the book."""
        return self.book.key

    @property
    def healthy(self) -> bool:
        """Tells whether the book can be written and published, and what decides is known to be active."""
        return not self.book.trouble and self.revisions.leased


@contextlib.asynccontextmanager
async def open_service(config: Config) -> AsyncIterator[Service]:
    """Opens the parts of a data directory, says so in the book, and closes them in order.

    A worker that is not the first begins without revisions: it is told of them (see `rpc.following`).

    Raises:
        InvalidRequestError: the witnesses that it names cannot be asked.
        BookRefusedError: the book must not be served.
        PolicySetRefusedError: this version refuses a revision that is active.
    """
    data, home = config.data, home_of(config)
    witnesses = witnesses_of(config.witness, config.witnesses_needed, config.witness_policy)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_first = config.worker == 0
    origin = config.origin or known_origin(data) or new_origin()
    require_released(data)
    require_released(home)
    async with contextlib.AsyncExitStack() as stack:
        book = Book.open(home, origin=origin_of(origin, config.worker), signer=config.signer)
        stack.callback(book.close)
        is_new = book.size == 0
        people = People.open(home, create=is_new)
        stack.callback(people.close)
        state = control_state(control_links(book))
        book.mark_first(state.first_index)
        reader = stack.enter_context(open_reader(home, book, people, witnesses))
        end = find_end(book)
        if end.closed:
            raise BookRefusedError(
                f"the book `{book.origin}` is closed, and its successor is not here: restore it from a backup"
            )
        writer = BookWriter(book)
        writer.start()
        stack.push_async_callback(writer.close)
        recorder = Recorder(writer, people, end, origin=book.origin, clock=lambda: datetime.now(UTC))
        mask_master = open_key(data / "keys" / "mask.key", create=is_new and is_first)
        store = RevisionStore(data, create=is_new and is_first, read_only=not is_first)
        revisions = Revisions(store, mask_master)
        if is_first:
            revisions.restore(activations(book), lineage_of(control_chain(book)))
        waiting = proposals_of(book, book.origin, people, recorder.now()) if is_first else Proposals()
        publishing, searching = (
            Publishing(revisions, recorder, Approving(revisions, recorder, waiting)),
            Searching(recorder, derive_key(mask_master, "search/page-token/v1")),
        )
        keeping = keeping_of(book, reader, recorder, people)
        deriving = Deriving(revisions, recorder, publishing)
        service = Service(book, writer, recorder, revisions, publishing, deriving, reader, searching, keeping)
        event = entry_pb2.SYSTEM_EVENT_STARTED if end.size else entry_pb2.SYSTEM_EVENT_BOOK_OPENED
        await recorder.record_system(event, version=__version__, recovered_size=end.size, unclean=not end.clean)
        try:
            async with keeping.open(state, book.size):
                yield service
        finally:
            publishing.close()
            if not book.trouble:
                await recorder.record_system(entry_pb2.SYSTEM_EVENT_STOPPED, version=__version__)


def activations(book: Book) -> Iterator[Activation]:
    """Yields the activations in the book, the newest first."""
    for index, entry in control_chain(book):
        if entry.HasField("policy") and entry.policy.step in ACTIVATING:
            told = entry.policy
            revision = Revision(told.revision.digest, told.revision.number)
            time = from_timestamp(entry.entry_time)
            yield Activation(told.policy_set, revision, time, index, told.request_id_hash)


def known_origin(data: Path) -> str:
    """Returns the origin of the book in a data directory, which its signing key names; empty when there is none.

    Raises:
        BookRefusedError: the key is no signing key.
    """
    path = data / "keys" / "book.key"
    try:
        return parse_book_key(path.read_text(encoding="utf-8")).name
    except FileNotFoundError:
        return ""
    except (UnicodeDecodeError, VerificationError) as err:
        raise BookRefusedError(f"`{path}` holds no signing key: restore it from a backup") from err


def origin_of(origin: str, worker: int) -> str:
    """Returns the origin of a worker's book: that of the service for the first, a name beneath it for the others."""
    return f"{origin}/worker/{worker}" if worker else origin


def new_origin() -> str:
    """Returns an origin for a new book: a name of this machine and a random part."""
    return f"{socket.gethostname().lower()}/gatebook/{secrets.token_hex(4)}"
