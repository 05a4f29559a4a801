"""JSON as AuthZEN asks for it: one object, read the one way it can be read (RFC 8259, and RFC 7493 for the rest).

Owns what is refused before anything is looked at: no UTF-8, half characters, numbers that no double holds, a member
that stands twice, and what nests too deeply. Members that nobody knows are no concern of this module.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gatebook.errors import InvalidRequestError
from gatebook.rpc.decode import require_depth

BODY = "body"

_decode = msgspec.json.Decoder().decode


def read_object(body: bytes, levels: int) -> dict[str, Any]:
    """Returns the object in a body, of at most so many levels.

    Raises:
        InvalidRequestError: it is not JSON, or not an object, or a member stands twice.
        LimitExceededError: it nests too deeply.
    """
    if not body:
        raise InvalidRequestError(BODY, "is empty: send a JSON object")
    try:
        found = _decode(body)
    except (ValueError, RecursionError) as err:  # malformed, no UTF-8, or a number that no double holds
        raise InvalidRequestError(BODY, f"is not JSON: {str(err).lower()}") from err
    if not isinstance(found, dict):
        raise InvalidRequestError(BODY, "is not a JSON object")
    if body.count(b"{") + body.count(b"[") > levels:  # else it cannot nest so deeply
        require_depth(found, levels, BODY)
    json.loads(body, object_pairs_hook=_unrepeated)
    return found


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # it adds and is false
        raise InvalidRequestError(BODY, f"the member `{repeated[:64]}` stands twice in one object")
    return found
