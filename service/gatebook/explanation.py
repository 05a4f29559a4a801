"""Explains an answer to whoever asked: the nearest rules, what they lacked, and the roles of the subject.

Owns the choice of what is explained: of a governed set the first column that the rules denied. It changes
nothing and decides nothing; what it says is as of the snapshot that decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from gatebook.authorize import Question, Resolved, evaluate_request, facts, resolve
from gatebook.compiler.roles import reach
from gatebook.engine.bind import at, moment_of
from gatebook.engine.evaluate import governed_tokens
from gatebook.engine.explain import explain
from gatebook.engine.snapshot import Snapshot
from gatebook.values import Effect, NearRule

ROLES_MAX = 100


def explain_question(
    snapshot: Snapshot, question: Question, now: datetime
) -> tuple[tuple[NearRule, ...], tuple[str, ...]]:
    """Returns the rules that came near and what they lacked at the time of the decision, and the subject's roles."""
    subject, moment = question.request.subject.id, moment_of(snapshot.program, now)
    if not snapshot.governed:
        return explain(snapshot.program, at(question.tokens, moment)), roles_of(snapshot, subject, ())
    found = resolve(snapshot, question.request)
    if not isinstance(found, Resolved):
        return (), ()
    roles = roles_of(snapshot, subject, found.subject.groups)
    denied = [v.column for v in evaluate_request(snapshot, question, found, moment) if v.effect is not Effect.ALLOW]
    if not denied:
        return (), roles
    read = facts(snapshot, question, found, moment)
    about = governed_tokens(
        subject=read["subject"],
        attributes=read["attributes"],
        action=read["action"],
        purpose=read["purpose"],
        context=read["context"],
        row=read["row"],
        now=moment,
    )
    return explain(snapshot.program, {**about, "obj": denied[0]}), roles


def roles_of(snapshot: Snapshot, subject: str, groups: Sequence[str]) -> tuple[str, ...]:
    """Returns every role of a subject, by the directory and the policy, in alphabetical order, at most 100."""
    linked = [edge.parent for edge in snapshot.policy_set.edges if edge.gtype == "g" and edge.child == subject]
    parents: Mapping[str, Sequence[str]] = {role: tuple(above) for role, above in snapshot.role_parents.items()}
    return tuple(sorted(reach({**parents, subject: (*groups, *linked)}, subject) - {subject}))[:ROLES_MAX]
