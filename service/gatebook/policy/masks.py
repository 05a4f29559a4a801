"""The masks that a p2 rule can name: their syntax, their types and their order.

Owns the closed vocabulary of masks. A mask is the last field of a p2 line. Casbin splits a line at
its commas, so the syntax has none: a name, then its parameters, each after a colon.

    nullify  default  hash  redact  email  none
    constant:<text>                  every value becomes the text, read as the column's type
    regex:<pattern>:<replacement>    RE2; the replacement is literal
    partial:first|last:<count>       1 to 256 characters stay
    band:<step>                      a positive decimal number of at most 15 digits
    truncate:year|quarter|month|week|day|hour
    custom:<name>                    the enforcer's own expression

In `<text>`, `<pattern>` and `<replacement>` the characters `, : " # %` and a space at either end are
written `%2C %3A %22 %23 %25 %20`, as in a URL.

Promises: what does not parse is refused, and never read as a weaker mask (design section 5.1); of
two masks `at_least_as_strict` says which is stricter, or neither, and then a column that meets both
is denied (section 5.4).
"""

from __future__ import annotations

import datetime as dt
import json
import re
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec
import re2

from gatebook.errors import GatebookError
from gatebook.policy.dataset import COLUMN_TYPES
from gatebook.values import MaskKind

Argument = str | int | float

TEXT_CHARACTERS_MAX = 512
PARTIAL_COUNT_MAX = 256
STEP_DIGITS_MAX = 15
"""A double holds every decimal number of so many digits, so a step survives a proto `Struct`."""

TRUNCATE_UNITS = ("hour", "day", "week", "month", "quarter", "year")
"""From the finest to the coarsest. A month counts as coarser than a week, though weeks cross months."""

