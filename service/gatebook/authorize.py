"""The way of one request, from the question to the written answer. Read it from top to bottom.

    resolve    are dataset, columns, subject and action known?
    purpose    is a purpose named, known, and permitted by the dataset's notice?
    evaluate   what do the Casbin rules say, column by column?
    oblige     is consent needed; which masks and minimum group; can the enforcer apply them?
    write      append to the book and wait until it is durable

Rules:

1. the reason of a denial is that of the first step that failed;
2. every step but `evaluate` only ever narrows;
3. there is no super-user, no default allow, and no switch that turns a step off;
4. nothing is answered before it is written: `authorize` returns only what is durably in the book.

A plain set has no catalogue and no purposes: its question is bound to the tokens of its Casbin
model and evaluated, and the answer is written all the same. Where it brings its subjects or resources,
the others do not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

import msgspec

from gatebook.audit.asked import Asked, ask
from gatebook.audit.decision_entry import DATA_SUBJECTS_MAX, Decided
from gatebook.audit.random_pieces import RandomPieces
from gatebook.audit.recorder import Recorder, Written
from gatebook.engine.bind import at, bind, moment_of
from gatebook.engine.decision import Denial, allowed, data_subjects, denied
from gatebook.engine.evaluate import ColumnVerdict, evaluate, evaluate_columns
from gatebook.engine.known import as_known, refuse_unknown
from gatebook.engine.obligations import Obliged
from gatebook.engine.snapshot import Snapshot
from gatebook.engine.standing import Standing
from gatebook.errors import InvalidRequestError, LimitExceededError
from gatebook.expression.moments import Moment
from gatebook.policy.casts import cast_row
from gatebook.policy.dataset import DATASET_TYPE, Dataset, Notice
from gatebook.policy.directory import Subject
from gatebook.policy.purposes import ConsentMode
from gatebook.values import AccessRequest, Decision, Effect, Reason

SHARE = "share"
FAIR_SHARE = 50
"""Questions of one call that are decided without a pause."""
_decision_ids = RandomPieces(16)


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request, fit to be decided and written; `tokens` are those of a plain set's model.

    `standing` is there where the same caller asked the same before: what was decided then may still stand.
    """

    asked: Asked
    caller: str
    tokens: Mapping[str, Any] = {}
    standing: Standing | None = None

    @property
    def request(self) -> AccessRequest:
        """Returns the request itself."""
        return self.asked.request


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A decision and where it stands in the book."""

    decision: Decision
    decision_id: str
    written: Written


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """What the names of a request stand for."""

    dataset: Dataset
    notice: Notice
    columns: tuple[str, ...]
    subject: Subject


class Facts(TypedDict):
    """What the rules of a governed set may read."""

    subject: str
    attributes: Mapping[str, Any]
    columns: Sequence[str]
    action: str
    purpose: str
    context: Mapping[str, Any]
    row: Mapping[str, Any] | None
    now: Moment | None


def question_of(
    snapshot: Snapshot, request: AccessRequest, *, caller: str, caller_request_id: str = "", trace_id: bytes = b""
) -> Question:
    """Makes a question of a request, or refuses what could not be decided or written; see `question_about`."""
    return question_about(snapshot, ask(request, caller_request_id, trace_id), caller)


def question_about(snapshot: Snapshot, asked: Asked, caller: str) -> Question:
    """Makes a question of a request that can be written, or refuses what could not be decided.

    Raises:
        TokenMissingError: the model of a plain set needs a token that the request does not supply.
        InvalidRequestError: it asks for columns or a row of a plain set, which knows neither.
        LimitExceededError: no entry could hold it.
    """
    request = asked.request
    if not snapshot.governed and (request.columns or request.row is not None):
        field = "access.resource.columns" if request.columns else "access.row"
        raise InvalidRequestError(field, f"policy set `{snapshot.policy_set.name}` has no catalogue, and so no columns")
    people = len(data_subjects(snapshot, request))
    if people > DATA_SUBJECTS_MAX:
        message = f"the row names {people} data subjects, at most {DATA_SUBJECTS_MAX} are taken"
        raise LimitExceededError(message, field="access.row", limit=str(DATA_SUBJECTS_MAX), actual=str(people))
    tokens = {} if snapshot.governed else bind(snapshot.program, as_known(snapshot.policy_set, request, caller))
    return Question(asked, caller, tokens)


async def authorize(recorder: Recorder, snapshot: Snapshot, questions: Sequence[Question]) -> list[Answer]:
    """Decides questions of one caller under one snapshot, writes the decisions in one commit, then answers.

    Raises:
        BookUnavailableError: the decisions could not be written, so there are none.
        OverloadedError: too many entries wait to be written.
    """
    if not questions:
        return []
    now = recorder.now()
    decided: list[Decided] = []
    for question in questions:
        if decided and not len(decided) % FAIR_SHARE:
            await asyncio.sleep(0)  # other calls get their turn during a large batch
        decision = decide_unless_standing(snapshot, question, now)
        standing = question.standing
        decided.append(as_decided(question, decision, None if standing is None else standing.made))
    return await write(recorder, decided, questions[0].caller)


def as_decided(question: Question, decision: Decision, repeats: Decision | None = None) -> Decided:
    """Returns a question with its decision, under an id of its own; see `Decided` about what it repeats."""
    return Decided(question.asked, decision, _decision_ids.draw().hex(), repeats)


async def write(recorder: Recorder, decided: Sequence[Decided], caller: str) -> list[Answer]:
    """Writes decisions in one commit, then answers.

    Raises:
        BookUnavailableError, OverloadedError: as `authorize`.
    """
    written = await recorder.record_decisions(decided, caller)
    # Past the commit point: every decision is durably in the book, and may be told.
    return [Answer(one.decision, one.decision_id, place) for one, place in zip(decided, written, strict=True)]


def decide_unless_standing(snapshot: Snapshot, question: Question, now: datetime) -> Decision:
    """Returns what `decide` returns: where the same question was decided before, without deciding it again."""
    standing = question.standing
    if standing is None:
        return decide(snapshot, question, now)
    decision = standing.at(now)
    if decision is None:
        decision = decide(snapshot, question, now)
        standing.keep(snapshot, question.request, decision)
    return decision


def decide(snapshot: Snapshot, question: Question, now: datetime) -> Decision:
    """Decides one question. Pure: the same snapshot, question and time give the same decision."""
    request = question.request
    if not snapshot.governed:
        return decide_plain(snapshot, question, now)
    found = resolve(snapshot, request)
    if isinstance(found, Denial):
        return denied(snapshot, request, now, found)
    refusal = refuse_purpose(snapshot, found, request.purpose, now)
    if refusal is not None:
        return denied(snapshot, request, now, refusal, found.notice)
    moment = moment_of(snapshot.program, now)
    verdicts = evaluate_request(snapshot, question, found, moment)
    obliged = narrow(snapshot, request, found, verdicts)
    if isinstance(obliged, Denial):
        return denied(snapshot, request, now, obliged, found.notice)
    until = None if moment is None else moment.until
    return allowed(snapshot, request, now, verdicts=verdicts, obliged=obliged, notice=found.notice, until=until)


def resolve(snapshot: Snapshot, request: AccessRequest) -> Resolved | Denial:
    """Finds what the names of a request stand for; a name that is not known denies."""
    catalogue, directory = snapshot.policy_set.catalogue, snapshot.directory
    dataset = None if catalogue is None else catalogue.datasets.get(request.resource)
    if catalogue is None or dataset is None or request.resource_type not in ("", DATASET_TYPE):
        return Denial(Reason.UNCATALOGUED, "the catalogue does not know the dataset, or not as this type")
    if dataset.sealed_by:
        message = f"`{dataset.id}` descends from `{dataset.sealed_by}`, of which no catalogue knows anything"
        return Denial(Reason.UNCATALOGUED, message)
    if any(column not in dataset.columns for column in request.columns):
        return Denial(Reason.UNKNOWN_COLUMN, f"`{dataset.id}` does not have every column that was asked for")
    subject = None if directory is None else directory.find(request.subject.type, request.subject.id)
    if directory is None or subject is None:
        return Denial(Reason.UNKNOWN_SUBJECT, "the directory does not know the subject, or not as this type")
    if request.actor is not None and directory.find(request.actor.type, request.actor.id) is None:
        return Denial(Reason.UNKNOWN_SUBJECT, "the directory does not know the actor, or not as this type")
    if request.action not in snapshot.actions:
        return Denial(Reason.UNKNOWN_ACTION, f"the actions are {', '.join(sorted(snapshot.actions))}")
    return Resolved(dataset, catalogue.notice_of(dataset), request.columns or tuple(dataset.columns), subject)


def refuse_purpose(snapshot: Snapshot, found: Resolved, purpose: str, now: datetime) -> Denial | None:
    """Refuses a purpose that is missing, unknown, or not in the dataset's notice."""
    purposes, dataset, notice = snapshot.policy_set.purposes, found.dataset, found.notice
    if not purpose:
        return Denial(Reason.PURPOSE_REQUIRED, f"`{dataset.id}` is read for a purpose: name one")
    if purposes is None or purpose not in purposes:
        return Denial(Reason.PURPOSE_UNKNOWN, "the purpose is not in the purpose tree")
    if not notice.in_force(now):
        return Denial(Reason.PURPOSE_NOT_PERMITTED, f"notice `{notice.id}` of `{dataset.id}` is not in force")
    if set(dataset.purposes).isdisjoint(purposes.lineage(purpose)):
        message = f"notice `{notice.id}` of `{dataset.id}` does not permit `{purpose}`"
        return Denial(Reason.PURPOSE_NOT_PERMITTED, message)
    return None


