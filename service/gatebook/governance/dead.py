"""Rules that change nothing: that can never match, or wherever they match others have decided.

Owns two warnings. Promises: a rule that is named allows, denies, masks or groups nothing that would not come out the
same without it, for any request with a row, as long as the other rules stay. Rules of which it is not decided
are not named.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.engine.obligations import parameter_of
from gatebook.governance.possible import Asking, Spot
from gatebook.governance.prove import Prover
from gatebook.governance.rules import ALLOW, EFFECT
from gatebook.governance.smt import Formula
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.guardrails import Form
from gatebook.policy.masks import at_least_as_strict, parse_group, parse_mask
from gatebook.values import Finding, MaskKind, Rule, Severity

DEAD_RULE = "DEAD_RULE"
SHADOWED_RULE = "SHADOWED_RULE"
NEVER = "this rule can never match: its condition holds for nobody, or no notice permits its purpose there"
DENIED = "this rule can never count: wherever it matches, others deny"
SHADOWED = "this rule changes nothing: wherever it matches, others decide the same; remove it, or write what was meant"
_ANY = Form()


def unneeded_rules(prover: Prover, pause: Pause = no_pause) -> tuple[Finding, ...]:
    """Returns a warning for each rule that changes nothing."""
    matched: set[Rule] = set()
    counted: set[Rule] = set()
    needed: set[Rule] = set()
    for dataset in prover.datasets():
        asking = prover.possible.asking(dataset)
        for spot in paced(prover.possible.spots(_ANY, dataset), pause):
            for rule in spot.rules:
                for found, formula in ((matched, _matches), (counted, _counts), (needed, _decides)):
                    if rule not in found and not prover.is_never(formula(asking, spot, rule), asking):
                        found.add(rule)
    warnings = []
    for rule in prover.policy_set.rules:
        if rule not in matched:
            warnings.append(Finding(rule.file, rule.line, 1, DEAD_RULE, NEVER, Severity.WARNING))
        elif rule not in counted:
            warnings.append(Finding(rule.file, rule.line, 1, DEAD_RULE, DENIED, Severity.WARNING))
        elif rule not in needed:
            warnings.append(Finding(rule.file, rule.line, 1, SHADOWED_RULE, SHADOWED, Severity.WARNING))
    return tuple(sorted(warnings))


def _matches(asking: Asking, _: Spot, rule: Rule) -> Formula:
    """Is true where a rule applies: an allow, or a mask that shows, where it is True, others where not False."""
    truth = asking.applies(rule)
    return truth.true if _permits(rule) else asking.symbolic.solver.negation(truth.false)


def _counts(asking: Asking, spot: Spot, rule: Rule) -> Formula:
    """Is true where, besides, nothing denies; of a deny, where it applies."""
    applies = _matches(asking, spot, rule)
    if rule in spot.cell.rules.denies:
        return applies
    return asking.symbolic.solver.all_of((applies, *(asking.applies(other).false for other in spot.cell.rules.denies)))


def _decides(asking: Asking, spot: Spot, rule: Rule) -> Formula:
    """Is true where something would come out otherwise without the rule."""
    s, spoken = asking.symbolic.solver, spot.cell.rules
    allows = s.any_of(asking.applies(other).true for other in spoken.allows if other is not rule)
    counts = _counts(asking, spot, rule)
    if rule in spoken.allows:
        return s.all_of((counts, s.negation(allows)))
    if rule in spoken.denies:
        others = (asking.applies(other).false for other in spoken.denies if other is not rule)
        return s.all_of((counts, allows, *others))
    if rule in spoken.groups:
        if not asking.dataset.subject_keys and parse_group(parameter_of(rule)) <= asking.dataset.group_minimum:
            return False
        return s.all_of((counts, allows, *(asking.applies(other).false for other in _larger(spot, rule))))
    if parse_mask(parameter_of(rule)).kind is MaskKind.NONE and not spot.cell.masked:
        return False
    covering = (s.negation(_matches(asking, spot, other)) for other in _stricter(spot, rule))
    return s.all_of((counts, allows, *covering))


def _permits(rule: Rule) -> bool:
    if rule.ptype == "p":
        return rule.fields[EFFECT] == ALLOW
    return rule.ptype == "p2" and parse_mask(parameter_of(rule)).kind is MaskKind.NONE


def _larger(spot: Spot, rule: Rule) -> Iterator[Rule]:
    k = parse_group(parameter_of(rule))
    yield from (it for it in spot.cell.rules.groups if it is not rule and parse_group(parameter_of(it)) >= k)


def _stricter(spot: Spot, rule: Rule) -> Iterator[Rule]:
    spec = parse_mask(parameter_of(rule))
    for other in spot.cell.rules.masks:
        if other is not rule and at_least_as_strict(parse_mask(parameter_of(other)), spec):
            yield other
