"""What is wrong with a governed policy set across its files.

Owns the shape of the governed model (see `MODEL`) and the vocabulary of its rules: subjects are
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
from gatebook.policy.bundle import CATALOGUE_FILE, MODEL_FILE, PURPOSES_FILE, SETTINGS_FILE
from gatebook.policy.catalogue import Catalogue, Column
from gatebook.policy.draft import Draft
from gatebook.policy.masks import MaskError, castable, parse_group, parse_mask
from gatebook.policy.model import EffectKind, Matcher, walk, without_spans
from gatebook.policy.rules_file import field_column
from gatebook.policy.suggest import did_you_mean
from gatebook.values import Finding, Rule, Severity

REQUEST = ("sub", "obj", "act", "purpose", "ctx", "row")
RULES = {
    "p": ("sub", "obj", "act", "purpose", "cond", "eft"),
    "p2": ("sub", "obj", "act", "purpose", "cond", "mask"),
    "p3": ("sub", "obj", "act", "purpose", "cond", "k"),
}
ROLES = ("g", "g2", "g3")
MATCHER = (
    "g(r.sub.id, {p}.sub) && g2(r.obj, {p}.obj) && r.act == {p}.act && g3(r.purpose, {p}.purpose) && eval({p}.cond)"
)
MATCHERS = {"m": MATCHER.format(p="p"), "m2": MATCHER.format(p="p2"), "m3": MATCHER.format(p="p3")}
CONDITION_TOKENS = ("sub", "ctx", "row")
LONELY_ROLES_MAX = 200

_CONDITION_DEPTH = 3


def _shape_of_request(draft: Draft) -> Iterator[Finding]:
    for key, definition in draft.model.requests.items():
        if key != "r" or definition.tokens != REQUEST:
            yield _shape(definition.line, f"[request_definition] r = {', '.join(REQUEST)}")


def _shape_of_rules(draft: Draft) -> Iterator[Finding]:
    for key, tokens in RULES.items():
        definition = draft.model.policies.get(key)
        if definition is None or definition.tokens != tokens:
            yield _shape(definition.line if definition else 0, f"[policy_definition] {key} = {', '.join(tokens)}")
    for key, definition in draft.model.policies.items():
        if key not in RULES:
            yield _shape(definition.line, f"[policy_definition] {', '.join(RULES)} and no other than these")


def _shape_of_roles(draft: Draft) -> Iterator[Finding]:
    for key in ROLES:
        role = draft.model.roles.get(key)
        if role is None or role.arity != 2:  # noqa: PLR2004  # child and parent
            yield _shape(role.line if role else 0, f"[role_definition] {key} = _, _")
    for key, role in draft.model.roles.items():
        if key not in ROLES:
            yield _shape(role.line, f"[role_definition] {', '.join(ROLES)} and no other than these")


def _shape_of_effect(draft: Draft) -> Iterator[Finding]:
    for effect in draft.model.effects.values():
        if effect.kind is not EffectKind.ALLOW_AND_DENY:
            yield _shape(effect.line, f"[policy_effect] e = {EffectKind.ALLOW_AND_DENY.value}")


def _shape_of_matchers(draft: Draft) -> Iterator[Finding]:
    for key, text in MATCHERS.items():
        matcher = draft.model.matchers.get(key)
        if matcher is None or not _is_same(matcher, text):
            yield _shape(matcher.line if matcher else 0, f"[matchers] {key} = {text}")
    for key, matcher in draft.model.matchers.items():
        if key not in MATCHERS:
            yield _shape(matcher.line, f"[matchers] {', '.join(MATCHERS)} and no other than these")


def _subjects(draft: Draft) -> Iterator[Finding]:
    for rule in draft.rules:
        subject = _field(draft, rule, "sub")
        if subject is not None and not names.ROLE.fullmatch(subject):
            message = f"`{subject}` is no role such as `role:researcher`; give people roles in the directory"
            yield _at(draft, rule, "sub", "UNKNOWN_ROLE", message)


def _unassigned_roles(draft: Draft) -> Iterator[Finding]:
    """Finds roles that one rule alone ever mentions and that look like another: they may be misspelt."""
    edges = {name for edge in draft.edges if edge.gtype == "g" for name in (edge.child, edge.parent)}
    known = edges | _ceiling_roles(draft.catalogue)
    uses: dict[str, list[Rule]] = {}
    for rule in draft.rules:
        uses.setdefault(_field(draft, rule, "sub") or "", []).append(rule)
    lonely = [
        role for role, rules in uses.items() if len(rules) == 1 and role not in known and names.ROLE.fullmatch(role)
    ]
    for role in lonely[:LONELY_ROLES_MAX]:
        near = did_you_mean(role, (known | uses.keys()) - {role})
        if near:
            message = f"the role `{role}` stands in this rule alone{near}"
            yield _at(draft, uses[role][0], "sub", "UNASSIGNED_ROLE", message, Severity.WARNING)


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
    _shape_of_request,
    _shape_of_rules,
    _shape_of_roles,
    _shape_of_effect,
    _shape_of_matchers,
    _subjects,
    _unassigned_roles,
    _edges,
    _objects,
    _actions,
    _purposes,
    _masks,
    _groups,
    _conditions,
    _row_columns,
)


def _shape(line: int, wanted: str) -> Finding:
    message = f"a governed set has the governed model; write `{wanted}`"
    return Finding(MODEL_FILE, line, 0, "GOVERNED_MODEL", message)


def _is_same(matcher: Matcher, text: str) -> bool:
    return without_spans(matcher.expression) == without_spans(parse(text))


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


def _ceiling_roles(catalogue: Catalogue | None) -> frozenset[str]:
    datasets = catalogue.datasets.values() if catalogue else ()
    ceilings = [one for dataset in datasets for one in (dataset.ceiling, *dataset.ceiling.actions.values())]
    return frozenset(role for ceiling in ceilings for role in ceiling.roles)
