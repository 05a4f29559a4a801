"""Whether every audience stays within its ceiling.

Owns the comparison. A ceiling names roles and a head-count, for each action. Rules:

1. whoever could be allowed rows about others must have one of the roles in the directory itself. A link of the
   policy set gives nobody a role that a ceiling asks for: else the line that leaks would raise the ceiling that
   should stop it;
2. people count, once each, whatever their roles; services do not;
3. who could be allowed rows about themselves alone counts in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

import msgspec

from gatebook.governance.audience import Audiences, Grant
from gatebook.governance.judge import Level
from gatebook.governance.people import NOBODY, Bits, places
from gatebook.governance.request import ABLE, request_of
from gatebook.governance.rules import Cell
from gatebook.policy.dataset import Ceiling, Dataset
from gatebook.policy.directory import Subject
from gatebook.policy.purposes import ConsentMode
from gatebook.values import (
    AccessRequest,
    Counterexample,
    Edge,
    Finding,
    PathStep,
    Rule,
    Severity,
)

AUDIENCE_CEILING = "AUDIENCE_CEILING"
AUDIENCE_HEAD_COUNT = "AUDIENCE_HEAD_COUNT"
UNDECIDED = "its conditions are not decided for any circumstances"
TRIED_MAX = 16
"""Requests tried until one is confirmed."""

Confirm = Callable[[AccessRequest, str], str]
"""Asks a request of a caller (empty: anybody); returns what is in its way, or nothing where it is allowed."""


class Exceeded(msgspec.Struct, frozen=True):
    """An audience beyond its ceiling: `outside` have none of its roles, `people` are more than it may count."""

    dataset: Dataset
    action: str
    ceiling: Ceiling
    outside: Bits
    people: Bits

    @property
    def beyond_count(self) -> int:
        """Returns by how many people the head-count is exceeded; 0 where it is not."""
        most = self.ceiling.people_max
        return 0 if most is None else max(0, self.people.bit_count() - most)

    @property
    def not_proved(self) -> Bits:
        """Returns who is not proved to be within: too many people are none of them."""
        return self.outside | (self.people if self.beyond_count else NOBODY)


def exceeded(audiences: Audiences, only: Container[str] | None = None) -> Iterator[Exceeded]:
    """Yields every audience that exceeds its ceiling; of these datasets, if any are named."""
    people = audiences.people
    for dataset in audiences.datasets():
        if only is not None and dataset.id not in only:
            continue
        for action in audiences.rules.actions:
            ceiling = dataset.ceiling.of(action)
            counted = audiences.of_dataset(dataset, action).beyond_own
            within = NOBODY
            for role in ceiling.roles:
                within |= people.given(role)
            found = Exceeded(dataset, action, ceiling, counted & ~within, counted & ~people.services)
            if found.outside or found.beyond_count:
                yield found


def ceiling_findings(audiences: Audiences, confirm: Confirm, severity: Severity = Severity.ERROR) -> list[Finding]:
    """Returns a finding for each ceiling that is exceeded by roles, and another for each exceeded by count."""
    findings: list[Finding] = []
    for one in exceeded(audiences):
        where = f"`{one.action}` of `{one.dataset.id}`"
        if one.outside:
            roles = ", ".join(f"`{role}`" for role in one.ceiling.roles) or "nobody"
            count = one.outside.bit_count()
            told = f"{where} could be allowed to {_counted(one.outside, audiences)} beyond its ceiling ({roles})"
            findings.append(_finding(audiences, confirm, one, (AUDIENCE_CEILING, told, count, one.outside), severity))
        if one.beyond_count:
            number = one.people.bit_count()
            told = f"{where} could be allowed to {number} people, its ceiling counts {one.ceiling.people_max}"
            wrong = (AUDIENCE_HEAD_COUNT, told, one.beyond_count, one.people)
            findings.append(_finding(audiences, confirm, one, wrong, severity))
    return sorted(findings)


def _finding(
    audiences: Audiences, confirm: Confirm, one: Exceeded, wrong: tuple[str, str, int, Bits], severity: Severity
) -> Finding:
    invariant, told, excess, bits = wrong
    example, rule = _example(audiences, confirm, one, bits)
    how = "for one" if example.confirmed else "possibly"
    way = "; ".join(f"{step.text} ({step.file}:{step.line})" if step.file else step.text for step in example.path)
    message = f"{told}: {how} `{example.subject}`, by {way}"
    if example.why_not:
        message += f"; not confirmed: {example.why_not}"
    return Finding(
        rule.file,
        rule.line,
        1,
        invariant,
        message,
        severity,
        dataset=one.dataset.id,
        action=one.action,
        excess=excess,
        ceiling=one.ceiling.people_max,
        counterexample=example,
    )


def _counted(bits: Bits, audiences: Audiences) -> str:
    services = (bits & audiences.people.services).bit_count()
    people = bits.bit_count() - services
    told = [f"{people:,} {'person' if people == 1 else 'people'}"] if people else []
    told += [f"{services} {'service' if services == 1 else 'services'}"] if services else []
    return " and ".join(told)


def _example(audiences: Audiences, confirm: Confirm, one: Exceeded, bits: Bits) -> tuple[Counterexample, Rule]:
    """Returns somebody of a set with the request that shows it: one that is confirmed, if any of those tried is."""
    best: tuple[Counterexample, Rule] | None = None
    tried = 0
    for subject, cell in _nominees(audiences, one, bits):
        grant = audiences.grant(subject, cell)
        if grant is None:
            continue
        for purpose in _purposes(audiences, cell):
            request, caller = request_of(grant, ABLE, purpose)
            why_not = confirm(request, caller) if grant.judged.witness is not None else UNDECIDED
            example = counterexample(audiences, grant, request, caller, why_not)
            example = msgspec.structs.replace(example, path=(*example.path, *descent_of(audiences, one, subject)))
            if best is None or example.confirmed:
                best = (example, grant.rule)
            tried += 1
            if example.confirmed or tried >= TRIED_MAX:
                return best
    if best is None:
        raise RuntimeError(f"nobody could be allowed `{one.action}` of `{one.dataset.id}`, and yet somebody is counted")
    return best


def _nominees(audiences: Audiences, one: Exceeded, bits: Bits) -> Iterator[tuple[Subject, Cell]]:
    """Yields whom to name and for what: first what is certain, and the most ordinary of whom it concerns."""
    cells = [(cell, reach) for cell, reach in audiences.cells(one.dataset, (one.action,)) if reach.beyond_own & bits]
    cells.sort(key=lambda pair: _needs_consent(audiences, pair[0]))
    for certain in (True, False):
        for cell, reach in cells:
            those = (reach.certain if certain else reach.possible) & bits
            if those:
                subjects = (audiences.people.subjects[place] for place in places(those))
                yield min(subjects, key=lambda it: (len(it.groups), tuple(-ord(c) for c in it.id))), cell


def _purposes(audiences: Audiences, cell: Cell) -> list[str]:
    """Returns the purposes of a cell, those first for which nobody need consent."""
    purposes = audiences.policy_set.purposes
    if purposes is None:
        return list(cell.purposes)
    return sorted(cell.purposes, key=lambda name: purposes.consent_mode(name) is not ConsentMode.NONE)[:2]


def _needs_consent(audiences: Audiences, cell: Cell) -> bool:
    purposes = audiences.policy_set.purposes
    return purposes is None or all(purposes.consent_mode(name) is not ConsentMode.NONE for name in cell.purposes)


def path_of(audiences: Audiences, subject: Subject, rule: Rule) -> tuple[PathStep, ...]:
    """Returns the links from a subject to the role of a rule, then the rule."""
    links = audiences.people.path(subject, rule.fields[0])
    steps = [PathStep(link_text(edge, subject.id), edge.file, edge.line) for edge in links]
    return (*steps, PathStep(rule.text, rule.file, rule.line))


def descent_of(audiences: Audiences, one: Exceeded, subject: Subject) -> tuple[PathStep, ...]:
    """Returns the steps by which a dataset came to a ceiling that a subject is not within, if it inherited it."""
    catalogue = audiences.policy_set.catalogue
    steps: list[PathStep] = []
    here, seen = one.dataset, {one.dataset.id}
    while catalogue is not None and here.origins and len(steps) < TRIED_MAX:
        known = [
            origin for origin in here.origins if origin.dataset in catalogue.datasets and origin.dataset not in seen
        ]
        if not known:
            break
        kept = frozenset(subject.groups)
        origin = min(known, key=lambda it: _room(catalogue.datasets[it.dataset].ceiling.of(one.action), kept))
        text = f"{here.id} is made of {origin.dataset} by {origin.job}, run {origin.run_id}"
        steps.append(PathStep(text, "", 0))
        here = catalogue.datasets[origin.dataset]
        seen.add(here.id)
    return tuple(steps)


def _room(ceiling: Ceiling, roles: frozenset[str]) -> tuple[bool, int, float]:
    """Orders ceilings: first those that do not let somebody with these roles in, then by how many they count."""
    count = float("inf") if ceiling.people_max is None else ceiling.people_max
    return not roles.isdisjoint(ceiling.roles), len(ceiling.roles), count


def link_text(edge: Edge, subject: str) -> str:
    """Says what a link of the way of a subject is."""
    return f"{edge.child} has {edge.parent}" if edge.child == subject else f"{edge.child} inherits {edge.parent}"


def counterexample(
    audiences: Audiences, grant: Grant, request: AccessRequest, caller: str, why_not: str
) -> Counterexample:
    """Returns somebody by name with the request of a grant; nothing is in the way of one that is confirmed."""
    certain = grant.judged.level is Level.CERTAIN
    return Counterexample(
        subject=grant.subject.id,
        subject_type=grant.subject.type,
        path=path_of(audiences, grant.subject, grant.rule),
        columns=request.columns,
        purpose=request.purpose,
        audience=tuple(request.action_properties.get("audience", ())),
        properties_json=_json(request.subject.properties),
        context_json=_json(request.context),
        row_json=_json(request.row),
        caller=caller,
        confirmed=certain and not why_not,
        why_not=why_not,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode() if value else ""
