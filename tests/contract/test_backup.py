"""`gatebook backup` and `gatebook restore`: nothing acknowledged is lost, nothing forged comes back, no book forks."""

from __future__ import annotations

import base64
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.backups import backup, leaves, members, repacked, restore, write_tar
from tests.contract.test_life import BASIC, Load
from tests.serving import RunningServer, gatebook, serving

from gatebook.v1 import entry_pb2
from gatebook_client import connect_blocking

ORIGIN = "gatebook.test/backup"
SECRETS = ("book.key", "people.key", "mask.key", "directory.key")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with some hundreds of entries, still running."""
    with serving(tmp_path_factory.mktemp("original") / "data", [BASIC], "--origin", ORIGIN) as server:
        ask(server, 400)
        yield server


@pytest.fixture(scope="module")
def archive(original: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of that server as one file."""
    target = tmp_path_factory.mktemp("archive") / "monday.tar"
    published(original)
    backup(original.data, target)
    return target


def ask(server: RunningServer, count: int) -> list[tuple[int, str]]:
    """Asks so many questions; returns index and leaf hash of each receipt."""
    with connect_blocking(server.target) as client:
        receipts = [client.check("alice", "read", "report:weekly").raw.receipt for _ in range(count)]
    return [(receipt.index, receipt.leaf_hash.hex()) for receipt in receipts]


def wait_for(load: Load, count: int) -> None:
    """Waits until callers hold so many receipts, a minute at most."""
    for _ in range(6_000):
        if len(load.receipts) >= count:
            return
        threading.Event().wait(0.01)
    pytest.fail(f"only {len(load.receipts)} answers came: {load.codes}")


