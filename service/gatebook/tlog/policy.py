"""Policies of witnesses (C2SP tlog-policy): which books and witnesses are known, and how many must have cosigned.

Owns the reading of a policy file and the question whether a checkpoint satisfies it:

1. one line each: `log <vkey> [<url>]`, `witness <name> <vkey> [<url>]`, `group <name> all|any|<k> <name>...`,
   `quorum <name>|none`; empty lines and lines that begin with `#` say nothing;
2. names are defined before they are used, once, and each is a member of one group at most;
3. no key stands twice, whatever its name, so that nobody counts for two;
4. there is exactly one quorum. What is malformed is refused: a policy that was misread would be a weaker one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from gatebook.errors import VerificationError
from gatebook.tlog.cosignature import WitnessKey
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.note import Note

POLICY_BYTES_MAX = 64 * 1024
MEMBERS_MAX = 64
"""Logs, witnesses or groups of one policy; the specification asks for at least 32 of each."""
NOBODY = "none"
_THRESHOLD = re.compile(r"[1-9][0-9]{0,3}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness of a policy: the name that the policy calls it, its key, and where it takes checkpoints."""

    name: str
    key: WitnessKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """So many of these members, which are witnesses or groups."""

    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cosigned:
    """Says which witness cosigned a checkpoint, and when (POSIX seconds)."""

    name: str
    seconds: int


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """Who must have cosigned a checkpoint that counts. Members name witnesses or groups defined before."""

    witnesses: tuple[Witness, ...] = ()
    groups: Mapping[str, Group] = field(default_factory=dict)
    quorum: str = NOBODY
    logs: tuple[VerifierKey, ...] = ()

    def satisfied_by(self, names: AbstractSet[str]) -> bool:
        """Tells whether these witnesses are enough."""
        met = set(names & {witness.name for witness in self.witnesses})
        for name, group in self.groups.items():  # in the order of their definitions, members first
            if sum(member in met for member in group.members) >= group.needed:
                met.add(name)
        return self.quorum == NOBODY or self.quorum in met

    def require_apart(self, key: VerifierKey) -> WitnessPolicy:
        """Returns the policy as it is, where no witness is the book with this key itself.

        Raises:
            VerificationError: one signs with the key of the book, and so says nothing that the book does not.
        """
        _require_different(
            [
                ("log", key.name, key.public_key),
                *(("witness", each.name, each.key.public_key) for each in self.witnesses),
            ]
        )
        return self

    def cosigners(self, note: Note) -> tuple[Cosigned, ...]:
        """Returns which witnesses of the policy cosigned a note, enough or not.

        Raises:
            VerificationError: a cosignature of one of them is false.
        """
        times = ((witness.name, witness.key.time_on(note)) for witness in self.witnesses)
        return tuple(Cosigned(name, seconds) for name, seconds in times if seconds is not None)

    def require(self, note: Note) -> tuple[Cosigned, ...]:
        """Returns which witnesses cosigned a note, once they are enough.

        Raises:
            VerificationError: they are not, or a cosignature of one of them is false.
        """
        cosigned = self.cosigners(note)
        if not self.satisfied_by({each.name for each in cosigned}):
            found = ", ".join(f"`{each.name}`" for each in cosigned) or "none"
            raise VerificationError(f"too few witnesses cosigned the checkpoint: {found}, and {self.told()} is needed")
        return cosigned

    def told(self) -> str:
        """Says what is needed, in words."""
        group = self.groups.get(self.quorum)
        if group is None:
            return "nobody" if self.quorum == NOBODY else f"`{self.quorum}`"
        return f"{group.needed} of " + ", ".join(f"`{name}`" for name in group.members)


def any_of(keys: Iterable[WitnessKey], needed: int | None = None, urls: Sequence[str] = ()) -> WitnessPolicy:
    """Returns the policy that so many of these witnesses suffice, or all of them.

    Raises:
        VerificationError: a key stands twice, or more are needed than there are.
    """
    found = tuple(keys)
    places = [*urls, *[""] * (len(found) - len(urls))]
    witnesses = tuple(Witness(key.name, key, url) for key, url in zip(found, places, strict=True))
    _require_different([("witness", each.name, each.key.public_key) for each in witnesses])
    if len({each.name for each in witnesses}) < len(witnesses):
        raise VerificationError("two witnesses have one name: give each its own")
    if needed is not None and not 0 <= needed <= len(witnesses):
        raise VerificationError(f"{needed} witnesses are needed, and {len(witnesses)} are named")
    count = len(witnesses) if needed is None else needed
    if not count:
        return WitnessPolicy(witnesses)
    return WitnessPolicy(witnesses, {"+witnesses": Group(count, tuple(each.name for each in witnesses))}, "+witnesses")


