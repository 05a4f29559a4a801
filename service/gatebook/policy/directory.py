"""The directory: who there is, with which attributes, in which groups.

Owns the snapshot of subjects that governed sets read. Rules:

1. a file is JSON lines (`{"type": ..., "id": ..., "attributes": {...}, "groups": [...]}`) or CSV
   (see `subject_files`); every file of the snapshot counts, none has precedence;
2. an id names one subject, of whatever type, and is never a role, tag, namespace or `*`, so that no
   node of a policy can be taken for another;
3. groups are roles; roles inherit roles by the `g` lines of a policy set, not here;
4. a snapshot with one finding is refused as a whole. It has a digest of its own, and is replaced
   without touching any policy set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

import msgspec

from gatebook.errors import DirectoryRefusedError
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.bundle import digest
from gatebook.policy.source import walk_lines
from gatebook.policy.subject_files import FINDINGS_MAX, Subject, read_csv, read_json_lines
from gatebook.values import Edge, Finding

__all__ = ["Directory", "Subject", "load_directory"]

SUBJECTS_MAX = 1_000_000

READERS: Final = {".csv": read_csv, ".jsonl": read_json_lines}


class Directory(msgspec.Struct, frozen=True):
    """An immutable snapshot of subjects. `digest` is that of its files (see `bundle.digest`)."""

    digest: str
    subjects: Mapping[str, Subject]

    @classmethod
    def empty(cls) -> Directory:
        """Returns the directory that knows nobody."""
        return cls(digest({}), {})

    def find(self, type_: str, id_: str) -> Subject | None:
        """Returns the subject of this id if it is of this type."""
        subject = self.subjects.get(id_)
        return subject if subject is not None and subject.type == type_ else None

    def edges(self) -> Iterator[Edge]:
        """Yields the g edges: each subject in its groups."""
        for subject in self.subjects.values():
            for group in subject.groups:
                yield Edge("g", subject.id, group, file=subject.file, line=subject.line)


def load_directory(files: Mapping[str, bytes], pause: Pause = no_pause) -> Directory:
    """Reads a directory snapshot from its files; `pause` is called after every few subjects.

    Raises:
        DirectoryRefusedError: there is a finding; it carries every one, sorted.
    """
    findings: list[Finding] = []
    subjects: dict[str, Subject] = {}
    for file in sorted(files):
        read = READERS.get(PurePosixPath(file).suffix)
        if read is None:
            message = "a directory is made of `.jsonl` and `.csv` files; rename or remove this one"
            findings.append(Finding(file, 0, 0, "UNKNOWN_FILE", message))
            continue
        lines = tuple(walk_lines(file, files[file], findings, pause))
        for subject in paced(read(file, lines, findings), pause):
            _add(subjects, subject, findings)
            if len(subjects) > SUBJECTS_MAX:
                message = f"a directory has at most {SUBJECTS_MAX:,} subjects"
                raise _refused([Finding(file, subject.line, 1, "TOO_MANY", message)])
            if len(findings) > FINDINGS_MAX:
                raise _refused(findings)
    if findings:
        raise _refused(findings)
    return Directory(digest(files), subjects)


def _add(subjects: dict[str, Subject], subject: Subject, findings: list[Finding]) -> None:
    first = subjects.setdefault(subject.id, subject)
    if first is not subject:
        where = f"line {first.line} of `{first.file}`"
        message = f"the subject `{subject.id}` stands in {where} already; keep one of them"
        findings.append(Finding(subject.file, subject.line, 1, "DUPLICATE_NAME", message))


def _refused(findings: list[Finding]) -> DirectoryRefusedError:
    ordered = sorted(findings)[:FINDINGS_MAX]
    first = ordered[0]
    more = f", and {len(ordered) - 1} more findings" if len(ordered) > 1 else ""
    return DirectoryRefusedError(f"{first.file}:{first.line}:{first.column}: {first.message}{more}", ordered)
