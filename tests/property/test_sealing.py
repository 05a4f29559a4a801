"""Sealed parts open with the right keys, in the right book, as the right field, and not otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.audit_samples import ORIGIN

from gatebook.audit import sealing
from gatebook.audit.people import People, Person, PersonId
from gatebook.audit.random_pieces import RandomPieces
from gatebook.audit.sealing import open_sealed
from gatebook.errors import BookCorruptError
from gatebook.v1 import entry_pb2

REQUEST, ROW = entry_pb2.SEALED_FIELD_REQUEST, entry_pb2.SEALED_FIELD_ROW
PARTIES = st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """Provides a store of its own."""
    store = People.open(tmp_path_factory.mktemp("people"))
    yield store
    store.close()


def persons(people: People, numbers: list[int]) -> list[Person]:
    """Returns people by number."""
    ids = [PersonId("user", f"person {i}") for i in numbers]
    found = people.ensure(ids)
    return [found[i] for i in ids]


def seal(
    field: entry_pb2.SealedField.ValueType, origin: str, parties: list[Person], plaintext: bytes
) -> entry_pb2.Sealed:
    """Returns a sealed part, parsed."""
    return entry_pb2.Sealed.FromString(sealing.seal(field, origin, parties, plaintext))


@given(plaintext=st.binary(max_size=300), parties=PARTIES)
def test_round_trip(people: People, plaintext: bytes, parties: list[int]) -> None:
    """What is sealed for anyone, alone or together, opens as it was."""
    sealed = seal(REQUEST, ORIGIN, persons(people, parties), plaintext)

    assert open_sealed(sealed, ORIGIN, people) == plaintext


@given(parties=PARTIES, gone=st.integers(0, 3))
def test_it_opens_only_while_all_keys_exist(people: People, parties: list[int], gone: int) -> None:
    """With the row of any one person missing, it does not open, and that is no error."""
    sealed = seal(REQUEST, ORIGIN, persons(people, parties), b"secret")
    sealed.pseudonyms[gone % len(parties)] = os.urandom(16)

    assert open_sealed(sealed, ORIGIN, people) is None


@given(parties=st.lists(st.integers(0, 4), min_size=2, max_size=4, unique=True))
def test_keys_count_in_order(people: People, parties: list[int]) -> None:
    """The order of the people is part of the key."""
    sealed = seal(REQUEST, ORIGIN, persons(people, parties), b"secret")
    pseudonyms = list(reversed(sealed.pseudonyms))
    del sealed.pseudonyms[:]
    sealed.pseudonyms.extend(pseudonyms)

    with pytest.raises(BookCorruptError):
        open_sealed(sealed, ORIGIN, people)


@given(parties=PARTIES, position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(people: People, parties: list[int], position: int, bit: int) -> None:
    """No bit of the ciphertext or the nonce can change unnoticed."""
    sealed = seal(REQUEST, ORIGIN, persons(people, parties), b"secret")
    both = bytearray(sealed.nonce + sealed.ciphertext)
    both[position % len(both)] ^= 1 << bit
    sealed.nonce, sealed.ciphertext = bytes(both[:12]), bytes(both[12:])

    with pytest.raises(BookCorruptError):
        open_sealed(sealed, ORIGIN, people)


def test_another_book(people: People) -> None:
    """A part that was moved to another book does not open there."""
    sealed = seal(REQUEST, ORIGIN, persons(people, [1]), b"secret")

    with pytest.raises(BookCorruptError):
        open_sealed(sealed, ORIGIN + "2", people)


def test_another_field(people: People) -> None:
    """A request does not open as a row."""
    sealed = seal(REQUEST, ORIGIN, persons(people, [1]), b"secret")
    sealed.field = ROW

    with pytest.raises(BookCorruptError):
        open_sealed(sealed, ORIGIN, people)


def test_another_person(people: People) -> None:
    """A part that is said to be another person's does not open with that person's key."""
    sealed = seal(REQUEST, ORIGIN, persons(people, [1]), b"secret")
    sealed.pseudonyms[0] = persons(people, [2])[0].pseudonym

    with pytest.raises(BookCorruptError):
        open_sealed(sealed, ORIGIN, people)


def test_random_pieces_never_repeat_in_a_forked_child() -> None:
    """A forked child draws its own pieces, though its parent had some in hand."""
    pieces = RandomPieces(12)
    pieces.draw()
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(start, pieces.draw())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(end, 12) not in {pieces.draw() for _ in range(600)}
