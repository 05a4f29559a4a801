"""The parameters of a plan, as the values that drivers bind.

Owns their reading. A key never travels in a plan: where the SQL hashes, the plan names the key, and what the engine
needs of it (RFC 2104, section 2) is made here, of the application's own keys, when a statement is made.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook_client.masks import KEY_BYTES_MIN, mask_key
from gatebook_client.refusal import EnforcementError

BLOCK_BYTES: Final = 64
"""The block of SHA-256."""
SHORTEST_KEY: Final = bytes(KEY_BYTES_MIN)
PADS: Final = frozenset({0x36, 0x5C})


def require_known(parameter: access_pb2.PlanParameter) -> None:
    """Refuses a parameter that this client cannot bind.

    Raises:
        EnforcementError: its kind or its value is unknown.
    """
    kind = parameter.WhichOneof("kind")
    known = kind is not None
    if kind == "double_value":
        known = math.isfinite(parameter.double_value)
    if kind == "mask_key_pad":
        known = bool(parameter.mask_key_pad.key_id) and parameter.mask_key_pad.pad in PADS
    if kind == "string_value":
        known = "\0" not in parameter.string_value
    if not known:
        message = "the plan has a parameter that this client does not know; upgrade gatebook"
        raise EnforcementError("CLIENT_PLAN_PARAMETERS", message)


def bound(parameter: access_pb2.PlanParameter, keys: Mapping[str, bytes]) -> Any:  # noqa: ANN401  # a value of any type
    """Returns the value to bind.

    Raises:
        EnforcementError: it needs a key that is not in `keys`.
    """
    kind = parameter.WhichOneof("kind")
    if kind == "mask_key_pad":
        return padded(mask_key(parameter.mask_key_pad.key_id, keys), parameter.mask_key_pad.pad)
    return None if kind is None else getattr(parameter, kind)


def padded(key: bytes, pad: int) -> bytes:
    """Returns a key XOR a pad of RFC 2104."""
    block = hashlib.sha256(key).digest() if len(key) > BLOCK_BYTES else key
    return bytes(byte ^ pad for byte in block.ljust(BLOCK_BYTES, b"\0"))
