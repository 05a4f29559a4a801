"""Loads the model and rules of a user of the library, from texts or from rows.

Owns `load_plain`: strictly, as a server loads a set, or leniently, as pycasbin would (`policy.lenient`). Whoever
chooses an effect that allows by default in a model of their own has been warned by its name. Rows must say in a line
what they say; a row that cannot be written as one is refused, or, leniently, taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gatebook.errors import PolicySetRefusedError
from gatebook.pace import Pause, no_pause
from gatebook.policy.brought import NOTHING_BROUGHT, Brought
from gatebook.policy.bundle import MODEL_FILE, POLICY_FILE, digest
from gatebook.policy.lenient import as_warnings, read_leniently
from gatebook.policy.policy_set import FINDINGS_MAX, PLAIN, PolicySet, load, refused
from gatebook.policy.rules_file import split_fields
from gatebook.policy.settings import ALLOW_BY_DEFAULT, Settings
from gatebook.values import Finding

NOT_WRITABLE = "NOT_WRITABLE"
SETTINGS = Settings(acknowledged=frozenset((ALLOW_BY_DEFAULT,)))

Row = Sequence[str]
"""The type of a rule or link, then its fields."""


def load_plain(
    model: bytes,
    rules: bytes | Iterable[Row],
    *,
    strict: bool = True,
    brought: Brought = NOTHING_BROUGHT,
    pause: Pause = no_pause,
) -> PolicySet:
    """Loads a plain set.

    Args:
        model: The text of `model.conf`.
        rules: The text of `policy.csv`, or its rows.
        strict: Whether to refuse what pycasbin drops, cuts or rewrites, or to read it as pycasbin does.
        brought: What the set may speak of, though its texts do not hold it.
        pause: Is called after every few lines.

    Raises:
        PolicySetRefusedError: there are findings of severity error; it carries all findings.
    """
    rows = None if isinstance(rules, bytes) else [tuple(row) for row in rules]
    text = rules if isinstance(rules, bytes) else "".join(f"{', '.join(row)}\n" for row in rows or ()).encode()
    files = {MODEL_FILE: model, POLICY_FILE: text}
    try:
        _require_writable(rows or ())
        return load(files, settings=SETTINGS, brought=brought, pause=pause)
    except PolicySetRefusedError as err:
        if strict:
            raise
        casbin, findings = read_leniently(files, rows)
        if findings:
            raise refused(findings) from err
        return PolicySet(
            name="",
            kind=PLAIN,
            digest=digest(files),
            model=casbin.model,
            rules=casbin.rules,
            edges=casbin.edges,
            settings=SETTINGS,
            catalogue=None,
            purposes=None,
            files=files,
            warnings=as_warnings(err.findings),
        )


def _is_writable(row: Row) -> bool:
    """Tells whether a row, written as a line, is read as the same row."""
    line = ", ".join(row)
    if "\n" in line or "\r" in line or line.startswith("#"):
        return False
    spans, remarks = split_fields(line)
    return not remarks and [line[start:end] for start, end in spans] == list(row)


def _require_writable(rows: Iterable[Row]) -> None:
    message = "the row cannot be written as a line: a field has a comma, a line feed, a bracket alone or outer spaces"
    findings = [
        Finding(POLICY_FILE, number, 0, NOT_WRITABLE, message)
        for number, row in enumerate(rows, 1)
        if not _is_writable(row)
    ]
    if findings:
        raise PolicySetRefusedError(f"{POLICY_FILE}:{findings[0].line}: {message}", findings[:FINDINGS_MAX])
