"""The rules that the demo serves: the telemetry set as it ships, with a block that asks for approvals.

Owns the copies in the folder of the story, and the people who call as themselves: who may propose and approve is in
the set `gatebook`, whose approval counts in the telemetry set, and each has a token of a throw-away issuer.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from gatebook.demo.company import POLICIES, SET_NAME, require_checkout
from gatebook.demo.processes import BrokenOffError, Processes
from gatebook.policy.bundle import SETTINGS_FILE

REQUESTER: Final = "gus"
APPROVERS: Final = ("kai", "hana")
"""The vice president and a privacy officer."""
APPROVALS: Final = """
# A change of rules waits for people: the requester is never among them.
approvals:
  approvers: [role:mci_owner, role:executive, role:privacy_officer]
  loosening: {people: 2, one_of: [role:privacy_officer]}
  tightening: {people: 1}
"""
ROLES: Final = (
    f"g, people:{REQUESTER}, role:publisher",
    *(f"g, people:{person}, role:approver" for person in (REQUESTER, *APPROVERS)),
)


class Rules(msgspec.Struct, frozen=True):
    """The folders of what is served, and of the tokens."""

    telemetry: Path
    authority: Path
    tokens: Path

    @property
    def callers(self) -> Path:
        """Returns the file that says whose tokens count."""
        return self.tokens / "callers.yaml"

    def token(self, person: str) -> Path:
        """Returns the file with the token of a person."""
        return self.tokens / f"{person}.token"


def copy_rules(folder: Path) -> Rules:
    """Copies the shipped sets into a folder, and adds what the story needs.

    Raises:
        BrokenOffError: the telemetry set is not there.
    """
    require_checkout(POLICIES)
    rules = Rules(folder / "policies" / SET_NAME, folder / "policies" / "gatebook", folder / "tokens")
    for made in (rules.telemetry, rules.authority):
        shutil.copytree(POLICIES.parent / made.name, made)
    append(rules.telemetry / SETTINGS_FILE, APPROVALS)
    append(rules.authority / "policy.csv", "".join(f"{line}\n" for line in ROLES))
    return rules


def append(path: Path, text: str) -> None:
    """Adds a text at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def make_tokens(processes: Processes, rules: Rules) -> None:
    """Gives everybody who changes rules a token of their own.

    Raises:
        BrokenOffError: the command fails.
    """
    people = [word for person in (REQUESTER, *APPROVERS) for word in ("--person", person)]
    done = processes.run("gatebook", "keys", "tokens", str(rules.tokens), *people)
    if done.returncode:
        raise BrokenOffError(f"the tokens could not be made: {done.stderr.strip()}")
