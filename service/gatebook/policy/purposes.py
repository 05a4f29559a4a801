"""`purposes.yaml`: the tree of purposes, and whose consent each needs.

Owns the purposes of one policy set. Rules:

1. a purpose is a dotted name; `a.b` is a child of `a`, which must be declared too, and every
   purpose lies below the root `*`;
2. a child satisfies a grant of its parent, never the reverse (design section 5.6);
3. `consent` is `none`, `opt_out` or `opt_in`; a child inherits it unless it says otherwise, and a
   root must say it: silence is no consent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from gatebook.policy import names
from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_nodes import Node, Scalar
from gatebook.policy.yaml_reader import MISSING_KEY, UNKNOWN_NAME, Reader
from gatebook.values import Edge, Finding

ROOT: Final = names.EVERYTHING
PURPOSES_MAX = 10_000


class ConsentMode(enum.StrEnum):
    """What a purpose needs of the people whom a row is about."""

    NONE = "none"
    OPT_OUT = "opt_out"
    OPT_IN = "opt_in"


class Purpose(msgspec.Struct, frozen=True):
    """One purpose; `consent` is what it comes to after inheritance, `line` where it is declared."""

    name: str
    consent: ConsentMode
    description: str = ""
    line: int = 0

    @property
    def parent(self) -> str:
        """Returns the parent purpose, or the root."""
        return names.parent_of(self.name) or ROOT


class Purposes(msgspec.Struct, frozen=True):
    """The purpose tree of a policy set."""

    purposes: Mapping[str, Purpose]
    file: str = ""

    def __contains__(self, purpose: object) -> bool:
        """Tells whether the purpose is declared. The root is no purpose that a request may name."""
        return purpose in self.purposes

    @property
    def names(self) -> tuple[str, ...]:
        """Returns every purpose, in the order of the file."""
        return tuple(self.purposes)

    def consent_mode(self, purpose: str) -> ConsentMode:
        """Returns what the purpose needs; an unknown one needs the most."""
        known = self.purposes.get(purpose)
        return ConsentMode.OPT_IN if known is None else known.consent

    def lineage(self, purpose: str) -> tuple[str, ...]:
        """Returns the purpose and its ancestors up to the root; nothing when it is unknown."""
        if purpose not in self.purposes:
            return ()
        parts = purpose.split(".")
        return (*(".".join(parts[:length]) for length in range(len(parts), 0, -1)), ROOT)

    def edges(self) -> Iterator[Edge]:
        """Yields the g3 edges: each purpose below its parent."""
        for purpose in self.purposes.values():
            yield Edge("g3", purpose.name, purpose.parent, file=self.file, line=purpose.line)


def parse_purposes(text: str, file: str) -> tuple[Purposes | None, list[Finding]]:
    """Reads `purposes.yaml`.

    Returns:
        The purposes, or None when there is a finding, and all findings by line and column.
    """
    reader = Reader(file)
    root = reader.root(text)
    found = None if root is None else reader.fields(root, file, ("purposes",), ("purposes",))
    if found is None or "purposes" not in found:
        return None, reader.sorted_findings()
    declared = _declared(reader, found["purposes"])
    purposes = _inherit(reader, declared)
    return None if reader.failed else Purposes(purposes, file), reader.sorted_findings()


class _Declared(msgspec.Struct):
    """A purpose as it stands in the file: its consent is not inherited yet."""

    key: Scalar
    consent: ConsentMode | None
    description: str


def _declared(reader: Reader, node: Node) -> Mapping[str, _Declared]:
    declared: dict[str, _Declared] = {}
    for key, value in reader.entries(node, "purposes"):
        name = reader.name(key, "purposes", names.PURPOSE, "model_training.evaluation")
        fields: Mapping[str, Node] | None = {}
        if not (isinstance(value, Scalar) and value.value is None):
            fields = reader.fields(value, f"purposes.{key.text}", ("consent", "description"))
        if name is None or fields is None:
            continue
        consent = _consent(reader, fields.get("consent"), name)
        description = reader.text(fields["description"], f"{name}.description") if "description" in fields else ""
        declared[name] = _Declared(key, consent, description or "")
        if len(declared) > PURPOSES_MAX:
            reader.refuse(key, "TOO_MANY", f"a policy set has at most {PURPOSES_MAX:,} purposes")
            break
    return declared


def _consent(reader: Reader, node: Node | None, purpose: str) -> ConsentMode | None:
    if node is None:
        return None
    word = reader.choice(node, f"{purpose}.consent", tuple(mode.value for mode in ConsentMode))
    # After a finding the strictest mode stands in, so that children do not add findings of their own.
    return ConsentMode(word) if word is not None else ConsentMode.OPT_IN


def _inherit(reader: Reader, declared: Mapping[str, _Declared]) -> Mapping[str, Purpose]:
    """Gives every purpose its consent; parents come first whatever the order of the file."""
    consents: dict[str, ConsentMode] = {}
    for name in sorted(declared, key=lambda name: name.count(".")):
        own, parent = declared[name], names.parent_of(name)
        if parent and parent not in declared:
            hint = did_you_mean(parent, declared) or "; declare it as well"
            reader.refuse(own.key, UNKNOWN_NAME, f"the parent `{parent}` of `{name}` is not declared{hint}")
        if own.consent is None and not parent:
            reader.refuse(own.key, MISSING_KEY, f"`{name}` lacks `consent`: write `none`, `opt_out` or `opt_in`")
        consents[name] = own.consent or consents.get(parent, ConsentMode.OPT_IN)
    return {name: Purpose(name, consents[name], own.description, own.key.line) for name, own in declared.items()}
