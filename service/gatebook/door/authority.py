"""Who may call what, ask about whom, publish what and see which entries: the policy set `gatebook`.

Owns the questions that the door puts to the active revision of that set, and remembers the answers. Rules:

1. what no rule allows is refused, and so is everything where no revision is active or fits the door;
2. an answer holds for one revision, one caller with these very attributes, one object and one policy set; a
   publish forgets all of them at once, so that the next call sees what it revoked;
3. what the caller is, is what the door recognised: no attribute can say otherwise, and nobody is a role;
4. one of several workers that does not know what is active answers nothing here either: it is out of service.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import msgspec

from gatebook.audit.sight import Sight
from gatebook.compiler.program import Program
from gatebook.door.caller import Caller, recalled
from gatebook.engine.permission import Permission, permission
from gatebook.engine.snapshot import Snapshot
from gatebook.expression.environment import Named
from gatebook.policy.gatebook_set import (
    ASK,
    CALL,
    DIRECTORY,
    GATEBOOK,
    KEEPING,
    POLICY_SET,
    PUBLISH,
    READ,
    SEE,
    shape_findings,
)
from gatebook.policy.names import looks_like_a_node
from gatebook.policy.policy_set import PolicySet
from gatebook.revisions.active import Revisions
from gatebook.revisions.proposals import Proposal
from gatebook.revisions.publisher import Publisher
from gatebook.values import Entity, Revision, Severity

CALLERS_MAX = 4_096
"""How many callers are remembered; of more, who came first is forgotten."""
ANSWERS_MAX = 1_024
"""How many answers are remembered of one caller, who chooses the names in them; then that caller's are forgotten."""
ALL_ANSWERS_MAX = 65_536
"""How many answers are remembered of all callers together; then all are forgotten."""
KEY_CHARACTERS_MAX = 512
"""Of the names in an answer that is remembered: callers make them up."""
NO_SET = ""
"""Stands for the policy set where none is concerned."""

_Key = tuple[str, str, str]
_encode = msgspec.json.Encoder(order="deterministic", enc_hook=repr).encode


class _Answers:
    """What is remembered of one caller."""

    __slots__ = ("caller", "found")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.found: dict[_Key, Permission] = {}


