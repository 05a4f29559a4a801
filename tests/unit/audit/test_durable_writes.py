"""Who may make a file durable, in which way: the list that tells the fault tests what to let fail."""

from __future__ import annotations

import ast
from pathlib import Path

import gatebook

SOURCE = Path(gatebook.__file__).parent
KEPT = ("audit", "witness", "backup", "revisions")
"""The parts that own files which must outlive a crash."""
CALLS = {
    "os.fsync",
    "os.fdatasync",
    "os.write",
    "os.pwrite",
    "os.rename",
    "os.replace",
    "os.link",
    "os.unlink",
    "os.ftruncate",
    "os.truncate",
    "os.posix_fallocate",
    "sqlite3.connect",
}
METHODS = {"write_bytes", "write_text", "unlink", "rmdir", "hardlink_to", "mkdir", "touch", "rmtree"}
WHY = {
    "audit/files.py": "the seam itself: every other durable write goes through it, and each of its calls fails in turn",
    "audit/checkpoints.py": "SQLite, synchronous EXTRA; clears what was no book yet",
    "audit/export.py": "an export, which a later one goes on with",
    "audit/index_file.py": "SQLite; derived, may be lost at any time",
    "audit/looking.py": "SQLite; reads the index",
    "audit/keyfile.py": "makes the folder of keys, and clears a temporary file",
    "audit/parquet.py": "an export, made under a temporary name",
    "audit/people.py": "SQLite, synchronous FULL",
    "audit/pruning.py": "removes folders that it emptied, and syncs the one above",
    "audit/recovery.py": "clears a temporary file",
    "audit/signer.py": "clears a temporary file",
    "audit/tile_writer.py": "makes folders that it syncs, removes empty ones",
    "audit/wal.py": "clears a temporary file",
    "backup/archive.py": "a backup, made under a temporary name",
    "backup/copying.py": "a backup, made under a temporary name; SQLite copies people",
    "backup/extraction.py": "a restore, which is held until it is whole",
    "backup/restore.py": "clears a restore that was refused; what is left is held",
    "backup/tail.py": "a backup, made under a temporary name",
    "backup/take.py": "a backup, made under a temporary name",
    "revisions/store.py": "clears what a kill left; a revision is synced, then named, then its folder is synced",
    "witness/state.py": "SQLite, synchronous EXTRA; clears a temporary file",
}


def writes(path: Path) -> set[str]:
    """Returns by which calls a module writes, syncs, names or removes files."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        owner, _, last = name.rpartition(".")
        if owner in {"self._files", "files"} or "structs" in owner:
            continue
        of_a_path = last in METHODS or (last in {"rename", "replace"} and len(node.args) == 1)  # of a text it takes two
        if name in CALLS or (owner and of_a_path):
            found.add(name)
    return found


def test_durable_writes_are_made_where_they_are_swept() -> None:
    """No module writes a file past the seam that the fault tests let fail, but those listed, each for its reason."""
    modules = [path for part in KEPT for path in sorted((SOURCE / part).rglob("*.py"))]
    found = {path.relative_to(SOURCE).as_posix(): calls for path in modules if (calls := writes(path))}

    assert {} == {name: calls for name, calls in found.items() if name not in WHY}
