"""How a draft is judged under what is active: here, or, where it is large or to be proved, in a process of its own.

Owns the one path by which a publish, a rehearsal and an approval look at a draft. Where somebody must know what it
changes, because approvals are asked for or its publisher administers zones alone, it is compared too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

import msgspec

from gatebook.errors import InvalidRequestError
from gatebook.governance.zones import zone_findings
from gatebook.policy import bundle, gatebook_set
from gatebook.policy.approval_rules import ApprovalRules
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.settings import is_set_name, parse_settings
from gatebook.revisions.active import Revisions
from gatebook.revisions.aside import Aside, Compared, is_large
from gatebook.revisions.guarded import must_be_proved, proof_digest, remember
from gatebook.revisions.keepers import lockout
from gatebook.revisions.publisher import THE_SERVICE, Publisher
from gatebook.revisions.separation import separates
from gatebook.revisions.validate import Validation, compared, declared_name, validate
from gatebook.values import Finding, Revision


class Judging:
    """Judges drafts, one large one at a time."""

    def __init__(self, revisions: Revisions) -> None:
        """Takes the active revisions."""
        self._revisions = revisions
        self._aside = Aside()
        self._turn = asyncio.Lock()  # one large draft at a time: each takes much memory

    def close(self) -> None:
        """Ends what is being judged."""
        self._aside.close()

    def rules_of(self, files: Mapping[str, bytes], name: str) -> ApprovalRules | None:
        """Returns which approvals a draft needs: what the active revision says, else, where none is, what it says."""
        active = self._revisions.state.policy_sets.get(name)
        if active is not None:
            return active.settings.approvals
        return asked_by(files)

    async def judge(
        self, files: Mapping[str, bytes], name: str, now: datetime, publisher: Publisher | None = None
    ) -> Validation:
        """Judges a draft, for whoever would publish it.

        Raises:
            PermissionDeniedError: the publisher may not publish it.
            InvalidRequestError: no set can have this name.
        """
        name = declared_name(files, name)
        if publisher is not None:
            publisher.require(gatebook_set.POLICY_SET, name)
        if not is_set_name(name):
            message = f"`{name}` is no name of a policy set: use lower-case letters, digits, `_` and `-`"
            raise InvalidRequestError("policy_set", message)
        confined = publisher is not None and publisher.is_confined(gatebook_set.POLICY_SET, name)
        compare = confined or self.rules_of(files, name) is not None
        found = await self._found(files, name, now, compare=compare, starting=publisher is THE_SERVICE)
        if publisher is None:
            return found
        if confined and found.changes is not None:
            more = zone_findings(self._revisions.state.policy_sets.get(name), self._roles(publisher), found.changes)
            found = msgspec.structs.replace(found, findings=tuple(sorted((*found.findings, *more))))
        if name != gatebook_set.GATEBOOK or found.program is None or publisher.keeps_right(found.program):
            return found
        return msgspec.structs.replace(found, findings=tuple(sorted((*found.findings, lockout(publisher.id)))))

    async def separated(self, directory: Mapping[str, bytes], now: datetime) -> tuple[Finding, ...]:
        """Returns who of a directory that is to be published has both of what an active set keeps separate."""
        state, findings = self._revisions.state, list[Finding]()
        for name, policy_set in state.policy_sets.items():
            if separates(policy_set):
                async with self._turn:
                    findings += await asyncio.to_thread(self._separated_aside, policy_set, name, directory, now)
        return tuple(findings)

    def _separated_aside(
        self, policy_set: PolicySet, name: str, directory: Mapping[str, bytes], now: datetime
    ) -> tuple[Finding, ...]:
        active = self._revisions.state.directory_revision
        before = None if active is None else self._revisions.store.get_directory(active.digest)
        return self._aside.separated(policy_set.files, name, directory, before, now, self._revisions.state.lineage)

    def _roles(self, publisher: Publisher) -> frozenset[str]:
        """Returns the roles that a publisher has in the directory itself."""
        directory, who = self._revisions.state.directory, publisher.subject
        subject = None if directory is None or who is None else directory.find(who.type, who.id)
        return frozenset() if subject is None else frozenset(subject.groups)

    async def _found(
        self, files: Mapping[str, bytes], name: str, now: datetime, *, compare: bool, starting: bool
    ) -> Validation:
        state = self._revisions.state
        people = "" if state.directory is None else state.directory.digest
        unproved = await asyncio.to_thread(
            lambda: must_be_proved(files, proof_digest(bundle.digest(files), state.lineage), people)
        )
        # At a start nobody is answered yet, who could wait for a proof. Of a call it ends after a time, aside alone.
        unproved = unproved and not (starting and state.policy_sets.keys() <= {gatebook_set.GATEBOOK})
        if name == gatebook_set.GATEBOOK or not (unproved or is_large(files, state.directory)):
            found = await asyncio.to_thread(
                validate, files, name, directory=state.directory, now=now, lineage=state.lineage
            )
            if not compare:
                return found
            base = state.policy_sets.get(name)
            return await asyncio.to_thread(compared, found, base, state.directory, now, state.lineage)
        async with self._turn:
            found = await asyncio.to_thread(self._found_aside, files, name, state.directory_revision, now, compare)
        if found.readable:
            remember(proof_digest(found.digest, state.lineage), people, found.findings)
        return found

    def _found_aside(
        self,
        files: Mapping[str, bytes],
        name: str,
        directory: Revision | None,
        now: datetime,
        compare: bool,  # noqa: FBT001  # called in one place, on a thread
    ) -> Validation:
        people = bundle.CATALOGUE_FILE in files or asked_by(files) is not None
        subjects = self._revisions.store.get_directory(directory.digest) if people and directory else None
        base = None
        if compare:
            active = self._revisions.state.policy_sets.get(name)
            base = Compared(None if active is None else active.files)
        return self._aside.validate(files, name, subjects, now, base, self._revisions.state.lineage)


def asked_by(files: Mapping[str, bytes]) -> ApprovalRules | None:
    """Returns which approvals a set asks for by its own files."""
    content = files.get(bundle.SETTINGS_FILE, b"").decode(errors="replace")
    settings, _ = parse_settings(content, bundle.SETTINGS_FILE)
    return None if settings is None else settings.approvals
