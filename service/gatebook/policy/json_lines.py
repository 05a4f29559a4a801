"""Files of JSON lines: one object in a line, read strictly.

Owns the decoding of a line and where in it something is wrong. A key that stands twice, `NaN`, and a number of
thousands of digits are refused, and so is a key that the format does not know: it may be a misspelt one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeGuard, TypeVar

from gatebook.policy.source import Line
from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_reader import cut
from gatebook.values import Finding

INTEGER_MAX: Final = 2**63

_SURROGATE = re.compile("[\ud800-\udfff]")

T = TypeVar("T")


class WrongLineError(Exception):
    """Something is wrong with a line; the finding points at the last place where `near` stands.

    Carries a finding out of a line, and never leaves the module that reads the file.
    """

    def __init__(self, invariant: str, message: str, near: str = "") -> None:
        """Takes what is wrong, and the text that shows it."""
        super().__init__(message)
        self.invariant, self.message, self.near = invariant, message, near

    def finding(self, file: str, line: Line, near: str) -> Finding:
        """Returns the finding; `near` is the text as it stands in the line."""
        column = line.text.rfind(near) + 1 if self.near else 1
        return Finding(file, line.number, max(column, 1), self.invariant, self.message)


def read_objects(
    file: str,
    lines: Sequence[Line],
    findings: list[Finding],
    make: Callable[[Mapping[str, Any], Line], T],
    *,
    keys: Sequence[str],
    hint: str,
) -> Iterator[T]:
    """Yields what `make` makes of the object in each line; a line that it refuses adds a finding."""
    for line in lines:
        if not line.text.strip():
            continue
        try:
            yield make(_decode(line.text, keys, hint), line)
        except json.JSONDecodeError as err:
            findings.append(Finding(file, line.number, err.pos + 1, "JSON_SYNTAX", f"no valid JSON: {err.msg.lower()}"))
        except WrongLineError as wrong:
            findings.append(wrong.finding(file, line, json.dumps(wrong.near, ensure_ascii=False)))


def is_text(value: object) -> TypeGuard[str]:
    """Tells whether a value is a text that UTF-8 can hold: JSON can escape half a character."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def _decode(text: str, keys: Sequence[str], hint: str) -> dict[str, Any]:
    try:
        record = json.loads(text, object_pairs_hook=_unrepeated, parse_constant=_no_constant)
    except RecursionError as err:
        raise WrongLineError("WRONG_VALUE", "the object is nested too deeply") from err
    except json.JSONDecodeError:
        raise
    except ValueError as err:  # a whole number of thousands of digits
        raise WrongLineError("WRONG_VALUE", "a number is too large") from err
    if not isinstance(record, dict):
        raise WrongLineError("WRONG_VALUE", 'a line holds one object, such as `{"type": "user", "id": "ana"}`')
    for key in record:
        if key not in keys:
            near = did_you_mean(key, keys) or f"; {hint}"
            raise WrongLineError("UNKNOWN_KEY", f"unknown key `{cut(key)}`{near}", key)
    return record


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # `add` returns nothing, which is false
        raise WrongLineError("DUPLICATE_KEY", f"the key `{cut(repeated)}` stands twice", repeated)
    return record


def _no_constant(text: str) -> NoReturn:
    raise WrongLineError("WRONG_VALUE", f"`{text}` is no JSON")
