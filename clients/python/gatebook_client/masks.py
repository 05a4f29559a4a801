"""The masks, applied to values.

Owns what each kind of mask makes of a value; `docs/masks.md` says it with examples. Rules:

1. a value that the mask cannot take is refused, never returned in clear;
2. null stays null, but under `default` and `constant`, which make every value the same;
3. a mask of texts applies to each element of a list of texts;
4. lengths and ends count in Unicode characters; times are cut in UTC;
5. the value that comes out is of the type that went in, so that a column keeps its type.

A mask is compiled once per column and decision; `regex` needs the package google-re2.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import importlib.util
import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final

from google.protobuf import json_format

from gatebook.v1 import types_pb2
from gatebook_client.canonical import canonical_text
from gatebook_client.constants import constant, zero
from gatebook_client.refusal import EnforcementError
from gatebook_client.times import truncated

MaskValue = Callable[[Any], Any]
Parameters = Mapping[str, Any]

KEY_BYTES_MIN: Final = 16
EMAIL_LOCAL_PART: Final = "XXXXX"
ADDRESS: Final = re.compile(r"[^@\s]+@(?P<domain>[\w-]+(?:\.[\w-]+)*)")
_EXACT: Final = Context(prec=400, traps=[Inexact, InvalidOperation])
NOT_APPLICABLE: Final = "CLIENT_MASK_NOT_APPLICABLE"


def supported_masks() -> frozenset[types_pb2.MaskKind.ValueType]:
    """Returns the kinds of masks that `enforce` can apply here.

    `MASK_KIND_HASH` is among them: without the key that a decision names, `enforce` refuses.
    """
    regex = importlib.util.find_spec("re2") is not None
    return frozenset(kind for kind in _MAKERS if regex or kind != types_pb2.MASK_KIND_REGEX)


def compile_mask(mask: types_pb2.Mask, keys: Mapping[str, bytes]) -> MaskValue:
    """Returns a function that masks one value.

    The function raises EnforcementError for a value that the mask cannot take.

    Raises:
        EnforcementError: The kind is unknown, a parameter is missing or wrong, or the key is not in `keys`.
    """
    make = _MAKERS.get(mask.kind)
    if make is None or mask.kind not in supported_masks():
        message = "the decision has a mask that this client cannot apply; do not declare it, or upgrade gatebook"
        raise EnforcementError("CLIENT_UNKNOWN_MASK", message)
    try:
        parameters = json_format.MessageToDict(mask.parameters)
        if mask.kind == types_pb2.MASK_KIND_HASH:
            return _hash(mask_key(mask.key_id, keys))
        return make(parameters)
    except (KeyError, TypeError, ValueError, ArithmeticError) as err:
        raise _refused(f"the parameters of mask `{_name(mask.kind)}` are missing or out of range") from err


def redacted(text: str) -> str:
    """Returns a text with X for upper-case letters, x for other letters and their marks, 0 for digits."""
    return "".join(_redacted_character(character) for character in text)


def _redacted_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Lu":
        return "X"
    if category[0] in "LM":
        return "x"
    return "0" if category[0] == "N" else character


def _nullify(_parameters: Parameters) -> MaskValue:
    return lambda _value: None


def _none(_parameters: Parameters) -> MaskValue:
    return lambda value: value


def _default(parameters: Parameters) -> MaskValue:
    column_type = str(parameters["type"])
    zero(column_type, None)
    return lambda value: zero(column_type, value)


def _constant(parameters: Parameters) -> MaskValue:
    text, column_type = parameters["value"], str(parameters["type"])
    if not isinstance(text, str):
        raise TypeError
    constant(text, column_type, None)
    return lambda value: constant(text, column_type, value)


def mask_key(key_id: str, keys: Mapping[str, bytes]) -> bytes:
    """Returns the key of a hash.

    Raises:
        EnforcementError: It is not in `keys`, or too short.
    """
    key = keys.get(key_id, b"") if key_id else b""
    if len(key) < KEY_BYTES_MIN:
        message = f"the key `{key_id}` of a hash is not provisioned; ask the operator for this purpose's key"
        raise EnforcementError("CLIENT_MASK_KEY_MISSING", message)
    return key


def _hash(key: bytes) -> MaskValue:
    def digest(value: Any) -> str:  # noqa: ANN401 - every value has a canonical text, or is refused
        try:
            text = canonical_text(value).encode()
        except ValueError:
            raise _refused("mask `hash` cannot be applied to a value without canonical text") from None
        return hmac.new(key, text, hashlib.sha256).hexdigest()

    return _each("hash", digest, of_texts=False)


def _redact(_parameters: Parameters) -> MaskValue:
    return _each("redact", redacted)


def _regex(parameters: Parameters) -> MaskValue:
    pattern, replacement = parameters["pattern"], parameters["replacement"]
    if not (isinstance(pattern, str) and isinstance(replacement, str) and pattern):
        raise TypeError
    re2: Any = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as err:
        raise ValueError from err

    def replaced(text: str) -> str:
        try:
            return str(compiled.sub(lambda _found: replacement, text))
        except UnicodeEncodeError as err:
            message = "mask `regex` cannot be applied to a text that is no Unicode"
            raise _refused(message) from err

    return _each("regex", replaced)


def _partial(parameters: Parameters) -> MaskValue:
    keep, count = parameters["keep"], _whole(parameters["count"])
    if keep not in ("first", "last") or count < 1:
        raise ValueError

    def part(text: str) -> str:
        hidden = len(text) - count
        if hidden <= 0:
            return redacted(text)
        return text[:count] + "X" * hidden if keep == "first" else "X" * hidden + text[-count:]

    return _each("partial", part)


def _email(_parameters: Parameters) -> MaskValue:
    def address(text: str) -> str:
        found = ADDRESS.fullmatch(text)
        return redacted(text) if found is None else f"{EMAIL_LOCAL_PART}@{found['domain']}"

    return _each("email", address)


def _band(parameters: Parameters) -> MaskValue:
    step = parameters["step"]
    if isinstance(step, bool) or not isinstance(step, int | float | str):
        raise TypeError
    exact = Decimal(str(step))
    if not exact.is_finite() or exact <= 0:
        raise ValueError

    def band(value: Any) -> Any:  # noqa: ANN401 - of the type of the value
        match value:
            case None:
                return None
            case bool():
                raise _refused("mask `band` cannot be applied to a truth value")
            case int() if exact == exact.to_integral_value():
                return value - value % int(exact)
            case float():
                return float(_floor(Decimal(repr(value)), exact))
            case Decimal():
                return _floor(value, exact)
            case _:
                raise _refused("mask `band` cannot be applied to a value that is no such number")

    return band


def _floor(number: Decimal, step: Decimal) -> Decimal:
    """Returns the largest multiple of `step` that is not above `number`, exactly."""
    try:
        rest = _EXACT.remainder(number, step)
        floor = _EXACT.subtract(number, _EXACT.add(rest, step) if rest < 0 else rest)
    except ArithmeticError as err:
        raise _refused("mask `band` cannot be applied to a number of so many digits") from err
    return floor or Decimal(0)


def _truncate(parameters: Parameters) -> MaskValue:
    unit = str(parameters["unit"])
    truncated(None, unit)

    def cut(value: Any) -> Any:  # noqa: ANN401 - of the type of the value
        try:
            return truncated(value, unit)
        except ValueError as err:
            raise _refused(f"mask `truncate` cannot be applied: {err}") from err

    return cut


def _each(name: str, apply: Callable[[Any], Any], *, of_texts: bool = True) -> MaskValue:
    """Applies a mask to a value or to each element of a list; null stays null."""

    def masked(value: Any) -> Any:  # noqa: ANN401 - of the type of the value
        if value is None:
            return None
        if isinstance(value, list | tuple):
            return [None if item is None else one(item) for item in value]
        return one(value)

    def one(value: Any) -> Any:  # noqa: ANN401 - of the type of the value
        if of_texts and not isinstance(value, str):
            raise _refused(f"mask `{name}` cannot be applied to a value that is no text")
        return apply(value)

    return masked


def _whole(number: Any) -> int:  # noqa: ANN401 - a Struct holds anything
    if isinstance(number, bool) or not isinstance(number, int | float) or int(number) != number:
        raise TypeError
    return int(number)


def _name(kind: types_pb2.MaskKind.ValueType) -> str:
    return types_pb2.MaskKind.Name(kind).removeprefix("MASK_KIND_").lower()


def _refused(message: str) -> EnforcementError:
    return EnforcementError(NOT_APPLICABLE, message)


_MAKERS: Mapping[types_pb2.MaskKind.ValueType, Callable[[Parameters], MaskValue]] = {
    types_pb2.MASK_KIND_NULLIFY: _nullify,
    types_pb2.MASK_KIND_DEFAULT: _default,
    types_pb2.MASK_KIND_CONSTANT: _constant,
    types_pb2.MASK_KIND_HASH: _nullify,  # stands for the declaration; compiled with its key
    types_pb2.MASK_KIND_REDACT: _redact,
    types_pb2.MASK_KIND_REGEX: _regex,
    types_pb2.MASK_KIND_PARTIAL: _partial,
    types_pb2.MASK_KIND_EMAIL: _email,
    types_pb2.MASK_KIND_BAND: _band,
    types_pb2.MASK_KIND_TRUNCATE: _truncate,
    types_pb2.MASK_KIND_NONE: _none,
}
