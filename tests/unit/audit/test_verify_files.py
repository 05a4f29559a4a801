"""Which files a verification looks at that begins late in a long book."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.audit.verify_files import FileVerifier
from gatebook.errors import VerificationError

SIZE = 10_000_000
FIRST_INDEX = 9_900_032
"""In bundle 38,672 of 39,063."""


def put(book: Path, *names: str) -> Path:
    """Puts files into a book, which hold nothing that a tile holds."""
    for name in names:
        path = book / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"nothing that a tile holds")
    return book


BEFORE = (
    "tile/entries/007.p/9",
    "tile/entries/x001/000.p/7",
    "tile/entries/x038/671.p/255",
    "tile/0/x037/notes",
    "tile/0/x012/000.p/3",
    "tile/1/150.p/255",
)
AFTER = (
    "tile/entries/x038/672.p/1",
    "tile/entries/x039/062.p/127",
    "tile/entries/x039/notes",
    "tile/0/x038/notes",
    "tile/0/x038/673.p/255",
    "tile/1/151.p/255",
    "tile/2/000.p/151",
    "tile/x001/000",
    "tile/notes",
    "notes",
)


def test_files_before_what_is_read_are_not_looked_at(tmp_path: Path) -> None:
    """Of what lies before, whatever it is, nothing is read: whole folders are passed over by their names."""
    verifier = FileVerifier(put(tmp_path, *BEFORE), SIZE, FIRST_INDEX)

    assert (0, 0) == (verifier.verify(), verifier.files)


@pytest.mark.parametrize("name", AFTER)
def test_files_after_it_are(tmp_path: Path, name: str) -> None:
    """What lies beside or behind the first entry that is read must be a book's."""
    with pytest.raises(VerificationError):
        FileVerifier(put(tmp_path, *BEFORE, name), SIZE, FIRST_INDEX).verify()


@pytest.mark.parametrize("name", BEFORE)
def test_a_full_run_looks_at_all(tmp_path: Path, name: str) -> None:
    """Where all is read, none of these passes."""
    with pytest.raises(VerificationError):
        FileVerifier(put(tmp_path, name), SIZE).verify()
