"""Where an enforcer has its model and its rules from, in every way in which Casbin takes them.

Owns the reading of

1. a model: the path of a file, the text itself, or a model of Casbin's, which is written down as text again;
2. rules: the path of a file, the text itself, an adapter (whatever has `load_policy(model)`), or nothing,
   where a model of Casbin's brings its own.

Promises: nothing of Casbin's is imported, and an adapter is handed a record of our own, which drops no line.
"""

from __future__ import annotations

import os
import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gatebook.errors import GatebookError
from gatebook.policy.bundle import MODEL_FILE, POLICY_FILE
from gatebook.policy.model_file import SECTIONS

Row = tuple[str, ...]
"""A line of a policy: its type, such as `p` or `g`, and its fields."""

_RULE_LINE = re.compile(r"\s*[pg][0-9]*\s*,")
_RULE_TYPE = re.compile(r"[pg][0-9]*")


@runtime_checkable
class Adapter(Protocol):
    """Whatever gives the rules to a model of Casbin's."""

    def load_policy(self, model: Any) -> object:  # noqa: ANN401  # a model of Casbin's, or what passes for one
        """Adds each rule to the model."""


class SourceError(GatebookError):
    """A model or a policy cannot be had from what was given."""


def read_model(model: object) -> bytes:
    """Returns the text of a model.

    Raises:
        SourceError: it is no text, path or model of Casbin's, or its file cannot be read.
    """
    if isinstance(model, str | os.PathLike):
        return _read_text(model, is_text=_is_model_text(model))
    definitions = getattr(model, "model", None)
    if isinstance(definitions, dict):
        return "\n".join(_written(definitions)).encode()
    raise SourceError("the model is given as the path of a file, as its text, or as a `casbin.model.Model`")


def read_policy(policy: object, model: object) -> bytes | list[Row]:
    """Returns the rules as text where they are given as one, else row by row.

    Raises:
        SourceError: it is no text, path or adapter, or its file cannot be read.
    """
    if isinstance(policy, str | os.PathLike):
        return _read_text(policy, is_text=_is_policy_text(policy))
    if policy is None:
        definitions = getattr(model, "model", None)
        return list(_rows(definitions)) if isinstance(definitions, dict) else b""
    if isinstance(policy, Adapter):
        record = _Record()
        policy.load_policy(record)
        return list(_rows(record.model))
    raise SourceError("the policy is given as the path of a file, as its text, or as an adapter with `load_policy`")


def files_of(model: object, policy: object) -> dict[str, str]:
    """Returns the paths that were given, by the name that findings have for the file."""
    given = ((MODEL_FILE, model, _is_model_text), (POLICY_FILE, policy, _is_policy_text))
    return {
        name: os.fspath(source)
        for name, source, is_text in given
        if isinstance(source, str | os.PathLike) and not is_text(source)
    }


def _is_model_text(model: str | os.PathLike[str]) -> bool:
    return isinstance(model, str) and ("\n" in model or model.lstrip().startswith("["))


def _is_policy_text(policy: str | os.PathLike[str]) -> bool:
    return isinstance(policy, str) and ("\n" in policy or not policy or bool(_RULE_LINE.match(policy)))


def _read_text(source: str | os.PathLike[str], *, is_text: bool) -> bytes:
    if is_text:
        return str(source).encode()
    try:
        return Path(source).read_bytes()
    except OSError as err:
        raise SourceError(f"cannot read `{os.fspath(source)}`: {err.strerror}") from err


def _written(definitions: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a model of Casbin's, which writes `r_sub` for the `r.sub` that it read."""
    names = {
        f"{token}": f"{key}.{token.removeprefix(f'{key}_')}"
        for section in ("r", "p")
        for key, assertion in definitions.get(section, {}).items()
        for token in assertion.tokens
    }
    escaped = re.compile(rf"\b({'|'.join(map(re.escape, names))}|p[0-9]*_eft)\b")
    for section, letter in SECTIONS.items():
        if not definitions.get(letter):
            continue
        yield f"[{section}]"
        for key, assertion in definitions[letter].items():
            value = assertion.value
            if letter in "em":
                value = escaped.sub(lambda found: names.get(found[0]) or found[0].replace("_", ".", 1), value)
            yield f"{key} = {value}"


def _rows(definitions: dict[str, Any]) -> Iterator[Row]:
    for section in ("p", "g"):
        for key, assertion in (definitions.get(section) or {}).items():
            for fields in assertion.policy:
                yield (key, *map(str, fields))


class _Assertion:
    """The rules of one type."""

    def __init__(self) -> None:
        self.policy: list[list[str]] = []


class _Types:
    """The rules by type. There is every type that rules may have, so that an adapter drops none unseen."""

    def __init__(self) -> None:
        self._assertions: dict[str, _Assertion] = {}

    def __contains__(self, ptype: object) -> bool:
        return isinstance(ptype, str) and _RULE_TYPE.fullmatch(ptype) is not None

    def __getitem__(self, ptype: str) -> _Assertion:
        return self._assertions.setdefault(ptype, _Assertion())

    def get(self, ptype: str) -> _Assertion:
        return self[ptype]

    def keys(self) -> _Types:
        return self

    def items(self) -> ItemsView[str, _Assertion]:
        return self._assertions.items()


class _Record:
    """Passes for a model of Casbin's to an adapter, and keeps what the adapter adds."""

    def __init__(self) -> None:
        self.model = {"p": _Types(), "g": _Types()}

    def __getitem__(self, section: str) -> _Types | None:
        return self.model.get(section)

    def keys(self) -> KeysView[str]:
        return self.model.keys()

    def add_policy(self, section: str, ptype: str, rule: Iterable[str]) -> bool:
        self.model[section][ptype].policy.append(list(rule))
        return True

    def add_policies(self, section: str, ptype: str, rules: Iterable[Iterable[str]]) -> bool:
        for rule in rules:
            self.add_policy(section, ptype, rule)
        return True
