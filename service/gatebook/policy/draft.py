"""A policy set that has been read and not yet accepted."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gatebook.policy.catalogue import Catalogue
from gatebook.policy.model import Model
from gatebook.policy.purposes import Purposes
from gatebook.policy.settings import Settings
from gatebook.values import Edge, Rule


class Draft(msgspec.Struct, frozen=True):
    """The parts of a policy set, each free of findings of its own; only `lint` sees drafts."""

    model: Model
    rules: tuple[Rule, ...]
    edges: tuple[Edge, ...]
    settings: Settings
    catalogue: Catalogue | None
    purposes: Purposes | None
    files: Mapping[str, bytes]

    @property
    def is_governed(self) -> bool:
        """Tells whether the set has a catalogue."""
        return self.catalogue is not None
