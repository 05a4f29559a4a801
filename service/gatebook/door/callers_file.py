"""`callers.yaml`: whose certificates and tokens a server accepts.

Owns the format of the file (its JSON schema: `schemas/callers.schema.json`). It says who somebody is; what they
may do is in the policy set `gatebook`:

    certificates:                        # of clients, signed by the CA of `--client-ca`
      trust_domains: [corp.example]      # SPIFFE; "*" stands for all that the CA has signed
      common_names: [nightly-report]     # of certificates without a SPIFFE id; "*" likewise
    issuers:                             # of tokens (JWT); the name begins the caller's id: `corp:farah`
      corp:
        issuer: https://id.corp.example  # what `iss` says, to the letter
        audiences: [gatebook]            # one of which `aud` names
        algorithms: [ES256]              # the only ones accepted; no shared secrets, and never `none`
        jwks: https://id.corp.example/keys   # or a file, by its path from this file's folder
        jwks_ca: ca.pem                  # and, all optional: the CA of that address, and these with their defaults
        clock_skew_seconds: 30
        age_seconds_max: 86400           # the oldest token, by its `iat`, which it must have
        types: [JWT, at+jwt]             # what `typ` may say; without this key, also nothing at all
        required_claims: {tenant: corp}  # a claim and what it must be, or `true` for anything but none
        attributes: {team: team}         # an attribute of the caller, and the claim that it comes from
        groups: groups                   # the claim with the caller's groups: the attribute `groups`
        subject: {type: employee, claim: sub}   # which subject the caller is, so that they may ask for themselves
    quotas:                              # of callers, by their ids, in place of what everybody has; `local` too
      spiffe://corp.example/batch: {checks_per_second: 50000, calls_in_flight: 1000}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from gatebook.config import LOCAL_QUOTA, Quota, is_loopback
from gatebook.door.caller import LOCAL
from gatebook.door.certificates import Accepted
from gatebook.policy import names
from gatebook.policy.source import read_text
from gatebook.policy.yaml_nodes import Node, Scalar
from gatebook.policy.yaml_reader import WRONG_VALUE, Reader, shown
from gatebook.values import Finding

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a key that only the issuer has. A shared secret (HS256) would let every reader of it sign."""
CLOCK_SKEW_SECONDS = 30
CLOCK_SKEW_SECONDS_MAX = 300
AGE_SECONDS = 86_400
AGE_SECONDS_MAX = 366 * 86_400
ISSUERS_MAX = 32
QUOTA_MAX: Final = 1_000_000_000
_CALLER_ID: Final = re.compile(r"[!-~]{1,256}")
RESERVED_NAMES: Final = frozenset(("cn", "local", "spiffe"))
"""They begin the ids of other kinds of callers."""
RESERVED_ATTRIBUTES: Final = names.RESERVED_ATTRIBUTES | {"kind", "groups", "subject_type", "subject_id"}
"""What the rules of `policies/gatebook` read of every caller."""