def evaluate_request(
    snapshot: Snapshot, question: Question, found: Resolved, moment: Moment | None
) -> tuple[ColumnVerdict, ...]:
    """Asks the Casbin rules about each column."""
    return evaluate_columns(snapshot.program, **facts(snapshot, question, found, moment))


def facts(snapshot: Snapshot, question: Question, found: Resolved, moment: Moment | None) -> Facts:
    """Returns what the rules may read: attributes of the directory, and what the caller is believed."""
    request = question.request
    believed = snapshot.policy_set.settings.believed(question.caller)
    stated = {k: v for k, v in request.subject.properties.items() if k in believed.subject}
    return {
        "subject": request.subject.id,
        "attributes": {**stated, **found.subject.attributes},
        "columns": [found.dataset.columns[column].node for column in found.columns],
        "action": request.action,
        "purpose": request.purpose,
        "context": {k: v for k, v in request.context.items() if k in believed.context},
        "row": None if request.row is None else cast_row(found.dataset, request.row),
        "now": moment,
    }


def narrow(
    snapshot: Snapshot, request: AccessRequest, found: Resolved, verdicts: Sequence[ColumnVerdict]
) -> Obliged | Denial:
    """Lays obligations on what the rules allow, or denies what cannot be obliged."""
    dataset, policy_set = found.dataset, snapshot.policy_set
    ruled_out = tuple(rule for v in verdicts if v.effect is not Effect.ALLOW for rule in v.rules)
    if any(v.effect is Effect.ALLOW for v in verdicts):
        refusal = refuse_audience(snapshot, request, dataset) or refuse_consent(snapshot, request)
        if refusal is not None:
            return refusal
    obliged = snapshot.recall.oblige(
        dataset,
        verdicts,
        request.enforcer,
        key_id=snapshot.mask_key_ids[request.purpose],
        mask_tags=frozenset() if policy_set.catalogue is None else policy_set.catalogue.mask_tags,
        allow_partial=request.allow_partial,
    )
    if obliged.failed is not None:
        return Denial(obliged.failed, obliged.message, obliged.columns, ruled_out)
    return obliged


