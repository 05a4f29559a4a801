"""The life of a book as a program: opens it, appends, publishes, closes; prints each acknowledged index and leaf.

Exit codes: 0 done, 3 the book said that it is unavailable, 74 a write or sync failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gatebook.audit.book import Book
from gatebook.audit.limits import BookLimits
from gatebook.audit.publish import Publisher
from gatebook.audit.writer import end_process
from gatebook.errors import BookFailedError, BookRefusedError, BookUnavailableError

ORIGIN = "gatebook.test/book"
LIMITS = BookLimits(segment_bytes=8_192, group_entries_max=64, group_bytes_max=4_000)


def live(data: Path) -> None:
    """Appends six groups and publishes thrice."""
    book = Book.open(data, origin=ORIGIN, limits=LIMITS)
    publisher = Publisher(book)
    for number in range(6):
        appended = book.append_group([b"%d of group %d" % (at, number) * 8 for at in range(3 + 6 * number)])
        for index, leaf in enumerate(appended.leaf_hashes, appended.first_index):
            sys.stdout.write(f"{index} {leaf.hex()}\n")
        sys.stdout.flush()
        if number % 2:
            publisher.publish_now()
    publisher.close()
    book.close()


if __name__ == "__main__":
    try:
        live(Path(sys.argv[1]))
    except BookFailedError:
        end_process()
    except (BookUnavailableError, BookRefusedError):
        sys.exit(3)
