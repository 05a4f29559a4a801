r"""Reads `model.conf`: strictly, and every finding at once.

Owns the meaning of that file, which is Casbin's where Casbin reads it as it looks:

1. an option is `key = value` in one of five sections; a line that ends in `\` goes on in the next;
2. `#` and `;` begin a comment line; in `[policy_effect]` and `[matchers]` a `#` may also end the
   last line of a value;
3. keys are `r p e m g`, then numbered from 2 without a gap; nothing else is read by Casbin, so
   anything else is refused;
4. the effect has one of Casbin's exact texts, and `e` decides for every type of rule.

The model that comes back holds what could be read; with any error among the findings it must not
be used to decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from gatebook.policy.brought import NOTHING_BROUGHT, Brought
from gatebook.policy.conditions import Scope, check
from gatebook.policy.model import EffectDefinition, EffectKind, Matcher, Model, RoleDefinition, TokensDefinition
from gatebook.policy.source import LINE_CHARACTERS_MAX, Line, Passage, Remark, read_lines
from gatebook.policy.suggest import did_you_mean
from gatebook.values import Finding

SECTIONS = {
    "request_definition": "r",
    "policy_definition": "p",
    "role_definition": "g",
    "policy_effect": "e",
    "matchers": "m",
}
REQUIRED = ("request_definition", "policy_definition", "policy_effect", "matchers")
DEFINITIONS_MAX = 64
_SECTION_OF = {letter: section for section, letter in SECTIONS.items()}
_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ROLE = re.compile(r"_\s*,\s*_(\s*,\s*_){0,6}(?P<parameters>\s*,\s*\(\s*_(\s*,\s*_){0,7}\s*\))?")
# A quote that is not closed takes all that follows with it: to look behind it would take quadratic time.
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|['\"].*", re.DOTALL)
_EFFECT_KEY = re.compile(r"\bp[0-9]*\.")


class Option(msgspec.Struct, frozen=True):
    """One `key = value`; the letter is that of its section."""

    letter: str
    key: str
    value: Passage
    line: int


def parse_model(file: str, content: bytes, brought: Brought = NOTHING_BROUGHT) -> tuple[Model, list[Finding]]:
    """Returns the model and everything that is wrong with it, unsorted."""
    lines, findings = read_lines(file, content)
    reader = _Reader(file, findings)
    options = _known_keys(file, reader.read(lines), findings)
    _require_definitions(file, reader.sections, options, findings)
    requests = _tokens(options, "r", findings)
    policies = _tokens(options, "p", findings)
    roles = _roles(options, brought, findings)
    effects = _effects(options, findings)
    scope = Scope(
        requests={key: definition.tokens for key, definition in requests.items()},
        policies={key: definition.tokens for key, definition in policies.items()},
        role_arities={key: role.arity for key, role in roles.items()},
        given=frozenset(brought.functions),
        awaits=brought.awaits,
    )
    matchers = _matchers(options, scope, findings)
    return Model(requests, policies, roles, effects, matchers), findings


class _Reader:
    """Puts lines together to options as Casbin does. Lives for one file."""

    def __init__(self, file: str, findings: list[Finding]) -> None:
        self._file = file
        self._findings = findings
        self._letter: str | None = None
        self.sections: dict[str, int] = {}
        """The known and unknown sections of the file, by the line in which they begin."""
        self._parts: list[tuple[str, int, int]] = []
        self._options: list[Option] = []

    def read(self, lines: Iterable[Line]) -> list[Option]:
        """Returns the options of the known sections, in the order of the file."""
        continued: Line | None = None
        for line in lines:
            text = line.text.strip()
            column = len(line.text) - len(line.text.lstrip()) + 1
            is_section = text.startswith("[") and text.endswith("]")
            if continued is not None and (not text or text[0] in "#;" or is_section):
                self._report_continuation(continued)
                continued = None
            if not text or text[0] in "#;":
                continue
            if is_section:
                self._section(text[1:-1], line, column)
                continue
            continues = text.endswith("\\")
            self._parts.append((text[:-1].strip() + " " if continues else text, line.number, column))
            continued = line if continues else None
            if not continues:
                self._finish()
        if continued is not None:
            self._report_continuation(continued)
        return self._options

    def _report_continuation(self, line: Line) -> None:
        message = "the line ends in `\\`, but nothing goes on right below it; remove the `\\`, or what is between"
        self._add(line.number, len(line.text.rstrip()), "BROKEN_CONTINUATION", message)
        self._finish()

    def _section(self, name: str, line: Line, column: int) -> None:
        self._letter = SECTIONS.get(name)
        if self._letter is None:
            hint = f"known are {_quoted(SECTIONS)}{did_you_mean(name, SECTIONS)}"
            message = f"Casbin never reads the section `[{name}]`; {hint}"
            self._add(line.number, column, "UNKNOWN_SECTION", message)
            self._letter = ""
        elif name in self.sections:
            message = f"the section `[{name}]` began already in line {self.sections[name]}; keep it in one place"
            self._add(line.number, column, "DUPLICATE_SECTION", message)
        self.sections.setdefault(name, line.number)

    def _finish(self) -> None:
        parts, self._parts = self._parts, []
        offset, pieces = 0, []
        for text, line, column in parts:
            pieces.append((offset, line, column))
            offset += len(text)
        passage = Passage(self._file, "".join(text for text, _, _ in parts), tuple(pieces))
        key, equals, value = passage.text.partition("=")
        _, line, column = pieces[0]
        if len(passage.text) > LINE_CHARACTERS_MAX:
            message = f"the line has, with those that go on, more than {LINE_CHARACTERS_MAX} characters; shorten it"
            self._add(line, column, "LINE_TOO_LONG", message)
        elif not equals:
            self._add(
                line, column, "MALFORMED_LINE", f"`{passage.text.strip()}` is neither `key = value` nor `[section]`"
            )
        elif self._letter is None:
            self._add(
                line,
                column,
                "UNKNOWN_SECTION",
                f"`{key.strip()}` stands before any section, where Casbin never reads it",
            )
        elif self._letter:
            start = len(key) + 1 + len(value) - len(value.lstrip())
            end = len(passage.text.rstrip())
            self._options.append(Option(self._letter, key.strip(), passage.slice(start, max(start, end)), line))

    def _add(self, line: int, column: int, invariant: str, message: str) -> None:
        self._findings.append(Finding(self._file, line, column, invariant, message))


def _known_keys(file: str, options: list[Option], findings: list[Finding]) -> list[Option]:
    """Keeps the options that Casbin reads: the first of each key, keys numbered without a gap."""
    kept: dict[str, Option] = {}
    for option in options:
        if not re.fullmatch(f"{option.letter}([2-9]|[1-9][0-9]{1, 8})?", option.key):
            message = (
                f"Casbin never reads the key `{option.key}` in `[{_SECTION_OF[option.letter]}]`; "
                f"write `{option.letter}`, `{option.letter}2`, `{option.letter}3` and so on"
            )
            findings.append(Finding(file, option.line, 0, "UNKNOWN_KEY", message))
        elif not option.value.text:
            findings.append(
                Finding(file, option.line, 0, "EMPTY_DEFINITION", f"`{option.key}` has no value; write one")
            )
        elif option.key in kept:
            first = kept[option.key].line
            message = f"`{option.key}` is defined in line {first} already, and Casbin keeps only the last; remove one"
            findings.append(Finding(file, option.line, 0, "DUPLICATE_KEY", message))
        else:
            kept[option.key] = option
    for option in kept.values():
        number = int(option.key[1:] or 1)
        before = f"{option.letter}{number - 1 if number > 2 else ''}"  # noqa: PLR2004  # the key after `p` is `p2`
        if number > DEFINITIONS_MAX:
            findings.append(Finding(file, option.line, 0, "UNKNOWN_KEY", f"keys are numbered up to {DEFINITIONS_MAX}"))
        elif number > 1 and before not in kept:
            message = f"Casbin never reads `{option.key}`, since there is no `{before}`; number the keys without a gap"
            findings.append(Finding(file, option.line, 0, "KEY_GAP", message))
    return [option for option in kept.values() if int(option.key[1:] or 1) <= DEFINITIONS_MAX]


def _require_definitions(
    file: str, sections: Mapping[str, int], options: list[Option], findings: list[Finding]
) -> None:
    defined = {option.key for option in options}
    for section in REQUIRED:
        key = SECTIONS[section]
        if section not in sections:
            findings.append(Finding(file, 0, 0, "MISSING_SECTION", f"the section `[{section}]` is missing; add it"))
        elif key not in defined:
            message = f"`[{section}]` does not define `{key}`; add it"
            findings.append(Finding(file, sections[section], 1, "MISSING_DEFINITION", message))


def _tokens(options: list[Option], letter: str, findings: list[Finding]) -> dict[str, TokensDefinition]:
    definitions = {}
    for option in options:
        if option.letter != letter:
            continue
        tokens: dict[str, None] = {}
        offset = 0
        for part in option.value.text.split(","):
            name = part.strip()
            at = offset + len(part) - len(part.lstrip())
            hash_at = offset + part.find("#")
            offset += len(part) + 1
            if "#" in part:
                message = "Casbin takes a comment after a value as part of it; put it into a line of its own"
                findings.append(option.value.finding(Remark(hash_at, "TRAILING_COMMENT", message)))
            elif not _TOKEN.fullmatch(name):
                message = f"`{name}` is no name; write letters, digits and `_`, separated by commas"
                findings.append(option.value.finding(Remark(at, "MALFORMED_DEFINITION", message)))
            elif name in tokens:
                message = f"`{option.key}` names `{name}` twice; remove one"
                findings.append(option.value.finding(Remark(at, "DUPLICATE_TOKEN", message)))
            tokens[name] = None
        definitions[option.key] = TokensDefinition(option.key, tuple(tokens), option.line)
    return definitions


def _roles(options: list[Option], brought: Brought, findings: list[Finding]) -> dict[str, RoleDefinition]:
    roles = {}
    for option in options:
        if option.letter != "g":
            continue
        if "#" in option.value.text:
            message = "Casbin takes a comment after a value as part of it; put it into a line of its own"
            findings.append(option.value.finding(Remark(option.value.text.index("#"), "TRAILING_COMMENT", message)))
        elif not (match := _ROLE.fullmatch(option.value.text)):
            message = f"`{option.value.text}` is no relation; write `_, _`, or `_, _, _` for roles within a domain"
            findings.append(option.value.finding(Remark(0, "MALFORMED_DEFINITION", message)))
        elif match["parameters"] and not brought.awaits and option.key not in brought.conditions:
            message = (
                f"links of `{option.key}` hold under conditions, but nobody says which; add "
                f"`role_conditions: {{{option.key}: timeMatch}}` to `gatebook.yaml`, or write `_, _` or `_, _, _`"
            )
            findings.append(option.value.finding(Remark(0, "MISSING_CONDITION", message)))
        names, _, parameters = option.value.text.partition("(")
        arity = max(names.count("_"), 2)
        roles[option.key] = RoleDefinition(option.key, arity, option.line, parameters.count("_"))
    return roles


def _effects(options: list[Option], findings: list[Finding]) -> dict[str, EffectDefinition]:
    effects: dict[str, EffectDefinition] = {}
    kinds = {kind.value: kind for kind in EffectKind}
    for option in options:
        if option.letter != "e":
            continue
        value = _without_comment(option.value, findings)
        kind = kinds.get(_EFFECT_KEY.sub("p.", value.text))
        if kind is None:
            message = f"the effect `{value.text}` is not supported; write one of {_quoted(kinds)}, space for space"
            findings.append(value.finding(Remark(0, "UNKNOWN_POLICY_EFFECT", message)))
            continue
        if "e" in effects and effects["e"].kind is not kind:
            message = (
                f"Casbin applies `e` to every type of rule and never reads `{option.key}`; write the same effect as `e`"
            )
            findings.append(value.finding(Remark(0, "DIFFERENT_EFFECTS", message)))
        effects[option.key] = EffectDefinition(option.key, kind, option.line)
    return effects


def _matchers(options: list[Option], scope: Scope, findings: list[Finding]) -> dict[str, Matcher]:
    matchers = {}
    for option in options:
        if option.letter != "m":
            continue
        value = _without_comment(option.value, findings)
        tree, remarks = check(value.text, scope)
        findings += [value.finding(remark) for remark in remarks]
        if tree is not None:
            matchers[option.key] = Matcher(option.key, value.text, tree, option.line)
    return matchers


def _without_comment(value: Passage, findings: list[Finding]) -> Passage:
    """Cuts the value at its first `#`, as Casbin does, if a reader would cut it there too."""
    at = value.text.find("#")
    if at < 0:
        return value
    if any(match.start() < at < match.end() for match in _STRING.finditer(value.text)):
        message = "Casbin cuts the value at `#` also inside quotes; compare with a text that has none"
        findings.append(value.finding(Remark(at, "COMMENT_IN_STRING", message)))
        return value
    if value.place(at)[0] != value.place(len(value.text))[0]:
        message = "Casbin cuts the whole value at `#`, with the lines that follow; put the comment above the option"
        findings.append(value.finding(Remark(at, "TRAILING_COMMENT", message)))
    return value.slice(0, len(value.text[:at].rstrip()))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
