"""The frozen values that the parts of Gatebook hand to each other.

Owns the vocabulary: requests, rules, decisions, findings. Enums have the numbers of their
namesakes in `proto/gatebook/v1/types.proto`; a contract test keeps them equal.
Values carry no behaviour beyond what follows from their own fields.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from gatebook.expression.tree import Expression


class Effect(enum.IntEnum):
    """The answer to a request. Anything but `ALLOW` means no."""

    UNSPECIFIED = 0
    ALLOW = 1
    DENY = 2


class Reason(enum.IntEnum):
    """Why a decision, or a column of it, came out as it did: the first step that failed."""

    UNSPECIFIED = 0
    ALLOWED = 1
    NO_MATCHING_RULE = 2
    DENIED_BY_RULE = 3
    COLUMN_DENIED = 4
    UNCATALOGUED = 5
    UNKNOWN_COLUMN = 6
    UNKNOWN_ACTION = 7
    UNKNOWN_SUBJECT = 8
    PURPOSE_REQUIRED = 9
    PURPOSE_UNKNOWN = 10
    PURPOSE_NOT_PERMITTED = 11
    PURPOSE_NOT_GRANTED = 12
    OBLIGATION_NOT_SUPPORTED = 13
    MASK_REQUIRED = 14
    CEILING_EXCEEDED = 15
    CONSENT_REQUIRED = 17
    MASK_NOT_APPLICABLE = 24
    EVALUATION_ERROR = 26


class MaskKind(enum.IntEnum):
    """The kinds of masks, from the strictest to none. See `MaskKind` in types.proto."""

    UNSPECIFIED = 0
    NULLIFY = 1
    DEFAULT = 2
    CONSTANT = 3
    HASH = 4
    REDACT = 5
    REGEX = 6
    PARTIAL = 7
    EMAIL = 8
    BAND = 9
    TRUNCATE = 10
    CUSTOM = 11
    NONE = 12


class ObligationKind(enum.IntEnum):
    """What an enforcer must do with an allow."""

    UNSPECIFIED = 0
    MASKS = 1
    ROW_FILTER = 2
    MINIMUM_GROUP = 3
    CONSENT = 4


class Severity(enum.IntEnum):
    """How bad a finding is. An error refuses the policy set."""

    UNSPECIFIED = 0
    ERROR = 1
    WARNING = 2


class Entity(msgspec.Struct, frozen=True, gc=False):
    """A subject or actor, as named in a request."""

    type: str
    id: str
    properties: Mapping[str, Any] = {}


class Enforcer(msgspec.Struct, frozen=True):
    """The code that will apply a decision, and which obligations it can fulfil."""

    id: str = ""
    supported_masks: frozenset[MaskKind] = frozenset()
    supported_obligations: frozenset[ObligationKind] = frozenset()


class AccessRequest(msgspec.Struct, frozen=True, gc=False):
    """One question: may this subject do this to that, for this purpose?

    `columns` empty means every column. `row` None means unknown; a mapping means complete.
    """

    subject: Entity
    action: str
    resource: str
    columns: tuple[str, ...] = ()
    purpose: str = ""
    context: Mapping[str, Any] = {}
    row: Mapping[str, Any] | None = None
    enforcer: Enforcer = Enforcer()
    allow_partial: bool = False
    actor: Entity | None = None
    action_properties: Mapping[str, Any] = {}
    resource_type: str = ""
    resource_properties: Mapping[str, Any] = {}


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One Casbin policy line, known by file and line.

    `ptype` is `p`, `p2`, ... as it stands in the line; `fields` are its values in the order of
    the policy definition, padded with nothing; `text` is the line as it stands in the file.
    """

    ptype: str
    fields: tuple[str, ...]
    file: str
    line: int
    text: str


class Edge(msgspec.Struct, frozen=True, gc=False):
    """One line of a role definition: `child` inherits `parent` (in `domains`, if the role has any).

    `gtype` is `g`, `g2`, ...; edges also come from the catalogue (g2), the purposes (g3) and the
    directory (g), with the file and line that declare them. `parameters` are those of the link's condition.
    """

    gtype: str
    child: str
    parent: str
    domains: tuple[str, ...] = ()
    file: str = ""
    line: int = 0
    parameters: tuple[str, ...] = ()


class PathStep(msgspec.Struct, frozen=True, order=True):
    """A link or a rule that somebody could be allowed by, as text with its file and line."""

    text: str
    file: str = ""
    line: int = 0


class Counterexample(msgspec.Struct, frozen=True, order=True):
    """Somebody who could be allowed what must not be, and the request that shows it.

    The request is that of `subject` (and `properties_json`) with all that follows, to share with an `audience`;
    `caller` may state it, or anybody. Where it is not `confirmed`, `why_not` says what is in its way.
    """

    subject: str
    subject_type: str
    path: tuple[PathStep, ...]
    columns: tuple[str, ...] = ()
    purpose: str = ""
    audience: tuple[str, ...] = ()
    properties_json: str = ""
    context_json: str = ""
    row_json: str = ""
    caller: str = ""
    confirmed: bool = False
    why_not: str = ""


