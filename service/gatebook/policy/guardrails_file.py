"""`guardrails.yaml`: what must never be possible, read strictly.

Owns the shape of the file. Every role, node, action, purpose and mask that it names must be known, since a guardrail
about a misspelt name would hold of everything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from gatebook.expression.tree import Path
from gatebook.policy import names
from gatebook.policy.conditions import Scope, check
from gatebook.policy.guardrails import Condition, Form, Guardrail, Kind, Who, Within
from gatebook.policy.masks import MaskError, MaskSpec, parse_mask
from gatebook.policy.model import walk
from gatebook.policy.purposes import Purposes
from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_nodes import Listing, Node, Scalar
from gatebook.policy.yaml_reader import DUPLICATE_NAME, MISSING_KEY, UNKNOWN_NAME, WRONG_VALUE, Reader
from gatebook.values import Finding, MaskKind

GUARDRAILS_MAX = 200
FORMS_MIN = 2
FORMS_MAX = 8
PURPOSES_APART_MAX = 32
GROUP_MAX = 2**31 - 1
ANY_MASK = "any"
KINDS = tuple(kind.value for kind in Kind)
FORM_KEYS = ("who", "actions", "on", "purposes", "purposes_beyond", "unless")
APART_KEYS = ("purposes", "within", "on", "actions", "who", "unless")
WHO_KEYS = ("without", "with", "where")
UNLESS_KEYS = ("masked", "group", "own_rows")

_CONDITION_DEPTH = 3
_SCOPE = Scope({"r": ("sub", "ctx", "row")}, {}, {})


class Vocabulary(msgspec.Struct, frozen=True):
    """The names that a guardrail may mention; None: any, they could not be read."""

    roles: Collection[str] | None = None
    nodes: Collection[str] | None = None
    actions: Collection[str] | None = None
    purposes: Purposes | None = None
    context: Collection[str] | None = None
    columns: Collection[str] | None = None


def parse_guardrails(
    text: str, file: str, vocabulary: Vocabulary
) -> tuple[tuple[Guardrail, ...] | None, list[Finding]]:
    """Reads `guardrails.yaml`.

    Returns:
        The guardrails, or None when there is a finding, and all findings by line and column.
    """
    reader = Reader(file)
    root = reader.root(text)
    found = None if root is None else reader.fields(root, file, ("guardrails",), ("guardrails",))
    guardrails: list[Guardrail] = []
    for key, node in (
        () if not found or "guardrails" not in found else reader.entries(found["guardrails"], "guardrails")
    ):
        guardrail = _File(reader, vocabulary).guardrail(key, node)
        if guardrail is not None:
            guardrails.append(guardrail)
        if len(guardrails) > GUARDRAILS_MAX:
            reader.refuse(key, "TOO_MANY", f"a policy set has at most {GUARDRAILS_MAX} guardrails")
            break
    return None if reader.failed else tuple(guardrails), reader.sorted_findings()


class _File:
    """Reads one guardrail; `_where` is its name, for findings."""

    def __init__(self, reader: Reader, vocabulary: Vocabulary) -> None:
        self._reader, self._known = reader, vocabulary

    def guardrail(self, key: Scalar, node: Node) -> Guardrail | None:
        """Reads a guardrail; None where its shape is wrong."""
        name = self._reader.name(key, "guardrails", names.WORD, "content-in-clear")
        fields = self._reader.fields(node, key.text, ("description", *KINDS))
        if name is None or fields is None:
            return None
        description = self._reader.text(fields["description"], f"{name}.description") if "description" in fields else ""
        kinds = [kind for kind in Kind if kind.value in fields]
        if len(kinds) != 1:
            message = (
                f"`{name}` says {'nothing' if not kinds else 'two things'}: write one of `never`, `apart`, `separate`"
            )
            self._reader.refuse(key, MISSING_KEY, message)
            return None
        kind = kinds[0]
        said, where = fields[kind.value], f"{name}.{kind.value}"
        guardrail = Guardrail(
            name, kind, (), description=description or "", file=self._reader.file, line=key.line, column=key.column
        )
        if kind is Kind.NEVER:
            return msgspec.structs.replace(guardrail, forms=(self._form(said, where),))
        if kind is Kind.SEPARATE:
            return msgspec.structs.replace(guardrail, forms=self._forms(said, where))
        return self._apart(guardrail, said, where)

    def _apart(self, guardrail: Guardrail, said: Node, where: str) -> Guardrail | None:
        fields = self._reader.fields(said, where, APART_KEYS, ("purposes",))
        if fields is None:
            return None
        apart = self._purposes(fields.get("purposes"), f"{where}.purposes")
        if "purposes" in fields and not FORMS_MIN <= len(apart) <= PURPOSES_APART_MAX:
            message = f"`{where}.purposes` names 2 to {PURPOSES_APART_MAX} purposes that never meet"
            self._reader.refuse(fields["purposes"], WRONG_VALUE, message)
        for one in apart:
            for other in apart:
                if other.startswith(f"{one}."):
                    message = f"`{other}` lies below `{one}`, so that they always meet; leave one out"
                    self._reader.refuse(fields["purposes"], WRONG_VALUE, message)
        chosen = self._reader.choice(fields["within"], f"{where}.within", tuple(Within)) if "within" in fields else None
        form = self._of({key: value for key, value in fields.items() if key not in ("purposes", "within")}, where)
        within = Within(chosen) if chosen is not None else Within.DATASET
        return msgspec.structs.replace(guardrail, forms=(form,), apart=apart, within=within)

    def _forms(self, said: Node, where: str) -> tuple[Form, ...]:
        forms = tuple(
            self._form(item, f"{where}[{place}]") for place, item in enumerate(self._reader.items(said, where))
        )
        if isinstance(said, Listing) and not FORMS_MIN <= len(forms) <= FORMS_MAX:
            self._reader.refuse(said, WRONG_VALUE, f"`{where}` lists 2 to {FORMS_MAX} forms of access")
        return forms

    def _form(self, node: Node, where: str) -> Form:
        fields = self._reader.fields(node, where, FORM_KEYS)
        if fields is None:
            return Form()
        if not fields.keys() - {"unless"}:
            self._reader.refuse(
                node, MISSING_KEY, f"`{where}` says of no access: name at least `on`, `actions` or `who`"
            )
        if "purposes" in fields and "purposes_beyond" in fields:
            self._reader.refuse(
                fields["purposes"], WRONG_VALUE, f"`{where}` has `purposes_beyond` too; keep one of them"
            )
        return self._of(fields, where)

    def _of(self, fields: Mapping[str, Node], where: str) -> Form:
        unless = self._reader.fields(fields["unless"], f"{where}.unless", UNLESS_KEYS) if "unless" in fields else None
        unless = unless or {}
        masked, masks = self._masks(unless.get("masked"), f"{where}.unless.masked")
        group = self._reader.integer(unless["group"], f"{where}.unless.group", 1, GROUP_MAX) if "group" in unless else 0
        own = self._reader.flag(unless["own_rows"], f"{where}.unless.own_rows") if "own_rows" in unless else False
        return Form(
            on=self._known_names(fields.get("on"), f"{where}.on", self._known.nodes),
            actions=self._known_names(fields.get("actions"), f"{where}.actions", self._known.actions),
            purposes=self._purposes(fields.get("purposes"), f"{where}.purposes"),
            beyond=self._purposes(fields.get("purposes_beyond"), f"{where}.purposes_beyond"),
            who=self._who(fields.get("who"), f"{where}.who"),
            masked=masked,
            masks=masks,
            group=group or 0,
            own_rows=bool(own),
        )

    def _who(self, node: Node | None, where: str) -> Who:
        fields = None if node is None else self._reader.fields(node, where, WHO_KEYS)
        if node is None or fields is None:
            return Who()
        if not fields:
            self._reader.refuse(node, MISSING_KEY, f"`{where}` says of nobody: write `without`, `with` or `where`")
        return Who(
            without=self._known_names(fields.get("without"), f"{where}.without", self._known.roles),
            holding=self._known_names(fields.get("with"), f"{where}.with", self._known.roles),
            where=self._condition(fields.get("where"), f"{where}.where"),
        )

    def _known_names(self, node: Node | None, where: str, known: Collection[str] | None) -> tuple[str, ...]:
        """Reads a list of names that are all known; an empty one would mean any, and is refused."""
        found: dict[str, Node] = {}
        items = () if node is None else self._reader.items(node, where)
        if isinstance(node, Listing) and not items:
            self._reader.refuse(
                node, WRONG_VALUE, f"`{where}` is empty, which would mean any; name some or leave it out"
            )
        for item in items:
            name = item.text if isinstance(item, Scalar) else ""
            if not name or (known is not None and name not in known):
                hint = did_you_mean(name, known or ()) or "; it must be one that the policy set declares"
                self._reader.refuse(item, UNKNOWN_NAME, f"unknown `{name}` in `{where}`{hint}")
            elif name in found:
                self._reader.refuse(item, DUPLICATE_NAME, f"`{name}` stands twice in `{where}`")
            found.setdefault(name, item)
        return tuple(found)

    def _purposes(self, node: Node | None, where: str) -> tuple[str, ...]:
        known = None if self._known.purposes is None else self._known.purposes.names
        return self._known_names(node, where, known)

    def _masks(self, node: Node | None, where: str) -> tuple[bool, tuple[MaskSpec, ...]]:
        if node is None:
            return False, ()
        if isinstance(node, Scalar) and node.text == ANY_MASK:
            return True, ()
        if not isinstance(node, Listing) or not node.items:
            self._reader.refuse(
                node, WRONG_VALUE, f"`{where}` is `{ANY_MASK}`, or a list of masks such as `[hash, 'band:10']`"
            )
            return True, ()
        specs = []
        for item in node.items:
            try:
                spec = parse_mask(item.text if isinstance(item, Scalar) else "")
            except MaskError as err:
                self._reader.refuse(item, "UNKNOWN_MASK", err.message)
                continue
            if spec.kind is MaskKind.NONE:
                self._reader.refuse(item, WRONG_VALUE, f"`none` hides nothing; leave it out of `{where}`")
            specs.append(spec)
        return False, tuple(specs)

    def _condition(self, node: Node | None, where: str) -> Condition | None:
        text = None if node is None else self._reader.text(node, where)
        if node is None or text is None:
            return None
        tree, remarks = check(text, _SCOPE)
        for remark in remarks:
            self._reader.refuse(node, remark.invariant, f"`{where}`, character {remark.offset + 1}: {remark.message}")
        if tree is None:
            return None
        for path in (it for it in walk(tree) if isinstance(it, Path)):
            self._path(node, path, where)
        return Condition(text, tree, node.line, node.column)

    def _path(self, node: Node, path: Path, where: str) -> None:
        written = ".".join(path.names)
        if len(path.names) != _CONDITION_DEPTH:
            message = f"`{where}` reads an attribute of `r.sub`, `r.ctx` or `r.row`, not `{written}`"
            self._reader.refuse(node, "UNKNOWN_ATTRIBUTE", message)
            return
        known = {"ctx": self._known.context, "row": self._known.columns}.get(path.names[1])
        if known is not None and path.names[2] not in known:
            what = "no caller may state it" if path.names[1] == "ctx" else "no dataset has such a column"
            message = f"`{where}` reads `{written}`, and {what}{did_you_mean(path.names[2], known)}"
            self._reader.refuse(node, "UNKNOWN_ATTRIBUTE", message)