def refuse_audience(snapshot: Snapshot, request: AccessRequest, dataset: Dataset) -> Denial | None:
    """Refuses what goes beyond the dataset's ceiling: sharing with anyone beyond it, or with nobody who is named.

    So does a subject who is not proved to be within it, since the directory has more people than it may have.
    """
    catalogue = snapshot.policy_set.catalogue
    if request.subject.id in snapshot.not_proved.get((dataset.id, request.action), ()):
        message = (
            f"with this directory the audience of `{dataset.id}` exceeds its ceiling, and the subject is not within"
        )
        return Denial(Reason.CEILING_EXCEEDED, message)
    if request.action != SHARE:
        return None
    audience = request.action_properties.get("audience")
    if catalogue is not None and catalogue.audience_within_ceiling(dataset, audience):
        return None
    return Denial(
        Reason.CEILING_EXCEEDED,
        f"the audience named in the action's property `audience` is not within the ceiling of `{dataset.id}`",
    )


def refuse_consent(snapshot: Snapshot, request: AccessRequest) -> Denial | None:
    """Refuses a purpose that needs the data subjects' consent, which nothing here can establish yet."""
    purposes = snapshot.policy_set.purposes
    mode = ConsentMode.OPT_IN if purposes is None else purposes.consent_mode(request.purpose)
    if mode is ConsentMode.NONE:
        return None
    return Denial(
        Reason.CONSENT_REQUIRED, f"`{request.purpose}` needs consent ({mode.value}), which is not established"
    )


def decide_plain(snapshot: Snapshot, question: Question, now: datetime) -> Decision:
    """Decides a question about a plain set: Casbin's own answer about what the set knows."""
    request = question.request
    unknown = refuse_unknown(snapshot.policy_set, request)
    if unknown is not None:
        return denied(snapshot, request, now, unknown)
    moment = moment_of(snapshot.program, now)
    verdict = evaluate(snapshot.program, at(question.tokens, moment))
    if verdict.effect is Effect.ALLOW:
        return allowed(snapshot, request, now, rules=verdict.rules, until=None if moment is None else moment.until)
    if verdict.rules:
        in_error = any(rule in verdict.unknown for rule in verdict.rules)
        reason = Reason.EVALUATION_ERROR if in_error else Reason.DENIED_BY_RULE
        message = "a rule that denies could not be evaluated" if in_error else "a rule denies it"
        denial = Denial(reason, message, rules=verdict.rules)
    elif verdict.unknown:
        denial = Denial(Reason.EVALUATION_ERROR, "no rule allows it that could be evaluated", rules=verdict.unknown)
    else:
        denial = Denial(Reason.NO_MATCHING_RULE, "no rule allows it")
    return denied(snapshot, request, now, denial)
