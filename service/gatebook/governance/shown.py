"""A counterexample: somebody invented, and the request by which the rules allow what a guardrail forbids.

Owns the way from a model of the solver to values, and the confirmation. Promises: a counterexample is `real` only
where the reference engine, asked this very request with this somebody in the directory, allows it, and its masks,
minimum group and row are such that the form of access holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

import msgspec

from gatebook.compiler.roles import reach
from gatebook.compiler.timed import with_time
from gatebook.engine.obligations import Obliged, oblige
from gatebook.engine.reference import Reference
from gatebook.expression.environment import Named
from gatebook.expression.moments import NOW, TIME_MATCH, Moment
from gatebook.expression.operations import equal
from gatebook.expression.truth import FALSE, evaluate
from gatebook.governance.anybody import DAYS_MAX
from gatebook.governance.conditions import TIMES
from gatebook.governance.people import People
from gatebook.governance.possible import Asking, Spot
from gatebook.governance.request import ABLE, SHARE
from gatebook.governance.smt import Model
from gatebook.governance.symbolic import Items, Value
from gatebook.governance.texts import Texts
from gatebook.policy.casts import cast_row
from gatebook.policy.dataset import Dataset
from gatebook.policy.directory import Directory, Subject
from gatebook.policy.guardrails import Form
from gatebook.policy.masks import MaskSpec, at_least_as_strict
from gatebook.policy.policy_set import PolicySet
from gatebook.values import AccessRequest, Counterexample, Edge, Effect, Entity, Mask, MaskKind, PathStep, Rule

SOMEBODY: Final = "somebody"
USER: Final = "user"
FRESH: Final = "another"
_START: Final = datetime.min.replace(tzinfo=UTC)


class Shown(msgspec.Struct, frozen=True):
    """Somebody with the request that they are allowed; `rule` allows it."""

    subject: Subject
    request: AccessRequest
    caller: str
    now: datetime
    rule: Rule
    path: tuple[PathStep, ...]

    def counterexample(self, why_not: str) -> Counterexample:
        """Returns it as a value of findings; `why_not` says what is in its way now."""
        request = self.request
        return Counterexample(
            subject=self.subject.id,
            subject_type=self.subject.type,
            path=self.path,
            columns=request.columns,
            purpose=request.purpose,
            audience=tuple(request.action_properties.get("audience", ())),
            properties_json=_json(request.subject.properties),
            context_json=_json(request.context),
            row_json=_json(request.row),
            caller=self.caller,
            confirmed=not why_not,
            why_not=why_not,
        )


class Draft(msgspec.Struct, frozen=True):
    """What a model says, not yet confirmed."""

    subject: Subject
    request: AccessRequest
    caller: str
    now: datetime


def draft_of(model: Model, asking: Asking, spot: Spot, known: Subject | None = None) -> Draft:
    """Reads somebody, where it is nobody who is `known`, and their request out of a model."""
    somebody, around = asking.somebody, asking.around
    texts = somebody.solver.texts
    attributes = {name: _value(value, model, texts) for name, value in somebody.attributes.items()}
    stated: dict[str, dict[str, Any]] = {"ctx": {}, "sub": {}, "row": {}}
    for (kind, name), value in around.values.items():
        alone = model.holds(around.own.get(name, False)) if kind == "row" else None
        found = _value(
            value,
            model,
            texts,
            uuid=_is_uuid(spot, kind, name),
            own=texts.at(model.number(somebody.id.text)) if alone else None,
        )
        if kind == "row" or found is not None:
            stated[kind][name] = found
    id_ = texts.at(model.number(somebody.id.text))
    subject = known or Subject(
        USER,
        id_,
        {name: tuple(it) if isinstance(it, list) else it for name, it in attributes.items() if it is not None},
        tuple(role for role, given in sorted(somebody.roles.items()) if model.holds(given)),
    )
    cell = spot.cell
    audience = list(cell.dataset.ceiling.of("read").roles) if cell.action == SHARE else []
    request = AccessRequest(
        subject=Entity(subject.type, id_, stated["sub"]),
        action=cell.action,
        action_properties={"audience": audience} if audience else {},
        resource=cell.dataset.id,
        columns=(spot.columns[0].name,),
        purpose=spot.purposes[0],
        context=stated["ctx"],
        row=stated["row"] or None,
        enforcer=ABLE,
    )
    return Draft(
        subject, request, around.callers(model), _START + timedelta(microseconds=int(model.number(around.now)))
    )


def _is_uuid(spot: Spot, kind: str, name: str) -> bool:
    return kind == "row" and spot.cell.dataset.columns[name].type == "uuid"


class Answered(msgspec.Struct, frozen=True):
    """What the reference answers, for the one column of a draft: `rule` allows it. `facts` are what conditions read."""

    dataset: Dataset
    rule: Rule
    obliged: Obliged
    row: Mapping[str, Any] | None
    facts: Mapping[str, Any]

    @property
    def mask(self) -> MaskSpec:
        """Returns the mask that applies; `none` where nothing is hidden."""
        masks = self.obliged.columns[0].masks
        return _spec(masks[0]) if masks else MaskSpec(MaskKind.NONE)

    @property
    def group(self) -> int:
        """Returns of how many people a figure must be made, as the enforcer is told; 0: of any number."""
        return self.obliged.minimum_group.k if self.obliged.minimum_group is not None else 0


def answered(policy_set: PolicySet, draft: Draft) -> Answered | None:
    """Asks the reference; None where it does not allow the request."""
    catalogue = policy_set.catalogue
    request, subject = draft.request, draft.subject
    dataset = None if catalogue is None else catalogue.datasets.get(request.resource)
    if catalogue is None or dataset is None or not dataset.columns.keys() >= set(request.columns):
        return None
    believed = policy_set.settings.believed(draft.caller)
    attributes = {k: v for k, v in request.subject.properties.items() if k in believed.subject} | dict(
        subject.attributes
    )
    context = {k: v for k, v in request.context.items() if k in believed.context}
    row = None if request.row is None else cast_row(dataset, request.row)
    directory = Directory("", {subject.id: subject})
    verdicts = Reference(policy_set, directory).evaluate_columns(
        subject=subject.id,
        attributes=attributes,
        columns=[dataset.columns[name].node for name in request.columns],
        action=request.action,
        purpose=request.purpose,
        context=context,
        row=row,
        now=Moment(draft.now),
    )
    obliged = oblige(dataset, verdicts, ABLE, key_id="key", mask_tags=catalogue.mask_tags)
    if verdicts[0].effect is not Effect.ALLOW or obliged.failed is not None:
        return None
    named = Named(subject.id, {**attributes, "id": subject.id})
    facts = {"r": {"sub": named, "ctx": context, "row": row, NOW: Moment(draft.now)}}
    return Answered(dataset, verdicts[0].rules[0], obliged, row, facts)


def shown(policy_set: PolicySet, draft: Draft, rule: Rule) -> Shown:
    """Returns a draft that a rule of a set allows, with the way to it."""
    subject = draft.subject
    path = _path(policy_set, Directory("", {subject.id: subject}), subject, rule)
    return Shown(subject, draft.request, draft.caller, draft.now, rule, path)


def confirmed(policy_set: PolicySet, form: Form, draft: Draft) -> Shown | None:
    """Asks the reference; None where it does not allow the request, or the access is not of the form."""
    found = answered(policy_set, draft)
    if found is None or not _is_of_whom(policy_set, form, draft.subject, found.facts):
        return None
    return shown(policy_set, draft, found.rule) if _counts(form, found, draft.subject) else None


def _is_of_whom(policy_set: PolicySet, form: Form, subject: Subject, facts: Mapping[str, Any]) -> bool:
    above: dict[str, list[str]] = {}
    for edge in policy_set.edges:
        if edge.gtype == "g":
            above.setdefault(edge.child, []).append(edge.parent)
    held = {name for start in (subject.id, *subject.groups) for name in reach(above, start)}
    who = form.who
    if not set(subject.groups).isdisjoint(who.without):
        return False
    if who.holding and held.isdisjoint(who.holding):
        return False
    if who.where is None:
        return True
    tree = with_time(who.where.tree, "r", frozenset({TIME_MATCH}))
    return evaluate(tree, facts, TIMES) is not FALSE


def _counts(form: Form, found: Answered, subject: Subject) -> bool:
    dataset, mask = found.dataset, found.mask
    if mask.kind is not MaskKind.NONE and (
        form.masked or any(at_least_as_strict(mask, wanted) for wanted in form.masks)
    ):
        return False
    k = found.group if dataset.subject_keys else max(found.group, dataset.group_minimum)
    if form.group and k >= form.group:
        return False
    return not (form.own_rows and _is_own(dataset, subject, found.row or {}))


def _is_own(dataset: Dataset, subject: Subject, row: Mapping[str, Any]) -> bool:
    """Tells whether a row is about the subject alone."""
    own = [
        equal(row.get(key), (subject.id,) if dataset.columns[key].type == "text[]" else subject.id) is True
        for key in dataset.subject_keys
    ]
    return bool(own) and all(own)


def _spec(mask: Mask) -> MaskSpec:
    return MaskSpec(mask.kind, tuple(value for name, value in mask.parameters.items() if name != "type"))


def _path(policy_set: PolicySet, directory: Directory, subject: Subject, rule: Rule) -> tuple[PathStep, ...]:
    """Returns somebody as a line of a directory, the links from them to the role of a rule, then the rule."""
    line = {"type": subject.type, "id": subject.id, "attributes": subject.attributes, "groups": subject.groups}
    links = People(directory, policy_set.edges).path(subject, rule.fields[0])
    steps = [PathStep(_told(edge, subject), edge.file, edge.line) for edge in links]
    return (PathStep(msgspec.json.encode(line).decode()), *steps, PathStep(rule.text, rule.file, rule.line))


def _told(edge: Edge, subject: Subject) -> str:
    return f"{edge.child} has {edge.parent}" if edge.child == subject.id else f"{edge.child} inherits {edge.parent}"


def _value(value: Value, model: Model, texts: Texts, *, uuid: bool = False, own: str | None = None) -> Any:  # noqa: ANN401  # any JSON
    """Returns a value as JSON says it; None where it has no kind."""
    if model.holds(value.is_truth):
        return model.holds(value.truth)
    if model.holds(value.is_number):
        number = model.number(value.number)
        return int(number) if model.holds(value.whole) and number.denominator == 1 else float(number)
    if model.holds(value.is_text):
        return texts.at(model.number(value.text), uuid=uuid)
    if model.holds(value.is_time):
        return (_START + timedelta(microseconds=int(model.number(value.time)))).isoformat()
    if model.holds(value.is_date):
        return (_START + timedelta(days=min(int(model.number(value.date)), DAYS_MAX - 1))).date().isoformat()
    if model.holds(value.is_list):
        return [own] if own is not None else _items(value.items, model, texts)
    return {} if model.holds(value.is_other) else None


def _items(items: Items, model: Model, texts: Texts) -> list[Any]:
    """Returns the items of a list: its members among what was asked for, and one more of a kind that it has."""
    asked, numbers, truths = items.asked
    found: list[Any] = [texts.at(model.number(term)) for term in asked if model.holds(items.texts(term))]
    found += [_number(model.number(term)) for term in numbers if model.holds(items.numbers(term))]
    found += [model.holds(term) for term in truths if model.holds(items.truths(term))]
    kinds: tuple[tuple[bool, type, Any], ...] = (
        (items.has_texts, str, FRESH),
        (items.has_numbers, float, 0.5),
        (items.has_others, dict, {}),
    )
    for has, kind, fresh in kinds:
        if model.holds(has) and not any(isinstance(item, kind) and not isinstance(item, bool) for item in found):
            found.append(fresh)
    if model.holds(items.has_truths) and not any(isinstance(item, bool) for item in found):
        found.append(True)
    return [item for place, item in enumerate(found) if not any(item is other for other in found[:place])]


def _number(number: Fraction) -> int | float:
    return int(number) if number.denominator == 1 else float(number)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode() if value else ""
