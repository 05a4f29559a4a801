"""What is wrong with a policy set across its files.

Owns the findings that no single file shows, one function each, read from top to bottom in `RULES`.
What concerns governed sets only is in `governed`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import dropwhile, islice

from gatebook.expression.functions import PATTERN_FUNCTIONS, complaint
from gatebook.expression.moments import TIME_MATCH, never_holds
from gatebook.expression.tree import Call, Literal, Path
from gatebook.policy.bundle import MODEL_FILE, SETTINGS_FILE
from gatebook.policy.draft import Draft
from gatebook.policy.governed import GOVERNED_RULES
from gatebook.policy.model import EffectKind, walk
from gatebook.policy.rules_file import field_column
from gatebook.policy.settings import ALLOW_BY_DEFAULT
from gatebook.values import Edge, Finding, Rule, Severity

CASBIN_LEVELS = 9
"""How many links of a role hierarchy pycasbin follows."""

TIMES = 2
"""How many parameters a link has that holds between two times."""

CYCLE_SHOWN_MAX = 12
FINDINGS_OF_RULE_MAX = 200
"""How many findings of one kind are looked for; looking for near names is slow."""

_IMPLICIT_FIELDS = frozenset(("eft", "priority", "mask", "k"))


def lint(draft: Draft) -> list[Finding]:
    """Returns every finding of the rules below, and of those for governed sets, unsorted."""
    rules = (*RULES, *GOVERNED_RULES) if draft.is_governed else RULES
    return [finding for rule in rules for finding in islice(rule(draft), FINDINGS_OF_RULE_MAX)]


def _allow_by_default(draft: Draft) -> Iterator[Finding]:
    effect = draft.model.effects.get("e")
    if effect is not None and effect.kind.allows_by_default and not draft.settings.allow_by_default:
        message = (
            f"the effect `{effect.kind.value}` allows what no rule mentions; "
            f"write `{EffectKind.ALLOW_AND_DENY.value}`, or `acknowledged: [{ALLOW_BY_DEFAULT}]` in `{SETTINGS_FILE}`"
        )
        yield Finding(MODEL_FILE, effect.line, 0, "ALLOW_BY_DEFAULT", message)


def _undefined_matcher(draft: Draft) -> Iterator[Finding]:
    if draft.settings.matcher not in ("m", *draft.model.matchers):
        known = ", ".join(f"`{key}`" for key in draft.model.matchers)
        message = f"`{MODEL_FILE}` does not define the matcher `{draft.settings.matcher}`; it defines {known}"
        yield Finding(SETTINGS_FILE, 0, 0, "UNKNOWN_MATCHER", message)


def _unordered_subjects(draft: Draft) -> Iterator[Finding]:
    """Finds sets that are to be decided in the order of subjects, but have none."""
    effect = draft.model.effects.get("e")
    if effect is None or effect.kind is not EffectKind.SUBJECT_PRIORITY:
        return
    if "g" not in draft.model.roles:
        message = f"`{effect.kind.value}` orders rules by the hierarchy of `g`; define `g`"
        yield Finding(MODEL_FILE, effect.line, 0, "NO_SUBJECT_ORDER", message)
    for definition in draft.model.policies.values():
        if definition.tokens[:1] != ("sub",):
            message = (
                f"`{effect.kind.value}` orders rules by their first field; make `sub` the first of `{definition.key}`"
            )
            yield Finding(MODEL_FILE, definition.line, 0, "NO_SUBJECT_ORDER", message)


def _duplicate_rules(draft: Draft) -> Iterator[Finding]:
    first: dict[tuple[str, ...], Rule] = {}
    for rule in draft.rules:
        kept = first.setdefault((rule.ptype, *rule.fields), rule)
        if kept is not rule:
            message = f"the same rule stands in {_where(kept, rule.file)} already; remove one"
            yield Finding(rule.file, rule.line, 1, "DUPLICATE_RULE", message, Severity.WARNING)


def _duplicate_edges(draft: Draft) -> Iterator[Finding]:
    first: dict[tuple[str, ...], Edge] = {}
    for edge in draft.edges:
        kept = first.setdefault((edge.gtype, edge.child, edge.parent, *edge.domains, *edge.parameters), edge)
        if kept is not edge:
            message = f"the same link stands in {_where(kept, edge.file)} already; remove one"
            yield Finding(edge.file, edge.line, 1, "DUPLICATE_RULE", message, Severity.WARNING)


def _role_cycles(draft: Draft) -> Iterator[Finding]:
    for _, edges in _relations(draft.edges):
        for edge, cycle in _cycles(_between_parents(edges)):
            names = [f"`{name}`" for name in cycle]
            path = " -> ".join(names if len(names) <= CYCLE_SHOWN_MAX else [*names[:CYCLE_SHOWN_MAX], "..."])
            yield Finding(edge.file, edge.line, 1, "ROLE_CYCLE", f"this link closes the cycle {path}; remove one link")


def _deep_hierarchies(draft: Draft) -> Iterator[Finding]:
    for _, edges in _relations(draft.edges):
        inner = _between_parents(edges)
        if any(True for _ in _cycles(inner)):
            continue
        if max(_depths(inner).values(), default=0) < CASBIN_LEVELS:
            continue
        depths = _depths(edges)
        deep = [edge for edge in edges if depths[edge.child] == CASBIN_LEVELS + 1]
        for edge in deep[:1]:
            message = (
                f"`{edge.child}` has a chain of more than {CASBIN_LEVELS} links above it, of which Casbin's own "
                "tools follow no more; Gatebook follows all"
            )
            yield Finding(edge.file, edge.line, 1, "DEEP_HIERARCHY", message, Severity.WARNING)


def _unused_relations(draft: Draft) -> Iterator[Finding]:
    called = {
        node.op
        for matcher in draft.model.matchers.values()
        for node in walk(matcher.expression)
        if isinstance(node, Call)
    }
    for role in draft.model.roles.values():
        if role.key not in called:
            message = f"no matcher calls `{role.key}`, so its links change nothing; call it or remove it"
            yield Finding(MODEL_FILE, role.line, 1, "UNUSED_ROLE_DEFINITION", message, Severity.WARNING)


def _unused_fields(draft: Draft) -> Iterator[Finding]:
    for key, definition in draft.model.policies.items():
        matchers = [matcher for matcher in draft.model.matchers.values() if matcher.policy_key == key]
        paths = [node for matcher in matchers for node in walk(matcher.expression) if isinstance(node, Path)]
        used = {path.names[1] for path in paths if path.names[0] == key and len(path.names) > 1}
        for token in definition.tokens:
            if matchers and token not in used | _IMPLICIT_FIELDS:
                message = f"no matcher reads `{key}.{token}`, so it restricts nothing; compare it or remove it"
                yield Finding(MODEL_FILE, definition.line, 1, "UNUSED_FIELD", message, Severity.WARNING)


def _rules_never_read(draft: Draft) -> Iterator[Finding]:
    """Finds rules that no matcher speaks of; a plain set is decided by the rules of one type alone."""
    read = {matcher.policy_key for matcher in draft.model.matchers.values()}
    if not draft.is_governed:
        read = {draft.model.sections(draft.settings.matcher).rules}
    asked = ", ".join(f"`{key}`" for key in sorted(read))
    for ptype, count in Counter(rule.ptype for rule in draft.rules).items():
        if ptype not in read:
            first = next(rule for rule in draft.rules if rule.ptype == ptype)
            message = f"rules of type `{ptype}` decide nothing here ({count} of them); only {asked} rules are asked"
            yield Finding(first.file, first.line, 1, "RULES_NEVER_READ", message, Severity.WARNING)


def _empty_fields(draft: Draft) -> Iterator[Finding]:
    """Finds empty fields of plain sets; a governed set has a vocabulary for each field."""
    for rule in () if draft.is_governed else draft.rules:
        if "" not in rule.fields:
            continue
        conditions = draft.model.condition_fields(rule.ptype)
        tokens = draft.model.policies[rule.ptype].tokens
        for position, (token, value) in enumerate(zip(tokens, rule.fields, strict=True)):
            if not value and token not in conditions:
                message = f"the field `{token}` is empty and matches only an empty value; write what it should match"
                column = field_column(rule, position)
                yield Finding(rule.file, rule.line, column, "EMPTY_FIELD", message, Severity.WARNING)


def _unreadable_patterns(draft: Draft) -> Iterator[Finding]:
    for matcher in draft.model.matchers.values():
        for call in walk(matcher.expression):
            if not isinstance(call, Call) or call.op not in (TIME_MATCH, *PATTERN_FUNCTIONS):
                continue
            invariant = "MALFORMED_TIME" if call.op == TIME_MATCH else "UNREADABLE_PATTERN"
            for pattern in call.operands if call.op == TIME_MATCH else call.operands[1:2]:
                if isinstance(pattern, Literal) and isinstance(pattern.value, str):
                    if wrong := complaint(call.op, pattern.value):
                        yield Finding(MODEL_FILE, matcher.line, 0, invariant, wrong)
                elif isinstance(pattern, Path):
                    yield from _unreadable_fields(draft, call.op, pattern, invariant)


def _unreadable_fields(draft: Draft, function: str, path: Path, invariant: str) -> Iterator[Finding]:
    ptype, token = (*path.names, "")[:2]
    definition = draft.model.policies.get(ptype)
    if definition is None or token not in definition.tokens:
        return
    position = definition.tokens.index(token)
    for rule in draft.rules:
        if rule.ptype == ptype and (wrong := complaint(function, rule.fields[position])):
            yield Finding(rule.file, rule.line, field_column(rule, position), invariant, wrong)


def _role_patterns(draft: Draft) -> Iterator[Finding]:
    """Finds patterns of relations that are not there, and names that are no patterns."""
    for key, patterns in draft.settings.role_patterns.items():
        role = draft.model.roles.get(key)
        if role is None or (patterns.domains and role.arity == 2):  # noqa: PLR2004 - a child and a parent
            what = "defines no" if role is None else "has no domains in"
            message = f"`{MODEL_FILE}` {what} `{key}`, of which `role_patterns` speaks; remove it"
            yield Finding(SETTINGS_FILE, 0, 0, "UNKNOWN_RELATION", message)
            continue
        for edge in draft.edges:
            named = [*((patterns.names, name) for name in (edge.child, edge.parent))]
            named += [(patterns.domains, domain) for domain in edge.domains]
            for function, name in named if edge.gtype == key else ():
                if function and (wrong := complaint(function, name)):
                    yield Finding(edge.file, edge.line, 1, "UNREADABLE_PATTERN", wrong)


def _role_conditions(draft: Draft) -> Iterator[Finding]:
    """Finds conditions of relations that are not there or have other parameters, and links that never hold."""
    for key, condition in draft.settings.role_conditions.items():
        role = draft.model.roles.get(key)
        if role is None or role.parameters != TIMES:
            message = (
                f"`{condition}` takes two parameters; write `{key} = _, _, (_, _)` in `{MODEL_FILE}`, or remove it"
            )
            yield Finding(SETTINGS_FILE, 0, 0, "UNKNOWN_RELATION", message)
            continue
        for edge in draft.edges:
            if edge.gtype == key and never_holds(*edge.parameters):
                message = f"no time lies between `{edge.parameters[0]}` and `{edge.parameters[1]}`; remove the link"
                yield Finding(edge.file, edge.line, 1, "NEVER_HOLDS", message, Severity.WARNING)


LintRule = Callable[[Draft], Iterator[Finding]]
RULES: tuple[LintRule, ...] = (
    _allow_by_default,
    _undefined_matcher,
    _unordered_subjects,
    _duplicate_rules,
    _duplicate_edges,
    _role_cycles,
    _deep_hierarchies,
    _unused_relations,
    _unused_fields,
    _rules_never_read,
    _empty_fields,
    _unreadable_patterns,
    _role_patterns,
    _role_conditions,
)


def _where(kept: Rule | Edge, file: str) -> str:
    return f"line {kept.line}" if kept.file == file else f"`{kept.file}` line {kept.line}"


def _relations(edges: tuple[Edge, ...]) -> Iterator[tuple[tuple[str, ...], list[Edge]]]:
    """Yields the edges of each relation, apart for each domain: links of one domain never meet another's."""
    relations: dict[tuple[str, ...], list[Edge]] = defaultdict(list)
    for edge in edges:
        relations[edge.gtype, *edge.domains].append(edge)
    yield from relations.items()


