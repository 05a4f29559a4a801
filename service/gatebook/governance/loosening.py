"""Whether a draft loosens what is active: every single thing that it changes, and which way each goes.

Owns the comparison of two policy sets as governance reads them. Promises:

1. a draft all of whose changes tighten, or do neither, lets nobody do more, whoever is in the directory;
2. what is not certain counts as loosening;
3. no change of a file goes without saying: one of which nothing follows says so.

It is pure: two sets that were read, a directory and a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from gatebook.governance.catalogue_changes import catalogue_changes, purpose_changes
from gatebook.governance.change import Change, Direction
from gatebook.governance.gains import gains
from gatebook.governance.rule_changes import link_changes, rule_changes
from gatebook.policy.bundle import GUARDRAILS_FILE, MODEL_FILE, POLICY_FILE, SETTINGS_FILE
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PLAIN, PolicySet
from gatebook.policy.settings import Settings
from gatebook.policy.yaml_nodes import Node, Scalar, Table, parse_yaml

LOOSENS, TIGHTENS, NEITHER = Direction.LOOSENS, Direction.TIGHTENS, Direction.NEITHER

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SETTLED: dict[str, Callable[[Settings], object]] = {
    "owners": lambda it: frozenset(it.owners),
    "roles": lambda it: frozenset(it.roles),
    "zones": lambda it: dict(it.zones),
    "approvals": lambda it: it.approvals,
    "attribute_sources": lambda it: dict(it.attribute_sources),
    "request": lambda it: dict(it.request),
    "matcher": lambda it: it.matcher,
    "role_patterns": lambda it: dict(it.role_patterns),
    "role_conditions": lambda it: dict(it.role_conditions),
    "acknowledged": lambda it: it.acknowledged,
    "lineage": lambda it: dict(it.lineage),
}
"""The settings of which any change may loosen: who decides, what is believed, how a model is read, what inherits."""


def changes(
    base: PolicySet | None, draft: PolicySet, directory: Directory | None = None, now: datetime = EPOCH
) -> tuple[Change, ...]:
    """Returns what a draft changes, in the order of its files.

    Args:
        base: The set that is active; None where none is: then everything is new.
        draft: The set that is proposed.
        directory: Who there is, where that is known: then who gains is named too.
        now: The earliest time that counts.
    """
    if base is None:
        message = "nothing of this set is active: all of it is new"
        return (Change(MODEL_FILE, 0, "FIRST_REVISION", message, LOOSENS),)
    found = [*_settings(base, draft), *_guardrails(base, draft)]
    if base.files.get(MODEL_FILE) != draft.files.get(MODEL_FILE):
        found.append(Change(MODEL_FILE, 0, "MODEL_CHANGED", "the model decides otherwise, or may", LOOSENS))
    if PLAIN in (base.kind, draft.kind):
        found += _plain(base, draft)
    else:
        found += rule_changes(base, draft)
        found += link_changes(base, draft)
        found += purpose_changes(base, draft)
        found += catalogue_changes(base, draft)
        if directory is not None:
            found += gains(base, draft, directory, now)
    return tuple(sorted((*found, *_files(base, draft, found))))


def _settings(base: PolicySet, draft: PolicySet) -> Iterator[Change]:
    before, after = base.settings, draft.settings
    for name, of in SETTLED.items():
        if of(before) != of(after):
            gone = name == "approvals" and after.approvals is None
            message = "no approvals are asked for any more" if gone else f"`{name}` say something else"
            line = _line_of(draft, name)
            yield Change(SETTINGS_FILE, line, f"{name.upper()}_CHANGED", message, LOOSENS)
    for action in sorted(frozenset(after.actions) - frozenset(before.actions)):
        line = _line_of(draft, "actions")
        yield Change(SETTINGS_FILE, line, "ACTION_ADDED", f"`{action}` can be asked for", LOOSENS)
    for action in sorted(frozenset(before.actions) - frozenset(after.actions)):
        line = _line_of(draft, "actions")
        yield Change(SETTINGS_FILE, line, "ACTION_REMOVED", f"`{action}` can be asked for no more", TIGHTENS)


def _line_of(policy_set: PolicySet, key: str) -> int:
    """Returns the line of a key of `gatebook.yaml`; 0 where it has none."""
    text = policy_set.files.get(SETTINGS_FILE, b"").decode(errors="replace")
    found = re.search(rf"^{key}\s*:", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _guardrails(base: PolicySet, draft: PolicySet) -> Iterator[Change]:
    """Compares guardrails by what they say: that more must never be possible lets nobody do more."""
    before, after = _stated(base), _stated(draft)
    for told, line in after.items():
        if told not in before:
            yield Change(GUARDRAILS_FILE, line, "GUARDRAIL_ADDED", "a guardrail more must hold", TIGHTENS)
    for told, line in before.items():
        if told not in after:
            message = "a guardrail is gone, or says something else"
            yield Change(GUARDRAILS_FILE, line, "GUARDRAIL_REMOVED", message, LOOSENS, in_base=True)


def _stated(policy_set: PolicySet) -> dict[str, int]:
    """Returns the entries of `guardrails.yaml` as they are written, each with its line."""
    text = policy_set.files.get(GUARDRAILS_FILE, b"").decode(errors="replace")
    root = parse_yaml(text, GUARDRAILS_FILE)[0] if text else None
    stated: dict[str, int] = {}
    for key, node in root.entries if isinstance(root, Table) else ():
        items: list[tuple[str, Node]]
        if isinstance(node, Table):
            items = [(name.text, value) for name, value in node.entries]
        else:
            items = [("", item) for item in (() if isinstance(node, Scalar) else node.items)] or [("", node)]
        stated |= {f"{key.text}: {name}: {_written(item)}": item.line for name, item in items}
    return stated


def _written(node: Node) -> str:
    if isinstance(node, Scalar):
        return repr(node.value)
    if isinstance(node, Table):
        return "{" + ", ".join(f"{key.text!r}: {_written(value)}" for key, value in node.entries) + "}"
    return "[" + ", ".join(map(_written, node.items)) + "]"


def _plain(base: PolicySet, draft: PolicySet) -> Iterator[Change]:
    """Yields what a plain set changes: its model is free, so that nothing is certain of any line."""
    if base.kind != draft.kind:
        yield Change(SETTINGS_FILE, 0, "KIND_CHANGED", "the set is governed now, or no more", LOOSENS)
    before = {(rule.ptype, rule.fields): rule for rule in base.rules}
    after = {(rule.ptype, rule.fields): rule for rule in draft.rules}
    for key, rule in after.items():
        if key not in before:
            yield Change(rule.file, rule.line, "RULE_ADDED", f"says: {rule.text}", LOOSENS)
    for key, rule in before.items():
        if key not in after:
            yield Change(rule.file, rule.line, "RULE_REMOVED", f"says no more: {rule.text}", LOOSENS, in_base=True)
    if list(before) != list(after) and before.keys() == after.keys():
        yield Change(POLICY_FILE, 0, "RULES_REORDERED", "the rules stand in another order", LOOSENS)
    if [_link(edge) for edge in base.edges] != [_link(edge) for edge in draft.edges]:
        yield Change(POLICY_FILE, 0, "LINKS_CHANGED", "links came, went or moved", LOOSENS)


def _link(edge: object) -> tuple[object, ...]:
    return tuple(getattr(edge, name) for name in ("gtype", "child", "parent", "domains", "parameters"))


def _files(base: PolicySet, draft: PolicySet, found: list[Change]) -> Iterator[Change]:
    """Yields each file that changed though nothing follows of it, and each that is none of the above."""
    told = {change.file for change in found}
    for path in sorted({*base.files, *draft.files} - told):
        if base.files.get(path) == draft.files.get(path):
            continue
        gone = path not in draft.files
        if path.startswith("tests/"):
            message = "expectations are gone" if gone else "expectations changed"
            yield Change(path, 0, "TESTS_CHANGED", message, NEITHER, in_base=gone)
        elif path.startswith("policy/") or path in (POLICY_FILE, "catalogue.yaml", "purposes.yaml", SETTINGS_FILE):
            message = "comments, descriptions or order alone"
            yield Change(path, 0, "TEXT_CHANGED", message, NEITHER, in_base=gone)
        elif path != GUARDRAILS_FILE:
            yield Change(path, 0, "FILE_CHANGED", "the file says something else", LOOSENS, in_base=gone)
        else:
            yield Change(path, 0, "TEXT_CHANGED", "comments or order alone", NEITHER, in_base=gone)
