"""Where revisions are kept: under their digests, immutable, checked whenever they are read.

Owns `<data>/revisions/<sha256>/` (policy sets, as plain files) and `<data>/directory/<sha256>` (directory
snapshots, which name people and are therefore encrypted at rest under `<data>/keys/directory.key`).
A revision is either whole and durable or absent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatebook.audit.files import Files
from gatebook.audit.keyfile import open_key, sync_directory
from gatebook.errors import BookRefusedError, BookUnavailableError, RevisionNotFoundError
from gatebook.policy import bundle

NONCE_BYTES = 12


class RevisionStore:
    """Keeps the files of revisions."""

    def __init__(self, data: Path, *, create: bool, read_only: bool = False) -> None:
        """Takes the data directory; with `create` its key is made where there is none.

        Clears away what a kill left unfinished, so one process alone may hold a store that is not `read_only`.
        """
        self._policies = data / "revisions"
        self._directories = data / "directory"
        for folder in (self._policies, self._directories):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in () if read_only else (*self._policies.glob(".*.new"), *self._directories.glob("*.new")):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        if not read_only:
            Files().settle(data, self._policies, self._directories)  # what a killed process stored counts from here on
        self._cipher = AESGCM(open_key(data / "keys" / "directory.key", create=create))

    def put_policy_set(self, files: Mapping[str, bytes]) -> str:
        """Stores a policy set durably and returns its digest.

        Raises:
            BookUnavailableError: it cannot be stored.
        """
        try:
            return bundle.store_revision(self._policies, files)
        except OSError as err:
            raise BookUnavailableError(f"the revision cannot be stored: {err.strerror}") from err

    def get_policy_set(self, digest: str) -> dict[str, bytes]:
        """Returns the files of a policy set.

        Raises:
            RevisionNotFoundError: there is none with this digest.
            BookRefusedError: its files are not what was stored.
        """
        return bundle.read_revision(self._policies, digest)

    def put_directory(self, files: Mapping[str, bytes]) -> str:
        """Stores a directory snapshot durably, encrypted, and returns its digest.

        Raises:
            BookUnavailableError: it cannot be stored.
            BookRefusedError: it is there already, damaged.
        """
        digest = bundle.digest(files)
        path = self._directories / digest
        if path.exists():
            self.get_directory(digest)
            sync_directory(self._directories)  # whoever stored it may not have come to that
            return digest
        try:
            self._write_directory(path, digest, files)
        except OSError as err:
            raise BookUnavailableError(f"the directory cannot be stored: {err.strerror}") from err
        return digest

    def _write_directory(self, path: Path, digest: str, files: Mapping[str, bytes]) -> None:
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(dict(files)), digest.encode())
        temporary = path.with_suffix(".new")
        with temporary.open("wb", buffering=0) as file:
            bundle.write_durably(file, sealed)
        temporary.rename(path)
        sync_directory(self._directories)

    def get_directory(self, digest: str) -> dict[str, bytes]:
        """Returns the files of a directory snapshot.

        Raises:
            RevisionNotFoundError: there is none with this digest.
            BookRefusedError: it is not what was stored.
        """
        try:
            sealed = (self._directories / digest).read_bytes()
        except FileNotFoundError as err:
            raise RevisionNotFoundError(f"no directory snapshot `{digest}`", digest=digest) from err
        try:
            opened = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], digest.encode())
            files = msgspec.msgpack.decode(opened, type=dict[str, bytes])
        except (InvalidTag, ValueError) as err:
            message = f"the directory snapshot `{digest}` or its key is damaged: restore both from one backup"
            raise BookRefusedError(message) from err
        if bundle.digest(files) != digest:
            raise BookRefusedError(f"the directory snapshot `{digest}` is damaged: restore it from a backup")
        return files