class Finding(msgspec.Struct, frozen=True):
    """One thing wrong with a policy set. Sorts by file, line and column, which count from 1.

    One about an audience names the `dataset` and `action`, by how many it goes beyond the ceiling (`excess`), the
    head-count of the `ceiling` (None: any), and somebody who could be allowed.
    """

    file: str
    line: int
    column: int
    invariant: str
    message: str
    severity: Severity = Severity.ERROR
    dataset: str = ""
    action: str = ""
    excess: int = 0
    ceiling: int | None = None
    counterexample: Counterexample | None = None

    def __lt__(self, other: Finding) -> bool:
        """Tells whether it stands before another; what is beyond the message does not sort."""
        return self._place() < other._place()

    def _place(self) -> tuple[str, int, int, str, str]:
        return self.file, self.line, self.column, self.invariant, self.message


def foremost(findings: Iterable[Finding]) -> list[Finding]:
    """Returns findings with the first of each kind, dataset and action before all others.

    So a list that is cut short still names every kind of fault.
    """
    first: dict[tuple[str, str, str], Finding] = {}
    others = []
    for finding in findings:
        key = (finding.invariant, finding.dataset, finding.action)
        if first.setdefault(key, finding) is not finding:
            others.append(finding)
    return [*first.values(), *others]


class TestFailure(msgspec.Struct, frozen=True):
    """One expectation of a policy test that did not hold."""

    __test__ = False

    file: str
    line: int
    test: str
    question: str
    expected: str
    actual: str


class Revision(msgspec.Struct, frozen=True):
    """An immutable state of a policy set or the directory.

    `digest` is SHA-256 in lower-case hexadecimal; `number` grows with each activation, from 1.
    """

    digest: str
    number: int


class Mask(msgspec.Struct, frozen=True):
    """One mask of a column; it applies where `condition` is true or unknown (None: always)."""

    kind: MaskKind
    parameters: Mapping[str, Any] = {}
    condition: Expression | None = None
    key_id: str = ""


class ColumnOutcome(msgspec.Struct, frozen=True):
    """The outcome for one column. The first mask whose condition is true or unknown applies."""

    column: str
    effect: Effect
    reason: Reason
    masks: tuple[Mask, ...] = ()


class MinimumGroup(msgspec.Struct, frozen=True):
    """The least number of distinct data subjects that may be shown, and who they are."""

    k: int
    entity_columns: tuple[str, ...]


class RuleRef(msgspec.Struct, frozen=True):
    """A rule that decided."""

    rule: str
    file: str
    line: int
    effect: str


class NearRule(msgspec.Struct, frozen=True):
    """A rule that came near, and the parts of its matcher that were not true."""

    rule: RuleRef
    lacked: tuple[str, ...]


class Outcome(msgspec.Struct, frozen=True, weakref=True):
    """What the gate found: all of a decision that depends on no moment, and on no words of the request.

    Many decisions share one, so that what is made of it need not be made again.
    """

    effect: Effect
    reason: Reason
    message: str
    policy_set: str
    policy_revision: Revision
    directory_revision: Revision | None
    columns: tuple[ColumnOutcome, ...] = ()
    must_apply: tuple[ObligationKind, ...] = ()
    minimum_group: MinimumGroup | None = None
    rules: tuple[RuleRef, ...] = ()
    notice_id: str = ""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What the gate decided, before it is written and numbered.

    `vocabulary_known` names which of `resource`, `columns`, `action`, `purpose`, `subject` and `actor`
    the policy set knows: only those may stand in clear in the book. With `row_given` the decision is
    about the row that was asked about, and no other. A `plan_dialect` makes it a plan, about all rows.
    """

    outcome: Outcome
    decide_time: datetime
    expires_time: datetime | None = None
    vocabulary_known: frozenset[str] = frozenset()
    data_subjects: tuple[str, ...] = ()
    row_given: bool = False
    plan_dialect: str = ""

    @property
    def allowed(self) -> bool:
        """Tells whether access is allowed."""
        return self.outcome.effect is Effect.ALLOW

    @property
    def effect(self) -> Effect:
        """Returns the answer."""
        return self.outcome.effect

    @property
    def reason(self) -> Reason:
        """Returns the first step that failed, or ALLOWED."""
        return self.outcome.reason

    @property
    def message(self) -> str:
        """Returns the reason in words."""
        return self.outcome.message

    @property
    def policy_set(self) -> str:
        """Returns the name of the policy set that decided."""
        return self.outcome.policy_set

    @property
    def policy_revision(self) -> Revision:
        """Returns the policy revision that decided."""
        return self.outcome.policy_revision

    @property
    def directory_revision(self) -> Revision | None:
        """Returns the directory revision that decided; None in a plain set."""
        return self.outcome.directory_revision

    @property
    def columns(self) -> tuple[ColumnOutcome, ...]:
        """Returns the outcome of each column, in the order of the request."""
        return self.outcome.columns

    @property
    def must_apply(self) -> tuple[ObligationKind, ...]:
        """Returns what the enforcer must fulfil."""
        return self.outcome.must_apply

    @property
    def minimum_group(self) -> MinimumGroup | None:
        """Returns the smallest group that may be shown."""
        return self.outcome.minimum_group

    @property
    def rules(self) -> tuple[RuleRef, ...]:
        """Returns the rules that decided."""
        return self.outcome.rules

    @property
    def notice_id(self) -> str:
        """Returns the notice that governs the dataset; empty where none was reached."""
        return self.outcome.notice_id
