"""The mark on a data directory that a backup was restored to, and that nobody has released yet.

Owns `<data>/restored.json`. As long as it is there the book is not served: if the original went on after the
backup was made, then going on with the restored one would sign a second history under the same origin.
The mark is the first thing that a restore writes and the last that a release removes, so that a killed one of
either leaves a directory that is not served. A mark that cannot be read holds, too.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from gatebook.audit.files import Files
from gatebook.errors import BookRefusedError

HOLD_FILE = "restored.json"
ROTATION_FILE = "rotation.json"
"""Is there from before the first until after the last step of closing a book; see `rotation`."""
_BYTES_MAX = 65_536


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What was restored, and how far the restore came."""

    complete: bool
    """Whether every byte is in place and verified."""
    origin: str
    size: int
    """The number of entries that the backup holds."""
    backup_time: str


def read_hold(data: Path) -> Hold | None:
    """Returns the mark of a data directory, or None where there is none.

    Raises:
        BookRefusedError: it cannot be read.
    """
    path = data / HOLD_FILE
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_BYTES_MAX), type=Hold)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as err:
        raise BookRefusedError(f"`{path}` cannot be read: restore the backup again into an empty directory") from err


def write_hold(data: Path, hold: Hold, files: Files) -> None:
    """Marks a data directory, durably.

    Raises:
        OSError: it could not be written.
    """
    files.replace_content(data / HOLD_FILE, msgspec.json.encode(hold), data / f"{HOLD_FILE}.new", 0o600)
    files.sync_directory(data)


def remove_hold(data: Path, files: Files) -> None:
    """Lets the book be served.

    Raises:
        OSError: it could not be removed.
    """
    files.remove(data / HOLD_FILE)
    files.sync_directory(data)


def require_released(data: Path) -> None:
    """Refuses a data directory that a backup was restored to and that nobody released, or whose book is being closed.

    Raises:
        BookRefusedError: it is marked.
    """
    if (data / ROTATION_FILE).exists():
        raise BookRefusedError(
            f"a rotation of keys of `{data}` did not end: run `gatebook keys rotate --data {data}` again, which ends it"
        )
    hold = read_hold(data)
    if hold is None:
        return
    if not hold.complete:
        raise BookRefusedError(f"a restore into `{data}` did not end: empty the directory and restore the backup again")
    raise BookRefusedError(
        f"`{data}` holds a restored book of {hold.size} entries: if the original went on, going on with this one "
        f"signs a second history. Once the original is gone for good run `gatebook restore --continue --data {data}`"
    )
