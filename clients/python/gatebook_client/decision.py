"""The decision: the one value that says yes or no.

Owns the typed view of an answer and its expiry. `bool(decision)` equals `decision.allowed`, so that
`if await gatebook.check(...)` is as safe as the longer form: a decision is truthy only when access
is allowed, beyond doubt (see `doubts`) and not expired. An expired allow turns into a denial by
itself. The expiry is a duration by the service's own clock, counted here from before the request
was sent; the two clocks need not agree.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gatebook.v1 import types_pb2
from gatebook_client.doubts import Asked, doubt, lifetime_seconds
from gatebook_client.enforce import enforce
from gatebook_client.errors import GatebookClientError
from gatebook_client.groups import Measure, aggregate
from gatebook_client.outcome import (
    Column,
    Mask,
    MinimumGroup,
    NearRule,
    Receipt,
    Revision,
    Rule,
    obligation_name,
    read_column,
    read_receipt,
    read_rule,
    reason_name,
)

_CLOCK_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
EXPIRED = "CLIENT_EXPIRED"

LOCAL_MESSAGES: Mapping[str, str] = {
    "CLIENT_UNKNOWN_EFFECT": "the answer has an effect that this client does not know; upgrade gatebook",
    "CLIENT_UNKNOWN_REASON": "the answer has a reason that this client does not know; upgrade gatebook",
    "CLIENT_CONTRADICTION": "the parts of the answer contradict each other",
    "CLIENT_MALFORMED_DECISION": "the answer lacks a part that every allow has",
    "CLIENT_RECEIPT_MISSING": "the answer does not say where in the book it is written",
    "CLIENT_RECEIPT_MISMATCH": "the receipt's entry does not have the receipt's leaf hash",
    "CLIENT_UNKNOWN_OBLIGATION": "the answer has an obligation that this client does not know; upgrade gatebook",
    "CLIENT_OBLIGATION_NOT_DECLARED": "the answer has an obligation that the enforcer did not declare",
    "CLIENT_UNKNOWN_MASK": "the answer has a mask that this client does not know; upgrade gatebook",
    "CLIENT_MASK_NOT_DECLARED": "the answer has a mask that the enforcer did not declare",
    "CLIENT_ROW_FILTER": "the answer covers other rows than were asked about",
    "CLIENT_COLUMNS_MISMATCH": "the answer is not about the columns that were asked for",
    EXPIRED: "the allow has expired; check again",
}


def clock() -> float:
    """Reads the client's clock, in seconds: monotonic, and running while the machine sleeps."""
    return time.clock_gettime(_CLOCK_ID)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Decision:
    """The answer to one check.

    Attributes:
        raw: the message as it came; treat it as read-only. Empty when there was no answer.
        error: why there is no answer; set only on denials of batch items, of streams, and with
            `on_error="deny"`.
        explanation: the explanation, when it was asked for.
        asked_row: the row that was asked about, to which the answer is bound; None for a whole dataset.
    """

    raw: types_pb2.Decision
    error: GatebookClientError | None
    explanation: types_pb2.Explanation | None
    asked_row: Mapping[str, Any] | None
    _local_reason: str
    _usable_until: float

    @property
    def allowed(self) -> bool:
        """Tells whether access is allowed now. Anything but True means no."""
        return self._granted and clock() < self._usable_until

    def __bool__(self) -> bool:
        """Is the same as `allowed`."""
        return self.allowed

    @property
    def _granted(self) -> bool:
        """Tells whether access was allowed when the answer came."""
        return self.error is None and not self._local_reason and self.raw.effect == types_pb2.EFFECT_ALLOW

    @property
    def reason(self) -> str:
        """Names why: the service's reason code, `CLIENT_...` for a doubt of this client, or the error's reason."""
        if self.error is not None:
            return self.error.reason
        if self._local_reason:
            return self._local_reason
        if self._granted and not self.allowed:
            return EXPIRED
        return reason_name(self.raw.reason)

    @property
    def message(self) -> str:
        """Says why, in words."""
        if self.error is not None:
            return str(self.error)
        return LOCAL_MESSAGES.get(self.reason, "") or self.raw.message

    @property
    def decision_id(self) -> str:
        """The id of the decision, to find it in the book."""
        return self.raw.decision_id

    @property
    def columns(self) -> tuple[Column, ...]:
        """The outcomes for the requested columns, in order. Empty in a plain set."""
        granted = self.allowed
        return tuple(read_column(column, granted=granted) for column in self.raw.columns)

    @property
    def allowed_columns(self) -> tuple[str, ...]:
        """The names of the columns that may be returned. Empty in a denial and in a plain set."""
        return tuple(column.name for column in self.columns if column.allowed)

    @property
    def withheld_columns(self) -> tuple[str, ...]:
        """The names of the requested columns that must not be returned."""
        return tuple(column.name for column in self.columns if not column.allowed)

    @property
    def masks(self) -> Mapping[str, tuple[Mask, ...]]:
        """The masks of each column that has any, in order: the first whose condition is not false applies."""
        return {column.name: column.masks for column in self.columns if column.masks}

    @property
    def must_apply(self) -> tuple[str, ...]:
        """The obligations of an allow, such as `MASKS` and `MINIMUM_GROUP`."""
        return tuple(obligation_name(kind) for kind in self.raw.must_apply)

    @property
    def minimum_group(self) -> MinimumGroup | None:
        """The smallest group that may be shown. None means no minimum."""
        if not self.raw.HasField("minimum_group"):
            return None
        group = self.raw.minimum_group
        return MinimumGroup(group.k, tuple(group.entity_columns))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that decided."""
        return tuple(read_rule(rule) for rule in self.raw.rules)

    @property
    def near_rules(self) -> tuple[NearRule, ...]:
        """The rules that came near, the nearest first, when an explanation was asked for."""
        if self.explanation is None:
            return ()
        return tuple(NearRule(read_rule(n.rule), tuple(n.lacked)) for n in self.explanation.near_rules)

    @property
    def receipt(self) -> Receipt | None:
        """Where in the book the decision is written."""
        return read_receipt(self.raw.receipt) if self.raw.HasField("receipt") else None

    @property
    def policy_revision(self) -> Revision | None:
        """The policy revision that decided."""
        found = self.raw.policy_revision
        return Revision(found.digest, found.number) if found.digest else None

    @property
    def directory_revision(self) -> Revision | None:
        """The directory revision that decided. None in a plain set."""
        found = self.raw.directory_revision
        return Revision(found.digest, found.number) if found.digest else None

    def enforce(
        self, rows: Iterable[Mapping[str, Any]], *, keys: Mapping[str, bytes] | None = None
    ) -> list[dict[str, Any]]:
        """Returns what may leave of the rows: allowed columns only, masked. See `enforce.enforce`.

        Args:
            rows: the rows in clear, by column name, with the columns that masks depend on.
            keys: the keys of hashes, by key id.

        Raises:
            EnforcementError: the decision does not let the rows out.
        """
        return enforce(self, rows, keys={} if keys is None else keys)

    def aggregate(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        by: Sequence[str],
        measures: Mapping[str, Measure],
        keys: Mapping[str, bytes] | None = None,
    ) -> list[dict[str, Any]]:
        """Returns groups of at least `minimum_group.k` people. See `groups.aggregate`.

        Args:
            rows: the rows in clear, with the entity columns of the minimum group.
            by: the columns to group by.
            measures: for each name in the result a function and its column, such as `("sum", "tokens_in")`.
            keys: the keys of hashes, by key id.

        Raises:
            EnforcementError: the decision does not let the groups out.
        """
        return aggregate(self, rows, by=by, measures=measures, keys={} if keys is None else keys)

    def __repr__(self) -> str:
        """Shows effect, reason and id, and nothing about people."""
        effect = "allowed" if self.allowed else "denied"
        return f"<Decision {effect} {self.reason} {self.decision_id or 'without id'}>"


def read_decision(
    answer: types_pb2.Decision, asked: Asked, explanation: types_pb2.Explanation | None = None
) -> Decision:
    """Reads an answer. An allow that leaves a doubt becomes a denial with a local reason."""
    allows = answer.effect == types_pb2.EFFECT_ALLOW
    local_reason = doubt(answer, asked) if allows else ""
    if not allows and answer.effect != types_pb2.EFFECT_DENY:
        local_reason = "CLIENT_UNKNOWN_EFFECT"
    usable_until = asked.sent_clock + lifetime_seconds(answer) if allows else 0.0
    return Decision(answer, None, explanation, asked.row, local_reason, usable_until)


def denied_by(error: GatebookClientError) -> Decision:
    """Returns the denial that stands for an error."""
    return Decision(types_pb2.Decision(), error, None, None, "", 0.0)