def refused(done: Any, data: Path) -> str:  # noqa: ANN401  # a finished process
    """Requires that a restore was refused and left nothing; returns what it said."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert not data.exists() or not any(data.iterdir())
    return str(done.stderr)


@pytest.mark.parametrize("form", ["folder", "archive.tar"])
def test_a_backup_under_load_holds_what_was_acknowledged(tmp_path: Path, form: str) -> None:
    """Every entry acknowledged before the command began is in the backup, at its index, while callers go on asking."""
    with serving(tmp_path / "data", [BASIC]) as server:
        load = Load(server, 4)
        taken, known = [], []
        for number in range(3):
            wait_for(load, len(load.receipts) + 50)
            known.append([(receipt.index, receipt.leaf_hash.hex()) for receipt in load.receipts])
            taken.append(backup(server.data, tmp_path / f"{number}-{form}"))
        load.stop()

    for number, acknowledged in enumerate(known):
        data = tmp_path / f"restored-{number}"
        restored = restore(tmp_path / f"{number}-{form}", data, "--continue", "--no-erasures", "--json")
        assert restored.returncode == 0, restored.stderr
        assert taken[number]["size"] == json.loads(restored.stdout)["size"]
        found = leaves(data / "book")
        assert acknowledged == [(index, found[index]) for index, _ in acknowledged]
    assert [each["left_out"] for each in taken] == [[], [], []]


def test_what_a_killed_server_acknowledged_is_in_a_backup(tmp_path: Path) -> None:
    """A backup of what a SIGKILL left holds what was acknowledged and not yet published."""
    server = RunningServer(tmp_path / "data", "--policies", str(BASIC))
    acknowledged = ask(server, 30)
    server.kill()

    taken = backup(tmp_path / "data", tmp_path / "b")
    assert 0 == restore(tmp_path / "b", tmp_path / "restored", "--continue", "--no-erasures").returncode

    assert taken["size"] == acknowledged[-1][0] + 1
    found = leaves(tmp_path / "restored" / "book")
    assert acknowledged == [(index, found[index]) for index, _ in acknowledged]


def test_a_restored_book_goes_on(original: RunningServer, archive: Path, tmp_path: Path) -> None:
    """It says that it was restored, continues at the next index under the same key, and serves what was active."""
    data = tmp_path / "restored"
    told = restore(archive, data, "--continue", "--no-erasures", "--json")
    size = json.loads(told.stdout)["size"]
    with serving(data) as server, connect_blocking(server.target) as client:
        assert client.check("alice", "read", "report:weekly").allowed
        events = [client.entry(size + at).entry.system for at in range(2)]

    assert (entry_pb2.SYSTEM_EVENT_RESTORED, size) == (events[0].event, events[0].recovered_size)
    assert entry_pb2.SYSTEM_EVENT_STARTED == events[1].event
    seen = tmp_path / "seen.checkpoint"
    seen.write_bytes(members(archive)["book/checkpoint"])
    vkey = str(original.data / "book" / "vkey")
    assert 0 == gatebook("audit", "verify", str(data), "--vkey", vkey, "--checkpoint", str(seen)).returncode


def test_a_restored_book_is_not_served_until_it_is_released(archive: Path, tmp_path: Path) -> None:
    """Nobody serves it by accident beside the original; it can be verified, and released once."""
    data = tmp_path / "restored"
    assert 0 == restore(archive, data).returncode

    held = gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0")
    assert (1, True) == (held.returncode, "signs a second history" in held.stderr)
    assert 1 == gatebook("backup", str(tmp_path / "b"), "--data", str(data)).returncode
    vkey = str(data / "book" / "vkey")
    assert 0 == gatebook("audit", "verify", str(data), "--vkey", vkey).returncode

    assert 0 == gatebook("restore", "--continue", "--no-erasures", "--data", str(data)).returncode
    assert 2 == gatebook("restore", "--continue", "--no-erasures", "--data", str(data)).returncode
    with serving(data) as server:
        assert 1 == len(ask(server, 1))


def test_a_mark_that_cannot_be_read_holds(archive: Path, tmp_path: Path) -> None:
    """A damaged mark is no release."""
    data = tmp_path / "restored"
    restore(archive, data)
    (data / "restored.json").write_text("{")

    assert 1 == gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0").returncode


def test_a_backup_older_than_what_is_remembered_is_refused(
    original: RunningServer, archive: Path, tmp_path: Path
) -> None:
    """Who kept a newer checkpoint learns that entries are missing, and from which index on."""
    backup(original.data, tmp_path / "older")
    size = int(members(archive)["backup"].splitlines()[2])
    ask(original, 5)
    newer = tmp_path / "newer.checkpoint"
    newer.write_bytes(published(original))

    said = refused(restore(archive, tmp_path / "data", "--checkpoint", str(newer)), tmp_path / "data")
    assert f"the backup ends at {size}, but a checkpoint of size" in said
    assert f"first bad index: {size})" in said


def published(server: RunningServer) -> bytes:
    """Returns a checkpoint that covers all that was acknowledged."""
    assert gatebook("audit", "list", "--limit", "1", "--target", server.target).returncode == 0
    return (server.data / "book" / "checkpoint").read_bytes()


def test_a_fork_is_seen_by_who_kept_a_checkpoint(original: RunningServer, tmp_path: Path) -> None:
    """When original and restored book both go on, a checkpoint of the one convicts the other."""
    size = backup(original.data, tmp_path / "b")["size"]
    assert 0 == restore(tmp_path / "b", tmp_path / "data", "--continue", "--no-erasures").returncode
    ask(original, 3)
    seen = tmp_path / "seen.checkpoint"
    seen.write_bytes(published(original))
    with serving(tmp_path / "data") as second:
        ask(second, 20)

    vkey = str(original.data / "book" / "vkey")
    done = gatebook("audit", "verify", str(tmp_path / "data"), "--vkey", vkey, "--checkpoint", str(seen))
    assert 1 == done.returncode
    assert "are not those that were signed at size" in done.stderr
    assert size < int(seen.read_text().splitlines()[1])


def test_without_keys_it_is_verified_and_not_served(original: RunningServer, tmp_path: Path) -> None:
    """The copy of the book alone holds no secret, and cannot become a service."""
    target = tmp_path / "public"
    done = gatebook("backup", str(target), "--data", str(original.data), "--without-keys")
    assert (0, "") == (done.returncode, done.stderr)

    names = {path.relative_to(target).parts[0] for path in target.rglob("*")}
    assert {"backup", "files", "book", "wal"} == names
    vkey = str(original.data / "book" / "vkey")
    assert 0 == gatebook("audit", "verify", str(target), "--vkey", vkey).returncode
    assert "the backup has no keys" in refused(restore(target, tmp_path / "data"), tmp_path / "data")


def test_a_backup_with_keys_is_closed_and_loud(original: RunningServer, archive: Path, tmp_path: Path) -> None:
    """Only the owner reads it, and the command says what it holds."""
    done = gatebook("backup", str(tmp_path / "b"), "--data", str(original.data))

    assert "CONTAINS THE SECRET KEYS" in done.stderr
    assert 0o600 == archive.stat().st_mode & 0o777
    assert 0o700 == (tmp_path / "b").stat().st_mode & 0o777
    assert {0o600} == {path.stat().st_mode & 0o777 for path in (tmp_path / "b" / "keys").iterdir()}
    assert {f"keys/{name}" for name in SECRETS} <= members(archive).keys()


def test_the_list_is_one_that_sha256sum_reads(original: RunningServer, tmp_path: Path) -> None:
    """Another program checks the files that no checkpoint covers."""
    backup(original.data, tmp_path / "b")
    subprocess.run(["sha256sum", "--check", "--strict", "files"], cwd=tmp_path / "b", check=True, capture_output=True)


def test_what_is_unknown_in_a_data_directory_is_said(original: RunningServer, tmp_path: Path) -> None:
    """A file that this version does not know is not copied in silence."""
    stray = original.data / "notes.txt"
    stray.write_text("mine")
    try:
        done = gatebook("backup", str(tmp_path / "b"), "--data", str(original.data))
    finally:
        stray.unlink()

    assert "`notes.txt` in the data directory is unknown" in done.stderr


def test_nothing_is_overwritten(original: RunningServer, archive: Path, tmp_path: Path) -> None:
    """A backup never replaces a file, and a restore never enters a directory that holds one."""
    data = str(original.data)
    kept = archive.read_bytes()
    assert 2 == gatebook("backup", str(archive), "--data", data).returncode
    assert kept == archive.read_bytes()
    assert 2 == gatebook("backup", str(original.data / "b"), "--data", data).returncode
    assert 2 == gatebook("backup", str(tmp_path / "b"), "--data", str(tmp_path)).returncode
    assert 2 == gatebook("restore", str(archive), "--data", data).returncode
    assert 2 == gatebook("restore", "--data", str(tmp_path / "new")).returncode
    assert not (tmp_path / "new").exists()


def test_a_volume_that_has_lost_found_is_empty(archive: Path, tmp_path: Path) -> None:
    """A fresh file system is restored into, mount point and all."""
    (tmp_path / "volume" / "lost+found").mkdir(parents=True)

    assert 0 == restore(archive, tmp_path / "volume").returncode


def flip(content: bytes, at: int = -1) -> bytes:
    """Flips a bit."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("book/tile/entries/000", "first bad index: 255)"),
        ("book/tile/0/000", "first bad index: 255)"),
        ("book/checkpoint", "NOT VERIFIED"),
        ("book/vkey", "NOT VERIFIED"),
        ("people.db", "`people.db` in the backup is not what was backed up"),
        ("keys/mask.key", "`keys/mask.key` in the backup is not what was backed up"),
        ("wal/0000000000000001.wal", "is not what was backed up"),
        ("files", "is not the list that `backup` names"),
        ("backup", "NOT VERIFIED"),
    ],
)
def test_a_changed_byte_is_refused(archive: Path, tmp_path: Path, name: str, said: str) -> None:
    """Whatever is changed in a backup, it is refused, an entry with its index."""

    def change(found: dict[str, bytes]) -> None:
        found[name] = flip(found[name], -3 if name in {"backup", "book/checkpoint"} else -1)

    told = refused(restore(repacked(archive, tmp_path / "t.tar", change), tmp_path / "data"), tmp_path / "data")
    assert said in told