_PARAMETER_NAMES: Mapping[MaskKind, tuple[str, ...]] = {
    MaskKind.CONSTANT: ("value",),
    MaskKind.REGEX: ("pattern", "replacement"),
    MaskKind.PARTIAL: ("keep", "count"),
    MaskKind.BAND: ("step",),
    MaskKind.TRUNCATE: ("unit",),
    MaskKind.CUSTOM: ("name",),
}
_KINDS: Mapping[str, MaskKind] = {kind.name.lower(): kind for kind in MaskKind if kind is not MaskKind.UNSPECIFIED}
_ANY = frozenset(COLUMN_TYPES)
_TEXTS = frozenset({"text", "text[]"})
_NUMBERS = frozenset({"int", "bigint", "numeric"})
_TYPES: Mapping[MaskKind, frozenset[str]] = {
    MaskKind.HASH: _TEXTS,
    MaskKind.REDACT: _TEXTS,
    MaskKind.REGEX: _TEXTS,
    MaskKind.PARTIAL: _TEXTS,
    MaskKind.EMAIL: _TEXTS,
    MaskKind.BAND: _NUMBERS,
    MaskKind.TRUNCATE: frozenset({"timestamptz", "date"}),
}
_INDEPENDENT_OF_VALUE = frozenset({MaskKind.NULLIFY, MaskKind.DEFAULT, MaskKind.CONSTANT})
_RAW_FORBIDDEN = re.compile(r'[,"#\x00-\x1f\x7f]')
_ESCAPED = re.compile(r'[,:"#%\x00-\x1f\x7f]|^ | $')
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_STEP = re.compile(r"[0-9]+(\.[0-9]+)?")
_COUNT = re.compile(r"[1-9][0-9]{0,9}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_INTEGER_RANGES = {"int": 2**31, "bigint": 2**63}
_RE2_OPTIONS = re2.Options()
_RE2_OPTIONS.log_errors = False
_RE2_OPTIONS.max_mem = 1 << 20


class MaskError(GatebookError):
    """A mask or a minimum group of a policy line is not one; `offset` counts characters from 0."""

    reason = "POLICY_SET_REFUSED"

    def __init__(self, message: str, offset: int) -> None:
        """Takes what is wrong and where in the field."""
        super().__init__(message)
        self.offset = offset


class MaskSpec(msgspec.Struct, frozen=True):
    """A mask as a p2 rule names it; `arguments` are in the order of the syntax."""

    kind: MaskKind
    arguments: tuple[Argument, ...] = ()

    def parameters(self) -> dict[str, Argument]:
        """Returns the arguments under the names that a decision gives them."""
        return dict(zip(_PARAMETER_NAMES.get(self.kind, ()), self.arguments, strict=True))

    def __str__(self) -> str:
        """Returns the mask in the syntax of a policy line."""
        escaped = [_ESCAPED.sub(_escape, str(argument)) for argument in self.arguments]
        return ":".join((self.kind.name.lower(), *escaped))


@lru_cache(maxsize=4096)
def parse_mask(text: str) -> MaskSpec:
    """Reads the mask field of a p2 line.

    Raises:
        MaskError: The text is no mask of the vocabulary, or a parameter is out of range.
    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise MaskError(f"mask is longer than {TEXT_CHARACTERS_MAX} characters", TEXT_CHARACTERS_MAX)
    name, *parameters = text.split(":")
    kind = _KINDS.get(name)
    if kind is None:
        known = " ".join(sorted(_KINDS))
        raise MaskError(f"unknown mask `{name}`: write one of {known}", 0)
    names = _PARAMETER_NAMES.get(kind, ())
    if len(parameters) != len(names):
        form = ":".join((name, *(f"<{part}>" for part in names)))
        raise MaskError(f"mask `{name}` has {len(parameters)} parameters: write `{form}`", len(name))
    arguments: list[Argument] = []
    offset = len(name) + 1
    for part, parameter in zip(names, parameters, strict=True):
        arguments.append(_READERS[part](parameter, offset))
        offset += len(parameter) + 1
    return MaskSpec(kind, tuple(arguments))


def parse_group(text: str) -> int:
    """Reads the `k` field of a p3 line: how many distinct data subjects a group needs.

    Raises:
        MaskError: The text is no positive whole number below 2^31.
    """
    if not _COUNT.fullmatch(text) or int(text) >= 2**31:
        raise MaskError(f"minimum group `{text}` is no positive whole number: write `5`, say", 0)
    return int(text)


def castable(mask: MaskSpec, column_type: str) -> bool:
    """Tells whether what the mask makes of a value is still one of the column's type.

    A mask that would leave every value of the type as it is (`band:1` of an int, `truncate:day` of a
    date) is not castable either: clear text needs an explicit `none`.
    """
    if mask.kind in (MaskKind.NULLIFY, MaskKind.NONE):
        return True
    if column_type not in _ANY:
        return False
    if mask.kind is MaskKind.CONSTANT:
        return _is_of_type(str(mask.arguments[0]), column_type)
    if column_type not in _TYPES.get(mask.kind, _ANY):
        return False
    if mask.kind is MaskKind.BAND and column_type != "numeric":
        step = mask.arguments[0]
        return isinstance(step, int) and 1 < step < _INTEGER_RANGES[column_type]
    return column_type != "date" or mask.arguments[:1] not in (("hour",), ("day",))


def at_least_as_strict(one: MaskSpec, other: MaskSpec) -> bool:
    """Tells whether `one` shows no more than `other`: a partial order.

    Of different kinds the earlier of `MaskKind` is the stricter; a custom mask compares only with the
    kinds that do not look at the value, and with none. Of one kind it is the larger band step, the
    coarser unit, the fewer kept characters of the same end; other parameters must be equal.
    """
    if one.kind is other.kind:
        return one == other or _coarser(one, other)
    if one.kind is MaskKind.CUSTOM:
        return other.kind is MaskKind.NONE
    if other.kind is MaskKind.CUSTOM:
        return one.kind in _INDEPENDENT_OF_VALUE
    return one.kind < other.kind


def _coarser(one: MaskSpec, other: MaskSpec) -> bool:
    """Tells whether the parameters of `one` show less than those of `other`, of the same kind."""
    if one.kind is MaskKind.PARTIAL:
        return one.arguments[0] == other.arguments[0] and float(one.arguments[1]) < float(other.arguments[1])
    if one.kind is MaskKind.BAND:
        return float(one.arguments[0]) > float(other.arguments[0])
    if one.kind is MaskKind.TRUNCATE:
        return TRUNCATE_UNITS.index(str(one.arguments[0])) > TRUNCATE_UNITS.index(str(other.arguments[0]))
    return False


def _text(parameter: str, offset: int) -> str:
    """Reads a percent-encoded text."""
    if found := _RAW_FORBIDDEN.search(parameter):
        message = f"character {found[0]!r} in a mask: write `{_escape(found)}`"
        raise MaskError(message, offset + found.start())
    if found := _BAD_ESCAPE.search(parameter):
        message = "`%` without two hexadecimal digits in a mask: write `%25`"
        raise MaskError(message, offset + found.start())
    try:
        return urllib.parse.unquote(parameter, errors="strict")
    except UnicodeDecodeError as err:
        raise MaskError("escapes of a mask are not UTF-8", offset) from err


def _escape(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _pattern(parameter: str, offset: int) -> str:
    """Reads an RE2 pattern that matches something, and not the empty text."""
    pattern = _text(parameter, offset)
    try:
        compiled = re2.compile(pattern, _RE2_OPTIONS)
    except re2.error as err:
        raise MaskError(f"pattern of a mask is not RE2: {_cause(err)}", offset) from err
    if compiled.search("") is not None:
        raise MaskError("pattern of a mask matches the empty text: demand a character", offset)
    return pattern


def _cause(error: re2.error) -> str:
    cause = error.args[0] if error.args else ""
    return cause.decode(errors="replace") if isinstance(cause, bytes) else str(cause)


def _replacement(parameter: str, offset: int) -> str:
    """Reads the literal text that replaces each match."""
    text = _text(parameter, offset)
    if "\\" in text:
        raise MaskError("replacement of a mask is literal: leave out the backslash", offset)
    return text


def _keep(parameter: str, offset: int) -> str:
    if parameter not in ("first", "last"):
        raise MaskError(f"unknown end `{parameter}`: write `first` or `last`", offset)
    return parameter


def _count(parameter: str, offset: int) -> int:
    if not _COUNT.fullmatch(parameter) or int(parameter) > PARTIAL_COUNT_MAX:
        raise MaskError(f"count `{parameter}` is not between 1 and {PARTIAL_COUNT_MAX}", offset)
    return int(parameter)


def _step(parameter: str, offset: int) -> int | float:
    digits = parameter.replace(".", "").lstrip("0")
    if not _STEP.fullmatch(parameter) or not digits or len(parameter.replace(".", "")) > STEP_DIGITS_MAX:
        message = f"step `{parameter}` is no positive decimal number of at most {STEP_DIGITS_MAX} digits"
        raise MaskError(message, offset)
    number = float(parameter)
    return int(number) if number.is_integer() else number


def _unit(parameter: str, offset: int) -> str:
    if parameter not in TRUNCATE_UNITS:
        raise MaskError(f"unknown unit `{parameter}`: write one of {' '.join(TRUNCATE_UNITS)}", offset)
    return parameter


def _custom_name(parameter: str, offset: int) -> str:
    if not _NAME.fullmatch(parameter):
        raise MaskError(f"custom mask `{parameter}`: write lower-case letters, digits and _", offset)
    return parameter


_READERS: Mapping[str, Callable[[str, int], Argument]] = {
    "value": _text,
    "pattern": _pattern,
    "replacement": _replacement,
    "keep": _keep,
    "count": _count,
    "step": _step,
    "unit": _unit,
    "name": _custom_name,
}


def _is_of_type(text: str, column_type: str) -> bool:
    """Tells whether a constant reads as a value of the column's type."""
    if column_type == "text":
        return True
    if column_type in _INTEGER_RANGES:
        bound = _INTEGER_RANGES[column_type]
        return re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII) is not None and -bound <= int(text) < bound
    if column_type == "numeric":
        return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text, re.ASCII) is not None
    if column_type == "bool":
        return text in ("true", "false")
    try:
        return _CONSTANT_READERS[column_type](text)
    except (ValueError, RecursionError):
        return False


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _no_number(text: str) -> float:
    """Refuses `NaN` and `Infinity`, which are no JSON."""
    raise ValueError(text)


_CONSTANT_READERS: Mapping[str, Callable[[str], bool]] = {
    "uuid": lambda text: str(uuid.UUID(text)) == text,
    "date": lambda text: dt.date.fromisoformat(text).isoformat() == text,
    "timestamptz": lambda text: dt.datetime.fromisoformat(text).tzinfo is not None,
    "jsonb": lambda text: json.loads(text, parse_constant=_no_number) is not NotImplemented,
    "text[]": lambda text: _is_list_of_texts(json.loads(text)),
}
