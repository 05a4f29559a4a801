"""The written policy of retention: how long every entry is kept, and what is kept for longer.

Owns its format, a short TOML file that a lawyer can read, and what it permits. Anything that it does not know is
refused: a misspelt hold must not let anything go.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Annotated

import msgspec

from gatebook.errors import InvalidRequestError

POLICY_BYTES_MAX = 16_384
HOLDS_MAX = 100
DAYS_MAX = 36_500


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time in which no entry may go, whatever its age."""

    start: datetime = msgspec.field(name="from")
    reason: str
    until: datetime | None = None


class RetentionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy, as it is written."""

    keep_days: Annotated[int, msgspec.Meta(ge=1, le=DAYS_MAX)]
    holds: Annotated[tuple[Hold, ...], msgspec.Meta(max_length=HOLDS_MAX)] = ()


def parse_policy(text: bytes) -> RetentionPolicy:
    """Returns the policy that a file holds.

    Raises:
        InvalidRequestError: it is none, or says something that this version does not know.
    """
    if not text or len(text) > POLICY_BYTES_MAX:
        raise InvalidRequestError("policy", f"1 to {POLICY_BYTES_MAX} bytes, not {len(text)}")
    try:
        policy = msgspec.convert(_timed(tomllib.loads(text.decode())), RetentionPolicy)
    except (ValueError, RecursionError) as err:  # of TOML, of UTF-8, what msgspec finds, and nested without end
        message = " ".join(str(err).split())
        raise InvalidRequestError(
            "policy", f"write `keep_days = 365`, and `[[holds]]` for what stays: {message}"
        ) from err
    holds = tuple(_aware(hold) for hold in policy.holds)
    for hold in holds:
        if hold.until is not None and hold.until <= hold.start:
            raise InvalidRequestError("policy", f"the hold from {hold.start.isoformat()} ends before it begins")
    return msgspec.structs.replace(policy, holds=holds)


def policy_hash(text: bytes) -> bytes:
    """Returns the hash of a policy's text, as `sha256sum` prints it."""
    return sha256(text).digest()


def _timed(written: object) -> object:
    """Returns what a file says, with the beginning of a day for the day."""
    if isinstance(written, dict):
        return {name: _timed(value) for name, value in written.items()}
    if isinstance(written, list):
        return [_timed(value) for value in written]
    if isinstance(written, date) and not isinstance(written, datetime):
        return datetime(written.year, written.month, written.day, tzinfo=UTC)
    return written


def _aware(hold: Hold) -> Hold:
    """Returns a hold with times in UTC, which is meant where nothing else is written."""
    start = hold.start if hold.start.tzinfo else hold.start.replace(tzinfo=UTC)
    until = hold.until if hold.until is None or hold.until.tzinfo else hold.until.replace(tzinfo=UTC)
    return msgspec.structs.replace(hold, start=start, until=until)