@pytest.mark.parametrize(
    "name", ["people.db", "book/tile/entries/000", "checkpoints.db", "keys/book.key", "files", "backup"]
)
def test_a_missing_file_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    """A backup of which a file is gone is no backup."""

    def change(found: dict[str, bytes]) -> None:
        del found[name]

    assert refused(restore(repacked(archive, tmp_path / "t.tar", change), tmp_path / "data"), tmp_path / "data")


def test_a_list_made_anew_is_not_signed(archive: Path, tmp_path: Path) -> None:
    """Who changes a file and the lists that name it cannot sign them."""

    def change(found: dict[str, bytes]) -> None:
        old = sha256(found["people.db"]).hexdigest().encode()
        found["people.db"] = flip(found["people.db"])
        listed = found["files"].replace(old, sha256(found["people.db"]).hexdigest().encode())
        stated = sha256(found["files"]).hexdigest().encode()
        found["backup"] = found["backup"].replace(stated, sha256(listed).hexdigest().encode())
        found["files"] = listed

    told = refused(restore(repacked(archive, tmp_path / "t.tar", change), tmp_path / "data"), tmp_path / "data")
    assert "a signature is not that of" in told


def test_another_book_is_refused_where_the_key_is_known(archive: Path, tmp_path: Path) -> None:
    """With the verifier key from elsewhere, a backup of a forger's own book does not pass."""
    with serving(tmp_path / "forged", [BASIC], "--origin", ORIGIN):
        pass
    key = (tmp_path / "forged" / "book" / "vkey").read_text().strip()

    assert refused(restore(archive, tmp_path / "data", "--vkey", key), tmp_path / "data")