def parse_policy(content: bytes) -> WitnessPolicy:
    """Returns the policy in a file.

    Raises:
        VerificationError: it is malformed; the message names the line.
    """
    if len(content) > POLICY_BYTES_MAX:
        raise VerificationError(f"a policy of witnesses has at most {POLICY_BYTES_MAX} bytes")
    text = content.decode("utf-8", "surrogateescape")  # names are bytes to the specification
    if _CONTROL.search(text):
        raise VerificationError("the policy of witnesses has a control character")
    reading = _Reading()
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if words and not words[0].startswith("#"):
            try:
                reading.take(words)
            except VerificationError as err:
                raise VerificationError(f"line {number} of the policy of witnesses: {err.message}") from err
    return reading.policy()


class _Reading:
    """What was read of a policy so far."""

    def __init__(self) -> None:
        self._logs: list[VerifierKey] = []
        self._witnesses: dict[str, Witness] = {}
        self._groups: dict[str, Group] = {}
        self._grouped: set[str] = set()
        self._quorum = ""

    def take(self, words: list[str]) -> None:
        """Takes one line."""
        match words:
            case ["log", key] | ["log", key, _]:
                self._logs.append(VerifierKey.parse(key))
            case ["witness", name, key]:
                self._witnesses[self._new(name)] = Witness(name, WitnessKey.parse(key))
            case ["witness", name, key, url]:
                self._witnesses[self._new(name)] = Witness(name, WitnessKey.parse(key), url)
            case ["group", name, needed, *members] if members:
                self._groups[self._new(name)] = self._group(needed, members)
            case ["quorum", name]:
                if self._quorum:
                    raise VerificationError("there is a quorum already")
                if name != NOBODY:
                    self._known(name)
                self._quorum = name
            case _:
                raise VerificationError("it is no `log`, `witness`, `group` or `quorum` as C2SP tlog-policy has them")
        if max(len(self._logs), len(self._witnesses), len(self._groups)) > MEMBERS_MAX:
            raise VerificationError(f"there are more than {MEMBERS_MAX} of a kind")

    def policy(self) -> WitnessPolicy:
        """Returns what was read, once it is complete."""
        if not self._quorum:
            raise VerificationError("the policy of witnesses has no `quorum`")
        keys = [("log", each.name, each.public_key) for each in self._logs]
        witnesses = tuple(self._witnesses.values())
        _require_different(keys)
        _require_different([("witness", each.name, each.key.public_key) for each in witnesses])
        return WitnessPolicy(witnesses, self._groups, self._quorum, tuple(self._logs))

    def _new(self, name: str) -> str:
        if name == NOBODY or name in self._witnesses or name in self._groups:
            raise VerificationError(f"the name `{name!a}` is taken")
        return name

    def _known(self, name: str) -> str:
        if name not in self._witnesses and name not in self._groups:
            raise VerificationError(f"`{name!a}` is not defined above")
        return name

    def _group(self, needed: str, members: list[str]) -> Group:
        for member in members:
            if self._known(member) in self._grouped:
                raise VerificationError(f"`{member!a}` is a member already")
            self._grouped.add(member)
        count = {"all": len(members), "any": 1}.get(needed)
        if count is None:
            if _THRESHOLD.fullmatch(needed) is None or int(needed) > len(members):
                raise VerificationError(f"`{needed!a}` is not `all`, `any` or a number up to {len(members)}")
            count = int(needed)
        return Group(count, tuple(members))


def _require_different(keys: Sequence[tuple[str, str, bytes]]) -> None:
    """Refuses two entries with one public key: one signer must not count for two."""
    seen: dict[bytes, str] = {}
    for kind, name, public_key in keys:
        if public_key in seen:
            raise VerificationError(f"{kind} `{name}` has the key of `{seen[public_key]}`: each needs its own")
        seen[public_key] = name
