"""What is wrong with a governed policy set across its files.

Owns the vocabulary of its rules (`governed_model` owns the shape of its model): subjects are the set's
roles, objects are nodes of the catalogue, actions, purposes, masks and minimum groups are known
ones, and conditions read `r.sub`, `r.ctx` and `r.row` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from gatebook.expression.parse import parse
from gatebook.expression.tokens import ParseError
from gatebook.expression.tree import Expression, Path
from gatebook.policy import names
from gatebook.policy.bundle import CATALOGUE_FILE, PURPOSES_FILE, SETTINGS_FILE
from gatebook.policy.catalogue import Catalogue, Column
from gatebook.policy.draft import Draft
from gatebook.policy.governed_model import RULES, model_findings
from gatebook.policy.masks import MaskError, castable, parse_group, parse_mask
from gatebook.policy.model import walk
from gatebook.policy.rules_file import field_column
from gatebook.policy.suggest import did_you_mean
from gatebook.values import Finding, Rule, Severity

CONDITION_TOKENS = ("sub", "ctx", "row")
UNDEFINED_ROLE = "UNDEFINED_ROLE"

_CONDITION_DEPTH = 3


def _subjects(draft: Draft) -> Iterator[Finding]:
    for rule in draft.rules:
        subject = _field(draft, rule, "sub")
        if subject is not None and not names.ROLE.fullmatch(subject):
            message = f"`{subject}` is no role such as `role:researcher`; give people roles in the directory"
            yield _at(draft, rule, "sub", "UNKNOWN_ROLE", message)


def _roles_of_rules(draft: Draft) -> Iterator[Finding]:
    """Finds roles that `gatebook.yaml` does not list: a misspelt one would lose a deny in silence."""
    for rule in draft.rules:
        role = _field(draft, rule, "sub") or ""
        if _is_undefined(draft, role):
            yield _at(draft, rule, "sub", UNDEFINED_ROLE, _undefined(draft, role))


def _roles_of_links(draft: Draft) -> Iterator[Finding]:
    for edge in draft.edges:
        for role in (edge.child, edge.parent) if edge.gtype == "g" else ():
            if _is_undefined(draft, role):
                yield Finding(edge.file, edge.line, 1, UNDEFINED_ROLE, _undefined(draft, role))


def _roles_of_ceilings(draft: Draft) -> Iterator[Finding]:
    for dataset in draft.catalogue.datasets.values() if draft.catalogue else ():
        ceilings = (dataset.ceiling, *dataset.ceiling.actions.values())
        for role in dict.fromkeys(role for ceiling in ceilings for role in ceiling.roles):
            if _is_undefined(draft, role):
                message = f"the ceiling of `{dataset.id}`: {_undefined(draft, role)}"
                yield Finding(CATALOGUE_FILE, dataset.line, 0, UNDEFINED_ROLE, message)


def _roles_of_zones(draft: Draft) -> Iterator[Finding]:
    for zone in draft.settings.zones.values():
        for role in zone.administrators:
            if _is_undefined(draft, role):
                message = f"the zone `{zone.name}`: {_undefined(draft, role)}"
                yield Finding(SETTINGS_FILE, 0, 0, UNDEFINED_ROLE, message)


def _roles_of_approvals(draft: Draft) -> Iterator[Finding]:
    rules = draft.settings.approvals
    for role in () if rules is None else dict.fromkeys(rules.roles):
        if _is_undefined(draft, role):
            yield Finding(SETTINGS_FILE, 0, 0, UNDEFINED_ROLE, f"`approvals`: {_undefined(draft, role)}")


def _is_undefined(draft: Draft, role: str) -> bool:
    return names.ROLE.fullmatch(role) is not None and role not in draft.settings.roles


def _undefined(draft: Draft, role: str) -> str:
    hint = did_you_mean(role, draft.settings.roles) or "; add it there if it is meant"
    return f"`{role}` is none of the `roles` of `{SETTINGS_FILE}`{hint}"


def _edges(draft: Draft) -> Iterator[Finding]:
    source = {"g2": CATALOGUE_FILE, "g3": PURPOSES_FILE}
    for edge in draft.edges:
        if edge.file in (CATALOGUE_FILE, PURPOSES_FILE):
            continue
        if edge.gtype in source:
            message = f"`{edge.gtype}` links come from `{source[edge.gtype]}`; declare it there and remove this line"
            yield Finding(edge.file, edge.line, 1, "MISPLACED_LINK", message)
        elif not names.ROLE.fullmatch(edge.parent):
            message = f"`{edge.parent}` is no role; the parent is a role such as `role:employee`"
            yield Finding(edge.file, edge.line, 1, "UNKNOWN_ROLE", message)
        elif not names.ROLE.fullmatch(edge.child) and names.looks_like_a_node(edge.child):
            message = f"`{edge.child}` is neither a role nor a subject; the child is one of them"
            yield Finding(edge.file, edge.line, 1, "UNKNOWN_ROLE", message)


def _objects(draft: Draft) -> Iterator[Finding]:
    nodes = draft.catalogue.nodes() if draft.catalogue else frozenset()
    for rule in draft.rules:
        node = _field(draft, rule, "obj")
        if node is not None and node not in nodes:
            message = (
                f"`{node}` is no dataset, column, tag or namespace of `{CATALOGUE_FILE}`{did_you_mean(node, nodes)}"
            )
            yield _at(draft, rule, "obj", "UNKNOWN_OBJECT", message)


def _actions(draft: Draft) -> Iterator[Finding]:
    for rule in draft.rules:
        action = _field(draft, rule, "act")
        if action is not None and action not in draft.settings.actions:
            actions = draft.settings.actions
            known = ", ".join(f"`{name}`" for name in actions)
            message = f"unknown action `{action}`: `{SETTINGS_FILE}` lists {known}{did_you_mean(action, actions)}"
            yield _at(draft, rule, "act", "UNKNOWN_ACTION", message)


def _purposes(draft: Draft) -> Iterator[Finding]:
    known = (*(draft.purposes.names if draft.purposes else ()), names.EVERYTHING)
    for rule in draft.rules:
        purpose = _field(draft, rule, "purpose")
        if purpose is not None and purpose not in known:
            message = f"unknown purpose `{purpose}`: not in `{PURPOSES_FILE}`{did_you_mean(purpose, known)}"
            yield _at(draft, rule, "purpose", "UNKNOWN_PURPOSE", message)


def _masks(draft: Draft) -> Iterator[Finding]:
    columns = _columns(draft.catalogue)
    for rule in draft.rules:
        text, node = _field(draft, rule, "mask"), _field(draft, rule, "obj")
        if text is None or node is None:
            continue
        try:
            mask = parse_mask(text)
        except MaskError as err:
            yield _at(draft, rule, "mask", "UNKNOWN_MASK", err.message, offset=err.offset)
            continue
        if node in columns and not castable(mask, columns[node].type):
            message = (
                f"the mask `{text}` gives no {columns[node].type}, which is the type of `{node}`; choose another mask"
            )
            yield _at(draft, rule, "mask", "MASK_NOT_APPLICABLE", message)


def _groups(draft: Draft) -> Iterator[Finding]:
    for rule in draft.rules:
        k = _field(draft, rule, "k")
        if k is None:
            continue
        try:
            parse_group(k)
        except MaskError as err:
            yield _at(draft, rule, "k", "MALFORMED_GROUP", err.message, offset=err.offset)


def _conditions(draft: Draft) -> Iterator[Finding]:
    for rule in draft.rules:
        condition = _field(draft, rule, "cond")
        tree = None if condition is None else _parsed(condition)
        for path in () if tree is None else walk(tree):
            if isinstance(path, Path) and (
                len(path.names) != _CONDITION_DEPTH or path.names[1] not in CONDITION_TOKENS
            ):
                written = ".".join(path.names)
                message = f"a condition reads an attribute of `r.sub`, `r.ctx` or `r.row`, not `{written}`"
                yield _at(draft, rule, "cond", "UNKNOWN_ATTRIBUTE", message, offset=path.span.start)


def _context_keys(draft: Draft) -> Iterator[Finding]:
    """Finds circumstances that no caller may state: such a condition is never known to hold."""
    believed = {key for source in draft.settings.attribute_sources.values() for key in source.context}
    for rule in draft.rules:
        condition = _field(draft, rule, "cond")
        tree = None if condition is None else _parsed(condition)
        for path in () if tree is None else walk(tree):
            if isinstance(path, Path) and path.names[:2] == ("r", "ctx") and path.names[2:3]:
                key = path.names[2]
                if key not in believed:
                    hint = did_you_mean(key, believed) or "; name who may state it"
                    message = f"`attribute_sources` of `{SETTINGS_FILE}` let no caller state the context `{key}`{hint}"
                    yield _at(draft, rule, "cond", "UNKNOWN_ATTRIBUTE", message, offset=path.span.start)


def _row_columns(draft: Draft) -> Iterator[Finding]:
    columns = _row_columns_by_node(draft)
    for rule in draft.rules:
        condition, node = _field(draft, rule, "cond"), _field(draft, rule, "obj")
        tree = None if condition is None else _parsed(condition)
        known = columns.get(node or "")
        if tree is None or not known:
            continue
        for path in walk(tree):
            if (
                isinstance(path, Path)
                and path.names[:2] == ("r", "row")
                and path.names[2:3]
                and path.names[2] not in known
            ):
                message = f"no dataset of `{node}` has a column `{path.names[2]}`{did_you_mean(path.names[2], known)}"
                yield _at(draft, rule, "cond", "UNKNOWN_COLUMN", message, offset=path.span.start)


GovernedRule = Callable[[Draft], Iterator[Finding]]
GOVERNED_RULES: tuple[GovernedRule, ...] = (
    model_findings,
    _subjects,
    _roles_of_rules,
    _roles_of_links,
    _roles_of_ceilings,
    _roles_of_zones,
    _roles_of_approvals,
    _edges,
    _objects,
    _actions,
    _purposes,
    _masks,
    _groups,
    _conditions,
    _context_keys,
    _row_columns,
)


def _field(draft: Draft, rule: Rule, token: str) -> str | None:
    """Returns a field of a rule whose type has the governed shape; None otherwise."""
    tokens = draft.model.policies[rule.ptype].tokens
    if RULES.get(rule.ptype) != tokens or token not in tokens:
        return None
    return rule.fields[tokens.index(token)]


def _at(
    draft: Draft,
    rule: Rule,
    token: str,
    invariant: str,
    message: str,
    severity: Severity = Severity.ERROR,
    offset: int = 0,
) -> Finding:
    column = field_column(rule, draft.model.policies[rule.ptype].tokens.index(token)) + offset
    return Finding(rule.file, rule.line, column, invariant, message, severity)


@lru_cache(maxsize=4_096)
def _parsed(condition: str) -> Expression | None:
    try:
        return parse(condition)
    except ParseError:
        return None


def _columns(catalogue: Catalogue | None) -> dict[str, Column]:
    datasets = catalogue.datasets.values() if catalogue else ()
    return {column.node: column for dataset in datasets for column in dataset.columns.values()}


def _row_columns_by_node(draft: Draft) -> dict[str, frozenset[str]]:
    """Returns, for each node that rules name, the columns of every dataset that the node reaches."""
    above: dict[str, list[str]] = {}
    for edge in draft.edges:
        if edge.gtype == "g2":
            above.setdefault(edge.child, []).append(edge.parent)
    reached: dict[str, set[str]] = {}
    for dataset in draft.catalogue.datasets.values() if draft.catalogue else ():
        seen = {column.node for column in dataset.columns.values()} | {dataset.id}
        pending = list(seen)
        while pending:
            further = [parent for parent in above.get(pending.pop(), ()) if parent not in seen]
            seen.update(further)
            pending += further
        for node in seen:
            reached.setdefault(node, set()).update(dataset.columns)
    return {node: frozenset(columns) for node, columns in reached.items()}
