"""What the commands remember of books: the newest checkpoint that they verified of each, and which witnesses count.

Owns trust on first use: a file for each verifier key, in the folder for state or where `--remember` says. What does not
continue it is refused, with both signed checkpoints, and what is remembered stays.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from gatebook.audit.keyfile import sync_directory
from gatebook.config import state_home
from gatebook.errors import InvalidRequestError, VerificationError
from gatebook.tlog.checkpoint import parse_checkpoint
from gatebook.tlog.cosignature import WitnessKey
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.note import NOTE_BYTES_MAX, parse_note
from gatebook.tlog.policy import POLICY_BYTES_MAX, WitnessPolicy, any_of, parse_policy

F = TypeVar("F", bound=Callable[..., object])
A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Memory(msgspec.Struct, frozen=True):
    """Where the newest checkpoint of a book is remembered, if at all; `asked` says that somebody named the file."""

    path: Path | None
    asked: bool

    def notes(self) -> list[bytes]:
        """Returns the checkpoint that is remembered, if there is one.

        Raises:
            InvalidRequestError: the file is damaged, so that nobody knows what was remembered.
            OSError: it cannot be read; a link that leads nowhere is none that was never there.
        """
        if self.path is None or not (self.path.exists() or self.path.is_symlink()):
            return []
        with self.path.open("rb") as file:
            note = file.read(NOTE_BYTES_MAX + 1)
        try:
            _size(note)
        except VerificationError as error:
            what = f"`{self.path}` remembers no checkpoint ({error.message}), and it did"
            raise InvalidRequestError("remember", f"{what}: restore it, or delete it to begin anew") from error
        return [note]

    def put(self, note: bytes, compared: Sequence[bytes]) -> str:
        """Puts a checkpoint in place of the one it was compared with, whole or not at all; returns a warning, if any.

        Another command may have remembered a newer one meanwhile, which stays.

        Raises:
            VerificationError: another command has remembered one that this was not compared with.
            OSError: it cannot be written, in a file that somebody named.
        """
        if self.path is None:
            return ""
        try:
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            path = self.path.resolve()  # where a link leads, the file is replaced
            with written_beside(path, note) as temporary:
                meanwhile = [kept for kept in self.notes() if kept not in compared]
                if any(_size(kept) > _size(note) for kept in meanwhile):
                    return ""
                if any(_text(kept) != _text(note) for kept in meanwhile):
                    raise VerificationError("another command has remembered another checkpoint meanwhile: do it again")
                temporary.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            if self.asked:
                raise
            return f"the checkpoint is not remembered, so that next time no older copy shows: {error.strerror}"
        return ""


@contextmanager
def written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Gives a new file with this content, durable, beside a path; where it is not put in place it goes."""
    descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f"{path.name}.", suffix=".new")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _text(note: bytes) -> str:
    return parse_note(note).text


def _size(note: bytes) -> int:
    return parse_checkpoint(_text(note)).size


def memory_of(key: VerifierKey, remember: Path | None, *, forget: bool) -> Memory:
    """Returns where the checkpoint of the book with this key is remembered."""
    if forget:
        return Memory(None, asked=False)
    name = hashlib.sha256(str(key).encode()).hexdigest()[:32]
    return Memory(remember or state_home() / "checkpoints" / name, asked=remember is not None)


def memory_options(function: F) -> F:
    """Adds `--remember` and `--no-remember` to a command."""
    remember = click.option(
        "--remember",
        "--checkpoint",
        "remember",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Remember the newest checkpoint in this file, and refuse what does not continue it; "
        "else in the folder for state.",
    )
    forget = click.option(
        "--no-remember", "forget", is_flag=True, help="Remember nothing, and compare with nothing: for old copies."
    )
    return remember(forget(function))


def witness_options(function: F) -> F:
    """Adds the options that say which witnesses count to a command."""
    keys = click.option(
        "--witness",
        "witness_keys",
        multiple=True,
        metavar="KEY|FILE",
        help="The key of a witness that must have cosigned; may be repeated.",
    )
    needed = click.option(
        "--witnesses-needed", type=click.IntRange(min=0), help="How many of them must have; else all of them."
    )
    policy = click.option(
        "--witness-policy", type=A_FILE, help="A file in the form of C2SP tlog-policy that says so instead."
    )
    return keys(needed(policy(function)))


def policy_of(
    key: VerifierKey, witness_keys: Sequence[str], needed: int | None, path: Path | None
) -> WitnessPolicy | None:
    """Returns which witnesses must have cosigned the checkpoints of the book with this key; None for nobody.

    Raises:
        VerificationError: a key or the file is malformed, or the file is about other books.
        OSError: a file cannot be read.
    """
    if path is not None:
        if witness_keys or needed is not None:
            raise VerificationError("--witness-policy says all: leave out --witness and --witnesses-needed")
        with path.open("rb") as file:
            policy = parse_policy(file.read(POLICY_BYTES_MAX + 1))
        if policy.logs and key not in policy.logs:
            raise VerificationError(f"`{path}` is about other books than `{key.name}`")
        return policy.require_apart(key)
    if not witness_keys:
        if needed:
            raise VerificationError("--witnesses-needed: name them with --witness")
        return None
    return any_of([WitnessKey.parse(read_key_text(text)) for text in witness_keys], needed).require_apart(key)


def read_key_text(stated: str) -> str:
    """Returns a key itself, which holds a `+` and is no path, or that in a file.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(stated)
    return path.read_text(encoding="utf-8") if "+" not in stated or path.is_file() else stated
