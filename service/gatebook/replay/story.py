"""What a decision rests on: rules with the links by which they apply, tags, masks, purpose and notice.

Owns what is told of a decision that was made again. It decides nothing, and tells ids, rules and links, never the
values of attributes or of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gatebook.authorize import Resolved, evaluate_request, facts, resolve
from gatebook.engine.bind import moment_of
from gatebook.engine.decision import effect_of
from gatebook.engine.judged import judge_columns
from gatebook.engine.mask_order import Contradiction, order_masks
from gatebook.engine.obligations import demands_mask, parameter_of
from gatebook.engine.snapshot import Snapshot
from gatebook.expression.tree import Expression
from gatebook.policy.names import TAG_PREFIX
from gatebook.replay.again import Again
from gatebook.replay.links import Links
from gatebook.values import ColumnOutcome, Effect, Mask, PathStep, Reason, Rule, RuleRef

SUBJECT, RESOURCE, PURPOSE = 0, 1, 3
"""Where the fields of a governed rule stand."""
RULES_MAX = 100


class ExplainedMask(msgspec.Struct, frozen=True):
    """A mask, and the rule that gave it, where one did."""

    mask: Mask
    rule: RuleRef | None


class ExplainedColumn(msgspec.Struct, frozen=True):
    """A column: its outcome, what the catalogue says of it, and whence its masks are."""

    column: str
    effect: Effect
    reason: Reason
    type: str = ""
    tags: tuple[str, ...] = ()
    mask_tags: tuple[str, ...] = ()
    masks: tuple[ExplainedMask, ...] = ()


class ExplainedRule(msgspec.Struct, frozen=True):
    """A rule that shaped the decision, the columns that it speaks of, and the links by which it does."""

    rule: RuleRef
    columns: tuple[str, ...] = ()
    subject_path: tuple[PathStep, ...] = ()
    resource_path: tuple[PathStep, ...] = ()
    purpose_path: tuple[PathStep, ...] = ()


class Story(msgspec.Struct, frozen=True):
    """What a decision rests on."""

    rules: tuple[ExplainedRule, ...] = ()
    columns: tuple[ExplainedColumn, ...] = ()
    purpose_lineage: tuple[str, ...] = ()
    notice_purposes: tuple[str, ...] = ()
    notice_description: str = ""


class _Spoken(msgspec.Struct, frozen=True):
    """What the rules said of one column; `masks` with their conditions."""

    deciding: tuple[Rule, ...]
    masks: tuple[tuple[Rule, Expression | None], ...]
    groups: tuple[Rule, ...]


def tell(snapshot: Snapshot, again: Again) -> Story:
    """Returns what a decision that was made again rests on."""
    request, decision = again.question.request, again.decision
    if not snapshot.governed:
        links = Links(snapshot, request.subject.id, [str(value) for value in again.question.tokens.values()])
        return Story(tuple(_plain_rule(snapshot, rule, again, links) for rule in decision.rules))
    found = resolve(snapshot, request)
    if not isinstance(found, Resolved):
        return Story()
    links = Links(snapshot, request.subject.id)
    purposes = snapshot.policy_set.purposes
    lineage = () if purposes is None else purposes.lineage(request.purpose)
    spoken = _spoken(snapshot, again, found)
    told = decision.columns or tuple(ColumnOutcome(name, decision.effect, decision.reason) for name in found.columns)
    return Story(
        rules=tuple(_rules(snapshot, again, found, links, spoken)),
        columns=tuple(_column(snapshot, again, found, links, spoken, outcome) for outcome in told),
        purpose_lineage=lineage,
        notice_purposes=found.dataset.purposes,
        notice_description=found.notice.description,
    )


def _spoken(snapshot: Snapshot, again: Again, found: Resolved) -> Mapping[str, _Spoken]:
    """Returns what the rules said of each column, by its name."""
    question, moment = again.question, moment_of(snapshot.program, again.time)
    if not again.decision.plan_dialect:
        return {
            name: _Spoken(
                verdict.rules,
                tuple((each.rule, each.condition) for each in verdict.masks),
                tuple(each.rule for each in verdict.groups),
            )
            for name, verdict in zip(found.columns, evaluate_request(snapshot, question, found, moment), strict=True)
        }
    read = facts(snapshot, question, found, moment)
    judged = judge_columns(
        snapshot.program,
        subject=read["subject"],
        attributes=read["attributes"],
        columns=read["columns"],
        action=read["action"],
        purpose=read["purpose"],
        context=read["context"],
        now=moment,
    )
    return {
        name: _Spoken(
            tuple(each.rule for each in (*one.denies, *one.allows)),
            tuple((each.rule, each.condition) for each in one.masks),
            tuple(each.rule for each in one.groups),
        )
        for name, one in zip(found.columns, judged, strict=True)
    }


def _rules(
    snapshot: Snapshot, again: Again, found: Resolved, links: Links, spoken: Mapping[str, _Spoken]
) -> Iterable[ExplainedRule]:
    """Yields the rules that shaped the decision, those that decided first, each once."""
    columns: dict[Rule, list[str]] = {}
    outcomes = {outcome.column: outcome for outcome in again.decision.columns}
    for part in ("deciding", "masks", "groups"):
        for name, said in spoken.items():
            outcome = outcomes.get(name)
            if part != "deciding" and (outcome is None or outcome.effect is not Effect.ALLOW):
                continue
            for rule in [rule for rule, _ in said.masks] if part == "masks" else getattr(said, part):
                columns.setdefault(rule, []).append(name)
    request = again.question.request
    for rule, names in list(columns.items())[:RULES_MAX]:
        node = found.dataset.columns[names[0]].node
        yield ExplainedRule(
            reference(snapshot, rule),
            tuple(names),
            links.path("g", request.subject.id, rule.fields[SUBJECT]),
            links.path("g2", node, rule.fields[RESOURCE]),
            links.path("g3", request.purpose, rule.fields[PURPOSE]),
        )


def _column(  # all that is known of a column
    snapshot: Snapshot,
    again: Again,
    found: Resolved,
    links: Links,
    spoken: Mapping[str, _Spoken],
    outcome: ColumnOutcome,
) -> ExplainedColumn:
    known = found.dataset.columns.get(outcome.column)
    if known is None:
        return ExplainedColumn(outcome.column, outcome.effect, outcome.reason)
    catalogue = snapshot.policy_set.catalogue
    demanding = frozenset() if catalogue is None else catalogue.mask_tags
    tags = tuple(name for name in links.reached("g2", known.node) if name.startswith(TAG_PREFIX))
    said = spoken.get(outcome.column)
    key_id = snapshot.mask_key_ids[again.question.request.purpose]
    rules = () if said is None else _mask_rules(said.masks, outcome.masks, known.type, key_id)
    return ExplainedColumn(
        outcome.column,
        outcome.effect,
        outcome.reason,
        known.type,
        tags,
        tuple(tag for tag in tags if demands_mask((tag,), demanding)),
        tuple(
            ExplainedMask(mask, reference(snapshot, rules[place]) if place < len(rules) else None)
            for place, mask in enumerate(outcome.masks)
        ),
    )


def _mask_rules(
    said: Sequence[tuple[Rule, Expression | None]], masks: Sequence[Mask], type_: str, key_id: str
) -> tuple[Rule, ...]:
    """Returns the rule of each mask of a column, in order; none where they were put in another order than checks do."""
    ordered = order_masks([(parameter_of(rule), condition) for rule, condition in said], type_, key_id)
    if isinstance(ordered, Contradiction) or [m.kind for m in ordered.masks] != [m.kind for m in masks]:
        return ()
    return tuple(said[origin][0] for origin in ordered.origins)


def _plain_rule(snapshot: Snapshot, rule: RuleRef, again: Again, links: Links) -> ExplainedRule:
    """Returns a rule of a plain set with the links from what was asked to what it names, where there are some."""
    policy_set = snapshot.policy_set
    found = next((it for it in policy_set.rules if (it.file, it.line) == (rule.file, rule.line)), None)
    tokens = again.question.tokens
    if found is None:
        return ExplainedRule(rule)
    names = policy_set.model.policies[found.ptype].tokens
    fields = dict(zip(names, found.fields, strict=False))

    def way(token: str) -> tuple[PathStep, ...]:
        asked, wanted = str(tokens.get(token, "")), fields.get(token, "")
        return next(filter(None, (links.path(gtype, asked, wanted) for gtype in policy_set.model.roles)), ())

    return ExplainedRule(rule, (), way("sub"), way("obj"))


def reference(snapshot: Snapshot, rule: Rule) -> RuleRef:
    """Returns a reference to a rule."""
    return RuleRef(rule.text, rule.file, rule.line, effect_of(snapshot, rule))
