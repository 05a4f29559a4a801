"""An existing Casbin set, made one that loads here.

Owns `import_casbin`. The imported set answers what pycasbin answers of the files as they are, so

1. a line that pycasbin never applies (an unknown type, an effect that is none, a quote or remark in a name that the
   matcher compares) becomes a comment: to apply it now would be another policy, and whether that was meant is for its
   owners to say;
2. `as_written` reads such lines as they look instead, as readers of CSV and Casbin for Go do: without quotes, without
   the remark, `true` as `True`;
3. nothing else is touched, and what cannot be converted either way is left, with the finding that refuses it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gatebook.errors import PolicySetRefusedError
from gatebook.expression.tree import Call, Expression, Path
from gatebook.policy.bundle import MODEL_FILE, SETTINGS_FILE, rule_files
from gatebook.policy.model import EffectKind, walk
from gatebook.policy.model_file import parse_model
from gatebook.policy.policy_set import load
from gatebook.policy.rules_file import split_fields
from gatebook.policy.settings import ALLOW_BY_DEFAULT
from gatebook.values import Finding, Severity

ROUNDS_MAX = 64
"""How often what is left is looked at again: a line may have several faults, and one load tells 1,000 of them."""
NEVER_APPLIED: Final = "# Casbin never applied this line:"
_REMARK = re.compile(r"\s+#")
_CONSTANTS = {"true": "True", "false": "False", "null": "None", "nil": "None"}
_MARK = "\ufeff"


class Change(msgspec.Struct, frozen=True):
    """What was done with a line of a file, and why; `after` is empty where only `gatebook.yaml` says more now."""

    file: str
    line: int
    invariant: str
    why: str
    before: str
    after: str


class Imported(msgspec.Struct, frozen=True):
    """The files of the new set, what was changed, and what still refuses it."""

    files: Mapping[str, bytes]
    changes: tuple[Change, ...]
    left: tuple[Finding, ...]


class _Row(msgspec.Struct, frozen=True):
    """A line of the new file, and the number of the line that it comes from."""

    number: int
    text: str


def import_casbin(files: Mapping[str, bytes], name: str, *, as_written: bool = False) -> Imported:
    """Returns the set that `model.conf` and the rule files become."""
    importing = _Importing(files, name, as_written=as_written)
    left: tuple[Finding, ...] = ()
    for _ in range(ROUNDS_MAX):
        left = importing.findings()
        if not left or not importing.convert(left):
            break
    # A finding stands where the line stood that it is about.
    placed = (msgspec.structs.replace(it, line=importing.origin(it.file, it.line)) for it in left)
    return Imported(importing.files(), tuple(sorted(importing.changes, key=_place)), tuple(sorted(placed)))


def _place(change: Change) -> tuple[str, int]:
    return change.file, change.line


class _Importing:
    """The files on their way. Lives for one call of `import_casbin`."""

    def __init__(self, files: Mapping[str, bytes], name: str, *, as_written: bool) -> None:
        self._name, self._as_written = name, as_written
        self._acknowledged = False
        self._fixed: dict[str, bytes] = {}
        self._rows: dict[str, list[_Row]] = {}
        self.changes: list[Change] = []
        for path, content in files.items():
            try:
                text = content.decode()
            except UnicodeDecodeError:
                self._fixed[path] = content  # a finding says so, and nothing can be done
                continue
            self._rows[path] = [_Row(at, line) for at, line in enumerate(text.split("\n"), 1)]
        self._model, _ = parse_model(MODEL_FILE, files.get(MODEL_FILE, b""))

    def files(self) -> dict[str, bytes]:
        """Returns the files as they are now."""
        made = {path: "\n".join(row.text for row in rows).encode() for path, rows in self._rows.items()}
        said = [f"name: {self._name}"]
        if self._acknowledged:
            said += [
                "",
                "# The effect of the model allows what no rule mentions.",
                f"acknowledged: [{ALLOW_BY_DEFAULT}]",
            ]
        return {**self._fixed, **made, SETTINGS_FILE: ("\n".join(said) + "\n").encode()}

    def origin(self, file: str, line: int) -> int:
        """Returns the number that a line had in the file that was given."""
        rows = self._rows.get(file, [])
        return rows[line - 1].number if 0 < line <= len(rows) else line

    def findings(self) -> tuple[Finding, ...]:
        """Returns what refuses the files as they are now."""
        try:
            load(self.files(), self._name)
        except PolicySetRefusedError as err:
            return tuple(sorted(it for it in err.findings if it.severity is Severity.ERROR))
        return ()

    def convert(self, findings: tuple[Finding, ...]) -> bool:
        """Converts what can be, one fault of each line; tells whether anything was."""
        self._model, _ = parse_model(MODEL_FILE, self.files().get(MODEL_FILE, b""))
        first: dict[tuple[str, int], Finding] = {}
        for finding in findings:
            first.setdefault((finding.file, finding.line), finding)
        # From the last line to the first, so that a line more moves none that is still to come.
        done = [self._convert(it) for it in sorted(first.values(), key=lambda it: (it.file, -it.line))]
        return any(done)

    def _convert(self, finding: Finding) -> bool:
        if finding.invariant == "ALLOW_BY_DEFAULT":
            row = self._rows[finding.file][finding.line - 1]
            self._acknowledged = True
            self.changes.append(Change(MODEL_FILE, row.number, finding.invariant, finding.message, row.text, ""))
            return True
        rows = self._rows.get(finding.file)
        if rows is None or not 0 < finding.line <= len(rows):
            return False
        row = rows[finding.line - 1]
        is_rules = finding.file in rule_files(self._rows_as_files())
        made = self._rule(finding, row.text) if is_rules else self._definition(finding, row.text)
        if made is None or made == [row.text]:
            return False
        rows[finding.line - 1 : finding.line] = [_Row(row.number, text) for text in made]
        why = finding.message
        self.changes.append(Change(finding.file, row.number, finding.invariant, why, row.text, "\n".join(made)))
        return True

    def _rows_as_files(self) -> dict[str, bytes]:
        return dict.fromkeys(self._rows, b"")

    def _rule(self, finding: Finding, line: str) -> list[str] | None:
        """Returns what becomes of a line of rules; None where it cannot be known."""
        if finding.invariant == "BYTE_ORDER_MARK":
            rest = line.removeprefix(_MARK)
            return [rest if self._as_written or not rest.strip() or rest.startswith("#") else _never(rest)]
        if finding.invariant in ("INVISIBLE_CHARACTER", "CARRIAGE_RETURN"):
            return [_with_plain_spaces(line)]
        text = line.strip()
        key = text.partition(",")[0].strip()
        if finding.invariant == "WRONG_FIELD_COUNT" and key in self._model.roles:
            return _cut(text, self._model.roles[key].width)
        if self._as_written:
            return self._as_it_looks(finding, text)
        if finding.invariant in ("UNKNOWN_RULE_TYPE", "UNKNOWN_EFFECT"):
            return [_never(text)]
        if finding.invariant in ("QUOTED_FIELD", "TRAILING_COMMENT"):
            return self._odd_field(finding, text)
        return None

    def _odd_field(self, finding: Finding, text: str) -> list[str] | None:
        """Returns what becomes of a line with a quote or remark in a field."""
        if text[:1] in "\"'":
            return [_never(text)]
        spans, _ = split_fields(text)
        at = sum(start < finding.column for start, _ in spans) - 1
        key, field = text[slice(*spans[0])], text[slice(*spans[at])]
        lines = [row.text.strip() for rows in self._rule_rows() for row in rows]
        holding = [line for line in lines if field in _split(line)]
        if key in self._model.roles:
            by_subject = self._model.effects["e"].kind is EffectKind.SUBJECT_PRIORITY
            return None if by_subject or any(line != text for line in holding) else [_never(text)]
        names = self._model.policies[key].tokens if key in self._model.policies else ()
        if not 0 < at <= len(names):
            return None
        name = names[at - 1]
        if name == "eft":
            return [_never(text)]
        matchers = [it.expression for it in self._model.matchers.values() if it.policy_key == key]
        if not any(path.names[1:2] == (name,) for it in matchers for path in _fields_read(it, key)):
            return self._as_it_looks(finding, text) if name != "priority" else None
        linked = any(
            field in _split(row.text) for rows in self._rule_rows() for row in rows if row.text.startswith("g")
        )
        compared = all(self._is_compared(it, key, name) for it in matchers)
        return [_never(text)] if compared and not linked else None

    def _is_compared(self, matcher: Expression, key: str, name: str) -> bool:
        """Tells whether a matcher holds only where a request, or what it inherits, has the very text of a field."""
        parts = [matcher]
        compares = False
        while parts:
            part = parts.pop()
            if isinstance(part, Call) and part.op == "and":
                parts += part.operands
            elif isinstance(part, Call) and (part.op == "eq" or part.op in self._model.roles):
                own = [isinstance(it, Path) and it.names == (key, name) for it in part.operands]
                asks = any(isinstance(it, Path) and it.names[0] in self._model.requests for it in part.operands)
                compares |= any(own) and asks
        return compares

    def _rule_rows(self) -> list[list[_Row]]:
        return [self._rows[path] for path in rule_files(self._rows_as_files())]

    def _as_it_looks(self, finding: Finding, text: str) -> list[str] | None:
        match finding.invariant:
            case "TRAILING_COMMENT":
                found = _REMARK.search(text)
                return None if found is None else [text[found.start() :].strip(), text[: found.start()]]
            case "QUOTED_FIELD" | "SEPARATOR_IN_STRING":
                return _unquoted(text)
            case "FOREIGN_CONSTANT":
                return _constant(text, finding.column - 1)
            case "GLUED_OPERATOR":
                return _loosened(text)
            case "UNKNOWN_EFFECT":
                *rest, effect = text.rpartition(",")
                return ["".join(rest) + " " + effect.strip().lower()] if effect.strip().lower() in _EFFECTS else None
            case "UNKNOWN_RULE_TYPE":
                return (
                    _unquoted(text)
                    if text[:1] in "\"'"
                    else _retyped(text, (*self._model.policies, *self._model.roles))
                )
        return None

    def _definition(self, finding: Finding, line: str) -> list[str] | None:
        """Returns what becomes of a line of the model; None where it cannot be known."""
        match finding.invariant:
            case "BYTE_ORDER_MARK":
                return [line.removeprefix(_MARK)]
            case "CARRIAGE_RETURN" | "INVISIBLE_CHARACTER":
                return [_with_plain_spaces(line)]
            case "FOREIGN_CONSTANT" if self._as_written:
                return _constant(line, finding.column - 1)
            case "GLUED_OPERATOR" if self._as_written:
                return _loosened(line)
            case "UNKNOWN_KEY" | "KEY_GAP" if not line.rstrip().endswith("\\"):
                return [f"# Casbin never read this line: {line.strip()}"]
        return None


_EFFECTS = ("allow", "deny")


def _split(line: str) -> list[str]:
    text = line.strip()
    return [] if text.startswith("#") else [text[start:end] for start, end in split_fields(text)[0]]


def _fields_read(expression: Expression, key: str) -> list[Path]:
    return [node for node in walk(expression) if isinstance(node, Path) and node.names[0] == key]


def _never(line: str) -> str:
    return f"{NEVER_APPLIED} {line.strip()}"


def _with_plain_spaces(line: str) -> str:
    """Returns a line whose fields lose the odd spaces around them, which pycasbin takes off as well."""
    return ",".join(_trimmed(part) for part in line.split(","))


def _trimmed(part: str) -> str:
    inner = part.strip()
    before = len(part) - len(part.lstrip())
    return " " * bool(before) + inner


def _cut(text: str, width: int) -> list[str] | None:
    spans, _ = split_fields(text)
    if len(spans) <= width + 1:
        return None
    return [", ".join(text[start:end] for start, end in spans[: width + 1])]


def _unquoted(text: str) -> list[str] | None:
    """Returns a line without quotes around its fields, as a reader of CSV has it."""
    try:
        fields = next(csv.reader([text], skipinitialspace=True, strict=True))
    except (csv.Error, StopIteration):
        return None
    fields = [_bare(field.strip()) for field in fields]
    made = ", ".join(fields)
    spans, remarks = split_fields(made)
    same = not remarks and [made[start:end] for start, end in spans] == fields
    return [made] if same and made != text else None


def _bare(field: str) -> str:
    quoted = len(field) > 1 and field[0] == field[-1] == "'" and "'" not in field[1:-1]
    return field[1:-1].strip() if quoted else field


def _constant(text: str, at: int) -> list[str] | None:
    for foreign, ours in _CONSTANTS.items():
        if text[at:].lower().startswith(foreign):
            return [text[:at] + ours + text[at + len(foreign) :]]
    return None


def _loosened(text: str) -> list[str]:
    return [re.sub(r"\s*(&&|\|\|)\s*", r" \1 ", text)]


def _retyped(text: str, known: tuple[str, ...]) -> list[str] | None:
    key, comma, rest = text.partition(",")
    lowered = key.strip().lower()
    if text.startswith((";", "//", "--")):
        return [f"# {text.lstrip(';/-').strip()}"]
    return [f"{lowered}{comma}{rest}"] if lowered in known else None
