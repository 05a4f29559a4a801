"""Enforcement: what may leave of rows that the application has read.

Owns `enforce` and the reading of a decision's obligations. Anything not understood is refused:

1. only an allow, not expired, lets rows out: every row, or only the one that was asked about;
2. every obligation, mask, parameter and condition is read before the first row is;
3. a column leaves only if its own outcome is an allow; every other column of a row is dropped;
4. of a column's masks the first applies whose condition on the row is true or unknown;
5. under a minimum group no row leaves: `groups.aggregate` returns groups.

A condition may read columns that are not returned, so rows should come with every column that the masks
of the decision speak of; one that is missing is unknown, and then the mask applies.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

from gatebook.v1 import types_pb2
from gatebook_client.canonical import canonical_text
from gatebook_client.expression import Row, compile_condition
from gatebook_client.masks import MaskValue, compile_mask, supported_masks
from gatebook_client.refusal import EnforcementError

__all__ = ["EnforcementError", "Treatment", "enforce", "supported_masks", "supported_obligations", "treatment"]

MASKS_OF_COLUMN_MAX: Final = 256

_OBLIGATIONS: Final = frozenset({types_pb2.OBLIGATION_KIND_MASKS, types_pb2.OBLIGATION_KIND_MINIMUM_GROUP})
_READ_TEXT: Final[Mapping[type, Callable[[str], object]]] = {
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    uuid.UUID: uuid.UUID,
    Decimal: Decimal,
}
_NO_KEYS: Final[Mapping[str, bytes]] = {}


class Wrapped(Protocol):
    """A decision of this client, which knows when it expires."""

    @property
    def raw(self) -> types_pb2.Decision:
        """The message as it came."""

    @property
    def allowed(self) -> bool:
        """Tells whether access is allowed now."""

    @property
    def reason(self) -> str:
        """Names why."""

    @property
    def asked_row(self) -> Row | None:
        """The row that was asked about, to which the decision is bound; None for a whole dataset."""


Answer = types_pb2.Decision | Wrapped


@dataclass(frozen=True, slots=True)
class Choice:
    """A mask and the condition on the row under which it applies (None: always)."""

    condition: Callable[[Row], bool | None] | None
    apply: MaskValue


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a decision makes of a row.

    `columns` is None for a plain set, whose decisions cover the whole row; `k` is 0 without a minimum
    group, and `entity_columns` name whom it counts.
    """

    columns: Mapping[str, tuple[Choice, ...]] | None
    k: int
    entity_columns: tuple[str, ...]
    asked_row: Row | None = None

    def apply(self, row: Row) -> dict[str, Any]:
        """Returns what may leave of a row."""
        self.require_asked(row)
        if self.columns is None:
            return dict(row)
        return {name: self.masked(name, row) for name in self.columns if name in row}

    def require_asked(self, row: Row) -> None:
        """Refuses a row that is not the one that was asked about: the answer is about no other."""
        if self.asked_row is not None and not is_same_row(row, self.asked_row):
            raise EnforcementError("CLIENT_OTHER_ROW", "the decision is about another row; ask about this one")

    def masked(self, column: str, row: Row) -> Any:  # noqa: ANN401 - a row holds anything
        """Returns the value of an allowed column, masked."""
        value = row.get(column)
        for choice in () if self.columns is None else self.columns[column]:
            if choice.condition is None or choice.condition(row) is not False:
                return _apply(choice.apply, value, column)
        return value


def supported_obligations() -> frozenset[types_pb2.ObligationKind.ValueType]:
    """Returns the obligations that `enforce` and `aggregate` fulfil."""
    return _OBLIGATIONS


def enforce(decision: Answer, rows: Iterable[Row], *, keys: Mapping[str, bytes] = _NO_KEYS) -> list[dict[str, Any]]:
    """Returns what may leave of the rows: allowed columns only, masked.

    Args:
        decision: The answer to a check of these columns.
        rows: The rows in clear, by column name.
        keys: The keys of hashes, by key id.

    Raises:
        EnforcementError: The decision does not let the rows out, or a value cannot be masked.
    """
    read = treatment(decision, keys)
    if read.k:
        message = f"no single row may leave, only groups of {read.k} people; call `aggregate`"
        raise EnforcementError("CLIENT_MINIMUM_GROUP", message)
    return [read.apply(row) for row in rows]


