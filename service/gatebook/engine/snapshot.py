"""The immutable state that one decision reads: policy revision, directory revision, compiled program.

Owns nothing that changes but for bounded memos, which change no answer. A new snapshot is built aside,
validated, and swapped in by one reference; a request holds one snapshot from its first step to its last, so
it never sees two revisions.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gatebook.compiler.program import Program, compile_program
from gatebook.engine.mask_keys import mask_key_ids
from gatebook.engine.recall import Recall
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.catalogue import role_parents
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Revision


class Snapshot(msgspec.Struct, frozen=True, weakref=True):
    """One policy set under one directory, ready to decide.

    `resources` and `actions` are the names that the policy set itself uses: only they may stand in
    clear in the book. `mask_key_ids` names the key of `hash` for each purpose, and for "".
    `role_parents` says which roles each role inherits directly. `recall` remembers what follows from verdicts.
    `not_proved` names, by dataset and action, who is not proved to be within a ceiling that the directory exceeds.
    """

    policy_set: PolicySet
    policy_revision: Revision
    program: Program
    directory: Directory | None
    directory_revision: Revision | None
    mask_key_ids: Mapping[str, str]
    resources: frozenset[str]
    actions: frozenset[str]
    role_parents: Mapping[str, frozenset[str]]
    recall: Recall
    not_proved: Mapping[tuple[str, str], frozenset[str]] = {}

    @property
    def governed(self) -> bool:
        """Tells whether the set has a catalogue, purposes and a directory."""
        return self.policy_set.catalogue is not None


def build_snapshot(
    policy_set: PolicySet,
    policy_revision: Revision,
    directory: Directory | None,
    directory_revision: Revision | None,
    *,
    mask_master: bytes,
    pause: Pause = no_pause,
) -> Snapshot:
    """Compiles a policy set into a snapshot. A plain set has no directory.

    Raises:
        PolicySetRefusedError: the compiler does not understand a rule.
    """
    if policy_set.catalogue is None:
        directory = directory_revision = None
    purposes = () if policy_set.purposes is None else tuple(policy_set.purposes.names)
    return Snapshot(
        policy_set=policy_set,
        policy_revision=policy_revision,
        program=compile_program(policy_set, directory, pause),
        directory=directory,
        directory_revision=directory_revision,
        mask_key_ids=mask_key_ids(mask_master, policy_set.name, purposes),
        resources=_resources(policy_set, pause),
        actions=_actions(policy_set, pause),
        role_parents=role_parents(paced(policy_set.edges, pause)),
        recall=Recall(),
    )


def _resources(policy_set: PolicySet, pause: Pause) -> frozenset[str]:
    if policy_set.catalogue is not None:
        return frozenset(policy_set.catalogue.datasets)
    return _values_of(policy_set, "obj", pause)


def _actions(policy_set: PolicySet, pause: Pause) -> frozenset[str]:
    if policy_set.catalogue is not None:
        return frozenset(policy_set.settings.actions)
    return _values_of(policy_set, "act", pause)


def _values_of(policy_set: PolicySet, token: str, pause: Pause) -> frozenset[str]:
    key = policy_set.sections.rules
    definition = policy_set.model.policies[key].tokens
    if token not in definition:
        return frozenset()
    position = definition.index(token)
    return frozenset(rule.fields[position] for rule in paced(policy_set.rules, pause) if rule.ptype == key)