def odd_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Returns a member that no backup has."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


HOSTILE = {
    "parent_folder": (odd_member("../escaped"), b"x"),
    "parent_folder_within": (odd_member("book/../../escaped"), b"x"),
    "absolute_path": (odd_member("/tmp/gatebook-escaped"), b"x"),  # noqa: S108  # never made
    "tile_that_climbs": (odd_member("book/tile/0/../../../../escaped"), b"x"),
    "symbolic_link": (odd_member("book/tile/0/x001", tarfile.SYMTYPE, "/etc"), b""),
    "hard_link": (odd_member("keys/x", tarfile.LNKTYPE, "backup"), b""),
    "device": (odd_member("book/null", tarfile.CHRTYPE), b""),
    "fifo": (odd_member("book/fifo", tarfile.FIFOTYPE), b""),
    "folder": (odd_member("book", tarfile.DIRTYPE), b""),
    "unlisted_file": (odd_member("revisions/extra"), b"x"),
    "unlisted_key": (odd_member("keys/other.key"), b"x"),
    "restore_mark": (odd_member("restored.json"), b"{}"),
    "empty_name": (odd_member(""), b"x"),
    "superfluous_tile": (odd_member("book/tile/0/077"), b"x" * 8192),
    "twice": (odd_member("people.db"), b"x"),
    "long_name": (odd_member("book/" + "x" * 300), b"x"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_member_is_refused(archive: Path, tmp_path: Path, attack: str) -> None:
    """Nothing is made outside the directory, and nothing that is not of the backup."""
    member, content = HOSTILE[attack]
    found = [(tarfile.TarInfo(name), held) for name, held in members(archive).items()]
    bad = write_tar(tmp_path / "t.tar", [*found, (member, content)], format=tarfile.GNU_FORMAT)
    before = sorted(tmp_path.parent.iterdir())

    refused(restore(bad, tmp_path / "in" / "data"), tmp_path / "in" / "data")
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "in" / "escaped").exists()
    assert before == sorted(tmp_path.parent.iterdir())


def test_a_pax_header_is_refused(archive: Path, tmp_path: Path) -> None:
    """The extensions of tar, which rename and resize members, do not count."""
    found = [(tarfile.TarInfo(name), held) for name, held in members(archive).items()]
    found[-1][0].pax_headers = {"path": "../escaped"}
    bad = write_tar(tmp_path / "t.tar", found, format=tarfile.PAX_FORMAT)

    assert "is no plain file" in refused(restore(bad, tmp_path / "data"), tmp_path / "data")


def test_a_link_in_a_folder_is_refused(original: RunningServer, tmp_path: Path) -> None:
    """A backup that is a folder may not lead out of itself either."""
    backup(original.data, tmp_path / "b")
    (tmp_path / "b" / "people.db").unlink()
    (tmp_path / "b" / "people.db").symlink_to(original.data / "people.db")

    assert "is no plain file" in refused(restore(tmp_path / "b", tmp_path / "data"), tmp_path / "data")


def test_a_truncated_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    """Wherever an archive is cut, or something follows it, it is refused."""
    whole = archive.read_bytes()
    cuts = [0, 1, 511, 512, 600, len(whole) // 2, len(whole) - 1_025, len(whole) - 512, len(whole) - 1]
    for cut, content in [*((at, whole[:at]) for at in cuts), (-1, whole + b"x"), (-2, whole + bytes(20_000))]:
        (tmp_path / "cut.tar").write_bytes(content)
        assert refused(restore(tmp_path / "cut.tar", tmp_path / "data"), tmp_path / "data"), cut


def test_a_member_that_claims_to_be_huge_is_refused(archive: Path, tmp_path: Path) -> None:
    """A header may say what it likes: no more is written than the archive holds."""
    member = tarfile.TarInfo("book/tile/0/000")
    member.size = (8 << 30) - 1
    whole = archive.read_bytes().rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    (tmp_path / "t.tar").write_bytes(whole + member.tobuf(tarfile.USTAR_FORMAT))

    assert refused(restore(tmp_path / "t.tar", tmp_path / "data"), tmp_path / "data")


def test_rot_in_the_data_directory_is_no_backup(original: RunningServer, tmp_path: Path) -> None:
    """What is rotten where it lies is named, and not copied as if it were whole."""
    data = tmp_path / "rotten"
    original_copy = tmp_path / "b"
    backup(original.data, original_copy)
    restore(original_copy, data, "--continue", "--no-erasures")
    bundle = data / "book" / "tile" / "entries" / "000"
    bundle.write_bytes(flip(bundle.read_bytes()))

    done = gatebook("backup", str(tmp_path / "again"), "--data", str(data), "--json")
    assert 1 == done.returncode, done.stderr
    assert 255 == json.loads(done.stdout)["first_bad_index"]
    assert not (tmp_path / "again").exists()
    assert [] == [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_answer_in_json_is_one(archive: Path, tmp_path: Path) -> None:
    """Programs read the size, the root and whether it is released; a refusal names the index."""
    told = json.loads(restore(archive, tmp_path / "data", "--json").stdout)
    assert {"restored": True, "released": False, "origin": ORIGIN} == {
        name: told[name] for name in ("restored", "released", "origin")
    }
    assert 32 == len(base64.b64decode(told["root"]))

    def change(found: dict[str, bytes]) -> None:
        found["book/tile/entries/000"] = flip(found["book/tile/entries/000"])

    bad = restore(repacked(archive, tmp_path / "t.tar", change), tmp_path / "data2", "--json")
    assert {"verified": False, "first_bad_index": 255} == {
        name: json.loads(bad.stdout)[name] for name in ("verified", "first_bad_index")
    }


def test_health_says_whether_a_server_serves(original: RunningServer) -> None:
    """The command exits 0 where a server serves, 3 where none answers, 2 for what is no service of it."""
    serves = gatebook("health", "--target", original.target, "--json")
    assert (0, {"status": "SERVING"}) == (serves.returncode, json.loads(serves.stdout))
    named = gatebook("health", "--target", original.target, "--service", "gatebook.v1.AccessService")
    assert (0, "SERVING\n") == (named.returncode, named.stdout)
    assert 3 == gatebook("health", "--target", "127.0.0.1:1").returncode
    assert gatebook("health", "--target", original.target, "--service", "gatebook.v1.None").returncode in {1, 2}