def treatment(decision: Answer, keys: Mapping[str, bytes]) -> Treatment:
    """Reads a decision.

    Raises:
        EnforcementError: It is no allow, has expired, or holds something that this client does not know.
    """
    raw = _allow(decision)
    asked_row = None if isinstance(decision, types_pb2.Decision) else decision.asked_row
    covered = types_pb2.ROW_FILTER_KIND_ALL_ROWS if asked_row is None else types_pb2.ROW_FILTER_KIND_ASKED_ROW
    if raw.row_filter.kind != covered:
        raise EnforcementError("CLIENT_ROW_FILTER", "the decision covers other rows than were asked about")
    if any(kind not in _OBLIGATIONS for kind in raw.must_apply):
        message = "the decision has an obligation that this client does not know; upgrade gatebook"
        raise EnforcementError("CLIENT_UNKNOWN_OBLIGATION", message)
    grouped = raw.HasField("minimum_group")
    if grouped != (types_pb2.OBLIGATION_KIND_MINIMUM_GROUP in raw.must_apply):
        raise _malformed("its minimum group and its obligations contradict each other")
    if grouped and (raw.minimum_group.k < 1 or not raw.minimum_group.entity_columns):
        raise _malformed("its minimum group counts nobody")
    group = raw.minimum_group
    return Treatment(_columns(raw, keys), group.k, tuple(group.entity_columns), asked_row)


def is_same_row(row: Row, asked: Row) -> bool:
    """Tells whether a row is the one that was asked about: every value of it was asked, and is equal in its store."""
    return all(name in asked and _is_same_value(value, asked[name]) for name, value in row.items())


def _is_same_value(value: object, asked: object) -> bool:
    if value is None or asked is None:
        return value is asked
    try:
        return canonical_text(value) == canonical_text(_read_as(type(value), asked))
    except (ValueError, ArithmeticError):
        return False


def _read_as(type_: type, asked: object) -> object:
    """Returns what a text that was sent as JSON stands for in a store that has types of its own."""
    read = _READ_TEXT.get(type_)
    return read(asked) if read is not None and isinstance(asked, str) else asked


def _allow(decision: Answer) -> types_pb2.Decision:
    """Returns the message of an allow that has not expired."""
    if isinstance(decision, types_pb2.Decision):
        raw, allowed, reason = decision, decision.effect == types_pb2.EFFECT_ALLOW, "CLIENT_NOT_ALLOWED"
        allowed = allowed and decision.reason == types_pb2.REASON_CODE_ALLOWED
        expires = decision.expires_time.seconds + decision.expires_time.nanos / 1e9
        if allowed and not time.time() < expires:
            allowed, reason = False, "CLIENT_EXPIRED"
    else:
        raw, allowed, reason = decision.raw, decision.allowed, decision.reason
    if allowed is not True or raw.effect != types_pb2.EFFECT_ALLOW:
        raise EnforcementError(reason, "the decision is no allow, or not any more; nothing may leave")
    return raw


def _columns(raw: types_pb2.Decision, keys: Mapping[str, bytes]) -> Mapping[str, tuple[Choice, ...]] | None:
    """Reads the masks of the allowed columns, in the order of the decision."""
    if not raw.columns:
        if raw.must_apply or raw.HasField("directory_revision"):
            raise _malformed("it names no column")
        return None
    if len({outcome.column for outcome in raw.columns}) != len(raw.columns):
        raise _malformed("it names a column twice")
    allowed = (types_pb2.EFFECT_ALLOW, types_pb2.REASON_CODE_ALLOWED)
    return {
        outcome.column: _choices(outcome, keys)
        for outcome in raw.columns
        if (outcome.effect, outcome.reason) == allowed
    }


def _choices(outcome: types_pb2.ColumnOutcome, keys: Mapping[str, bytes]) -> tuple[Choice, ...]:
    """Reads the masks of one column; every one is read, also one that can never apply."""
    if len(outcome.masks) > MASKS_OF_COLUMN_MAX:
        raise _malformed(f"column `{outcome.column}` has more than {MASKS_OF_COLUMN_MAX} masks")
    return tuple(
        Choice(
            compile_condition(mask.condition) if mask.HasField("condition") else None,
            compile_mask(mask, keys),
        )
        for mask in outcome.masks
    )


def _apply(mask: MaskValue, value: Any, column: str) -> Any:  # noqa: ANN401 - a row holds anything
    """Masks a value and names the column of a refusal."""
    try:
        return mask(value)
    except EnforcementError as err:
        raise EnforcementError(err.reason, f"column `{column}`: {err.message}") from None


def _malformed(message: str) -> EnforcementError:
    return EnforcementError("CLIENT_MALFORMED_DECISION", f"the decision is malformed: {message}")
