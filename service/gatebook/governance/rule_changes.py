"""What a draft changes of the rules and links of a governed set, and which way each change goes.

Owns the judgement of single lines, whoever is in the directory. Rules:

1. an allow that goes, a deny or a minimum group that comes, and a mask `none` that goes let nobody do more;
2. a mask that comes hides more where no tag demands one and no other mask meets it that it might contradict: two that
   contradict each other deny, and a third may settle that. One that becomes stricter does likewise;
3. a link between roles that goes lets nobody do more where only allows are known of the role and of those above it,
   and no condition asks who has one of them: it may ask for who has it not;
4. everything else may let somebody do more. The order of lines decides nothing (design section 5.3 and 5.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from gatebook.compiler.roles import reach
from gatebook.engine.obligations import demands_mask, parameter_of
from gatebook.governance.asked_roles import ANY_ROLE, asked_roles
from gatebook.governance.change import Change, Direction
from gatebook.governance.rules import ACTION, EFFECT, OBJECT, SUBJECT
from gatebook.policy.dataset import Column
from gatebook.policy.masks import MaskError, MaskSpec, at_least_as_strict, castable, parse_group, parse_mask
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Edge, MaskKind, Rule

PARAMETER = 5
ALWAYS = "True"

_Key = tuple[str, ...]


def rule_changes(base: PolicySet, draft: PolicySet) -> Iterator[Change]:
    """Yields a change for each rule that came, went, or was replaced."""
    before, after = _by_key(base.rules), _by_key(draft.rules)
    gone = {key: rule for key, rule in before.items() if key not in after}
    come = {key: rule for key, rule in after.items() if key not in before}
    pairs = _pairs(gone.values(), come.values())
    masks = _Meeting(base), _Meeting(draft)
    for old, new in pairs:
        yield _replaced(old, new, masks)
        gone.pop(_key(old))
        come.pop(_key(new))
    for rule in gone.values():
        yield _went(rule)
    for rule in come.values():
        yield _came(rule, masks)


def link_changes(base: PolicySet, draft: PolicySet) -> Iterator[Change]:
    """Yields a change for each link between roles that came or went."""
    before, after = _links(base), _links(draft)
    for name, edge in after.items():
        if name not in before:
            message = f"`{edge.child}` holds `{edge.parent}` too"
            yield Change(edge.file, edge.line, "LINK_ADDED", message, Direction.LOOSENS)
    above: dict[str, list[str]] = {}
    for child, parent in before:
        above.setdefault(child, []).append(parent)
    asked = asked_roles(base, base.rules) | asked_roles(draft, draft.rules)
    for (child, parent), edge in before.items():
        if (child, parent) not in after:
            held = reach(above, parent)
            narrowing = any(rule.fields[SUBJECT] in held and not _is_allow(rule) for rule in base.rules)
            loosens = narrowing or ANY_ROLE in asked or not asked.isdisjoint(held)
            direction = Direction.LOOSENS if loosens else Direction.TIGHTENS
            message = f"`{child}` holds `{parent}` no more"
            yield Change(edge.file, edge.line, "LINK_REMOVED", message, direction, in_base=True)


class _Meeting:
    """Which masks of a set may meet on a column, and which columns an object stands for."""

    def __init__(self, policy_set: PolicySet) -> None:
        self._catalogue = policy_set.catalogue
        self._below: dict[str, list[str]] = {}
        for edge in policy_set.edges:
            if edge.gtype == "g2":
                self._below.setdefault(edge.parent, []).append(edge.child)
        self._masks = [rule for rule in policy_set.rules if rule.ptype == "p2"]
        self._columns: dict[str, Mapping[str, Column]] = {}
        self._by_node = {
            column.node: column
            for dataset in (() if self._catalogue is None else self._catalogue.datasets.values())
            for column in dataset.columns.values()
        }

    def columns(self, node: str) -> Mapping[str, Column]:
        """Returns the columns under a node, by their own."""
        found = self._columns.get(node)
        if found is None:
            names = reach(self._below, node)
            found = self._columns[node] = {name: self._by_node[name] for name in names if name in self._by_node}
        return found

    def demanded(self, node: str) -> bool:
        """Tells whether a tag demands a mask of some column under a node."""
        tags = frozenset[str]() if self._catalogue is None else self._catalogue.mask_tags
        return any(demands_mask(column.tags, tags) for column in self.columns(node).values())

    def agree(self, rule: Rule) -> bool:
        """Tells whether no masks that may meet where this rule speaks could contradict each other, or a column."""
        columns = self.columns(rule.fields[OBJECT])
        specs: list[MaskSpec] = []
        for other in (*self._masks, rule):
            if other.fields[ACTION] != rule.fields[ACTION] or columns.keys().isdisjoint(
                self.columns(other.fields[OBJECT])
            ):
                continue
            spec = _mask(other)
            types = {columns[name].type for name in columns.keys() & self.columns(other.fields[OBJECT]).keys()}
            if spec is None or not all(castable(spec, type_) for type_ in types):
                return False
            if spec not in specs:
                specs.append(spec)
        return all(at_least_as_strict(one, two) or at_least_as_strict(two, one) for one, two in combinations(specs, 2))


_Masks = tuple[_Meeting, _Meeting]


def _came(rule: Rule, masks: _Masks) -> Change:
    before, after = masks
    match rule.ptype:
        case "p" if _is_allow(rule):
            return _change(rule, "ALLOW_ADDED", "allows", Direction.LOOSENS)
        case "p" if rule.fields[EFFECT] == "deny":
            return _change(rule, "DENY_ADDED", "denies", Direction.TIGHTENS)
        case "p2":
            spec = _mask(rule)
            node = rule.fields[OBJECT]
            hides = spec is not None and spec.kind is not MaskKind.NONE
            free = not before.demanded(node) and not after.demanded(node)
            certain = hides and free and before.agree(rule) and after.agree(rule)
            return _change(rule, "MASK_ADDED", "masks", Direction.TIGHTENS if certain else Direction.LOOSENS)
        case "p3":
            return _change(rule, "GROUP_ADDED", "demands a minimum group", Direction.TIGHTENS)
        case _:
            return _change(rule, "RULE_ADDED", "says", Direction.LOOSENS)


def _went(rule: Rule) -> Change:
    match rule.ptype:
        case "p" if _is_allow(rule):
            return _change(rule, "ALLOW_REMOVED", "allows no more", Direction.TIGHTENS, in_base=True)
        case "p":
            return _change(rule, "DENY_REMOVED", "denies no more", Direction.LOOSENS, in_base=True)
        case "p2":
            spec = _mask(rule)
            shows = spec is not None and spec.kind is MaskKind.NONE
            direction = Direction.TIGHTENS if shows else Direction.LOOSENS
            return _change(rule, "MASK_REMOVED", "masks no more", direction, in_base=True)
        case _:
            return _change(rule, "GROUP_REMOVED", "demands no minimum group", Direction.LOOSENS, in_base=True)


def _replaced(old: Rule, new: Rule, masks: _Masks) -> Change:
    was, now = old.fields[PARAMETER], new.fields[PARAMETER]
    if new.ptype == "p3":
        raised = _group(new) >= _group(old)
        what, told = ("GROUP_RAISED", "raises") if raised else ("GROUP_LOWERED", "lowers")
        direction = Direction.TIGHTENS if raised else Direction.LOOSENS
        return _change(new, what, f"{told} the minimum group from {was} to {now}", direction)
    before, after = masks
    one, two = _mask(old), _mask(new)
    stricter = one is not None and two is not None and at_least_as_strict(two, one)
    stands = new.fields[4] == ALWAYS or (one is not None and one.kind is not MaskKind.NONE)
    certain = stricter and stands and before.agree(old) and after.agree(new)
    what = "MASK_STRICTER" if stricter else "MASK_WEAKER"
    return _change(new, what, f"masks with {now}, not {was}", Direction.TIGHTENS if certain else Direction.LOOSENS)


def _pairs(gone: Iterable[Rule], come: Iterable[Rule]) -> list[tuple[Rule, Rule]]:
    """Returns masks and groups that differ in nothing but themselves, where there is one of each."""
    by_head: dict[_Key, tuple[list[Rule], list[Rule]]] = {}
    for place, rules in enumerate((gone, come)):
        for rule in rules:
            if rule.ptype in ("p2", "p3"):
                by_head.setdefault(_key(rule)[:-1], ([], []))[place].append(rule)
    return [(old[0], new[0]) for old, new in by_head.values() if len(old) == 1 and len(new) == 1]


def _change(rule: Rule, what: str, told: str, direction: Direction, *, in_base: bool = False) -> Change:
    node = rule.fields[OBJECT]
    return Change(rule.file, rule.line, what, f"{told}: {rule.text}", direction, node=node, in_base=in_base)


def _by_key(rules: Sequence[Rule]) -> dict[_Key, Rule]:
    return {_key(rule): rule for rule in reversed(rules)}


def _key(rule: Rule) -> _Key:
    return (rule.ptype, *rule.fields)


def _links(policy_set: PolicySet) -> dict[tuple[str, str], Edge]:
    return {(edge.child, edge.parent): edge for edge in reversed(policy_set.edges) if edge.gtype == "g"}


def _is_allow(rule: Rule) -> bool:
    return rule.ptype == "p" and rule.fields[EFFECT] == "allow"


def _mask(rule: Rule) -> MaskSpec | None:
    """Returns the mask of a rule; None where it does not parse, or is the enforcer's own."""
    try:
        spec = parse_mask(parameter_of(rule))
    except MaskError:
        return None
    return None if spec.kind is MaskKind.CUSTOM else spec


def _group(rule: Rule) -> int:
    try:
        return parse_group(parameter_of(rule))
    except MaskError:
        return 0
