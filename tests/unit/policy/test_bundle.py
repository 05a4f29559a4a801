"""Which files belong to a policy set, what their digest is, and how a revision lies on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from gatebook.config import Limits
from gatebook.errors import BookRefusedError, LimitExceededError, PolicySetRefusedError, RevisionNotFoundError
from gatebook.policy import bundle

FILES = {"model.conf": b"[matchers]\n", "policy.csv": b"p, ana, data1, read\n", "tests/first.yaml": b"tests: []\n"}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files below a folder."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_digest_follows_its_specification() -> None:
    """The digest is SHA-256 over a tag and length-prefixed paths and contents, sorted by path."""
    canonical = b"gatebook files v1\n"
    for path in ("a/b.csv", "z.yaml"):
        content = {"a/b.csv": b"one", "z.yaml": b""}[path]
        canonical += len(path).to_bytes(8, "big") + path.encode() + len(content).to_bytes(8, "big") + content

    assert hashlib.sha256(canonical).hexdigest() == bundle.digest({"z.yaml": b"", "a/b.csv": b"one"})


def test_digest_tells_path_from_content() -> None:
    """Moving a byte from a path to its content, or between files, changes the digest."""
    digests = {
        bundle.digest(files)
        for files in (
            {"ab": b"c"},
            {"a": b"bc"},
            {"a": b"b", "c": b""},
            {"a": b"", "b": b"c"},
            {"a": b"", "bc": b""},
            {},
        )
    }

    assert len(digests) == 6


def test_folder_gives_the_files_of_the_set(tmp_path: Path) -> None:
    """A folder is read to its policy files; notes, hidden files and the directory snapshot are left alone."""
    put(tmp_path, FILES)
    governed = {**FILES, "catalogue.yaml": b"", "policy/b.csv": b""}
    put(
        tmp_path,
        {**governed, "README.md": b"x", "NOTES.md": b"x", ".git/policy.csv": b"x", "directory/people.csv": b"x"},
    )

    assert governed == bundle.read_folder(tmp_path)
    assert ["NOTES.md"] == [finding.file for finding in bundle.ignored_files(tmp_path)]
    assert tmp_path / "directory" == bundle.directory_beside(tmp_path)


def test_folder_of_a_plain_set_gives_its_known_entities_too(tmp_path: Path) -> None:
    """Without a catalogue, `directory/` and `resources/` are part of the set, and of its digest."""
    entities = {"directory/users.jsonl": b"{}", "resources/records.jsonl": b"{}", "directory/more.csv": b""}
    put(tmp_path, {**FILES, **entities})

    files = bundle.read_folder(tmp_path)

    assert {**FILES, **entities} == files
    assert ["directory/more.csv"] == [finding.file for finding in bundle.check_names(files)]
    assert bundle.directory_beside(tmp_path) is None


def test_misspelt_file_is_taken_along_so_that_loading_refuses_it(tmp_path: Path) -> None:
    """A file that looks like a part of the set but is none does not vanish silently."""
    put(tmp_path, {**FILES, "guardrail.yaml": b""})

    files = bundle.read_folder(tmp_path)

    assert [("guardrail.yaml", "UNKNOWN_FILE")] == [(f.file, f.invariant) for f in bundle.check_names(files)]


@pytest.mark.parametrize("link", ["policy.csv", "policy", "tests/first.yaml"])
def test_links_are_refused(tmp_path: Path, link: str) -> None:
    """A link in place of a policy file or folder is refused, since its target can change unseen."""
    outside = put(tmp_path / "outside", {"target": b"p, mallory, data1, read\n"})
    folder = put(tmp_path / "set", {"model.conf": b""})
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(outside if link == "policy" else outside / "target")

    with pytest.raises(PolicySetRefusedError, match="is a link"):
        bundle.read_folder(folder)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    """A folder that does not exist is refused by name."""
    with pytest.raises(PolicySetRefusedError, match="no folder `absent`"):
        bundle.read_folder(tmp_path / "absent")


def test_limits_are_those_of_the_configuration() -> None:
    """The loader and the server agree on how large a policy set may be."""
    assert (Limits().policy_files_max, Limits().policy_bytes_max) == (bundle.FILES_MAX, bundle.BYTES_MAX)


def test_folder_with_too_many_files_is_refused(tmp_path: Path) -> None:
    """One file more than the limit is refused, before anything is parsed."""
    put(tmp_path, {f"policy/{number}.csv": b"" for number in range(bundle.FILES_MAX + 1)})

    with pytest.raises(LimitExceededError):
        bundle.read_folder(tmp_path)


def test_folder_with_too_many_bytes_is_refused(tmp_path: Path) -> None:
    """One byte more than the limit is refused."""
    put(tmp_path, {"policy.csv": bytes(bundle.BYTES_MAX), "model.conf": b"x"})

    with pytest.raises(LimitExceededError):
        bundle.read_folder(tmp_path)


def test_stored_revision_is_read_back(tmp_path: Path) -> None:
    """A revision is stored under its digest, storing it again changes nothing, and no other file stays behind."""
    digest = bundle.store_revision(tmp_path, FILES)

    assert bundle.digest(FILES) == digest == bundle.store_revision(tmp_path, FILES)
    assert FILES == bundle.read_revision(tmp_path, digest)
    assert [digest] == [entry.name for entry in tmp_path.iterdir()]


def test_damaged_revision_is_refused(tmp_path: Path) -> None:
    """A revision with a changed, missing or added file is not read."""
    digest = bundle.store_revision(tmp_path, FILES)
    for change in (
        lambda: (tmp_path / digest / "policy.csv").write_bytes(b"p, mallory, data1, read\n"),
        (tmp_path / digest / "policy.csv").unlink,
        lambda: put(tmp_path / digest, {"policy.csv": FILES["policy.csv"], "policy/more.csv": b""}),
    ):
        change()
        with pytest.raises(BookRefusedError, match="damaged"):
            bundle.read_revision(tmp_path, digest)


@pytest.mark.parametrize("name", ["", ".", "..", "0" * 64, "../" + "0" * 61])
def test_unknown_revision_is_not_found(tmp_path: Path, name: str) -> None:
    """A digest under which nothing is stored, or that is no digest, is not found."""
    with pytest.raises(RevisionNotFoundError):
        bundle.read_revision(tmp_path, name)


@pytest.mark.parametrize(
    "path", ["../policy.csv", "/policy.csv", "policy/../../x.csv", "a//b.csv", ".x.csv", "a\\b.csv", ""]
)
def test_unsafe_path_is_not_stored(tmp_path: Path, path: str) -> None:
    """No path leads out of the folder of a revision."""
    with pytest.raises(PolicySetRefusedError, match="not safe"):
        bundle.store_revision(tmp_path, {path: b""})


def test_interrupted_store_leaves_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails there is no revision, whole or in part."""

    def fail(_: Path) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(bundle, "_sync", fail)
    with pytest.raises(OSError, match="no space left"):
        bundle.store_revision(tmp_path, FILES)

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 1, bundle.SYNC_BYTES, 3 * bundle.SYNC_BYTES + 1])
def test_much_is_synced_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """No sync has more to write than its share, all is synced in the end, and what is read is what was written."""
    content = os.urandom(size)
    synced: list[int] = []
    for name in ("fdatasync", "fsync"):
        sync = getattr(os, name)

        def told(descriptor: int, sync: Callable[[int], None] = sync) -> None:
            synced.append(os.fstat(descriptor).st_size)
            sync(descriptor)

        monkeypatch.setattr(os, name, told)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        bundle.write_durably(file, content)

    assert synced[-1] == size
    assert max(after - before for before, after in pairwise([0, *synced])) <= bundle.SYNC_BYTES
    assert (tmp_path / "file").read_bytes() == content