def _between_parents(edges: list[Edge]) -> list[Edge]:
    """Returns the links of what others inherit: most names only inherit, and are on no cycle."""
    parents = {edge.parent for edge in edges}
    return [edge for edge in edges if edge.child in parents]


def _cycles(edges: list[Edge]) -> Iterator[tuple[Edge, list[str]]]:
    """Yields each edge that leads back to a node it came from, and the way around."""
    above = _by_child(edges)
    finished: set[str] = set()
    for start in above:
        way: dict[str, None] = {}
        pending: list[tuple[str, int]] = [(start, 0)]
        while pending:
            name, position = pending.pop()
            if position == 0:
                if name in finished:
                    continue
                way[name] = None
            upward = above.get(name, [])
            if position == len(upward):
                finished.add(name)
                del way[name]
                continue
            pending.append((name, position + 1))
            edge = upward[position]
            if edge.parent in way:
                yield edge, [*dropwhile(edge.parent.__ne__, way), edge.parent]
            elif edge.parent not in finished:
                pending.append((edge.parent, 0))


def _depths(edges: list[Edge]) -> dict[str, int]:
    """Returns how many links lie above each node, in a relation without cycles."""
    above = _by_child(edges)
    depths: dict[str, int] = {}
    for start in above:
        pending = [start]
        while pending:
            name = pending[-1]
            parents = [edge.parent for edge in above.get(name, [])]
            missing = [parent for parent in parents if parent not in depths]
            if missing:
                pending += missing
                continue
            depths[name] = max((depths[parent] + 1 for parent in parents), default=0)
            pending.pop()
    return depths


def _by_child(edges: list[Edge]) -> dict[str, list[Edge]]:
    above: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        above[edge.child].append(edge)
    return dict(above)
