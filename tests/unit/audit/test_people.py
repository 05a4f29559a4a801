"""The store of people: durable, unreadable without its key, and no place for strangers to fill."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gatebook.audit.people import STRANGER, People, PersonId
from gatebook.errors import BookRefusedError

FARAH = PersonId("user", "farah.haddad@example.org")
BOT = PersonId("agent", "farah.haddad@example.org")


def test_a_person_keeps_pseudonym_and_key(tmp_path: Path) -> None:
    """A person found again after a restart is the same person."""
    people = People.open(tmp_path)
    before = people.ensure([FARAH])[FARAH]
    people.close()

    after = People.open(tmp_path).ensure([FARAH])[FARAH]

    assert (before.pseudonym, before.key) == (after.pseudonym, after.key)


def test_type_and_id_make_a_person(tmp_path: Path) -> None:
    """Two people with one id and two types are two, and a search by id finds both."""
    people = People.open(tmp_path)
    found = people.ensure([FARAH, BOT])

    assert found[FARAH].pseudonym != found[BOT].pseudonym
    assert {p.pseudonym for p in people.find(FARAH.id)} == {p.pseudonym for p in found.values()}


@pytest.mark.parametrize(("one", "other"), [(("a", "bc"), ("ab", "c")), (("", "x"), ("x", "x"))])
def test_types_and_ids_do_not_run_together(tmp_path: Path, one: tuple[str, str], other: tuple[str, str]) -> None:
    """The look-up separates type from id."""
    people = People.open(tmp_path)
    found = people.ensure([PersonId(*one), PersonId(*other)])

    assert len({p.pseudonym for p in found.values()}) == 2


def test_a_pseudonym_leads_back_to_the_id(tmp_path: Path) -> None:
    """Who is behind a pseudonym is known while the key exists, and for no other pseudonym."""
    people = People.open(tmp_path)
    farah = people.ensure([FARAH])[FARAH]

    assert people.identify(farah.pseudonym) == FARAH
    assert people.identify(bytes(16)) is None
    assert people.by_pseudonym(bytes(16)) is None


def test_no_id_stands_in_the_files(tmp_path: Path) -> None:
    """Neither type nor id of a person can be read from the files of the store, or guessed by hashing."""
    people = People.open(tmp_path)
    people.ensure([FARAH, PersonId("employee_of_the_month", "ana.silva@example.org")])

    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert [name for name in (b"farah", b"haddad", b"ana.silva", b"employee_of") if name in content] == []


def test_a_forgotten_cache_changes_nothing(tmp_path: Path) -> None:
    """With room for two in the cache, two hundred people are found again as they were."""
    people = People.open(tmp_path, cached_max=2)
    ids = [PersonId("user", f"u{i}") for i in range(200)]
    before = {i: people.ensure([i])[i].pseudonym for i in ids}

    assert people.cached(ids) is None
    assert {i: p.pseudonym for i, p in people.ensure(ids).items()} == before


def test_keys_are_for_the_owner_alone(tmp_path: Path) -> None:
    """The master key and the store are created for their owner alone."""
    People.open(tmp_path)

    modes = {stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("keys/people.key", "people.db")}

    assert modes == {0o600}


def test_a_key_readable_by_others_is_refused(tmp_path: Path) -> None:
    """A master key that others may read does not open the store."""
    People.open(tmp_path).close()
    (tmp_path / "keys/people.key").chmod(0o640)

    with pytest.raises(BookRefusedError, match="chmod 600"):
        People.open(tmp_path)


@pytest.mark.parametrize("read_only", [False, True])
def test_another_key_is_refused(tmp_path: Path, *, read_only: bool) -> None:
    """The store does not open under another master key, and nobody is added to it."""
    People.open(tmp_path).close()
    (tmp_path / "keys/people.key").write_bytes(bytes(32))

    with pytest.raises(BookRefusedError, match="not that of"):
        People.open(tmp_path, read_only=read_only)


def test_a_missing_key_is_not_replaced(tmp_path: Path) -> None:
    """Where the store has lost its master key, the start is refused and no new key is made."""
    People.open(tmp_path).close()
    (tmp_path / "keys/people.key").unlink()

    with pytest.raises(BookRefusedError, match="cannot read the key"):
        People.open(tmp_path)
    assert not (tmp_path / "keys/people.key").exists()


def test_reading_only(tmp_path: Path) -> None:
    """A store opened for reading sees who was added by its writer, and creates nothing itself."""
    writer, reader = People.open(tmp_path), People.open(tmp_path, read_only=True)
    farah = writer.ensure([FARAH])[FARAH]

    assert reader.find(FARAH.id)[0].pseudonym == farah.pseudonym
    assert reader.stranger.pseudonym == writer.ensure([STRANGER])[STRANGER].pseudonym


def test_a_store_that_is_not_there_is_not_created_for_reading(tmp_path: Path) -> None:
    """Opening for reading where there is no store is refused and leaves no file."""
    with pytest.raises(BookRefusedError):
        People.open(tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    """A store that a newer Gatebook wrote is not touched."""
    people = People.open(tmp_path)
    people._connection.execute("PRAGMA user_version = 3")
    people.close()

    with pytest.raises(BookRefusedError, match="version 3"):
        People.open(tmp_path)


def test_a_person_does_not_show_its_key(tmp_path: Path) -> None:
    """The text form of a person has no key in it."""
    farah = People.open(tmp_path).ensure([FARAH])[FARAH]

    assert repr(farah) == f"Person({farah.pseudonym.hex()})"


def test_a_person_is_durable_before_use(tmp_path: Path) -> None:
    """The store syncs at each commit, and when `ensure` returns no commit is open."""
    people = People.open(tmp_path)
    people.ensure([FARAH])

    assert people._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert not people._connection.in_transaction