class Authority:
    """Answers for the active revision of the set `gatebook`. Used on the event loop only."""

    def __init__(self, revisions: Revisions, *, dev: bool) -> None:
        """Takes the active revisions, and whether the server runs with `--dev`."""
        self._revisions = revisions
        self._dev = dev
        self._snapshot: Snapshot | None = None
        self._answers: dict[bytes, _Answers] = {}
        self._nearest: dict[str, _Answers] = {}
        """The answers of whoever last called under an id: the usual case, found without looking at attributes."""
        self._remembered = 0
        self._program: Program | None = None

    @property
    def revision(self) -> Revision | None:
        """Returns the revision that decides, or None: then everything is refused."""
        snapshot = self._revisions.state.snapshots.get(GATEBOOK)
        return None if snapshot is None else snapshot.policy_revision

    def may_call(self, caller: Caller, operation: str) -> bool:
        """Tells whether a caller may call an operation."""
        return self.permission(caller, CALL, operation) is True

    def may_ask(self, caller: Caller, policy_set: str, subject: Entity, actor: Entity | None = None) -> bool:
        """Tells whether a caller may ask a policy set about a subject, and about who acts on its behalf.

        A set may find a subject without a type by its id alone, so that it is asked about whichever type that has.
        """
        if subject.type and (actor is None or actor.type):
            return self._may_ask(caller, policy_set, subject, actor)
        actors = (None,) if actor is None else self._meant(policy_set, actor)
        meant = itertools.product(self._meant(policy_set, subject), actors)
        return all(self._may_ask(caller, policy_set, *parts) for parts in meant)

    def _meant(self, policy_set: str, entity: Entity) -> tuple[Entity, ...]:
        """Returns who may be meant: of each type that the set knows, where the type was left out."""
        known = self._revisions.state.policy_sets.get(policy_set)
        if entity.type or known is None or known.subjects is None:
            return (entity,)
        return (entity, *(Entity(type_, entity.id) for type_ in known.subjects.by_type))

    def _may_ask(self, caller: Caller, policy_set: str, subject: Entity, actor: Entity | None) -> bool:
        found = self.permission(caller, ASK, subject.type, policy_set)
        if found is not True and (found is False or not found.permits(asked(subject, "subject", actor))):
            return False
        if actor is None:
            return True
        found = self.permission(caller, ASK, actor.type, policy_set)
        return found is True or (found is not False and found.permits(asked(actor, "actor", subject)))

    def may_ask_some(self, caller: Caller, policy_set: str, subject_type: str) -> bool:
        """Tells whether a caller may ask a policy set about any subject of a type."""
        return self.permission(caller, ASK, subject_type, policy_set) is not False

    def publisher(self, caller: Caller) -> Publisher:
        """Returns a caller as one who publishes: its rights are looked up when it comes to that."""

        def may_publish(what: str, policy_set: str) -> bool:
            return self.permission(caller, PUBLISH, what, policy_set) is True

        def keeps_right(draft: Program) -> bool:
            return all(permission(draft, tokens(caller, *act, dev=self._dev)) is True for act in KEEPING)

        return Publisher(caller.id, may_publish, keeps_right, caller.subject)

    def recalled(self, proposal: Proposal) -> Publisher:
        """Returns who proposed something before this start: of their rights, those that their id alone gives."""
        directory = self._revisions.state.directory
        known = None if directory is None else directory.subjects.get(proposal.requester)
        subject = None if known is None else Entity(known.type, proposal.requester)
        return self.publisher(recalled(proposal.requested_by, subject))

    def may_read(self, caller: Caller, policy_set: str) -> bool:
        """Tells whether a caller may read the revisions of a policy set, or those of the directory ("")."""
        return self.permission(caller, READ, POLICY_SET if policy_set else DIRECTORY, policy_set) is True

    def sight(self, caller: Caller) -> Sight:
        """Returns what a caller sees of the book under the revision that is active now; any thread may use it."""
        self._renew()
        program = None if looks_like_a_node(caller.id) else self._program

        @functools.cache
        def seeing(kind: str, policy_set: str) -> Permission:
            return program is not None and permission(program, tokens(caller, SEE, kind, policy_set, dev=self._dev))

        return Sight(seeing)

    def permission(self, caller: Caller, act: str, what: str, policy_set: str = NO_SET) -> Permission:
        """Returns whether the active revision permits something: always, never, or for some rows."""
        self._renew()
        answers = self._nearest.get(caller.id)
        if answers is None or answers.caller is not caller:
            answers = self._answers_of(caller)
        key = (act, what, policy_set)
        found = answers.found.get(key)
        if found is None:
            found = self._find(answers, key)
        return found

    def _renew(self) -> None:
        """Forgets every answer when another revision has become active.

        Raises:
            ControlFeedLostError: it is not known whether one has.
        """
        self._revisions.require_lease()
        snapshot = self._revisions.state.snapshots.get(GATEBOOK)
        if snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        self._forget_all()
        fits = snapshot is not None and fits_the_door(snapshot.policy_set)
        self._program = snapshot.program if snapshot is not None and fits else None

    def _forget_all(self) -> None:
        self._answers.clear()
        self._nearest.clear()
        self._remembered = 0

    def _answers_of(self, caller: Caller) -> _Answers:
        identity = _encode((caller.id, caller.kind.value, attributes_of(caller)))
        answers = self._answers.get(identity)
        if answers is None:
            if len(self._answers) >= CALLERS_MAX:
                self._forget_oldest()
            answers = self._answers[identity] = _Answers(caller)
        answers.caller = caller
        self._nearest[caller.id] = answers
        return answers

    def _forget_oldest(self) -> None:
        oldest = self._answers.pop(next(iter(self._answers)))
        self._remembered -= len(oldest.found)
        if self._nearest.get(oldest.caller.id) is oldest:
            del self._nearest[oldest.caller.id]

    def _find(self, answers: _Answers, key: _Key) -> Permission:
        found: Permission = False
        if self._program is not None and not looks_like_a_node(answers.caller.id):
            found = permission(self._program, tokens(answers.caller, *key, dev=self._dev))
        if sum(map(len, key)) > KEY_CHARACTERS_MAX:
            return found
        if self._remembered >= ALL_ANSWERS_MAX:
            self._forget_all()
        elif len(answers.found) >= ANSWERS_MAX:
            self._remembered -= len(answers.found)
            answers.found.clear()
        self._remembered += 1
        answers.found[key] = found
        return found


def tokens(caller: Caller, act: str, what: str, policy_set: str, *, dev: bool) -> dict[str, Any]:
    """Returns what the rules read of a question, before the row is known."""
    attributes = attributes_of(caller)
    return {
        "sub": Named(caller.id, attributes),
        "obj": what,
        "act": act,
        "set": policy_set,
        "ctx": {"dev": dev},
        "row": None,
    }


def attributes_of(caller: Caller) -> dict[str, Any]:
    """Returns what the rules read as `r.sub`: no attribute outranks what the door recognised."""
    subject = caller.subject
    own = {} if subject is None else {"subject_type": subject.type, "subject_id": subject.id}
    stated = {k: v for k, v in caller.attributes.items() if k not in ("subject_type", "subject_id")}
    return {**stated, **own, "id": caller.id, "kind": caller.kind.value}


def asked(entity: Entity, part: str, other: Entity | None) -> dict[str, str]:
    """Returns what the rules read as `r.row` of who is asked about: the subject or the actor, and the other of them."""
    row = {"part": part, "type": entity.type, "id": entity.id}
    if other is not None:
        row |= {"other_type": other.type, "other_id": other.id}
    return row


def fits_the_door(policy_set: PolicySet) -> bool:
    """Tells whether a set has the shape that the door relies on."""
    return all(finding.severity is not Severity.ERROR for finding in shape_findings(policy_set))
