"""Who gains or loses something, by name: the most ordinary of them, the way, and the request that shows it.

Owns the choice of examples. The way is that of the revision which allows: the new one of a gain, the old one of a
loss. A step of it is new where the other revision does not have it; what stood in the way and no longer does (or did
not and now does) is named beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from gatebook.governance.access import NOTHING, Access, access_of
from gatebook.governance.audience import Audiences, Grant
from gatebook.governance.ceilings import UNDECIDED, counterexample, link_text, path_of
from gatebook.governance.impact import Change, Impact
from gatebook.governance.judge import Judged
from gatebook.governance.request import ABLE, request_of
from gatebook.governance.rules import Cell
from gatebook.policy.directory import Subject
from gatebook.values import AccessRequest, Counterexample, PathStep, Rule

Confirm = Callable[[AccessRequest, str, bool], str]
"""Asks both revisions a request of a caller; returns why that does not show a gain (or a loss), or nothing."""


class Example(msgspec.Struct, frozen=True):
    """Somebody whom a change concerns.

    `new_steps` are the places of the path that the other revision lacks, `obstacles` the rules that stand in the way
    in the other revision alone.
    """

    counterexample: Counterexample
    new_steps: tuple[int, ...]
    obstacles: tuple[PathStep, ...]


def example_of(impact: Impact, change: Change, confirm: Confirm) -> Example | None:
    """Returns somebody of a change with the request that shows what they gain, or, of a mere loss, what they had."""
    audiences, other = (impact.after, impact.before) if change.gained else (impact.before, impact.after)
    grant = grant_of(impact, change, ordinary(audiences, change))
    if grant is None:
        return None
    request, caller = request_of(grant, ABLE)
    why_not = UNDECIDED if grant.judged.witness is None else confirm(request, caller, bool(change.gained))
    path = path_of(audiences, grant.subject, grant.rule)
    known = texts(other)
    return Example(
        counterexample(audiences, grant, request, caller, why_not),
        tuple(place for place, step in enumerate(path) if step.text not in known and not _is_given(step, grant)),
        tuple(_obstacles(other, change.pair.old if change.gained else change.pair.new, grant, audiences)),
    )


def grant_of(impact: Impact, change: Change, subject: Subject) -> Grant | None:
    """Returns how a subject is allowed what it gains, or was allowed what it only loses."""
    audiences, cell = (impact.after, change.pair.new) if change.gained else (impact.before, change.pair.old)
    if cell is None:
        return None
    access = access_of(audiences, cell, audiences.people.place[subject.id])
    if access.nothing:
        return None
    judged = _shown(impact, change, access, subject) or audiences.judge.judge(access.left, cell.dataset)
    asked = msgspec.structs.replace(cell, columns=change.pair.columns, purposes=change.pair.purposes)
    return Grant(subject, asked, access.allows[judged.allow].rule, judged)


def ordinary(audiences: Audiences, change: Change) -> Subject:
    """Returns the subject of a change that has the fewest roles of its own: of whom it is certain, if of any."""
    bits = change.certain & ~change.own or change.certain or change.subjects
    return min(audiences.people.among(bits), key=lambda it: (len(it.groups), tuple(-ord(c) for c in it.id)))


def _shown(impact: Impact, change: Change, new: Access, subject: Subject) -> Judged | None:
    """Returns how a request shows a gain, where one is known."""
    if not change.gained:
        return None
    place = impact.after.people.place[subject.id]
    released = impact.released.get((change.dataset, change.action), 0) >> place & 1
    old = NOTHING if released or change.pair.old is None else access_of(impact.before, change.pair.old, place)
    found = impact.comparison.difference(old, change.pair.was, new, change.pair.now)
    return None if found is None else found.shown


def _is_given(step: PathStep, grant: Grant) -> bool:
    """Tells whether a step is what the directory says, which both revisions read."""
    return any(step.text == f"{grant.subject.id} has {group}" for group in grant.subject.groups)


def _obstacles(other: Audiences, cell: Cell | None, grant: Grant, audiences: Audiences) -> Iterable[PathStep]:
    """Yields what denies, masks or groups for the subject in the other revision and not in the one that allows."""
    if cell is None:
        return
    held = other.people.roles(other.people.place[grant.subject.id])
    stands = {_said(rule) for rule in _obliging(grant.cell, audiences)}
    for rule in _obliging(cell, other):
        if rule.fields[0] in held and _said(rule) not in stands:
            yield PathStep(rule.text, rule.file, rule.line)


def _obliging(cell: Cell, audiences: Audiences) -> tuple[Rule, ...]:
    rules = (*audiences.denies(cell), *cell.rules.masks, *cell.rules.groups)
    return tuple({id(rule): rule for rule in rules}.values())


def _said(rule: Rule) -> tuple[str, ...]:
    return (rule.ptype, *rule.fields)


def texts(audiences: Audiences) -> frozenset[str]:
    """Returns what a path of a revision can say: its rules, and its links."""
    links = (edge for edge in audiences.policy_set.edges if edge.gtype == "g")
    said = (text for edge in links for text in (link_text(edge, edge.child), link_text(edge, "")))
    return frozenset((*said, *(rule.text for rule in audiences.policy_set.rules)))