_ISSUER_KEYS = (
    "issuer",
    "audiences",
    "algorithms",
    "jwks",
    "jwks_ca",
    "clock_skew_seconds",
    "age_seconds_max",
    "types",
    "required_claims",
    "attributes",
    "groups",
    "subject",
)
_REQUIRED_KEYS = ("issuer", "audiences", "algorithms", "jwks")
_ISSUER_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TRUST_DOMAIN = re.compile(r"\*|[a-z0-9._-]{1,255}")
_COMMON_NAME = re.compile(r"[\x21\x24-\x2b\x2d-\x5f\x61-\x7e]{1,64}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_CLAIM = re.compile(r"[\x21-\x7e]+")
_TYPE = re.compile(r"[A-Za-z0-9+./-]+")


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens count, and how."""

    name: str
    issuer: str
    audiences: tuple[str, ...]
    algorithms: frozenset[str]
    jwks: Path | str
    """A file, or an address (`https`, or `http` on loopback)."""
    jwks_ca: Path | None = None
    clock_skew_seconds: int = CLOCK_SKEW_SECONDS
    age_seconds_max: int = AGE_SECONDS
    types: frozenset[str] = frozenset()
    """In small letters; empty for `jwt`, `at+jwt` and none."""
    required_claims: Mapping[str, str | int | bool] = {}
    attributes: Mapping[str, str] = {}
    groups: str = ""
    subject_type: str = ""
    """Empty where a caller is nobody of the directory."""
    subject_claim: str = "sub"


class CallersFile(msgspec.Struct, frozen=True):
    """Whose certificates and tokens a server accepts."""

    certificates: Accepted = Accepted()
    issuers: tuple[Issuer, ...] = ()
    quotas: Mapping[str, Quota] = {}
    """Of callers who have one of their own, by their ids."""


def parse_callers(content: bytes, file: str, folder: Path) -> tuple[CallersFile | None, list[Finding]]:
    """Reads `callers.yaml`; paths in it are relative to the folder.

    Returns:
        What the file says, or None when there is a finding, and all findings by line and column.
    """
    text, findings = read_text(file, content)
    if text is None or findings:
        return None, findings
    reader = _CallersReader(file, folder)
    root = reader.root(text)
    found = None if root is None else reader.fields(root, file, ("certificates", "issuers", "quotas"))
    if found is None:
        return None, reader.sorted_findings()
    read = CallersFile(
        reader.accepted(found.get("certificates")),
        reader.issuers(found.get("issuers")),
        reader.quotas(found.get("quotas")),
    )
    return None if reader.failed else read, reader.sorted_findings()


class _CallersReader(Reader):
    """Reads the three parts of the file."""

    def __init__(self, file: str, folder: Path) -> None:
        super().__init__(file)
        self._folder = folder

    def accepted(self, node: Node | None) -> Accepted:
        """Returns whose certificates count."""
        found = None if node is None else self.fields(node, "certificates", ("trust_domains", "common_names"))
        if found is None:
            return Accepted()
        domains = self._listed(found.get("trust_domains"), "certificates.trust_domains", _TRUST_DOMAIN, "corp.example")
        common = self._listed(found.get("common_names"), "certificates.common_names", _COMMON_NAME, "nightly-report")
        return Accepted(frozenset(domains), frozenset(common))

    def issuers(self, node: Node | None) -> tuple[Issuer, ...]:
        """Returns whose tokens count."""
        read: dict[str, Issuer] = {}
        for key, value in () if node is None else self.entries(node, "issuers"):
            name = self.name(key, "issuers", _ISSUER_NAME, "corp")
            issuer = self._issuer(name or key.text, value)
            if name in RESERVED_NAMES:
                self.refuse(key, WRONG_VALUE, f"`{name}` begins the ids of other callers; choose another name")
            elif name is not None and issuer is not None:
                if any(issuer.issuer == other.issuer for other in read.values()):
                    self.refuse(value, WRONG_VALUE, f"`{issuer.issuer}` stands twice in `issuers`; keep one of them")
                read[name] = issuer
        if node is not None and len(read) > ISSUERS_MAX:
            self.refuse(node, WRONG_VALUE, f"more than {ISSUERS_MAX} issuers")
        return tuple(read.values())

    def quotas(self, node: Node | None) -> Mapping[str, Quota]:
        """Returns the quotas of callers who have one of their own; what is not said is as everybody has it."""
        read: dict[str, Quota] = {}
        for key, value in () if node is None else self.entries(node, "quotas"):
            where = f"quotas.{key.text}"
            found = self.fields(value, where, Quota.__struct_fields__) or {}
            given = {name: self.integer(one, f"{where}.{name}", 1, QUOTA_MAX) or 1 for name, one in found.items()}
            if self.name(key, "quotas", _CALLER_ID, "spiffe://corp.example/batch") is not None:
                base = LOCAL_QUOTA if key.text == LOCAL.id else Quota()
                read[key.text] = msgspec.structs.replace(base, **given)
        return read

    def _issuer(self, name: str, node: Node) -> Issuer | None:
        where = f"issuers.{name}"
        found = self.fields(node, where, _ISSUER_KEYS, _REQUIRED_KEYS)
        if found is None or any(key not in found for key in _REQUIRED_KEYS):
            return None
        issuer = self.name(found["issuer"], f"{where}.issuer", _VISIBLE, "https://id.corp.example")
        jwks = self._jwks(found["jwks"], f"{where}.jwks")
        audiences = self._listed(found["audiences"], f"{where}.audiences", _VISIBLE, "gatebook")
        algorithms = [
            self.choice(item, f"{where}.algorithms", ALGORITHMS)
            for item in self.items(found["algorithms"], f"{where}.algorithms")
        ]
        for key, values in (("audiences", audiences), ("algorithms", algorithms)):
            if not values:
                self.refuse(found[key], WRONG_VALUE, f"`{where}.{key}` names none")
        subject = found.get("subject")
        subject_type, subject_claim = ("", "sub") if subject is None else self._subject(subject, f"{where}.subject")
        if issuer is None or jwks is None:
            return None
        return Issuer(
            name=name,
            issuer=issuer,
            audiences=audiences,
            algorithms=frozenset(algorithm for algorithm in algorithms if algorithm),
            jwks=jwks,
            jwks_ca=self._path(found.get("jwks_ca"), f"{where}.jwks_ca"),
            clock_skew_seconds=self._seconds(
                found, where, "clock_skew_seconds", 0, CLOCK_SKEW_SECONDS_MAX, CLOCK_SKEW_SECONDS
            ),
            age_seconds_max=self._seconds(found, where, "age_seconds_max", 1, AGE_SECONDS_MAX, AGE_SECONDS),
            types=frozenset(t.lower() for t in self._listed(found.get("types"), f"{where}.types", _TYPE, "at+jwt")),
            required_claims=self._required(found.get("required_claims"), f"{where}.required_claims"),
            attributes=self._attributes(found.get("attributes"), f"{where}.attributes"),
            groups=self._claim(found.get("groups"), f"{where}.groups"),
            subject_type=subject_type,
            subject_claim=subject_claim,
        )

    def _jwks(self, node: Node, where: str) -> Path | str | None:
        text = self.text(node, where)
        if text is None:
            return None
        if "://" not in text:
            return self._folder / text
        address = _split(text)
        secure = address is not None and (
            address.scheme == "https" or (address.scheme == "http" and is_loopback(address.hostname or ""))
        )
        if address is None or not address.hostname or not secure or address.username or address.fragment:
            self.refuse(node, WRONG_VALUE, f"`{where}` must be a file or an https address (http on loopback only)")
            return None
        return text

    def _path(self, node: Node | None, where: str) -> Path | None:
        text = None if node is None else self.text(node, where)
        return None if text is None else self._folder / text

    def _seconds(self, found: Mapping[str, Node], where: str, key: str, least: int, most: int, default: int) -> int:
        node = found.get(key)
        return default if node is None else self.integer(node, f"{where}.{key}", least, most) or 0

    def _subject(self, node: Node, where: str) -> tuple[str, str]:
        found = self.fields(node, where, ("type", "claim"), ("type",)) or {}
        kind = "" if "type" not in found else self.name(found["type"], f"{where}.type", names.WORD, "employee") or ""
        return kind, self._claim(found.get("claim"), f"{where}.claim") or "sub"

    def _required(self, node: Node | None, where: str) -> Mapping[str, str | int | bool]:
        required: dict[str, str | int | bool] = {}
        for key, value in () if node is None else self.entries(node, where):
            claim = self.name(key, where, _CLAIM, "tenant")
            wanted = value.value if isinstance(value, Scalar) else None
            if wanted is None or isinstance(wanted, float) or wanted is False:
                message = (
                    f"`{where}.{key.text}` must be text, a whole number, or `true` for any value, not {shown(value)}"
                )
                self.refuse(value, WRONG_VALUE, message)
            elif claim is not None:
                required[claim] = wanted
        return required

    def _attributes(self, node: Node | None, where: str) -> Mapping[str, str]:
        attributes: dict[str, str] = {}
        for key, value in () if node is None else self.entries(node, where):
            attribute = self.name(key, where, names.ATTRIBUTE, "team")
            claim = self._claim(value, f"{where}.{key.text}")
            if attribute in RESERVED_ATTRIBUTES:
                self.refuse(key, WRONG_VALUE, f"`{attribute}` has a meaning of its own; choose another name")
            elif attribute is not None and claim:
                attributes[attribute] = claim
        return attributes

    def _claim(self, node: Node | None, where: str) -> str:
        return "" if node is None else self.name(node, where, _CLAIM, "sub") or ""

    def _listed(self, node: Node | None, where: str, pattern: re.Pattern[str], example: str) -> tuple[str, ...]:
        return () if node is None else tuple(name for name, _ in self.names(node, where, pattern, example))


def _split(text: str) -> SplitResult | None:
    try:
        address = urlsplit(text)
        address.port  # noqa: B018  # raises where it is none
    except ValueError:
        return None
    return address
